package main

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/spf13/cobra"
)

func (a *app) tagCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Give a moment of a folder a name, and keep it",
		Long: `A tag is a name of a moment of one folder of the cloud: Photos@before-trip is
how it was then. What there was at that moment is kept until the tag is removed.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(a.tagLsCommand(), a.tagAddCommand(), a.tagRmCommand())
	return cmd
}

// A listedTag is what --json prints of each.
type listedTag struct {
	Folder string    `json:"folder"`
	Name   string    `json:"name"`
	Note   string    `json:"note"`
	Time   time.Time `json:"time"` // when it was given
}

func (a *app) tagLsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls [<folder>] [flags]",
		Short: "List the tags, of one folder or of all",
		Example: `bevy tag ls
bevy tag ls Photos`,
		Args: wants(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.tags(cmd.Context(), args) })
		},
	}
}

func (f *files) tags(ctx context.Context, args []string) error {
	places, err := f.wholeFolders(args, "tag ls")
	if err != nil {
		return err
	}
	return f.lines(func(w *lineWriter) error {
		none := true
		for _, p := range places {
			var list client.Tags
			if err := f.node.Do(ctx, "GET", p.route("tags"), nil, &list); err != nil {
				return asked(err, "cannot list the tags of %s", p.called())
			}
			for _, t := range list.Tags {
				none = false
				var err error
				if f.json {
					err = w.object(listedTag{p.folder.Name, t.Name, t.Note, t.Time})
				} else {
					at := p
					at.at = t.Name
					err = w.line(t.Time.Local().Format("2006-01-02 15:04:05"), at.called(), escape([]byte(t.Note)))
				}
				if err != nil {
					return err
				}
			}
		}
		if none && !f.json {
			f.say("no tags")
		}
		return nil
	})
}

// wholeFolders are the folders that words name, all when there are none.
func (f *files) wholeFolders(words []string, verb string) (places []place, err error) {
	if len(words) == 0 {
		for _, of := range f.folders {
			places = append(places, place{folder: of, path: "/"})
		}
	}
	for _, word := range words {
		p, err := f.findNow(word, verb)
		if err == nil && p.path != "/" {
			err = wrong("bevy "+verb+" "+shellWord(p.folder.Name), "it is about a whole folder of the cloud", "%s is in a folder", p.called())
		}
		if err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	return places, nil
}

func (a *app) tagAddCommand() *cobra.Command {
	note := ""
	cmd := &cobra.Command{
		Use:   "add <name> <folder> [flags]",
		Short: "Name how a folder is now, or was at a moment",
		Example: `bevy tag add before-trip Photos
bevy tag add good Notes@yesterday --note checked`,
		Args: wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.tag(cmd.Context(), args[0], args[1], note) })
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "keep this `text` with it")
	return cmd
}

func (f *files) tag(ctx context.Context, name, word, note string) error {
	if name == "" || strings.ContainsAny(name, "@/") || name == "now" {
		return wrong("bevy tag add before-trip "+shellWord(word), "it is empty, or has an @ or a slash, or means something else", "wrong tag %q", name)
	}
	p, err := f.find(word)
	if err != nil {
		if _, swapped := f.find(name); swapped == nil {
			return wrong("bevy tag add "+shellWord(word)+" "+shellWord(name), "the name of the tag comes first", "there is no folder %q", word)
		}
		return err
	}
	if p.path != "/" {
		return wrong("bevy tag add "+shellWord(name)+" "+shellWord(p.folder.Name), "a tag is of a whole folder of the cloud", "%s is in a folder", p.called())
	}
	in := map[string]string{"name": name, "note": note, "at": p.at}
	if err := f.node.Do(ctx, "POST", p.route("tags"), in, nil); err != nil {
		return momentHint(asked(err, "cannot tag %s", p.called()), p)
	}
	at := p
	at.at = name
	if f.json {
		return written(f.printJSON(listedTag{p.folder.Name, name, note, f.clock.Now().UTC()}))
	}
	f.say("%s is kept as %s", p.called(), at.called())
	f.say("undo:  bevy tag rm %s %s --yes", shellWord(name), shellWord(p.folder.Name))
	return nil
}

func (a *app) tagRmCommand() *cobra.Command {
	var sure consent
	cmd := &cobra.Command{
		Use:   "rm <name> <folder> [flags]",
		Short: "Keep a moment for its name no longer",
		Long: `Removes a tag. What there was at its moment is kept no longer than other older
versions are: see "bevy clear".`,
		Example: `bevy tag rm before-trip Photos`,
		Args:    wants(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withFiles(cmd.Context(), func(f *files) error { return f.untag(cmd.Context(), args[0], args[1], sure) })
		},
	}
	sure.flags(cmd)
	return cmd
}

func (f *files) untag(ctx context.Context, name, word string, sure consent) error {
	places, err := f.wholeFolders([]string{word}, "tag rm "+shellWord(name))
	if err != nil {
		return err
	}
	p := places[0]
	at := p
	at.at = name
	var m client.Moment
	if err := f.node.Do(ctx, "GET", at.of("moment"), nil, &m); err != nil && codeOf(asked(err, "")) != codeNotFound {
		return asked(err, "cannot find tag %q", name)
	}
	if m.Tag == "" {
		return &failure{code: codeNotFound, what: "there is no tag " + at.called(), cause: "it was never given, or was removed", try: "bevy tag ls " + p.word()}
	}
	if ok, err := f.confirm(sure, "bevy tag rm "+shellWord(name)+" "+p.word(), at.called()+" will not be kept for its name any more"); !ok {
		return err
	}
	if err := f.node.Do(ctx, "DELETE", p.route("tags/")+url.PathEscape(name), nil, nil); err != nil {
		return asked(err, "cannot remove tag %s", at.called())
	}
	if f.json {
		return written(f.printJSON(listedTag{p.folder.Name, name, "", m.Time}))
	}
	f.say("removed tag %s; what there was is kept as other older versions are", at.called())
	return nil
}
