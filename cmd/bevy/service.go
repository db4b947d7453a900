package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/node/service"
	"github.com/spf13/cobra"
)

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Have the system start bevy when it is needed",
		Long: `Has the service manager of the system run bevy for you: systemd on Linux,
launchd on macOS. It needs no root, and writes to your own folders only.

With systemd no process runs while nobody uses bevy. It is started when a
program or a page asks, and ends after 10 minutes with nothing to do.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(a.serviceInstallCommand(), a.serviceUninstallCommand(), a.serviceStatusCommand())
	return cmd
}

// A serviceChange is what --json prints.
type serviceChange struct {
	Steps   []string `json:"steps"`   // what there was to do
	Changed []string `json:"changed"` // files that are new, changed or gone
	Notes   []string `json:"notes"`
}

func (a *app) serviceInstallCommand() *cobra.Command {
	var dryRun, show bool
	cmd := &cobra.Command{
		Use:   "install [flags]",
		Short: "Begin to have bevy started when it is needed",
		Long: `Writes the files that have the service manager start this program, and tells it.
Doing it again changes nothing; after an update or a move of the program it
brings the files up to date. "bevy service uninstall" undoes it.`,
		Example: `bevy service install --dry-run --show
bevy service install`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.serviceOptions(cmd.Context())
			if err != nil {
				return err
			}
			plan, err := service.Install(o)
			if err != nil {
				return serviceFailure(err, "cannot install the service")
			}
			return a.carryOut(cmd.Context(), plan, dryRun, show, "cannot install the service")
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen")
	cmd.Flags().BoolVar(&show, "show", false, "print the files, too")
	return cmd
}

func (a *app) serviceUninstallCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "uninstall [flags]",
		Short: "Have bevy no longer started; its data stays",
		Long: `Stops the service and takes away the files that "bevy service install" has
written. The data of bevy stays.`,
		Example: `bevy service uninstall`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.serviceOptions(cmd.Context())
			if err != nil {
				return err
			}
			plan, err := service.Uninstall(o)
			if err != nil {
				return serviceFailure(err, "cannot uninstall the service")
			}
			return a.carryOut(cmd.Context(), plan, dryRun, false, "cannot uninstall the service")
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would happen")
	return cmd
}

func (a *app) serviceStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status [flags]",
		Short:   "Tell whether bevy is started when it is needed",
		Example: `bevy service status`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := a.serviceOptions(cmd.Context())
			if err != nil {
				return err
			}
			s, err := service.Status(cmd.Context(), o, runProgram)
			if err != nil {
				return serviceFailure(err, "cannot look at the service")
			}
			if a.json {
				if s.Files == nil {
					s.Files = []string{}
				}
				return written(a.printJSON(s))
			}
			return a.printLine(serviceWords(s))
		},
	}
}

func serviceWords(s service.State) string {
	switch {
	case !s.Installed:
		return s.Manager + ": not installed. to do it: bevy service install"
	case !s.Listening:
		return s.Manager + ": installed, but not active"
	case !s.Current:
		return s.Manager + ": installed by another version, or for another place. to bring it up to date: bevy service install"
	case !s.Running:
		return s.Manager + ": asleep, and started when someone asks"
	}
	return s.Manager + ": running"
}

// serviceOptions say what this program is and where its things are.
func (a *app) serviceOptions(ctx context.Context) (o service.Options, err error) {
	paths, err := node.FindPaths(runtime.GOOS, a.env)
	if err != nil {
		return o, wrong("BEVY_HOME=<folder>", err.Error(), "no place for the data of bevy")
	}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return o, fail(err, "cannot find this program")
	}
	env := maps.Clone(a.env)
	env["BEVY_HOME"] = paths.Home // as it is from any folder
	o = service.Options{
		System: runtime.GOOS, Env: env, UID: os.Getuid(), Program: program, Data: paths.Data, State: paths.State, Socket: paths.Socket(),
	}
	o.Port, o.IPv6 = node.FreePort(ctx)
	return o, nil
}

// carryOut does what a plan says, and tells of it.
func (a *app) carryOut(ctx context.Context, plan service.Plan, dryRun, show bool, cannot string) error {
	change := serviceChange{Steps: plan.Steps(), Changed: []string{}, Notes: plan.Notes}
	var failed error
	if !dryRun {
		changed, err := plan.Apply(ctx, runProgram)
		change.Changed, failed = append(change.Changed, changed...), err
	}
	if a.json {
		if err := a.printJSON(change); err != nil {
			return written(err)
		}
		return serviceFailure(failed, cannot)
	}
	lines := change.Steps
	if show {
		for _, f := range plan.Files {
			lines = append(lines, "", "--- "+f.Path, strings.TrimSuffix(f.Text, "\n"))
		}
	}
	if err := a.printLine(strings.Join(lines, "\n")); err != nil {
		return written(err)
	}
	switch {
	case failed != nil:
		return serviceFailure(failed, cannot)
	case dryRun:
		return written(a.printLine("nothing was changed: --dry-run"))
	}
	for _, note := range plan.Notes {
		a.say("%s", note)
	}
	return nil
}

// serviceFailure says what a service manager did not do.
func serviceFailure(err error, what string) error {
	var command *service.CommandError
	switch {
	case errors.Is(err, service.ErrSystem) && runtime.GOOS == "windows":
		return &failure{code: codeFailed, what: what, cause: "bevy knows systemd and launchd only", err: err,
			try: `schtasks /Create /SC ONLOGON /TN bevy /TR "bevy up"`}
	case errors.As(err, &command):
		return &failure{code: codeOffline, what: what, cause: causeOf(command), err: err,
			try: "do it where you are logged in with a service manager; the files are written"}
	}
	return fail(err, "%s", what)
}

// runProgram runs a program of the system.
func runProgram(ctx context.Context, args []string) ([]byte, error) {
	return exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
}
