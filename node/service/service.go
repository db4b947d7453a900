// Package service has the system's service manager run a node: systemd, with
// units of the user's own, or launchd, with an agent. It makes a plan of files
// and commands, which can be shown, carried out, and undone; it needs no root.
//
//	plan, err := service.Install(service.Options{System: runtime.GOOS, Program: "/usr/local/bin/bevy", …})
//	for _, step := range plan.Steps() { fmt.Println(step) }
//	done, err := plan.Apply(ctx, run)
//
// With systemd the node is started when someone connects to its socket or its
// port, and may end when nobody does: with nobody using it there is no process
// at all. launchd hands sockets over only to programs that call its C library,
// and Bevy has no cgo: there the node runs as long as its user is logged in.
package service

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Options say what is to be installed.
type Options struct {
	System  string            // as runtime.GOOS has it
	Env     map[string]string // tells where units belong; the node gets what it has to know of it
	UID     int               // of the user
	Program string            // the path of bevy
	Data    string            // the node's folder for data
	State   string            // the node's folder for state
	Socket  string            // the path of the control socket
	Port    int               // of the page, if no unit that is there has one
	IPv6    bool              // whether the machine has the address ::1
}

// ErrSystem: this system has no service manager that is known.
var ErrSystem = errors.New("no service manager is known for this system")

// A File is one that a plan writes, or takes away.
type File struct {
	Path string
	Text string // "" to take it away
}

// A Command is one that a plan runs.
type Command struct {
	Args []string
	Mild bool // if it fails, that is no failure of the plan
}

// A Plan is what to do. Doing it again changes nothing.
type Plan struct {
	Before []Command // run first
	Files  []File
	After  []Command // run when the files are there, or gone
	Notes  []string  // what the user should know
}

const (
	socketUnit, serviceUnit = "bevy.socket", "bevy.service"
	agent                   = "com.cloudbevy.bevy"
)

// Install plans to have the node run.
func Install(o Options) (Plan, error) {
	if strings.Contains(o.Program, string(filepath.Separator)+"go-build") {
		return Plan{}, fmt.Errorf("%s is gone when \"go run\" ends: install bevy first (go install ./cmd/bevy)", o.Program)
	}
	dir, err := unitDir(o)
	if err != nil {
		return Plan{}, err
	}
	if o.System == "darwin" {
		path := filepath.Join(dir, agent+".plist")
		return Plan{
			Before: []Command{{Args: bootout(o), Mild: true}},
			Files:  []File{{path, plist(o)}},
			After:  []Command{{Args: []string{"launchctl", "bootstrap", domain(o), path}}},
			Notes:  []string{"launchd keeps the node running while you are logged in"},
		}, nil
	}
	if strings.ContainsAny(o.Program, "\"'\\\n") {
		return Plan{}, fmt.Errorf("systemd starts no program whose path has quotes or backslashes: %q", o.Program)
	}
	o.Port = portOf(filepath.Join(dir, socketUnit), o.Port)
	return Plan{
		Files: []File{{filepath.Join(dir, socketUnit), socketText(o)}, {filepath.Join(dir, serviceUnit), serviceText(o)}},
		After: []Command{
			{Args: systemctl("daemon-reload")},
			{Args: systemctl("enable", socketUnit, serviceUnit)},
			{Args: systemctl("start", socketUnit)},
			{Args: systemctl("start", serviceUnit)},
		},
		Notes: []string{
			fmt.Sprintf("the page is at http://127.0.0.1:%d when someone asks for it; bevy up prints a link that signs in", o.Port),
			"it begins when you log in; to have it run without that: loginctl enable-linger",
		},
	}, nil
}

// Uninstall plans to undo Install. The data of the node stays.
func Uninstall(o Options) (Plan, error) {
	dir, err := unitDir(o)
	if err != nil {
		return Plan{}, err
	}
	notes := []string{"the data of the node stays in " + o.Data}
	if o.System == "darwin" {
		return Plan{Before: []Command{{Args: bootout(o), Mild: true}}, Files: []File{{Path: filepath.Join(dir, agent+".plist")}}, Notes: notes}, nil
	}
	return Plan{
		Before: []Command{{Args: systemctl("disable", "--now", socketUnit, serviceUnit), Mild: true}},
		Files:  []File{{Path: filepath.Join(dir, socketUnit)}, {Path: filepath.Join(dir, serviceUnit)}},
		After:  []Command{{Args: systemctl("daemon-reload"), Mild: true}},
		Notes:  notes,
	}, nil
}

// Steps are the plan in words, one a line.
func (p Plan) Steps() (steps []string) {
	for _, c := range p.Before {
		steps = append(steps, "run     "+strings.Join(c.Args, " "))
	}
	for _, f := range p.Files {
		switch changes, err := f.changes(); {
		case err != nil:
			steps = append(steps, "cannot  "+f.Path+": "+err.Error())
		case !changes:
			steps = append(steps, "keep    "+f.Path)
		case f.Text == "":
			steps = append(steps, "remove  "+f.Path)
		default:
			steps = append(steps, "write   "+f.Path)
		}
	}
	for _, c := range p.After {
		steps = append(steps, "run     "+strings.Join(c.Args, " "))
	}
	return steps
}

// changes reports whether a file is not yet as planned.
func (f File) changes() (bool, error) {
	b, err := os.ReadFile(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return f.Text != "", nil
	case err != nil:
		return false, err
	}
	return f.Text == "" || string(b) != f.Text, nil
}

// A Runner runs a command and returns what it printed.
type Runner func(ctx context.Context, args []string) ([]byte, error)

// Apply carries the plan out. It returns the files that it changed, also if
// there is an error; that of a command is a *CommandError, and then all files
// are as planned.
func (p Plan) Apply(ctx context.Context, run Runner) (changed []string, err error) {
	if err := runAll(ctx, run, p.Before); err != nil {
		return nil, err
	}
	for _, f := range p.Files {
		changes, err := f.changes()
		if err != nil {
			return changed, err
		}
		if !changes {
			continue
		}
		if err := f.apply(); err != nil {
			return changed, err
		}
		changed = append(changed, f.Path)
	}
	return changed, runAll(ctx, run, p.After)
}

func (f File) apply() error {
	if f.Text == "" {
		return os.Remove(f.Path)
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, []byte(f.Text), 0o644)
}

// A CommandError says that the service manager did not do what it was asked.
type CommandError struct {
	Args   []string
	Output string
	err    error
}

func (e *CommandError) Error() string {
	if e.Output != "" {
		return strings.Join(e.Args, " ") + ": " + e.Output
	}
	return strings.Join(e.Args, " ") + ": " + e.err.Error()
}

func (e *CommandError) Unwrap() error { return e.err }

func runAll(ctx context.Context, run Runner, commands []Command) error {
	for _, c := range commands {
		if out, err := run(ctx, c.Args); err != nil && !c.Mild {
			return &CommandError{c.Args, string(bytes.TrimSpace(out)), err}
		}
	}
	return nil
}

// A State is how the service is.
type State struct {
	Manager   string   `json:"manager"` // "systemd" or "launchd"
	Files     []string `json:"files"`   // that are there
	Installed bool     `json:"installed"`
	Current   bool     `json:"current"`   // the files are what would be installed now
	Listening bool     `json:"listening"` // someone who asks is answered
	Running   bool     `json:"running"`   // a process runs now
}

// Status tells how the service is.
func Status(ctx context.Context, o Options, run Runner) (s State, err error) {
	plan, err := Install(o)
	if err != nil {
		return s, err
	}
	s.Current = true
	for _, f := range plan.Files {
		if _, err := os.Stat(f.Path); err == nil {
			s.Files = append(s.Files, f.Path)
		}
		changes, err := f.changes()
		s.Current = s.Current && !changes && err == nil
	}
	s.Installed = len(s.Files) == len(plan.Files)
	says := func(args ...string) bool {
		_, err := run(ctx, args)
		return err == nil
	}
	if o.System == "darwin" {
		s.Manager = "launchd"
		s.Running = says("launchctl", "print", domain(o)+"/"+agent)
		s.Listening = s.Running
		return s, nil
	}
	s.Manager = "systemd"
	s.Listening = says(systemctl("is-active", "--quiet", socketUnit)...)
	s.Running = says(systemctl("is-active", "--quiet", serviceUnit)...)
	return s, nil
}

// unitDir is where units of the user's belong.
func unitDir(o Options) (string, error) {
	home := o.Env["HOME"]
	switch {
	case o.System == "darwin" && home != "":
		return filepath.Join(home, "Library", "LaunchAgents"), nil
	case o.System != "linux":
		return "", ErrSystem
	case filepath.IsAbs(o.Env["XDG_CONFIG_HOME"]):
		return filepath.Join(o.Env["XDG_CONFIG_HOME"], "systemd", "user"), nil
	case home != "":
		return filepath.Join(home, ".config", "systemd", "user"), nil
	}
	return "", errors.New("HOME is not set: it says where units belong")
}

// environment is what decides where the node's folders are, and which network it
// joins: a service manager does not know what was set in a shell.
func (o Options) environment() (list [][2]string) {
	for _, name := range []string{"BEVY_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		if filepath.IsAbs(o.Env[name]) {
			list = append(list, [2]string{name, o.Env[name]})
		}
	}
	for _, name := range []string{"BEVY_BOOTSTRAP", "BEVY_RELAY"} {
		if o.Env[name] != "" {
			list = append(list, [2]string{name, o.Env[name]})
		}
	}
	return list
}

func systemctl(args ...string) []string { return append([]string{"systemctl", "--user"}, args...) }

func domain(o Options) string { return "gui/" + strconv.Itoa(o.UID) }

func bootout(o Options) []string { return []string{"launchctl", "bootout", domain(o) + "/" + agent} }

// port is that of the page in a unit.
var port = regexp.MustCompile(`(?m)^ListenStream=127\.0\.0\.1:(\d+)$`)

// portOf is the port that a unit has, or else another: installing again does not
// move the page.
func portOf(unit string, otherwise int) int {
	b, err := os.ReadFile(unit)
	if err != nil {
		return otherwise
	}
	if m := port.FindSubmatch(b); m != nil {
		if n, err := strconv.Atoi(string(m[1])); err == nil {
			return n
		}
	}
	return otherwise
}

const made = "# Made by \"bevy service install\"; \"bevy service uninstall\" takes it away.\n"

func socketText(o Options) string {
	listen := []string{escape(o.Socket), fmt.Sprintf("127.0.0.1:%d", o.Port)}
	if o.IPv6 {
		listen = append(listen, fmt.Sprintf("[::1]:%d", o.Port))
	}
	var b strings.Builder
	b.WriteString(made + "[Unit]\nDescription=Bevy, a personal cloud: where it is asked\n\n[Socket]\n")
	for _, l := range listen {
		b.WriteString("ListenStream=" + l + "\n")
	}
	b.WriteString("SocketMode=0600\nDirectoryMode=0700\nRemoveOnStop=yes\n\n[Install]\nWantedBy=sockets.target\n")
	return b.String()
}

func serviceText(o Options) string {
	lines := []string{
		"[Unit]", "Description=Bevy, a personal cloud", "Requires=" + socketUnit, "After=" + socketUnit,
		"StartLimitIntervalSec=0", // a limit that is reached would end the socket, too
		"",
		"[Service]", "Type=notify", "ExecStart=" + quote(o.Program) + " up",
	}
	for _, v := range o.environment() {
		lines = append(lines, "Environment="+quote(v[0]+"="+v[1]))
	}
	lines = append(lines,
		"Restart=on-failure", "RestartSec=5", "TimeoutStopSec=40",
		// What a manager of a user's can do without help from the system's, and what
		// does not change how folders are kept: RestrictSUIDSGID and UMask would.
		"NoNewPrivileges=yes", "LockPersonality=yes", "RestrictRealtime=yes", "RestrictNamespaces=yes",
		"RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK", "SystemCallArchitectures=native", "",
		"[Install]", "WantedBy=default.target", "Also="+socketUnit)
	return made + strings.Join(lines, "\n") + "\n"
}

// escape keeps systemd from seeing specifiers in a text (systemd.unit(5)).
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// quote is a word of a list (systemd.syntax(7)).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`).Replace(s) + `"`
}

func plist(o Options) string {
	env := ""
	for _, v := range o.environment() {
		env += "<key>" + v[0] + "</key><string>" + xmlText(v[1]) + "</string>"
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Made by "bevy service install"; "bevy service uninstall" takes it away. -->
<plist version="1.0">
<dict>
	<key>Label</key><string>` + agent + `</string>
	<key>ProgramArguments</key>
	<array><string>` + xmlText(o.Program) + `</string><string>up</string></array>
	<key>EnvironmentVariables</key><dict>` + env + `</dict>
	<key>RunAtLoad</key><true/>
	<key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
	<key>ProcessType</key><string>Background</string>
	<key>StandardErrorPath</key><string>` + xmlText(filepath.Join(o.State, "launchd.log")) + `</string>
</dict>
</plist>
`
}

func xmlText(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes all
	return b.String()
}
