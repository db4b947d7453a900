package hypercore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cockroachdb/pebble/v2/vfs"
)

func multisig(version int, patch bool, quorum uint64, signers ...byte) *Manifest {
	m := &Manifest{Version: version, AllowPatch: patch, Quorum: quorum}
	for _, n := range signers {
		m.Signers = append(m.Signers, Signer{DefaultNamespace, keyPairN(n).Public})
	}
	return m
}

// treeAfter returns the log's tree as it would be after some blocks.
func treeAfter(l *Log, blocks ...[]byte) merkle.Tree {
	b := l.tree().Batch()
	for _, block := range blocks {
		b.Append(block)
	}
	return b.Tree
}

func TestMultisigTakesAQuorum(t *testing.T) {
	ctx := context.Background()
	for version := range 3 {
		m := multisig(version, false, 2, 1, 2, 3)
		l := testLog(t, Options{Manifest: m})
		if l.Writable() {
			t.Error("writable without a key pair")
		}
		block := []byte("agreed")
		part := func(n byte, tree merkle.Tree) PartialSignature {
			t.Helper()
			s, err := l.Verifier().Sign(tree, keyPairN(n))
			if err != nil {
				t.Fatal(err)
			}
			return PartialSignature{Signer: uint64(n - 1), Signature: [64]byte(s)}
		}
		after, other := treeAfter(l, block), treeAfter(l, []byte("something else"))
		for name, c := range map[string]struct {
			parts []PartialSignature
			err   error
		}{
			"one":             {[]PartialSignature{part(1, after)}, ErrSignature},
			"the same twice":  {[]PartialSignature{part(1, after), part(1, after)}, ErrSignature},
			"another tree's":  {[]PartialSignature{part(1, after), part(2, other)}, ErrSignature},
			"under a name":    {[]PartialSignature{part(1, after), {Signer: 2, Signature: part(2, after).Signature}}, ErrSignature},
			"of nobody":       {[]PartialSignature{part(1, after), {Signer: 9, Signature: part(2, after).Signature}}, ErrSignature},
			"an absent patch": {[]PartialSignature{part(1, after), {Signer: 1, Signature: part(2, after).Signature, Patch: 1, Nodes: after.Roots}}, nil},
		} {
			signature, err := l.Verifier().Assemble(c.parts)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if c.err == nil {
				continue // without AllowPatch patches are not looked at
			}
			if _, err := l.AppendWith(ctx, AppendOptions{Signature: signature}, block); !errors.Is(err, c.err) {
				t.Errorf("version %d: %s: %v", version, name, err)
			}
		}
		kp := keyPairN(1)
		if _, err := l.AppendWith(ctx, AppendOptions{KeyPair: &kp}, block); !errors.Is(err, ErrNotWritable) {
			t.Errorf("version %d: one key pair: %v", version, err)
		}
		if l.Length() != 0 {
			t.Fatal("something was appended")
		}
		signature, err := l.Verifier().Assemble([]PartialSignature{part(3, after), part(1, after)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AppendWith(ctx, AppendOptions{Signature: signature}, block); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		r := readerOf(t, l)
		upgradeTo(t, r, l)
		if bad := audit(t, r); bad != nil {
			t.Error(bad)
		}
	}
	// One of several is enough where the quorum says so.
	kp := keyPairN(2)
	l := testLog(t, Options{Manifest: multisig(1, false, 1, 1, 2), KeyPair: &kp})
	appendNumbers(t, l, 3)
	r := readerOf(t, l)
	upgradeTo(t, r, l)
	stranger := keyPairN(5)
	if _, err := l.AppendWith(ctx, AppendOptions{KeyPair: &stranger}, []byte("x")); !errors.Is(err, ErrNotWritable) {
		t.Errorf("a stranger appends: %v", err)
	}
}

// Signers who are ahead sign their own, longer tree, and show how it continues.
func TestMultisigPatches(t *testing.T) {
	ctx := context.Background()
	m := multisig(1, true, 2, 1, 2)
	blocks := [][]byte{[]byte("a"), []byte("b"), []byte("c"), []byte("d"), []byte("e")}
	grow := func(l *Log, n int) {
		t.Helper()
		var parts []PartialSignature
		after := treeAfter(l, blocks[l.Length():n]...)
		for i := range 2 {
			s, err := l.Verifier().Sign(after, keyPairN(byte(i+1)))
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, PartialSignature{Signer: uint64(i), Signature: [64]byte(s)})
		}
		signature, err := l.Verifier().Assemble(parts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.AppendWith(ctx, AppendOptions{Signature: signature}, blocks[l.Length():n]...); err != nil {
			t.Fatal(err)
		}
	}
	ahead := testLog(t, Options{Manifest: m})
	grow(ahead, 5)
	sign := func(n byte, tree merkle.Tree) [64]byte {
		s, err := ahead.Verifier().Sign(tree, keyPairN(n))
		if err != nil {
			t.Fatal(err)
		}
		return [64]byte(s)
	}
	for length := range uint64(5) {
		if length == 0 {
			continue
		}
		target := testLog(t, Options{Manifest: m})
		after := treeAfter(target, blocks[:length]...)
		patched, err := ahead.Partial(1, sign(2, ahead.tree()), length)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := target.Verifier().Assemble([]PartialSignature{{Signature: sign(1, after)}, patched})
		if err != nil {
			t.Fatal(err)
		}
		patched.Patch++
		wrong, err := target.Verifier().Assemble([]PartialSignature{{Signature: sign(1, after)}, patched})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := target.AppendWith(ctx, AppendOptions{Signature: wrong}, blocks[:length]...); !errors.Is(err, ErrSignature) {
			t.Errorf("%d blocks with a wrong patch: %v", length, err)
		}
		if _, err := target.AppendWith(ctx, AppendOptions{Signature: signature}, blocks[:length]...); err != nil {
			t.Errorf("%d blocks: %v", length, err)
		}
	}
	if _, err := ahead.Partial(0, [64]byte{}, 6); err == nil {
		t.Error("a part for a longer log than there is")
	}
}

func TestPrologueAndStaticLogs(t *testing.T) {
	ctx, kp := context.Background(), keyPairN(1)
	model := writerOf(t, 5)
	prologue := &merkle.Prologue{Hash: model.Head().Hash(), Length: 5}
	blocks := [][]byte{[]byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("4")}
	static := &Manifest{Version: 1, Prologue: prologue}
	l := testLog(t, Options{Manifest: static})
	if _, err := l.Append(ctx, blocks[:3]...); !errors.Is(err, ErrLength) {
		t.Errorf("part of the prologue: %v", err)
	}
	if _, err := l.Append(ctx, []byte("0"), []byte("1"), []byte("2"), []byte("3"), []byte("x")); !errors.Is(err, ErrSignature) {
		t.Errorf("another prologue: %v", err)
	}
	if _, err := l.Append(ctx, blocks...); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(ctx, []byte("more")); err == nil {
		t.Error("a static log grows")
	}
	if err := l.Truncate(ctx, 2, TruncateOptions{}); !errors.Is(err, ErrLength) {
		t.Errorf("truncate into the prologue: %v", err)
	}
	r := readerOf(t, l)
	upgradeTo(t, r, l)
	mustApply(t, r, prove(t, l, blockRequest(t, r, 2)))
	for _, l := range []*Log{l, r} {
		if bad := audit(t, l); bad != nil || l.Length() != 5 {
			t.Errorf("%d blocks, %v", l.Length(), bad)
		}
	}

	m := SingleSigner(kp.Public)
	m.Prologue = prologue
	w := testLog(t, Options{Manifest: m, KeyPair: &kp})
	if _, err := w.Append(ctx, blocks...); err != nil {
		t.Fatal(err)
	}
	appendNumbers(t, w, 3)
	r = readerOf(t, w)
	if errs := apply(t, r, prove(t, w, upgradeRequest(0, 3))); errs[0] != nil {
		t.Errorf("an upgrade into the prologue spans it: %v", errs[0])
	}
	if r.Length() != 8 {
		t.Errorf("length %d, want 8", r.Length())
	}
	holdsOnly(t, r, w)
	if err := w.Truncate(ctx, 4, TruncateOptions{}); !errors.Is(err, ErrLength) {
		t.Errorf("truncate into the prologue: %v", err)
	}
}

func TestAppendLimits(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 3)
	if n, err := l.Append(ctx); n != 3 || err != nil {
		t.Errorf("no blocks: %d, %v", n, err)
	}
	if _, err := l.Append(ctx, []byte("a"), make([]byte, MaxBlock+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large a block: %v", err)
	}
	if _, err := l.AppendWith(ctx, AppendOptions{MaxLength: 4}, nil, nil); !errors.Is(err, ErrLength) {
		t.Errorf("over MaxLength: %v", err)
	}
	if n, err := l.AppendWith(ctx, AppendOptions{MaxLength: 5}, nil, []byte{}); n != 5 || err != nil {
		t.Errorf("up to MaxLength, with empty blocks: %d, %v", n, err)
	}
	if got, err := l.Get(ctx, 3); err != nil || got == nil || len(got) != 0 {
		t.Errorf("empty block: %v, %v", got, err)
	}
	if _, err := l.Append(ctx, make([]byte, MaxBlock)); err != nil {
		t.Errorf("the largest block: %v", err)
	}
	kp := keyPairN(2)
	if _, err := l.AppendWith(ctx, AppendOptions{KeyPair: &kp}, nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("with a stranger's key pair: %v", err)
	}
	if _, err := l.AppendWith(ctx, AppendOptions{Signature: make([]byte, 65)}, nil); !errors.Is(err, ErrSignature) {
		t.Errorf("with a wrong signature: %v", err)
	}
	signed, err := l.Verifier().Sign(treeAfter(l, []byte("x")), keyPairN(1))
	if err != nil {
		t.Fatal(err)
	}
	if n, err := l.AppendWith(ctx, AppendOptions{Signature: signed}, []byte("x")); n != 7 || err != nil {
		t.Errorf("with a signature: %d, %v", n, err)
	}
	key := l.Key()
	r := testLog(t, Options{Key: &key})
	if _, err := r.Append(ctx, nil); !errors.Is(err, ErrNotWritable) {
		t.Errorf("append to a log of another: %v", err)
	}
	kp = keyPairN(1)
	if err := r.Learn(Options{Key: &key, KeyPair: &kp}); err != nil || !r.Writable() {
		t.Errorf("learn its key pair: %v", err)
	}
	if _, err := r.Append(ctx, nil); err != nil {
		t.Errorf("append then: %v", err)
	}
}

// Whoever waits is appended together with others, in turn, or not at all.
func TestConcurrentAppendsGetTheirOwnRanges(t *testing.T) {
	ctx := context.Background()
	st := &modelStore{open: storage.Disk{Dir: "store", FS: memFS{vfs.NewMem()}}.Open}
	st.reopen(t)
	kp := keyPairN(1)
	l, err := Open(st.s, Options{KeyPair: &kp})
	if err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 12, 15
	var ends [workers][]uint64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				var blocks [][]byte
				for k := range 1 + (w+i)%3 {
					blocks = append(blocks, fmt.Appendf(nil, "%d %d %d", w, i, k))
				}
				end, err := l.AppendWith(ctx, AppendOptions{Durability: Durability(i % 2)}, blocks...)
				if err != nil {
					t.Error(err)
					return
				}
				ends[w] = append(ends[w], end)
			}
		})
	}
	wg.Wait()
	owner := map[uint64]string{}
	for w := range workers {
		for i, end := range ends[w] {
			n := uint64(1 + (w+i)%3)
			for k := range n {
				index := end - n + k
				if owner[index] != "" {
					t.Fatalf("block %d was given out twice", index)
				}
				owner[index] = fmt.Sprintf("%d %d %d", w, i, k)
			}
		}
	}
	if uint64(len(owner)) != l.Length() {
		t.Errorf("%d blocks were appended, the log has %d", len(owner), l.Length())
	}
	for i := range l.Length() {
		if got, err := l.Get(ctx, i); err != nil || string(got) != owner[i] {
			t.Fatalf("block %d: %q, %v, want %q", i, got, err, owner[i])
		}
	}
	if bad := audit(t, l); bad != nil {
		t.Error(bad)
	}
	if err := errors.Join(l.Close(), st.s.Close()); err != nil {
		t.Error(err)
	}
}

// An append that waits is one write with all others that wait, but for those
// whose context ended or which must not be there.
func TestAppendsThatWaitAreGrouped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kp := keyPairN(1)
		l, err := Open(memoryStore(t), Options{KeyPair: &kp})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		if err := l.c.lock(ctx); err != nil { // someone makes a change
			t.Fatal(err)
		}
		w, err := l.Watch()
		if err != nil {
			t.Fatal(err)
		}
		canceled, cancel := context.WithCancel(ctx)
		var errs [10]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				o, ctx := AppendOptions{}, ctx
				switch i {
				case 3:
					ctx = canceled
				case 4:
					o.Signature = []byte("wrong")
				case 5:
					o.MaxLength = 1
				}
				_, errs[i] = l.AppendWith(ctx, o, fmt.Append(nil, i), nil)
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !errors.Is(errs[3], context.Canceled) {
			t.Errorf("canceled while it waits: %v", errs[3])
		}
		l.c.unlock()
		wg.Wait()
		for i, err := range errs {
			want := map[int]error{3: context.Canceled, 4: ErrSignature, 5: ErrLength}[i]
			if !errors.Is(err, want) {
				t.Errorf("append %d: %v, want %v", i, err, want)
			}
		}
		if l.Length() != 14 {
			t.Errorf("length %d, want 14", l.Length())
		}
		if e, err := w.Next(ctx); err != nil || e != (Event{Kind: Appended, Length: 14}) {
			t.Errorf("event %+v, %v", e, err)
		}
		if err := errors.Join(w.Close(), l.Close()); err != nil {
			t.Error(err)
		}
		if _, err := l.Append(ctx, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("append to a closed log: %v", err)
		}
	})
}

// The last Close returns when nothing changes the log any more: another core
// may then be made of what is stored.
func TestCloseWaitsForAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, kp, s := context.Background(), keyPairN(1), memoryStore(t)
		l, err := Open(s, Options{KeyPair: &kp})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.c.lock(ctx); err != nil {
			t.Fatal(err)
		}
		var waiting, closing error
		var closed atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() { _, waiting = l.Append(ctx, []byte("late")) })
		synctest.Wait()
		wg.Go(func() { closing = l.Close(); closed.Store(true) })
		synctest.Wait()
		if closed.Load() {
			t.Error("closed while a change was being made")
		}
		l.c.unlock()
		wg.Wait()
		if closing != nil || !errors.Is(waiting, ErrClosed) {
			t.Errorf("close: %v, append: %v", closing, waiting)
		}
		if err := l.Truncate(ctx, 0, TruncateOptions{}); !errors.Is(err, ErrClosed) {
			t.Errorf("truncate: %v", err)
		}
	})
}

func TestClosingWhileAppending(t *testing.T) {
	ctx, kp, s := context.Background(), keyPairN(1), memoryStore(t)
	var total uint64
	for range 20 {
		l, err := Open(s, Options{KeyPair: &kp})
		if err != nil {
			t.Fatal(err)
		}
		if l.Length() != total {
			t.Fatalf("%d blocks, %d were appended", l.Length(), total)
		}
		var appended atomic.Uint64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if _, err := l.Append(ctx, []byte("x")); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
					appended.Add(1)
				}
			})
		}
		for appended.Load() < 5 {
			_ = l.Length()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		total += appended.Load()
	}
}

func TestSessions(t *testing.T) {
	ctx, kp, secret := context.Background(), keyPairN(1), [32]byte{4}
	idle := 0
	var l *Log
	l = testLog(t, Options{KeyPair: &kp, OnIdle: func() {
		idle++
		if l.InUse() {
			t.Error("idle, and in use")
		}
	}})
	session := func(o SessionOptions) *Log {
		t.Helper()
		s, err := l.Session(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	secretly, blindly := session(SessionOptions{EncryptionKey: &secret}), session(SessionOptions{ReadOnly: true})
	if _, err := secretly.Append(ctx, []byte("hidden")); err != nil {
		t.Fatal(err)
	}
	if got, err := secretly.Get(ctx, 0); err != nil || string(got) != "hidden" || secretly.ByteLength() != 6 {
		t.Errorf("with the key: %q, %v", got, err)
	}
	if got, err := blindly.Get(ctx, 0); err != nil || len(got) != 6+EncryptionPadding || blindly.ByteLength() != 14 {
		t.Errorf("without: %q, %v", got, err)
	}
	for what, err := range map[string]error{
		"append":    second(blindly.Append(ctx, nil)),
		"truncate":  blindly.Truncate(ctx, 0, TruncateOptions{}),
		"clear":     second(blindly.Clear(ctx, 0, 1)),
		"draft":     second(blindly.Draft(ctx, "d")),
		"user data": blindly.SetUserData(ctx, "n", nil),
		"repair":    second(blindly.Repair(ctx, l)),
	} {
		if !errors.Is(err, ErrNotWritable) {
			t.Errorf("%s through a session that only reads: %v", what, err)
		}
	}
	if blindly.Writable() || !l.Writable() || !l.InUse() || idle != 0 {
		t.Error("what the sessions say of themselves is wrong")
	}
	for range 2 {
		if err := errors.Join(secretly.Close(), blindly.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if l.InUse() || idle != 1 {
		t.Errorf("in use %v, idle %d times", l.InUse(), idle)
	}
	for what, err := range map[string]error{
		"append":    second(secretly.Append(ctx, nil)),
		"get":       second(secretly.Get(ctx, 0)),
		"session":   second(secretly.Session(SessionOptions{})),
		"snapshot":  second(secretly.Snapshot()),
		"draft":     second(secretly.Draft(ctx, "d")),
		"drafts":    second(secretly.Drafts()),
		"watch":     second(secretly.Watch()),
		"publish":   second(secretly.Publish(ctx)),
		"prove":     second(secretly.Prove(ctx, merkle.Request{}, false)),
		"user data": second(secretly.UserData("n")),
		"update":    secretly.Update(ctx),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s through a closed session: %v", what, err)
		}
	}
	// A draft holds its log open.
	d, err := l.Draft(ctx, "d")
	if err != nil {
		t.Fatal(err)
	}
	if !l.InUse() {
		t.Error("a draft does not hold its log open")
	}
	if err := d.Discard(ctx); err != nil || l.InUse() || idle != 2 {
		t.Errorf("discard: %v, in use %v, idle %d times", err, l.InUse(), idle)
	}
}

func TestUserData(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 0)
	if _, err := l.UserData("n"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing there: %v", err)
	}
	if err := l.SetUserData(ctx, "n", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if got, err := l.UserData("n"); err != nil || string(got) != "v" {
		t.Errorf("%q, %v", got, err)
	}
	if err := l.SetUserData(ctx, "n", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.UserData("n"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}

func TestABlockMayLieInABuffer(t *testing.T) {
	st := &modelStore{open: storage.Disk{Dir: "store", FS: memFS{vfs.NewMem()}}.Open}
	st.reopen(t)
	t.Cleanup(func() {
		if err := st.s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, secret := range []*[32]byte{nil, {5}} {
		kp := keyPairN(1)
		if secret != nil {
			kp = keyPairN(2)
		}
		l := testLogIn(t, st.s, Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: secret}})
		var want []string
		for i, size := range []int{64 << 10, 64 << 10, 10, 2 << 10, 0, 40 << 10, 70 << 10} {
			want = append(want, strings.Repeat(string(rune('a'+i)), size))
			appendTo(t, l, want[i])
		}
		snap, err := l.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []*Log{l, snap} {
			buf := make([]byte, 0, 64<<10+256)
			for i := range want {
				got, err := l.GetIn(t.Context(), uint64(i), buf)
				if err != nil || string(got) != want[i] {
					t.Errorf("block %d: got %d bytes and error %v, want %d bytes", i, len(got), err, len(want[i]))
				}
				if in := i < 2 && bytes.Contains(buf[:cap(buf)], []byte(want[i])); i < 2 && !in {
					t.Errorf("block %d does not lie in the buffer", i)
				}
			}
		}
		if err := snap.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
