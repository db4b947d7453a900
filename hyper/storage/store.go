// Package storage is where logs live: their trees, blocks, heads and keys, on
// an Engine that is a folder on disk, memory, or a faulty disk in a test.
//
// A Store keeps any number of logs in one engine. It checks nothing that
// signatures or hashes say; package hypercore does. Changes of a log are made
// by committing a Tx, all of it or nothing.
//
//	engine, err := storage.Disk{Dir: "data"}.Open()
//	store, err := storage.Open(engine, storage.Options{})
//	id, err := store.Create(discoveryKey, auth, nil)
//	err = store.Commit(storage.Durable, &storage.Tx{Log: id, Head: &head, Blocks: blocks, Nodes: nodes})
//	block, err := store.Log(id).Block(0)
package storage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// An ID is the number of a log in its store. It says nothing elsewhere.
type ID uint64

// A Store keeps logs. Its methods may be called by any goroutine, but one log
// must be changed by one goroutine at a time.
type Store struct {
	engine Engine
	pages  *pageCache

	batches sync.Pool

	mu   sync.Mutex // guards creating and deleting logs
	next ID
}

// Options for a store; the zero value is right.
type Options struct {
	// CacheBytes bounds the memory for pages that were used last. 24 MiB when 0.
	CacheBytes int
}

const defaultCache = 24 << 20

// Open returns the store kept by an engine, which belongs to it from then on.
func Open(engine Engine, o Options) (*Store, error) {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCache
	}
	s := &Store{engine: engine, pages: newPageCache(o.CacheBytes)}
	s.batches.New = func() any { return new(Batch) }
	next, err := engine.Get(metaKey(metaNext))
	switch {
	case errors.Is(err, ErrNotFound):
		s.next = 1
	case err != nil:
		return nil, fmt.Errorf("open store: %w", err)
	case len(next) != 8:
		return nil, fmt.Errorf("open store: next log number: %w", ErrCorrupt)
	default:
		s.next = ID(binary.BigEndian.Uint64(next))
	}
	return s, nil
}

// Close makes everything durable and closes the engine.
func (s *Store) Close() error { return s.engine.Close() }

// Sync returns when every change made before is on the disk.
func (s *Store) Sync() error { return s.engine.Sync() }

// Stats returns what the engine uses.
func (s *Store) Stats() (Stats, error) { return s.engine.Stats() }

// Auth is what a log is: its key, and what allows to write it. It changes
// rarely, and always as a whole.
type Auth struct {
	Key      [32]byte
	Manifest []byte // encoded; nil while it is not known
	// PublicKey and Seed are the Ed25519 key pair that signs; Seed is nil where
	// the log is only read.
	PublicKey, Seed []byte
	// Frozen holds the proof that two trees of one length and fork were signed.
	Frozen []byte
}

// Head is the state of a log that was signed last.
type Head struct {
	Fork, Length uint64
	TreeHash     merkle.Hash
	Signature    []byte
	// Tail is the last run of blocks held; the runs before it are stored apart.
	Tail Range
}

// A Range is the blocks Start to End, without End.
type Range = runs.Range

// A Block is a block with its number.
type Block struct {
	Index uint64
	Data  []byte
}

// A Tx is a change of one log. What is nil or empty stays as it is. Its parts
// take effect in the order of the fields.
type Tx struct {
	Log ID
	// Base is the log's length before the change.
	Base uint64
	// Truncate removes all blocks and nodes beyond a length.
	Truncate *uint64
	// Clear removes blocks, and nodes that no proof of another block needs.
	Clear []Range
	// Nodes and Blocks are added. A block that is there must not be added again.
	// Both are the caller's again when Commit returns.
	Nodes  []merkle.Node
	Blocks []Block
	// Runs are the runs of blocks held that changed, but for the tail: a run that
	// ends where it starts is gone.
	Runs []Range
	Auth *Auth
	Head *Head
	// Drafts are changed drafts of the log.
	Drafts []Draft
	// UserData sets values by name; nil removes one.
	UserData map[string][]byte
	// Complete, when set, is called once by Commit and sets Nodes and Head, while
	// large blocks may be on their way to the disk already. When it fails, nothing
	// is changed.
	Complete func() error
}

// Kinds of keys. Everything of a log lies under keyLog and its number.
const (
	keyMeta  = 0 // name -> fact of the store; metaNext -> number of the next log
	keyIndex = 1 // discovery key -> log number
	keyAlias = 2 // namespace (32) name -> discovery key
	keyLog   = 3 // log number (uint64 BE) kind ... -> see below

	logAuth  = 'a' // Auth
	logBlock = 'b' // (blob) block number -> block
	logDraft = 'd' // name -> Draft
	logHead  = 'h' // Head
	logPage  = 'p' // level, page number -> page
	logRun   = 'r' // start -> end
	logUser  = 'u' // name -> user data
)

// metaNext does not begin with a letter: those names are the caller's.
const metaNext = ".next"

func metaKey(name string) []byte { return append([]byte{keyMeta}, name...) }

func indexKey(discovery [32]byte) []byte { return append([]byte{keyIndex}, discovery[:]...) }

func aliasKey(namespace [32]byte, name string) []byte {
	return append(append([]byte{keyAlias}, namespace[:]...), name...)
}

func logKey(id ID, kind byte) []byte {
	b := make([]byte, 0, 32)
	return append(binary.BigEndian.AppendUint64(append(b, keyLog), uint64(id)), kind)
}

func numberKey(id ID, kind byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(logKey(id, kind), n)
}

func pageKeyOf(id ID, level int, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(logKey(id, logPage), byte(level)), n)
}

// end returns the first key after all that begin with prefix.
func end(prefix []byte) []byte {
	out := bytes.Clone(prefix)
	out[len(out)-1]++ // kinds and name spaces never end in 255
	return out
}

// Meta returns a fact of the store by name, or ErrNotFound.
func (s *Store) Meta(name string) ([]byte, error) { return s.engine.Get(metaKey(name)) }

// SetMeta sets a fact of the store. Names beginning with a letter are the
// caller's.
func (s *Store) SetMeta(name string, value []byte) error {
	var b Batch
	b.Set(metaKey(name), value)
	return s.engine.Apply(&b, Durable)
}

// An Alias is a name for a log within a namespace.
type Alias struct {
	Namespace [32]byte
	Name      string
}

// Create adds an empty log, under an alias if one is given. It fails if there
// is one of that discovery key.
func (s *Store) Create(discovery [32]byte, auth Auth, alias *Alias) (ID, error) {
	return s.create(Durable, discovery, auth, alias)
}

// CreateSoon is Create with Soon durability.
func (s *Store) CreateSoon(discovery [32]byte, auth Auth, alias *Alias) (ID, error) {
	return s.create(Soon, discovery, auth, alias)
}

func (s *Store) create(durability Durability, discovery [32]byte, auth Auth, alias *Alias) (ID, error) {
	var b Batch
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.Find(discovery)
	if err == nil {
		return 0, fmt.Errorf("create log %x: it exists", discovery[:4])
	}
	if !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	id := s.next
	b.Set(metaKey(metaNext), binary.BigEndian.AppendUint64(nil, uint64(id+1)))
	b.Set(indexKey(discovery), binary.BigEndian.AppendUint64(nil, uint64(id)))
	b.Set(logKey(id, logAuth), encodeAuth(&auth))
	if alias != nil {
		b.Set(aliasKey(alias.Namespace, alias.Name), discovery[:])
	}
	if err := s.engine.Apply(&b, durability); err != nil {
		return 0, fmt.Errorf("create log %x: %w", discovery[:4], err)
	}
	s.next = id + 1
	return id, nil
}

// Find returns the log of a discovery key, or ErrNotFound.
func (s *Store) Find(discovery [32]byte) (ID, error) {
	value, err := s.engine.Get(indexKey(discovery))
	if err != nil {
		return 0, fmt.Errorf("find log %x: %w", discovery[:4], err)
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("find log %x: %w", discovery[:4], ErrCorrupt)
	}
	return ID(binary.BigEndian.Uint64(value)), nil
}

// FindAlias returns the discovery key behind an alias, or ErrNotFound.
func (s *Store) FindAlias(a Alias) (discovery [32]byte, err error) {
	value, err := s.engine.Get(aliasKey(a.Namespace, a.Name))
	if err != nil {
		return discovery, fmt.Errorf("find alias %q: %w", a.Name, err)
	}
	if copy(discovery[:], value) != 32 {
		return discovery, fmt.Errorf("find alias %q: %w", a.Name, ErrCorrupt)
	}
	return discovery, nil
}

// SetAlias gives a log a name, and takes the name from any other.
func (s *Store) SetAlias(a Alias, discovery [32]byte) error {
	var b Batch
	b.Set(aliasKey(a.Namespace, a.Name), discovery[:])
	return s.engine.Apply(&b, Durable)
}

// Logs calls f with the discovery key and number of every log, in the order of
// the keys, until it returns false.
func (s *Store) Logs(f func(discovery [32]byte, id ID) bool) error {
	return s.engine.Scan([]byte{keyIndex}, []byte{keyIndex + 1}, func(key, value []byte) bool {
		if len(key) != 33 || len(value) != 8 {
			return true
		}
		return f([32]byte(key[1:]), ID(binary.BigEndian.Uint64(value)))
	})
}

// Aliases calls f with every alias of a namespace and the discovery key behind
// it, in the order of the names, until it returns false.
func (s *Store) Aliases(namespace [32]byte, f func(name string, discovery [32]byte) bool) error {
	from := aliasKey(namespace, "")
	to := bytes.Clone(from)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i]++; to[i] != 0 {
			break
		}
	}
	return s.engine.Scan(from, to, func(key, value []byte) bool {
		if len(value) != 32 {
			return true
		}
		return f(string(key[len(from):]), [32]byte(value))
	})
}

// Delete removes a log with all that is kept of it. Aliases of it stay and lead
// nowhere.
func (s *Store) Delete(discovery [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, err := s.Find(discovery)
	if err != nil {
		return err
	}
	var b Batch
	drafts, err := s.Log(id).Drafts()
	if err != nil {
		return err
	}
	for _, d := range drafts {
		s.deleteAll(&b, d.ID)
	}
	b.Delete(indexKey(discovery))
	s.deleteAll(&b, id)
	if err := s.engine.Apply(&b, Durable); err != nil {
		return fmt.Errorf("delete log %x: %w", discovery[:4], err)
	}
	s.dropPages(id, 0, 1<<53)
	for _, d := range drafts {
		s.dropPages(d.ID, 0, 1<<53)
	}
	return nil
}

func (s *Store) deleteAll(b *Batch, id ID) {
	from := binary.BigEndian.AppendUint64([]byte{keyLog}, uint64(id))
	to := binary.BigEndian.AppendUint64([]byte{keyLog}, uint64(id+1))
	b.DeleteRange(from, to)
	b.DeleteBlobs(from, to)
}

// A Draft is a log that continues another one from a length on, under a name,
// until it is committed or thrown away.
type Draft struct {
	Name string
	ID   ID
	// Base and Fork are the length and fork of the log that it continues, and Hash
	// is its tree hash.
	Base, Fork uint64
	Hash       merkle.Hash
}

// SetDraft adds or changes a draft of a log. A draft whose ID is 0 is new and
// gets one.
func (s *Store) SetDraft(id ID, d Draft) (Draft, error) {
	var b Batch
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := d.ID == 0
	if fresh {
		d.ID = s.next
		b.Set(metaKey(metaNext), binary.BigEndian.AppendUint64(nil, uint64(d.ID+1)))
	}
	setDraft(&b, id, &d)
	if err := s.engine.Apply(&b, Durable); err != nil {
		return Draft{}, fmt.Errorf("set draft %q: %w", d.Name, err)
	}
	if fresh {
		s.next++
	}
	return d, nil
}

func setDraft(b *Batch, id ID, d *Draft) {
	value := []byte{recordVersion}
	value = binary.AppendUvarint(value, uint64(d.ID))
	value = binary.AppendUvarint(value, d.Base)
	value = binary.AppendUvarint(value, d.Fork)
	value = append(value, d.Hash[:]...)
	b.Set(append(logKey(id, logDraft), d.Name...), value)
}

// DeleteDraft throws a draft away.
func (s *Store) DeleteDraft(id ID, d Draft) error {
	var b Batch
	b.Delete(append(logKey(id, logDraft), d.Name...))
	s.deleteAll(&b, d.ID)
	if err := s.engine.Apply(&b, Durable); err != nil {
		return fmt.Errorf("delete draft %q: %w", d.Name, err)
	}
	s.dropPages(d.ID, 0, 1<<53)
	return nil
}

// Commit makes the changes of one or more logs, each changed by one Tx, all of
// them or, when it returns an error, none.
func (s *Store) Commit(d Durability, txs ...*Tx) error {
	b := s.batches.Get().(*Batch)
	defer func() {
		b.Reset()
		s.batches.Put(b)
	}()
	commits := make([]commit, len(txs))
	early := false
	for i, tx := range txs {
		if slices.ContainsFunc(txs[:i], func(t *Tx) bool { return t.Log == tx.Log }) {
			return fmt.Errorf("commit: log %d is changed twice", tx.Log)
		}
		commits[i].tx = tx
		early = early || tx.Complete != nil
	}
	prepare := func() error {
		for i := range commits {
			if err := s.prepare(b, &commits[i]); err != nil {
				return err
			}
		}
		return nil
	}
	if early {
		for i := range commits {
			commits[i].setBlobs(b)
		}
		b.Then(prepare)
	} else if err := prepare(); err != nil {
		return err
	}
	if err := s.engine.Apply(b, d); err != nil {
		return err
	}
	for i := range commits {
		s.committed(&commits[i])
	}
	return nil
}

// A commit is a Tx on its way.
type commit struct {
	tx      *Tx
	blobs   bool // its blobs are in the batch
	changes []*pageChange
	dropped []pageRange
}

type pageRange struct {
	level    int
	from, to uint64
}

// pageSpan is how many blocks lie under a page of a level.
func pageSpan(level int) uint64 { return 1 << (pageHeight * (level + 1)) }

// setBlobs adds the blobs to the batch, which needs nothing else of the change.
func (c *commit) setBlobs(b *Batch) {
	if c.blobs || c.tx.Truncate != nil || len(c.tx.Clear) > 0 {
		return // after what is deleted
	}
	c.blobs = true
	for i := range c.tx.Blocks {
		if block := &c.tx.Blocks[i]; len(block.Data) >= pageInline {
			b.SetBlob(numberKey(c.tx.Log, logBlock, block.Index), block.Data)
		}
	}
}

func (s *Store) prepare(b *Batch, c *commit) error {
	tx := c.tx
	if tx.Complete != nil {
		if err := tx.Complete(); err != nil {
			return err
		}
	}
	if tx.Truncate != nil {
		if err := s.prepareTruncate(b, c, *tx.Truncate); err != nil {
			return err
		}
	}
	for _, r := range joinRanges(tx.Clear, c.base()) {
		if err := s.prepareClear(b, c, r); err != nil {
			return err
		}
	}
	var last *pageChange
	for i := range tx.Nodes {
		n := &tx.Nodes[i]
		level, number, local := pageOf(n.Index)
		if last == nil || last.level != level || last.number != number {
			last = c.change(level, number)
		}
		last.nodes = append(last.nodes, *n)
		last.added.add(local)
	}
	for i := range tx.Blocks {
		block := &tx.Blocks[i]
		number := block.Index / pageBlocks
		if last == nil || last.level != 0 || last.number != number {
			last = c.change(0, number)
		}
		last.blocks = append(last.blocks, *block)
		if len(block.Data) >= pageInline && !c.blobs {
			b.SetBlob(numberKey(tx.Log, logBlock, block.Index), block.Data)
		}
	}
	for _, ch := range c.changes {
		if err := s.prepareChange(b, c, ch); err != nil {
			return err
		}
	}
	for _, r := range tx.Runs {
		if r.Len() == 0 {
			b.Delete(numberKey(tx.Log, logRun, r.Start))
		} else {
			b.Set(numberKey(tx.Log, logRun, r.Start), binary.AppendUvarint(nil, r.End))
		}
	}
	if tx.Auth != nil {
		b.Set(logKey(tx.Log, logAuth), encodeAuth(tx.Auth))
	}
	if tx.Head != nil {
		var buf [256]byte
		b.Set(logKey(tx.Log, logHead), appendHead(buf[:0], tx.Head))
	}
	for i := range tx.Drafts {
		setDraft(b, tx.Log, &tx.Drafts[i])
	}
	for name, value := range tx.UserData {
		key := append(logKey(tx.Log, logUser), name...)
		if value == nil {
			b.Delete(key)
		} else {
			b.Set(key, value)
		}
	}
	return nil
}

// change returns the change of a page, which is new if it has none yet.
func (c *commit) change(level int, number uint64) *pageChange {
	for i := len(c.changes) - 1; i >= 0; i-- {
		if ch := c.changes[i]; ch.level == level && ch.number == number {
			return ch
		}
	}
	ch := &pageChange{log: c.tx.Log, level: level, number: number}
	ch.nodes = make([]merkle.Node, 0, min(len(c.tx.Nodes), pageNodes))
	if level == 0 {
		ch.blocks = make([]Block, 0, min(len(c.tx.Blocks), pageBlocks))
	}
	c.changes = append(c.changes, ch)
	return ch
}

// base is the log's length after truncating, before anything is added.
func (c *commit) base() uint64 {
	if c.tx.Truncate != nil {
		return min(c.tx.Base, *c.tx.Truncate)
	}
	return c.tx.Base
}

// fresh reports whether a page is empty before anything is added to it.
func (c *commit) fresh(ch *pageChange) bool {
	return ch.drop || ch.number*pageSpan(ch.level) >= c.base() ||
		slices.ContainsFunc(c.dropped, func(r pageRange) bool {
			return r.level == ch.level && r.from <= ch.number && ch.number < r.to
		})
}

func (s *Store) prepareChange(b *Batch, c *commit, ch *pageChange) error {
	key := pageKeyOf(ch.log, ch.level, ch.number)
	adds := len(ch.nodes) > 0 || len(ch.blocks) > 0
	if ch.drop {
		b.Delete(key)
	} else if !ch.whole && !c.fresh(ch) {
		p, err := s.live(c.tx.Log).page(ch.level, ch.number)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		ch.with = p
		if p != nil && ch.replaces() {
			ch.with, ch.whole = p.without(Range{}), true
		}
	}
	if !ch.whole {
		if adds {
			ch.encode()
			kind := opMerge
			if ch.with == nil {
				// There is no page yet. A value that is set whole, unlike one that is
				// merged, is not written again with each compaction.
				kind = opSet
			}
			b.addOwned(kind, key, ch.value)
		}
		return nil
	}
	if adds {
		// What is added joins what is left.
		add := *ch
		add.whole = false
		add.encode()
		add.apply(ch.with)
	}
	ch.encode()
	b.addOwned(opSet, key, ch.value)
	return nil
}

// joinRanges returns the ranges in order, without overlaps and what lies beyond
// the end.
func joinRanges(ranges []Range, end uint64) []Range {
	out := make([]Range, 0, len(ranges))
	for _, r := range ranges {
		if r.End = min(r.End, end); r.Len() > 0 {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	n := 0
	for _, r := range out {
		if n > 0 && r.Start <= out[n-1].End {
			out[n-1].End = max(out[n-1].End, r.End)
			continue
		}
		out[n] = r
		n++
	}
	return out[:n]
}

func (s *Store) prepareTruncate(b *Batch, c *commit, length uint64) error {
	tx := c.tx
	for level := 0; level <= maxLevel; level++ {
		span := pageSpan(level)
		first := length / span // the page that the cut goes through
		if length%span != 0 {
			p, err := s.live(tx.Log).page(level, first)
			switch {
			case errors.Is(err, ErrNotFound):
			case err != nil:
				return err
			default:
				ch := c.change(level, first)
				if ch.with, ch.whole = p.cut(length), true; ch.with.known == (nodeSet{}) && !ch.with.hasBlocks() {
					ch.dropPage()
				}
			}
			first++
		}
		if end := (tx.Base + span - 1) / span; end > first {
			b.DeleteRange(pageKeyOf(tx.Log, level, first), pageKeyOf(tx.Log, level, end))
			c.dropped = append(c.dropped, pageRange{level, first, end})
		}
		if tx.Base < span {
			break // no page of a higher level has nodes
		}
	}
	if tx.Base > length {
		b.DeleteBlobs(numberKey(tx.Log, logBlock, length), numberKey(tx.Log, logBlock, tx.Base))
	}
	return nil
}

// prepareClear removes a range of blocks that are all there may be.
func (s *Store) prepareClear(b *Batch, c *commit, r Range) error {
	tx := c.tx
	b.DeleteBlobs(numberKey(tx.Log, logBlock, r.Start), numberKey(tx.Log, logBlock, r.End))
	// Pages that lie in the range go, if the tree has grown over them: then no
	// root of the tree is in them, and the node over each is in the level above.
	for level := 0; level <= maxLevel; level++ {
		span := pageSpan(level)
		first, end := (r.Start+span-1)/span, r.End/span
		if first >= end {
			break
		}
		b.DeleteRange(pageKeyOf(tx.Log, level, first), pageKeyOf(tx.Log, level, end))
		c.dropped = append(c.dropped, pageRange{level, first, end})
	}
	// The pages at the ends of the range lose some blocks.
	first, last := r.Start/pageBlocks, (r.End-1)/pageBlocks
	if err := s.clearInPage(c, first, r); err != nil || first == last {
		return err
	}
	return s.clearInPage(c, last, r)
}

// clearInPage removes the blocks of a range from a page that is not wholly in
// it.
func (s *Store) clearInPage(c *commit, number uint64, r Range) error {
	start := number * pageBlocks
	if r.Start <= start && start+pageBlocks <= r.End {
		return nil
	}
	ch := c.change(0, number)
	if ch.drop {
		return nil
	}
	p := ch.with
	if !ch.whole {
		var err error
		if p, err = s.live(c.tx.Log).page(0, number); errors.Is(err, ErrNotFound) {
			return nil
		} else if err != nil {
			return err
		}
	}
	ch.with, ch.whole = p.without(r), true
	if complete := start+pageBlocks <= c.base(); complete && !ch.with.hasBlocks() {
		ch.dropPage()
	}
	return nil
}

func (ch *pageChange) dropPage() { ch.with, ch.whole, ch.drop = nil, false, true }

// replaces reports whether a node is added that the page has with another size
// or hash. What was left out of the page because it followed from that node may
// not follow any more.
func (ch *pageChange) replaces() bool {
	for i := range ch.nodes {
		n := &ch.nodes[i]
		if _, _, local := pageOf(n.Index); ch.with.known.has(local) && !ch.with.holds(local, n) {
			return true
		}
	}
	return false
}

func (s *Store) committed(c *commit) {
	for _, r := range c.dropped {
		s.pages.dropRange(c.tx.Log, r.level, r.from, r.to)
	}
	for _, ch := range c.changes {
		s.pages.committed(ch, c.fresh(ch))
	}
}

func (s *Store) dropPages(id ID, from, to uint64) {
	for level := 0; level <= maxLevel; level++ {
		s.pages.dropRange(id, level, from, to)
	}
}
