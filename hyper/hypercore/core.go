package hypercore

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A core is one log that is open, or one draft of it. All sessions share it.
//
// Changes are made by whoever holds writing, in three steps: work out the
// change, commit it to the store, and only then let readers see it.
type core struct {
	store     *storage.Store
	id        storage.ID
	key       Key
	discovery DiscoveryKey
	onIdle    func()

	// Of a draft: the log that it continues, its name there.
	parent *core
	name   string

	writing chan struct{} // holds one token while a change is being made

	appends struct {
		sync.Mutex
		queue []*appendCall
	}

	mu        sync.RWMutex // guards the fields below
	auth      storage.Auth
	own       KeyPair   // that in auth
	verifier  *Verifier // nil while the manifest is not known, and of drafts
	tree      merkle.Tree
	signature []byte
	have      blockSet
	base      uint64 // of a draft: blocks that are the parent's
	stale     bool   // of a draft: the parent was truncated below base
	unsynced  bool   // what was signed here last may not be on the disk yet
	told      Head   // the newest head that peers may know, if that is of this history
	sessions  int
	drafts    map[string]*core
	watchers  map[*Watcher]struct{}
	closed    bool

	cuts   atomic.Uint64 // truncations, counted when one begins and when it ends
	source atomic.Pointer[Source]
}

func newCore(store *storage.Store, id storage.ID, key Key) *core {
	return &core{store: store, id: id, key: key, discovery: key.Discovery(), writing: make(chan struct{}, 1)}
}

// load reads the log's state from the store.
func (c *core) load() error {
	log := c.store.Log(c.id)
	auth, err := log.Auth()
	if err != nil {
		return err
	}
	if Key(auth.Key) != c.key {
		return fmt.Errorf("its record names another key: %w", storage.ErrCorrupt)
	}
	c.auth, c.own = auth, keyPairOf(&auth)
	if auth.Manifest != nil {
		m, err := DecodeManifest(auth.Manifest)
		if err != nil {
			return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
		if c.verifier, err = NewVerifier(c.key, m); err != nil {
			return fmt.Errorf("%w: %w", storage.ErrCorrupt, err)
		}
	}
	head, err := log.Head()
	if err != nil {
		return err
	}
	var runs []storage.Range
	if head.Tail.Start > 0 { // else there is nothing before the tail
		if runs, err = log.Runs(); err != nil {
			return err
		}
	}
	c.tree, err = readTree(head, c.reader())
	if err != nil {
		return err
	}
	c.signature = head.Signature
	c.have = newBlockSet(runs, head.Tail)
	return nil
}

// readTree reads the roots that belong to a head.
func readTree(head storage.Head, nodes merkle.Nodes) (merkle.Tree, error) {
	t := merkle.Tree{Fork: head.Fork, Length: head.Length}
	var buf [64]uint64
	for _, index := range merkle.AppendRoots(buf[:0], head.Length) {
		n, err := nodes.Node(index)
		if err != nil {
			return t, fmt.Errorf("read root of %d blocks: %w", head.Length, err)
		}
		t.Roots = append(t.Roots, n)
	}
	if head.Length > 0 && t.Hash() != head.TreeHash {
		return t, fmt.Errorf("roots of %d blocks: wrong hash: %w", head.Length, storage.ErrCorrupt)
	}
	return t, nil
}

// A reader reads nodes and blocks of a log, or of a draft, where those of the
// first base blocks are the parent's.
type reader struct {
	own    storage.Log
	parent storage.Log
	base   uint64
}

func (r reader) Node(index uint64) (merkle.Node, error) {
	n, err := r.own.Node(index)
	if r.base > 0 && errors.Is(err, merkle.ErrNoNode) && merkle.RightSpan(index) < 2*r.base {
		return r.parent.Node(index)
	}
	return n, err
}

func (r reader) Block(index uint64) ([]byte, error) { return r.BlockIn(index, nil) }

func (r reader) BlockIn(index uint64, buf []byte) ([]byte, error) {
	if index < r.base {
		return r.parent.BlockIn(index, buf)
	}
	return r.own.BlockIn(index, buf)
}

func (c *core) reader() reader {
	r := reader{own: c.store.Log(c.id)}
	if c.parent != nil {
		r.parent, r.base = c.store.Log(c.parent.id), c.base
	}
	return r
}

// lock takes writing, unless the core is closed by then.
func (c *core) lock(ctx context.Context) error {
	select {
	case c.writing <- struct{}{}:
	default:
		select {
		case c.writing <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		c.unlock()
		return ErrClosed
	}
	return nil
}

func (c *core) unlock() { <-c.writing }

// writable returns why the log can't be changed by its owner, or nil.
func (c *core) writable() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	switch {
	case c.closed:
		return ErrClosed
	case c.auth.Frozen != nil:
		return ErrFrozen
	case c.stale:
		return fmt.Errorf("draft %q: %w: the log was truncated below the draft's first %d blocks", c.name, ErrConflict, c.base)
	}
	return nil
}

// An appendCall is one call of Append that waits for its turn.
type appendCall struct {
	blocks [][]byte
	size   int
	o      AppendOptions
	cipher *blockCipher
	ctx    context.Context
	done   chan struct{} // closed when length and err are set; nil for who leads
	length uint64
	err    error
}

// Appends that wait are signed together, up to these bounds.
const (
	groupBlocks = 1 << 10
	groupBytes  = 16 << 20
)

// append queues a call and waits for it. Whoever gets the turn makes the
// changes of all who wait: one signature and one sync serve them.
func (c *core) append(ctx context.Context, call *appendCall) (uint64, error) {
	call.ctx = ctx
	c.appends.Lock()
	select {
	case c.writing <- struct{}{}:
		queue := append(c.appends.queue, call)
		c.appends.queue = nil
		c.appends.Unlock()
		c.appendAll(queue)
		c.unlock()
		return call.length, call.err
	default:
	}
	call.done = make(chan struct{})
	c.appends.queue = append(c.appends.queue, call)
	c.appends.Unlock()

	select {
	case c.writing <- struct{}{}:
		c.appends.Lock()
		queue := c.appends.queue
		c.appends.queue = nil
		c.appends.Unlock()
		c.appendAll(queue)
		c.unlock()
		<-call.done // by this turn or one before
	case <-call.done:
	case <-ctx.Done():
		if c.forget(call) {
			return 0, ctx.Err()
		}
		<-call.done // its turn has come
	}
	return call.length, call.err
}

// forget takes a call out of the queue, and reports whether it was there.
func (c *core) forget(call *appendCall) bool {
	c.appends.Lock()
	defer c.appends.Unlock()
	for i := range c.appends.queue {
		if c.appends.queue[i] == call {
			c.appends.queue = append(c.appends.queue[:i:i], c.appends.queue[i+1:]...)
			return true
		}
	}
	return false
}

// appendAll makes the changes of calls, in groups.
func (c *core) appendAll(calls []*appendCall) {
	for len(calls) > 0 {
		n, blocks, size := 1, len(calls[0].blocks), calls[0].size
		for n < len(calls) && calls[0].o.joins(&calls[n].o) {
			blocks += len(calls[n].blocks)
			size += calls[n].size
			if blocks > groupBlocks || size > groupBytes {
				break
			}
			n++
		}
		group := calls[:n]
		calls = calls[n:]
		err := c.appendGroup(group)
		for _, call := range group {
			if call.err == nil {
				call.err = err
			}
			if call.done != nil {
				close(call.done)
			}
		}
	}
}

func (c *core) appendGroup(calls []*appendCall) error {
	if err := c.writable(); err != nil {
		return err
	}
	// Only this goroutine changes the state, so it reads it without the lock.
	b := c.tree.Batch()
	length := c.tree.Length
	durability := storage.Soon
	blocks := make([]storage.Block, 0, len(calls[0].blocks))
	for _, call := range calls {
		if err := call.ctx.Err(); err != nil {
			call.err = err
			continue
		}
		if m := call.o.MaxLength; m > 0 && length+uint64(len(blocks)+len(call.blocks)) > m {
			call.err = fmt.Errorf("append %d blocks to %d: %w of %d", len(call.blocks), length, ErrLength, m)
			continue
		}
		if call.o.Durability == Durable {
			durability = Durable
		}
		first := len(blocks)
		for _, data := range call.blocks {
			blocks = append(blocks, storage.Block{Index: length + uint64(len(blocks)), Data: data})
		}
		if call.cipher != nil {
			buf := c.seal(call.cipher, blocks[first:], call.size)
			defer sealed.Put(buf)
		}
		call.length = length + uint64(len(blocks))
	}
	if len(blocks) == 0 {
		return nil
	}
	ch := change{batch: b, blocks: blocks}
	ch.complete = func() (err error) {
		b.Grow(len(blocks))
		for _, leaf := range hashBlocks(blocks) {
			b.AppendRoot(leaf)
		}
		ch.hash = b.Tree.Hash()
		return c.sign(b, ch.hash, calls[0].o.Signature, calls[0].o.KeyPair)
	}
	if err := c.commit(durability, &ch); err != nil {
		return err
	}
	c.notify(Event{Kind: Appended, Length: c.tree.Length})
	return nil
}

// Buffers of blocks that are sealed until they are stored.
var sealed = sync.Pool{New: func() any { return new([]byte) }}

// sealAlone is about how much one goroutine seals.
const sealAlone = 256 << 10

// seal encrypts blocks of size bytes, into a buffer that is to be given back once
// they are stored.
func (c *core) seal(cipher *blockCipher, blocks []storage.Block, size int) *[]byte {
	buf := sealed.Get().(*[]byte)
	*buf = slices.Grow((*buf)[:0], size+len(blocks)*EncryptionPadding)
	var all sync.WaitGroup
	for room := *buf; len(blocks) > 0; {
		n, part := 0, 0
		for n < len(blocks) && part < sealAlone {
			part += len(blocks[n].Data) + EncryptionPadding
			n++
		}
		some, into := blocks[:n], room[:0:part]
		blocks, room = blocks[n:], room[part:part]
		if len(blocks) == 0 {
			c.sealInto(into, cipher, some)
		} else {
			all.Go(func() { c.sealInto(into, cipher, some) })
		}
	}
	all.Wait()
	return buf
}

// sealInto encrypts blocks into a buffer that has room for them.
func (c *core) sealInto(room []byte, cipher *blockCipher, blocks []storage.Block) {
	for i := range blocks {
		b := &blocks[i]
		fork := c.tree.Fork
		if c.parent != nil {
			fork = cipher.draftFork(b.Index, b.Data)
		}
		at := len(room)
		room = cipher.seal(room, b.Index, fork, b.Data)
		b.Data = room[at:len(room):len(room)]
	}
}

// truncated tells those who depend on the log that it was cut to length. The
// caller holds writing.
func (c *core) truncated(length uint64) {
	c.notify(Event{Kind: Truncated, Length: length, Fork: c.tree.Fork})
	c.mu.RLock()
	drafts := slices.Collect(maps.Values(c.drafts))
	c.mu.RUnlock()
	for _, d := range drafts { // whose locks come before the log's
		d.mu.Lock()
		d.stale = d.stale || length < d.base
		d.mu.Unlock()
	}
}

// hashBlocks returns the leaves of blocks.
func hashBlocks(blocks []storage.Block) []merkle.Node {
	data := make([][]byte, len(blocks))
	for i := range blocks {
		data[i] = blocks[i].Data
	}
	leaves := make([]merkle.Node, len(blocks))
	for i, hash := range merkle.LeafHashes(data) {
		leaves[i] = merkle.Node{Index: 2 * blocks[i].Index, Size: uint64(len(data[i])), Hash: hash}
	}
	return leaves
}

// sign gives a batch, whose tree has that hash, its signature: the one passed, if it is right, or one made
// with the key pair passed or the log's own. Drafts are not signed.
func (c *core) sign(b *merkle.Batch, hash merkle.Hash, signature []byte, kp *KeyPair) error {
	if c.parent != nil {
		return nil
	}
	if p := c.verifier.prologue(); p != nil && b.Tree.Length < p.Length {
		return fmt.Errorf("%d blocks are fewer than the prologue's %d: %w", b.Tree.Length, p.Length, ErrLength)
	}
	if c.verifier == nil {
		return fmt.Errorf("sign: the manifest is not known: %w", ErrNotWritable)
	}
	if len(c.verifier.manifest.Signers) == 0 && signature == nil {
		return c.verifier.Verify(b, nil) // the prologue is all that it may be
	}
	if signature != nil {
		if err := c.verifier.Verify(b, signature); err != nil {
			return err
		}
		b.Signature = signature
		return nil
	}
	if kp == nil {
		kp = &c.own
	}
	var err error
	if b.Signature, err = c.verifier.sign(b.Tree, hash, *kp); err != nil {
		return err
	}
	if len(c.verifier.manifest.Signers) > 1 {
		// One part of several is a signature only where the quorum is one.
		b.Signature, err = c.assembleAlone(b.Signature, *kp)
	}
	return err
}

func (c *core) assembleAlone(signature []byte, kp KeyPair) ([]byte, error) {
	if c.verifier.manifest.Quorum != 1 {
		return nil, fmt.Errorf("sign: %d signers must sign together: append with their Signature: %w", c.verifier.manifest.Quorum, ErrNotWritable)
	}
	for i, s := range c.verifier.manifest.Signers {
		if s.PublicKey == kp.Public {
			return c.verifier.Assemble([]PartialSignature{{Signer: uint64(i), Signature: [64]byte(signature)}})
		}
	}
	return nil, ErrNotWritable
}

// keyPairOf returns the key pair in a log's record.
func keyPairOf(a *storage.Auth) (kp KeyPair) {
	copy(kp.Public[:], a.PublicKey)
	if len(a.Seed) == ed25519.SeedSize {
		// A private key is the two halves: deriving one from the other would be most
		// of the time that it takes to open a log.
		kp.secret = append(append(make(ed25519.PrivateKey, 0, ed25519.PrivateKeySize), a.Seed...), kp.Public[:]...)
	}
	return kp
}

// A change is what one commit does to a log, besides what its batch says.
type change struct {
	theirs bool // from a peer: nobody signs anew what is lost of it
	batch  *merkle.Batch
	hash   merkle.Hash // of the batch's tree, if it is known
	// complete, when set, makes the batch, while blocks are being written.
	complete func() error
	truncate bool            // cut to batch.Ancestors first
	blocks   []storage.Block // added, none of which is held
	clear    storage.Range   // removed
	auth     *storage.Auth
	verifier *Verifier   // with auth
	base     *uint64     // of a draft: the new one, below that before
	parent   *storage.Tx // with base
}

// commit stores a change and then shows it to readers. The caller holds
// writing.
func (c *core) commit(d Durability, ch *change) error {
	tx := storage.Tx{Log: c.id, Base: c.tree.Length, Blocks: ch.blocks, Auth: ch.auth}
	if ch.truncate {
		c.cuts.Add(1)
		defer c.cuts.Add(1)
		tx.Truncate = &ch.batch.Ancestors
		var err error
		if tx.Drafts, err = c.draftsAfter(ch.batch.Ancestors, ch.batch.Tree.Fork); err != nil {
			return err
		}
	}
	if ch.clear.Len() > 0 {
		tx.Clear = []storage.Range{ch.clear}
	}

	// The blocks held afterwards.
	oldTail := c.have.Last()
	have, growsBy := c.have, uint64(0)
	switch {
	case ch.truncate || ch.clear.Len() > 0:
		have = c.copyHave()
		drop := ch.clear
		if ch.truncate {
			drop = storage.Range{Start: max(ch.batch.Ancestors, c.base), End: c.tree.Length}
		}
		tx.Runs = append(tx.Runs, have.drop(drop)...)
		tx.Runs = append(tx.Runs, addBlocks(&have, ch.blocks)...)
	case len(ch.blocks) > 0 && oldTail.Len() > 0 && ch.blocks[0].Index == oldTail.End && consecutive(ch.blocks):
		growsBy = uint64(len(ch.blocks)) // the usual append: no copy is needed
	case len(ch.blocks) > 0:
		have = c.copyHave()
		tx.Runs = addBlocks(&have, ch.blocks)
	}
	tail := have.Last()
	tail.End += growsBy

	next, nextSignature := c.tree, c.signature
	complete := func() error {
		if ch.complete != nil {
			if err := ch.complete(); err != nil {
				return err
			}
		}
		if b := ch.batch; b != nil {
			tx.Nodes = b.Nodes
			if b.Upgraded {
				next, nextSignature = b.Tree, b.Signature
			}
		}
		if ch.batch != nil && ch.batch.Upgraded || tail != oldTail {
			if ch.hash == (merkle.Hash{}) {
				ch.hash = next.Hash()
			}
			tx.Head = &storage.Head{Fork: next.Fork, Length: next.Length, TreeHash: ch.hash, Signature: nextSignature, Tail: tail}
		}
		return nil
	}
	if ch.complete != nil {
		tx.Complete = complete
	} else if err := complete(); err != nil {
		return err
	}
	txs := []*storage.Tx{&tx}
	if ch.parent != nil {
		txs = append(txs, ch.parent)
	}
	if err := c.store.Commit(d, txs...); err != nil {
		return fmt.Errorf("commit: %w", err)
	}

	c.mu.Lock()
	c.tree, c.signature = next, nextSignature
	if growsBy > 0 {
		have.add(storage.Range{Start: oldTail.End, End: tail.End})
	}
	c.have = have
	if d == Durable {
		c.unsynced = false
	} else if !ch.theirs {
		c.unsynced = true
	}
	switch {
	case !c.unsynced:
		c.told = Head{next, nextSignature}
	case ch.truncate:
		c.told = Head{}
	}
	if ch.base != nil {
		c.base = *ch.base
	}
	if ch.auth != nil {
		c.auth, c.own, c.verifier = *ch.auth, keyPairOf(ch.auth), ch.verifier
	}
	c.mu.Unlock()
	return nil
}

func (c *core) copyHave() blockSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.have.clone()
}

func consecutive(blocks []storage.Block) bool {
	return blocks[len(blocks)-1].Index-blocks[0].Index == uint64(len(blocks)-1)
}

// addBlocks adds blocks, which come in ascending order, and returns the runs
// that are to be stored anew.
func addBlocks(have *blockSet, blocks []storage.Block) (out []storage.Range) {
	for i := 0; i < len(blocks); {
		end := i + 1
		for end < len(blocks) && blocks[end].Index == blocks[end-1].Index+1 {
			end++
		}
		out = append(out, have.add(storage.Range{Start: blocks[i].Index, End: blocks[end-1].Index + 1})...)
		i = end
	}
	return out
}

// release ends one session. The last one closes the core, once the change that
// is being made is done: the log may then be opened again. The caller holds no
// lock.
func (c *core) release() {
	c.mu.Lock()
	c.sessions--
	left := c.sessions
	c.closed = c.closed || left == 0
	c.mu.Unlock()
	if left > 0 {
		if left == 1 && c.onIdle != nil {
			c.onIdle()
		}
		return
	}
	c.writing <- struct{}{}
	c.endWatchers()
	if c.parent != nil {
		c.parent.forgetDraft(c)
	}
	c.unlock()
	if c.parent != nil {
		c.parent.release()
	}
}

func (c *core) forgetDraft(d *core) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.drafts[d.name] == d {
		delete(c.drafts, d.name)
	}
}

func (c *core) acquire() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.sessions++
	return nil
}

// isMissing reports whether an error says that something is not held here.
func isMissing(err error) bool {
	return errors.Is(err, storage.ErrNotFound) || errors.Is(err, merkle.ErrNoNode)
}
