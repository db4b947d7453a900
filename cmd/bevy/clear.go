package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

// A keeping is how far back older versions are kept.
type keeping struct{ all, daily daysFlag }

func (a *app) clearCommand() *cobra.Command {
	var sure consent
	k := keeping{daysFlag(30 * day), daysFlag(365 * day)}
	cmd := &cobra.Command{
		Use:   "clear <folder> [flags]",
		Short: "Give disk back for old versions",
		Long: `Removes the contents of older versions from this machine that are past what is
kept: every version for --all, then what there was at the end of each day for
--daily. What is current and what has a tag stays. That something was there
stays known for ever: see "bevy log".`,
		Example: `bevy clear Photos
bevy clear Photos --all 7d --daily 90d --yes`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.clear(cmd.Context(), args[0], k, sure) })
		},
	}
	cmd.Flags().Var(&k.all, "all", "keep every version for this `time`, such as 12h or 30d")
	cmd.Flags().Var(&k.daily, "daily", "keep one a day for this `time`")
	sure.flags(cmd)
	return cmd
}

const day = 24 * time.Hour

// A daysFlag is a length of time, such as 30d or 12h.
type daysFlag time.Duration

// Set reads the time.
func (v *daysFlag) Set(s string) error {
	if number, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return fmt.Errorf("%q is no time such as 30d or 12h", s)
		}
		*v = daysFlag(n) * daysFlag(day)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no time such as 30d or 12h", s)
	}
	*v = daysFlag(d)
	return nil
}

// String returns the time.
func (v *daysFlag) String() string {
	if d := time.Duration(*v); d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return time.Duration(*v).String()
}

// Type says what the flag takes.
func (v *daysFlag) Type() string { return "time" }

// A clearedContents is what --json prints.
type clearedContents struct {
	Folder string `json:"folder"`
	swept
}

// swept is what was removed, in JSON.
type swept = client.Cleared

func (f *files) clear(ctx context.Context, word string, k keeping, sure consent) error {
	places, err := f.wholeFolders([]string{word}, "clear")
	if err != nil {
		return err
	}
	p := places[0]
	clear := func(dry bool) (got client.Cleared, err error) {
		bar := f.progress("clearing "+p.called(), "block", 0, 0)
		in := client.ClearRequest{All: time.Duration(k.all).String(), Daily: time.Duration(k.daily).String(), Dry: dry}
		err = f.node.Do(ctx, "POST", p.route("clears"), in, &got)
		bar.end()
		return got, asked(err, "cannot clear %s", p.called())
	}
	var got client.Cleared
	plan := []string{"contents of older versions of " + p.called() + " will be removed from this machine, but for:",
		fmt.Sprintf("what is current, what has a tag, all of the last %s, one a day of the last %s", &k.all, &k.daily)}
	if !sure.yes || sure.dryRun {
		if got, err = clear(true); err != nil {
			return err
		}
		plan = append(plan, fmt.Sprintf("that is %s (%s)", plural(got.Blocks, "block"), size(got.Bytes)))
	}
	ok, err := f.confirm(sure, "bevy clear "+p.word(), plan...)
	if err != nil || !ok && !f.json {
		return err
	}
	if ok {
		if got, err = clear(false); err != nil {
			return err
		}
	}
	if f.json {
		return written(f.printJSON(clearedContents{p.folder.Name, got}))
	}
	f.say("removed %s (%s) of older versions of %s", plural(got.Blocks, "block"), size(got.Bytes), p.called())
	return nil
}
