package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) createCommand() *cobra.Command {
	encrypted := false
	cmd := &cobra.Command{
		Use:   "create <name> [flags]",
		Short: "Make a new log and print its key",
		Long: `Makes a new, empty log that this store can write, and prints its key. Who has
the key can read the log; only this store can write it.

With --encrypted its blocks are encrypted with a second key, which is made and
printed too. That key is kept nowhere: without it nobody reads the blocks. Who
has only the log's key can hold, check and pass on blocks, without reading them.`,
		Example: `bevy hyper core create notes
bevy hyper core create diary --encrypted`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return h.create(cmd.Context(), args[0], encrypted, aLog)
		},
	}
	cmd.Flags().BoolVar(&encrypted, "encrypted", false, "make an encryption key, and print it")
	h.keyFlag(cmd, "encrypt with this key")
	return cmd
}

// created is what --json prints.
type created struct {
	Key           string `json:"key"`
	DiscoveryKey  string `json:"discoveryKey"`
	Name          string `json:"name"`
	EncryptionKey string `json:"encryptionKey,omitempty"` // if one was made
	Encrypted     bool   `json:"encrypted"`
}

// A kind is what a log is made to be.
type kind struct {
	group string // of the commands about it, in "bevy hyper"
	next  string // what to do with a new one, with %s for its name
	// begin writes what such a log has in the beginning, if anything, with the key
	// that encrypts it, if one does.
	begin func(context.Context, *corestore.Store, *hypercore.Log, *[32]byte) error
}

var aLog = kind{group: "core", next: "append %s <file>"}

func (h *hyper) create(ctx context.Context, name string, encrypted bool, kind kind) error {
	if err := checkName(name); err != nil {
		return err
	}
	key, err := h.readEncryptionKey()
	if err != nil {
		return err
	}
	made := encrypted && key == nil
	if made {
		key = new([32]byte)
		if _, err := io.ReadFull(rand.Reader, key[:]); err != nil {
			return fail(err, "cannot make an encryption key")
		}
	}
	return h.withStore(making, func(s *corestore.Store) error {
		names, err := readNames(s)
		if err != nil {
			return err
		}
		if _, ok := names.logs[name]; ok {
			return &failure{code: codeConflict, what: fmt.Sprintf("cannot create %q", name), cause: "there is a log of that name",
				try: fmt.Sprintf("another name, or: bevy hyper %s info %s", kind.group, name)}
		}
		l, err := s.Get(corestore.LogOptions{Name: name, Session: hypercore.SessionOptions{EncryptionKey: key}})
		if err != nil {
			return fail(err, "cannot create %q", name)
		}
		if key != nil {
			err = fail(l.SetUserData(ctx, encryptionMark, markOf(key)), "cannot create %q", name)
		}
		if err == nil && kind.begin != nil {
			err = fail(kind.begin(ctx, s, l, key), "cannot create %q", name)
		}
		c := created{Key: l.Key().String(), DiscoveryKey: l.Discovery().String(), Name: name, Encrypted: key != nil}
		if made {
			c.EncryptionKey = hex.EncodeToString(key[:])
		}
		if err = errors.Join(err, fail(l.Close(), "cannot create %q", name)); err != nil {
			return err
		}
		return h.printCreated(c, kind)
	})
}

func (h *hyper) printCreated(c created, kind kind) error {
	if h.json {
		return written(h.printJSON(c))
	}
	text := c.Key + "\n"
	if c.EncryptionKey != "" {
		text += c.EncryptionKey + "\n"
	}
	if _, err := io.WriteString(h.stdout, text); err != nil {
		return written(err)
	}
	h.say("created %q. Its key is above; who has it can read the log.", c.Name)
	if c.EncryptionKey != "" {
		h.say("The second line is its encryption key. Keep it: it is stored nowhere.")
	}
	h.say("next:  bevy hyper %s "+kind.next, kind.group, c.Name)
	return nil
}

// maxName bounds a log's name.
const maxName = 255

// checkName refuses names that can't be told from keys, or not be typed.
func checkName(name string) error {
	why := ""
	_, notKey := hypercore.ParseKey(name)
	switch {
	case name == "":
		why = "it is empty"
	case len(name) > maxName:
		why = fmt.Sprintf("it is longer than %d bytes", maxName)
	case notKey == nil || strings.Contains(name, "://"):
		why = "it could be a key"
	case strings.HasPrefix(name, "-"):
		why = "it could be a flag"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }):
		why = "it has letters that can't be seen"
	}
	if why == "" {
		return nil
	}
	return wrong("a short word, such as notes", why, "%q is no name for a log", name)
}
