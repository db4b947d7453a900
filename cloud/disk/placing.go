package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// Placings are files that are about to be put in their places. The index has them
// before that is done, so that after a kill it is known which of them were there,
// and what is missing was removed since: a file whose temporary file is gone was in
// its place. If the folder of both is gone as well, the mark tells, a file that is
// removed once all are in their places.
//
// A file system may forget names when the power is cut, so placings are only for
// who starts again on the same boot of the machine.
type placings struct {
	paths []string
	mark  string
	left  bool // some are not in their places, so that the mark and their temporary files stay
}

// A placing is one of them.
type placing struct {
	now    *row
	temp   string // its name
	parent uint64 // inode of the folder
}

// announce notes which jobs are about to be done.
func (r *round) announce(jobs []*job) (*placings, error) {
	p := &placings{}
	parents := map[string]uint64{}
	for _, j := range jobs {
		if j.err != nil {
			continue
		}
		parent, name := split(j.temp)
		inode, ok := parents[parent]
		if !ok {
			s, err := r.dir(parent)
			if err != nil {
				continue // nothing can be put there either
			}
			inode = s.inode
			parents[parent] = inode
		}
		j.parent = inode
		if r.k.c.boot != "" {
			r.x.set(spaceIn, j.path, appendPlacing(nil, placing{j.row(j.then), name, inode}))
			p.paths = append(p.paths, j.path)
		}
	}
	if len(p.paths) == 0 {
		return p, nil
	}
	// Without a mark less is known.
	mark := "/" + newTemp()
	if f, err := r.files.create(mark); err == nil {
		_ = f.Close()
		p.mark = mark
	}
	where, err := r.placingIn(p.mark)
	if err != nil {
		return nil, err
	}
	r.x.set(spaceMeta, "placing", []byte(where))
	r.k.unsure = true
	return p, r.x.commit(true)
}

// placingIn says on which boot and in which folder placings are, and their mark.
func (r *round) placingIn(mark string) (string, error) {
	root, err := r.files.root()
	return fmt.Sprintf("%s %d %s", r.k.c.boot, root.inode, mark), err
}

// dir returns what a folder is.
func (r *round) dir(path string) (stat, error) {
	if path == "" {
		return r.files.root()
	}
	return r.files.lstat(path)
}

// placed is told that what could be was put in its place.
func (p *placings) placed(r *round, jobs []*job) {
	for _, j := range jobs {
		p.left = p.left || j.err != nil
	}
	if !p.left {
		p.unmark(r)
	}
}

func (p *placings) unmark(r *round) {
	if p.mark != "" {
		_ = r.files.remove(p.mark) // else the next scan does
	}
}

// forget has the index know nothing of them any more once it is committed.
func (p *placings) forget(r *round) {
	for _, path := range p.paths {
		r.x.unset(spaceIn, path)
	}
}

// end removes what is left, but not sooner than nobody can take it for something
// that was put in its place.
func (p *placings) end(r *round, jobs []*job) {
	if len(p.paths) > 0 {
		r.k.unsure = false
	}
	if p.left {
		p.unmark(r)
	}
	for _, j := range jobs {
		if j.temp != "" && j.err != nil {
			_ = r.files.remove(j.temp) // else the next scan does
		}
	}
}

// recoverIn finds out what of the last placings was put in its place. The others
// are written again.
func (r *round) recoverIn() error {
	said, err := r.x.meta("placing")
	if err != nil {
		return err
	}
	mark := string(said[bytes.LastIndexByte(said, ' ')+1:])
	where, err := r.placingIn(mark)
	if err != nil {
		return err
	}
	here := r.k.c.boot != "" && where == string(said)
	all := false
	if here && mark != "" {
		_, err := r.files.lstat(mark)
		all = notThere(err)
	}
	dirs := map[string]bool{}
	for path, value := range r.x.scan(spaceIn, "", "") {
		p, err := readPlacing(value)
		if here && err == nil && r.wasPlaced(path, p, all) {
			r.x.put(path, p.now)
			parent, _ := split(path)
			dirs[parent] = true
		}
		r.x.unset(spaceIn, path)
	}
	return r.syncDirs(slices.Collect(maps.Keys(dirs)))
}

// wasPlaced tells whether a file was put in its place for sure; with all, those were
// that have no temporary file any more.
func (r *round) wasPlaced(path string, p placing, all bool) bool {
	if s, err := r.files.lstat(path); err == nil && p.now.inode != 0 && p.now.isOf(s) {
		p.now.stat = s
		return true
	}
	parent, _ := split(path)
	if _, err := r.files.lstat(parent + "/" + p.temp); !notThere(err) {
		return false
	}
	s, err := r.dir(parent)
	return all || err == nil && s.inode == p.parent && s.inode != 0
}

// Placings are: version, inode of the folder, length and text of the temporary
// file's name, row.
func appendPlacing(b []byte, p placing) []byte {
	b = append(b, indexFormat)
	b = binary.AppendUvarint(b, p.parent)
	b = binary.AppendUvarint(b, uint64(len(p.temp)))
	b = append(b, p.temp...)
	return appendRow(b, p.now)
}

func readPlacing(b []byte) (p placing, err error) {
	if len(b) == 0 || b[0] != indexFormat {
		return p, errIndex
	}
	var n, k int
	var size uint64
	b = b[1:]
	if p.parent, n = binary.Uvarint(b); n > 0 {
		size, k = binary.Uvarint(b[n:])
	}
	if n <= 0 || k <= 0 || size > uint64(len(b)-n-k) {
		return p, errIndex
	}
	b = b[n+k:]
	p.temp = string(b[:size])
	p.now, err = readRow(b[size:])
	return p, err
}
