package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
)

// A files is one run of a command on files of the cloud.
type files struct {
	*app
	node    *client.Client
	folders []client.Folder
}

// withFiles calls f with what commands on files need.
func (a *app) withFiles(ctx context.Context, do func(*files) error) error {
	return a.withNode(ctx, func(c *client.Client) error {
		f := &files{app: a, node: c}
		var list client.Folders
		if err := c.Do(ctx, "GET", "/folders", nil, &list); err != nil {
			return asked(err, "cannot list the folders")
		}
		f.folders = list.Folders
		return do(f)
	})
}

// A place is something in a folder of the cloud, now or at another moment.
type place struct {
	folder client.Folder
	path   string // "/" is the folder itself
	at     string // a tag, a time, or how long ago; "" is now
	dir    bool   // it was said to be a folder, by a slash at its end
}

// String is the place as commands take it.
func (p place) String() string {
	s := p.folder.Name
	if p.path != "/" {
		s += p.path
	}
	if p.at != "" || strings.LastIndexByte(s, '@') > strings.LastIndexByte(s, '/') {
		s += "@" + p.at
	}
	return s
}

// word is the place as it is typed in a shell.
func (p place) word() string { return shellWord(p.String()) }

// called is the place as it is spoken of.
func (p place) called() string { return escape([]byte(p.String())) }

// base is the last name of the place.
func (p place) base() string {
	if p.path == "/" {
		return p.folder.Name
	}
	return path.Base(p.path)
}

// within is a place in this one.
func (p place) within(name string) place {
	p.path = path.Join(p.path, name)
	p.dir = false
	return p
}

// of is where something of the folder is asked for.
func (p place) of(thing string, more ...string) string {
	q := url.Values{"path": {p.path}}
	if p.at != "" {
		q.Set("at", p.at)
	}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return p.route(thing) + "?" + q.Encode()
}

// route is where something is asked of the folder.
func (p place) route(thing string) string {
	return "/folders/" + url.PathEscape(p.folder.ID) + "/" + thing
}

// cutMoment cuts a word where its moment begins: behind the last @ of its last
// name.
func cutMoment(word string) (what, at string) {
	if i := strings.LastIndexByte(word, '@'); i > strings.LastIndexAny(word, `/`+string(filepath.Separator)) {
		return word[:i], word[i+1:]
	}
	return word, ""
}

// find says which place a word means.
func (f *files) find(word string) (p place, err error) {
	what, at := cutMoment(word)
	p, err = f.findPath(what)
	p.at = at
	if at != "" && err != nil {
		if _, e := f.findPath(word); e == nil {
			return p, wrong(shellWord(word+"@"), "what is behind the last @ is a moment; of a name with an @ another one comes last", "there is no folder %q", what)
		}
	}
	return p, err
}

// findNow is find for what can be changed: what was can't.
func (f *files) findNow(word, verb string) (place, error) {
	p, err := f.find(word)
	if err == nil && p.at != "" {
		return p, wrong(fmt.Sprintf("bevy %s %s, if the @ is part of the name", verb, shellWord(word+"@")),
			fmt.Sprintf("it takes no moment, and %q is one", p.at), "cannot %s %s", verb, word)
	}
	return p, err
}

// findPath says which place a path means: Folder/path, or where it is on the
// disk.
func (f *files) findPath(what string) (p place, err error) {
	slashed := filepath.ToSlash(what)
	p.dir = strings.HasSuffix(slashed, "/")
	first, rest, _ := strings.Cut(slashed, "/")
	onDisk := first == "" || first == "." || first == ".." || first == "~" || filepath.IsAbs(what)
	if !onDisk {
		for _, of := range f.folders {
			if of.Name != first && of.ID != first {
				continue
			}
			if slices.Contains(strings.Split(rest, "/"), "..") {
				return p, wrong("the path without ..", "a path in a folder of the cloud goes down only", "wrong path %q", what)
			}
			p.folder, p.path = of, path.Clean("/"+rest)
			return p, nil
		}
	}
	name := what
	if first == "~" {
		home, err := os.UserHomeDir()
		if err != nil {
			return p, fail(err, "cannot find %s", what)
		}
		name = filepath.Join(home, rest)
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return p, fail(err, "cannot find %s", what)
	}
	for _, of := range f.folders {
		if in, ok := inFolder(abs, of.Path); ok {
			p.folder, p.path = of, path.Clean("/"+in)
			return p, nil
		}
	}
	if onDisk {
		return p, &failure{code: codeNotFound, what: fmt.Sprintf("%s is in no folder of the cloud", abs), cause: "no folder that is kept has it", try: "bevy add <folder>, or bevy folder ls"}
	}
	var names []string
	for _, of := range f.folders {
		names = append(names, of.Name)
	}
	no := &failure{code: codeNotFound, what: fmt.Sprintf("there is no folder %q", first), cause: "the cloud has none of that name", try: "bevy folder ls, or bevy removed ls"}
	if near := nearest(first, names); near != "" {
		no.try = shellWord(strings.Replace(slashed, first, near, 1))
	}
	return p, no
}

// inFolder reports whether a path on the disk is in a folder, and where in it.
// Links on the way there are followed, one at its end is not.
func inFolder(abs, dir string) (in string, ok bool) {
	if dir == "" {
		return "", false
	}
	if in, ok := below(abs, dir); ok {
		return in, true
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", false
	}
	if in, ok := below(abs, real); ok {
		return in, true
	}
	// What is not there yet is looked for by the folder that it would be in.
	for up, rest := filepath.Dir(abs), filepath.Base(abs); ; up, rest = filepath.Dir(up), filepath.Join(filepath.Base(up), rest) {
		if found, err := filepath.EvalSymlinks(up); err == nil {
			return below(filepath.Join(found, rest), real)
		}
		if up == filepath.Dir(up) {
			return "", false
		}
	}
}

func below(name, dir string) (string, bool) {
	in, err := filepath.Rel(dir, name)
	if err != nil || in == ".." || strings.HasPrefix(in, ".."+string(filepath.Separator)) {
		return "", false
	}
	return filepath.ToSlash(in), true
}

// stat says what is at a place.
func (f *files) stat(ctx context.Context, p place) (e client.Entry, err error) {
	if err := f.node.Do(ctx, "GET", p.of("entry"), nil, &e); err != nil {
		return e, f.cannot(err, p, "cannot read %s", p.called())
	}
	return e, nil
}

// exists is stat for a place where nothing need be.
func (f *files) exists(ctx context.Context, p place) (e client.Entry, ok bool, err error) {
	e, err = f.stat(ctx, p)
	if err != nil && codeOf(err) == codeNotFound {
		return e, false, nil
	}
	return e, err == nil, err
}

// cannot says what could not be done at a place because of err.
func (f *files) cannot(err error, p place, format string, args ...any) error {
	err = asked(err, format, args...)
	told, ok := err.(*failure)
	if !ok || told.code != codeNotFound || strings.HasPrefix(told.what, "there is no moment") {
		return momentHint(err, p)
	}
	up := p
	up.path = path.Dir(p.path)
	return &failure{code: codeNotFound, what: "there is no " + p.called(), cause: "nothing is at that path" + p.when(), try: "bevy ls " + up.word(), err: err}
}

// momentHint adds how to write a name with an @ to what is said of a moment that
// is none.
func momentHint(err error, p place) error {
	if told, ok := err.(*failure); ok && p.at != "" && strings.HasPrefix(told.what, "there is no moment") {
		whole := p
		whole.at = ""
		told.try += fmt.Sprintf("; or %s, if the @ is part of a name", shellWord(whole.String()+"@"+p.at+"@"))
	}
	return err
}

// when says at which moment, if it is not now.
func (p place) when() string {
	if p.at == "" {
		return ""
	}
	if t, err := time.Parse(time.RFC3339Nano, p.at); err == nil {
		return " at " + t.Local().Format("2006-01-02 15:04:05")
	}
	return fmt.Sprintf(" at %q", p.at)
}

// pin makes the moment of a place one that is the same in a minute.
func (f *files) pin(ctx context.Context, p *place) error {
	if p.at == "" {
		return nil
	}
	var m client.Moment
	if err := f.node.Do(ctx, "GET", p.of("moment"), nil, &m); err != nil {
		return momentHint(asked(err, "cannot find the moment %q", p.at), *p)
	}
	if p.at = m.Tag; m.Tag == "" {
		p.at = m.Time.UTC().Format(time.RFC3339Nano)
	}
	return nil
}

// before is a place at the moment before it was changed last.
func (f *files) before(ctx context.Context, p place) (place, bool) {
	p.at = ""
	var last client.Entries
	if err := f.node.Do(ctx, "GET", p.of("history", "limit", "1"), nil, &last); err != nil || len(last.Entries) == 0 {
		return p, false
	}
	p.at = last.Entries[0].Time.UTC().Add(-1).Format(time.RFC3339Nano)
	return p, true
}

// undo says how to bring back what a place was before it was changed.
func (f *files) undo(ctx context.Context, p place) {
	if old, ok := f.before(ctx, p); ok {
		f.say("undo:  bevy restore %s", old.word())
	}
}
