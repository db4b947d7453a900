package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/blake2b"
)

func (h *hyper) coreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "core",
		Short: "Work with one log",
		Long: `A log is numbered blocks, from 0, that only grow. Its writer signs them, and
whoever has the log's key can check each block, whoever it comes from.`,
		Args: noSuchWord,
		RunE: helpOf,
	}
	cmd.AddCommand(h.createCommand(), h.lsCommand(), h.infoCommand(), h.appendCommand(), h.getCommand(),
		h.catCommand(), h.truncateCommand(), h.clearCommand(), h.auditCommand(), h.downloadCommand())
	h.completeLogs(cmd)
	return cmd
}

// keyFlag adds --encryption-key to a command.
func (h *hyper) keyFlag(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVar(&h.encryptionKey, "encryption-key", "", usage+", in `hex`; also BEVY_ENCRYPTION_KEY")
}

// readEncryptionKey returns the encryption key that was given, or nil.
func (h *hyper) readEncryptionKey() (*[32]byte, error) {
	s := h.encryptionKey
	if s == "" {
		s = h.env["BEVY_ENCRYPTION_KEY"]
	}
	if s == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 32 {
		return nil, wrong("the key as \"create --encrypted\" printed it", "it is not 64 digits of hex", "wrong encryption key")
	}
	return (*[32]byte)(b), nil
}

// A log is one that a command works with, by whatever word it was named.
type log struct {
	*hypercore.Log
	name  string // "" if it has none here
	new   bool   // it was not in the store before
	store *corestore.Store
	net   *network
	wait  *patience // for peers; does nothing without any
}

// called is what the log is spoken of as.
func (l *log) called() string { return quoted(l.name, l.Key()) }

// word is how to name the log in a command.
func (l *log) word() string {
	if l.name != "" {
		return l.name
	}
	return l.Key().String()
}

// withLog calls f with the log that word names. If there are peers to read from
// it is connected to them and up to date.
func (h *hyper) withLog(ctx context.Context, mode storeMode, word string, session hypercore.SessionOptions, f func(context.Context, *log) error) error {
	if err := h.checkPeers(); err != nil {
		return err
	}
	if h.remote() {
		mode = making
	}
	return h.withStore(mode, func(s *corestore.Store) error {
		l, err := openLog(s, word, session, h.remote())
		if err != nil {
			return err
		}
		name, key := l.called(), l.Key()
		if h.remote() {
			err = h.withPeers(ctx, s, l, f)
		} else {
			err = f(ctx, l)
		}
		empty := l.new && l.Length() == 0
		if e := l.Close(); err == nil {
			err = fail(e, "cannot close log %s", name)
		}
		if empty {
			if e := s.Delete(key); err == nil {
				err = fail(e, "cannot remove log %s, of which nothing came", name)
			}
		}
		return err
	})
}

// withPeers calls f with a log that is connected to peers.
func (h *hyper) withPeers(ctx context.Context, s *corestore.Store, l *log, f func(context.Context, *log) error) error {
	found := s.FindingPeers()
	net, err := h.connect(ctx, s, l.Key())
	found()
	if err != nil {
		return err
	}
	defer net.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.net = net
	l.wait = &patience{clock: h.clock, limit: h.patience, give: func() { cancel(net.noAnswer()) }}
	defer l.wait.rest()
	deaf, err := l.wait.hear(l.Log)
	if err != nil {
		return fail(err, "cannot watch log %s", l.called())
	}
	defer deaf()
	err = h.update(ctx, l)
	if err == nil {
		defer s.FindingPeers()() // whoever wants a block waits while a connection is made anew
		err = f(ctx, l)
	}
	var gaveUp *failure
	if err != nil && errors.As(context.Cause(ctx), &gaveUp) {
		return gaveUp
	}
	return err
}

// update fetches the newest head of the log.
func (h *hyper) update(ctx context.Context, l *log) error {
	l.wait.start()
	err := l.updateFromPeers(ctx)
	l.wait.rest()
	switch {
	case err != nil:
		return fail(err, "cannot fetch the head of log %s", l.called())
	case l.net.sharers(l.Key()) > 0:
	case l.new:
		return &failure{code: codeNotFound, what: fmt.Sprintf("no peer has log %s", l.called()),
			cause: "all that are connected were asked", try: "other peers, or look at the key"}
	default:
		h.say("no peer that is connected has log %s: reading what is here", l.called())
	}
	return nil
}

// updateFromPeers fetches the newest head of what is connected. Connections that
// end before they have said whether they have the log don't count: then it
// waits for others.
func (l *log) updateFromPeers(ctx context.Context) error {
	for {
		next := l.net.next()
		err := l.Update(ctx)
		if err != nil || l.net.sharers(l.Key()) > 0 || l.net.connected() > 0 {
			return err
		}
		select {
		case <-next:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// openLog opens the log that a word names: its name, its key, or the beginning
// of its key. With fetch it need not be in the store.
func openLog(s *corestore.Store, word string, session hypercore.SessionOptions, fetch bool) (*log, error) {
	names, err := readNames(s)
	if err != nil {
		return nil, err
	}
	o := corestore.LogOptions{MustExist: true, Session: session}
	key, notKey := hypercore.ParseKey(word)
	switch d, named := names.logs[word]; {
	case named:
		o.Discovery = &d
	case notKey == nil:
		o.Key = &key
	default:
		if key, err = complete(s, word, names); err != nil {
			return nil, err
		}
		o.Key = &key
	}
	core, err := s.Get(o)
	isNew := false
	if errors.Is(err, storage.ErrNotFound) && o.Key != nil {
		if !fetch {
			return nil, &failure{code: codeNotFound, err: err, what: fmt.Sprintf("log %s is not in the store", short(key)),
				cause: "it was neither created here nor fetched from a peer", try: "bevy hyper core ls, or --peer tcp://<host>:<port>"}
		}
		o.MustExist, isNew = false, true
		core, err = s.Get(o)
	}
	if err != nil {
		return nil, fail(err, "cannot open log %q", word)
	}
	l := &log{Log: core, store: s, name: names.of[core.Discovery()], new: isNew, wait: &patience{}}
	if err := checkEncryption(l, session.EncryptionKey); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// shortestKey is how many letters of a key name a log at least.
const shortestKey = 6

// complete finds the one log whose key begins with a word.
func complete(s *corestore.Store, word string, names *nameTable) (hypercore.Key, error) {
	var found []hypercore.Key
	for info, err := range s.Logs() {
		if err != nil {
			return hypercore.Key{}, fail(err, "cannot list the logs")
		}
		if len(word) >= shortestKey && strings.HasPrefix(info.Key.String(), word) {
			found = append(found, info.Key)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	if len(found) > 1 {
		return hypercore.Key{}, wrong("more letters of the key", fmt.Sprintf("%d keys begin so", len(found)), "%q could be several logs", word)
	}
	if _, err := hypercore.ParseKey(word); strings.Contains(word, "://") || len(word) == 52 || len(word) == 64 {
		return hypercore.Key{}, wrong("bevy hyper core ls --full", causeOf(err), "%q is not a key", word)
	}
	f := &failure{code: codeNotFound, what: fmt.Sprintf("there is no log %q", word),
		cause: "no log in the store has that name or key", try: "bevy hyper core ls"}
	if near := nearest(word, slices.Sorted(maps.Keys(names.logs))); near != "" {
		f.cause, f.try = fmt.Sprintf("the nearest name is %q", near), "the same command with "+near
	}
	return hypercore.Key{}, f
}

// A nameTable has the names of a store's logs both ways.
type nameTable struct {
	logs map[string]hypercore.DiscoveryKey
	of   map[hypercore.DiscoveryKey]string // the first one, by the alphabet
}

func readNames(s *corestore.Store) (*nameTable, error) {
	t := &nameTable{map[string]hypercore.DiscoveryKey{}, map[hypercore.DiscoveryKey]string{}}
	for n, err := range s.Names() {
		if err != nil {
			return nil, fail(err, "cannot list the names")
		}
		t.logs[n.Name] = n.Discovery
		if _, ok := t.of[n.Discovery]; !ok {
			t.of[n.Discovery] = n.Name
		}
	}
	return t, nil
}

// encryptionMark is the user data of an encrypted log that tells its key from
// others, so that nobody adds plain blocks to it by mistake. The key itself is
// not kept: whoever gets hold of the store can't read the log.
const encryptionMark = "bevy/encryption"

func markOf(key *[32]byte) []byte {
	h, err := blake2b.New256(key[:])
	if err != nil {
		panic("bevy: " + err.Error()) // the key has 32 bytes
	}
	h.Write([]byte(encryptionMark))
	return h.Sum(nil)[:16]
}

// checkEncryption refuses a key that is not that of the log, as far as the
// store knows.
func checkEncryption(l *log, key *[32]byte) error {
	mark, err := l.UserData(encryptionMark)
	if errors.Is(err, hypercore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fail(err, "cannot read log %s", l.called())
	}
	if key != nil && !bytes.Equal(mark, markOf(key)) {
		return &failure{code: codeDenied, what: fmt.Sprintf("wrong encryption key for log %s", l.called()),
			cause: "the log was created with another one", try: "the key that \"create --encrypted\" printed then"}
	}
	return nil
}

// needKey refuses to work on the blocks of an encrypted log without its key.
func needKey(l *log, key *[32]byte) error {
	_, err := l.UserData(encryptionMark)
	if errors.Is(err, hypercore.ErrNotFound) || err == nil && key != nil {
		return nil
	}
	if err != nil {
		return fail(err, "cannot read log %s", l.called())
	}
	return &failure{code: codeDenied, what: fmt.Sprintf("log %s is encrypted", l.called()),
		cause: "its blocks can be read and written with its key only", try: "--encryption-key <hex>"}
}
