package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) appendCommand() *cobra.Command {
	lines := false
	blockSize := "64KiB"
	var s server
	cmd := &cobra.Command{
		Use:   "append <key> [<file>] [flags]",
		Short: "Add a file to a log",
		Long: `Adds the bytes of a file to a log that this store can write, in blocks of one
size; or each line as a block of its own, without its end. With "-", or without
a file, it adds what it reads from stdin, as it comes.

What it says is added is on the disk. A long input is added piece by piece; if
it ends with an error, what was added before stays, and is counted.

With --tcp or --ws it also serves the store, as "bevy hyper serve" does, so that
others see what is added as it comes. Then it goes on after the input has ended,
until it is stopped.`,
		Example: `bevy hyper core append notes list.txt --lines
tail -f access.log | bevy hyper core append access --lines --tcp :4233`,
		Args: wants(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "-"
			if len(args) == 2 {
				file = args[1]
			}
			n, err := parseSize(blockSize)
			if err == nil && (n == 0 || n > hypercore.MaxBlock) {
				err = fmt.Errorf("a block has 1 byte to %s", size(hypercore.MaxBlock))
			}
			if err != nil {
				return wrong("--block-size 64KiB", causeOf(err), "wrong --block-size %q", blockSize)
			}
			if lines && cmd.Flags().Changed("block-size") {
				return wrong("one of the two", "lines are as long as they are", "--lines and --block-size exclude one another")
			}
			return h.append(cmd.Context(), args[0], file, splitter{lines, int(n)}, &s)
		},
	}
	cmd.Flags().BoolVar(&lines, "lines", false, "each line is a block")
	cmd.Flags().StringVar(&blockSize, "block-size", blockSize, "`size` of a block; the last one may be smaller")
	h.keyFlag(cmd, "encrypt with this key")
	s.flags(cmd)
	s.swarmFlag(h, cmd)
	return cmd
}

// appended is what --json prints.
type appended struct {
	Key    string `json:"key"`
	Name   string `json:"name"`
	From   uint64 `json:"from"`   // number of the first block that was added
	Blocks uint64 `json:"blocks"` // how many were
	Bytes  uint64 `json:"bytes"`
	Length uint64 `json:"length"` // after that
}

func (h *hyper) append(ctx context.Context, word, file string, split splitter, s *server) error {
	key, err := h.readEncryptionKey()
	if err != nil {
		return err
	}
	in, total, err := h.open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	return h.withLog(ctx, writing, word, hypercore.SessionOptions{EncryptionKey: key}, func(ctx context.Context, l *log) error {
		if err := h.mayAppend(ctx, l, key); err != nil {
			return err
		}
		if file == "-" && isTerminal(h.stdin) {
			h.say("reading from the terminal; Ctrl-D ends it")
		}
		if s.wanted() {
			if err := s.start(ctx, h, l.store); err != nil {
				return err
			}
			defer s.stop()
		}
		bar := h.progress(l.called(), "block", 0, total)
		added, err := appendAll(ctx, l, in, split, bar)
		bar.end()
		if s.wanted() {
			err = untilStopped(err)
		}
		err = errors.Join(err, h.printAppended(l, added, err))
		if err == nil && s.wanted() {
			<-ctx.Done()
		}
		return err
	})
}

// mayAppend refuses what Append would, and plain blocks in an encrypted log.
func (h *hyper) mayAppend(ctx context.Context, l *log, key *[32]byte) error {
	if err := needKey(l, key); err != nil {
		return err
	}
	if l.Frozen() != nil {
		return fail(hypercore.ErrFrozen, "cannot append to log %s", l.called())
	}
	if !l.KeyPair().CanSign() {
		return fail(hypercore.ErrNotWritable, "cannot append to log %s", l.called())
	}
	if key != nil && l.Length() == 0 {
		return fail(l.SetUserData(ctx, encryptionMark, markOf(key)), "cannot append to log %s", l.called())
	}
	return nil
}

// open opens a file to read, and says how long it is; 0 if that is not known.
func (h *hyper) open(file string) (io.ReadCloser, uint64, error) {
	if file == "-" {
		return io.NopCloser(h.stdin), 0, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, &failure{code: codeOf(err), what: fmt.Sprintf("cannot read %s", file), cause: causeOf(err), err: err, try: "the path of a file, or - for stdin"}
	}
	s, err := f.Stat()
	if err == nil && s.IsDir() {
		err = errors.New("it is a folder")
	}
	if err != nil {
		return nil, 0, errors.Join(&failure{code: codeUsage, what: fmt.Sprintf("cannot read %s", file), cause: causeOf(err), err: err, try: "the path of a file, or - for stdin"}, f.Close())
	}
	total := uint64(0)
	if s.Mode().IsRegular() {
		total = uint64(s.Size())
	}
	return f, total, nil
}

// Blocks that are appended together are about this much at most.
const (
	maxGroup       = 4 << 20 // bytes
	maxGroupBlocks = 1024
)

// appendAll appends what it reads.
func appendAll(ctx context.Context, l *log, in io.Reader, split splitter, bar *progress) (a appended, err error) {
	a = appended{Key: l.Key().String(), Name: l.name, From: l.Length(), Length: l.Length()}
	err = l.write(ctx, in, split, func(group [][]byte) error {
		length, err := l.Append(ctx, group...)
		if err != nil {
			return fail(err, "cannot append to log %s", l.called())
		}
		n := uint64(0)
		for _, b := range group {
			n += uint64(len(b))
		}
		a.Blocks, a.Bytes, a.Length = a.Blocks+uint64(len(group)), a.Bytes+n, length
		bar.add(uint64(len(group)), n)
		return nil
	})
	return a, err
}

// write calls f, which writes to the log, with the pieces of an input, all that
// have come at a time: a slow input is visible at once, and a fast one shares
// syncs.
func (l *log) write(ctx context.Context, in io.Reader, split splitter, f func(group [][]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a reader that waits for stdin is left to itself
	groups := make(chan [][]byte, 64)
	var readErr error
	go func() {
		defer close(groups)
		var group [][]byte
		readErr = split.read(in, func(block []byte, more bool) bool {
			group = append(group, block)
			if more && len(group) < maxGroupBlocks {
				return true
			}
			select {
			case groups <- group:
				group = nil
				return true
			case <-ctx.Done():
				return false
			}
		})
		if len(group) > 0 { // before what can't be read
			select {
			case groups <- group:
			case <-ctx.Done():
			}
		}
	}()
	for {
		group, more, err := nextGroup(ctx, groups)
		if len(group) > 0 && err == nil {
			if err := f(group); err != nil {
				return err
			}
		}
		if err != nil {
			return &failure{code: codeOf(err), err: err, what: fmt.Sprintf("the input was not read to its end: log %s has a part of it", l.called()),
				cause: "it was interrupted", try: "undo it and do the command again, or append the rest"}
		}
		if !more {
			return fail(readErr, "cannot append all to log %s", l.called())
		}
	}
}

// nextGroup waits for a group of blocks and joins those that are there behind
// it. more is false at the end.
func nextGroup(ctx context.Context, groups <-chan [][]byte) (group [][]byte, more bool, err error) {
	select {
	case group, more = <-groups:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	sum := 0
	for next := group; more; {
		for _, block := range next {
			sum += len(block)
		}
		if sum >= maxGroup || len(group) >= maxGroupBlocks {
			return group, true, nil
		}
		select {
		case next, more = <-groups:
			group = append(group, next...)
		default:
			return group, true, nil
		}
	}
	return group, false, nil
}

// A splitter cuts an input into blocks: its lines, or pieces of size bytes.
type splitter struct {
	lines bool
	size  int
}

// read calls f with each block, until it returns false. more says that the next
// one has come too.
func (s splitter) read(in io.Reader, f func(block []byte, more bool) bool) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for n := 1; ; n++ {
		block, err := s.next(r)
		if err == nil || err == io.EOF && len(block) > 0 {
			if !f(block, s.more(r)) {
				return nil
			}
		}
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, hypercore.ErrTooLarge) {
			return fmt.Errorf("line %s is longer than %s: %w", count(uint64(n)), size(hypercore.MaxBlock), err)
		}
		if err != nil {
			return fmt.Errorf("read input: %w", err)
		}
	}
}

// more reports whether next would not wait.
func (s splitter) more(r *bufio.Reader) bool {
	if !s.lines {
		return r.Buffered() >= s.size
	}
	rest, _ := r.Peek(r.Buffered()) // never fails: they are there
	return bytes.IndexByte(rest, '\n') >= 0
}

// next returns the next block. At the end it returns io.EOF, with the last one
// if that is not complete.
func (s splitter) next(r *bufio.Reader) ([]byte, error) {
	if !s.lines {
		block := make([]byte, s.size)
		n, err := io.ReadFull(r, block)
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return block[:n], err
	}
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > hypercore.MaxBlock+1 {
			return nil, hypercore.ErrTooLarge
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err == nil {
			line = line[:len(line)-1]
		}
		return line, err
	}
}

func (h *hyper) printAppended(l *log, a appended, err error) error {
	if h.json {
		if err != nil && a.Blocks == 0 {
			return nil // the error says all
		}
		return written(h.printJSON(a))
	}
	if err == nil || a.Blocks > 0 {
		h.say("appended %s (%s) to %s, which has %s now", plural(a.Blocks, "block"), size(a.Bytes), l.called(), plural(a.Length, "block"))
	}
	if a.Blocks > 0 {
		h.say("undo:  bevy hyper core truncate %s %d", l.word(), a.From)
	}
	return nil
}
