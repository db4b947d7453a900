package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) infoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "info <key> [flags]",
		Short: "Say what a log is and how much of it is here",
		Example: `bevy hyper core info notes
bevy hyper core info notes --json`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return h.info(cmd.Context(), args[0]) },
	}
	h.keyFlag(cmd, "count bytes without what encryption adds")
	h.peerFlags(cmd)
	return cmd
}

// logInfo is what --json prints.
type logInfo struct {
	Key          string    `json:"key"`
	DiscoveryKey string    `json:"discoveryKey"`
	Name         string    `json:"name"` // "" if it has none
	Length       uint64    `json:"length"`
	Bytes        uint64    `json:"bytes"`
	Fork         uint64    `json:"fork"`
	Held         uint64    `json:"held"`       // how many blocks are here
	Contiguous   uint64    `json:"contiguous"` // how many from the first on are here
	TreeHash     string    `json:"treeHash"`   // "" while nothing is known of the log
	Writable     bool      `json:"writable"`
	Encrypted    bool      `json:"encrypted"` // as far as this store knows
	Frozen       bool      `json:"frozen"`    // its writer signed two histories
	Manifest     *manifest `json:"manifest"`  // null while it is not known
	Peers        []peerOf  `json:"peers"`     // those of --peer that have the log
}

// A peerOf is a peer that has the log.
type peerOf struct {
	Address    string `json:"address"`
	Key        string `json:"key"` // what the peer is known by
	Length     uint64 `json:"length"`
	Fork       uint64 `json:"fork"`
	Contiguous uint64 `json:"contiguous"`
}

type manifest struct {
	Version    int      `json:"version"`
	Quorum     uint64   `json:"quorum"`
	AllowPatch bool     `json:"allowPatch"`
	Signers    []string `json:"signers"` // their public keys
}

func (h *hyper) info(ctx context.Context, word string) error {
	key, err := h.readEncryptionKey()
	if err != nil {
		return err
	}
	return h.withLog(ctx, reading, word, hypercore.SessionOptions{EncryptionKey: key}, func(ctx context.Context, l *log) error {
		i, err := describe(l)
		if err != nil {
			return err
		}
		if h.json {
			return written(h.printJSON(i))
		}
		return h.printInfo(i)
	})
}

func describe(l *log) (*logInfo, error) {
	_, err := l.UserData(encryptionMark)
	i := &logInfo{Key: l.Key().String(), DiscoveryKey: l.Discovery().String(), Name: l.name,
		Length: l.Length(), Bytes: l.ByteLength(), Fork: l.Fork(), Held: heldIn(l.Log, hypercore.Range{End: l.Length()}), Contiguous: l.Contiguous(),
		Writable: l.KeyPair().CanSign() && l.Frozen() == nil, Encrypted: err == nil, Frozen: l.Frozen() != nil}
	i.Peers = []peerOf{}
	if l.net != nil {
		for _, p := range l.net.peersOf(l.Key()) {
			if p.Open {
				i.Peers = append(i.Peers, peerOf{p.Name, hypercore.Key(p.Key).String(), p.Length, p.Fork, p.Contiguous})
			}
		}
		slices.SortFunc(i.Peers, func(a, b peerOf) int { return cmp.Compare(a.Address, b.Address) })
	}
	if l.Length() > 0 {
		hash, err := l.TreeHash(l.Length())
		if err != nil {
			return nil, fail(err, "cannot read log %s", l.called())
		}
		i.TreeHash = fmt.Sprintf("%x", hash[:])
	}
	if m := l.Manifest(); m != nil {
		i.Manifest = &manifest{Version: m.Version, Quorum: m.Quorum, AllowPatch: m.AllowPatch, Signers: []string{}}
		for _, s := range m.Signers {
			i.Manifest.Signers = append(i.Manifest.Signers, s.PublicKey.String())
		}
	}
	return i, nil
}

// heldIn counts the blocks of a range that are here.
func heldIn(l *hypercore.Log, in hypercore.Range) (n uint64) {
	for at := in.Start; at < in.End; {
		r, ok := l.NextHeld(at)
		if !ok || r.Start >= in.End {
			break
		}
		n += min(r.End, in.End) - max(r.Start, at)
		at = r.End
	}
	return n
}

// printInfo prints the lines about a log, and more of its kind.
func (h *hyper) printInfo(i *logInfo, more ...[2]string) error {
	access := "read: another signs it"
	if i.Writable {
		access = "write: this store signs it"
	}
	if i.Frozen {
		access = "frozen: its writer signed two different histories"
	}
	signers := "not known yet"
	if m := i.Manifest; m != nil {
		signers = fmt.Sprintf("%d of %d must sign (manifest version %d)", m.Quorum, len(m.Signers), m.Version)
	}
	t := newTable("key", i.Key)
	if i.Name != "" {
		t.add("name", i.Name)
	}
	t.add("link", "pear://"+i.Key)
	t.add("discovery key", i.DiscoveryKey)
	for _, row := range more {
		t.add(row[0], row[1])
	}
	t.add("blocks", fmt.Sprintf("%s, %s", count(i.Length), size(i.Bytes)))
	t.add("here", fmt.Sprintf("%s of %s, the first %s without a gap", count(i.Held), count(i.Length), count(i.Contiguous)))
	t.add("fork", count(i.Fork))
	t.add("access", access)
	t.add("signers", signers)
	if i.Encrypted {
		t.add("encrypted", "yes")
	}
	if i.TreeHash != "" {
		t.add("tree hash", i.TreeHash)
	}
	for _, p := range i.Peers {
		t.add("peer", fmt.Sprintf("%s has %s, the first %s without a gap", p.Address, plural(p.Length, "block"), count(p.Contiguous)))
	}
	var b strings.Builder
	if err := t.write(&b); err != nil {
		return err
	}
	_, err := h.stdout.Write([]byte(b.String()))
	return written(err)
}
