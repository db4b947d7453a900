package storagetest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Faulty is a disk in memory that fails as it is told to: it loses what was
// not synced, runs full, stops taking writes, or does not read. Everything that
// changes it is a write point; a test may stop at each and take from there the
// disk that a crash would have left.
//
//	disk := storagetest.NewFaulty()
//	engine, err := disk.Disk().Open()
//	disk.Hook(func(p storagetest.Point) {
//		if p.Number == 17 {
//			crashed = disk.PowerCut(seed)
//		}
//	})
//	... write ...
//	engine, err = crashed.Disk().Open()
//
// Its methods may be called by any goroutine, also from within a hook.
type Faulty struct {
	mu      sync.Mutex
	root    *node
	locks   map[string]bool
	order   uint64 // of changes that are not synced
	points  uint64
	reads   uint64
	hook    func(Point)
	rule    func(Point) error
	reading func(Point) error
	ro      bool
	limited bool
	free    uint64 // when limited
}

// A Point is one use of the disk, about to be made.
type Point struct {
	// Number counts write points from 1, or reads from 1.
	Number uint64
	// Op is create, write, sync, rename, remove, link, mkdir, reuse, open (for
	// writing), preallocate, lock; or read.
	Op   string
	Name string // path of the file or folder
	Size int    // bytes to be written or read
}

// A node is a file or a folder. What was changed since it was synced is kept
// apart, so that a power cut can lose any of it.
type node struct {
	children map[string]*node // of a folder; nil for a file
	data     []byte

	syncedChildren map[string]*node
	syncedData     []byte
	renames        []renaming // of entries of the folder
	writes         []writing  // to the file
}

// A renaming is one atomic change of a folder: an entry comes, goes, or both.
type renaming struct {
	order    uint64
	out, in  string
	incoming *node
}

type writing struct {
	order uint64
	at    int
	data  []byte // never changed
}

func newFolder() *node {
	return &node{children: map[string]*node{}, syncedChildren: map[string]*node{}}
}

// NewFaulty returns an empty disk without any fault.
func NewFaulty() *Faulty { return &Faulty{root: newFolder(), locks: map[string]bool{}} }

// FS returns the disk as a file system.
func (f *Faulty) FS() vfs.FS { return faultyFS{f} }

// Disk returns the options that open a store on this disk.
func (f *Faulty) Disk() storage.Disk { return storage.Disk{Dir: "store", FS: f.FS()} }

// Points returns the number of write points so far.
func (f *Faulty) Points() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.points
}

// Hook has h called before each write point, in the goroutine that writes; by
// several at once if several write. Nil ends that.
func (f *Faulty) Hook(h func(Point)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = h
}

// FailWrites makes every write point fail for which rule returns an error. Nil
// ends that.
func (f *Faulty) FailWrites(rule func(Point) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rule = rule
}

// FailReads makes every read fail for which rule returns an error. Nil ends
// that.
func (f *Faulty) FailReads(rule func(Point) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading = rule
}

// FailRead makes the n-th read from now fail with EIO, once. The first is 1.
func (f *Faulty) FailRead(n uint64) {
	f.mu.Lock()
	target := f.reads + n
	f.mu.Unlock()
	f.FailReads(func(p Point) error {
		if p.Number == target {
			return syscall.EIO
		}
		return nil
	})
}

// SetReadOnly makes writes fail with EROFS, or work again.
func (f *Faulty) SetReadOnly(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ro = on
}

// SetFree bounds the space: writes beyond it fail with ENOSPC, and removing
// files gives it back.
func (f *Faulty) SetFree(bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limited, f.free = true, bytes
}

// SetUnlimited ends what SetFree began.
func (f *Faulty) SetUnlimited() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limited = false
}

// Files returns a copy of every file by its path.
func (f *Faulty) Files() map[string][]byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string][]byte{}
	f.root.walk("", func(name string, n *node) { out[name] = slices.Clone(n.data) })
	return out
}

// SetFile gives a file other bytes, as a fault of the disk would: nobody is
// told and nothing counts it.
func (f *Faulty) SetFile(name string, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find("set", name)
	if err != nil {
		return err
	}
	if n.children != nil {
		return fmt.Errorf("set %s: it is a folder", name)
	}
	n.data, n.syncedData, n.writes = slices.Clone(data), slices.Clone(data), nil
	return nil
}

func (n *node) walk(name string, f func(name string, n *node)) {
	if n.children == nil {
		f(name, n)
		return
	}
	for _, child := range sortedKeys(n.children) {
		n.children[child].walk(path.Join(name, child), f)
	}
}

func sortedKeys(m map[string]*node) []string {
	return slices.Sorted(maps.Keys(m))
}

// Kill returns the disk as it is when the process is killed now: everything
// written is there. What was not synced may still be lost to a PowerCut of it.
func (f *Faulty) Kill() *Faulty {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := NewFaulty()
	out.order = f.order
	out.root = f.root.clone(map[*node]*node{})
	return out
}

func (n *node) clone(done map[*node]*node) *node {
	if n == nil {
		return nil
	}
	if c := done[n]; c != nil {
		return c
	}
	c := &node{data: slices.Clone(n.data), syncedData: slices.Clone(n.syncedData), writes: slices.Clone(n.writes)}
	done[n] = c
	if n.children == nil {
		return c
	}
	c.children, c.syncedChildren = map[string]*node{}, map[string]*node{}
	for name, child := range n.children {
		c.children[name] = child.clone(done)
	}
	for name, child := range n.syncedChildren {
		c.syncedChildren[name] = child.clone(done)
	}
	for _, r := range n.renames {
		r.incoming = r.incoming.clone(done)
		c.renames = append(c.renames, r)
	}
	return c
}

// PowerCut returns the disk as a power cut could leave it now. Everything
// synced is there. Of the rest the seed decides: 0 loses all of it; others
// lose all, or keep what came first, or keep a random part. Writes are torn:
// into sectors of 512 bytes that are there or not, in any order, or at any
// byte. What is lost in the middle of a file reads as what was there before,
// or zeros.
func (f *Faulty) PowerCut(seed uint64) *Faulty {
	f.mu.Lock()
	defer f.mu.Unlock()
	cut := &powerCut{done: map[*node]*node{}}
	if seed != 0 {
		cut.random = seed
		switch cut.below(8) {
		case 0: // all is lost
		case 1, 2, 3:
			cut.prefix = true
			if orders := f.root.orders(nil); len(orders) > 0 {
				slices.Sort(orders)
				cut.last = orders[cut.below(len(orders))]
			}
		default:
			cut.percent = 1 + cut.below(100)
		}
	}
	out := NewFaulty()
	out.order = f.order
	out.root = cut.node(f.root)
	return out
}

// orders appends the order of every change that is not synced.
func (n *node) orders(out []uint64) []uint64 {
	for _, w := range n.writes {
		out = append(out, w.order)
	}
	for _, r := range n.renames {
		out = append(out, r.order)
	}
	for _, child := range n.children {
		out = child.orders(out)
	}
	return out
}

// A powerCut decides what is left.
type powerCut struct {
	random  uint64
	prefix  bool // keep changes up to last, which is torn
	last    uint64
	percent int // else: of changes kept
	done    map[*node]*node
}

// below returns a random number from 0 to n-1 (SplitMix64).
func (c *powerCut) below(n int) int {
	c.random += 0x9e3779b97f4a7c15
	z := c.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) % uint64(n))
}

func (c *powerCut) node(n *node) *node {
	if out := c.done[n]; out != nil {
		return out
	}
	out := &node{}
	c.done[n] = out
	if n.children == nil {
		out.data = slices.Clone(n.syncedData)
		for _, w := range n.writes {
			c.write(out, w)
		}
		out.syncedData = slices.Clone(out.data)
		return out
	}
	left := maps.Clone(n.syncedChildren)
	for _, r := range n.renames {
		if c.prefix && r.order <= c.last || !c.prefix && c.below(100) < c.percent {
			r.apply(left)
		}
	}
	out.children = map[string]*node{}
	for _, name := range sortedKeys(left) {
		out.children[name] = c.node(left[name])
	}
	out.syncedChildren = maps.Clone(out.children)
	return out
}

const sector = 512

func (c *powerCut) write(n *node, w writing) {
	if c.prefix {
		switch {
		case w.order < c.last:
			n.write(w.at, w.data)
		case w.order == c.last:
			n.write(w.at, w.data[:c.below(len(w.data)+1)])
		}
		return
	}
	if c.below(100) >= c.percent {
		return
	}
	switch c.below(4) {
	case 0, 1:
		n.write(w.at, w.data)
	case 2:
		n.write(w.at, w.data[:c.below(len(w.data)+1)])
	default:
		for i := 0; i < len(w.data); {
			end := min(len(w.data), i+sector-(w.at+i)%sector)
			if c.below(2) == 0 {
				n.write(w.at+i, w.data[i:end])
			}
			i = end
		}
	}
}

func (r renaming) apply(children map[string]*node) {
	if r.out != "" {
		delete(children, r.out)
	}
	if r.in != "" {
		children[r.in] = r.incoming
	}
}

func (n *node) write(at int, p []byte) {
	if grow := at + len(p) - len(n.data); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	}
	copy(n.data[at:], p)
}

// point is called before a change. Without mu.
func (f *Faulty) point(op, name string, size int) error {
	f.mu.Lock()
	f.points++
	p := Point{Number: f.points, Op: op, Name: name, Size: size}
	hook, rule, ro := f.hook, f.rule, f.ro
	f.mu.Unlock()
	if hook != nil {
		hook(p)
	}
	if ro {
		return &os.PathError{Op: op, Path: name, Err: syscall.EROFS}
	}
	if rule != nil {
		if err := rule(p); err != nil {
			return &os.PathError{Op: op, Path: name, Err: err}
		}
	}
	return nil
}

func (f *Faulty) read(name string, size int) error {
	f.mu.Lock()
	f.reads++
	p := Point{Number: f.reads, Op: "read", Name: name, Size: size}
	rule := f.reading
	f.mu.Unlock()
	if rule != nil {
		if err := rule(p); err != nil {
			return &os.PathError{Op: "read", Path: name, Err: err}
		}
	}
	return nil
}

func split(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// find returns the node of a path. With mu.
func (f *Faulty) find(op, name string) (*node, error) {
	n := f.root
	for _, part := range split(name) {
		if n = n.children[part]; n == nil {
			return nil, &os.PathError{Op: op, Path: name, Err: os.ErrNotExist}
		}
	}
	return n, nil
}

// folder returns the folder that an entry is in, and its name there.
func (f *Faulty) folder(op, name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", &os.PathError{Op: op, Path: name, Err: os.ErrInvalid}
	}
	dir, err := f.find(op, strings.Join(parts[:len(parts)-1], "/"))
	if err != nil {
		return nil, "", err
	}
	if dir.children == nil {
		return nil, "", &os.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
	}
	return dir, parts[len(parts)-1], nil
}

// change changes a folder's entries.
func (f *Faulty) change(dir *node, out, in string, incoming *node) {
	f.order++
	r := renaming{f.order, out, in, incoming}
	r.apply(dir.children)
	dir.renames = append(dir.renames, r)
}

// freed counts a file that has gone from the disk.
func (f *Faulty) freed(n *node) {
	if f.limited && n != nil {
		f.free += uint64(len(n.data))
	}
}

// faultyFS is the disk as vfs.FS.
type faultyFS struct{ f *Faulty }

var _ vfs.FS = faultyFS{}

func (s faultyFS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.f.point("create", name, 0); err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	dir, base, err := s.f.folder("create", name)
	if err != nil {
		return nil, err
	}
	s.f.freed(dir.children[base])
	n := &node{}
	s.f.change(dir, "", base, n)
	return &file{f: s.f, n: n, name: name, writes: true}, nil
}

func (s faultyFS) Link(old, name string) error {
	if err := s.f.point("link", name, 0); err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n, err := s.f.find("link", old)
	if err != nil {
		return err
	}
	dir, base, err := s.f.folder("link", name)
	if err != nil {
		return err
	}
	if dir.children[base] != nil {
		return &os.LinkError{Op: "link", Old: old, New: name, Err: os.ErrExist}
	}
	s.f.change(dir, "", base, n)
	return nil
}

func (s faultyFS) open(name string, writes bool) (vfs.File, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n, err := s.f.find("open", name)
	if err != nil {
		return nil, err
	}
	return &file{f: s.f, n: n, name: name, writes: writes}, nil
}

func (s faultyFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := s.open(name, false)
	if err == nil {
		for _, o := range opts {
			o.Apply(file)
		}
	}
	return file, err
}

func (s faultyFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, _ ...vfs.OpenOption) (vfs.File, error) {
	if err := s.f.point("open", name, 0); err != nil {
		return nil, err
	}
	file, err := s.open(name, true)
	if errors.Is(err, os.ErrNotExist) {
		return s.Create(name, category)
	}
	return file, err
}

func (s faultyFS) OpenDir(name string) (vfs.File, error) { return s.open(name, false) }

func (s faultyFS) Remove(name string) error {
	if err := s.f.point("remove", name, 0); err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n, err := s.f.find("remove", name)
	if err != nil {
		return err
	}
	if len(n.children) > 0 {
		return &os.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	dir, base, err := s.f.folder("remove", name)
	if err != nil {
		return err
	}
	s.f.freed(n)
	s.f.change(dir, base, "", nil)
	return nil
}

func (s faultyFS) RemoveAll(name string) error {
	if err := s.f.point("remove", name, 0); err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n, err := s.f.find("remove", name)
	if err != nil {
		return nil
	}
	dir, base, err := s.f.folder("remove", name)
	if err != nil {
		return err
	}
	n.walk("", func(_ string, n *node) { s.f.freed(n) })
	s.f.change(dir, base, "", nil)
	return nil
}

func (s faultyFS) Rename(old, name string) error {
	if err := s.f.point("rename", name, 0); err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return s.rename(old, name)
}

// rename is atomic within a folder; between two it is not, as on no disk.
func (s faultyFS) rename(old, name string) error {
	n, err := s.f.find("rename", old)
	if err != nil {
		return err
	}
	from, out, err := s.f.folder("rename", old)
	if err != nil {
		return err
	}
	to, in, err := s.f.folder("rename", name)
	if err != nil {
		return err
	}
	if from == to && out == in {
		return nil
	}
	s.f.freed(to.children[in])
	if from == to {
		s.f.change(from, out, in, n)
		return nil
	}
	s.f.change(to, "", in, n)
	s.f.change(from, out, "", nil)
	return nil
}

func (s faultyFS) ReuseForWrite(old, name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.f.point("reuse", name, 0); err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if err := s.rename(old, name); err != nil {
		return nil, err
	}
	n, err := s.f.find("reuse", name)
	if err != nil {
		return nil, err
	}
	return &file{f: s.f, n: n, name: name, writes: true}, nil
}

func (s faultyFS) MkdirAll(name string, _ os.FileMode) error {
	if err := s.f.point("mkdir", name, 0); err != nil {
		return err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n := s.f.root
	for _, part := range split(name) {
		child := n.children[part]
		if child == nil {
			child = newFolder()
			s.f.change(n, "", part, child)
		}
		if child.children == nil {
			return &os.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		n = child
	}
	return nil
}

func (s faultyFS) Lock(name string) (io.Closer, error) {
	if err := s.f.point("lock", name, 0); err != nil {
		return nil, err
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if s.f.locks[name] {
		return nil, &os.PathError{Op: "lock", Path: name, Err: syscall.EAGAIN}
	}
	dir, base, err := s.f.folder("lock", name)
	if err != nil {
		return nil, err
	}
	if dir.children[base] == nil {
		s.f.change(dir, "", base, &node{})
	}
	s.f.locks[name] = true
	return &lock{f: s.f, name: name}, nil
}

type lock struct {
	f    *Faulty
	name string
	once sync.Once
}

func (l *lock) Close() error {
	l.once.Do(func() {
		l.f.mu.Lock()
		defer l.f.mu.Unlock()
		delete(l.f.locks, l.name)
	})
	return nil
}

func (s faultyFS) List(name string) ([]string, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n, err := s.f.find("list", name)
	if err != nil {
		return nil, err
	}
	if n.children == nil {
		return nil, &os.PathError{Op: "list", Path: name, Err: syscall.ENOTDIR}
	}
	out := sortedKeys(n.children)
	sort.Strings(out)
	return out, nil
}

func (s faultyFS) Stat(name string) (vfs.FileInfo, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	n, err := s.f.find("stat", name)
	if err != nil {
		return nil, err
	}
	return info{path.Base(name), int64(len(n.data)), n.children != nil}, nil
}

func (faultyFS) PathBase(name string) string     { return path.Base(name) }
func (faultyFS) PathJoin(parts ...string) string { return path.Join(parts...) }
func (faultyFS) PathDir(name string) string      { return path.Dir(name) }
func (faultyFS) Unwrap() vfs.FS                  { return nil }

func (s faultyFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	free := uint64(1 << 40)
	if s.f.limited {
		free = s.f.free
	}
	return vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40, UsedBytes: 1<<40 - min(free, 1<<40)}, nil
}

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string           { return i.name }
func (i info) Size() int64            { return i.size }
func (i info) IsDir() bool            { return i.dir }
func (i info) ModTime() time.Time     { return time.Time{} }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
func (i info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}

// A file is an open file or folder. Like those of the system it stays readable
// after it was removed.
type file struct {
	f      *Faulty
	n      *node
	name   string
	writes bool
	at     int // guarded by f.mu
	closed bool
}

func (f *file) Close() error {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if f.closed {
		return &os.PathError{Op: "close", Path: f.name, Err: os.ErrClosed}
	}
	f.closed = true
	return nil
}

func (f *file) check(op string) error {
	switch {
	case f.closed:
		return &os.PathError{Op: op, Path: f.name, Err: os.ErrClosed}
	case f.n.children != nil && op != "sync":
		return &os.PathError{Op: op, Path: f.name, Err: syscall.EISDIR}
	case op == "write" && !f.writes:
		return &os.PathError{Op: op, Path: f.name, Err: syscall.EBADF}
	}
	return nil
}

func (f *file) Read(p []byte) (int, error) {
	if err := f.f.read(f.name, len(p)); err != nil {
		return 0, err
	}
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if err := f.check("read"); err != nil {
		return 0, err
	}
	if f.at >= len(f.n.data) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[f.at:])
	f.at += n
	return n, nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.f.read(f.name, len(p)); err != nil {
		return 0, err
	}
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if err := f.check("read"); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, &os.PathError{Op: "read", Path: f.name, Err: os.ErrInvalid}
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.f.point("write", f.name, len(p)); err != nil {
		return 0, err
	}
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	n, err := f.write(f.at, p)
	f.at += n
	return n, err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.f.point("write", f.name, len(p)); err != nil {
		return 0, err
	}
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	return f.write(int(off), p)
}

func (f *file) write(at int, p []byte) (int, error) {
	if err := f.check("write"); err != nil {
		return 0, err
	}
	var full error
	if grow := at + len(p) - len(f.n.data); f.f.limited && grow > 0 {
		if over := grow - int(min(f.f.free, 1<<40)); over > 0 {
			p = p[:max(0, len(p)-over)]
			grow -= over
			full = &os.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
		}
		f.f.free -= uint64(max(0, grow))
	}
	if len(p) > 0 {
		f.f.order++
		f.n.write(at, p)
		f.n.writes = append(f.n.writes, writing{f.f.order, at, slices.Clone(p)})
	}
	return len(p), full
}

func (f *file) Sync() error {
	if err := f.f.point("sync", f.name, 0); err != nil {
		return err
	}
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	if err := f.check("sync"); err != nil {
		return err
	}
	n := f.n
	if n.children != nil {
		n.syncedChildren, n.renames = maps.Clone(n.children), nil
		return nil
	}
	for _, w := range n.writes {
		if grow := w.at + len(w.data) - len(n.syncedData); grow > 0 {
			n.syncedData = append(n.syncedData, make([]byte, grow)...)
		}
		copy(n.syncedData[w.at:], w.data)
	}
	n.writes = nil
	return nil
}

func (f *file) SyncData() error { return f.Sync() }

// SyncTo promises nothing, as on Linux, and so does nothing.
func (f *file) SyncTo(int64) (bool, error) { return false, nil }

func (f *file) Preallocate(_, _ int64) error {
	return f.f.point("preallocate", f.name, 0)
}

func (f *file) Stat() (vfs.FileInfo, error) {
	f.f.mu.Lock()
	defer f.f.mu.Unlock()
	return info{path.Base(f.name), int64(len(f.n.data)), f.n.children != nil}, nil
}

func (f *file) Prefetch(int64, int64) error { return nil }
func (f *file) Fd() uintptr                 { return vfs.InvalidFd }
