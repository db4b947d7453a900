package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/spf13/cobra"
)

// maxRecord is the most bytes of a value: they go in one packet, with a proof
// and a token.
const maxRecord = 1000

// A record is what --json prints of a value that the network keeps.
type record struct {
	Hash string  `json:"hash,omitempty"` // of one that can't change
	Key  string  `json:"key,omitempty"`  // of whom may change it
	Seq  *uint64 `json:"seq,omitempty"`  // which change it is
	entryValue
}

func (d *dht) putCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "put <value> [flags]",
		Short: "Leave a value in the network, and print its hash",
		Long: `Leaves a value of up to 1,000 bytes at the nodes that are closest to its hash,
and prints that. They keep it for two days, if they stay. With "-" the value is
read from stdin. Everyone who has the hash can read it.`,
		Example: `bevy hyper dht put hello
bevy hyper dht put -`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := d.value(args[0])
			if err != nil {
				return err
			}
			return d.join(cmd.Context(), func(ctx context.Context) error {
				var hash [32]byte
				err := d.limited(ctx, func(ctx context.Context) (err error) {
					hash, err = d.ImmutablePut(ctx, value)
					return err
				})
				if err != nil {
					return d.cannot(err, "cannot leave the value")
				}
				if d.json {
					return written(d.printJSON(record{Hash: keyText(hash)}))
				}
				return written(d.printLine(keyText(hash)))
			})
		},
	}
	d.flags(cmd)
	return cmd
}

func (d *dht) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get <hash> [flags]",
		Short: "Print a value by its hash",
		Long: `Prints the value as it is. It is what was left, or it is not found: the exit
code is 3 then.`,
		Example: `bevy hyper dht get <hash>`,
		Args:    wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			hash, err := parsePeer(args[0])
			if err != nil {
				return wrong("the hash as \"bevy hyper dht put\" printed it", "a hash is 52 letters of z-base-32 or 64 of hex", "%q is not a hash", args[0])
			}
			return d.join(cmd.Context(), func(ctx context.Context) error {
				var value []byte
				err := d.limited(ctx, func(ctx context.Context) (err error) {
					value, err = d.ImmutableGet(ctx, hash)
					return err
				})
				if err != nil {
					return d.cannot(err, "cannot get value %s", args[0])
				}
				return d.printRecord(record{Hash: keyText(hash)}, value)
			})
		},
	}
	d.flags(cmd)
	return cmd
}

func (d *dht) mputCommand() *cobra.Command {
	var seq numberFlag
	cmd := &cobra.Command{
		Use:   "mput <value> [flags]",
		Short: "Leave a value under this store's key, or change it",
		Long: `Leaves a value of up to 1,000 bytes at the nodes that are closest to this
store's key, in place of the one before, and prints the key. They keep it for
two days, if they stay. With "-" the value is read from stdin.

Each change has a number, and the highest one counts. Without --seq it is the
one after what the network has.`,
		Example: `bevy hyper dht mput away
bevy hyper dht mput away --seq 7`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := d.value(args[0])
			if err != nil {
				return err
			}
			return d.mput(cmd.Context(), value, seq)
		},
	}
	d.flags(cmd)
	d.ownKey(cmd)
	cmd.Flags().Var(&seq, "seq", "the `number` of this change")
	return cmd
}

func (d *dht) mput(ctx context.Context, value []byte, seq numberFlag) error {
	return d.joinAs(ctx, func(ctx context.Context) error {
		keys := d.KeyPair()
		err := d.limited(ctx, func(ctx context.Context) error {
			if !seq.set {
				last, err := d.MutableGet(ctx, keys.Public, hyperdht.MutableOptions{})
				if err == nil {
					seq.n = last.Seq + 1
				} else if !errors.Is(err, hyperdht.ErrNotFound) {
					return err
				}
			}
			return d.MutablePut(ctx, keys, seq.n, value)
		})
		if err != nil {
			return d.cannot(err, "cannot leave the value")
		}
		if d.json {
			return written(d.printJSON(record{Key: keyText(keys.Public), Seq: &seq.n}))
		}
		d.say("change %d", seq.n)
		return written(d.printLine(keyText(keys.Public)))
	})
}

func (d *dht) mgetCommand() *cobra.Command {
	var seq numberFlag
	cmd := &cobra.Command{
		Use:   "mget <key> [flags]",
		Short: "Print the value that is left under a key",
		Long: `Prints the value of the highest number that any node has, as it is; its owner's
signature is checked. The exit code is 3 if there is none.`,
		Example: `bevy hyper dht mget <key>
bevy hyper dht mget <key> --seq 7`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := parsePeer(args[0])
			if err != nil {
				return err
			}
			return d.join(cmd.Context(), func(ctx context.Context) error {
				var m hyperdht.Mutable
				err := d.limited(ctx, func(ctx context.Context) (err error) {
					m, err = d.MutableGet(ctx, key, hyperdht.MutableOptions{Seq: seq.n})
					return err
				})
				if err != nil {
					return d.cannot(err, "cannot get the value of %s", args[0])
				}
				if !d.json {
					d.say("change %d", m.Seq)
				}
				return d.printRecord(record{Key: keyText(key), Seq: &m.Seq}, m.Value)
			})
		},
	}
	d.flags(cmd)
	cmd.Flags().Var(&seq, "seq", "take no change before this `number`")
	return cmd
}

// value is what a word stands for: itself, or stdin.
func (d *dht) value(word string) ([]byte, error) {
	value := []byte(word)
	if word == "-" {
		var err error
		if value, err = io.ReadAll(io.LimitReader(d.stdin, maxRecord+1)); err != nil {
			return nil, fail(err, "cannot read the value")
		}
	}
	if len(value) > maxRecord {
		return nil, wrong("put it into a log, and leave its key", fmt.Sprintf("a value has at most %d bytes", maxRecord), "the value is too long")
	}
	return value, nil
}

// printRecord prints a value that was found.
func (d *dht) printRecord(r record, value []byte) error {
	if d.json {
		r.entryValue = valueOf(value)
		return written(d.printJSON(r))
	}
	out := value
	if isTerminal(d.stdout) {
		out = []byte(shown(string(value)))
	}
	_, err := d.stdout.Write(out)
	return written(err)
}
