package hypercore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/storage"
)

func openDraft(t testing.TB, l *Log) *Log {
	t.Helper()
	d, err := l.Draft(context.Background(), "d")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func appendTo(t testing.TB, l *Log, blocks ...string) {
	t.Helper()
	for _, b := range blocks {
		if _, err := l.Append(context.Background(), []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
}

// contents returns the blocks of a log, joined.
func contents(t testing.TB, l *Log) string {
	t.Helper()
	var out []byte
	for b, err := range l.Blocks(context.Background(), BlockRange{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(append(out, b.Data...), ' ')
	}
	return string(bytes.TrimSpace(out))
}

func wantContents(t testing.TB, l *Log, want string) {
	t.Helper()
	if got := contents(t, l); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func closeAll(t testing.TB, logs ...*Log) {
	t.Helper()
	for _, l := range logs {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDraftIsKeptUntilItIsCommitted(t *testing.T) {
	for _, secret := range []*[32]byte{nil, {5}} {
		ctx, kp, s := context.Background(), keyPairN(1), memoryStore(t)
		o := Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: secret}}
		open := func() (*Log, *Log) {
			l, err := Open(s, o)
			if err != nil {
				t.Fatal(err)
			}
			return l, openDraft(t, l)
		}
		l, d := open()
		appendTo(t, l, "a", "b")
		appendTo(t, d, "x") // made when the log was empty
		if _, err := l.CommitDraft(ctx, d, AppendOptions{}); !errors.Is(err, ErrConflict) {
			t.Errorf("commit of a draft that goes another way: %v", err)
		}
		if err := d.Discard(ctx); err != nil {
			t.Fatal(err)
		}
		d = openDraft(t, l)
		appendTo(t, d, "c", "d")
		closeAll(t, d, l)
		l, d = open()
		wantContents(t, l, "a b")
		wantContents(t, d, "a b c d")
		if h := d.Head(); h.Signature != nil || d.Contiguous() != 4 || !d.Has(1) || !d.Has(3) || d.Has(4) {
			t.Errorf("draft of %d blocks, signature %x", d.Contiguous(), h.Signature)
		}
		if bad := audit(t, d); bad != nil {
			t.Error(bad)
		}
		got, err := io.ReadAll(d.NewReader(ctx))
		if err != nil || string(got) != "abcd" {
			t.Errorf("read %q, %v", got, err)
		}
		// The log may have got a part of it another way, and commits may be repeated.
		for range 2 {
			if n, err := l.CommitDraft(ctx, d, AppendOptions{Durability: Soon}); n != 4 || err != nil {
				t.Fatalf("commit: %d, %v", n, err)
			}
			wantContents(t, l, "a b c d")
			wantContents(t, d, "a b c d")
			closeAll(t, d, l)
			l, d = open()
		}
		appendTo(t, d, "e")
		wantContents(t, d, "a b c d e")
		if n, err := l.CommitDraft(ctx, d, AppendOptions{MaxLength: 0}); n != 5 || err != nil {
			t.Errorf("commit again: %d, %v", n, err)
		}
		for _, l := range []*Log{l, d} {
			if bad := audit(t, l); bad != nil {
				t.Error(bad)
			}
		}
		if names, err := l.Drafts(); err != nil || !slices.Equal(names, []string{"d"}) {
			t.Errorf("drafts %q, %v", names, err)
		}
		if err := d.Discard(ctx); err != nil {
			t.Fatal(err)
		}
		if names, err := l.Drafts(); err != nil || len(names) != 0 {
			t.Errorf("drafts %q, %v", names, err)
		}
		wantContents(t, l, "a b c d e")
		closeAll(t, l)
	}
}

func TestDraftOfWhatIsNoMore(t *testing.T) {
	ctx, kp, s := context.Background(), keyPairN(1), memoryStore(t)
	l, err := Open(s, Options{KeyPair: &kp})
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, l, "a", "b", "c")
	d := openDraft(t, l)
	appendTo(t, d, "d")
	if err := l.Truncate(ctx, 3, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	wantContents(t, d, "a b c d") // nothing of it is gone
	if err := l.Truncate(ctx, 2, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for what, err := range map[string]error{
			"append":   second(d.Append(ctx, []byte("e"))),
			"truncate": d.Truncate(ctx, 1, TruncateOptions{}),
			"commit":   second(l.CommitDraft(ctx, d, AppendOptions{})),
		} {
			if !errors.Is(err, ErrConflict) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := d.Snapshot(); !errors.Is(err, ErrTruncated) {
			t.Errorf("snapshot: %v", err)
		}
		if _, err := d.Get(ctx, 1); !errors.Is(err, ErrTruncated) {
			t.Errorf("get: %v", err)
		}
		if d.Writable() {
			t.Error("it is writable")
		}
		closeAll(t, d, l)
		if l, err = Open(s, Options{KeyPair: &kp}); err != nil {
			t.Fatal(err)
		}
		d = openDraft(t, l)
	}
	closeAll(t, d)
	// The very same blocks again: the draft fits.
	appendTo(t, l, "c")
	d = openDraft(t, l)
	wantContents(t, d, "a b c d")
	if n, err := l.CommitDraft(ctx, d, AppendOptions{}); n != 4 || err != nil {
		t.Errorf("commit: %d, %v", n, err)
	}
	closeAll(t, d, l)
}

func TestDraftTruncatedBelowItsBase(t *testing.T) {
	ctx, kp, s := context.Background(), keyPairN(1), memoryStore(t)
	l, err := Open(s, Options{KeyPair: &kp})
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, l, "a", "b", "c", "d", "e")
	d := openDraft(t, l)
	appendTo(t, d, "f")
	if err := d.Truncate(ctx, 3, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	wantContents(t, d, "a b c")
	appendTo(t, d, "D")
	if _, err := l.CommitDraft(ctx, d, AppendOptions{}); !errors.Is(err, ErrConflict) {
		t.Errorf("commit: %v", err)
	}
	closeAll(t, d)
	d = openDraft(t, l)
	wantContents(t, d, "a b c D")
	wantContents(t, l, "a b c d e")
	if err := l.Truncate(ctx, 3, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, err := l.CommitDraft(ctx, d, AppendOptions{}); n != 4 || err != nil {
		t.Errorf("commit: %d, %v", n, err)
	}
	wantContents(t, l, "a b c D")
	if bad := append(audit(t, l), audit(t, d)...); bad != nil {
		t.Error(bad)
	}
	closeAll(t, d, l)
}

func TestSessionsOfOneDraft(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 2)
	one, two := openDraft(t, l), openDraft(t, l)
	appendTo(t, one, "x")
	wantContents(t, two, "0 1 x")
	snap, err := two.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	w, err := two.Watch()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Draft(ctx, "of a draft"); err == nil {
		t.Error("a draft of a draft")
	}
	if err := l.Discard(ctx); err == nil {
		t.Error("a log is discarded")
	}
	if err := one.Discard(ctx); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"append":  second(two.Append(ctx, nil)),
		"get":     second(two.Get(ctx, 2)),
		"commit":  second(l.CommitDraft(ctx, two, AppendOptions{})),
		"discard": two.Discard(ctx),
		"session": second(two.Session(SessionOptions{})),
		"watch":   second(w.Next(ctx)),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s of a draft that was thrown away: %v", what, err)
		}
	}
	wantContents(t, snap, "0 1 x")
	fresh := openDraft(t, l)
	wantContents(t, fresh, "0 1")
	closeAll(t, two, snap, fresh)
	if l.InUse() {
		t.Error("the log is in use")
	}
}

func TestSnapshotOfADraft(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 3)
	d := openDraft(t, l)
	appendTo(t, d, "x", "y")
	snap, err := d.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	early, err := d.Checkout(2)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.CommitDraft(ctx, d, AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Truncate(ctx, 1, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	wantContents(t, snap, "0 1 2 x y")
	wantContents(t, early, "0 1")
	if snap.Contiguous() != 5 || early.Contiguous() != 2 {
		t.Errorf("%d and %d blocks", snap.Contiguous(), early.Contiguous())
	}
	for _, l := range []*Log{snap, early} {
		if bad := audit(t, l); bad != nil {
			t.Error(bad)
		}
	}
	closeAll(t, d, early, snap)
}

// A block of a draft is not encrypted as any other of its number ever was, also
// when the log is truncated and the draft takes that place.
func TestDraftsNeverReuseANonce(t *testing.T) {
	ctx, kp, secret := context.Background(), keyPairN(1), [32]byte{8}
	l := testLog(t, Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: &secret}})
	appendTo(t, l, "a")
	d := openDraft(t, l)
	seen := map[string]bool{}
	see := func(l *Log) {
		t.Helper()
		stored, err := l.Stored(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if nonce := string(stored[:EncryptionPadding]); seen[nonce] {
			t.Error("a nonce is used twice")
		} else {
			seen[nonce] = true
		}
	}
	appendTo(t, d, "drafted")
	appendTo(t, l, "published")
	see(l)
	see(d)
	if err := d.Truncate(ctx, 1, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	appendTo(t, d, "drafted again")
	if err := l.Truncate(ctx, 1, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.CommitDraft(ctx, d, AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	see(l)
	wantContents(t, l, "a drafted again")
	closeAll(t, d)
}

// Drafts come and go while their log is cut, cleared and read.
func TestDraftsBesideTheirLog(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 20)
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := range 30 {
				d, err := l.Draft(ctx, fmt.Sprint((w+i)%2))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = d.Append(ctx, []byte("x"))
				if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				d.Has(3)
				d.Contiguous()
				if s, err := d.Snapshot(); err == nil {
					s.Contiguous()
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
				switch i % 3 {
				case 0:
					if err := d.Discard(ctx); err != nil && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				case 1:
					_, err := l.CommitDraft(ctx, d, AppendOptions{})
					if err != nil && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 40 {
			if n := l.Length(); i%8 == 7 && n > 2 {
				if err := l.Truncate(ctx, n-2, TruncateOptions{Durability: Soon}); err != nil && !errors.Is(err, ErrLength) {
					t.Error(err)
				}
			}
			if _, err := l.Append(ctx, []byte("y")); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if l.InUse() {
		t.Error("the log is in use")
	}
	if bad := audit(t, l); bad != nil {
		t.Error(bad)
	}
}

func TestSnapshotStays(t *testing.T) {
	ctx := context.Background()
	for _, secret := range []*[32]byte{nil, {6}} {
		kp := keyPairN(1)
		l := testLog(t, Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: secret}})
		appendNumbers(t, l, 70)
		large := bytes.Repeat([]byte("large"), 10<<10)
		appendTo(t, l, string(large))
		var snaps []*Log
		for length := range uint64(72) {
			s, err := l.Checkout(length)
			if err != nil {
				t.Fatal(err)
			}
			snaps = append(snaps, s)
		}
		if _, err := l.Checkout(72); !errors.Is(err, ErrLength) {
			t.Errorf("checkout beyond the end: %v", err)
		}
		if _, err := l.Clear(ctx, 3, 60); err != nil {
			t.Fatal(err)
		}
		if err := l.Truncate(ctx, 2, TruncateOptions{}); err != nil {
			t.Fatal(err)
		}
		for range 80 {
			appendTo(t, l, "new")
		}
		for length, s := range snaps {
			if s.Length() != uint64(length) || s.Contiguous() != uint64(length) || s.Fork() != 0 {
				t.Errorf("snapshot at %d has length %d, %d blocks, fork %d", length, s.Length(), s.Contiguous(), s.Fork())
			}
			for i := range s.Length() {
				want := fmt.Append(nil, i)
				if i == 70 {
					want = large
				}
				if got, err := s.Get(ctx, i); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("snapshot at %d: block %d: %.20q, %v", length, i, got, err)
				}
			}
			if _, err := s.Get(ctx, uint64(length)); !errors.Is(err, ErrLength) {
				t.Errorf("get beyond the end: %v", err)
			}
			if bad := audit(t, s); bad != nil {
				t.Error(bad)
			}
			if signed := s.Head().Signature != nil; signed != (length == 71) {
				t.Errorf("snapshot at %d is signed: %v", length, signed)
			}
		}
		if _, err := snaps[3].Append(ctx, nil); !errors.Is(err, ErrNotWritable) {
			t.Errorf("append to a snapshot: %v", err)
		}
		if _, err := snaps[3].Snapshot(); err == nil {
			t.Error("a snapshot of a snapshot")
		}
		for i := range snaps { // in any order, and twice
			s := snaps[(i*29)%len(snaps)]
			closeAll(t, s, s)
			if _, err := s.Get(ctx, 0); !errors.Is(err, ErrClosed) {
				t.Errorf("get from a closed snapshot: %v", err)
			}
		}
		if l.InUse() {
			t.Error("the log is in use")
		}
	}
}

// A snapshot may read from its log what it did not hold, while that is the same
// history.
func TestSnapshotTakesFromTheSameHistoryOnly(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 10)
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	snap, err := r.Checkout(8)
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if _, err := snap.Get(ctx, 3); !errors.Is(err, ErrNotFound) {
		t.Errorf("get what nobody has: %v", err)
	}
	mustApply(t, r, prove(t, w, blockRequest(t, r, 3)))
	if got, err := snap.Get(ctx, 3); err != nil || string(got) != "3" {
		t.Errorf("get what the log got: %q, %v", got, err)
	}
	if err := w.Truncate(ctx, 2, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		appendTo(t, w, "another")
	}
	if err := reorg(t, r, w).Commit(ctx, Durable); err != nil {
		t.Fatal(err)
	}
	mustApply(t, r, prove(t, w, blockRequest(t, r, 4)))
	if got, err := snap.Get(ctx, 4); !errors.Is(err, ErrTruncated) {
		t.Errorf("get what is of another history: %q, %v", got, err)
	}
}

// A commit that a crash cut short is finished by the next one.
func TestCommitOfADraftCanBeRepeated(t *testing.T) {
	ctx, kp, s := context.Background(), keyPairN(1), memoryStore(t)
	l, err := Open(s, Options{KeyPair: &kp})
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, l, "a")
	d := openDraft(t, l)
	appendTo(t, d, "b", "c")
	// The first half: the log has the blocks, the draft has not heard.
	if err := l.c.take(ctx, d.c.tree, d.c.reader(), AppendOptions{}); err != nil {
		t.Fatal(err)
	}
	closeAll(t, d, l)
	if l, err = Open(s, Options{KeyPair: &kp}); err != nil {
		t.Fatal(err)
	}
	d = openDraft(t, l)
	wantContents(t, d, "a b c")
	if n, err := l.CommitDraft(ctx, d, AppendOptions{}); n != 3 || err != nil {
		t.Errorf("commit: %d, %v", n, err)
	}
	appendTo(t, d, "d")
	if n, err := l.CommitDraft(ctx, d, AppendOptions{}); n != 4 || err != nil {
		t.Errorf("commit: %d, %v", n, err)
	}
	wantContents(t, l, "a b c d")
	if runs, err := s.Log(d.c.id).Runs(); err != nil || len(runs) != 0 || d.c.have.Last() != (storage.Range{}) {
		t.Errorf("the draft still holds %v, %v", runs, err)
	}
	closeAll(t, d, l)
}
