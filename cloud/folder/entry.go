package folder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/compact"
)

// A Kind says what an entry is.
type Kind uint8

// The kinds of entries.
const (
	Unknown Kind = iota // of a later version, or it makes no sense
	File
	Dir
	Symlink
)

// String names the kind.
func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "folder"
	case Symlink:
		return "link"
	}
	return "unknown"
}

// An Entry is a file, a folder or a link. It belongs to who got it.
type Entry struct {
	Path string
	Kind Kind
	// Size and Content are of a file, Link is where a link leads.
	Size    int64
	Content content.Ref
	Link    string
	// Mode has permission bits and those of set-uid, set-gid and sticky. 0 is that
	// nothing was said: see FileMode.
	Mode fs.FileMode
	// ModTime is zero where nothing was said.
	ModTime time.Time
	// Attributes are what a door says of a file: see Txn. They are gone with the
	// content that they were said of.
	Attributes []byte
	// Growing says that the file was still being written: see Follow.
	Growing bool
	// Implicit is of a folder that is there only because something is in it.
	Implicit bool
	// Deleted is of an entry in a history, or in Others: there is nothing any more.
	Deleted bool
	// Err says why the entry makes no sense; Kind is Unknown then.
	Err error

	// Time is when it was written, by the log that Writer names. A conflict that was
	// resolved does not change the two.
	Time   time.Time
	Writer tree.Writer
	// Stamp names what was said of the path, for PutOptions.Over. It is the same
	// when nothing was said since.
	Stamp []byte
	// Others are what was written at the same time as this: see the package comment.
	Others []Entry

	live  [8]byte // names one writing of a file; zero for none
	value []byte  // as it is in the tree
	extra []byte  // fields of later versions, in their encoding
}

// FileMode returns the mode with its type, and what is usual where nothing was said.
func (e Entry) FileMode() fs.FileMode {
	mode := e.Mode
	switch {
	case e.Kind == Dir:
		if mode == 0 {
			mode = 0o755
		}
		return mode | fs.ModeDir
	case e.Kind == Symlink:
		return fs.ModeSymlink | 0o777
	case e.Kind == Unknown:
		return fs.ModeIrregular
	case mode == 0:
		return 0o644
	}
	return mode
}

// modeBits are the bits of a mode that are kept.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// Bounds of entries.
const (
	// MaxPath is the most bytes that a path or a link has.
	MaxPath = 4096

	maxValue = 64 << 10
)

// CheckPath returns an error that wraps ErrPath unless a path is one of an entry:
// "/" and one or more names, with single slashes between. A name is not empty, "."
// or "..", and has no zero byte; the whole is valid UTF-8.
func CheckPath(path string) error {
	why := ""
	switch {
	case len(path) > MaxPath:
		return fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrPath, len(path), MaxPath)
	case len(path) < 2 || path[0] != '/':
		why = "is no path below /"
	case !utf8.ValidString(path):
		why = "is no text"
	case strings.IndexByte(path, 0) >= 0:
		why = "has a zero byte"
	default:
		for rest := path[1:]; ; {
			name, more, cut := strings.Cut(rest, "/")
			if name == "" || name == "." || name == ".." {
				why = fmt.Sprintf("has the name %q in it", name)
			}
			if !cut {
				break
			}
			rest = more
		}
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("%w: %q %s", ErrPath, path, why)
}

// checkFolder is CheckPath of a folder, which may be that of all.
func checkFolder(path string) error {
	if path == "/" {
		return nil
	}
	return CheckPath(path)
}

// within reports whether a path is that of a folder or in it.
func within(path, dir string) bool {
	return dir == "/" || strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}

// parent returns the folder that a path is in.
func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

// The fields of an entry: each is a tag, a length and bytes, in the order of tags.
const (
	entryVersion = 1

	tagMode    = 1 // permission bits as in Unix, a uint
	tagTime    = 2 // 8 bytes, little endian: nanoseconds since 1970
	tagContent = 3 // a Ref
	tagLink    = 4 // text
	tagLive    = 5 // 8 bytes that name the writing, and 1 while it goes on
	tagOrigin  = 6 // who said this before a conflict was resolved: a log's key and 8 bytes of time

	tagAttributes = 7 // 8 bytes of the hash of the content they are about, and a door's bytes
)

// aboutBytes is how much of a content's hash is with attributes.
const aboutBytes = 8

// MaxAttributes is the most bytes of an entry's attributes.
const MaxAttributes = 56 << 10

// encode returns the bytes of an entry.
func (e *Entry) encode() []byte { return e.encodeFrom(nil) }

// encodeFrom is encode with an origin, if that is not nil.
func (e *Entry) encodeFrom(origin []byte) []byte {
	b := append(make([]byte, 0, 96+len(e.Attributes)), entryVersion, byte(e.Kind))
	field := func(tag uint64, value []byte) {
		b = compact.AppendBuffer(compact.AppendUint(b, tag), value)
	}
	if e.Mode != 0 {
		field(tagMode, compact.AppendUint(nil, unixMode(e.Mode)))
	}
	if !e.ModTime.IsZero() {
		field(tagTime, binary.LittleEndian.AppendUint64(nil, uint64(e.ModTime.UnixNano())))
	}
	if e.Kind == File {
		field(tagContent, e.Content.AppendTo(nil))
	}
	if e.Kind == Symlink {
		field(tagLink, []byte(e.Link))
	}
	if e.live != [8]byte{} {
		v := append([]byte(nil), e.live[:]...)
		if e.Growing {
			v = append(v, 1)
		}
		field(tagLive, v)
	}
	if origin != nil {
		field(tagOrigin, origin)
	}
	if len(e.Attributes) > 0 && e.Kind == File {
		b = compact.AppendUint(b, tagAttributes)
		b = compact.AppendUint(b, uint64(aboutBytes+len(e.Attributes)))
		b = append(append(b, e.Content.Hash[:aboutBytes]...), e.Attributes...)
	}
	return append(b, e.extra...)
}

// withOrigin returns the bytes of an entry that is said again for who said it
// first.
func withOrigin(value []byte, w tree.Writer, at time.Time) []byte {
	e, err := decode(value)
	if err != nil {
		return value
	}
	return e.encodeFrom(binary.LittleEndian.AppendUint64(append([]byte(nil), w[:]...), uint64(at.UnixNano())))
}

// withoutOrigin returns the bytes as they were said first.
func withoutOrigin(value []byte) []byte {
	e, err := decode(value)
	if err != nil {
		return value
	}
	return e.encode()
}

func unixMode(m fs.FileMode) uint64 {
	n := uint64(m & fs.ModePerm)
	for i, bit := range []fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if m&bit != 0 {
			n |= 1 << (9 + i)
		}
	}
	return n
}

func fileMode(n uint64) fs.FileMode {
	m := fs.FileMode(n & 0o777)
	for i, bit := range []fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if n&(1<<(9+i)) != 0 {
			m |= bit
		}
	}
	return m
}

// decode reads the bytes of an entry.
func decode(b []byte) (Entry, error) {
	fail := func(err error) (Entry, error) {
		return Entry{}, fmt.Errorf("%w: entry: %w", ErrInvalid, err)
	}
	if len(b) > maxValue {
		return fail(fmt.Errorf("it has %d bytes", len(b)))
	}
	d := compact.NewDecoder(b)
	if v := d.Uint8(); d.Err() == nil && v != entryVersion {
		return fail(fmt.Errorf("version %d", v))
	}
	e := Entry{Kind: Kind(d.Uint8())}
	if d.Err() == nil && (e.Kind == Unknown || e.Kind > Symlink) {
		return fail(fmt.Errorf("it is of the unknown kind %d", e.Kind))
	}
	var last uint64
	for d.Err() == nil && d.Len() > 0 {
		before := d.Len()
		tag := d.Uint()
		v := d.Frame(maxValue)
		if d.Err() != nil {
			break
		}
		if tag <= last {
			return fail(errors.New("its fields are out of order"))
		}
		last = tag
		switch tag {
		case tagMode:
			n := v.Uint()
			if n > 0o7777 {
				return fail(fmt.Errorf("mode %o", n))
			}
			e.Mode = fileMode(n)
		case tagTime:
			e.ModTime = time.Unix(0, int64(v.Uint64())).UTC()
		case tagContent:
			ref, err := content.ReadRef(&v)
			if err != nil {
				return fail(err)
			}
			e.Content, e.Size = ref, ref.Size
		case tagLink:
			e.Link = string(v.Rest())
		case tagLive:
			copy(e.live[:], v.Fixed(len(e.live)))
			if v.Len() > 0 {
				e.Growing = v.Uint8() == 1
			}
		case tagOrigin:
			e.Writer = v.Fixed32()
			e.Time = timeOf(v.Uint64())
		case tagAttributes:
			about := v.Fixed(aboutBytes)
			rest := v.Rest()
			if v.Err() == nil && !e.Content.IsZero() && bytes.Equal(about, e.Content.Hash[:aboutBytes]) {
				e.Attributes = rest
			}
		default:
			e.extra = append(e.extra, b[len(b)-before:len(b)-d.Len()]...)
			continue
		}
		if err := v.Finish(); err != nil {
			return fail(err)
		}
	}
	if err := d.Err(); err != nil {
		return fail(err)
	}
	switch {
	case e.Kind == File && e.Content.IsZero():
		return fail(errors.New("a file without content"))
	case e.Kind != File && (!e.Content.IsZero() || e.live != [8]byte{}):
		return fail(errors.New("it is no file and has content"))
	case e.Kind == Symlink && checkLink(e.Link) != nil:
		return fail(checkLink(e.Link))
	case e.Kind != Symlink && e.Link != "":
		return fail(errors.New("it is no link and leads somewhere"))
	}
	return e, nil
}

func timeOf(n uint64) time.Time { return time.Unix(0, int64(min(n, math.MaxInt64))).UTC() }

// checkLink returns an error unless a link can lead there.
func checkLink(target string) error {
	if target == "" || len(target) > MaxPath || !utf8.ValidString(target) || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("%w: a link to %.100q", ErrPath, target)
	}
	return nil
}

// read returns a tree's entry as one of a folder.
func read(raw tree.Entry) Entry {
	e := readOne(raw)
	for _, other := range raw.Others {
		e.Others = append(e.Others, readOne(other))
	}
	e.Stamp = stampOf(raw)
	return e
}

func readOne(raw tree.Entry) Entry {
	e := Entry{Deleted: true}
	if raw.Value != nil {
		var err error
		if e, err = decode(raw.Value); err != nil {
			e = Entry{Err: err}
		}
	}
	e.Path, e.value = string(raw.Key), raw.Value
	if e.Time.IsZero() || e.Writer == (tree.Writer{}) {
		e.Time, e.Writer = raw.Time, raw.Writer
	}
	return e
}
