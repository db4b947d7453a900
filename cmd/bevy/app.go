package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// An app is one run of the command.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    map[string]string
	clock  clock.Clock

	json bool // --json

	// talk is held for each write to stdout or stderr that may come from any
	// goroutine, and guards what follows.
	talk sync.Mutex
	line bool // a line of progress is on the terminal
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	return newApp(stdin, stdout, stderr, env).run(ctx, args)
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, env []string) *app {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: map[string]string{}, clock: clock.System}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		a.env[name] = value
	}
	return a
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	return int(a.report(root.ExecuteContext(ctx)))
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bevy",
		Short: "A personal cloud on signed logs",
		Long: `Bevy is a personal cloud on signed append-only logs: folders that are the same
on all of your machines and lose nothing. "bevy up" runs it; "bevy hyper" is the
toolbox for the logs.`,
		Args:          noSuchWord,
		RunE:          a.overview,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().Var((*homeFlag)(a), "home", "keep everything in this `folder`")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, one object a line")
	root.PersistentFlags().BoolP("help", "h", false, "say what a command does")
	root.CompletionOptions.DisableDefaultCmd = true // ours says the same in 80 columns
	root.SetFlagErrorFunc(wrongFlag)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.help(cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { a.help(cmd); return nil })
	root.AddCommand(a.upCommand(), a.downCommand(), a.statusCommand(), a.noticesCommand(), a.pingCommand(),
		a.addCommand(), a.folderCommand(), a.publishCommand(), a.shareCommand(), a.joinCommand(), a.leaveCommand(), a.machinesCommand(), a.keysCommand(), a.doctorCommand(), a.netcheckCommand("bevy"))
	root.AddCommand(a.fileCommands()...)
	root.AddCommand(a.serviceCommands()...)
	root.AddCommand(a.hyperCommand(), a.serviceCommand(), a.versionCommand(), a.completionCommand())
	root.AddCommand(topics()...)
	root.SetHelpCommand(a.helpCommand())
	return root
}

// A homeFlag is --home, which is BEVY_HOME said at the command line.
type homeFlag app

func (h *homeFlag) String() string { return "" }
func (h *homeFlag) Type() string   { return "folder" }
func (h *homeFlag) Set(s string) error {
	h.env["BEVY_HOME"] = s
	return nil
}

// say tells the person at the command line something. It is no data.
func (a *app) say(format string, args ...any) {
	a.talk.Lock()
	defer a.talk.Unlock()
	if a.line {
		format = eraseLine + format // the line is drawn again soon
	}
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

// printJSON prints a value as one line.
func (a *app) printJSON(v any) error {
	a.talk.Lock()
	defer a.talk.Unlock()
	_, err := a.stdout.Write(jsonLine(v))
	return err
}

// printLine prints a line of data.
func (a *app) printLine(line string) error {
	a.talk.Lock()
	defer a.talk.Unlock()
	_, err := io.WriteString(a.stdout, line+"\n")
	return err
}

// buffered returns a writer to stdout whose flush the caller owes it.
func (a *app) buffered() *bufio.Writer { return bufio.NewWriterSize(a.stdout, 64<<10) }

// isTerminal reports whether someone sits at the other end. Tests have streams
// that say so themselves.
func isTerminal(stream any) bool {
	switch s := stream.(type) {
	case interface{ IsTerminal() bool }:
		return s.IsTerminal()
	case *os.File:
		return term.IsTerminal(int(s.Fd()))
	}
	return false
}

// width is how many columns a terminal has.
func width(stream any) int {
	if f, ok := stream.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// color reports whether to use colours on a stream (https://no-color.org).
func (a *app) color(stream any) bool {
	return isTerminal(stream) && a.env["NO_COLOR"] == "" && a.env["TERM"] != "dumb"
}
