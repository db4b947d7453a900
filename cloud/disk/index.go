package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"sync/atomic"
	"unicode"

	"github.com/cloudbevy/bevy/hyper/storage"
)

// Key spaces of a folder in the index; docs/formats/folder-index.md has them.
const (
	spaceBefore = 'b' // path -> period and rows: what may be there again after a power cut
	spaceFile   = 'f' // path -> row
	spaceInode  = 'i' // inode, uint64 BE -> path of a file
	spaceGone   = 'g' // path -> nothing: it is gone from the disk and still in the folder
	spaceLater  = 'l' // path -> reason: it is to be written to the disk later
	spaceMeta   = 'm' // name -> value
	spaceIn     = 'n' // path -> placing: it is about to be put in its place on the disk
	spaceOut    = 'o' // path -> row without hash and stamp: it is about to be put
	spacePrune  = 'p' // 0xffff - depth, uint16 BE, and path -> nothing: an empty folder to be removed
	spaceWant   = 'w' // path -> nothing: it was asked for in a sparse folder
)

// Versions of what is in the index. Rows have had no period before.
const (
	indexFormat = 1
	rowFormat   = 2
)

// An index is what a Keeper knows of its folder, in an engine that others have
// parts of, too. It is derived: without it both sides are compared anew.
type index struct {
	e      storage.Engine
	prefix string
	files  atomic.Int64 // how many there are, with changes that are not applied yet
	bytes  atomic.Int64
	// How many paths are to be written later, and of them for want of contents.
	waiting, missing atomic.Int64
	b                storage.Batch
	rows             map[string]*row   // what b changes; nil: removed
	laters           map[string]string // what b changes of them; "": none
	inodes           map[uint64]bool   // those that b gives to paths

	p, kept periods // as they will be and as they are
	period  uint64  // of what is recorded now
	ended   uint64  // the period that is synced next, or 0
}

// errIndex is of an index that can't be read. It is thrown away.
var errIndex = errors.New("damaged index")

// openIndex reads nothing but a few numbers.
func openIndex(e storage.Engine, id string) (*index, error) {
	x := &index{e: e, prefix: fmt.Sprintf("disk/%s/", id), rows: map[string]*row{}, laters: map[string]string{}, inodes: map[uint64]bool{}}
	return x, x.count()
}

// count has the numbers be those that are kept.
func (x *index) count() error {
	value, err := x.meta("counts")
	if err != nil {
		return err
	}
	for i, n := range x.numbers() {
		n.Store(0)
		if at := 8 * i; len(value) >= at+8 {
			n.Store(int64(binary.BigEndian.Uint64(value[at:])))
		}
	}
	return nil
}

// numbers are kept with what they count.
func (x *index) numbers() []*atomic.Int64 {
	return []*atomic.Int64{&x.files, &x.bytes, &x.waiting, &x.missing}
}

func (x *index) key(space byte, path string) []byte {
	k := make([]byte, 0, len(x.prefix)+1+len(path))
	k = append(k, x.prefix...)
	k = append(k, space)
	return append(k, path...)
}

// get returns a value, or nil if there is none.
func (x *index) get(space byte, path string) ([]byte, error) {
	value, err := x.e.Get(x.key(space, path))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if value == nil {
		value = []byte{}
	}
	return value, nil
}

func (x *index) meta(name string) ([]byte, error) { return x.get(spaceMeta, name) }

// row returns that of a path, or nil. It is not to be changed.
func (x *index) row(path string) (*row, error) {
	if r, ok := x.rows[path]; ok {
		return r, nil
	}
	value, err := x.get(spaceFile, path)
	if value == nil || err != nil {
		return nil, err
	}
	return readRow(value)
}

// pathOf returns where the file with an inode was, or "".
func (x *index) pathOf(inode uint64) (string, error) {
	value, err := x.get(spaceInode, inodeKey(inode))
	return string(value), err
}

func inodeKey(inode uint64) string { return string(binary.BigEndian.AppendUint64(nil, inode)) }

// set and unset are seen once commit has returned, put at once by row and then
// by scan.
func (x *index) set(space byte, path string, value []byte) { x.b.Set(x.key(space, path), value) }

func (x *index) unset(space byte, path string) { x.b.Delete(x.key(space, path)) }

// put gives a path a row, or none if r is nil. The row is the index's then.
func (x *index) put(path string, r *row) {
	old, err := x.row(path)
	if err != nil {
		old = nil // it can't be read, and is replaced
	}
	x.rows[path] = r
	if old != nil && old.kind == kindFile {
		x.files.Add(-1)
		x.bytes.Add(-old.size)
	}
	if old != nil && old.inode != 0 && (r == nil || r.inode != old.inode) && !x.inodes[old.inode] {
		if at, err := x.pathOf(old.inode); err == nil && at == path {
			x.unset(spaceInode, inodeKey(old.inode))
		}
	}
	if r == nil {
		x.unset(spaceFile, path)
		return
	}
	x.set(spaceFile, path, appendRow(nil, r))
	if r.kind == kindFile {
		x.files.Add(1)
		x.bytes.Add(r.size)
		if r.inode != 0 {
			x.inodes[r.inode] = true
			x.set(spaceInode, inodeKey(r.inode), []byte(path))
		}
	}
}

// commit makes changes visible, and durable if asked for. The loss of rows costs a
// comparison, unless somebody changes the disk before it is made: then that looks
// like a change of what was there before.
func (x *index) commit(durable bool) error {
	if x.b.Len() == 0 && x.p == x.kept && !durable {
		return nil
	}
	var counts []byte
	for _, n := range x.numbers() {
		counts = binary.BigEndian.AppendUint64(counts, uint64(n.Load()))
	}
	x.set(spaceMeta, "counts", counts)
	if x.p != x.kept {
		x.set(spaceMeta, "periods", []byte(x.p.String()))
	}
	d := storage.Soon
	if durable {
		d = storage.Durable
	}
	err := x.e.Apply(&x.b, d)
	x.b.Reset()
	x.forgetBatch()
	if err != nil {
		return errors.Join(fmt.Errorf("write index: %w", err), x.count())
	}
	x.kept = x.p
	return nil
}

func (x *index) forgetBatch() {
	clear(x.inodes)
	clear(x.rows)
	clear(x.laters)
}

// maxCause bounds how much is kept of why a path could not be written.
const maxCause = 200

// codeOf returns that of the notice about a path that is to be written later.
func codeOf(reason []byte) string {
	code, _, _ := bytes.Cut(reason, []byte(" "))
	return string(code)
}

// causeOf returns what went wrong with it, or "".
func causeOf(reason []byte) string {
	_, cause, _ := bytes.Cut(reason, []byte(" "))
	return string(cause)
}

// setLater remembers why a path is to be written later, or with "" that it is not.
func (x *index) setLater(path, code string, cause error) error {
	reason := code
	if cause != nil {
		words := strings.Map(printable, cause.Error())
		reason += " " + strings.ToValidUTF8(words[:min(len(words), maxCause)], "")
	}
	was, ok := x.laters[path]
	if !ok {
		value, err := x.get(spaceLater, path)
		if err != nil {
			return err
		}
		was = string(value)
	}
	if was == reason {
		return nil
	}
	for _, c := range []struct {
		reason string
		n      int64
	}{{was, -1}, {reason, 1}} {
		if c.reason != "" {
			x.waiting.Add(c.n)
		}
		if codeOf([]byte(c.reason)) == CodeMissing {
			x.missing.Add(c.n)
		}
	}
	x.laters[path] = reason
	if reason == "" {
		x.unset(spaceLater, path)
	} else {
		x.set(spaceLater, path, []byte(reason))
	}
	return nil
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return ' '
}

// clear forgets everything.
func (x *index) clear() error {
	x.b.Reset()
	x.forgetBatch()
	for _, n := range x.numbers() {
		n.Store(0)
	}
	x.b.DeleteRange([]byte(x.prefix), upTo([]byte(x.prefix)))
	if err := x.e.Apply(&x.b, storage.Durable); err != nil {
		return fmt.Errorf("clear index: %w", err)
	}
	x.b.Reset()
	x.p, x.kept = periods{}, periods{}
	return nil
}

// clearSpace forgets a space. Where there is nothing it writes nothing, so that an
// engine that was only read stays so.
func (x *index) clearSpace(space byte) {
	for range x.scan(space, "", "") {
		x.b.DeleteRange(x.key(space, ""), x.key(space+1, ""))
		return
	}
}

// upTo returns the first key that does not begin with prefix.
func upTo(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	end[len(end)-1]++ // it is a slash
	return end
}

// indexPage is how many keys are read at a time: no snapshot is held between.
const indexPage = 512

// scan returns the keys of a space from <= path < to in order, as they are when
// they are come to. Values are the caller's.
func (x *index) scan(space byte, from, to string) iter.Seq2[string, []byte] {
	type pair struct {
		path  string
		value []byte
	}
	return func(yield func(string, []byte) bool) {
		first := x.key(space, from)
		end := x.key(space, to)
		if to == "" {
			end = x.key(space+1, "")
		}
		skip := len(x.prefix) + 1
		var page []pair
		for {
			page = page[:0]
			err := x.e.Scan(first, end, func(key, value []byte) bool {
				page = append(page, pair{string(key[skip:]), append([]byte{}, value...)})
				return len(page) < indexPage
			})
			if err != nil {
				// The engine is broken or closed, and the next write says so.
				return
			}
			for _, p := range page {
				if !yield(p.path, p.value) {
					return
				}
			}
			if len(page) < indexPage {
				return
			}
			first = append(x.key(space, page[len(page)-1].path), 0)
		}
	}
}

// Rows are: version, kind, flags, mode, size, mtime, inode, ctime, period, then hash
// of files or text of links, then stamp.
func appendRow(b []byte, r *row) []byte {
	flags := byte(0)
	if r.racy {
		flags = 1
	}
	b = append(b, rowFormat, byte(r.kind), flags)
	b = binary.AppendUvarint(b, uint64(r.mode))
	b = binary.AppendUvarint(b, uint64(r.size))
	b = binary.AppendVarint(b, r.mtime)
	b = binary.AppendUvarint(b, r.inode)
	b = binary.AppendVarint(b, r.ctime)
	b = binary.AppendUvarint(b, r.young)
	switch r.kind {
	case kindFile:
		b = append(b, r.hash[:]...)
	case kindLink:
		b = binary.AppendUvarint(b, uint64(len(r.link)))
		b = append(b, r.link...)
	}
	return append(b, r.stamp...)
}

func readRow(b []byte) (*row, error) {
	if len(b) < 3 || b[0] != rowFormat && b[0] != indexFormat || b[2] > 1 {
		return nil, errIndex
	}
	version := b[0]
	r := &row{racy: b[2] == 1}
	r.kind = kind(b[1])
	b = b[3:]
	ok := true
	unsigned := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			ok = false
			return 0
		}
		b = b[n:]
		return v
	}
	signed := func() int64 {
		v := unsigned()
		return int64(v>>1) ^ -int64(v&1)
	}
	r.mode = fs.FileMode(unsigned())
	r.size = int64(unsigned())
	r.mtime = signed()
	r.inode = unsigned()
	r.ctime = signed()
	if version == rowFormat {
		r.young = unsigned()
	}
	switch r.kind {
	case kindFile:
		if len(b) < len(r.hash) {
			return nil, errIndex
		}
		b = b[copy(r.hash[:], b):]
	case kindLink:
		n := unsigned()
		if n > uint64(len(b)) {
			return nil, errIndex
		}
		r.link, b = string(b[:n]), b[n:]
	case kindDir:
	default:
		return nil, errIndex
	}
	r.stamp = string(b)
	if !ok {
		return nil, errIndex
	}
	return r, nil
}

// pruneKey has folders that lie deeper come first.
func pruneKey(path string) string {
	depth := min(strings.Count(path, "/"), 0xffff)
	return string(binary.BigEndian.AppendUint16(nil, uint16(0xffff-depth))) + path
}
