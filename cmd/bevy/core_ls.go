package main

import (
	"cmp"
	"errors"
	"slices"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) lsCommand() *cobra.Command {
	full := false
	cmd := &cobra.Command{
		Use:   "ls [flags]",
		Short: "List the logs of the store",
		Long: `Lists the logs of the store: first those with names, then the others. ACCESS
says whether this store can write the log or only reads what another signs.`,
		Args: wants(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return h.ls(full) },
	}
	cmd.Flags().BoolVar(&full, "full", false, "print whole keys")
	return cmd
}

// A listedLog is what --json prints of each.
type listedLog struct {
	Key          string `json:"key"`
	DiscoveryKey string `json:"discoveryKey"`
	Name         string `json:"name"` // "" if it has none
	Length       uint64 `json:"length"`
	Fork         uint64 `json:"fork"`
	Writable     bool   `json:"writable"`

	key hypercore.Key
}

func (h *hyper) ls(full bool) error {
	var list []listedLog
	err := h.withStore(reading, func(s *corestore.Store) error {
		names, err := readNames(s)
		if err != nil {
			return err
		}
		for info, err := range s.Logs() {
			if err != nil {
				return fail(err, "cannot list the logs")
			}
			list = append(list, listedLog{info.Key.String(), info.Discovery.String(), names.of[info.Discovery], info.Length, info.Fork, info.Writable, info.Key})
		}
		return nil
	})
	if err != nil && !errors.As(err, new(*noStoreError)) {
		return err
	}
	slices.SortFunc(list, func(a, b listedLog) int {
		if (a.Name == "") != (b.Name == "") {
			return cmp.Compare(b.Name, a.Name)
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Key, b.Key))
	})
	if h.json {
		for _, l := range list {
			if err := h.printJSON(l); err != nil {
				return written(err)
			}
		}
		return nil
	}
	if len(list) == 0 {
		h.say("No logs are here yet.\nnext:  bevy hyper core create <name>")
		return nil
	}
	return h.printList(list, full)
}

func (h *hyper) printList(list []listedLog, full bool) error {
	t := newTable("KEY", "BLOCKS", "FORK", "ACCESS", "NAME")
	t.right[1], t.right[2] = true, true
	color := h.color(h.stdout)
	for _, l := range list {
		key, access, name := l.Key, "read", cmp.Or(l.Name, "-")
		if !full {
			key = short(l.key)
		}
		if l.Writable {
			access = "write"
		}
		t.add(key, count(l.Length), count(l.Fork), access, name)
		if color {
			t.paint(0, func(text string) string { return colored(l.key, text) })
		}
	}
	return written(t.write(h.stdout))
}
