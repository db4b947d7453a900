package cloudlab

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cloudbevy/bevy/client"
)

// A model knows what people have done with the folder on all machines. Each
// content that is written is written once, so that it can be told what became of
// it: it is still wanted, or somebody who saw it has replaced or removed it.
type model struct {
	l      *lab
	rng    *rand.Rand
	things map[string]*thing // by hash; links by where they lead
	wrote  int
}

// A thing is a content that somebody has written.
type thing struct {
	name string
	size int
	put  bool            // it was put into the folder, or some machine has said that it is in the cloud
	gone map[string]bool // machines on which it was replaced or removed
	kept map[string]bool // machines on which it was moved or changed in other ways

	copied bool // somebody has given a copy that a conflict made another name
}

func newModel(l *lab, seed uint64) *model {
	return &model{l: l, rng: rand.New(rand.NewPCG(seed, 0)), things: map[string]*thing{}}
}

// content makes a content that there was not yet.
func (m *model) content(by *machine) []byte {
	m.wrote++
	size := m.rng.IntN(200)
	switch m.rng.IntN(12) {
	case 0:
		size = m.rng.IntN(2 << 20)
	case 1, 2:
		size = m.rng.IntN(100 << 10)
	}
	data := fmt.Appendf(nil, "%d of %s\n", m.wrote, by.name)
	name := strings.TrimSpace(string(data))
	for range size / 8 {
		data = fmt.Appendf(data, "%08x", m.rng.Uint32())
	}
	m.things[hashOf(data)] = newThing(name, len(data))
	return data
}

// isCopy tells whether a name is one that a conflict gave to what stood beside its
// winner.
func isCopy(path string) bool { return strings.Contains(path, "(conflict from ") }

func newThing(name string, size int) *thing {
	return &thing{name: name, size: size, gone: map[string]bool{}, kept: map[string]bool{}}
}

func hashOf(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// see looks at all that is at a path of the disk, and in it. Contents that nobody
// has written are found at the end.
func (m *model) see(path string, f func(*thing)) error {
	return filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		hash, err := what(p, d)
		if t := m.things[hash]; t != nil {
			f(t)
		}
		return err
	})
}

// what names the content of a file or link.
func what(p string, d fs.DirEntry) (string, error) {
	if d.Type() == fs.ModeSymlink {
		to, err := os.Readlink(p)
		return "-> " + to, err
	}
	b, err := os.ReadFile(p)
	return hashOf(b), err
}

// removed notes that what is at a path, which is not in the folder any more, was
// replaced or removed on a machine.
func (m *model) removed(on *machine, path string) error {
	err := m.see(path, func(t *thing) { t.gone[on.name] = true })
	return errors.Join(err, os.RemoveAll(path))
}

// moved notes that what is at a path was moved there on a machine.
func (m *model) moved(on *machine, path string) error {
	return m.see(path, func(t *thing) { t.kept[on.name] = true })
}

// paths are those in the folder of a machine.
func paths(on *machine, dirs bool) (list []string) {
	_ = filepath.WalkDir(on.folder, func(p string, d fs.DirEntry, err error) error {
		if err == nil && p != on.folder && d.IsDir() == dirs && !ours(p) {
			list = append(list, p)
		}
		return nil // it is worked on meanwhile
	})
	return list
}

// ours tells whether a file is one that bevy is writing.
func ours(p string) bool {
	return strings.HasPrefix(filepath.Base(p), ".bevy-") && strings.HasSuffix(p, ".tmp")
}

func (m *model) pick(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[m.rng.IntN(len(list))]
}

// free is a path in the folder where likely nothing is.
func (m *model) free(on *machine, ext string) string {
	dir := on.folder
	if m.rng.IntN(3) > 0 {
		if d := m.pick(paths(on, true)); d != "" {
			dir = d
		}
	}
	if m.rng.IntN(4) > 0 {
		m.wrote++
		return filepath.Join(dir, fmt.Sprintf("%s-%d%s", on.name, m.wrote, ext))
	}
	return filepath.Join(dir, fmt.Sprintf("all-%d%s", m.rng.IntN(4), ext)) // others take that, too
}

// act does on the disk of a machine what a person would. What is in the way is
// not overwritten unless that is what is done, and it is known what: each step is
// one that the file system does at once.
func (m *model) act(on *machine) error {
	outside := filepath.Join(filepath.Dir(on.folder), "outside")
	file := m.pick(paths(on, false))
	dir := m.pick(paths(on, true))
	var err error
	switch n := m.rng.IntN(20); {
	case n < 7: // write
		data := m.content(on)
		if err = os.WriteFile(outside, data, 0o644); err == nil {
			if err = rename(outside, m.free(on, ".txt"), unix.RENAME_NOREPLACE); err == nil {
				m.things[hashOf(data)].put = true
			}
		}
	case n < 11 && file != "": // edit
		data := m.content(on)
		if err = os.WriteFile(outside, data, 0o644); err == nil {
			if err = rename(outside, file, unix.RENAME_EXCHANGE); err == nil {
				m.things[hashOf(data)].put = true
				err = m.removed(on, outside)
			}
		}
	case n < 13 && file != "": // delete
		if err = rename(file, outside, 0); err == nil {
			err = m.removed(on, outside)
		}
	case n < 15 && file != "": // move
		to := m.free(on, filepath.Ext(file))
		if err = rename(file, to, unix.RENAME_NOREPLACE); err == nil {
			err = m.moved(on, to)
			if isCopy(file) {
				err = errors.Join(err, m.see(to, func(t *thing) { t.copied = true }))
			}
		}
	case n == 15:
		err = os.Mkdir(m.free(on, ""), 0o755)
	case n == 16:
		m.wrote++
		to := fmt.Sprintf("nowhere/%d", m.wrote)
		link := newThing("link to "+to, 0)
		m.things["-> "+to] = link
		err = os.Symlink(to, m.free(on, ".link"))
		link.put = err == nil
	case n == 17 && file != "":
		if err = m.moved(on, file); err == nil { // as it is the same, with other permissions
			if st, serr := os.Lstat(file); serr == nil && st.Mode().IsRegular() {
				err = os.Chmod(file, []fs.FileMode{0o600, 0o640, 0o644, 0o755}[m.rng.IntN(4)])
			}
		}
	case n == 18 && dir != "":
		to := m.free(on, "")
		if err = rename(dir, to, unix.RENAME_NOREPLACE); err == nil {
			err = m.moved(on, to)
		}
	case n == 19 && dir != "" && m.rng.IntN(3) == 0:
		if err = rename(dir, outside, unix.RENAME_NOREPLACE); err == nil {
			err = m.removed(on, outside)
		}
	}
	_ = os.RemoveAll(outside)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EISDIR):
		return nil // bevy was faster, or it is a folder into itself
	}
	return err
}

func rename(from, to string, flags uint) error {
	return unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, flags)
}

// put writes a file through the API.
func (m *model) put(on *machine) {
	data := m.content(on)
	m.wrote++
	path := fmt.Sprintf("/put-%d.txt", m.wrote)
	if err := on.put(path, data); err == nil {
		m.things[hashOf(data)].put = true
	}
}

// hear notes what a machine says is in the cloud.
func (m *model) hear(on *machine) error {
	entries, err := on.list()
	for _, e := range entries {
		if t := m.things[nameOf(e)]; t != nil {
			t.put = true
		}
	}
	return err
}

func nameOf(e client.Entry) string {
	if e.Kind == "link" {
		return "-> " + e.Link
	}
	return e.Hash
}

// check compares what there is in the end with what there must be; a machine tells
// the past of what is wrong.
func (m *model) check(on *machine, now map[string]string) (wrong []string) {
	there := map[string]string{}
	for path, line := range now {
		_, name, _ := strings.Cut(line, " ")
		if name == "" {
			continue // a folder
		}
		there[name] = path
		if m.things[name] == nil {
			wrong = append(wrong, fmt.Sprintf("%s: nobody has written that: %s", path, line))
		}
	}
	var put, wanted, failed, copies int
	for name, t := range m.things {
		path, is := there[name]
		if t.put {
			put++
		}
		switch {
		case len(t.gone) == 0 && !is && t.put:
			wrong = append(wrong, fmt.Sprintf("%q (%d bytes) is lost: it was put into the folder, and nobody removed it", t.name, t.size))
		case len(t.gone) == 0 && !is:
			failed++ // something was in its way
		case len(t.gone) > 0 && is && (isCopy(path) || t.copied):
			copies++ // made by a machine that had not heard of it
		case len(t.gone) > 0 && is && on.saidAgain(path, name):
			copies++ // it won a conflict that a machine resolved which had not heard of it
		case len(t.gone) > 0 && is && !others(t):
			wrong = append(wrong, fmt.Sprintf("%q has come back at %s: it was removed on %v%s", t.name, path, t.gone, on.past(path)))
		case is:
			wanted++
		}
	}
	m.l.t.Logf("%d contents written, %d put into the folder, %d there, %d not put, %d removed and still in copies", len(m.things), put, wanted, failed, copies)
	slices.Sort(wrong)
	return wrong
}

// saidAgain tells whether a content was stated at a path again for who stated it
// first, as whoever resolves a conflict does with what wins.
func (m *machine) saidAgain(path, name string) bool {
	var told client.Entries
	if err := m.call("GET", "/history?path="+escaped(path), nil, &told); err != nil {
		return false
	}
	said := map[string]int{}
	for _, e := range told.Entries {
		if nameOf(e) == name {
			said[fmt.Sprint(e.Machine, e.Time)]++
		}
	}
	for _, n := range said {
		if n > 1 {
			return true
		}
	}
	return false
}

// past is what the node says of what was at a path.
func (m *machine) past(path string) string {
	var told client.Entries
	if err := m.call("GET", "/history?path="+escaped(path), nil, &told); err != nil {
		return "; " + err.Error()
	}
	return "; the past of " + path + ": " + text(told.Entries)
}

// others tells whether a thing was moved or changed on another machine than those
// it was removed on: such a change may have been without knowing, and then stays.
func others(t *thing) bool {
	for name := range t.kept {
		if !t.gone[name] {
			return true
		}
	}
	return len(t.gone) > 1 && len(t.kept) > 0
}

// tree is what is in the folder on the disk, as lines by paths.
func (m *machine) tree() (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(m.folder, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == m.folder {
			return err
		}
		rel := "/" + filepath.ToSlash(strings.TrimPrefix(p, m.folder+"/"))
		if d.IsDir() {
			all[rel] = "folder"
			return nil
		}
		name, err := what(p, d)
		if err != nil {
			return err
		}
		mode := ""
		if st, err := d.Info(); err == nil && st.Mode().IsRegular() {
			mode = fmt.Sprintf("%04o", st.Mode().Perm())
		}
		all[rel] = mode + " " + name
		return nil
	})
	return all, err
}

// list is what the node says is in the folder.
func (m *machine) list() (entries []client.Entry, err error) {
	for after := ""; ; {
		var part client.Entries
		path := "/entries?recursive=true&limit=10000&path=%2F"
		if after != "" {
			path += "&after=" + escaped(after)
		}
		if err := m.call("GET", path, nil, &part); err != nil {
			return entries, err
		}
		entries = append(entries, part.Entries...)
		if !part.More || len(part.Entries) == 0 {
			return entries, nil
		}
		after = entries[len(entries)-1].Path
	}
}

// differ says where two trees are not the same.
func differ(a, b map[string]string) string {
	var out bytes.Buffer
	n := 0
	paths := slices.Collect(maps.Keys(a))
	for p := range b {
		if _, ok := a[p]; !ok {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if a[p] == b[p] {
			continue
		}
		if n++; n <= 5 {
			fmt.Fprintf(&out, "%s: %q and %q; ", p, a[p], b[p])
		}
	}
	if n > 5 {
		fmt.Fprintf(&out, "and %d more", n-5)
	}
	return out.String()
}
