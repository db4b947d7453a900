package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) addCommand() *cobra.Command {
	var in client.AddFolder
	var noWait bool
	cmd := &cobra.Command{
		Use:   "add <folder> [flags]",
		Short: "Keep a folder safe, and the same on all machines",
		Long: `Keeps a folder of this disk and one of the cloud the same, both ways: what is
changed here goes to the other machines, and what is changed there comes here.
Files stay plain files. On another machine the same command, with a folder of
the same name, has it there, too.

Every version stays for 30 days, and then that of each day for a year: see
"bevy log" and "bevy restore". What a file .bevyignore names is left alone.`,
		Example: `bevy add ~/Photos
bevy add /mnt/small/Photos --sparse
bevy add ~/pics --as Photos`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if in.Path, err = filepath.Abs(args[0]); err != nil {
				return fail(err, "cannot find %s", args[0])
			}
			return a.withNode(cmd.Context(), func(c *client.Client) error { return a.add(cmd.Context(), c, in, !noWait) })
		},
	}
	cmd.Flags().StringVar(&in.Name, "as", "", "call it by this `name` in the cloud")
	cmd.Flags().BoolVar(&in.Sparse, "sparse", false, "list everything, and bring contents only by bevy get")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "leave the rest to the node at once")
	return cmd
}

// add has a folder kept, and shows how that goes until it is in the cloud.
func (a *app) add(ctx context.Context, c *client.Client, in client.AddFolder, wait bool) error {
	var f client.Folder
	if err := c.Do(ctx, "POST", "/folders", in, &f); err != nil {
		return asked(err, "cannot keep %s", in.Path)
	}
	if wait {
		if err := a.watchFolder(ctx, c, &f); err != nil {
			return err
		}
	}
	if a.json {
		return written(a.printJSON(f))
	}
	if err := written(a.printLine(fmt.Sprintf("%s  %s  %s", f.Name, plural(f.Files, "file"), size(f.Bytes)))); err != nil {
		return err
	}
	switch {
	case f.State == "paused":
		a.say("paused: %s\nnext:  bevy notices", f.Why)
	case !wait || f.State == "syncing":
		a.say("the node goes on with it\nnext:  bevy status")
	case f.Copies < 2:
		a.say("safe on %s. For 2: bevy join", plural(uint64(f.Copies), "machine"))
	default:
		a.say("safe on %s", plural(uint64(f.Copies), "machine"))
	}
	a.say("undo:  bevy folder drop %s", shellWord(f.Name))
	return nil
}

// watchFolder shows the progress of a folder until nothing is left to do.
func (a *app) watchFolder(ctx context.Context, c *client.Client, f *client.Folder) error {
	var bar *progress
	var seen client.Progress
	defer func() {
		if bar != nil {
			bar.end()
		}
	}()
	for {
		if err := c.Do(ctx, "GET", "/folders/"+url.PathEscape(f.ID), nil, f); err != nil {
			return asked(err, "cannot ask how %s is", f.Name)
		}
		if now := f.Now; now != nil {
			if bar == nil && now.FilesToGo > 0 {
				bar = a.progress(f.Name, "file", uint64(now.FilesToGo), uint64(now.BytesToGo))
			}
			if bar != nil && now.Sent+now.Written >= seen.Sent+seen.Written {
				bar.add(uint64(now.Sent+now.Written-seen.Sent-seen.Written), uint64(max(0, now.SentBytes+now.WrittenBytes-seen.SentBytes-seen.WrittenBytes)))
			}
			seen = *now
		}
		if f.State != "syncing" {
			return nil
		}
		if !sleep(ctx, a.clock, 200*time.Millisecond) {
			a.say("the node goes on with it; see: bevy status")
			return nil
		}
	}
}

func (a *app) folderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "folder",
		Short: "The folders of your cloud",
		Args:  noSuchWord,
		RunE:  helpOf,
	}
	cmd.AddCommand(a.folderLsCommand(), a.folderDropCommand(),
		a.folderAnswerCommand("confirm", "Say that what is gone was meant to be removed",
			"When most files of a folder are gone at once, nothing is removed from the cloud\nuntil somebody says that it was meant. This says so."),
		a.folderAnswerCommand("restore", "Have what is gone from the disk written again",
			"When most files of a folder are gone at once, nothing is removed from the cloud\nuntil somebody says that it was meant. This says that it was not."),
		a.folderAnswerCommand("here", "Say that what is at the folder's place now is the folder",
			"When a folder's place has another folder than before, or none, nothing is done\nwith it until somebody says that this is the folder. This says so."))
	return cmd
}

func (a *app) folderLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the folders of your cloud",
		Example: `bevy folder ls
bevy folder ls --json`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				var list client.Folders
				if err := c.Do(cmd.Context(), "GET", "/folders", nil, &list); err != nil {
					return asked(err, "cannot list the folders")
				}
				t := newTable("FOLDER", "STATE", "COPIES", "FILES", "SIZE", "HERE")
				for _, f := range list.Folders {
					if a.json {
						if err := written(a.printJSON(f)); err != nil {
							return err
						}
						continue
					}
					t.add(f.Name, f.State, fmt.Sprint(f.Copies), fmt.Sprint(f.Files), size(f.Bytes), dash(f.Path))
				}
				if a.json {
					return nil
				}
				if len(list.Folders) == 0 {
					a.say("no folder is kept yet\nnext:  bevy add <folder>")
					return nil
				}
				return written(t.write(a.stdout))
			})
		},
	}
}

// folderWord is the folder that a word names: where it is on this disk, if that
// is what it says.
func folderWord(word string) string {
	if strings.HasPrefix(word, ".") || strings.HasPrefix(word, "~") || strings.ContainsRune(word, filepath.Separator) {
		if p, err := filepath.Abs(word); err == nil {
			return p
		}
	}
	return word
}

func (a *app) folderDropCommand() *cobra.Command {
	var everywhere bool
	var sure consent
	cmd := &cobra.Command{
		Use:   "drop <folder> [flags]",
		Short: "Keep a folder no longer; its files stay",
		Long: `Ends keeping a folder of this disk the same as the one of the cloud. Both stay
as they are. With --everywhere the cloud's one goes away on all machines, too;
what is on their disks stays.`,
		Example: `bevy folder drop Photos
bevy folder drop Photos --everywhere --yes`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				path, plan := folderPath(args[0]), args[0]+" would be kept on this machine no longer; its files would stay"
				if everywhere {
					path += "?everywhere=true"
					plan = args[0] + " would be removed from the cloud on all machines, with its history; files on disks would stay"
				}
				if everywhere || sure.dryRun {
					if ok, err := a.confirm(sure, "bevy folder drop "+shellWord(args[0]), plan); !ok {
						return err
					}
				}
				if err := c.Do(cmd.Context(), "DELETE", path, nil, nil); err != nil {
					return asked(err, "cannot drop %s", args[0])
				}
				if everywhere {
					a.say("%s was removed from the cloud\nundo:  bevy removed back %s", args[0], shellWord(args[0]))
					return nil
				}
				a.say("%s is not kept on this machine any more\nundo:  bevy add <folder> --as %s", args[0], shellWord(args[0]))
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&everywhere, "everywhere", false, "remove it from the cloud, on all machines")
	sure.flags(cmd)
	return cmd
}

func (a *app) folderAnswerCommand(answer, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:     answer + " <folder> [flags]",
		Short:   short,
		Long:    long,
		Example: "bevy folder " + answer + " Photos",
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd.Context(), func(c *client.Client) error {
				path := folderPath(args[0]) + "/answers/" + answer
				if err := c.Do(cmd.Context(), "POST", path, nil, nil); err != nil {
					return asked(err, "cannot answer for %s", args[0])
				}
				a.say("done\nnext:  bevy status")
				return nil
			})
		},
	}
}
