// Package hypercore is a log: numbered blocks that only grow, under a Merkle
// tree whose head its writer signs, so that anyone who knows the log's key can
// check any block from any source.
//
// Keys, hashes, signatures, encryption and proofs are those of the npm package
// hypercore 11, to the byte. What is on the disk is this project's own (package
// storage).
//
//	store, err := storage.Open(storage.NewMemory(), storage.Options{})
//	log, err := hypercore.Open(store, hypercore.Options{KeyPair: &kp})
//	length, err := log.Append(ctx, []byte("hello"))
//	block, err := log.Get(ctx, 0)
//	err = log.Close()
//
// # Concurrency
//
// All methods may be called by any goroutine. Appends that come at the same
// time are signed and synced together.
//
// # What others see
//
// A reader sees a change when it is committed, and nothing of it before. Proofs
// for peers are made only of what is on the disk: see Publish.
package hypercore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// Errors that callers branch on. They come wrapped with what was being done.
var (
	// ErrNotFound: there is no such log, block or draft here.
	ErrNotFound = storage.ErrNotFound
	// ErrClosed: the session was closed.
	ErrClosed = errors.New("log is closed")
	// ErrNotWritable: the key pair that signs is not here, or the session reads only.
	ErrNotWritable = errors.New("log is not writable here")
	// ErrFrozen: the log's writer signed two histories; nothing can be added.
	ErrFrozen = errors.New("log is frozen: its writer signed two different histories")
	// ErrConflict: what was based on a state of the log does not fit it any more.
	ErrConflict = errors.New("conflict")
	// ErrLength: a length is outside of what the log has or may have.
	ErrLength = errors.New("length out of range")
	// ErrTooLarge: a block is larger than MaxBlock.
	ErrTooLarge = errors.New("block is too large")
	// ErrTruncated: what was asked for was in a part of the log that was cut off.
	ErrTruncated = errors.New("log was truncated")
)

// MaxBlock is the size of the largest block, in bytes: peers send a block in one
// message.
const MaxBlock = 15 << 20

// A Range is the blocks Start to End, without End.
type Range = storage.Range

// A Block is a block with its number.
type Block = storage.Block

// Durability says when a write is acknowledged: Durable or Soon.
type Durability = storage.Durability

// See package storage.
const (
	Durable = storage.Durable
	Soon    = storage.Soon
)

// A Log is a session on a log: one user's handle, to be closed by that user.
type Log struct {
	c        *core
	snap     *snapshot // nil when the session follows the log
	readOnly bool

	encryption *encryption
	cipher     atomic.Pointer[blockCipher]
	closed     atomic.Bool
}

type encryption struct {
	key      [32]byte
	blockKey bool // key is the block key itself
}

// A snapshot is a state of a log that stays.
type snapshot struct {
	store     *storage.StoreSnapshot
	r         reader
	tree      merkle.Tree
	signature []byte
	have      blockSet
}

// Options for Open. Key, or Manifest, or KeyPair says which log.
type Options struct {
	// Key is the log's key. Its manifest comes with the first proof from a peer,
	// unless it is given.
	Key *Key
	// Manifest says who signs. With neither Key nor Manifest, it is that of
	// KeyPair as the only signer.
	Manifest *Manifest
	// KeyPair signs what is appended. It is kept in the store with the log.
	KeyPair *KeyPair
	// Compat makes the log one of the old kind, whose key is its writer's public
	// key. Logs that exist are recognised by themselves.
	Compat bool
	// MustExist makes it an error, ErrNotFound, when the log is not in the store.
	MustExist bool
	// Alias names the log when it is new.
	Alias *storage.Alias
	// Durability of creating the log; Durable when zero.
	Durability Durability
	// OnIdle is called each time when all sessions but the one that Open returns
	// were closed.
	OnIdle func()

	Session SessionOptions
}

// SessionOptions for one session.
type SessionOptions struct {
	// ReadOnly refuses to change the log through this session.
	ReadOnly bool
	// EncryptionKey encrypts and decrypts blocks; nil works with the stored form.
	EncryptionKey *[32]byte
	// BlockKey means that EncryptionKey is what BlockEncryptionKey returned.
	BlockKey bool
}

// Open opens a log in a store, which makes it if it is new. A log must not be
// opened again while it is open: Session gives further handles (package
// corestore keeps track).
func Open(store *storage.Store, o Options) (*Log, error) {
	key, manifest, err := o.identity()
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	l, err := open(store, o, key, manifest)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", key, err)
	}
	return l, nil
}

// LogKey returns the key of the log that the options say.
func (o *Options) LogKey() (Key, error) {
	key, _, err := o.identity()
	return key, err
}

// identity works out the key and, if it is known, the manifest.
func (o *Options) identity() (Key, *Manifest, error) {
	m := o.Manifest
	if m == nil && o.KeyPair != nil && (o.Key == nil || *o.Key == o.KeyPair.Public || *o.Key == SingleSigner(o.KeyPair.Public).Key()) {
		m = SingleSigner(o.KeyPair.Public)
	}
	if m != nil {
		if err := m.Validate(); err != nil {
			return Key{}, nil, err
		}
	}
	switch {
	case o.Key != nil:
		if m != nil {
			if _, err := NewVerifier(*o.Key, m); err != nil {
				return Key{}, nil, err
			}
		}
		return *o.Key, m, nil
	case m == nil:
		return Key{}, nil, errors.New("neither a key, nor a manifest, nor a key pair was given")
	case o.Compat:
		if len(m.Signers) != 1 {
			return Key{}, nil, fmt.Errorf("%w: a log of the old kind has one signer", ErrManifest)
		}
		return m.Signers[0].PublicKey, m, nil
	}
	return m.Key(), m, nil
}

func open(store *storage.Store, o Options, key Key, m *Manifest) (*Log, error) {
	discovery := key.Discovery()
	id, err := store.Find(discovery)
	if errors.Is(err, storage.ErrNotFound) && !o.MustExist {
		auth := storage.Auth{Key: key}
		extendAuth(&auth, m, o.KeyPair)
		if o.Durability == Soon {
			id, err = store.CreateSoon(discovery, auth, o.Alias)
		} else {
			id, err = store.Create(discovery, auth, o.Alias)
		}
	}
	if err != nil {
		return nil, err
	}
	c := newCore(store, id, key)
	c.onIdle = o.OnIdle
	if err := c.load(); err != nil {
		return nil, err
	}
	if err := c.learn(m, o.KeyPair); err != nil {
		return nil, err
	}
	c.sessions = 1
	return c.session(o.Session), nil
}

func (c *core) session(o SessionOptions) *Log {
	l := &Log{c: c, readOnly: o.ReadOnly}
	if o.EncryptionKey != nil {
		l.encryption = &encryption{*o.EncryptionKey, o.BlockKey}
	}
	return l
}

// learn keeps a manifest or a key pair that was not known.
func (c *core) learn(m *Manifest, kp *KeyPair) error {
	auth := c.auth
	if !extendAuth(&auth, m, kp) {
		return nil
	}
	v := c.verifier
	if v == nil && m != nil {
		var err error
		if v, err = NewVerifier(c.key, m); err != nil {
			return err
		}
	}
	if err := c.store.Commit(Durable, &storage.Tx{Log: c.id, Base: c.tree.Length, Auth: &auth}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.auth, c.own, c.verifier = auth, keyPairOf(&auth), v
	return nil
}

// extendAuth adds what is new of a manifest and a key pair, and reports whether
// anything was.
func extendAuth(a *storage.Auth, m *Manifest, kp *KeyPair) (changed bool) {
	if a.Manifest == nil && m != nil {
		a.Manifest, changed = m.Encode(), true
	}
	if a.Seed == nil && kp != nil && (kp.CanSign() || a.PublicKey == nil) {
		a.PublicKey, a.Seed, changed = slices.Clone(kp.Public[:]), kp.Seed(), true
	}
	return changed
}

// Session returns another handle on the same log. A session of a snapshot is
// one of the same snapshot's log, not of the snapshot.
func (l *Log) Session(o SessionOptions) (*Log, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	if err := l.c.acquire(); err != nil {
		return nil, err
	}
	return l.c.session(o), nil
}

// InUse reports whether there are sessions besides this one.
func (l *Log) InUse() bool {
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return l.c.sessions > 1
}

// Learn keeps the manifest and the key pair in the options, where they were not
// known.
func (l *Log) Learn(o Options) error {
	key, m, err := o.identity()
	if err == nil && key != l.c.key {
		err = fmt.Errorf("%w: they are of log %s", ErrManifest, key)
	}
	if err != nil {
		return fmt.Errorf("log %s: %w", l.c.key, err)
	}
	if err := l.c.lock(context.Background()); err != nil {
		return err
	}
	defer l.c.unlock()
	return l.c.learn(m, o.KeyPair)
}

// KeyPair returns the key pair that the store has of the log. It may lack its
// secret half, or both.
func (l *Log) KeyPair() KeyPair {
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return l.c.own
}

// Close ends the session. The log itself closes with its last one, which waits
// for a change that is being made.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	var err error
	if l.snap != nil {
		err = l.snap.store.Close()
	}
	l.c.release()
	return err
}

func (l *Log) check() error {
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

func (l *Log) changeable() error {
	switch {
	case l.closed.Load():
		return ErrClosed
	case l.snap != nil:
		return fmt.Errorf("%w: it is a snapshot", ErrNotWritable)
	case l.readOnly:
		return fmt.Errorf("%w: the session only reads", ErrNotWritable)
	}
	return nil
}

// Key returns the log's key.
func (l *Log) Key() Key { return l.c.key }

// Discovery returns the log's discovery key.
func (l *Log) Discovery() DiscoveryKey { return l.c.discovery }

// Manifest returns who signs, or nil while that is not known. It must not be
// changed.
func (l *Log) Manifest() *Manifest {
	if v := l.Verifier(); v != nil {
		return v.manifest
	}
	return nil
}

// Verifier returns what checks the log's signatures, or nil while the manifest
// is not known.
func (l *Log) Verifier() *Verifier {
	c := l.c
	if c.parent != nil {
		c = c.parent
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.verifier
}

// Compat reports whether the log is one of the old kind, whose key is its
// writer's. It is false while that is not known.
func (l *Log) Compat() bool {
	v := l.Verifier()
	return v != nil && v.compat
}

// Writable reports whether Append can work through this session.
func (l *Log) Writable() bool {
	if l.changeable() != nil || l.c.writable() != nil {
		return false
	}
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return l.c.parent != nil || l.c.own.CanSign()
}

// A Head is a signed state of a log.
type Head struct {
	merkle.Tree
	Signature []byte // nil when nothing was signed yet
}

// Head returns the log's state.
func (l *Log) Head() Head {
	if l.snap != nil {
		return Head{l.snap.tree, l.snap.signature}
	}
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return Head{l.c.tree, l.c.signature}
}

func (l *Log) tree() merkle.Tree { return l.Head().Tree }

// Length returns the number of blocks.
func (l *Log) Length() uint64 {
	if l.snap != nil {
		return l.snap.tree.Length
	}
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return l.c.tree.Length
}

// ByteLength returns the bytes of all blocks, without what encryption adds when
// the session has the key.
func (l *Log) ByteLength() uint64 {
	t := l.tree()
	return t.ByteLength() - t.Length*l.padding()
}

// Fork returns how many times the log was truncated.
func (l *Log) Fork() uint64 { return l.tree().Fork }

// TreeHash returns the hash of the first length blocks' tree. ErrNotFound
// means that not all of its roots are held.
func (l *Log) TreeHash(length uint64) (merkle.Hash, error) {
	t, err := l.tree().At(length, l.reader())
	if errors.Is(err, merkle.ErrRequest) {
		err = ErrLength
	}
	if err != nil {
		return merkle.Hash{}, fmt.Errorf("tree hash at %d: %w", length, err)
	}
	return t.Hash(), nil
}

// Contiguous returns how many blocks from the first on are held.
func (l *Log) Contiguous() uint64 {
	if l.snap != nil {
		return l.snap.have.contiguous()
	}
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	if l.c.base > 0 {
		l.c.parent.mu.RLock()
		defer l.c.parent.mu.RUnlock()
		if n := l.c.parent.have.contiguous(); n < l.c.base {
			return n
		}
		r, _ := l.c.have.At(l.c.base)
		return max(l.c.base, r.End)
	}
	return l.c.have.contiguous()
}

// Has reports whether a block is held.
func (l *Log) Has(index uint64) bool {
	r, ok := l.NextHeld(index)
	return ok && r.Start == index
}

// NextHeld returns the first run of blocks held from index on, or what is left
// of it there. ok is false when none follows.
func (l *Log) NextHeld(index uint64) (r Range, ok bool) {
	if l.snap != nil {
		return l.snap.have.Next(index)
	}
	c := l.c
	c.mu.RLock()
	defer c.mu.RUnlock()
	if index < c.base {
		c.parent.mu.RLock()
		defer c.parent.mu.RUnlock()
		if r, ok := c.parent.have.Next(index); ok && r.Start < c.base {
			r.End = min(r.End, c.base)
			return r, true
		}
		index = c.base
	}
	return c.have.Next(index)
}

func (l *Log) reader() reader {
	if l.snap != nil {
		return l.snap.r
	}
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return l.c.reader()
}

// padding is how many bytes of each block do not count for this session.
func (l *Log) padding() uint64 {
	if l.encryption == nil {
		return 0
	}
	return EncryptionPadding
}

// blockCipher returns the session's cipher, nil when it has no key.
func (l *Log) blockCipher() (*blockCipher, error) {
	if l.encryption == nil {
		return nil, nil
	}
	if c := l.cipher.Load(); c != nil {
		return c, nil
	}
	var c *blockCipher
	if l.encryption.blockKey {
		c = newBlockKeyCipher(l.encryption.key)
	} else {
		v := l.Verifier()
		if v == nil {
			return nil, errors.New("the manifest, which says how blocks are encrypted, is not known yet")
		}
		c = newBlockCipher(l.c.key, l.encryption.key, v.compat)
	}
	l.cipher.Store(c)
	return c, nil
}

// AppendOptions for one append.
type AppendOptions struct {
	// Durability of the append; Durable when zero.
	Durability Durability
	// KeyPair signs instead of the log's own.
	KeyPair *KeyPair
	// Signature is the ready signature of the tree after the append, as several
	// signers make it together.
	Signature []byte
	// MaxLength, when not 0, refuses the append (ErrLength) if the log would get
	// longer.
	MaxLength uint64
}

// joins reports whether two appends may be signed as one.
func (o *AppendOptions) joins(other *AppendOptions) bool {
	return o.KeyPair == other.KeyPair && o.Signature == nil && other.Signature == nil
}

// Append adds blocks, all or none of them, and returns the length after them.
// They are on the disk when it returns. The blocks are the caller's again then.
func (l *Log) Append(ctx context.Context, blocks ...[]byte) (uint64, error) {
	return l.AppendWith(ctx, AppendOptions{}, blocks...)
}

// AppendWith is Append with options.
func (l *Log) AppendWith(ctx context.Context, o AppendOptions, blocks ...[]byte) (uint64, error) {
	if err := l.changeable(); err != nil {
		return 0, fmt.Errorf("append: %w", err)
	}
	call := &appendCall{blocks: blocks, o: o}
	for i, b := range blocks {
		if len(b) > MaxBlock {
			return 0, fmt.Errorf("append: block %d of %d has %d bytes: %w, %d are allowed", i, len(blocks), len(b), ErrTooLarge, MaxBlock)
		}
		call.size += len(b)
	}
	if len(blocks) == 0 {
		return l.Length(), nil
	}
	var err error
	if call.cipher, err = l.blockCipher(); err != nil {
		return 0, fmt.Errorf("append: %w", err)
	}
	length, err := l.c.append(ctx, call)
	if err != nil {
		return 0, fmt.Errorf("append to log %s: %w", l.c.key, err)
	}
	return length, nil
}

// TruncateOptions for one truncation.
type TruncateOptions struct {
	Durability Durability
	// Fork is the new fork number. One more than before when 0.
	Fork uint64
	// KeyPair and Signature are as in AppendOptions.
	KeyPair   *KeyPair
	Signature []byte
}

// Truncate cuts the log to length blocks and raises its fork number, which tells
// every reader that what they have beyond is history no more.
func (l *Log) Truncate(ctx context.Context, length uint64, o TruncateOptions) error {
	fail := func(err error) error { return fmt.Errorf("truncate log %s to %d: %w", l.c.key, length, err) }
	if err := l.changeable(); err != nil {
		return fail(err)
	}
	c := l.c
	if err := c.lock(ctx); err != nil {
		return fail(err)
	}
	defer c.unlock()
	if err := c.writable(); err != nil {
		return fail(err)
	}
	if length > c.tree.Length {
		return fail(fmt.Errorf("%w: it has %d blocks", ErrLength, c.tree.Length))
	}
	fork := o.Fork
	if fork == 0 {
		fork = c.tree.Fork + 1
	}
	if fork <= c.tree.Fork && c.parent == nil {
		return fail(fmt.Errorf("%w: fork %d is not above %d", ErrConflict, fork, c.tree.Fork))
	}
	b := c.tree.Batch()
	if err := b.Truncate(length, fork, c.reader()); err != nil {
		if errors.Is(err, merkle.ErrNoNode) {
			err = fmt.Errorf("%w: the tree there went when blocks were cleared; truncate below them, or get a block next to it from a peer first", err)
		}
		return fail(err)
	}
	if err := c.sign(b, b.Tree.Hash(), o.Signature, o.KeyPair); err != nil {
		return fail(err)
	}
	ch := change{batch: b, truncate: true}
	if length < c.base {
		// The draft takes less from its log, and has its own roots.
		if err := c.parent.lock(ctx); err != nil {
			return fail(err)
		}
		defer c.parent.unlock()
		b.Nodes = b.Tree.Roots
		ch.base, ch.parent = &length, c.rebased(b.Tree)
	}
	if err := c.commit(o.Durability, &ch); err != nil {
		return fail(err)
	}
	c.truncated(length)
	return nil
}

// Clear removes blocks from this store, to free their space. The log keeps its
// length and its proofs, and blocks can be had again from peers. It returns how
// many were held.
func (l *Log) Clear(ctx context.Context, from, to uint64) (uint64, error) {
	fail := func(err error) (uint64, error) {
		return 0, fmt.Errorf("clear blocks %d to %d of log %s: %w", from, to, l.c.key, err)
	}
	if err := l.changeable(); err != nil {
		return fail(err)
	}
	c := l.c
	if err := c.lock(ctx); err != nil {
		return fail(err)
	}
	defer c.unlock()
	to = min(to, c.tree.Length)
	if from < c.base {
		return fail(fmt.Errorf("%w: the first %d are not the draft's own", ErrLength, c.base))
	}
	var held uint64
	for i := from; i < to; {
		r, ok := c.have.Next(i)
		if !ok || r.Start >= to {
			break
		}
		held += min(r.End, to) - r.Start
		i = r.End
	}
	if held == 0 {
		return 0, nil
	}
	if err := c.commit(Durable, &change{clear: Range{Start: from, End: to}}); err != nil {
		return fail(err)
	}
	c.notify(Event{Kind: Cleared, Range: Range{Start: from, End: to}})
	return held, nil
}

// Snapshot returns a read-only session of the log as it is now. It keeps reading
// what is truncated or cleared later. While it is open, that space is not freed.
func (l *Log) Snapshot() (*Log, error) { return l.Checkout(l.Length()) }

// Checkout is a Snapshot of the log's first length blocks. The head of an
// earlier length has no signature.
func (l *Log) Checkout(length uint64) (*Log, error) {
	fail := func(err error) (*Log, error) {
		return nil, fmt.Errorf("checkout log %s at %d: %w", l.c.key, length, err)
	}
	if err := l.check(); err != nil {
		return fail(err)
	}
	if l.snap != nil {
		return fail(errors.New("it is a snapshot already"))
	}
	c := l.c
	// Nothing is committed while the two views are taken.
	if err := c.lock(context.Background()); err != nil {
		return fail(err)
	}
	defer c.unlock()
	if c.parent != nil {
		if err := c.parent.lock(context.Background()); err != nil {
			return fail(err)
		}
		defer c.parent.unlock()
	}
	if length > c.tree.Length {
		return fail(fmt.Errorf("%w: it has %d blocks", ErrLength, c.tree.Length))
	}
	if c.stale {
		return fail(fmt.Errorf("%w below this draft", ErrTruncated))
	}
	view, err := c.store.Snapshot()
	if err != nil {
		return fail(err)
	}
	s := &snapshot{store: view, r: reader{own: view.Log(c.id), base: c.base}}
	if c.parent != nil {
		s.r.parent = view.Log(c.parent.id)
	}
	if s.tree, err = c.tree.At(length, s.r); err != nil {
		return fail(errors.Join(err, view.Close()))
	}
	if length == c.tree.Length {
		s.signature = c.signature
	}
	s.have = c.copyHave()
	if c.parent != nil {
		parent := c.parent.copyHave()
		parent.drop(Range{Start: c.base, End: merkle.MaxSize})
		for r := range parent.All() {
			s.have.add(r)
		}
	}
	s.have.drop(Range{Start: length, End: merkle.MaxSize})
	c.mu.Lock()
	c.sessions++
	c.mu.Unlock()
	out := c.session(SessionOptions{ReadOnly: true})
	out.snap, out.encryption = s, l.encryption
	return out, nil
}

// UserData returns a value kept beside the log under a name, or ErrNotFound. It
// is not part of the log.
func (l *Log) UserData(name string) ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	return l.reader().own.UserData(name)
}

// SetUserData keeps a value beside the log; nil removes it.
func (l *Log) SetUserData(ctx context.Context, name string, value []byte) error {
	if err := l.changeable(); err != nil {
		return fmt.Errorf("set user data %q: %w", name, err)
	}
	if err := l.c.lock(ctx); err != nil {
		return fmt.Errorf("set user data %q: %w", name, err)
	}
	defer l.c.unlock()
	tx := storage.Tx{Log: l.c.id, Base: l.c.tree.Length, UserData: map[string][]byte{name: value}}
	if err := l.c.store.Commit(Durable, &tx); err != nil {
		return fmt.Errorf("set user data %q: %w", name, err)
	}
	return nil
}

// Frozen returns the evidence that the writer signed two histories, or nil.
func (l *Log) Frozen() *Conflict {
	l.c.mu.RLock()
	defer l.c.mu.RUnlock()
	return decodeConflict(l.c.auth.Frozen)
}

var _ io.Closer = (*Log)(nil)
