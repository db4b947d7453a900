package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/node"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [flags]",
		Short: "Look for what is wrong with Bevy on this machine",
		Long: `Looks at the folders, the secrets, the disk, the node, the machines and the
notices, and says what helps. It changes nothing. "bevy verify" reads all data;
"bevy netcheck" looks at the network.

The exit code is 1 if something is wrong.`,
		Example: `bevy doctor
bevy doctor --json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context()) },
	}
}

// doctor prints what it finds as it finds it.
func (a *app) doctor(ctx context.Context) error {
	p, err := a.paths()
	if err != nil {
		return err
	}
	wrongs := 0
	for _, f := range a.findings(ctx, p) {
		if !f.OK {
			wrongs++
		}
		if a.json {
			err = a.printJSON(f)
		} else {
			mark := "ok   "
			if !f.OK {
				mark = "wrong"
			}
			line := fmt.Sprintf("%s  %-8s  %s", mark, f.Check, oneLine(f.Result))
			if f.Next != "" {
				line += "\n                 try: " + oneLine(f.Next)
			}
			err = a.printLine(folded(a.stdout, line))
		}
		if err != nil {
			return written(err)
		}
	}
	if wrongs > 0 {
		return &failure{code: codeFailed, what: plural(uint64(wrongs), "thing") + " to look at", cause: "see above", try: "what is said there, and bevy doctor again"}
	}
	return nil
}

// diskLow is how much room there should be for what comes.
const diskLow = 1 << 30

// findings looks at everything that can be looked at from outside of the node,
// and then asks it.
func (a *app) findings(ctx context.Context, p node.Paths) (list []finding) {
	add := func(check string, ok bool, result, next string) {
		if ok {
			next = ""
		}
		list = append(list, finding{Check: check, OK: ok, Result: result, Next: next})
	}
	st, err := os.Stat(p.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		add("data", true, p.Data+" is not there yet: bevy up makes it", "")
		return list
	case err != nil:
		add("data", false, causeOf(err), "look at who owns "+p.Data)
		return list
	default:
		add("data", st.IsDir(), p.Data, "another folder: --home <folder>")
	}
	secrets := filepath.Join(p.Data, "cloud", "secrets.json")
	if st, err := os.Stat(secrets); err == nil {
		open := runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0
		add("secrets", !open, fmt.Sprintf("%s, mode %04o", secrets, st.Mode().Perm()), "chmod 600 "+shellWord(secrets))
	} else if !errors.Is(err, fs.ErrNotExist) {
		add("secrets", false, causeOf(err), "look at who owns "+secrets)
	}
	if du, err := vfs.Default.GetDiskUsage(p.Data); err == nil {
		add("disk", du.AvailBytes >= diskLow, size(du.AvailBytes)+" are free", "make room; nothing is lost, but nothing more is taken in when it is full")
	}
	if b, err := os.ReadFile("/proc/sys/fs/inotify/max_user_watches"); err == nil {
		n := strings.TrimSpace(string(b))
		add("watches", len(n) > 5, n+" folders can be watched", "sysctl fs.inotify.max_user_watches=1048576; until then folders are looked through from time to time")
	}
	c, err := client.Dial(ctx, node.Control(p))
	if err != nil {
		add("node", false, "no node runs here", "bevy up")
		return list
	}
	defer c.Close()
	status, err := c.Status(ctx)
	if err != nil {
		add("node", false, causeOf(err), "bevy down, and bevy up")
		return list
	}
	add("node", true, fmt.Sprintf("version %s, process %d, page %s", status.Node.Version, status.Node.PID, status.Node.Address), "")
	if status.Crash != "" {
		add("crash", false, "the last crash is told in "+status.Crash, "send it to who makes Bevy")
	}
	for _, s := range status.Services {
		add("service", s.State != "waiting", s.Name+" is "+s.State, "bevy notices")
	}
	for _, m := range status.Machines {
		if m.State == "away" {
			seen := "not seen since this node runs"
			if !m.Seen.IsZero() {
				seen = "seen " + ago(m.Seen, a.clock.Now())
			}
			add("machine", false, m.Name+" is away: "+seen, "bevy up there, and bevy netcheck on both")
		}
	}
	for _, n := range status.Notices {
		text := n.Text
		if n.Subject != "" {
			text = n.Subject + ": " + text
		}
		add("notice", n.Severity == client.Info, text, n.Fix)
	}
	return list
}
