package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noSuchWord is the Args of a command that only has others below it.
func noSuchWord(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			names = append(names, c.Name())
		}
	}
	cause, try := fmt.Sprintf("%s has: %s", cmd.CommandPath(), strings.Join(names, ", ")), cmd.CommandPath()+" --help"
	if near := nearest(args[0], names); near != "" {
		cause, try = fmt.Sprintf("the nearest one is %q", near), cmd.CommandPath()+" "+near
	} else if len(cause) > maxCause {
		cause = fmt.Sprintf("%s has %d commands, and none is like it", cmd.CommandPath(), len(names))
	}
	return wrong(try, cause, "there is no command %q", cmd.CommandPath()+" "+args[0])
}

// maxCause is how long a cause may be to fit on a line of a terminal.
const maxCause = 72

// wrongFlag says what is wrong with a flag.
func wrongFlag(cmd *cobra.Command, err error) error {
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return noSuchWord(cmd, words) // the flag belongs to a command that is not there
	}
	try := cmd.CommandPath() + " --help"
	var missing *pflag.NotExistError
	if errors.As(err, &missing) {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
		cause := "it takes no such flag"
		if near := nearest(missing.GetSpecifiedName(), names); near != "" {
			cause, try = "the nearest one is --"+near, cmd.CommandPath()+" --"+near
		}
		return wrong(try, cause, "%q has no flag %q", cmd.CommandPath(), flagWord(missing.GetSpecifiedName()))
	}
	return wrong(try, err.Error(), "wrong flag for %q", cmd.CommandPath())
}

func flagWord(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// wants is an Args that takes between low and high words; any number when high
// is negative.
func wants(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return wrong(cmd.CommandPath()+" --help", "usage: "+cmd.UseLine(), "%q wants more words", cmd.CommandPath())
		case high >= 0 && len(args) > high:
			return wrong(cmd.CommandPath()+" --help", "usage: "+cmd.UseLine(), "%q does not know what to do with %q", cmd.CommandPath(), args[high])
		}
		return nil
	}
}

// nearest returns the name that a wrong word was probably meant to be, or "".
func nearest(word string, names []string) string {
	best, bound := "", max(1, len(word)/3)
	for _, name := range names {
		d := distance(word, name)
		if len(word) > 1 && strings.HasPrefix(name, word) {
			d = min(d, 1)
		}
		if d <= bound && (best == "" || d < distance(word, best)) {
			best = name
		}
	}
	return best
}

// distance is how many letters must be added, dropped, replaced or swapped with
// their neighbour to get from a to b.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before []int // the row before the last
	last := make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row := make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			cost := 1
			if x[i] == y[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}
