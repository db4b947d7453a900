package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "See how your cloud is: copies, machines, folders",
		Long: `Says on how many machines everything is, how old the newest of it is, how each
machine is reached and why not better, and what should be looked at.`,
		Example: `bevy status
bevy status --watch
bevy status --json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				if watch {
					return a.watchStatus(cmd.Context(), c)
				}
				return a.printStatus(cmd.Context(), c)
			})
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "print it again when it has changed, until interrupted")
	return cmd
}

func (a *app) printStatus(ctx context.Context, c *client.Client) error {
	st, err := c.Status(ctx)
	if err != nil {
		return asked(err, "cannot ask the node")
	}
	if a.json {
		return written(a.printJSON(st))
	}
	return written(a.printLine(folded(a.stdout, strings.TrimSuffix(statusText(st, a.clock.Now()), "\n"))))
}

// watchStatus prints the status again with each change.
func (a *app) watchStatus(ctx context.Context, c *client.Client) error {
	for {
		if err := a.printStatus(ctx, c); err != nil {
			return err
		}
		for e, err := range c.Events(ctx, "") {
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return asked(err, "cannot follow the node")
			}
			if e.Kind == client.Changed || e.Kind == client.Noticed || e.Kind == client.Reset {
				break
			}
		}
		if ctx.Err() != nil || !sleep(ctx, a.clock, time.Second) {
			return nil
		}
		if !a.json {
			if err := written(a.printLine("")); err != nil {
				return err
			}
		}
	}
}

// statusText is the status for people.
func statusText(st client.Status, now time.Time) string {
	var b strings.Builder
	if st.Cloud != nil {
		fmt.Fprintf(&b, "%s   %s   %s   idle: %s\n", st.Cloud.Name, plural(uint64(machinesIn(st)), "machine"), safety(st, now), usage(st, now))
	}
	if len(st.Machines) > 0 {
		t := newTable("MACHINE", "STATE", "PATH", "RTT", "UP/DOWN", "HOLDS")
		for _, m := range st.Machines {
			row := []string{m.Name, m.State, dash(m.Path), "-", "-", size(m.Holds)}
			if m.RTT > 0 {
				row[3] = fmt.Sprintf("%.0fms", max(1, m.RTT))
			}
			if m.Up+m.Down > 0 {
				row[4] = size(uint64(m.Up)) + " / " + size(uint64(m.Down)) + "/s"
			}
			if m.State == "away" && !m.Seen.IsZero() {
				row[2] = "seen " + ago(m.Seen, now)
			}
			t.add(row...)
		}
		_ = t.write(&b) // which takes everything
	}
	if len(st.Folders) > 0 {
		t := newTable("FOLDER", "STATE", "COPIES", "FILES", "SIZE", "HERE")
		for _, f := range st.Folders {
			state := f.State
			if f.State == "syncing" && f.Progress > 0 {
				state = fmt.Sprintf("syncing %.0f%%", f.Progress*100)
			}
			here := dash(f.Path)
			if f.Sparse {
				here += " (sparse)"
			}
			t.add(f.Name, state, fmt.Sprint(f.Copies), fmt.Sprint(f.Files), size(f.Bytes), here)
		}
		_ = t.write(&b) // which takes everything
	}
	for _, m := range st.Machines {
		if m.Why != "" {
			fmt.Fprintf(&b, "%s: %s: %s\n", m.Name, m.Path, m.Why)
		}
	}
	b.WriteString(noticesText(st.Notices))
	return b.String()
}

// machinesIn counts the machines that were not taken out.
func machinesIn(st client.Status) (n int) {
	for _, m := range st.Machines {
		if m.State != "revoked" {
			n++
		}
	}
	return n
}

// safety says on how many machines everything is.
func safety(st client.Status, now time.Time) string {
	if slices.ContainsFunc(st.Machines, func(m client.Machine) bool { return m.This && m.State == "revoked" }) {
		return "this machine was taken out"
	}
	if len(st.Folders) == 0 {
		return "nothing is kept yet: bevy add <folder>"
	}
	s := fmt.Sprintf("safe: %d of %d copies", st.Cloud.Copies, max(st.Cloud.Want, machinesIn(st)))
	if !st.Cloud.Newest.IsZero() {
		s += ", newest " + ago(st.Cloud.Newest, now)
	}
	return s
}

// usage says what the node costs.
func usage(st client.Status, now time.Time) string {
	up := now.Sub(st.Node.Since).Seconds()
	share := st.Process.CPUShare
	if share == 0 && up > 0 {
		share = st.Process.CPU / up
	}
	return fmt.Sprintf("%.1f%% CPU, %s", share*100, size(st.Process.Memory))
}

// noticesText lists notices, one a line.
func noticesText(list []client.Notice) string {
	var b strings.Builder
	for i, n := range list {
		label := "       "
		if i == 0 {
			label = "notices"
		}
		text := n.Text
		if n.Subject != "" {
			text = n.Subject + ": " + text
		}
		fmt.Fprintf(&b, "%s  %s: %s", label, n.Severity, oneLine(text))
		if n.Fix != "" {
			fmt.Fprintf(&b, "\n         try: %s", oneLine(n.Fix))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// ago says how long ago a time is.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case d < time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%.0f s ago", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%.0f min ago", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h ago", d.Hours())
	}
	return fmt.Sprintf("%.0f days ago", d.Hours()/24)
}

func (a *app) noticesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "notices [flags]",
		Short: "See what should be looked at, and what helps",
		Example: `bevy notices
bevy notices --json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				list, err := c.Notices(cmd.Context())
				if err != nil {
					return asked(err, "cannot ask the node")
				}
				if a.json {
					return written(a.printJSON(list))
				}
				if len(list.Notices) == 0 {
					a.say("nothing needs to be looked at")
					return nil
				}
				return written(a.printLine(folded(a.stdout, strings.TrimSuffix(noticesText(list.Notices), "\n"))))
			})
		},
	}
}

func (a *app) pingCommand() *cobra.Command {
	var count int
	cmd := &cobra.Command{
		Use:   "ping <machine> [flags]",
		Short: "Measure the way to another machine, and say which it is",
		Example: `bevy ping attic
bevy ping attic --count 10`,
		Args:              wants(1, 1),
		ValidArgsFunction: a.completeFirst(a.completeMachine),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.ping(cmd.Context(), c, args[0], count) })
		},
	}
	cmd.Flags().IntVar(&count, "count", 3, "how `many` messages to send")
	return cmd
}

func (a *app) ping(ctx context.Context, c *client.Client, machine string, count int) error {
	for i := range count {
		if i > 0 && !sleep(ctx, a.clock, time.Second) {
			return nil
		}
		var p client.Pong
		if err := c.Do(ctx, "POST", "/machines/"+url.PathEscape(machine)+"/pings", nil, &p); err != nil {
			return asked(err, "cannot reach %q", machine)
		}
		if a.json {
			if err := written(a.printJSON(p)); err != nil {
				return err
			}
			continue
		}
		line := fmt.Sprintf("%s  %.1f ms  %s", p.Machine, p.RTT, p.Path)
		if p.Why != "" {
			line += " (" + p.Why + ")"
		}
		if err := written(a.printLine(line)); err != nil {
			return err
		}
	}
	return nil
}
