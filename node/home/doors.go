package home

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/services/dynamodb"
	"github.com/cloudbevy/bevy/services/s3"
)

// region is the one that is told to programs which want one.
const region = "us-east-1"

// doors are those for programs of other services, while a session lasts. They are
// opened when they are first asked for.
type doors struct {
	session *session

	mu     sync.Mutex
	closed bool                      // guarded by mu
	dynamo map[string]*dynamodb.Door // by app; guarded by mu
	s3     *s3.Door                  // of all apps; guarded by mu
	pasts  []*past                   // guarded by mu
}

// signedDoors hangs the doors for programs of other services into the node. Before
// the others: their requests may come to any name and path.
func (h *Home) signedDoors() {
	h.node.Door(h.signedDoor("dynamodb", isDynamoDB, (*doors).serveDynamoDB))
	objects := h.signedDoor("s3", h.isS3, (*doors).serveS3)
	h.node.Door(objects)
	objects.Signed, objects.Last, objects.Match = false, true, h.isPublic
	h.node.Door(objects)
}

// doorsOf returns the doors of a session, which end with it.
func (h *Home) doorsOf(s *session) *doors {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.services; d != nil && d.session == s {
		return d
	}
	d := &doors{session: s, dynamo: map[string]*dynamodb.Door{}}
	h.services = d
	s.work.Add(1) // the caller uses the session, so that it waits for this
	context.AfterFunc(s.ctx, func() {
		defer s.work.Done()
		if err := d.close(); err != nil {
			h.node.Log.Error("a door did not close", "err", err)
		}
	})
	return d
}

func (d *doors) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	var all []error
	if d.s3 != nil {
		all = append(all, d.s3.Close())
	}
	for app, door := range d.dynamo {
		if err := door.Close(); err != nil {
			all = append(all, fmt.Errorf("close the tables of %q: %w", app, err))
		}
	}
	for _, p := range d.pasts {
		p.stop()
		all = append(all, p.door.Close())
	}
	d.pasts = nil
	return errors.Join(all...)
}

// forget closes what is open of an app that is gone.
func (d *doors) forget(app string) {
	d.mu.Lock()
	door := d.dynamo[app]
	delete(d.dynamo, app)
	d.mu.Unlock()
	if door == nil {
		return
	}
	if err := door.Close(); err != nil {
		d.session.home.node.Log.Error("a door did not close", "app", app, "err", err)
	}
}

// errClosing is the error of requests that come too late.
var errClosing = errors.New("the cloud is closing")

// tables returns the door for the tables of an app.
func (d *doors) tables(ctx context.Context, app string) (*dynamodb.Door, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosing
	}
	if door := d.dynamo[app]; door != nil {
		return door, nil
	}
	h := d.session.home
	door, err := dynamodb.New(ctx, dynamodb.Options{
		Trees: appTrees{d.session.cloud, app}, Clock: h.node.Clock(), Log: h.node.Log, Region: region, Buckets: tableBuckets{d, app},
		Authorize: dynamodb.Authorize(d.verifier("dynamodb", &app)),
		Allow: func(key, table string, write bool) bool {
			k, err := d.session.cloud.FindAppKey(key)
			return err == nil && k.May("dynamodb", table, write)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open the tables of %q: %w", app, err)
	}
	d.dynamo[app] = door
	return door, nil
}

// buckets returns the door for the buckets of all apps.
func (d *doors) buckets(ctx context.Context) (*s3.Door, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosing
	}
	if d.s3 != nil {
		return d.s3, nil
	}
	h, c := d.session.home, d.session.cloud
	tidied, err := h.tidied()
	if err != nil {
		return nil, err
	}
	d.s3, err = s3.New(ctx, s3.Options{
		Tidies: func(ctx context.Context, app, bucket string) bool {
			info, err := appBuckets{d.session}.find(app, bucket)
			return err == nil && d.session.tidies(ctx, info)
		},
		Tidied: tidied,
		Tidy: func(at time.Time) {
			if err := h.setTidied(at); err != nil {
				h.node.Log.Warn("cannot write down when buckets were tidied", "err", err)
			}
		},
		Spaces: appBuckets{d.session}, Verifier: d.verifier("s3", nil), Hosts: h.node.Hosts(), Region: region, Clock: h.node.Clock(), Log: h.node.Log,
		App: func(key string) string {
			k, _ := c.FindAppKey(key) // it was found when the request was verified
			return k.App
		},
		Allowed: func(key, bucket string, write bool) bool {
			k, err := c.FindAppKey(key)
			return err == nil && k.May("s3", bucket, write)
		},
		Apps: func(context.Context) (names []string, _ error) {
			for _, a := range c.Apps() {
				names = append(names, a.Name)
			}
			return names, nil
		},
	})
	return d.s3, err
}

// doorsCalm is how long after the start the doors are opened that have something to do
// by themselves.
const doorsCalm = 10 * time.Second

// tend opens the doors that may have something to do though nobody asks them: items
// and objects that expire. From then on they have a timer each. What is to be done
// in a table or a bucket is left to the machines that write there.
func (s *session) tend() {
	h := s.home
	if !sleep(s.ctx, h.node.Clock(), doorsCalm) {
		return
	}
	failed := func(what string, err error) {
		if err != nil && s.ctx.Err() == nil {
			h.node.Log.Error("nothing expires there until they are used", "in", what, "err", err)
		}
	}
	for _, info := range s.cloud.Spaces(cloud.Table) {
		if info.Name != dynamodb.Catalog {
			continue
		}
		space, err := s.cloud.Space(info.ID)
		if err == nil && written(space) {
			_, err = h.doorsOf(s).tables(s.ctx, info.App)
		}
		failed("the tables of "+info.App, err)
	}
	for _, info := range s.cloud.Spaces(cloud.Folder) {
		if s.tidies(s.ctx, info) {
			_, err := h.doorsOf(s).buckets(s.ctx)
			failed("the buckets", err)
			return
		}
	}
}

// written reports whether this machine writes to a space.
func written(space *cloud.Space) bool {
	return slices.ContainsFunc(space.Open(), func(w cloud.Writer) bool { return w.Own })
}

// tidies reports whether this machine may have something to do in a bucket: what says
// what expires, and what is not complete, is kept aside.
func (s *session) tidies(ctx context.Context, info cloud.SpaceInfo) bool {
	k, err := s.folderOf(info.ID)
	if err != nil || !written(k.space) {
		return false
	}
	for _, err := range k.folder.Asides(ctx, hyperbee.RangeOptions{Limit: 1}) {
		return err == nil
	}
	return false
}

// tidiedFile has the time when what expires in buckets was looked at.
const tidiedFile = "tidied.json"

func (h *Home) tidied() (at time.Time, err error) {
	b, err := os.ReadFile(filepath.Join(h.dir, tidiedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return at, nil
	}
	if err == nil && json.Unmarshal(b, &at) != nil {
		return time.Time{}, nil // then it is done again
	}
	return at, err
}

func (h *Home) setTidied(at time.Time) error {
	b, err := json.Marshal(at.UTC())
	if err != nil {
		return err
	}
	return cloud.FileVault(filepath.Join(h.dir, tidiedFile)).Save(b)
}

// verifier verifies requests by the keys of an app, or of all if it is nil. A
// principal is the name of a key.
func (d *doors) verifier(service string, app *string) *dynamodb.Verifier {
	return &dynamodb.Verifier{Service: service, Clock: d.session.home.node.Clock(), Keys: func(_ context.Context, id string) (dynamodb.Key, error) {
		k, err := d.session.cloud.FindAppKey(id)
		if err != nil || app != nil && k.App != *app {
			return dynamodb.Key{}, dynamodb.ErrUnknownKey
		}
		return dynamodb.Key{Secret: string(k.Secret), Principal: id}, nil
	}}
}

// signedDoor makes a door of what serves requests while a session lasts.
func (h *Home) signedDoor(name string, match func(*http.Request) bool, serve func(*doors, http.ResponseWriter, *http.Request)) (d node.Door) {
	d.Name, d.Match, d.Signed = name, match, true
	d.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, done, err := h.acquire(r.Context())
		if err != nil {
			http.Error(w, "the cloud is being opened again", http.StatusServiceUnavailable)
			return
		}
		defer done()
		serve(h.doorsOf(s), w, r)
	})
	return d
}

// isDynamoDB reports whether a request is one of DynamoDB's.
func isDynamoDB(r *http.Request) bool {
	if strings.HasPrefix(r.Header.Get("X-Amz-Target"), "DynamoDB") {
		return true
	}
	if r.Method == http.MethodOptions { // a browser asks whether it may send one
		return strings.Contains(strings.ToLower(r.Header.Get("Access-Control-Request-Headers")), "x-amz-target")
	}
	_, service := credential(r)
	return service == "dynamodb"
}

// isS3 reports whether a request is one of S3's that is signed, also by a form, or
// that is made to a host of its own.
func (h *Home) isS3(r *http.Request) bool {
	if s3.Match(h.node.Hosts(), r) {
		return true
	}
	form := r.Method == http.MethodPost && strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data")
	return form && !strings.HasPrefix(r.URL.Path, client.Base+"/") && !strings.HasPrefix(r.URL.Path, "/s/")
}

// isPublic reports whether a request without a signature is to a bucket: what is
// public can be read from it.
func (h *Home) isPublic(r *http.Request) bool {
	s := h.now()
	bucket, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if s == nil || bucket == "" {
		return false
	}
	return slices.ContainsFunc(s.cloud.Apps(), func(a cloud.App) bool {
		_, err := appBuckets{s}.find(a.Name, bucket)
		return err == nil
	})
}

func (d *doors) serveS3(w http.ResponseWriter, r *http.Request) {
	door, err := d.buckets(r.Context())
	if err != nil {
		d.session.home.node.Log.Error("cannot open the buckets", "err", err)
		http.Error(w, "the buckets can't be opened", http.StatusServiceUnavailable)
		return
	}
	door.ServeHTTP(w, r)
}

// credential returns the access key and the service that a request says it is
// signed for. Nothing of it is verified.
func credential(r *http.Request) (key, service string) {
	text := r.URL.Query().Get("X-Amz-Credential")
	if header := r.Header.Get("Authorization"); strings.HasPrefix(header, "AWS4-") {
		_, text, _ = strings.Cut(header, "Credential=")
		text, _, _ = strings.Cut(text, ",")
	}
	parts := strings.Split(strings.TrimSpace(text), "/") // key/date/region/service/aws4_request
	if len(parts) < 5 {
		return "", ""
	}
	return strings.Join(parts[:len(parts)-4], "/"), parts[len(parts)-2]
}

func (d *doors) serveDynamoDB(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		h.Set("Access-Control-Allow-Methods", "POST")
		h.Set("Access-Control-Max-Age", "172800")
		return
	}
	id, _ := credential(r)
	k, err := d.session.cloud.FindAppKey(id)
	if err != nil { // no app's tables are opened for that
		if _, err = dynamodb.Authorize(d.verifier("dynamodb", nil))(r, nil); err == nil {
			err = errClosing
		}
		dynamodb.Refuse(w, err)
		return
	}
	door, err := d.tables(r.Context(), k.App)
	if err != nil {
		d.session.home.node.Log.Error("cannot open tables", "app", k.App, "err", err)
		dynamodb.Refuse(w, err)
		return
	}
	door.ServeHTTP(w, r)
}

// appTrees are the trees of an app's tables: spaces of the cloud.
type appTrees struct {
	cloud *cloud.Cloud
	app   string
}

var _ dynamodb.Trees = appTrees{}

// Open implements dynamodb.Trees.
func (a appTrees) Open(ctx context.Context, name string, create bool) (dynamodb.Tree, error) {
	space, err := a.space(ctx, name, create)
	if err != nil {
		return nil, fmt.Errorf("open tree %s: %w", name, err)
	}
	if err := space.Write(ctx); err != nil {
		return nil, fmt.Errorf("open tree %s: %w", name, err)
	}
	for _, w := range space.Open() {
		if w.Own {
			return dynamodb.OnCloud(space.Tree(), w.Tree.Key(), func() error { return nil }), nil // it is the cloud's
		}
	}
	return nil, fmt.Errorf("open tree %s: this machine can't write to it", name)
}

func (a appTrees) space(ctx context.Context, name string, create bool) (*cloud.Space, error) {
	info, err := a.cloud.Find(cloud.Table, a.app, name)
	if err == nil {
		return a.cloud.Space(info.ID)
	}
	if !create {
		return nil, dynamodb.ErrNotFound
	}
	return a.cloud.MakeNamed(ctx, cloud.SpaceInfo{Kind: cloud.Table, App: a.app, Name: name})
}

// Delete implements dynamodb.Trees. What was in it stays until it is past what is
// kept.
func (a appTrees) Delete(ctx context.Context, name string) error {
	info, err := a.cloud.Find(cloud.Table, a.app, name)
	if errors.Is(err, cloud.ErrNoSpace) {
		return nil
	}
	if err == nil {
		err = a.cloud.Update(ctx, info.ID, func(i *cloud.SpaceInfo) { i.Removed = true })
	}
	if err != nil {
		return fmt.Errorf("delete tree %s: %w", name, err)
	}
	return nil
}

// callTables does an operation of DynamoDB for the owner.
func (h *Home) callTables(w http.ResponseWriter, r *http.Request, in client.TableCall) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	var out []byte
	err = h.use(r.Context(), func(s *session) error {
		if !s.cloud.HasApp(in.App) {
			return noApp(in.App)
		}
		door, done, err := h.doorsOf(s).tablesAt(r.Context(), in.App, in.At)
		if err != nil {
			return err
		}
		defer done()
		out, err = door.Call(r.Context(), in.Operation, body)
		return toldByTables(err)
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if len(out) == 0 {
		out = []byte("{}")
	}
	_, err = w.Write(out)
	return err
}

// toldByTables gives errors of tables their codes.
func toldByTables(err error) error {
	e := new(dynamodb.Error)
	if !errors.As(err, &e) {
		return err
	}
	out := &client.Error{Code: client.CodeUsage, Message: "cannot do that with tables", Cause: e.Message, Try: "bevy table ls"}
	switch e.Type {
	case "ResourceNotFoundException", "TableNotFoundException", "BackupNotFoundException":
		out.Code = client.CodeNotFound
	case "ResourceInUseException", "TableAlreadyExistsException", "TableInUseException", "ConditionalCheckFailedException", "TransactionCanceledException",
		"TransactionConflictException", "IdempotentParameterMismatchException":
		out.Code = client.CodeConflict
	case "AccessDeniedException":
		out.Code = client.CodeDenied
	}
	if out.Cause == "" {
		out.Cause = e.Type
	}
	return out.Because(err)
}
