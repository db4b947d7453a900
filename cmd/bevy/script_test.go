package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden texts of the scripts; read the diff")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bevy": main, "aws": awsMain, "web": webMain})
}

// TestScripts runs the sessions in testdata/script, each in a folder of its own
// and with the real command in a process of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("BEVY_HOME", "home")
			e.Setenv("BEVY_BOOTSTRAP", "127.0.0.1:9") // never the public network
			e.Setenv("GORACE", "atexit_sleep_ms=0")   // the race detector would sleep a second in each process
			e.Values[locked{}] = new(locked)
			e.Values[processesKey{}] = processes{}
			e.Setenv("A", keyOfA)
			e.Setenv("SHORT", keyOfA[:7])
			key, err := hypercore.ParseKey(keyOfA)
			e.Setenv("HEX", hex.EncodeToString(key[:]))
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkstore":   mkstore,
			"exits":     exits,
			"flip":      flip,
			"lock":      lock,
			"unlock":    unlock,
			"keep":      keep,
			"copy":      copyFolder,
			"eval":      evalOutput,
			"start":     startProcess,
			"expect":    expect,
			"hear":      hear,
			"type":      typeLine,
			"eof":       closeInput,
			"interrupt": interrupt,
			"await":     await,
			"crash":     killProcess,
			"until":     until,
			"pick":      pick,
			"fill":      fill,
			"link":      readLink,
			"damage":    damage,
		},
	})
}

// keyOfA is the key of the log "a" in the store that mkstore makes.
const keyOfA = "u5rhzkt8b5dn7q1enmr8gh36ghh9dfbbxi1at4oaktd4rikrn3cy"

// mkstore makes a store whose keys are the same in each run.
func mkstore(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: mkstore [folder]")
	}
	dir := "home/hyper"
	if len(args) == 1 {
		dir = args[0]
	}
	s, err := corestore.OpenDisk(storage.Disk{Dir: ts.MkAbs(dir)}, corestore.Options{PrimaryKey: &[32]byte{1, 2, 3}})
	ts.Check(err)
	ts.Check(s.Close())
}

// exits runs a command and wants an exit code of it.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("got exit code %d, want %d", got, want)
	}
}

// flip changes the bytes of a text in a file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip text pattern")
	}
	files, err := filepath.Glob(ts.MkAbs(args[1]))
	ts.Check(err)
	n := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		ts.Check(err)
		if i := bytes.Index(b, []byte(args[0])); i >= 0 {
			b[i] ^= 1
			ts.Check(os.WriteFile(name, b, 0o600))
			n++
		}
	}
	if n == 0 {
		ts.Fatalf("%q is in none of %q", args[0], files)
	}
}

// lock opens a store in this process, until unlock.
func lock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lock folder")
	}
	s, err := corestore.OpenDisk(storage.Disk{Dir: ts.MkAbs(args[0])}, corestore.Options{})
	ts.Check(err)
	ts.Value(locked{}).(*locked).store = s
	ts.Defer(func() { unlock(ts, false, nil) })
}

// A locked is the store that a script has locked.
type locked struct{ store *corestore.Store }

func unlock(ts *testscript.TestScript, _ bool, _ []string) {
	if s := ts.Value(locked{}).(*locked); s.store != nil {
		ts.Check(s.store.Close())
		s.store = nil
	}
}

// keep sets a variable to what the last command printed: keep variable.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: keep variable [pattern]")
	}
	text := strings.TrimSpace(ts.ReadFile("stdout"))
	if len(args) == 2 {
		found := regexp.MustCompile(args[1]).FindStringSubmatch(text)
		if len(found) != 2 {
			ts.Fatalf("%q has no %q", text, args[1])
		}
		text = found[1]
	}
	ts.Setenv(args[0], text)
}

// copyFolder copies a folder, as a backup would.
func copyFolder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: copy from to")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), os.DirFS(ts.MkAbs(args[0]))))
}
