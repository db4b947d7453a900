package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/node"
	"github.com/spf13/cobra"
)

// A hyper is one run of a "bevy hyper" command.
type hyper struct {
	*app
	dir           string // --store
	adopt         bool   // --adopt
	temp          bool   // --temp
	encryptionKey string // --encryption-key

	// What a command reads that is not here, see peerFlags.
	peers    []string      // --peer
	finds    bool          // --swarm
	seeds    bool          // peers of the swarm may find us too
	swarm    swarmFlags    // which swarm that is
	patience time.Duration // --wait
}

// remote reports whether peers are to be read from.
func (h *hyper) remote() bool { return len(h.peers) > 0 || h.finds }

func (a *app) hyperCommand() *cobra.Command {
	h := &hyper{app: a}
	cmd := &cobra.Command{
		Use:   "hyper",
		Short: "Work with Hypercore logs: make, read, check, replicate",
		Long: `A toolbox for Hypercore logs. They are those of the npm package hypercore 11:
what it writes this reads, over a connection, and the other way round.

A log is named by its key: in z-base-32, in hex or as a pear:// link. A log that
is in the store is also named by the name it was created with, or by the first
6 or more letters of its key.

The store is a folder. One process at a time has it open. Others read from that
one as peers: see "bevy hyper serve".`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.PersistentFlags().StringVar(&h.dir, "store", "", "keep logs in this `folder`; see \"bevy help environment\"")
	cmd.PersistentFlags().BoolVar(&h.adopt, "adopt", false, "write to a copied store; only if its original is gone for good")
	_ = cmd.MarkPersistentFlagDirname("store") // the flag is there
	cmd.AddCommand(h.coreCommand(), h.beeCommand(), h.driveCommand(), h.serveCommand(), h.dhtCommand(), h.netcheckCommand("bevy hyper"))
	return cmd
}

// helpOf is what a command does that only has others below it.
func helpOf(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// storeDir is the folder of the store: what the flag says, or a variable, or
// the place for data of the system.
func (h *hyper) storeDir() (string, error) {
	if h.dir != "" {
		return h.dir, nil
	}
	if dir := h.env["BEVY_STORE"]; dir != "" {
		return dir, nil
	}
	if home := h.env["BEVY_HOME"]; home != "" {
		return filepath.Join(home, "hyper"), nil
	}
	if p, err := node.FindPaths(runtime.GOOS, h.env); err == nil {
		return filepath.Join(p.Data, "hyper"), nil
	}
	return "", wrong("--store <folder>", "neither BEVY_STORE nor BEVY_HOME nor HOME is set", "no place for the store")
}

// A storeMode says how a store is opened.
type storeMode int

const (
	reading storeMode = iota // must be there, and is not changed
	writing                  // must be there
	making                   // is made if it is not
)

// withStore calls f with the store, and closes it.
func (h *hyper) withStore(mode storeMode, f func(*corestore.Store) error) (err error) {
	dir, err := h.storeDir()
	if err != nil {
		return err
	}
	if h.temp {
		if dir, err = os.MkdirTemp("", "bevy-"); err != nil {
			return fail(err, "cannot make a temporary store")
		}
		defer func() { err = errors.Join(err, fail(os.RemoveAll(dir), "cannot remove the temporary store %s", dir)) }()
		mode = making
	}
	s, err := h.openStore(dir, mode)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil { // what went wrong first is what counts
			err = fail(e, "cannot close the store %s", dir)
		}
	}()
	return f(s)
}

func (h *hyper) openStore(dir string, mode storeMode) (*corestore.Store, error) {
	if _, err := os.Stat(dir); mode == writing && errors.Is(err, fs.ErrNotExist) {
		return nil, h.noStore(dir, err)
	}
	s, err := corestore.OpenDisk(storage.Disk{Dir: dir, ReadOnly: mode == reading, Adopt: h.adopt}, corestore.Options{
		Replicate: replicate.Options{Dropped: func(p replicate.PeerInfo) {
			h.say("dropped peer %s of log %s: %s", p.Name, short(p.Log), causeOf(p.Dropped))
		}},
	})
	if mode == reading && errors.Is(err, storage.ErrNotFound) {
		return nil, h.noStore(dir, err)
	}
	if err != nil {
		return nil, fail(err, "cannot open the store %s", dir)
	}
	return s, nil
}

// A noStoreError says that there is nothing at the store's place.
type noStoreError struct{ err error }

func (e *noStoreError) Error() string { return e.err.Error() }
func (e *noStoreError) Unwrap() error { return e.err }

func (h *hyper) noStore(dir string, err error) error {
	return &failure{code: codeNotFound, err: &noStoreError{err},
		what:  fmt.Sprintf("there is no store in %s", dir),
		cause: "nothing was kept there yet",
		try:   "bevy hyper core create <name>, or --store <folder> if it is elsewhere"}
}
