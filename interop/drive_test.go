package interop_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hyperblobs"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/localdrive"
	"github.com/cloudbevy/bevy/hyper/mirrordrive"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// These are what drive.js takes and answers.
type (
	driveData struct {
		Seed string `json:"seed,omitempty"`
		Size int    `json:"size"`
		File string `json:"file,omitempty"`
	}
	driveOp struct {
		Put        *string     `json:"put,omitempty"`
		Stream     *string     `json:"stream,omitempty"`
		Entry      *string     `json:"entry,omitempty"`
		Symlink    *string     `json:"symlink,omitempty"`
		Del        *string     `json:"del,omitempty"`
		Batch      []driveOp   `json:"batch,omitempty"`
		Data       driveData   `json:"data"`
		Chunks     []driveData `json:"chunks,omitempty"`
		Dedup      bool        `json:"dedup,omitempty"`
		From       *string     `json:"from,omitempty"`
		Linkname   *string     `json:"linkname,omitempty"`
		Target     string      `json:"target,omitempty"`
		Executable bool        `json:"executable"`
		Metadata   string      `json:"metadata,omitempty"`
	}
	driveEntry struct {
		Seq        uint64
		Key        string
		Executable bool
		Linkname   *string
		Blob       *hyperblobs.ID
		Metadata   *string
	}
	drivePair struct{ Left, Right *driveEntry }
	driveHead struct {
		Length, ByteLength  uint64
		TreeHash, Signature string
	}
	driveOpened struct {
		Key        string
		ContentKey *string
		Writable   bool
	}
)

func (e *driveEntry) String() string {
	if e == nil {
		return "none"
	}
	blob := "none"
	if e.Blob != nil {
		blob = fmt.Sprintf("%+v", *e.Blob)
	}
	return fmt.Sprintf("%d %q executable %v, link %q, blob %s, metadata %s", e.Seq, e.Key, e.Executable, deref(e.Linkname), blob, deref(e.Metadata))
}

func (p drivePair) String() string { return fmt.Sprintf("{%v; %v}", p.Left, p.Right) }

// theirEntry is an entry of ours as Node tells it.
func theirEntry(e hyperdrive.Entry) *driveEntry {
	out := &driveEntry{Seq: e.Seq, Key: e.Path, Executable: e.Executable, Blob: e.Blob}
	if e.IsLink() {
		out.Linkname = &e.Linkname
	}
	if e.Metadata != nil {
		metadata := string(e.Metadata)
		out.Metadata = &metadata
	}
	return out
}

// contents are those that drive.js makes of the same.
func (d driveData) contents() []byte {
	if d.File != "" {
		b, err := os.ReadFile(d.File)
		if err != nil {
			panic(err)
		}
		return b
	}
	return generated{Seed: d.Seed, Sizes: []int{d.Size}}.block(0)
}

// startDrives starts drive.js.
func startDrives(t *testing.T) node {
	t.Helper()
	nodepeer.Require(t)
	p, err := nodepeer.Start(t.Context(), "drive.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return node{t, p}
}

// driveForm is a form that drives have.
type driveForm struct {
	name      string
	encrypted bool
	compat    bool // of the older kind, with a key of their own for the contents
}

var driveForms = []driveForm{{name: "plain"}, {name: "encrypted", encrypted: true}, {name: "compat", compat: true}}

// key is the encryption key, on both sides.
func (f driveForm) key(open args) *[32]byte {
	if !f.encrypted {
		return nil
	}
	open["encryptionKey"] = seed(55)
	key := seedBytes(55)
	return &key
}

// openNode opens a drive of Node: one to write, in the store of ours, or the one with a key.
func (f driveForm) openNode(n node, s *ourSide, handle, key string) driveOpened {
	n.t.Helper()
	open := args{"handle": handle, "compat": f.compat}
	if key != "" {
		open["key"] = key
		delete(open, "compat") // it says so itself
	} else {
		primary := s.store.PrimaryKey()
		open["primaryKey"] = hex.EncodeToString(primary[:])
	}
	f.key(open)
	return call[driveOpened](n, "open", open)
}

// open opens a drive of ours: one to write, or the one with a key. It is closed with the test at the latest.
func (f driveForm) open(s *ourSide, handle, key string) *hyperdrive.Drive {
	s.t.Helper()
	o := hyperdrive.Options{Compat: f.compat, EncryptionKey: f.key(args{}), Durability: hypercore.Soon}
	if key != "" {
		k := hypercore.Key(key32(s.t, key))
		o.Key, o.Compat = &k, false
	}
	return openOurDrive(s, handle, o)
}

func openOurDrive(s *ourSide, handle string, o hyperdrive.Options) *hyperdrive.Drive {
	s.t.Helper()
	d, err := hyperdrive.Open(s.store.Namespace(handle), o)
	s.must(err)
	s.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			s.t.Errorf("close drive %s: %v", handle, err)
		}
	})
	return d
}

// writesDrive is what a drive and a batch of one have in common.
type writesDrive interface {
	Put(ctx context.Context, path string, data []byte, o hyperdrive.PutOptions) error
	Create(ctx context.Context, path string, o hyperdrive.PutOptions) (*hyperdrive.File, error)
	PutEntry(ctx context.Context, e hyperdrive.Entry) error
	Symlink(ctx context.Context, path, target string, metadata json.RawMessage) error
	Delete(ctx context.Context, path string) error
	Entry(ctx context.Context, path string) (hyperdrive.Entry, error)
}

// apply does on our side what drive.js does. Chunks of a stream are written as they come, or in other pieces.
func (op driveOp) apply(ctx context.Context, d writesDrive) error {
	var metadata json.RawMessage
	if op.Metadata != "" {
		metadata = json.RawMessage(op.Metadata)
	}
	o := hyperdrive.PutOptions{Executable: op.Executable, Metadata: metadata}
	switch {
	case op.Put != nil:
		return d.Put(ctx, *op.Put, op.Data.contents(), o)
	case op.Symlink != nil:
		return d.Symlink(ctx, *op.Symlink, op.Target, metadata)
	case op.Del != nil:
		return d.Delete(ctx, *op.Del)
	case op.Entry != nil:
		e := hyperdrive.Entry{Path: *op.Entry, Executable: op.Executable, Metadata: metadata}
		if op.Linkname != nil {
			e.Linkname = *op.Linkname
		}
		if op.From != nil {
			switch from, err := d.Entry(ctx, *op.From); {
			case err == nil:
				e.Blob = from.Blob
			case !errors.Is(err, hyperdrive.ErrNotFound):
				return err
			}
		}
		return d.PutEntry(ctx, e)
	case op.Stream != nil:
		f, err := d.Create(ctx, *op.Stream, o)
		if err != nil {
			return err
		}
		defer f.Abort()
		var all []byte
		for _, chunk := range op.Chunks {
			all = append(all, chunk.contents()...)
		}
		for piece := range slices.Chunk(all, 1+len(all)/3) {
			if _, err := f.Write(piece); err != nil {
				return err
			}
		}
		return f.Close()
	}
	batch, err := d.(*hyperdrive.Drive).Batch(ctx)
	if err != nil {
		return err
	}
	defer batch.Close()
	for _, one := range op.Batch {
		if err := one.apply(ctx, batch); err != nil {
			return err
		}
	}
	return batch.Flush(ctx)
}

// applyDrive makes the changes on our side, and says which it refused, and which versions there were in between.
func applyDrive(t *testing.T, d *hyperdrive.Drive, ops []driveOp) (refused []bool, versions []uint64) {
	t.Helper()
	for _, op := range ops {
		err := op.apply(t.Context(), d)
		if err != nil && !errors.Is(err, hyperdrive.ErrPath) {
			t.Fatalf("%+v: %v", op, err)
		}
		refused = append(refused, err != nil)
		versions = append(versions, d.Version())
	}
	return refused, versions
}

// drivePaths makes paths of few names, so that they meet.
type drivePaths struct {
	rng   *rand.Rand
	names []string
}

func newDrivePaths(rng *rand.Rand) drivePaths {
	names := []string{"a", "b", "c", "0", "-", "...", ".git", " ", "with space", "Größe", "日本語", "é", "é", "👩‍👩‍👧",
		"%2f", `"quoted"`, "tab\t", "bell\a", "\x7f", "line\u2028", "a.", "x/y/z"}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return drivePaths{rng, names[:3+rng.IntN(8)]}
}

// clean is a path as drives have it.
func (p drivePaths) clean() string {
	path := ""
	for range 1 + p.rng.IntN(3) {
		path += "/" + p.names[p.rng.IntN(len(p.names))]
	}
	return path
}

// any is a path in any form.
func (p drivePaths) any() string {
	path := p.clean()
	switch p.rng.IntN(24) {
	case 0:
		return path[1:]
	case 1:
		return strings.ReplaceAll(path, "/", "//")
	case 2:
		return strings.ReplaceAll(path, "/", `\`)
	case 3:
		return "." + path
	case 4:
		return "/x/.." + path + "/"
	case 5:
		return `C:\` + path
	}
	return path
}

// none is a path that names nothing.
func (p drivePaths) none() string {
	return []string{"", "/", ".", "..", "/a/../..", "//", "C:/", `\`}[p.rng.IntN(8)]
}

func (p drivePaths) folder() string {
	if p.rng.IntN(3) == 0 {
		return "/"
	}
	return p.clean()
}

// metadata is what JSON.stringify would write, empty for none.
func (p drivePaths) metadata() string {
	all := []string{`{"mtime":"2026-11-23T10:00:00.5Z","mode":"0640"}`, `{}`, `[]`, `0`, `-0.5`, `1e+21`, `false`, `""`, `null`,
		`{"2":1,"10":2,"b":[1,null,true,{"c":"\"\\\n\u0001é😀</>&"}],"a":"é"}`}
	if p.rng.IntN(3) > 0 {
		return ""
	}
	return all[p.rng.IntN(len(all))]
}

func (p drivePaths) data() driveData {
	d := driveData{Seed: fmt.Sprint(p.rng.IntN(5)), Size: p.rng.IntN(200)}
	switch p.rng.IntN(15) {
	case 0:
		d.Size = 0
	case 1:
		d.Size = hyperblobs.DefaultBlockSize - 1 + p.rng.IntN(3)
	case 2:
		d.Size = p.rng.IntN(5 * hyperblobs.DefaultBlockSize)
	}
	return d
}

func (p drivePaths) op(batches bool) (op driveOp) {
	path, change := p.any(), p.rng.IntN(20)
	if batches && change >= 10 && p.rng.IntN(10) == 0 {
		path = p.none() // Node has written the contents of files when it looks at this
	}
	op.Executable, op.Metadata = p.rng.IntN(4) == 0, p.metadata()
	switch {
	case change < 8:
		op.Put, op.Data = &path, p.data()
	case change < 10:
		op.Stream = &path
		for range p.rng.IntN(20) { // more than Node appends at once
			op.Chunks = append(op.Chunks, driveData{Seed: "block", Size: hyperblobs.DefaultBlockSize})
		}
		if p.rng.IntN(2) == 0 {
			op.Chunks = append(op.Chunks[:min(len(op.Chunks), 2)], driveData{Seed: "last", Size: 1 + p.rng.IntN(300)})
		}
	case change < 12:
		op.Entry = &path
		if from := p.clean(); batches { // Node must not be made to read in a batch: see find
			op.From = &from
		}
	case change < 14:
		op.Symlink, op.Target = &path, []string{"x", "/a", "../b", "a\\b", "c:\\d", "\x01\"\u2028é", p.clean()}[p.rng.IntN(7)]
	case change < 18 || !batches:
		op.Del = &path
	default:
		for range 1 + p.rng.IntN(12) {
			op.Batch = append(op.Batch, p.op(false))
		}
	}
	return op
}

func (p drivePaths) ops(n int) (ops []driveOp) {
	for range n {
		ops = append(ops, p.op(true))
	}
	return ops
}

// sameDrives compares the heads of both logs, and finds the first block that differs if they do.
func sameDrives(t *testing.T, n node, handle string, d *hyperdrive.Drive) {
	t.Helper()
	blobs, err := d.Blobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, log := range map[string]*hypercore.Log{"db": d.Tree().Log(), "blobs": blobs.Log()} {
		which := args{"handle": handle, "log": name}
		want, h := call[driveHead](n, "head", which), log.Head()
		hash := h.Hash()
		got := driveHead{h.Length, log.ByteLength(), hex.EncodeToString(hash[:]), hex.EncodeToString(h.Signature)}
		if got == want {
			continue
		}
		for i, want := range call[struct{ Blocks []string }](n, "blocks", which).Blocks {
			got, err := log.Get(t.Context(), uint64(i))
			if err != nil || hex.EncodeToString(got) != want {
				t.Fatalf("%s, block %d:\n got %q, %v\nwant %q", name, i, shortened(got), err, shortened(unhex(t, want)))
			}
		}
		t.Fatalf("%s: head %+v, want %+v", name, got, want)
	}
}

func shortened(b []byte) []byte { return b[:min(len(b), 400)] }

// sameDriveAnswers asks both sides the same random questions.
func sameDriveAnswers(t *testing.T, p drivePaths, n node, handle string, d *hyperdrive.Drive, versions []uint64, times int) {
	t.Helper()
	rng := p.rng
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("it took too long"))
	defer cancel()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range times {
		v := versions[rng.IntN(len(versions))]
		old, err := d.Checkout(v)
		check(err)
		db := args{"handle": handle, "version": v}

		folder := p.folder()
		var entries []*driveEntry
		var paths []string
		for e, err := range old.List(ctx, folder, hyperdrive.ListOptions{}) {
			check(err)
			entries, paths = append(entries, theirEntry(e)), append(paths, e.Path)
		}
		want := call[struct{ Entries []*driveEntry }](n, "list", args{"drive": db, "folder": folder}).Entries
		what := fmt.Sprintf("%q of version %d", folder, v)
		same(t, "list "+what, fmt.Sprint(entries), fmt.Sprint(want))

		names := map[string]bool{} // a file and a folder may have one name
		for e, err := range old.ReadDir(ctx, folder) {
			check(err)
			names[e.Name] = true
		}
		wantNames := map[string]bool{}
		for _, name := range call[struct{ Names []string }](n, "readdir", args{"drive": db, "folder": folder}).Names {
			wantNames[name] = true
		}
		same(t, "readdir "+what, fmt.Sprint(names), fmt.Sprint(wantNames))

		other := versions[rng.IntN(len(versions))]
		var diff []drivePair
		for d, err := range old.Diff(ctx, other, folder) {
			check(err)
			var pair drivePair
			if d.Left != nil {
				pair.Left = theirEntry(*d.Left)
			}
			if d.Right != nil {
				pair.Right = theirEntry(*d.Right)
			}
			diff = append(diff, pair)
		}
		wantDiff := call[struct{ Diff []drivePair }](n, "diff", args{"drive": db, "other": other, "folder": folder}).Diff
		same(t, fmt.Sprintf("diff with %d of %s", other, what), fmt.Sprint(diff), fmt.Sprint(wantDiff))

		paths = append(paths[:min(len(paths), 5)], p.clean(), p.clean())
		var sums []*string
		for _, path := range paths {
			switch data, err := old.ReadFile(ctx, path); {
			case err == nil:
				s := sum(data)
				sums = append(sums, &s)
			case errors.Is(err, hyperdrive.ErrNotFound):
				sums = append(sums, nil)
			default:
				check(err)
			}
		}
		wantSums := call[struct{ Sums []*string }](n, "sums", args{"drive": db, "paths": paths}).Sums
		for i, path := range paths {
			same(t, fmt.Sprintf("contents of %q of version %d", path, v), deref(sums[i]), deref(wantSums[i]))
		}
		check(old.Close())
	}
}

func TestNodeAndBevyHaveTheSamePaths(t *testing.T) {
	n := startDrives(t)
	rng := random(t, 1)
	parts := []string{"/", "/", "/", `\`, ".", "..", "a", "b:", ":", "C:", "file:", "é", " ", "..."}
	var paths []string
	for range 3000 * long(20) {
		path := ""
		for range rng.IntN(9) {
			path += parts[rng.IntN(len(parts))]
		}
		paths = append(paths, path)
	}
	refused := 0
	for i, want := range call[struct{ Paths []*string }](n, "paths", args{"paths": paths}).Paths {
		got, err := hyperdrive.CleanPath(paths[i])
		if want == nil {
			refused++
		}
		if (err == nil) != (want != nil) || want != nil && got != *want {
			t.Errorf("%q: got %q, %v, want %q", paths[i], got, err, deref(want))
		}
	}
	if refused < 100 || refused > len(paths)-100 {
		t.Errorf("%d of %d paths are refused", refused, len(paths))
	}
}

func TestNodeAndBevyWriteTheSameDrives(t *testing.T) {
	n := startDrives(t)
	rng := random(t, 1)
	for _, form := range driveForms {
		t.Run(form.name, func(t *testing.T) {
			s := startOurSide(t, replicate.Options{})
			for round := range long(4) {
				handle := fmt.Sprint(form.name, " ", round)
				p := newDrivePaths(rng)
				o := form.openNode(n, s, handle, "")
				versions := []uint64{1}
				for range 4 {
					ops := p.ops(40 * long(60)) // 9,600, and more in batches
					want := call[struct{ Refused []bool }](n, "apply", args{"handle": handle, "ops": ops}).Refused
					d := form.open(s, handle, "")
					if key := d.Key(); hex.EncodeToString(key[:]) != o.Key {
						t.Fatalf("the key is %v, Node's %s", key, o.Key)
					}
					got, then := applyDrive(t, d, ops)
					for i, op := range ops {
						if got[i] != want[i] {
							t.Fatalf("%+v: refused %v, want %v", asJSON(op), got[i], want[i])
						}
					}
					sameDrives(t, n, handle, d)
					versions = append(versions, then...)
					sameDriveAnswers(t, p, n, handle, d, versions, 8*long(10))
					if err := d.Close(); err != nil {
						t.Error(err)
					}
				}
				call[any](n, "close", args{"handle": handle})
			}
		})
	}
}

// realFiles are the paths of files of Go's standard library: many small ones, and few that are large.
func realFiles(t *testing.T, n int) (root string, paths []string) {
	t.Helper()
	root = filepath.Join(build.Default.GOROOT, "src")
	err := filepath.WalkDir(root, func(at string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(root, at)
		paths = append(paths, "/"+filepath.ToSlash(rel))
		if len(paths) == n {
			return fs.SkipAll
		}
		return err
	})
	if err != nil || len(paths) < n {
		t.Fatalf("%d files in %s, %v", len(paths), root, err)
	}
	return root, paths
}

// realDrive are batches that put real files, and then change and remove some of them.
func (f driveForm) realDrive(t *testing.T, rng *rand.Rand) (ops []driveOp, p drivePaths) {
	t.Helper()
	files := 2000
	if f != driveForms[0] && long(2) == 1 {
		files = 150
	}
	root, paths := realFiles(t, files)
	var puts []driveOp
	for i := range paths {
		puts = append(puts, driveOp{Put: &paths[i], Data: driveData{File: root + paths[i]}, Executable: i%7 == 0})
	}
	for i, size := range []int{0, 1 << 20, 3<<20 + 1} {
		path := fmt.Sprint("/large/", i)
		puts = append(puts, driveOp{Put: &path, Data: driveData{Seed: path, Size: size}})
	}
	for some := range slices.Chunk(puts, 500) {
		ops = append(ops, driveOp{Batch: some})
	}
	for range 100 {
		file, from := paths[1+rng.IntN(len(paths)-1)], paths[rng.IntN(len(paths))] // the first one stays
		link := file + ".link"
		ops = append(ops, []driveOp{
			{Put: &file, Data: driveData{Seed: file, Size: rng.IntN(100_000)}, Metadata: `{"mode":"0600"}`},
			{Del: &file},
			{Entry: &file, From: &from},
			{Symlink: &link, Target: file},
		}[rng.IntN(4)])
	}
	// Questions are about some of the folders.
	p = drivePaths{rng: rng}
	for range 20 {
		if dir := path.Dir(paths[rng.IntN(len(paths))]); dir != "/" {
			p.names = append(p.names, dir[1:])
		}
	}
	return ops, p
}

// applyNode makes the changes on Node's side, and says which versions there were.
func applyNode(n node, handle string, ops []driveOp) (versions []uint64) {
	n.t.Helper()
	return call[struct{ Versions []uint64 }](n, "apply", args{"handle": handle, "ops": ops}).Versions
}

// heldBy says how many blocks a log of ours has here.
func heldBy(log *hypercore.Log) (held uint64) {
	for r, ok := log.NextHeld(0); ok; r, ok = log.NextHeld(r.End) {
		held += r.End - r.Start
	}
	return held
}

func TestBevyReadsDrivesOfNode(t *testing.T) {
	n := startDrives(t)
	for _, form := range driveForms {
		t.Run(form.name, func(t *testing.T) {
			s := startOurSide(t, replicate.Options{})
			handle := form.name
			o := form.openNode(n, s, handle, "")
			ops, p := form.realDrive(t, random(t, 1))
			versions := applyNode(n, handle, ops)

			s = startOurSide(t, replicate.Options{}) // another store: the one that has the primary key could write
			d := form.connectOurs(n, s, handle, o.Key)
			ctx, cancel := s.patient()
			defer cancel()

			// One file brings no more than it needs.
			one := *ops[0].Batch[0].Put
			e, err := d.Entry(ctx, one)
			s.must(err)
			data, err := d.ReadFile(ctx, one)
			s.must(err)
			want := call[struct{ Sums []*string }](n, "sums", args{"drive": args{"handle": handle}, "paths": []string{one}}).Sums
			same(t, "contents", sum(data), deref(want[0]))
			key, err := d.ContentKey(ctx)
			s.must(err)
			same(t, "content key", hex.EncodeToString(key[:]), deref(o.ContentKey))
			blobs, err := d.Blobs(ctx)
			s.must(err)
			if held := heldBy(blobs.Log()); held != e.Blob.BlockLength {
				t.Errorf("%d blocks of contents came, want %d", held, e.Blob.BlockLength)
			}
			if held := heldBy(d.Tree().Log()); held > 150 {
				t.Errorf("%d entries came, of %d", held, d.Version())
			}

			sameDriveAnswers(t, p, n, handle, d, versions, 6*long(10))

			// It goes on as the writer does.
			from := d.Version()
			path, link := "/news", "/link"
			applyNode(n, handle, []driveOp{{Put: &path, Data: driveData{Seed: "news", Size: 200_000}}, {Symlink: &link, Target: path}})
			news := map[string]bool{}
			for change, err := range d.Watch(ctx, from, "/") {
				s.must(err)
				news[change.Path()] = true
				if len(news) == 2 {
					break
				}
			}
			got, err := d.Follow(ctx, link)
			s.must(err)
			data, err = d.ReadFile(ctx, got.Path)
			s.must(err)
			same(t, "contents of what is new", sum(data), sum(driveData{Seed: "news", Size: 200_000}.contents()))

			// All of a folder.
			folder := "/" + p.names[0]
			s.must(d.Download(ctx, folder, nil))
			has, err := d.Has(ctx, folder)
			s.must(err)
			if !has {
				t.Errorf("%s is not here after it was downloaded", folder)
			}
			call[any](n, "close", args{"handle": handle})
		})
	}
}

func TestNodeReadsDrivesOfBevy(t *testing.T) {
	n := startDrives(t)
	for _, form := range driveForms {
		t.Run(form.name, func(t *testing.T) {
			s := startOurSide(t, replicate.Options{})
			handle := form.name
			d := form.open(s, handle, "")
			ops, p := form.realDrive(t, random(t, 1))
			_, versions := applyDrive(t, d, ops)
			key := d.Key()
			form.openNode(n, s, handle, hex.EncodeToString(key[:]))
			call[any](n, "connect", args{"handle": handle, "port": s.listen()})
			call[any](n, "update", args{"handle": handle, "length": d.Version()})

			// One file brings no more than it needs.
			one := *ops[0].Batch[0].Put
			e, err := d.Entry(t.Context(), one)
			s.must(err)
			sums := call[struct{ Sums []*string }](n, "sums", args{"drive": args{"handle": handle}, "paths": []string{one}}).Sums
			data, err := d.ReadFile(t.Context(), one)
			s.must(err)
			same(t, "contents", sum(data), deref(sums[0]))
			type counts struct{ DB, Blobs uint64 }
			if held := call[counts](n, "held", args{"handle": handle}); held.Blobs != e.Blob.BlockLength || held.DB > 150 {
				t.Errorf("Node has %+v blocks, want %d of contents", held, e.Blob.BlockLength)
			}

			sameDriveAnswers(t, p, n, handle, d, versions, 6*long(10))

			path := "/news"
			s.must(d.Put(t.Context(), path, []byte("new"), hyperdrive.PutOptions{}))
			call[any](n, "update", args{"handle": handle, "length": d.Version()})
			sums = call[struct{ Sums []*string }](n, "sums", args{"drive": args{"handle": handle}, "paths": []string{path}}).Sums
			same(t, "contents of what is new", deref(sums[0]), sum([]byte("new")))

			folder := "/" + p.names[0]
			call[any](n, "download", args{"drive": args{"handle": handle}, "path": folder, "handle": handle})
			if !call[struct{ Has bool }](n, "has", args{"drive": args{"handle": handle}, "path": folder}).Has {
				t.Errorf("%s is not there after it was downloaded", folder)
			}
			call[any](n, "close", args{"handle": handle})
		})
	}
}

// connectOurs opens a drive of Node here, over a connection, and waits until it is as long as there.
func (f driveForm) connectOurs(n node, s *ourSide, handle, key string) *hyperdrive.Drive {
	s.t.Helper()
	d := f.open(s, handle, key)
	log := d.Tree().Log()
	events, err := log.Watch()
	s.must(err)
	defer events.Close()
	s.connect(call[struct{ Port int }](n, "listen", args{"handle": handle}).Port)
	ctx, cancel := s.patient()
	defer cancel()
	for want := call[driveHead](n, "head", args{"handle": handle, "log": "db"}); log.Length() < want.Length; {
		_, err := events.Next(ctx)
		s.must(err)
	}
	return d
}

// connectNode opens a drive of ours in Node, over a connection.
func connectNode(n node, s *ourSide, handle string, d *hyperdrive.Drive) {
	s.t.Helper()
	key := d.Key()
	driveForms[0].openNode(n, s, handle, hex.EncodeToString(key[:]))
	call[any](n, "connect", args{"handle": handle, "port": s.listen()})
	call[any](n, "update", args{"handle": handle, "length": d.Version()})
}

func TestNodeAndBevyFollowTheSameLinks(t *testing.T) {
	n := startDrives(t)
	s := startOurSide(t, replicate.Options{})
	o := driveForms[0].openNode(n, s, "links", "")
	file := "/file"
	ops := []driveOp{{Put: &file, Data: driveData{Seed: "a", Size: 10}}}
	link := func(path, target string) { ops = append(ops, driveOp{Symlink: &path, Target: target}) }
	link("/link", "/file")
	link("/dir/link", `\dir\..\link`)
	link("/dangling", "/none")
	link("/loop/a", "/loop/b")
	link("/loop/b", "/loop/a")
	link("/out", "/../..")
	link("/chain/0", "/file")
	for i := range 20 {
		link(fmt.Sprint("/chain/", i+1), fmt.Sprint("/chain/", i))
	}
	applyNode(n, "links", ops)
	s = startOurSide(t, replicate.Options{})
	d := driveForms[0].connectOurs(n, s, "links", o.Key)
	ctx, cancel := s.patient()
	defer cancel()
	found := 0
	for _, op := range ops {
		path := file
		if op.Symlink != nil {
			path = *op.Symlink
		}
		var want struct{ Entry *driveEntry }
		refused := n.p.Call(ctx, "entry", args{"drive": args{"handle": "links"}, "path": path, "follow": true}, &want)
		got, err := d.Follow(ctx, path)
		switch {
		case refused != nil:
			if !errors.Is(err, hyperdrive.ErrLoop) && !errors.Is(err, hyperdrive.ErrPath) {
				t.Errorf("%s: %v, %v, want %v", path, got, err, refused)
			}
		case want.Entry == nil:
			if !errors.Is(err, hyperdrive.ErrNotFound) {
				t.Errorf("%s: %v, %v, want none", path, got, err)
			}
		default:
			s.must(err)
			same(t, path, theirEntry(got).String(), want.Entry.String())
			found++
		}
	}
	if found != 18 { // the file, two links, and the links that lead to it by 15 more at most
		t.Errorf("%d links lead to the file", found)
	}
}

// What was cut into pieces of which some are there already is read on the other side.
func TestNodeAndBevyShareBlocks(t *testing.T) {
	n := startDrives(t)
	s := startOurSide(t, replicate.Options{})
	path := "/file"
	text := func(from, to int) []byte {
		return generated{Seed: "text", Sizes: []int{3 << 20}}.block(0)[from:to]
	}
	first, second := text(0, 2<<20), slices.Concat(text(0, 1<<20), []byte("put in between"), text(1<<20, 3<<20))

	d := openOurDrive(s, "ours", hyperdrive.Options{Dedup: true, Durability: hypercore.Soon})
	blobs, err := d.Blobs(t.Context())
	s.must(err)
	for _, data := range [][]byte{first, second} {
		f, err := d.Create(t.Context(), path, hyperdrive.PutOptions{})
		s.must(err)
		_, err = f.Write(data)
		s.must(errors.Join(err, f.Close()))
	}
	if stored := blobs.Log().ByteLength(); stored > 3<<20+1<<19 {
		t.Errorf("%d bytes are stored of %d and %d", stored, len(first), len(second))
	}
	connectNode(n, s, "ours", d)
	for v, data := range map[uint64][]byte{2: first, 3: second} {
		at := args{"handle": "ours", "version": v}
		got := call[struct{ Sums []*string }](n, "sums", args{"drive": at, "paths": []string{path}}).Sums
		same(t, fmt.Sprint("ours at version ", v), deref(got[0]), sum(data))
		part := call[struct{ Hex string }](n, "read", args{"drive": at, "path": path, "start": 1<<20 - 5, "length": 100_000}).Hex
		same(t, fmt.Sprint("part of ours at version ", v), sum(unhex(t, part)), sum(data[1<<20-5:][:100_000]))
	}

	o := driveForms[0].openNode(n, s, "theirs", "")
	a, b, c := driveData{Seed: "a", Size: 70_000}, driveData{Seed: "b", Size: 3}, driveData{Seed: "c", Size: 65_536}
	versions := [][]driveData{{a, b, a}, {c, a, b, b}}
	for _, chunks := range versions {
		applyNode(n, "theirs", []driveOp{{Stream: &path, Chunks: chunks, Dedup: true}})
	}
	r := startOurSide(t, replicate.Options{})
	d = driveForms[0].connectOurs(n, r, "theirs", o.Key)
	ctx, cancel := r.patient()
	defer cancel()
	for i, chunks := range versions {
		var want []byte
		for _, chunk := range chunks {
			want = append(want, chunk.contents()...)
		}
		old, err := d.Checkout(uint64(i + 2))
		r.must(err)
		got, err := old.ReadFile(ctx, path)
		r.must(err)
		same(t, fmt.Sprint("theirs at version ", i+2), sum(got), sum(want))
		e, err := old.Entry(ctx, path)
		r.must(err)
		size, err := old.Size(ctx, e)
		r.must(err)
		if !e.Blob.BlockMap || size != uint64(len(want)) {
			t.Errorf("%v: %d bytes, want %d, of a map", theirEntry(e), size, len(want))
		}
		r.must(old.Close())
	}
}

// Reading here and there in a large file brings no more than the blocks that were read.
func TestBevyReadsHereAndThereInFilesOfNode(t *testing.T) {
	n := startDrives(t)
	s := startOurSide(t, replicate.Options{})
	o := driveForms[0].openNode(n, s, "large", "")
	data := driveData{Seed: "large", Size: 8 << 20 * long(32)}
	before, path := "/before", "/large"
	applyNode(n, "large", []driveOp{{Put: &before, Data: driveData{Seed: "before", Size: 100_001}}, {Put: &path, Data: data}})
	s = startOurSide(t, replicate.Options{})
	d := driveForms[0].connectOurs(n, s, "large", o.Key)
	ctx, cancel := s.patient()
	defer cancel()
	e, err := d.Entry(ctx, path)
	s.must(err)
	r, err := d.OpenFile(ctx, e)
	s.must(err)
	defer r.Close()
	want, rng, blocks := data.contents(), random(t, 1), map[int]bool{}
	for range 20 * long(10) {
		off := rng.IntN(data.Size)
		p := make([]byte, min(1+rng.IntN(100_000), data.Size-off))
		_, err := r.ReadAt(p, int64(off))
		s.must(err)
		same(t, fmt.Sprintf("%d bytes at %d", len(p), off), sum(p), sum(want[off:off+len(p)]))
		for b := off / hyperblobs.DefaultBlockSize; b <= (off+len(p)-1)/hyperblobs.DefaultBlockSize; b++ {
			blocks[b] = true
		}
	}
	blobs, err := d.Blobs(ctx)
	s.must(err)
	if held := heldBy(blobs.Log()); held != uint64(len(blocks)) {
		t.Errorf("%d blocks came, want %d", held, len(blocks))
	}
}

// mirror makes dst the same as src on our side, and returns what was done.
func mirror(s *ourSide, src, dst mirrordrive.Side, o mirrordrive.Options) (total mirrordrive.Total) {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	for op, err := range mirrordrive.Mirror(ctx, src, dst, o) {
		s.must(err)
		if op.Kind == mirrordrive.Skip {
			s.t.Errorf("%s is skipped: %v", op.Path, op.Reason)
		}
		total.Count(op)
	}
	return total
}

func openFolder(t *testing.T) *localdrive.Folder {
	t.Helper()
	f, err := localdrive.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A drive of Node becomes a folder, that a drive of ours, that one of Node again, and nothing of it is changed.
func TestMirrorsLoseNothingBetweenNodeAndBevy(t *testing.T) {
	n := startDrives(t)
	s := startOurSide(t, replicate.Options{})
	form := driveForms[0]
	o := form.openNode(n, s, "first", "")
	root, paths := realFiles(t, 150)
	paths = append(paths, "/empty", "/large", "/Größe/日本語/👩‍👩‍👧", "/with space/\"quoted\"", "/.hidden")
	ops := make([]driveOp, len(paths))
	for i, path := range paths {
		data := driveData{File: root + path}
		if i >= 150 {
			data = driveData{Seed: path, Size: (i - 150) * 1_500_000 % 2_000_000}
		}
		ops[i] = driveOp{Put: &paths[i], Data: data, Executable: i%5 == 0}
		if i%2 == 0 {
			mode := 0o640
			if i%5 == 0 {
				mode |= 0o100
			}
			ops[i].Metadata = fmt.Sprintf(`{"mtime":"2026-11-23T10:%02d:00.123456789Z","mode":"%04o"}`, i%60, mode)
		}
	}
	for path, target := range map[string]string{"/link": "empty", "/dir/link": "../Größe", "/dir/absolute": "/large", "/dangling": "nothing/there"} {
		ops = append(ops, driveOp{Symlink: &path, Target: target})
	}
	applyNode(n, "first", []driveOp{{Batch: ops}})

	r := startOurSide(t, replicate.Options{})
	first, folder := form.connectOurs(n, r, "first", o.Key), openFolder(t)
	all := uint64(len(ops))
	if got := mirror(r, mirrordrive.Drive(first), mirrordrive.Folder(folder), mirrordrive.Options{}); got.Add != all {
		t.Errorf("from a drive of Node to a folder: %+v, want to add %d", got, all)
	}
	if got := mirror(r, mirrordrive.Drive(first), mirrordrive.Folder(folder), mirrordrive.Options{Checksum: true}); got.Equal != all {
		t.Errorf("again: %+v, want %d to be equal", got, all)
	}
	ours := openOurDrive(s, "ours", hyperdrive.Options{Durability: hypercore.Soon})
	if got := mirror(s, mirrordrive.Folder(folder), mirrordrive.Drive(ours), mirrordrive.Options{}); got.Add != all {
		t.Errorf("from a folder to a drive of ours: %+v, want to add %d", got, all)
	}
	connectNode(n, s, "ours", ours)
	type counts struct{ Files, Add, Remove, Change uint64 }
	form.openNode(n, s, "last", "")
	if got := call[counts](n, "mirror", args{"from": args{"handle": "ours"}, "to": args{"handle": "last"}}); got.Add != all {
		t.Errorf("from a drive of ours to one of Node: %+v, want to add %d", got, all)
	}

	type known struct{ sum, rest, metadata string }
	in := func(handle string) map[string]known {
		db, out := args{"handle": handle}, map[string]known{}
		var paths []string
		entries := call[struct{ Entries []*driveEntry }](n, "list", args{"drive": db, "folder": "/"}).Entries
		for _, e := range entries {
			paths = append(paths, e.Key)
		}
		sums := call[struct{ Sums []*string }](n, "sums", args{"drive": db, "paths": paths}).Sums
		for i, e := range entries {
			rest := fmt.Sprintf("executable %v, link %s", e.Executable, deref(e.Linkname))
			out[e.Key] = known{deref(sums[i]), rest, deref(e.Metadata)}
		}
		return out
	}
	sameFiles := func(what, handle string, metadata bool) {
		t.Helper()
		got, want := in(handle), in("first")
		if len(got) != len(want) {
			t.Errorf("%s has %d files, want %d", what, len(got), len(want))
		}
		for path, w := range want {
			g := got[path]
			if !metadata || w.metadata == "null" {
				g.metadata = w.metadata // that of the folder, or none
			}
			if g != w {
				t.Errorf("%s has %s as %+v, want %+v", what, path, g, w)
			}
		}
	}
	sameFiles("the last drive", "last", true)

	// Node's localdrive makes the same of our folder, and a folder of our drive.
	form.openNode(n, s, "of folder", "")
	call[counts](n, "mirror", args{"from": args{"folder": folder.Dir()}, "to": args{"handle": "of folder"}})
	sameFiles("the drive that Node made of our folder", "of folder", false)
	theirs := openFolder(t)
	call[counts](n, "mirror", args{"from": args{"handle": "ours"}, "to": args{"folder": theirs.Dir()}})
	got := mirror(s, mirrordrive.Folder(theirs), mirrordrive.Drive(ours), mirrordrive.Options{Checksum: true, DryRun: true})
	if got.Add+got.Remove+got.BytesAdded+got.BytesRemoved != 0 || got.Change+got.Equal != all {
		t.Errorf("the folder that Node made of our drive differs: %+v", got)
	}
}
