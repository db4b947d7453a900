package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the most columns of a help text, on any terminal.
const helpWidth = 80

// help prints the help text of a command.
func (a *app) help(cmd *cobra.Command) {
	var b strings.Builder
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	fmt.Fprintln(&b, text)
	if cmd.Runnable() {
		heading(&b, "Usage")
		fmt.Fprintln(&b, "  "+usageOf(cmd))
	}
	if cmd.HasAvailableSubCommands() {
		commands(&b, "Commands", cmd, func(c *cobra.Command) bool { return c.IsAvailableCommand() })
	}
	if !cmd.HasParent() {
		commands(&b, `Topics, with "bevy help <topic>"`, cmd, (*cobra.Command).IsAdditionalHelpTopicCommand)
	}
	if cmd.Example != "" {
		heading(&b, "Examples")
		for line := range strings.Lines(cmd.Example) {
			fmt.Fprint(&b, "  ", line)
		}
		fmt.Fprintln(&b)
	}
	if cmd.Runnable() {
		flags(&b, "Flags", cmd.LocalNonPersistentFlags(), cmd.PersistentFlags())
		flags(&b, "Flags of all commands here", cmd.InheritedFlags())
	}
	fmt.Fprint(a.stdout, b.String())
}

func heading(b *strings.Builder, s string) { fmt.Fprintf(b, "\n%s\n", s) }

// usageOf is the line that shows how to call a command.
func usageOf(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " <command>"
	}
	return cmd.UseLine()
}

func commands(b *strings.Builder, title string, cmd *cobra.Command, which func(*cobra.Command) bool) {
	var rows [][2]string
	for _, c := range cmd.Commands() {
		if which(c) {
			rows = append(rows, [2]string{c.Name(), c.Short})
		}
	}
	list(b, title, rows)
}

func flags(b *strings.Builder, title string, sets ...*pflag.FlagSet) {
	var rows [][2]string
	seen := map[string]bool{}
	for _, set := range sets {
		set.VisitAll(func(f *pflag.Flag) {
			if f.Hidden || seen[f.Name] {
				return
			}
			seen[f.Name] = true
			name, usage := pflag.UnquoteUsage(f)
			word := "--" + f.Name
			if f.Shorthand != "" {
				word = "-" + f.Shorthand + ", " + word
			}
			if f.Value.Type() != "bool" {
				word += " <" + name + ">"
				if f.DefValue != "" && f.DefValue != "[]" {
					usage += " (" + f.DefValue + " unless said otherwise)"
				}
			}
			if f.Value.Type() == "stringArray" {
				word += "..."
			}
			rows = append(rows, [2]string{word, usage})
		})
	}
	list(b, title, rows)
}

// list prints rows of a word and what it means, in two columns.
func list(b *strings.Builder, title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	heading(b, title)
	left := 0
	for _, r := range rows {
		left = max(left, utf8.RuneCountInString(r[0]))
	}
	for _, r := range rows {
		for i, line := range wrap(r[1], helpWidth-left-4) {
			word := ""
			if i == 0 {
				word = r[0]
			}
			fmt.Fprintf(b, "  %-*s  %s\n", left, word, line)
		}
	}
}

// wrap cuts a text into lines of at most width letters, where its words allow.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [<command>...]",
		Short: "Say what a command does, or explain a topic",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.Root()
			for i, word := range args {
				next := child(at, word)
				if next == nil {
					return noSuchWord(at, args[i:])
				}
				at = next
			}
			a.help(at)
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at := cmd.Root()
			for _, word := range args {
				if at = child(at, word); at == nil {
					return nil, cobra.ShellCompDirectiveNoFileComp
				}
			}
			var words []string
			for _, c := range at.Commands() {
				if !c.Hidden {
					words = append(words, c.Name())
				}
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func child(cmd *cobra.Command, word string) *cobra.Command {
	for _, c := range cmd.Commands() {
		if c.Name() == word {
			return c
		}
	}
	return nil
}

// topics are help texts without a command.
func topics() []*cobra.Command {
	return []*cobra.Command{
		{Use: "environment", Short: "Variables that bevy reads, and where data is", Long: `Where data is, and what changes it. A flag is stronger than a variable.

  BEVY_HOME            a folder for all that bevy keeps; as --home
  XDG_DATA_HOME        else, the cloud is in its "bevy": what must not be lost
  XDG_STATE_HOME       else, the socket and what bevy notes down in its "bevy"
  BEVY_STORE           the folder of "bevy hyper"; as --store
  BEVY_BOOTSTRAP       nodes by which a network is joined; as --bootstrap
  BEVY_RELAY           relays of "bevy up", by key; as --relay
  BEVY_ENCRYPTION_KEY  as --encryption-key, which other users of the machine
                       can see in the list of processes
  BEVY_TOKEN           as --token, likewise
  NO_COLOR             no colours, if it is set to anything

If none of the first three is set, the cloud is in ~/.local/share/bevy and the
rest in ~/.local/state/bevy; on macOS in ~/Library/Application Support/bevy, on
Windows in %LOCALAPPDATA%\bevy. "bevy hyper" has its logs in "hyper" there.
"bevy status --json" tells all places.`},
		{Use: "places", Short: "How to name a file of the cloud, and a moment", Long: `How to name a file of the cloud, and a moment.

  Photos/2026/sea.jpg        in the folder Photos of the cloud
  ~/Photos/2026/sea.jpg      on this disk, in a folder that is kept here
  ./sea.jpg                  likewise, from where we are
  Photos@yesterday           as it was: behind the last @ comes a moment
  Photos/icon@2x.png@        a name with an @ in it: another one comes last
  shop:photos/sea.jpg        in the bucket photos of the app shop

A word that begins with the name of a folder of the cloud is that one; what
begins with /, ./, ../ or ~ is on the disk; and other words are what they are on
the disk.

A moment is the name of a tag ("bevy tag"); how long ago, such as 90s, 2h or 3d;
yesterday, which is this time of day then; a day such as 2026-11-23, which is
its beginning; a time such as 15:04, 2026-11-23T15:04 or 2026-11-23T15:04:05Z.
Where no zone is named, times are those of the machine. All that was done until
then is in it. "bevy log" lists what was done, and when.`},
		{Use: "exit-codes", Short: "What the exit codes mean", Long: `What the exit codes mean.

  0  ok
  1  failed, or was interrupted
  2  wrong use: words that a command does not take, or --yes is missing
  3  not found: no such log, block, entry, version, file or store
  4  denied: it can't be written here, needs a key, or a peer refused us
  5  conflict: something else has the store open, or is in the way; or a
               condition is not true
  6  offline: no peer could be reached
  7  corrupt: what is stored is not what was written or signed
  8  full: the disk has no room left`},
		{Use: "formatting", Short: "What is printed where, and --json", Long: `What is printed where.

Data goes to stdout and everything else to stderr. Nothing is asked unless both
stdin and stderr are a terminal. A line of progress is shown if stderr is one.

With --json, stdout has one JSON object on each line, and what a command says
beside that is unchanged; an error is one object on stderr, with the fields
error, cause, try and code. Fields are never taken away or given another
meaning; new ones may come. Blocks are in base64, keys in z-base-32. What is in
a bee is text, or in base64 in another field if it is none. The fields of each
command are listed in docs/cli.md.

Sizes are in B, KiB, MiB and GiB, of 1024 each.`},
	}
}
