package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/node/home"
	"github.com/spf13/cobra"
)

// An up is one run of "bevy up".
type up struct {
	*app
	swarmFlags
	listen  []string
	hosts   []string
	name    string
	relays  []string
	offline bool
	restore bool
	open    bool
	idle    time.Duration
}

func (a *app) upCommand() *cobra.Command {
	u := &up{app: a}
	cmd := &cobra.Command{
		Use:   "up [flags]",
		Short: "Run this machine's part of your cloud",
		Long: `Opens the cloud that is kept on this machine, and makes one if there is none. It
stays until it is told to end: by "bevy down", or ctrl-C. "bevy service install"
has the system run it when it is needed.

It needs no flag, no file and no account. The page and the doors are at one
port, 7070 or the next that is free, and are for this machine alone unless
--listen says otherwise.`,
		Example: `bevy up
bevy up --restore
bevy up --listen :7070 --host cloud.example.org`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return u.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&u.listen, "listen", nil, "serve the page and doors at these `addresses`, such as :7070")
	f.StringSliceVar(&u.hosts, "host", nil, "answer to these `names`, too")
	f.StringVar(&u.name, "name", "", "call this machine by this `name`, when it is new")
	f.BoolVar(&u.offline, "offline", false, "stay away from all networks")
	f.BoolVar(&u.restore, "restore", false, "make the cloud again from its owner's 24 words, which are read from stdin")
	f.BoolVar(&u.open, "open", false, "open the page in a browser")
	f.DurationVar(&u.idle, "idle", 0, "end after this `time` with nothing to do; never, unless the system started it")
	f.StringSliceVar(&u.relays, "relay", nil, "go through one of these relays, by `key`, where there is no direct path; also BEVY_RELAY")
	u.bootstrapFlags(cmd)
	u.bindFlag(cmd)
	return cmd
}

// A started is what --json prints.
type started struct {
	Event   string `json:"event"` // "ready", or "running" if another process was already
	Cloud   string `json:"cloud"`
	Name    string `json:"name"`
	Data    string `json:"data"`
	Address string `json:"address"`
	Page    string `json:"page"` // signs in once
	PID     int    `json:"pid"`
	Took    string `json:"took,omitempty"`
}

func (u *up) run(ctx context.Context) error {
	began := u.clock.Now()
	p, err := u.paths()
	if err != nil {
		return err
	}
	if c := u.other(ctx, p); c != nil {
		defer c.Close()
		return u.running(ctx, c, p)
	}
	o := home.Options{Name: u.name, Offline: u.offline}
	if env := u.env["BEVY_RELAY"]; u.relays == nil && env != "" {
		u.relays = strings.Split(env, ",")
	}
	if o.Relays, err = parseKeys(u.relays); err != nil {
		return err
	}
	if o.DHT, err = u.options(u.app); err != nil {
		return err
	}
	if u.restore {
		if o.Seed, err = u.readWords("bevy up --restore"); err != nil {
			return err
		}
	}
	n, c, err := u.start(ctx, p, o)
	for full := 0; node.CodeOf(err) == client.CodeFull && hasCloud(p); full++ {
		if full == 0 {
			u.say("waiting for room on the disk: %s", oneLine(causeOf(err)))
		}
		if !sleep(ctx, u.clock, roomEvery) {
			return fail(context.Cause(ctx), "cannot start the node")
		}
		n, c, err = u.start(ctx, p, o)
	}
	if err != nil {
		return asked(err, "cannot start the node")
	}
	if c != nil {
		defer c.Close()
		return u.running(ctx, c, p)
	}
	var st client.Status
	c, err = client.Dial(ctx, node.Control(p))
	if err == nil {
		st, err = c.Status(ctx)
		c.Close()
	}
	if err != nil {
		return errors.Join(asked(err, "cannot start the node"), n.Close())
	}
	took := u.clock.Now().Sub(began)
	if err := u.print("ready", st, n.Link().URL, p, took); err != nil {
		return errors.Join(err, n.Close())
	}
	if err := errors.Join(n.Wait(ctx), n.Close()); err != nil && !errors.Is(err, context.Canceled) {
		return asked(err, "the node has ended")
	}
	return nil
}

// roomEvery is the time between two looks for room on the disk.
const roomEvery = 2 * time.Second

// hasCloud reports whether there is a cloud here that a node can keep: one that
// is not made yet can't wait for room, as nobody would know.
func hasCloud(p node.Paths) bool {
	_, err := os.Stat(filepath.Join(p.Data, "cloud", "secrets.json"))
	return err == nil
}

// ending is how long another node, which does not answer, is given to end.
const ending = 15 * time.Second

// other is a client of the node that runs already, if one does and answers.
func (u *up) other(ctx context.Context, p node.Paths) *client.Client {
	if node.Activated(u.env) { // its socket would be ours
		return nil
	}
	c, err := client.Dial(ctx, node.Control(p))
	if err != nil {
		return nil
	}
	return c
}

// start starts the node, once another one that is ending has. One that was only
// beginning is returned when it answers.
func (u *up) start(ctx context.Context, p node.Paths, o home.Options) (*node.Node, *client.Client, error) {
	for began, told := u.clock.Now(), false; ; told = true {
		n, err := node.Open(ctx, node.Options{
			Paths: p, Version: versionNow().Version, Env: u.env, Listen: u.listen, Hosts: u.hosts, Idle: u.idle,
			Clock: u.clock, Process: true, Wire: home.New(o).Wire,
		})
		other, held := errors.AsType[*node.RunningError](err)
		if !held {
			return n, nil, err
		}
		if c := u.other(ctx, p); c != nil {
			return nil, c, nil
		}
		if u.clock.Now().Sub(began) > ending {
			return nil, nil, &failure{
				code: codeConflict, what: "cannot start the node", cause: other.Error() + ", and does not answer here",
				try: "bevy down with its --home and variables, or end that process", err: err,
			}
		}
		if !told {
			u.say("waiting for process %d, which has the store", other.Record.PID)
		}
		if !sleep(ctx, u.clock, 50*time.Millisecond) {
			return nil, nil, context.Cause(ctx)
		}
	}
}

// running says that a node runs already.
func (u *up) running(ctx context.Context, c *client.Client, p node.Paths) error {
	if u.restore {
		return &failure{code: codeConflict, what: "a cloud runs here already", cause: "its words are not the ones to be typed", try: "bevy down, or --home <another folder>"}
	}
	st, err := c.Status(ctx)
	if err != nil {
		return asked(err, "cannot ask the node")
	}
	link, err := c.Link(ctx)
	if err != nil {
		return asked(err, "cannot ask the node")
	}
	return u.print("running", st, link.URL, p, 0)
}

// print says where the node is, and what to do next.
func (u *up) print(event string, st client.Status, link string, p node.Paths, took time.Duration) error {
	s := started{Event: event, Data: p.Data, Address: st.Node.Address, Page: link, PID: st.Node.PID}
	if st.Cloud != nil {
		s.Cloud, s.Name = st.Cloud.ID, st.Cloud.Name
	}
	if took > 0 {
		s.Took = took.Round(time.Millisecond).String()
	}
	opened := u.open && openPage(link) == nil
	if u.json {
		return written(u.printJSON(s))
	}
	var b strings.Builder
	key := s.Cloud
	if len(key) > 8 {
		key = key[:8]
	}
	fmt.Fprintf(&b, "Bevy %s  cloud %q  key %s  data %s\n", st.Node.Version, s.Name, key, p.Data)
	state := "runs already"
	if event == "ready" {
		state = fmt.Sprintf("ready in %.2f s", took.Seconds())
	}
	if opened {
		link += "   (opened)"
	}
	fmt.Fprintf(&b, "%s   page  %s\n", state, link)
	next := [][2]string{{"bevy add <folder>", "keep a folder safe"}, {"bevy join", "add another machine"}, {"bevy keys show", "write down the words that bring all of it back"}}
	if event == "running" {
		next = [][2]string{{"bevy status", "see how it is"}, {"bevy down", "stop it"}}
	}
	for i, n := range next {
		label := "next:"
		if i > 0 {
			label = "     "
		}
		fmt.Fprintf(&b, "%s  %-19s %s\n", label, n[0], n[1])
	}
	return written(u.printLine(strings.TrimSuffix(b.String(), "\n")))
}

// readWords reads the owner's words, for a command.
func (a *app) readWords(command string) (*identity.Seed, error) {
	if isTerminal(a.stdin) {
		a.say("type the 24 words, then enter:")
	}
	line, err := bufio.NewReaderSize(a.stdin, 4<<10).ReadString('\n')
	if err != nil && line == "" {
		return nil, wrong(command+" < words.txt", err.Error(), "there are no words on stdin")
	}
	seed, err := words.ParseSeed(line)
	if err != nil {
		return nil, wrong("the words that bevy keys show has printed, in their order", err.Error(), "these are not the words of a cloud")
	}
	s := identity.Seed(seed)
	return &s, nil
}

// openPage opens a page in the person's browser.
func openPage(url string) error {
	switch runtime.GOOS {
	case "darwin":
		return exec.Command("open", url).Start()
	case "windows":
		return exec.Command("rundll32", "url.dll,FileProtocolHandler", url).Start()
	}
	return exec.Command("xdg-open", url).Start()
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down [flags]",
		Short: "Stop this machine's part of your cloud",
		Long: `Has the node that runs on this machine end what it is doing and stop. What was
acknowledged is on the disk. If the system runs it ("bevy service"), the next
command or page starts it again.`,
		Example: `bevy down`,
		Args:    wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			c, err := a.control(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := a.paths()
			if err != nil {
				return err
			}
			was, _ := node.ReadRecord(p) // none tells nothing
			if err := c.Stop(ctx); err != nil {
				return asked(err, "cannot stop the node")
			}
			if err := a.awaitEnd(ctx, p, was); err != nil {
				return err
			}
			a.say("stopped\nundo:  bevy up")
			return nil
		},
	}
}

// awaitEnd waits until the node that was told to end has: until then nobody else can
// have the store.
func (a *app) awaitEnd(ctx context.Context, p node.Paths, was node.Record) error {
	for began := a.clock.Now(); node.Running(p); {
		if now, err := node.ReadRecord(p); err == nil && now.PID != was.PID {
			return nil // the system has started another one
		}
		if a.clock.Now().Sub(began) > time.Minute {
			return &failure{code: codeFailed, what: "the node has not ended yet", cause: fmt.Sprintf("process %d is still at it", was.PID), try: "bevy.log in the folder for state says what it does"}
		}
		if !sleep(ctx, a.clock, 20*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return nil
}
