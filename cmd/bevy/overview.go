package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/spf13/cobra"
)

// overviewInfo is what --json prints.
type overviewInfo struct {
	versionInfo
	Store string `json:"store"` // its folder
	Logs  int    `json:"logs"`
	InUse bool   `json:"inUse"` // another process has it open: logs is not known
}

// overview is what bare "bevy" does.
func (a *app) overview(*cobra.Command, []string) error {
	h := &hyper{app: a}
	dir, err := h.storeDir()
	if err != nil {
		return err
	}
	o := overviewInfo{versionInfo: versionNow(), Store: dir}
	err = h.withStore(reading, func(s *corestore.Store) error {
		for _, err := range s.Logs() {
			if err != nil {
				return fail(err, "cannot list the logs")
			}
			o.Logs++
		}
		return nil
	})
	o.InUse = errors.Is(err, storage.ErrLocked)
	if err != nil && !o.InUse && !errors.As(err, new(*noStoreError)) {
		return err
	}
	if a.json {
		return written(a.printJSON(o))
	}
	state := plural(uint64(o.Logs), "log")
	if o.InUse {
		state = "in use by another process"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "bevy   %s: the toolbox for logs\n", o.Version)
	fmt.Fprintf(&b, "store  %s: %s\n", o.Store, state)
	for i, next := range [][2]string{
		{"bevy hyper core create <name>", "make a log"},
		{"bevy hyper core append <name> <file>", "add to it"},
		{"bevy hyper core ls", "see which there are"},
		{"bevy hyper core cat <key>", "read one"},
		{"bevy help", "see all commands"},
	} {
		label := "next: "
		if i > 0 {
			label = "      "
		}
		fmt.Fprintf(&b, "%s %-38s %s\n", label, next[0], next[1])
	}
	_, err = io.WriteString(a.stdout, b.String())
	return written(err)
}
