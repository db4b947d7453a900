package disk

import (
	"io/fs"
	"strings"
)

// A kind is what stands at a path.
type kind uint8

const (
	kindFile kind = iota + 1
	kindDir
	kindLink
)

// A stat is what the disk says of a path, without its content.
type stat struct {
	kind  kind
	size  int64
	mtime int64 // nanoseconds since 1970; of folders 0, as it changes with what is in them
	mode  fs.FileMode
	inode uint64 // 0 where there is none
	ctime int64  // when it was last changed in any way, 0 where that is not known
	link  string // what a link says
}

// same tells whether nothing has happened to what had the stat s.
func (s stat) same(now stat) bool {
	if s.kind == kindDir && now.kind == kindDir {
		return s.mode == now.mode
	}
	if s.kind == kindLink && now.kind == kindLink {
		return s.link == now.link // some systems renew the other things as links are read
	}
	return s == now
}

// isOf tells whether what had the stat s is at another place now.
func (s stat) isOf(now stat) bool {
	return s.kind == now.kind && s.inode == now.inode && s.size == now.size && s.mtime == now.mtime && s.link == now.link
}

// A row is what the index knows of a path: the state in which the disk and the
// folder were last the same, from which both go on.
type row struct {
	stat
	hash  [32]byte // of a file's content
	stamp string   // which statements of the folder it is; "" if it is on the disk only
	racy  bool     // it was changed so lately that another change may have the same time
	young uint64   // the period in which it was recorded, if the disk may not have had it then, else 0
}

// knows tells whether the folder has nothing at the path that the index has not.
// Removals beside it count as nothing: what was removed elsewhere is not news to
// who has removed it here.
func (r *row) knows(e *entry) bool {
	if e == nil {
		return r.stamp == ""
	}
	return e.stamp == r.stamp || e.bare != "" && strings.HasPrefix(r.stamp, e.bare)
}

// at returns when the content was changed last, as far as is known.
func (r *row) at() int64 {
	if r == nil {
		return 0
	}
	return r.mtime
}

// An action is what makes a path the same on the disk and in the folder.
type action uint8

const (
	nothing action = iota
	put            // disk to folder, over what the index has seen
	compare        // both have news: keep one if they are equal, else put, which makes a conflict
	write          // folder to disk
	drop           // remove from the folder
	erase          // remove from the disk
	forget         // remove from the index
)

// plan decides what is to be done with a path. Any of the three may be nil: it
// is not there. What the index has is the common ancestor of the other two:
//
//	disk      folder     action    why
//	-         -          forget    both have removed it, or nobody had it (nothing)
//	new       -          put       it was made here
//	-         new        write     it was made elsewhere
//	new       new        compare   both have made it; with equal contents they agree
//	same      same       nothing
//	same      changed    write     it was changed elsewhere
//	same      removed    erase     it was removed elsewhere
//	changed   same       put       it was changed here
//	changed   changed    compare   both have changed it; a conflict unless they agree
//	changed   removed    put       a change outlives a removal
//	removed   same       drop      it was removed here (the guard may ask first)
//	removed   changed    write     a change outlives a removal
//	removed   removed    forget
//
// New is what the index does not have. The disk has changed a path when its stat
// is not that of the index, the folder when other statements stand there: see knows.
func plan(disk *stat, index *row, folder *entry) action {
	if index == nil {
		switch {
		case disk == nil && folder == nil:
			return nothing
		case disk == nil:
			return write
		case folder == nil:
			return put
		}
		return compare
	}
	sameFolder := index.knows(folder)
	switch {
	case disk == nil && folder == nil:
		return forget
	case disk == nil && sameFolder:
		return drop
	case disk == nil:
		return write
	}
	sameDisk := !index.racy && index.same(*disk)
	switch {
	case sameDisk && sameFolder:
		return nothing
	case sameDisk && folder == nil:
		return erase
	case sameDisk:
		return write
	case sameFolder || folder == nil:
		return put
	}
	return compare
}
