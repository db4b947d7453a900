package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A peer is a source of a log's blocks: the log of another store.
type peer struct {
	mu     sync.Mutex
	log    *hypercore.Log
	from   *hypercore.Log
	blocks int // that were asked for
}

func (p *peer) FetchBlock(_ context.Context, i uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.log.Has(i) {
		return nil
	}
	if err := p.head(); err != nil {
		return err
	}
	p.blocks++
	missing, err := p.log.Head().Tree.MissingNodes(2*i, p.log)
	if err != nil {
		return err
	}
	return p.apply(merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
}

func (p *peer) FetchSeek(context.Context, uint64, uint64, hypercore.Range) error {
	return errors.New("nobody seeks here")
}

func (p *peer) FetchRange(ctx context.Context, r hypercore.DownloadRange) error {
	for i := r.From; i < r.To; i++ {
		if err := p.FetchBlock(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) FetchHead(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.head()
}

func (p *peer) head() error {
	have, there := p.log.Length(), p.from.Length()
	if have >= there {
		return nil
	}
	return p.apply(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: have, Length: there - have}})
}

func (p *peer) apply(r merkle.Request) error {
	proof, err := p.from.Prove(context.Background(), r, true)
	if err != nil {
		return err
	}
	errs, err := p.log.Apply(context.Background(), hypercore.Soon, proof)
	return errors.Join(append(errs, err)...)
}

func (p *peer) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocks
}

// far returns a store that has nothing yet of another's own log, and where it gets
// it from.
func far(t *testing.T, s *Store) (*Store, *peer) {
	t.Helper()
	store, err := storage.Open(storage.NewMemory(), storage.Options{})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	log, err := hypercore.Open(store, hypercore.Options{Manifest: s.own.log.Manifest(), Session: hypercore.SessionOptions{EncryptionKey: &secret}})
	must(t, err)
	t.Cleanup(func() { log.Close() })
	p := &peer{log: log, from: s.own.log}
	log.SetSource(p)
	out := New(s.o)
	must(t, out.Add(log, 0))
	return out, p
}

func TestRangesFetchWhatTheyNeed(t *testing.T) {
	near := newStore(t, Options{ChunkSize: 1 << 10})
	data := randomBytes(1, 2<<20)
	write(t, near, Ref{}, randomBytes(2, 100_000))
	ref := write(t, near, Ref{}, data)
	s, p := far(t, near)
	if n, err := s.Missing(t.Context(), ref); n != ref.Size || err != nil {
		t.Errorf("%d bytes are missing (%v)", n, err)
	}
	r, err := s.NewReader(t.Context(), ref)
	must(t, err)
	defer r.Close()
	got := make([]byte, 3000)
	n, err := r.ReadAt(got, 1<<20)
	if n != len(got) || err != nil || !bytes.Equal(got, data[1<<20:][:n]) {
		t.Fatalf("read %d bytes (%v)", n, err)
	}
	if n := p.count(); n > 12+int(ref.depth) {
		t.Errorf("3000 bytes took %d blocks", n)
	}
	before := p.count()
	if _, err := r.ReadAt(got, 1<<20); err != nil || p.count() != before {
		t.Errorf("what is here was fetched again (%v)", err)
	}
	var all bytes.Buffer
	if _, err := r.WriteTo(&all); err != nil || !bytes.Equal(all.Bytes(), data) {
		t.Errorf("got %d bytes (%v)", all.Len(), err)
	}
	if n, err := s.Missing(t.Context(), ref); n != 0 || err != nil {
		t.Errorf("%d bytes are missing (%v)", n, err)
	}
}

func TestReadersFetchAhead(t *testing.T) {
	near := newStore(t, Options{ChunkSize: 1 << 10})
	data := randomBytes(1, 300_000)
	ref := write(t, near, Ref{}, data)
	s, p := far(t, near)
	r, err := s.NewReader(t.Context(), ref)
	must(t, err)
	got := make([]byte, 10)
	_, err = io.ReadFull(r, got)
	must(t, err)
	r.ahead.done.Wait() // what is fetched ahead is here then
	if n := p.count(); n < 30 {
		t.Errorf("%d blocks were fetched only", n)
	}
	must(t, r.Close())
}

func TestDownloadBringsContentsWhole(t *testing.T) {
	near := newStore(t, Options{ChunkSize: 256})
	var refs []Ref
	for i, size := range []int{0, 10, 100_000, 5, 300_000} {
		refs = append(refs, write(t, near, Ref{}, randomBytes(uint64(i), size)))
	}
	write(t, near, Ref{}, randomBytes(99, 50_000)) // not asked for
	s, p := far(t, near)
	must(t, s.Download(t.Context(), refs...))
	p.log.SetSource(nil)
	for i, size := range []int{0, 10, 100_000, 5, 300_000} {
		wantContent(t, s, refs[i], randomBytes(uint64(i), size))
	}
	if held := int(near.own.log.Length()) - p.count(); held < 100 {
		t.Errorf("all but %d blocks were fetched", held)
	}
}

// What peers bring while a sweep goes on is left alone, whether it was known to keep
// or not.
func TestSweepLeavesWhatComesMeanwhile(t *testing.T) {
	near := newStore(t, Options{ChunkSize: 256})
	early, late := write(t, near, Ref{}, randomBytes(1, 5000)), write(t, near, Ref{}, randomBytes(2, 5000))
	s, _ := far(t, near)
	must(t, s.Download(t.Context(), early))
	swept, err := s.Sweep(t.Context(), func(func(Ref, error) bool) { must(t, s.Download(t.Context(), late)) })
	must(t, err)
	if n, err := s.Missing(t.Context(), late); n != 0 || err != nil {
		t.Errorf("%d bytes of what came meanwhile are gone (%v)", n, err)
	}
	if n, err := s.Missing(t.Context(), early); n != early.Size || err != nil || swept.Bytes == 0 {
		t.Errorf("%d bytes of what was there are gone (%v)", n, err)
	}
}
