package service

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hard is a folder whose name every format must take care of.
const hard = `a b%h$HOME"q\n<&>`

func options(t *testing.T, system string) Options {
	t.Helper()
	home := filepath.Join(t.TempDir(), hard)
	program := filepath.Join(t.TempDir(), "a b%h$HOME<&>")
	return Options{
		System: system, Env: map[string]string{"HOME": home, "BEVY_HOME": home, "XDG_DATA_HOME": "relative", "BEVY_BOOTSTRAP": "node.example:49737"}, UID: 1000, Program: program,
		State: filepath.Join(home, "state"), Socket: filepath.Join(home, "state", "bevy.sock"), Port: 7070, IPv6: true,
	}
}

// recorder is a manager that writes down what it is told.
type recorder struct {
	told []string
	fail string // commands that have this
}

func (r *recorder) run(_ context.Context, args []string) ([]byte, error) {
	line := strings.Join(args, " ")
	r.told = append(r.told, line)
	if r.fail != "" && strings.Contains(line, r.fail) {
		return []byte("no such thing\n"), errors.New("exit status 1")
	}
	return nil, nil
}

func install(t *testing.T, o Options, r *recorder) []string {
	t.Helper()
	plan, err := Install(o)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := plan.Apply(t.Context(), r.run)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func TestInstallTwiceChangesNothingAndUninstallUndoesIt(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		o, r := options(t, system), new(recorder)
		first := install(t, o, r)
		if len(first) == 0 {
			t.Fatalf("%s: nothing was written", system)
		}
		if again := install(t, o, r); len(again) != 0 {
			t.Errorf("%s: a second time changes %q", system, again)
		}
		s, err := Status(t.Context(), o, r.run)
		if err != nil || !s.Installed || !s.Current || !s.Running || !slices.Equal(s.Files, first) {
			t.Errorf("%s: status is %+v, %v", system, s, err)
		}
		moved := o
		moved.Program += "2"
		if s, err := Status(t.Context(), moved, r.run); err != nil || s.Current {
			t.Errorf("%s: another program is current too: %+v, %v", system, s, err)
		}
		plan, err := Uninstall(o)
		if err != nil {
			t.Fatal(err)
		}
		r.fail = "bootout" // nothing is loaded: that is fine
		gone, err := plan.Apply(t.Context(), r.run)
		if err != nil || !slices.Equal(gone, first) {
			t.Errorf("%s: uninstall took away %q, %v", system, gone, err)
		}
		for _, name := range first {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("%s: %s is still there", system, name)
			}
		}
		if gone, err := plan.Apply(t.Context(), r.run); err != nil || len(gone) != 0 {
			t.Errorf("%s: uninstall again: %q, %v", system, gone, err)
		}
	}
}

func TestPortStaysWhenInstalledAgain(t *testing.T) {
	o, r := options(t, "linux"), new(recorder)
	install(t, o, r)
	o.Port = 7071 // what is free while the unit has the other one
	if changed := install(t, o, r); len(changed) != 0 {
		t.Errorf("changed %q", changed)
	}
}

func TestAManagerThatFailsIsToldOf(t *testing.T) {
	o := options(t, "linux")
	plan, err := Install(o)
	if err != nil {
		t.Fatal(err)
	}
	changed, err := plan.Apply(t.Context(), (&recorder{fail: "enable"}).run)
	var failed *CommandError
	if !errors.As(err, &failed) || failed.Output != "no such thing" || len(changed) != 2 {
		t.Errorf("got %q, %v", changed, err)
	}
}

func TestNoUnitForAProgramThatIsGoneSoon(t *testing.T) {
	o := options(t, "linux")
	o.Program = "/tmp/go-build123/b001/exe/bevy"
	if _, err := Install(o); err == nil || !strings.Contains(err.Error(), "go install") {
		t.Errorf("got %v", err)
	}
	o.Program = `/opt/"bevy"`
	if _, err := Install(o); err == nil || !strings.Contains(err.Error(), "quotes") {
		t.Errorf("got %v", err)
	}
	for _, system := range []string{"windows", "plan9"} {
		o := options(t, system)
		if _, err := Install(o); !errors.Is(err, ErrSystem) {
			t.Errorf("%s: got %v", system, err)
		}
	}
}

// systemd itself reads the units, and finds nothing to complain about.
func TestSystemdTakesTheUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze here")
	}
	o, r := options(t, "linux"), new(recorder)
	files := install(t, o, r)
	if err := os.WriteFile(o.Program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	verify := func() (string, error) {
		cmd := exec.Command(analyze, append([]string{"--user", "verify"}, files...)...)
		cmd.Env = append(os.Environ(), "HOME="+o.Env["HOME"], "XDG_CONFIG_HOME=", "XDG_RUNTIME_DIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := verify(); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[1], []byte(strings.Replace(string(b), "Type=notify", "Type=notfy", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := verify(); !strings.Contains(out, "notfy") {
		t.Errorf("a wrong unit is taken too: %q", out)
	}
}

func TestAgentIsXMLWithThePlaces(t *testing.T) {
	o := options(t, "darwin")
	plan, err := Install(o)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	d := xml.NewDecoder(strings.NewReader(plan.Files[0].Text))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := token.(xml.CharData); ok {
			texts = append(texts, string(text))
		}
	}
	for _, want := range []string{o.Program, o.Env["BEVY_HOME"], "BEVY_BOOTSTRAP", "node.example:49737", agent, filepath.Join(o.State, "launchd.log")} {
		if !slices.Contains(texts, want) {
			t.Errorf("%q is not in the agent", want)
		}
	}
}
