package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copies elsewhere: in a bucket of any S3 server, or on a disk",
		Long: `A backup has all of a cloud, with its history, where nobody runs Bevy. It is
encrypted: with the owner's words and its address everything comes back, and
nothing can be read without them.

Only what is new is sent. What is a folder on a disk is named by its path, what
is in a bucket by s3://bucket/prefix, with the keys in the environment variables
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY when it is begun or restored.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(a.backupToCommand(), a.backupLsCommand(), a.backupRunCommand(), a.backupVerifyCommand(),
		a.backupPruneCommand(), a.backupRestoreCommand(), a.backupStopCommand())
	return cmd
}

// placeFlags say where a backup is.
type placeFlags struct{ endpoint, region string }

func (p *placeFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.endpoint, "endpoint", "", "the `address` of the S3 server (default AWS_ENDPOINT_URL, or AWS)")
	cmd.Flags().StringVar(&p.region, "region", "", "its `region` (default AWS_REGION, or us-east-1)")
}

// place is where a word leads to.
func (p *placeFlags) place(a *app, word string) (client.BackupPlace, error) {
	at := client.BackupPlace{Address: word}
	if !strings.HasPrefix(word, "s3://") {
		abs, err := filepath.Abs(word)
		if err != nil {
			return at, fail(err, "cannot find %s", word)
		}
		at.Address = abs
		return at, nil
	}
	at.Address = strings.TrimRight(word, "/")
	at.Endpoint, at.Region = cmp.Or(p.endpoint, a.env["AWS_ENDPOINT_URL"]), cmp.Or(p.region, a.env["AWS_REGION"], a.env["AWS_DEFAULT_REGION"])
	at.AccessKey, at.Secret = a.env["AWS_ACCESS_KEY_ID"], a.env["AWS_SECRET_ACCESS_KEY"]
	if at.AccessKey == "" || at.Secret == "" {
		return at, wrong("AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… bevy backup …", "its keys are not in the environment", "no access to %s", word)
	}
	return at, nil
}

func (a *app) backupToCommand() *cobra.Command {
	var at placeFlags
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "to <place> [flags]",
		Short: "Back the cloud up to a place, now and from now on",
		Long: `Begins a backup, makes it, and then makes it again and again while this machine
runs. What another machine of the cloud has begun there is gone on with.`,
		Example: `bevy backup to s3://my-bucket/bevy --endpoint https://s3.example.com
bevy backup to /media/disk/bevy --every 1h`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			place, err := at.place(a, args[0])
			if err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.backupTo(cmd.Context(), c, place, every) })
		},
	}
	at.flags(cmd)
	cmd.Flags().DurationVar(&every, "every", 24*time.Hour, "the `time` from one to the next; 0 is only when it is asked for")
	return cmd
}

func (a *app) backupTo(ctx context.Context, c *client.Client, place client.BackupPlace, every time.Duration) error {
	var made client.Backup
	if err := c.Do(ctx, "POST", "/backups", client.AddBackup{Place: place, Every: every}, &made); err != nil {
		return asked(err, "cannot back up to %s", place.Address)
	}
	return a.backupRun(ctx, c, made)
}

// backups returns those that a word names, all if there is none.
func (a *app) backups(ctx context.Context, c *client.Client, words []string) ([]client.Backup, error) {
	var all client.Backups
	if err := c.Do(ctx, "GET", "/backups", nil, &all); err != nil {
		return nil, asked(err, "cannot list the backups")
	}
	if len(words) == 0 {
		return all.Backups, nil
	}
	abs, err := filepath.Abs(words[0])
	if err != nil {
		return nil, fail(err, "cannot find %s", words[0])
	}
	for _, b := range all.Backups {
		if b.ID == words[0] || b.Address == strings.TrimRight(words[0], "/") || b.Address == abs {
			return []client.Backup{b}, nil
		}
	}
	return nil, &failure{code: codeNotFound, what: fmt.Sprintf("there is no backup to %s", words[0]), cause: "the cloud is not backed up there", try: "bevy backup ls"}
}

// theBackup returns the one that a word names, or the only one.
func (a *app) theBackup(ctx context.Context, c *client.Client, words []string, verb string) (b client.Backup, err error) {
	list, err := a.backups(ctx, c, words)
	switch {
	case err != nil:
		return b, err
	case len(list) == 0:
		return b, &failure{code: codeNotFound, what: "there is no backup yet", cause: "the cloud is not backed up anywhere", try: "bevy backup to <place>"}
	case len(list) > 1:
		return b, wrong("bevy backup "+verb+" "+shellWord(list[0].Address), fmt.Sprintf("there are %d", len(list)), "which backup?")
	}
	return list[0], nil
}

func backupPath(b client.Backup, what string) string {
	return "/backups/" + url.PathEscape(b.ID) + what
}

func (a *app) backupLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [<place>] [flags]",
		Short: "List the backups, or the snapshots in one",
		Example: `bevy backup ls
bevy backup ls s3://my-bucket/bevy`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				list, err := a.backups(cmd.Context(), c, args)
				if err != nil {
					return err
				}
				if len(args) > 0 {
					return a.backupSnapshots(cmd.Context(), c, list[0])
				}
				return a.backupList(list)
			})
		},
	}
}

func (a *app) backupList(list []client.Backup) error {
	t := newTable("PLACE", "LAST", "EVERY", "MACHINE", "STATE")
	for _, b := range list {
		if a.json {
			if err := a.printJSON(b); err != nil {
				return written(err)
			}
			continue
		}
		last, every, state := "-", "-", "ok"
		if !b.Last.IsZero() {
			last = b.Last.Local().Format("2006-01-02 15:04")
		}
		if b.Every > 0 {
			every = strings.TrimSuffix(strings.TrimSuffix(b.Every.String(), "0s"), "0m")
		}
		switch {
		case b.Running:
			state = "at work"
		case b.Error != "":
			state = "failed: " + escape([]byte(b.Error))
		case !b.Here:
			state = "made there"
		case b.Last.IsZero():
			state = "not made yet"
		}
		t.add(escape([]byte(b.Address)), last, every, escape([]byte(b.Machine)), state)
	}
	switch {
	case a.json:
		return nil
	case len(list) == 0:
		a.say("no backups yet\nnext:  bevy backup to <s3://bucket/prefix or a folder>")
		return nil
	}
	return written(t.write(a.stdout))
}

func (a *app) backupSnapshots(ctx context.Context, c *client.Client, b client.Backup) error {
	var all client.BackupSnapshots
	if err := c.Do(ctx, "GET", backupPath(b, "/snapshots"), nil, &all); err != nil {
		return asked(err, "cannot list the snapshots in %s", b.Address)
	}
	t := newTable("SNAPSHOT", "TIME", "MACHINE", "LOGS", "SIZE")
	t.right[3], t.right[4] = true, true
	for _, s := range all.Snapshots {
		if a.json {
			if err := a.printJSON(s); err != nil {
				return written(err)
			}
			continue
		}
		t.add(s.Name, s.Time.Local().Format("2006-01-02 15:04:05"), escape([]byte(s.Machine)), strconv.Itoa(s.Logs), size(uint64(s.Bytes)))
	}
	if a.json {
		return nil
	}
	return written(t.write(a.stdout))
}

func (a *app) backupRunCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run [<place>] [flags]",
		Short: "Make the backups now",
		Long: `Makes a backup, or all of them. What is neither on this machine nor in it is
copied from another backup, if one has it. Files that are not whole in it
are named, and the exit code is 6 if another backup may have them that can't be
read now, else 3; the next run brings them.`,
		Example: `bevy backup run
bevy backup run /media/disk/bevy`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				list, err := a.backups(cmd.Context(), c, args)
				if err != nil {
					return err
				}
				if len(list) == 0 {
					a.say("no backups yet\nnext:  bevy backup to <s3://bucket/prefix or a folder>")
				}
				var failed error
				for _, b := range list {
					if err := a.backupRun(cmd.Context(), c, b); err != nil && failed == nil {
						failed = err
					}
				}
				return failed
			})
		},
	}
}

// A madeBackup is what --json prints of a run.
type madeBackup struct {
	Address string `json:"address"`
	sent
}

// sent is what a run sent, in JSON.
type sent = client.BackedUp

func (a *app) backupRun(ctx context.Context, c *client.Client, b client.Backup) error {
	bar := a.progress("backing up to "+b.Address, "block", 0, 0)
	var done client.BackedUp
	err := c.Do(ctx, "POST", backupPath(b, "/runs"), nil, &done)
	bar.end()
	if err != nil {
		return asked(err, "cannot back up to %s", b.Address)
	}
	if a.json {
		return cmp.Or(written(a.printJSON(madeBackup{b.Address, done})), notWhole(b, done))
	}
	line := fmt.Sprintf("%s  nothing is new since %s", b.Address, done.Snapshot)
	if done.New {
		line = fmt.Sprintf("%s  snapshot %s, %s sent", b.Address, done.Snapshot, size(uint64(done.Bytes)))
	}
	if done.Copied > 0 {
		line += fmt.Sprintf("; %s came from another backup", plural(done.Copied, "block"))
	}
	if done.Missing > 0 {
		line += fmt.Sprintf("; %s are not on this machine, and not in the backup", plural(done.Missing, "block"))
	}
	if err := written(a.printLine(line)); err != nil {
		return err
	}
	if done.Behind > 0 {
		a.say("note:  %s of this machine are not what the backup has of them: it was put back to an earlier state. The backup keeps both\n       bevy backup restore %s   brings what was lost, if it is not on another machine", plural(uint64(done.Behind), "log"), shellWord(b.Address))
	}
	a.sayMissing(done.MissingFiles, done.MissingNames)
	if err := notWhole(b, done); err != nil {
		return err
	}
	a.say("next:  bevy backup verify --read %s\nundo:  bevy backup stop %s", shellWord(b.Address), shellWord(b.Address))
	return nil
}

// notWhole is the failure of a backup that lacks files.
func notWhole(b client.Backup, done client.BackedUp) error {
	if done.MissingFiles == 0 {
		return nil
	}
	f := &failure{code: codeNotFound, what: fmt.Sprintf("%s not whole in the backup at %s", are(done.MissingFiles, "file"), b.Address),
		cause: "what is missing is on other machines alone, or nowhere", try: "bevy get <folder>, then: bevy backup run " + shellWord(b.Address)}
	if len(done.Away) > 0 {
		f.code, f.cause = codeOffline, "what is missing may be in another backup, which can't be read: "+strings.Join(done.Away, "; ")
		f.try = "once that one can be read: bevy backup run " + shellWord(b.Address)
	}
	return f
}

// are is a number of things, and the word that follows.
func are(n int, thing string) string {
	if n == 1 {
		return plural(1, thing) + " is"
	}
	return plural(uint64(n), thing) + " are"
}

// sayMissing names files that are not whole.
func (a *app) sayMissing(n int, names []string) {
	for _, name := range names[:min(len(names), maxShown)] {
		a.say("not whole:  %s", escape([]byte(name)))
	}
	if n > maxShown {
		a.say("and %s more; --json has the first %d names", count(uint64(n-maxShown)), len(names))
	}
}

func (a *app) backupVerifyCommand() *cobra.Command {
	var check client.CheckBackup
	cmd := &cobra.Command{
		Use:   "verify [<place>] [flags]",
		Short: "Look whether a backup is whole",
		Long: `Looks whether all that the newest snapshot needs is there. With --read it also
brings all of it and proves each block, as restoring does, without keeping it.
With --restore it is a drill: all is restored to a place of its own, which takes
as much room as the backup has, and is not begun without; the cloud is opened
there, every file is read and compared with its hash, and it is removed again.
The exit code is 7 if something is wrong; "bevy backup run" then sends again
what is missing.`,
		Example: `bevy backup verify
bevy backup verify s3://my-bucket/bevy --read
bevy backup verify --restore`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				b, err := a.theBackup(cmd.Context(), c, args, "verify")
				if err != nil {
					return err
				}
				return a.backupVerify(cmd.Context(), c, b, check)
			})
		},
	}
	cmd.Flags().BoolVar(&check.Read, "read", false, "bring all of it and prove it")
	cmd.Flags().BoolVar(&check.Restore, "restore", false, "restore all of it elsewhere, and read every file")
	return cmd
}

func (a *app) backupVerify(ctx context.Context, c *client.Client, b client.Backup, check client.CheckBackup) error {
	bar := a.progress("checking "+b.Address, "pack", 0, 0)
	var got client.BackupChecked
	err := c.Do(ctx, "POST", backupPath(b, "/checks"), check, &got)
	bar.end()
	if err != nil {
		return asked(err, "cannot check %s", b.Address)
	}
	if a.json {
		if err := a.printJSON(got); err != nil {
			return written(err)
		}
	}
	cause := got.Problem
	if n := len(got.Wrong); n > 0 {
		cause = fmt.Sprintf("%s missing or cut off: %s", plural(uint64(n), "pack"), strings.Join(got.Wrong, " "))
	}
	if got.Unreadable > 1 {
		cause += fmt.Sprintf(", and %s more", plural(uint64(got.Unreadable-1), "file"))
	}
	if cause != "" {
		return &failure{code: codeCorrupt, what: "the backup at " + b.Address + " is not whole", cause: cause, try: "bevy backup run " + shellWord(b.Address)}
	}
	if a.json {
		return nil
	}
	how := "are there"
	if got.Read {
		how = "were read and proven"
	}
	if got.Restored {
		how = fmt.Sprintf("were restored, with %s (%s) in %s as they should be", plural(uint64(got.Files), "file"), size(uint64(got.FileBytes)), plural(uint64(got.Folders), "folder"))
	}
	return written(a.printLine(fmt.Sprintf("%s  snapshot %s: %s, %s, %s", b.Address, got.Snapshot, plural(uint64(got.Packs), "pack"), size(uint64(got.Bytes)), how)))
}

func (a *app) backupPruneCommand() *cobra.Command {
	var sure consent
	var keep client.PruneBackup
	cmd := &cobra.Command{
		Use:   "prune [<place>] [flags]",
		Short: "Remove old snapshots, and what only they need",
		Long: `Keeps the newest snapshot, and the last one of each of some days, weeks and
months. As a snapshot has the whole history that was kept then, an older one is
needed only for what has been cleared since.`,
		Example: `bevy backup prune --dry-run
bevy backup prune --days 3 --weeks 0 --months 0 --yes`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				b, err := a.theBackup(cmd.Context(), c, args, "prune")
				if err != nil {
					return err
				}
				return a.backupPrune(cmd.Context(), c, b, keep, sure)
			})
		},
	}
	sure.flags(cmd)
	cmd.Flags().IntVar(&keep.Days, "days", 7, "keep the last snapshot of `n` days")
	cmd.Flags().IntVar(&keep.Weeks, "weeks", 5, "and that of `n` weeks")
	cmd.Flags().IntVar(&keep.Months, "months", 12, "and that of `n` months")
	return cmd
}

func (a *app) backupPrune(ctx context.Context, c *client.Client, b client.Backup, keep client.PruneBackup, sure consent) error {
	prune := func(dry bool) (out client.BackupPruned, err error) {
		keep.Dry = dry
		return out, asked(c.Do(ctx, "POST", backupPath(b, "/prunings"), keep, &out), "cannot prune %s", b.Address)
	}
	plan, err := prune(true)
	if err != nil {
		return err
	}
	if len(plan.Removed) > 0 || plan.Packs > 0 {
		words := fmt.Sprintf("%s would be removed from %s; kept: %s", plural(uint64(len(plan.Removed)), "snapshot"), b.Address, plural(uint64(len(plan.Kept)), "snapshot"))
		if ok, err := a.confirm(sure, "bevy backup prune "+shellWord(b.Address), words); !ok {
			if err == nil && a.json {
				return written(a.printJSON(plan))
			}
			return err
		}
		if plan, err = prune(false); err != nil {
			return err
		}
	}
	if a.json {
		return written(a.printJSON(plan))
	}
	a.say("%s and %s removed from %s; kept: %s", plural(uint64(len(plan.Removed)), "snapshot"), size(uint64(plan.Bytes)), b.Address, plural(uint64(len(plan.Kept)), "snapshot"))
	return nil
}

func (a *app) backupRestoreCommand() *cobra.Command {
	var at placeFlags
	var snapshot string
	cmd := &cobra.Command{
		Use:   "restore <place> [flags]",
		Short: "Get the cloud back from a backup",
		Long: `Brings all of a backup here: folders, buckets, tables, with their history. The
cloud has to be that of the backup; on a new machine it is made from its owner's
24 words first, by "bevy up --restore". What is here already stays, and what is
newer here stays newer. What is damaged does not keep it from the rest: the exit
code is then 7, or 3 if files are not whole, which are named.`,
		Example: `bevy backup restore /media/disk/bevy
bevy backup restore s3://my-bucket/bevy --endpoint https://s3.example.com`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			place, err := at.place(a, args[0])
			if err != nil {
				return err
			}
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.backupRestore(cmd.Context(), c, place, snapshot) })
		},
	}
	at.flags(cmd)
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "the `name` of the snapshot (default the newest)")
	return cmd
}

func (a *app) backupRestore(ctx context.Context, c *client.Client, place client.BackupPlace, snapshot string) error {
	bar := a.progress("restoring from "+place.Address, "block", 0, 0)
	var got client.BackupRestored
	err := c.Do(ctx, "POST", "/backup-restores", client.RestoreBackup{Place: place, Snapshot: snapshot}, &got)
	bar.end()
	if err != nil {
		return asked(err, "cannot restore from %s", place.Address)
	}
	var failed error
	try := "bevy backup verify --read " + shellWord(place.Address) + "; then restore from another backup, which adds what is missing"
	switch {
	case got.Problem != "":
		failed = &failure{code: codeCorrupt, what: fmt.Sprintf("not all of %s could be restored, and %s not whole", place.Address, are(got.MissingFiles, "file")), cause: got.Problem, try: try}
	case got.MissingFiles > 0:
		failed = &failure{code: codeNotFound, what: are(got.MissingFiles, "file") + " not whole on this machine", cause: "what is missing is not in the backup at " + place.Address, try: "restore from another backup, or bevy get <folder> while another machine is on"}
	}
	if a.json {
		return cmp.Or(written(a.printJSON(got)), failed)
	}
	a.say("the cloud is here as it was on %s, by %s", got.Time.Local().Format("2006-01-02 15:04:05"), got.Machine)
	a.sayMissing(got.MissingFiles, got.MissingNames)
	if failed == nil {
		a.say("next:  bevy ls\n       bevy add <folder> --as <name>   to have one on this disk")
	}
	return failed
}

func (a *app) backupStopCommand() *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use:   "stop <place> [flags]",
		Short: "Make a backup no more",
		Long: `The cloud is not backed up there any more. What is there stays, and can be
restored. One that may be the only place of what was freed with "bevy free" is
kept, unless --yes says otherwise: nothing is read from there any more then.`,
		Example: `bevy backup stop /media/disk/bevy`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				b, err := a.theBackup(cmd.Context(), c, args, "stop")
				if err != nil {
					return err
				}
				if err := c.Do(cmd.Context(), "DELETE", backupPath(b, "?anyway="+strconv.FormatBool(yes)), nil, nil); err != nil {
					return asked(err, "cannot stop the backup to %s", b.Address)
				}
				a.say("the cloud is not backed up to %s any more\nundo:  bevy backup to %s", b.Address, shellWord(b.Address))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "also if it may be the only place of something")
	return cmd
}
