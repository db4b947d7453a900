package home

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/content"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/cloud/pair"
	"github.com/cloudbevy/bevy/cloud/words"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/node"
)

// routes hangs what the home can be asked into the node.
func (h *Home) routes() {
	h.node.Route(
		node.Call("GET", "/folders", "List the folders of the cloud", h.getFolders),
		node.Call("POST", "/folders", "Keep a folder of the disk safe", h.addFolder),
		onFolder(h, "GET", "/folders/{folder}", "Say how a folder is", h.getFolder),
		onFolder(h, "DELETE", "/folders/{folder}", "Keep a folder no longer", h.dropFolder),
		onFolder(h, "POST", "/folders/{folder}/answers/{answer}", "Answer what a folder asks by a notice", h.answer),
		onFolder(h, "GET", "/folders/{folder}/entries", "List what is in a folder", h.list),
		onFolder(h, "GET", "/folders/{folder}/entry", "Say what is at a path", h.stat),
		node.Raw("GET", "/folders/{folder}/content", "Read a file", "", "application/octet-stream", h.read),
		unbounded(node.Raw("PUT", "/folders/{folder}/content", "Write a file", "application/octet-stream", "", h.write)),
		onFolder(h, "POST", "/folders/{folder}/moves", "Move a file or folder", h.move),
		onFolder(h, "POST", "/folders/{folder}/copies", "Copy a file or folder, also from another moment", h.copy),
		onFolder(h, "POST", "/folders/{folder}/dirs", "Make a folder in a folder", h.mkdir),
		onFolder(h, "POST", "/folders/{folder}/links", "Make a symbolic link", h.link),
		onFolder(h, "GET", "/folders/{folder}/stats", "Count what is at a path and in it", h.stats),
		onFolder(h, "GET", "/folders/{folder}/moment", "Find a moment, as one that stays the same", h.findMoment),
		onFolder(h, "DELETE", "/folders/{folder}/entry", "Remove a file or folder", h.remove),
		onFolder(h, "POST", "/folders/{folder}/contents", "Bring contents to this machine's disk", h.get),
		onFolder(h, "DELETE", "/folders/{folder}/contents", "Free contents of this machine's disk", h.free),
		onFolder(h, "GET", "/folders/{folder}/history", "Tell what was done to a path", h.history),
		onFolder(h, "GET", "/folders/{folder}/diff", "Compare two moments", h.diff),
		onFolder(h, "POST", "/folders/{folder}/restores", "Make a path what it was", h.restore),
		onFolder(h, "GET", "/folders/{folder}/tags", "List moments that have names", h.tags),
		onFolder(h, "POST", "/folders/{folder}/tags", "Name a moment", h.tag),
		onFolder(h, "DELETE", "/folders/{folder}/tags/{name}", "Take a name away", h.untag),
		onFolder(h, "POST", "/folders/{folder}/clears", "Free contents that are past what is kept", h.clear),
		onFolder(h, "POST", "/folders/{folder}/publication", "Have everybody read a folder who has its key", h.publishFolder),
		onFolder(h, "GET", "/folders/{folder}/publication", "Say where a folder can be read by everybody", h.getPublished),
		onFolder(h, "DELETE", "/folders/{folder}/publication", "Have nobody else read a folder any more", h.unpublishFolder),
		node.Call("GET", "/machines", "List the machines of the cloud", h.getMachines),
		node.Call("GET", "/machines/{machine}", "Tell about one machine", h.getMachine),
		node.Call("POST", "/machines/{machine}/pings", "Measure how long it takes to a machine and back", h.ping),
		node.Call("POST", "/invitation", "Show words, for one machine to join by", h.makeInvitation),
		node.Call("GET", "/invitation", "Say whether the words were used", h.getInvitation),
		node.Call("DELETE", "/invitation", "Show the words no longer", h.dropInvitation),
		node.Call("POST", "/join", "Make this machine one of another cloud", h.joinCall),
		node.Call("GET", "/keys/words", "Show the owner's words", h.ownerWords),
		node.Call("DELETE", "/keys/words", "Keep the owner's words on this machine no longer", h.forgetWords),
	)
	h.appRoutes()
	h.checkRoutes()
	h.removedRoutes()
}

func unbounded(r node.Route) node.Route {
	r.MaxBody = -1
	return r
}

// onFolder makes a route to a folder, which In's field Folder names.
func onFolder[In, Out any](h *Home, method, path, doc string, f func(context.Context, *session, *kept, In) (Out, error)) node.Route {
	name, ok := reflect.TypeFor[In]().FieldByName("Folder")
	if !ok {
		panic(fmt.Sprintf("home: %s %s names no folder", method, path)) // a mistake shows at once
	}
	return node.Call(method, path, doc, func(ctx context.Context, in In) (out Out, err error) {
		err = h.use(ctx, func(s *session) error {
			k, err := s.findFolder(reflect.ValueOf(in).FieldByIndex(name.Index).String())
			if err == nil {
				out, err = f(ctx, s, k, in)
			}
			return told(err)
		})
		return out, err
	})
}

// told gives errors of folders their codes.
func told(err error) error {
	if err == nil {
		return nil
	}
	for _, k := range []struct {
		err        error
		code       client.Code
		cause, try string
	}{
		{folder.ErrNotFound, client.CodeNotFound, "", "bevy ls"},
		{folder.ErrPath, client.CodeUsage, "", "a path such as /a/b"},
		{folder.ErrExists, client.CodeConflict, "there is something already", "another path"},
		{folder.ErrNotEmpty, client.CodeConflict, "something is in it", "--recursive, which removes that, too"},
		{folder.ErrIsFolder, client.CodeConflict, "there is a folder", "a file in it"},
		{folder.ErrNotFile, client.CodeConflict, "it is no file", "another path"},
		{folder.ErrNotFolder, client.CodeConflict, "a file is where a folder would have to be", "another path"},
		{folder.ErrReadOnly, client.CodeDenied, "", "bevy status"},
		{folder.ErrInvalid, client.CodeCorrupt, "", "bevy scrub"},
	} {
		if errors.Is(err, k.err) {
			what, cause, ok := strings.Cut(err.Error(), ": ")
			if !ok {
				what, cause = "do that", what
			}
			return (&client.Error{Code: k.code, Message: "cannot " + what, Cause: cmp.Or(k.cause, cause), Try: k.try}).Because(err)
		}
	}
	return err
}

func (h *Home) getFolders(ctx context.Context, _ node.None) (out client.Folders, err error) {
	err = h.use(ctx, func(s *session) error {
		out.Folders = s.listFolders()
		return nil
	})
	return out, err
}

func (h *Home) addFolder(ctx context.Context, in client.AddFolder) (out client.Folder, err error) {
	err = h.use(ctx, func(s *session) error {
		k, err := s.addFolder(ctx, in.Path, in.Name, in.Sparse)
		if err != nil {
			return told(err)
		}
		out = s.describeFolder(k)
		s.notices() // who asks next is to see them
		h.node.Say("%s is kept", in.Path)
		return nil
	})
	return out, err
}

func (h *Home) getFolder(_ context.Context, s *session, k *kept, _ client.FolderRequest) (client.Folder, error) {
	return s.describeFolder(k), nil
}

func (h *Home) dropFolder(ctx context.Context, s *session, k *kept, in client.DropFolder) (node.None, error) {
	name := called(k.space.Info())
	err := s.dropFolder(ctx, k, in.Everywhere)
	if err == nil {
		h.node.Say("%s is not kept here any more", name)
	}
	return node.None{}, err
}

func (h *Home) answer(ctx context.Context, _ *session, k *kept, in client.Answer) (node.None, error) {
	k.mu.Lock()
	keeper := k.keeper
	k.mu.Unlock()
	if keeper == nil {
		return node.None{}, notHere(k)
	}
	switch in.Answer {
	case "confirm":
		return node.None{}, keeper.Confirm(ctx)
	case "restore":
		return node.None{}, keeper.Restore(ctx)
	case "here":
		return node.None{}, keeper.Here(ctx)
	}
	return node.None{}, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no answer", in.Answer), Cause: "there are confirm, restore and here", Try: "bevy notices"}
}

func notHere(k *kept) error {
	name := called(k.space.Info())
	return &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("%q is not on this machine's disk", name), Cause: "no folder of the disk is kept as it", Try: "bevy add <folder> --as " + name}
}

// at calls f with the folder as it was at a moment.
func (k *kept) at(ctx context.Context, moment string, f func(*folder.Folder) error) error {
	if moment == "" || moment == "now" {
		return f(k.folder)
	}
	old, err := k.moment(ctx, moment)
	if err != nil {
		return err
	}
	return errors.Join(f(old), old.Close())
}

// moment returns the folder as it was: by a tag, a time, or how long ago.
func (k *kept) moment(ctx context.Context, text string) (*folder.Folder, error) {
	old, err := k.folder.Tagged(ctx, text)
	if err == nil || !errors.Is(err, folder.ErrNotFound) {
		return old, err
	}
	t, err := parseTime(text, k.session.home.node.Clock().Now())
	if err != nil {
		return nil, noMoment(k, text)
	}
	return k.folder.At(ctx, t)
}

// parseTime reads a time, or how long ago it was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	switch text {
	case "now":
		return now, nil
	case "yesterday":
		return now.AddDate(0, 0, -1), nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 1e5 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, fs.ErrInvalid
}

// rooted makes a path of a request one of a folder.
func rooted(p string) string {
	if p == "" {
		return "/"
	}
	return path.Clean("/" + p)
}

// entryOf is an entry as it is told.
func (k *kept) entryOf(e folder.Entry) client.Entry {
	out := client.Entry{Path: e.Path, Size: e.Size, ModTime: e.ModTime, Link: e.Link, Time: e.Time, Deleted: e.Deleted, Conflicts: e.Conflicts()}
	switch e.Kind {
	case folder.File:
		out.Kind = "file"
		out.Hash = hex.EncodeToString(e.Content.Hash[:])
	case folder.Dir:
		out.Kind = "folder"
	case folder.Symlink:
		out.Kind = "link"
	}
	if e.Mode != 0 {
		out.Mode = fmt.Sprintf("%04o", e.Mode.Perm())
	}
	if e.Err != nil {
		out.Error = e.Err.Error()
	}
	if e.Writer != (hypercore.Key{}) {
		out.Machine = k.deviceOf(e.Writer)
	}
	return out
}

func limit(asked, usual int) int {
	if asked <= 0 {
		return usual
	}
	return min(asked, 10_000)
}

func (h *Home) list(ctx context.Context, _ *session, k *kept, in client.ListRequest) (out client.Entries, err error) {
	n := limit(in.Limit, 1000)
	err = k.at(ctx, in.At, func(f *folder.Folder) error {
		for e, err := range f.List(ctx, rooted(in.Path), folder.ListOptions{Recursive: in.Recursive, After: in.After, Limit: n + 1}) {
			if err != nil {
				return err
			}
			if len(out.Entries) == n {
				out.More = true
				break
			}
			out.Entries = append(out.Entries, k.entryOf(e))
		}
		return nil
	})
	return out, err
}

func (h *Home) stat(ctx context.Context, _ *session, k *kept, in client.PathRequest) (out client.Entry, err error) {
	if rooted(in.Path) == "/" {
		return client.Entry{Path: "/", Kind: "folder"}, nil
	}
	err = k.at(ctx, in.At, func(f *folder.Folder) error {
		e, err := f.Stat(ctx, rooted(in.Path))
		out = k.entryOf(e)
		return err
	})
	return out, err
}

func (h *Home) read(w http.ResponseWriter, r *http.Request, in client.PathRequest) error {
	return h.use(r.Context(), func(s *session) error {
		k, err := s.findFolder(in.Folder)
		if err != nil {
			return err
		}
		return told(k.at(r.Context(), in.At, func(f *folder.Folder) error {
			e, err := f.Stat(r.Context(), rooted(in.Path))
			if err != nil {
				return err
			}
			if e.Kind != folder.File {
				return fmt.Errorf("read %s: %w", e.Path, folder.ErrNotFile)
			}
			c, err := f.OpenEntry(r.Context(), e)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := begins(r, c); err != nil {
				return err
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("ETag", `"`+hex.EncodeToString(e.Content.Hash[:])+`"`)
			http.ServeContent(w, r, "", e.ModTime, c)
			return nil
		}))
	})
}

// begins looks whether what is asked for of a content can be read, while an error
// can still be told.
func begins(r *http.Request, c *content.Reader) error {
	var at int64
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at) // else it is the beginning, or near the end
	if r.Method == http.MethodHead || at < 0 || at >= c.Size() {
		return nil
	}
	_, err := c.ReadAt(make([]byte, 1), at)
	return err
}

func (h *Home) write(w http.ResponseWriter, r *http.Request, in client.WriteRequest) error {
	return h.use(r.Context(), func(s *session) error {
		k, err := s.findFolder(in.Folder)
		if err != nil {
			return err
		}
		o, err := h.putOptions(in.Mode, in.ModTime)
		if err != nil {
			return err
		}
		if err := k.space.Write(r.Context()); err != nil {
			return err
		}
		if err := k.folder.Put(r.Context(), rooted(in.Path), r.Body, o); err != nil {
			return told(err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}

func (h *Home) move(ctx context.Context, _ *session, k *kept, in client.MoveRequest) (node.None, error) {
	if err := k.space.Write(ctx); err != nil {
		return node.None{}, err
	}
	return node.None{}, k.folder.Move(ctx, rooted(in.From), rooted(in.To))
}

func (h *Home) mkdir(ctx context.Context, _ *session, k *kept, in client.MkdirRequest) (node.None, error) {
	o, err := h.putOptions(in.Mode, in.ModTime)
	if err == nil {
		err = k.space.Write(ctx)
	}
	if err != nil {
		return node.None{}, err
	}
	return node.None{}, k.folder.Mkdir(ctx, rooted(in.Path), o)
}

func (h *Home) remove(ctx context.Context, _ *session, k *kept, in client.RemoveRequest) (node.None, error) {
	if err := k.space.Write(ctx); err != nil {
		return node.None{}, err
	}
	return node.None{}, k.folder.Remove(ctx, rooted(in.Path), folder.RemoveOptions{All: in.Recursive})
}

func (h *Home) history(ctx context.Context, _ *session, k *kept, in client.HistoryRequest) (out client.Entries, err error) {
	o := folder.HistoryOptions{Inside: true, Reverse: !in.Forward}
	now := h.node.Clock().Now()
	if o.From, err = parseTime(in.Since, now); err == nil {
		o.To, err = parseTime(in.Until, now)
	}
	if err != nil {
		return out, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q or %q is no time", in.Since, in.Until), Cause: "it is in none of the forms", Try: "2026-11-23, 2h or 3d"}
	}
	n := limit(in.Limit, 100)
	o.Limit = n + 1
	for e, err := range k.folder.History(ctx, rooted(in.Path), o) {
		if err != nil {
			return out, err
		}
		if len(out.Entries) == n {
			out.More = true
			break
		}
		out.Entries = append(out.Entries, k.entryOf(e))
	}
	return out, nil
}

func (h *Home) diff(ctx context.Context, _ *session, k *kept, in client.DiffRequest) (out client.Changes, err error) {
	n := limit(in.Limit, 1000)
	err = k.at(ctx, in.From, func(old *folder.Folder) error {
		return k.at(ctx, in.To, func(now *folder.Folder) error {
			for c, err := range now.Diff(ctx, old, rooted(in.Path)) {
				if err != nil {
					return err
				}
				if c.Path <= in.After || c.Old != nil && c.New != nil && sameEntry(*c.Old, *c.New) {
					continue
				}
				if len(out.Changes) == n {
					out.More = true
					break
				}
				out.Changes = append(out.Changes, k.changeOf(c))
			}
			return nil
		})
	})
	return out, err
}

func (k *kept) changeOf(c folder.Change) client.Change {
	out := client.Change{Path: c.Path, What: "changed"}
	if c.Old != nil {
		e := k.entryOf(*c.Old)
		out.Old = &e
	} else {
		out.What = "added"
	}
	if c.New != nil {
		e := k.entryOf(*c.New)
		out.New = &e
	} else {
		out.What = "removed"
	}
	return out
}

func (h *Home) restore(ctx context.Context, _ *session, k *kept, in client.RestoreRequest) (out client.Restored, err error) {
	if err := k.space.Write(ctx); err != nil {
		return out, err
	}
	if in.At == "" {
		return out, &client.Error{Code: client.CodeUsage, Message: "from which moment?", Cause: "none was given", Try: "bevy restore <path>@<time>"}
	}
	old, err := k.moment(ctx, in.At)
	if err != nil {
		return out, err
	}
	if in.To != "" {
		out.Changed, err = k.folder.Copy(ctx, old, rooted(in.Path), rooted(in.To))
	} else {
		out.Changed, err = k.folder.Restore(ctx, old, rooted(in.Path))
	}
	return out, errors.Join(err, old.Close())
}

func (h *Home) tags(ctx context.Context, _ *session, k *kept, _ client.FolderRequest) (out client.Tags, err error) {
	for t, err := range k.folder.Tags(ctx) {
		if err != nil {
			return out, err
		}
		out.Tags = append(out.Tags, client.Tag{Name: t.Name, Note: t.Note, Time: t.Time})
	}
	return out, nil
}

func (h *Home) tag(ctx context.Context, _ *session, k *kept, in client.TagRequest) (node.None, error) {
	if err := k.space.Write(ctx); err != nil {
		return node.None{}, err
	}
	return node.None{}, k.at(ctx, in.At, func(f *folder.Folder) error {
		v, err := f.Version(ctx)
		if err != nil {
			return err
		}
		return k.folder.Tag(ctx, in.Name, in.Note, v)
	})
}

func (h *Home) untag(ctx context.Context, _ *session, k *kept, in client.TagName) (node.None, error) {
	return node.None{}, k.folder.Untag(ctx, in.Name)
}

// maxDetails bounds how many problems are told one by one.
const maxDetails = 100

func (h *Home) clear(ctx context.Context, s *session, k *kept, in client.ClearRequest) (out client.Cleared, err error) {
	var r folder.Retention
	for _, f := range []struct {
		text string
		to   *time.Duration
	}{{in.All, &r.All}, {in.Daily, &r.Daily}} {
		if f.text == "" {
			continue
		}
		d, err := time.ParseDuration(f.text)
		if err != nil || d < 0 {
			return out, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no length of time", f.text), Cause: "it is a number with a unit", Try: "720h"}
		}
		if *f.to = d; d == 0 {
			*f.to = -1
		}
	}
	if in.Dry {
		swept, err := k.folder.Clearable(ctx, r)
		return client.Cleared{Blocks: swept.Blocks, Bytes: swept.Bytes, DryRun: true}, err
	}
	if err := s.secure(ctx); err != nil {
		return out, err
	}
	swept, err := k.folder.Clear(ctx, r)
	return client.Cleared{Blocks: swept.Blocks, Bytes: swept.Bytes}, err
}

func (h *Home) getMachines(ctx context.Context, _ node.None) (out client.Machines, err error) {
	err = h.use(ctx, func(s *session) error {
		out.Machines = s.machines()
		return nil
	})
	return out, err
}

func (h *Home) getMachine(ctx context.Context, in client.MachineRequest) (out client.Machine, err error) {
	err = h.use(ctx, func(s *session) error {
		d, err := s.cloud.Device(in.Machine)
		if err != nil {
			return noMachine(in.Machine, err)
		}
		for _, m := range s.machines() {
			if m.ID == hypercore.Key(d.Key).String() {
				out = m
			}
		}
		return nil
	})
	return out, err
}

func (h *Home) ping(ctx context.Context, in client.MachineRequest) (out client.Pong, err error) {
	err = h.use(ctx, func(s *session) error {
		d, err := s.cloud.Device(in.Machine)
		if err != nil {
			return noMachine(in.Machine, err)
		}
		if d.Key == s.cloud.Self() {
			return &client.Error{Code: client.CodeUsage, Message: d.Name + " is this machine", Cause: "nothing is on the way", Try: "bevy status"}
		}
		out.Machine = d.Name
		rtt, err := s.ping(ctx, d)
		if err != nil {
			return &client.Error{Code: client.CodeOffline, Message: fmt.Sprintf("cannot reach %q", d.Name), Cause: err.Error(), Try: "bevy up there, and bevy netcheck on both"}
		}
		out.RTT = float64(rtt.Microseconds()) / 1000
		if conn := s.swarm.connOf(d.Key); conn != nil {
			out.Path, out.Why = s.describe(conn.Path())
		}
		return nil
	})
	return out, err
}

// noMachine says why no machine was found by a word.
func noMachine(word string, err error) error {
	if errors.Is(err, cloud.ErrManyDevices) {
		return &client.Error{Code: client.CodeConflict, Message: fmt.Sprintf("%q is more than one machine", word), Cause: "they have the same name", Try: "bevy machines ls, and the key of one of them instead of its name"}
	}
	return &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is no machine %q", word), Cause: "none that is in the cloud has that name or key", Try: "bevy machines ls"}
}

func (h *Home) makeInvitation(ctx context.Context, _ node.None) (out client.Invitation, err error) {
	v, err := h.invite(ctx)
	if err != nil {
		return out, err
	}
	out.Words, out.Expires, out.State = v.Code().Words(), v.Expires(), "open"
	out.QR, err = pair.QR(strings.ToUpper(out.Words))
	return out, err
}

func (h *Home) getInvitation(context.Context, node.None) (out client.Invitation, err error) {
	h.mu.Lock()
	v := h.invited
	h.mu.Unlock()
	if v == nil {
		return out, &client.Error{Code: client.CodeNotFound, Message: "no words are shown", Cause: "nobody has asked for any", Try: "bevy join"}
	}
	out.Expires, out.State = v.Expires(), "open"
	select {
	case <-v.ended:
		if out.State = "joined"; v.err != nil {
			out.State, out.Why = "over", v.err.Error()
		}
		out.Machine = v.got.Name
	default:
	}
	return out, nil
}

func (h *Home) dropInvitation(context.Context, node.None) (node.None, error) {
	h.stopInviting()
	return node.None{}, nil
}

// joinWait is how long the other machine is looked for.
const joinWait = 2 * time.Minute

func (h *Home) joinCall(ctx context.Context, in client.JoinRequest) (out client.Joined, err error) {
	wait := joinWait
	if in.Wait != "" {
		if wait, err = time.ParseDuration(in.Wait); err != nil || wait <= 0 {
			return out, &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%q is no length of time", in.Wait), Cause: "it is a number with a unit", Try: "2m"}
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := h.node.Clock().AfterFunc(wait, func() { cancel(fmt.Errorf("no answer within %v", wait)) })
	defer timer.Stop()
	a, err := h.joinCloud(ctx, in.Words, in.Name)
	if err != nil {
		return out, err
	}
	h.heardAll(ctx)
	return client.Joined{Cloud: a.Cloud().String()}, nil
}

// heardAll waits until this device knows what another one of the cloud knows
// about it: who has just joined asks for its folders next. It is no matter if
// that takes longer.
func (h *Home) heardAll(ctx context.Context) {
	for range joinLooks {
		if !sleep(ctx, h.node.Clock(), joinLook) {
			return
		}
		heard := false
		_ = h.use(ctx, func(s *session) error {
			own := s.cloud.Holdings()
			for _, p := range s.cloud.Peers() {
				theirs := p.Holdings()
				_, said := theirs[string(cloud.Control)]
				heard = heard || said && own[string(cloud.Control)].Covers(theirs[string(cloud.Control)])
			}
			return nil
		})
		if heard {
			return
		}
	}
}

// Who joins looks so often, and for so long, whether it has heard of the cloud.
const (
	joinLook  = 50 * time.Millisecond
	joinLooks = 200
)

func (h *Home) ownerWords(ctx context.Context, _ node.None) (out client.SeedWords, err error) {
	if !node.BySocket(ctx) {
		return out, &client.Error{Code: client.CodeDenied, Message: "the words are not shown here", Cause: "only a program of their owner on the machine itself gets them", Try: "bevy keys show"}
	}
	err = h.use(ctx, func(s *session) error {
		seed, here, _ := s.cloud.Seed()
		if !here {
			return &client.Error{Code: client.CodeNotFound, Message: "the words are not on this machine", Cause: "they are where the cloud was made, or on paper", Try: "bevy keys show there"}
		}
		out = client.SeedWords{Words: words.FromSeed(seed), Cloud: s.cloud.ID().String()}
		if err := s.cloud.SeedShown(); err != nil {
			return err
		}
		s.notices()
		return nil
	})
	return out, err
}

func (h *Home) forgetWords(ctx context.Context, _ node.None) (node.None, error) {
	if !node.BySocket(ctx) {
		return node.None{}, &client.Error{Code: client.CodeDenied, Message: "the words are not removed from here", Cause: "only a program of their owner on the machine itself may", Try: "bevy keys forget"}
	}
	return node.None{}, h.use(ctx, func(s *session) error {
		if _, here, shown := s.cloud.Seed(); here && !shown {
			return &client.Error{Code: client.CodeConflict, Message: "nobody has seen the words yet", Cause: "without them the cloud can't be had back", Try: "bevy keys show"}
		}
		return s.cloud.ForgetSeed()
	})
}

// trees are the logs of the folder's entries.
func (k *kept) trees() (logs []*hypercore.Log) {
	for _, w := range k.space.Open() {
		logs = append(logs, w.Tree)
	}
	return logs
}
