package home

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/disk"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/identity"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/node/bridge"
)

// sharesFile, in the folder of the cloud, says how often links were used here.
const sharesFile = "shares.json"

// shareDoor lets those in who have a link to a part of a folder.
func (h *Home) shareDoor() {
	l := &links{home: h, tries: node.NewTries(h.node.Clock()), known: map[[32]byte]bool{}}
	l.uses = openUses(cloud.FileVault(filepath.Join(h.dir, sharesFile)), h.node.Clock())
	h.node.OnClose(l.uses.close)
	l.files = bridge.New(bridge.Options{Resolver: l, Links: true, Clock: h.node.Clock(), Log: h.node.Log, CacheBytes: bridgeCache})
	h.node.Door(node.Door{Name: "shares", Match: h.node.UnderPath("/s/"), Handler: l})
	h.node.Route(
		onFolder(h, "POST", "/folders/{folder}/shares", "Share a part of a folder by a link", h.addShare),
		node.Call("GET", "/shares", "List the links that parts of folders are shared by", func(ctx context.Context, _ node.None) (client.Shares, error) { return h.getShares(ctx, l.uses) }),
		node.Call("DELETE", "/shares/{share}", "Take a link back, for good", h.stopShare),
	)
}

// addShare shares a part of a folder.
func (h *Home) addShare(ctx context.Context, s *session, k *kept, in client.AddShare) (out client.Share, err error) {
	n := cloud.NewShare{Space: k.space.Info().ID, Actions: identity.Read, Until: in.Until, Name: in.Name}
	if in.Write {
		n.Actions |= identity.Write
	}
	if in.HandOn {
		n.Actions |= identity.Share
	}
	if p := rooted(in.Path); p != "/" {
		e, err := k.folder.Stat(ctx, p)
		if err != nil {
			return out, err
		}
		if e.Kind != folder.File && e.Kind != folder.Dir {
			return out, &client.Error{Code: client.CodeUsage, Message: "cannot share " + p, Cause: "it is a symbolic link, or makes no sense", Try: "what it leads to"}
		}
		n.Prefix, n.File = p, e.Kind == folder.File
	}
	if !in.Until.IsZero() && !in.Until.After(h.node.Clock().Now()) {
		return out, &client.Error{Code: client.CodeUsage, Message: "cannot share until then", Cause: "that time has passed", Try: "a later one"}
	}
	link, share, err := s.cloud.MakeShare(ctx, n)
	if err != nil {
		return out, toldByShares(err, in.Name)
	}
	out = s.describeShare(share)
	at, others := h.node.Reach()
	out.URL, out.Private = at+"/s/"+link.Token()+"/", !others
	if share.File {
		out.URL += url.PathEscape(path.Base(n.Prefix))
	}
	h.node.Say("%s%s is shared by a link", out.Folder, strings.TrimSuffix(out.Path, "/"))
	return out, nil
}

// toldByShares gives errors about shares their codes.
func toldByShares(err error, word string) error {
	switch {
	case errors.Is(err, cloud.ErrNoShare):
		return noShare(word).Because(err)
	case errors.Is(err, cloud.ErrName):
		return (&client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("a share can't be called %q", word), Cause: "it has 1 to 255 bytes that can be printed, and no slash", Try: "another name"}).Because(err)
	case errors.Is(err, identity.ErrDenied):
		return (&client.Error{Code: client.CodeDenied, Message: "cannot share it", Cause: "this machine may give no rights to others", Try: "the same on another machine"}).Because(err)
	}
	return err
}

func noShare(word string) *client.Error {
	return &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is no share %.60q", word), Cause: "none has that id, name or link, or it was stopped already", Try: "bevy share ls"}
}

// describeShare says what a share is.
func (s *session) describeShare(share cloud.Share) client.Share {
	r := share.Rights()
	out := client.Share{
		ID: share.ID().String(), Name: share.Name, Folder: r.Resource, Path: r.Prefix, Write: r.Actions.Has(identity.Write), HandOn: r.Actions.Has(identity.Share),
		Until: r.Until, Over: share.Over(s.home.node.Clock().Now()), Created: share.Created, Machine: s.cloud.DeviceName(share.Grant[0].Issuer),
	}
	if out.Path == "" {
		out.Path = "/"
	}
	if info, err := s.findCalled(r.Resource); err == nil {
		out.Folder = called(info)
	}
	return out
}

func (h *Home) getShares(ctx context.Context, uses *uses) (out client.Shares, err error) {
	err = h.use(ctx, func(s *session) error {
		for _, share := range s.cloud.Shares() {
			one := s.describeShare(share)
			u := uses.of(one.ID)
			one.Uses, one.Used = u.Count, u.Last
			out.Shares = append(out.Shares, one)
		}
		return nil
	})
	return out, err
}

// minID is how many first letters of an id name a share.
const minID = 4

func (h *Home) stopShare(ctx context.Context, in client.ShareID) (node.None, error) {
	return node.None{}, h.use(ctx, func(s *session) error {
		id, err := s.findShare(in.Share)
		if err != nil {
			return err
		}
		return toldByShares(s.cloud.StopShare(ctx, id), in.Share)
	})
}

// findShare finds what a word can mean: a token, also of a link that was handed on.
func (s *session) findShare(word string) (id identity.CapabilityID, err error) {
	if link, err := identity.ParseLink(word); err == nil {
		share, _, err := s.cloud.OpenShare(link)
		if err != nil {
			return id, noShare("that link").Because(err)
		}
		return share.ID(), nil
	}
	found := 0
	for _, share := range s.cloud.Shares() {
		full := share.ID().String()
		if full == word || share.Name == word || len(word) >= minID && strings.HasPrefix(full, word) {
			found++
			id = share.ID()
		}
	}
	if found > 1 {
		return id, &client.Error{Code: client.CodeConflict, Message: fmt.Sprintf("%q is that of %d shares", word, found), Cause: "they have one name, or their ids begin alike", Try: "the id, as bevy share ls says it"}
	}
	if found == 0 {
		return id, noShare(word)
	}
	return id, nil
}

// links are the shares that are open to who has their links.
type links struct {
	home  *Home
	files *bridge.Handler
	uses  *uses
	tries *node.Tries

	mu    sync.Mutex
	known map[[32]byte]bool // hashes of tokens that were good: who has one need not wait for who guesses
}

// maxKnown is how many are remembered.
const maxKnown = 1 << 12

// ServeHTTP implements http.Handler. Who asks for the grant of a link, to hand on less
// than it, gets that instead of files.
func (l *links) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || r.Header.Get("Accept") != client.GrantType {
		l.files.ServeHTTP(w, r)
		return
	}
	token, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/s/"), "/")
	source, done, err := l.open(r, token)
	switch {
	case errors.Is(err, bridge.ErrTries):
		http.Error(w, "there were too many tries", http.StatusTooManyRequests)
	case errors.Is(err, bridge.ErrGone):
		http.Error(w, "the link is over", http.StatusGone)
	case err != nil:
		http.Error(w, "there is no such link", http.StatusNotFound)
	}
	if err != nil {
		return
	}
	defer done()
	if !source.rights.Actions.Has(identity.Share) {
		http.Error(w, "the link may not be handed on", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", client.GrantType)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(source.share.Grant.Encode()) // or nobody is there any more
}

// Resolve implements bridge.Resolver: the name is a token.
func (l *links) Resolve(_ context.Context, r *http.Request, token, _ string) (bridge.Source, func(), error) {
	source, done, err := l.open(r, token)
	if err != nil {
		return nil, nil, err
	}
	if r.Method != http.MethodHead && r.Method != http.MethodOptions {
		l.uses.note(source.share.Grant[0].ID().String())
	}
	return source, done, nil
}

// open opens what a link is for, unless whoever asks has guessed too often.
func (l *links) open(r *http.Request, token string) (*shared, func(), error) {
	hash := sha256.Sum256([]byte(token))
	l.mu.Lock()
	known := l.known[hash]
	l.mu.Unlock()
	from := node.From(r)
	if !known && !l.tries.Take(from) {
		return nil, nil, bridge.ErrTries
	}
	s, done, err := l.home.acquire(r.Context())
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", bridge.ErrUnreachable, err)
	}
	source, err := s.openLink(r.Context(), token)
	if err != nil {
		done()
		l.mu.Lock()
		delete(l.known, hash) // it may be over
		l.mu.Unlock()
		return nil, nil, err
	}
	if !known {
		l.tries.Return(from)
		l.mu.Lock()
		if len(l.known) >= maxKnown {
			clear(l.known)
		}
		l.known[hash] = true
		l.mu.Unlock()
	}
	return source, done, nil
}

// openLink opens what a link is for.
func (s *session) openLink(ctx context.Context, token string) (*shared, error) {
	link, err := identity.ParseLink(token)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	x := &shared{session: s, link: link}
	if x.share, x.rights, err = s.cloud.OpenShare(link); err != nil {
		return nil, toldToGuests(err)
	}
	info, err := s.cloud.Find(cloud.Folder, "", x.rights.Resource)
	if err != nil || info.ID != x.rights.Resource || x.rights.Kind != identity.Folder {
		return nil, fmt.Errorf("the folder: %w", bridge.ErrGone)
	}
	k, err := s.folderOf(info.ID)
	if err != nil {
		return nil, err
	}
	x.kept, x.base = k, x.rights.Prefix
	x.file = x.share.File
	if kept := x.share.Grant[0].Rights().Prefix; x.base != kept { // it was handed on for less
		e, err := k.folder.Get(ctx, x.base)
		x.file = err == nil && e.Kind == folder.File
	}
	if x.file {
		x.base = strings.TrimSuffix(path.Dir(x.base), "/")
	}
	x.source = bridge.NewFolder(k.folder, bridge.FolderOptions{ID: k.space.Info().ID})
	return x, nil
}

// toldToGuests says no more than who asks can know.
func toldToGuests(err error) error {
	if errors.Is(err, identity.ErrExpired) || errors.Is(err, identity.ErrRevoked) {
		return fmt.Errorf("%w: %w", bridge.ErrGone, err)
	}
	return fs.ErrNotExist
}

// A shared is what a link is for, as a tree of files. Whatever path is asked for,
// the rights have to allow.
type shared struct {
	session *session
	kept    *kept
	link    identity.Link
	share   cloud.Share
	rights  identity.Rights
	source  bridge.Source // the whole folder
	base    string        // what "/" is in it
	file    bool          // it is of a file in base
}

var _ bridge.Writer = (*shared)(nil)

// State implements bridge.Source.
func (x *shared) State() bridge.State {
	st := x.source.State()
	if st.ID != "" {
		st.ID = "share " + x.share.ID().String()
	}
	st.Name, st.Writable = path.Base(x.rights.Prefix), x.rights.Actions.Has(identity.Write)
	if x.rights.Prefix == "" {
		st.Name = x.kept.space.Info().Name
	}
	return st
}

// full returns a path in the folder, if the rights are for it.
func (x *shared) full(p string, actions identity.Actions) (string, error) {
	name := strings.TrimSuffix(x.base+p, "/")
	if name == "" {
		name = "/"
	}
	if !x.rights.Allows(identity.Folder, x.kept.space.Info().ID, name, actions) {
		return "", fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return x.base + p, nil
}

// Lookup implements bridge.Source.
func (x *shared) Lookup(ctx context.Context, p string) (bridge.Info, error) {
	full, err := x.full(p, identity.Read)
	if err != nil {
		return bridge.Info{}, err
	}
	i, err := x.source.Lookup(ctx, full)
	return x.inside(i), err
}

// inside has links lead to what is shared, or nowhere.
func (x *shared) inside(i bridge.Info) bridge.Info {
	if i.Kind != bridge.Link || !strings.HasPrefix(i.Target, "/") {
		return i
	}
	target, ok := strings.CutPrefix(path.Clean(i.Target), x.base)
	if !ok || target != "" && target[0] != '/' {
		i.Target = ""
		return i
	}
	i.Target = "/" + strings.TrimPrefix(target, "/")
	return i
}

// List implements bridge.Source.
func (x *shared) List(ctx context.Context, dir, after string) iter.Seq2[bridge.Info, error] {
	return func(yield func(bridge.Info, error) bool) {
		if x.file && dir == "/" {
			i, err := x.Lookup(ctx, "/"+path.Base(x.rights.Prefix))
			if after == "" && !errors.Is(err, fs.ErrNotExist) {
				yield(i, err)
			}
			return
		}
		full, err := x.full(dir, identity.Read)
		if err != nil {
			yield(bridge.Info{}, err)
			return
		}
		for i, err := range x.source.List(ctx, path.Clean("/"+full), after) {
			if !yield(x.inside(i), err) {
				return
			}
		}
	}
}

// Open implements bridge.Source.
func (x *shared) Open(ctx context.Context, i bridge.Info, off, n int64) (io.ReadCloser, error) {
	return x.source.Open(ctx, i, off, n)
}

// writable returns a path in the folder, if the rights are for changing it. What the
// owner's own files are left alone by is no guest's to say.
func (x *shared) writable(p string) (string, error) {
	full, err := x.full(p, identity.Write)
	if err == nil && full == "/"+disk.IgnoreFile {
		err = fs.ErrPermission
	}
	return full, err
}

// Put implements bridge.Writer.
func (x *shared) Put(ctx context.Context, p string, body io.Reader, may func(*bridge.Info) bool) (now bridge.Info, made bool, err error) {
	full, err := x.writable(p)
	if err != nil {
		return now, false, err
	}
	if err := x.kept.space.Write(ctx); err != nil {
		return now, false, err
	}
	f := x.kept.folder
	hold := f.Contents().Hold()
	defer hold.Release()
	w := hold.NewWriter(ctx, content.WriteOptions{})
	defer w.Abort()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{body}, make([]byte, 128<<10)); err != nil {
		return now, false, toldToWriters(err)
	}
	if err := w.Close(); err != nil {
		return now, false, toldToWriters(err)
	}
	e := folder.Entry{Path: full, Kind: folder.File, Content: w.Ref(), ModTime: x.session.home.node.Clock().Now()}
	err = x.change(ctx, full, may, func(t *folder.Txn, old *folder.Entry) error {
		if made = old == nil; !made {
			e.Mode = old.Mode
		}
		return t.Put(ctx, e)
	})
	if err != nil {
		return now, false, err
	}
	now, err = x.Lookup(ctx, p)
	return now, made, err
}

// Remove implements bridge.Writer.
func (x *shared) Remove(ctx context.Context, p string, may func(*bridge.Info) bool) error {
	full, err := x.writable(p)
	if err != nil {
		return err
	}
	if err := x.kept.space.Write(ctx); err != nil {
		return err
	}
	return x.change(ctx, full, may, func(t *folder.Txn, old *folder.Entry) error {
		if old != nil {
			return t.Remove(ctx, full)
		}
		if _, err := x.kept.folder.Stat(ctx, full); err == nil {
			return bridge.ErrInTheWay // a folder that is there because something is in it
		}
		return fs.ErrNotExist
	})
}

// change changes a file, nobody else meanwhile, if that is still right. A link is
// removed and never written through.
func (x *shared) change(ctx context.Context, full string, may func(*bridge.Info) bool, change func(*folder.Txn, *folder.Entry) error) error {
	if _, _, err := x.session.cloud.OpenShare(x.link); err != nil {
		return toldToGuests(err) // it was stopped while the file came
	}
	t, err := x.kept.folder.Begin(ctx)
	if err != nil {
		return toldToWriters(err)
	}
	defer t.Close()
	var old *folder.Entry
	switch e, err := t.Get(ctx, full); {
	case err == nil:
		old = &e
	case !errors.Is(err, folder.ErrNotFound):
		return toldToWriters(err)
	}
	var there *bridge.Info
	if old != nil {
		if old.Kind == folder.Dir || old.Kind == folder.Unknown {
			return bridge.ErrInTheWay
		}
		i, err := bridge.InfoOf(*old)
		if err != nil {
			return err
		}
		there = &i
	}
	if !may(there) {
		return bridge.ErrChanged
	}
	if err := change(t, old); err != nil {
		return toldToWriters(err)
	}
	return toldToWriters(t.Flush(ctx))
}

// toldToWriters gives errors of folders their answers.
func toldToWriters(err error) error {
	switch {
	case errors.Is(err, folder.ErrIsFolder), errors.Is(err, folder.ErrNotFolder), errors.Is(err, folder.ErrNotFile), errors.Is(err, folder.ErrPath):
		return fmt.Errorf("%w: %w", bridge.ErrInTheWay, err)
	case errors.Is(err, storage.ErrFull):
		return fmt.Errorf("%w: %w", bridge.ErrFull, err)
	}
	return err
}

// uses counts how often links were used on this machine. It is written down now
// and then, and at the end.
type uses struct {
	vault cloud.Vault
	clock clock.Clock

	mu     sync.Mutex
	all    map[string]use // by the ids of shares
	timer  clock.Timer    // nil if all is written down
	closed bool
}

// A use says how often, and when last.
type use struct {
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// usesFile is what is written down.
type usesFile struct {
	Version int            `json:"version"`
	Uses    map[string]use `json:"uses"`
}

const (
	writeUses = time.Minute
	maxUses   = 1 << 14
)

// openUses reads what was counted. What can't be read is counted anew.
func openUses(vault cloud.Vault, c clock.Clock) *uses {
	u := &uses{vault: vault, clock: c, all: map[string]use{}}
	var file usesFile
	if b, err := vault.Load(); err == nil && json.Unmarshal(b, &file) == nil && file.Version == 1 {
		maps.Copy(u.all, file.Uses)
	}
	return u
}

func (u *uses) of(id string) use {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.all[id]
}

func (u *uses) note(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	if _, ok := u.all[id]; !ok && len(u.all) >= maxUses {
		u.forgetOldestLocked()
	}
	u.all[id] = use{u.all[id].Count + 1, u.clock.Now().UTC().Truncate(time.Second)}
	if u.timer == nil {
		u.timer = u.clock.AfterFunc(writeUses, func() { _ = u.write() }) // else the next time, or at the end
	}
}

func (u *uses) forgetOldestLocked() {
	oldest := ""
	for id, one := range u.all {
		if oldest == "" || one.Last.Before(u.all[oldest].Last) {
			oldest = id
		}
	}
	delete(u.all, oldest)
}

func (u *uses) write() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.timer == nil {
		return nil
	}
	u.timer.Stop()
	u.timer = nil
	b, err := json.Marshal(usesFile{1, u.all})
	if err == nil {
		err = u.vault.Save(append(b, '\n'))
	}
	return err
}

func (u *uses) close() error {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	return u.write()
}
