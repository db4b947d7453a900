package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// everyCommand calls f with each command that people see, and its help text.
func everyCommand(t *testing.T, f func(cmd *cobra.Command, help string)) {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdout: &out}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		out.Reset()
		a.help(cmd)
		f(cmd, out.String())
		for _, c := range cmd.Commands() {
			if !c.Hidden {
				walk(c)
			}
		}
	}
	root := a.rootCommand()
	root.InitDefaultHelpCmd()
	walk(root)
}

var (
	// A usage is the command's name and then words such as <value>, [<optional>],
	// {a | b} and ... after what may come several times.
	usageWord = regexp.MustCompile(`^(<[a-z]+>(\.\.\.)?|\[<[a-z]+>(\.\.\.)?\]|\{[a-z]+( \| [a-z]+)+\}|\[flags\])`)
	// Words in capitals are how other programs name values.
	capitals = regexp.MustCompile(`\b[A-Z]{3,}\b`)
	// These are names that are written so.
	names = regexp.MustCompile(`\b(JSON|BEVY_[A-Z_]+|XDG_[A-Z_]+|NO_COLOR|HOME|LOCALAPPDATA|ACCESS|TCP|UDP|DHT|NAT|AWS|AWS_[A-Z_]+|CSV)\b`)
)

func TestHelpTextsKeepTheConventions(t *testing.T) {
	n := 0
	everyCommand(t, func(cmd *cobra.Command, help string) {
		n++
		wrong := func(format string, args ...any) {
			t.Helper()
			t.Errorf("%s: "+format, append([]any{cmd.CommandPath()}, args...)...)
		}
		for line := range strings.Lines(help) {
			line = strings.TrimSuffix(line, "\n")
			if w := utf8.RuneCountInString(line); w > helpWidth {
				wrong("line of %d columns, want at most %d: %q", w, helpWidth, line)
			}
			if strings.TrimRight(line, " ") != line || strings.Contains(line, "\t") {
				wrong("spaces at the end or tabs in %q", line)
			}
		}
		if word := capitals.FindString(names.ReplaceAllString(help, "")); word != "" {
			wrong("%q is in capitals: values are written as <value>", word)
		}
		_, use, _ := strings.Cut(cmd.Use, " ")
		for use != "" {
			word := usageWord.FindString(use)
			if word == "" {
				wrong("usage %q does not keep to <value>, [<optional>], {a | b}, ...", use)
				break
			}
			use = strings.TrimPrefix(use[len(word):], " ")
		}
		if first, _ := utf8.DecodeRuneInString(cmd.Short); cmd.Short == "" || strings.ToUpper(string(first)) != string(first) || strings.HasSuffix(cmd.Short, ".") {
			wrong("short text %q, want one that begins with a capital and has no full stop", cmd.Short)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			name, _ := pflag.UnquoteUsage(f)
			if f.Value.Type() != "bool" && !strings.Contains(f.Usage, "`") {
				wrong("--%s takes a %s: name its value in the text, in back quotes", f.Name, name)
			}
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				wrong("--%s has the text %q, want one without a full stop", f.Name, f.Usage)
			}
		})
		for line := range strings.Lines(cmd.Example) {
			if !strings.Contains(line, "bevy ") {
				wrong("example %q does not call bevy", line)
			}
		}
	})
	if n < 15 {
		t.Errorf("looked at %d commands only", n)
	}
}

// Each example in a help text is a command that there is, with flags that it
// takes.
func TestExamplesAreRight(t *testing.T) {
	var out bytes.Buffer
	everyCommand(t, func(cmd *cobra.Command, _ string) {
		for line := range strings.Lines(cmd.Example) {
			_, line, _ = strings.Cut(line, "bevy ")
			line, _, _ = strings.Cut(line, " > ")
			line, _, _ = strings.Cut(line, " | ")
			words := strings.Fields(strings.TrimRight(line, ")\n"))
			root := (&app{stdout: &out}).rootCommand()
			found, rest, err := root.Find(words)
			if err != nil || found.CommandPath() != cmd.CommandPath() {
				t.Errorf("%s: example %q leads to %v, %v", cmd.CommandPath(), line, found, err)
				continue
			}
			if err := found.ParseFlags(rest); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			} else if err := found.ValidateArgs(found.Flags().Args()); err != nil {
				t.Errorf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
}
