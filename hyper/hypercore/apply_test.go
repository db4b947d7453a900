package hypercore

import (
	"context"
	"errors"
	"testing"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

func upgradeRequest(start, length uint64) merkle.Request {
	return merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: start, Length: length}}
}

// apply returns the errors of proofs.
func apply(t testing.TB, r *Log, proofs ...*Proof) []error {
	t.Helper()
	errs, err := r.Apply(context.Background(), Durable, proofs...)
	if err != nil {
		t.Fatal(err)
	}
	return errs
}

func TestManifestComesWithTheFirstProof(t *testing.T) {
	kp, other := keyPairN(1), keyPairN(2)
	m := &Manifest{Version: 2, Quorum: 1, Signers: []Signer{{DefaultNamespace, kp.Public}}, UserData: []byte("what it is for")}
	w := testLog(t, Options{Manifest: m, KeyPair: &kp})
	appendNumbers(t, w, 4)
	r := readerOf(t, w)
	if r.Manifest() != nil || r.Writable() {
		t.Error("a reader knows what it can't")
	}
	p := prove(t, w, upgradeRequest(0, 4))
	for name, m := range map[string]*Manifest{"none": nil, "another": SingleSigner(other.Public), "one like it": SingleSigner(kp.Public)} {
		q := *p
		q.Manifest = m
		if errs := apply(t, r, &q); !errors.Is(errs[0], ErrSignature) {
			t.Errorf("%s: %v", name, errs[0])
		}
	}
	if r.Manifest() != nil || r.Length() != 0 {
		t.Error("something of a wrong proof is kept")
	}
	mustApply(t, r, p)
	if got := r.Manifest(); got == nil || string(got.UserData) != "what it is for" {
		t.Errorf("learned %+v", got)
	}
	// From then on it is not needed, nor looked at.
	appendNumbers(t, w, 1)
	p = prove(t, w, upgradeRequest(4, 1))
	p.Manifest = SingleSigner(other.Public)
	mustApply(t, r, p)
}

// The key of a log of the old kind says all: a peer has nothing to add to it.
func TestManifestOfAnOldLogIsNotAPeersToSay(t *testing.T) {
	kp := keyPairN(1)
	w := testLog(t, Options{KeyPair: &kp, Compat: true})
	appendNumbers(t, w, 2)
	r := readerOf(t, w)
	p := prove(t, w, upgradeRequest(0, 2))
	if p.Manifest != nil {
		t.Error("a log of the old kind sends a manifest")
	}
	p.Manifest = &Manifest{Version: 3, Quorum: 1, Signers: []Signer{{[32]byte{1}, kp.Public}}, UserData: []byte("lie")}
	mustApply(t, r, p)
	if r.Manifest().UserData != nil {
		t.Error("a peer's manifest is kept")
	}
}

func TestProofsOfAnotherLogAreRefused(t *testing.T) {
	w, r := writerOf(t, 5), readerOf(t, writerOf(t, 1))
	kp := keyPairN(2)
	stranger := testLog(t, Options{KeyPair: &kp})
	for range 5 {
		if _, err := stranger.Append(context.Background(), []byte("strange")); err != nil {
			t.Fatal(err)
		}
	}
	if errs := apply(t, r, prove(t, stranger, upgradeRequest(0, 5))); !errors.Is(errs[0], ErrSignature) {
		t.Errorf("another key: %v", errs[0])
	}
	upgradeTo(t, r, w)
	if errs := apply(t, r, prove(t, stranger, merkle.Request{Block: &merkle.NodeRequest{Index: 1, Nodes: 2}})); !errors.Is(errs[0], merkle.ErrProof) {
		t.Errorf("another log's block: %v", errs[0])
	}
	if r.Has(1) {
		t.Error("it is stored")
	}
	p := prove(t, w, blockRequest(t, r, 1))
	p.Fork = 1
	if errs := apply(t, r, p); !errors.Is(errs[0], ErrFork) {
		t.Errorf("another fork: %v", errs[0])
	}
}

// One answer of a group may be what the next stands on.
func TestProofsOfAGroupBuildOnOneAnother(t *testing.T) {
	w := writerOf(t, 50)
	r := readerOf(t, w)
	first := prove(t, w, upgradeRequest(0, 50))
	path := prove(t, w, merkle.Request{Block: &merkle.NodeRequest{Index: 8, Nodes: 5}})
	next := prove(t, w, merkle.Request{Block: &merkle.NodeRequest{Index: 9}})
	lie := copyOf(t, next)
	lie.Block.Value = []byte("8")
	errs := apply(t, r, next, lie, first, path, lie, next, next, path)
	for i, bad := range []bool{true, true, false, false, true, false, false, false} {
		if (errs[i] != nil) != bad {
			t.Errorf("proof %d: %v", i, errs[i])
		}
	}
	if !errors.Is(errs[4], merkle.ErrProof) {
		t.Errorf("a lie: %v", errs[4])
	}
	if r.Length() != 50 || !r.Has(8) || !r.Has(9) || r.Has(7) {
		t.Error("not all, or too much, is held")
	}
	holdsOnly(t, r, w)
	mustApply(t, r, next, path, first) // held already
}

// Peers answer late: what was asked for from a shorter log is no lie.
func TestLateUpgradesAreNoLies(t *testing.T) {
	w := writerOf(t, 5)
	from0to5 := prove(t, w, upgradeRequest(0, 5))
	from3to5 := prove(t, w, upgradeRequest(3, 2))
	withBlock := prove(t, w, merkle.Request{Block: &merkle.NodeRequest{Index: 4}, Upgrade: &merkle.UpgradeRequest{Length: 5}})
	early := prove(t, w, upgradeRequest(0, 3))
	early.Upgrade.Additional, early.Upgrade.Signature = nil, nil
	appendNumbers(t, w, 3)
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	// The roots of 3 blocks are held, as they are when the log had that length.
	mustApply(t, r, prove(t, w, hashRequest(t, r, 4)), prove(t, w, hashRequest(t, r, 8)))
	head := r.Head()
	mustApply(t, r, from0to5, from3to5, withBlock, early)
	if r.Length() != 8 || r.Head().Hash() != head.Hash() || !r.Has(4) {
		t.Errorf("length %d, has block 4 %v", r.Length(), r.Has(4))
	}
	lie := copyOf(t, from0to5)
	lie.Upgrade.Nodes[0].Hash[1] ^= 1
	if errs := apply(t, r, lie); !errors.Is(errs[0], ErrConflict) {
		t.Errorf("another tree of an earlier length: %v", errs[0])
	}
	// Longer than the log, but asked for when it was shorter.
	appendNumbers(t, w, 2)
	mustApply(t, r, prove(t, w, upgradeRequest(0, 10)))
	if r.Length() != 10 {
		t.Errorf("length %d, want 10", r.Length())
	}
	appendNumbers(t, w, 6)
	if errs := apply(t, r, prove(t, w, upgradeRequest(0, 16))); !errors.Is(errs[0], ErrConflict) {
		t.Errorf("an upgrade that does not show the present tree: %v", errs[0])
	}
	if errs := apply(t, r, prove(t, w, upgradeRequest(12, 4))); !errors.Is(errs[0], merkle.ErrProof) {
		t.Errorf("an upgrade from beyond: %v", errs[0])
	}
	upgradeTo(t, r, w)
	holdsOnly(t, r, w)
}

// The signature of a proof is a part of the message that it came in.
func TestApplyKeepsNothingOfTheMessage(t *testing.T) {
	w := writerOf(t, 3)
	r := readerOf(t, w)
	message := prove(t, w, merkle.Request{Block: &merkle.NodeRequest{Index: 2}, Upgrade: &merkle.UpgradeRequest{Length: 3}}).AppendData(nil, 1)
	p, _, err := ReadData(message)
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, r, p)
	clear(message)
	if bad := audit(t, r); bad != nil {
		t.Errorf("after the message was overwritten: %v", bad)
	}
}

func TestBlindReaderStoresAndServes(t *testing.T) {
	ctx, kp, secret := context.Background(), keyPairN(1), [32]byte{7}
	w := testLog(t, Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: &secret}})
	appendNumbers(t, w, 20)
	blind := readerOf(t, w)
	upgradeTo(t, blind, w)
	for i := range uint64(20) {
		mustApply(t, blind, prove(t, w, blockRequest(t, blind, i)))
	}
	if got, err := blind.Get(ctx, 12); err != nil || string(got) == "12" || len(got) != 2+EncryptionPadding {
		t.Errorf("blind: %q, %v", got, err)
	}
	key := w.Key()
	block := BlockEncryptionKey(key, secret)
	for name, o := range map[string]SessionOptions{"key": {EncryptionKey: &secret}, "block key": {EncryptionKey: &block, BlockKey: true}} {
		r := testLog(t, Options{Key: &key, Session: o})
		upgradeTo(t, r, blind)
		for i := range uint64(20) {
			mustApply(t, r, prove(t, blind, blockRequest(t, r, i)))
		}
		if got, err := r.Get(ctx, 12); err != nil || string(got) != "12" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if r.ByteLength() != w.ByteLength() {
			t.Errorf("%s: %d bytes, want %d", name, r.ByteLength(), w.ByteLength())
		}
		if bad := audit(t, r); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
}

func TestApplyNeedsAnOpenLog(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 3)
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	p := prove(t, w, blockRequest(t, r, 1))
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snap.Apply(ctx, Durable, p); !errors.Is(err, ErrNotWritable) {
		t.Errorf("through a snapshot: %v", err)
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := r.Session(SessionOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, s, p)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(ctx, Durable, p); !errors.Is(err, ErrClosed) {
		t.Errorf("through a closed session: %v", err)
	}
}

// reorged moves a reader to the writer's fork.
func reorg(t testing.TB, r, w *Log) *Reorg {
	t.Helper()
	re, err := r.StartReorg(prove(t, w, upgradeRequest(0, w.Length())))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; !re.Done(); i++ {
		want := re.Want()
		ok, err := re.Update(prove(t, w, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * want.Start, Nodes: want.Levels}}))
		if err != nil || !ok || i > 60 {
			t.Fatalf("update %d: %v, %v", i, ok, err)
		}
	}
	return re
}

func TestReorgMovesToAHigherFork(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 40)
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	for i := range uint64(40) {
		mustApply(t, r, prove(t, w, blockRequest(t, r, i)))
	}
	atFork0 := prove(t, w, upgradeRequest(0, 40))
	if err := w.Truncate(ctx, 21, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"new", "blocks"} {
		if _, err := w.Append(ctx, []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	if errs := apply(t, r, prove(t, w, upgradeRequest(0, 23))); !errors.Is(errs[0], ErrFork) {
		t.Errorf("upgrade to a higher fork: %v", errs[0])
	}
	draft, err := r.Draft(ctx, "keeps") // stands on what goes
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	watcher, err := r.Watch()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	slow := reorg(t, r, w)
	if err := reorg(t, r, w).Commit(ctx, Durable); err != nil {
		t.Fatal(err)
	}
	if r.Fork() != 1 || r.Length() != 23 || r.Contiguous() != 21 {
		t.Errorf("fork %d, length %d, %d blocks", r.Fork(), r.Length(), r.Contiguous())
	}
	holdsOnly(t, r, w)
	if bad := audit(t, r); bad != nil {
		t.Errorf("audit: %v", bad)
	}
	for _, want := range []Event{{Kind: Truncated, Length: 21, Fork: 1}, {Kind: Appended, Length: 23}} {
		if e, err := watcher.Next(ctx); err != nil || e != want {
			t.Errorf("event %+v, %v, want %+v", e, err, want)
		}
	}
	if err := slow.Commit(ctx, Durable); !errors.Is(err, ErrConflict) {
		t.Errorf("reorg of what the log was: %v", err)
	}
	if _, err := r.StartReorg(atFork0); !errors.Is(err, ErrFork) {
		t.Errorf("reorg to a lower fork: %v", err)
	}
	if _, err := draft.Append(ctx, []byte("x")); !errors.Is(err, ErrConflict) {
		t.Errorf("append to a draft of what went: %v", err)
	}
	if _, err := draft.Get(ctx, 30); !errors.Is(err, ErrTruncated) {
		t.Errorf("get below a draft of what went: %v", err)
	}
	bad := prove(t, w, upgradeRequest(0, 23))
	bad.Fork = 2
	if _, err := r.StartReorg(bad); !errors.Is(err, ErrSignature) {
		t.Errorf("reorg to a fork that is not signed: %v", err)
	}
}

func TestUnfinishedReorgDoesNotCommit(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 40)
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	for i := range uint64(40) {
		mustApply(t, r, prove(t, w, blockRequest(t, r, i)))
	}
	if err := w.Truncate(ctx, 21, TruncateOptions{}); err != nil {
		t.Fatal(err)
	}
	appendNumbers(t, w, 20)
	appendNumbers(t, w, 23)
	re, err := r.StartReorg(prove(t, w, upgradeRequest(0, w.Length())))
	if err != nil || re.Done() {
		t.Fatalf("%v, done %v", err, re.Done())
	}
	if err := re.Commit(ctx, Durable); err == nil {
		t.Error("committed before the common blocks were known")
	}
	want := re.Want()
	lie := prove(t, w, merkle.Request{Hash: &merkle.NodeRequest{Index: 2 * want.Start, Nodes: want.Levels}})
	lie.Hash.Nodes[1].Hash[0] ^= 1
	if ok, err := re.Update(lie); ok || err != nil {
		t.Errorf("a lie is of use: %v, %v", ok, err)
	}
	if r.Fork() != 0 || r.Contiguous() != 40 {
		t.Error("the log changed")
	}
}

// fork returns a log of the same key that goes another way after block n.
func forkOf(t testing.TB, w *Log, n uint64, more int) *Log {
	t.Helper()
	kp := keyPairN(1)
	l := testLog(t, Options{KeyPair: &kp})
	appendNumbers(t, l, int(n))
	for range more {
		if _, err := l.Append(context.Background(), []byte("another history")); err != nil {
			t.Fatal(err)
		}
	}
	if l.Key() != w.Key() {
		t.Fatal("another key")
	}
	return l
}

func TestTwoHistoriesFreezeALog(t *testing.T) {
	ctx := context.Background()
	for name, other := range map[string]func(w *Log) *Log{
		"as long": func(w *Log) *Log { return forkOf(t, w, 6, 4) },
		"shorter": func(w *Log) *Log { return forkOf(t, w, 6, 1) },
		"longer":  func(w *Log) *Log { return forkOf(t, w, 6, 30) },
	} {
		t.Run(name, func(t *testing.T) {
			w := writerOf(t, 10)
			s := memoryStore(t)
			key := w.Key()
			r, err := Open(s, Options{Key: &key})
			if err != nil {
				t.Fatal(err)
			}
			upgradeTo(t, r, w)
			for i := range uint64(9) {
				mustApply(t, r, prove(t, w, blockRequest(t, r, i)))
			}
			watcher, err := r.Watch()
			if err != nil {
				t.Fatal(err)
			}
			evil := other(w)
			proof := prove(t, evil, upgradeRequest(0, min(evil.Length(), r.Length())))
			if frozen, err := r.CheckConflict(ctx, proof); err != nil || !frozen {
				t.Fatalf("frozen %v, %v", frozen, err)
			}
			if e, err := watcher.Next(ctx); err != nil || e.Kind != Froze {
				t.Errorf("event %+v, %v", e, err)
			}
			_ = watcher.Close()
			check := func() {
				t.Helper()
				c := r.Frozen()
				if c == nil || c.Ours.Length != 10 || c.Theirs.Length != evil.Length() || c.Theirs.Hash != evil.Head().Hash() {
					t.Fatalf("evidence %+v", c)
				}
				for what, err := range map[string]error{
					"append":   second(r.AppendWith(ctx, AppendOptions{KeyPair: new(keyPairN(1))}, []byte("x"))),
					"truncate": r.Truncate(ctx, 3, TruncateOptions{}),
					"apply":    second(r.Apply(ctx, Durable, prove(t, w, blockRequest(t, r, 9)))),
				} {
					if !errors.Is(err, ErrFrozen) {
						t.Errorf("%s: %v", what, err)
					}
				}
				if got, err := r.Get(ctx, 8); err != nil || string(got) != "8" {
					t.Errorf("get: %q, %v", got, err)
				}
				if r.Writable() {
					t.Error("it is writable")
				}
				if again, err := r.CheckConflict(ctx, proof); err != nil || !again {
					t.Errorf("checked again: %v, %v", again, err)
				}
			}
			check()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err = Open(s, Options{Key: &key}); err != nil {
				t.Fatal(err)
			}
			check()
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

func TestHonestProofsDoNotFreeze(t *testing.T) {
	ctx := context.Background()
	w := writerOf(t, 3)
	var proofs []*Proof
	old := prove(t, w, upgradeRequest(0, 3))
	proofs = append(proofs, old)
	appendNumbers(t, w, 5)
	proofs = append(proofs, prove(t, w, upgradeRequest(0, 8)), prove(t, w, upgradeRequest(0, 5)), prove(t, w, upgradeRequest(3, 5)), prove(t, w, merkle.Request{Block: &merkle.NodeRequest{Index: 1}}))
	r := readerOf(t, w)
	upgradeTo(t, r, w)
	// A peer gives the pair under node 5 other sizes.
	mustApply(t, r, lyingSizes(prove(t, w, hashRequest(t, r, 4))))
	if at, err := r.TreeHash(3); err != nil || at == mustHash(t, w, 3) {
		t.Fatalf("the lie is not in place: %v", err)
	}
	appendNumbers(t, w, 3)
	proofs = append(proofs, prove(t, w, upgradeRequest(0, 11)), prove(t, w, upgradeRequest(0, 8)))
	for i, p := range proofs {
		if frozen, err := r.CheckConflict(ctx, p); frozen || err != nil {
			t.Errorf("proof %d: frozen %v, %v", i, frozen, err)
		}
	}
	// Nor do lies that nobody signed.
	evil := forkOf(t, w, 2, 6)
	for name, change := range map[string]func(p *Proof){
		"signature": func(p *Proof) { p.Upgrade.Signature[40] ^= 1 },
		"nodes":     func(p *Proof) { p.Upgrade.Nodes[0].Hash[3] ^= 1 },
		"fork":      func(p *Proof) { p.Fork = 1 },
		"nothing":   func(p *Proof) { p.Upgrade = nil },
	} {
		p := copyOf(t, prove(t, evil, upgradeRequest(0, 8)))
		change(p)
		if frozen, err := r.CheckConflict(ctx, p); frozen || err != nil {
			t.Errorf("changed %s: frozen %v, %v", name, frozen, err)
		}
	}
	if r.Frozen() != nil {
		t.Error("frozen")
	}
	upgradeTo(t, r, w)
}

func mustHash(t testing.TB, l *Log, length uint64) merkle.Hash {
	t.Helper()
	h, err := l.TreeHash(length)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A peer must never hear of a head that a crash can take back.
func TestWhatIsPublishedSurvivesAPowerCut(t *testing.T) {
	ctx, kp := context.Background(), keyPairN(1)
	for name, publish := range map[string]func(l *Log) (uint64, error){
		"publish": func(l *Log) (uint64, error) { h, err := l.Publish(ctx); return h.Length, err },
		"prove": func(l *Log) (uint64, error) {
			p, err := l.Prove(ctx, upgradeRequest(0, l.Length()), true)
			if err != nil {
				return 0, err
			}
			return p.Upgrade.TreeLength(), nil
		},
	} {
		for seed := range uint64(5) {
			disk := storagetest.NewFaulty()
			e, err := disk.Disk().Open()
			if err != nil {
				t.Fatal(err)
			}
			s, err := storage.Open(e, storage.Options{})
			if err != nil {
				t.Fatal(err)
			}
			l := testLogIn(t, s, Options{KeyPair: &kp})
			for range 7 {
				if _, err := l.AppendWith(ctx, AppendOptions{Durability: Soon}, []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			told, err := publish(l)
			if err != nil || told != 7 {
				t.Fatalf("%s: %d, %v", name, told, err)
			}
			if _, err := l.AppendWith(ctx, AppendOptions{Durability: Soon}, []byte("y")); err != nil {
				t.Fatal(err)
			}
			e, err = disk.PowerCut(seed).Disk().Open()
			if err != nil {
				t.Fatal(err)
			}
			after, err := storage.Open(e, storage.Options{})
			if err != nil {
				t.Fatal(err)
			}
			again := testLogIn(t, after, Options{KeyPair: &kp})
			if again.Length() < told {
				t.Errorf("%s, seed %d: %d blocks were told of, %d are left", name, seed, told, again.Length())
			}
			t.Cleanup(func() { _ = s.Close(); _ = after.Close() })
		}
	}
}

// What peers know of is proven without a sync, and what they don't know of never is.
func TestWhatWasPublishedNeedsNoSync(t *testing.T) {
	ctx, kp := context.Background(), keyPairN(1)
	disk := storagetest.NewFaulty()
	e, err := disk.Disk().Open()
	if err != nil {
		t.Fatal(err)
	}
	s, err := storage.Open(e, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	l := testLogIn(t, s, Options{KeyPair: &kp})
	add := func(n int) {
		for range n {
			if _, err := l.AppendWith(ctx, AppendOptions{Durability: Soon}, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	prove := func(req merkle.Request) *Proof {
		t.Helper()
		p, err := l.Prove(ctx, req, false)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	lost := func(told uint64) {
		t.Helper()
		e, err := disk.PowerCut(1).Disk().Open()
		if err != nil {
			t.Fatal(err)
		}
		after, err := storage.Open(e, storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = after.Close() }()
		if again := testLogIn(t, after, Options{KeyPair: &kp}); again.Length() < told {
			t.Errorf("%d blocks were told of, %d are left", told, again.Length())
		}
	}
	add(7)
	if _, err := l.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	add(3)
	block := func(n uint64) merkle.Request { return merkle.Request{Block: &merkle.NodeRequest{Index: n}} }
	for _, req := range []merkle.Request{block(6), {Hash: &merkle.NodeRequest{Index: 3}}, upgradeRequest(2, 5)} {
		p := prove(req)
		if p.Upgrade != nil && p.Upgrade.TreeLength() != 7 {
			t.Errorf("the upgrade leads to %d blocks", p.Upgrade.TreeLength())
		}
		if !l.c.unsynced {
			t.Errorf("%+v was answered by a sync", req)
		}
	}
	if prove(upgradeRequest(7, 3)).Upgrade.TreeLength() != 10 || l.c.unsynced {
		t.Error("more than peers know of was proven without a sync")
	}
	lost(10)
	add(1)
	if prove(block(10)); l.c.unsynced {
		t.Error("a block that peers don't know of was proven without a sync")
	}
	lost(11)
	add(1)
	if err := l.Truncate(ctx, 5, TruncateOptions{Durability: Soon}); err != nil {
		t.Fatal(err)
	}
	if p := prove(block(4)); p.Fork != l.Head().Fork {
		t.Errorf("a proof of fork %d, after the log was cut", p.Fork)
	}
}
