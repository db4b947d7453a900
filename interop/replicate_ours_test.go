package interop_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/protomux"
	"github.com/cloudbevy/bevy/hyper/replicate"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/hyper/transport"
)

// ourSide is a side of ours: a store on disk.
type ourSide struct {
	t        *testing.T
	ctx      context.Context
	store    *corestore.Store
	logs     map[string]*hypercore.Log
	received map[string]*atomic.Int64 // blocks, by log
	number   byte

	mu      sync.Mutex
	streams sync.WaitGroup
	cuts    []func()              // guarded by mu: they end connections and wait
	ended   []error               // guarded by mu: why connections ended
	dropped []replicate.PeerInfo  // guarded by mu
	sent    map[hypercore.Key]int // guarded by mu: blocks, over connections that are gone
	begun   int                   // guarded by mu: connections that carry logs, or did
}

func startOurSide(t *testing.T, o replicate.Options) *ourSide {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &ourSide{t: t, ctx: ctx, logs: make(map[string]*hypercore.Log), sent: make(map[hypercore.Key]int), received: make(map[string]*atomic.Int64)}
	o.Dropped = func(p replicate.PeerInfo) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.dropped = append(s.dropped, p)
	}
	store, err := corestore.OpenDisk(storage.Disk{Dir: t.TempDir()}, corestore.Options{Replicate: o})
	if err != nil {
		t.Fatal(err)
	}
	s.store = store
	t.Cleanup(func() {
		cancel()
		s.streams.Wait()
		for name, l := range s.logs {
			if err := l.Close(); err != nil {
				t.Errorf("close %s: %v", name, err)
			}
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *ourSide) String() string { return "Bevy" }

func (s *ourSide) takes(kind, bool) bool { return true }

func (s *ourSide) patient() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(s.ctx, patience, errors.New("it took too long"))
}

// must ends the test with what the connections were when it does not go well.
func (s *ourSide) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%v: %v; %s", s, err, s.trouble())
	}
}

func (s *ourSide) trouble() string {
	s.mu.Lock()
	ended := errors.Join(s.ended...)
	dropped := fmt.Sprintf("%+v", s.dropped)
	s.mu.Unlock()
	return fmt.Sprintf("peers: %+v; connections ended: %v; dropped: %s", s.store.Peers(), ended, dropped)
}

func (s *ourSide) log(name string) *hypercore.Log {
	s.t.Helper()
	l, ok := s.logs[name]
	if !ok {
		s.t.Fatalf("no log is named %s", name)
	}
	return l
}

func (s *ourSide) open(name string, k kind, key string) string {
	s.t.Helper()
	o := corestore.LogOptions{Durability: hypercore.Soon, Session: k.ours.Session}
	if key == "" {
		o.KeyPair, o.Manifest, o.Compat = k.ours.KeyPair, k.ours.Manifest, k.ours.Compat
	} else {
		k := hypercore.Key(key32(s.t, key))
		o.Key = &k
	}
	l, err := s.store.Get(o)
	s.must(err)
	received := new(atomic.Int64)
	s.logs[name], s.received[name] = l, received
	_, err = l.Notify(func(e hypercore.Event) {
		if e.Kind == hypercore.Received {
			received.Add(int64(e.Range.End - e.Range.Start))
		}
	})
	s.must(err)
	is := l.Key()
	return hex.EncodeToString(is[:])
}

func (s *ourSide) append(name string, blocks ...[]byte) {
	s.t.Helper()
	_, err := s.log(name).AppendWith(s.ctx, hypercore.AppendOptions{Durability: hypercore.Soon}, blocks...)
	s.must(err)
}

func (s *ourSide) quorum(name string, signature []byte, blocks ...[]byte) {
	s.t.Helper()
	_, err := s.log(name).AppendWith(s.ctx, hypercore.AppendOptions{Durability: hypercore.Soon, Signature: signature}, blocks...)
	s.must(err)
}

func (s *ourSide) generate(name string, g generated) {
	s.t.Helper()
	batch := max(g.Batch, 64)
	for i := g.From; i < g.To; {
		var blocks [][]byte
		for ; i < g.To && len(blocks) < batch; i++ {
			blocks = append(blocks, g.block(i))
		}
		s.append(name, blocks...)
	}
}

func (s *ourSide) truncate(name string, length uint64) {
	s.t.Helper()
	s.must(s.log(name).Truncate(s.ctx, length, hypercore.TruncateOptions{}))
}

func (s *ourSide) clear(name string, from, to uint64) {
	s.t.Helper()
	_, err := s.log(name).Clear(s.ctx, from, to)
	s.must(err)
}

func (s *ourSide) snapshot(name, as string) {
	s.t.Helper()
	l, err := s.log(name).Snapshot()
	s.must(err)
	s.logs[as] = l
}

func (s *ourSide) head(name string) head {
	s.t.Helper()
	return headOf(s.log(name))
}

func (s *ourSide) get(name string, index uint64) []byte {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	b, err := s.log(name).Get(ctx, index)
	s.must(err)
	return b
}

func (s *ourSide) tryGet(name string, index uint64) ([]byte, bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 300*time.Millisecond)
	defer cancel()
	b, err := s.log(name).Get(ctx, index)
	return b, err == nil
}

func (s *ourSide) stored(name string, index uint64) []byte {
	s.t.Helper()
	b, err := s.log(name).Stored(s.ctx, index)
	if errors.Is(err, hypercore.ErrNotFound) {
		return nil
	}
	s.must(err)
	return b
}

func (s *ourSide) gets(name string, indices []uint64) string {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	blocks, errs := make([][]byte, len(indices)), make([]error, len(indices))
	var all sync.WaitGroup
	for i, index := range indices {
		all.Go(func() { blocks[i], errs[i] = s.log(name).Get(ctx, index) })
	}
	all.Wait()
	s.must(errors.Join(errs...))
	d := newDigest()
	for _, b := range blocks {
		d.add(b)
	}
	return d.String()
}

func (s *ourSide) digest(name string, to uint64) string {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	d := newDigest()
	if to > 0 {
		for b, err := range s.log(name).Blocks(ctx, hypercore.BlockRange{To: to}) {
			s.must(err)
			d.add(b.Data)
		}
	}
	return d.String()
}

func (s *ourSide) held(name string) (out []hypercore.Range) {
	s.t.Helper()
	l := s.log(name)
	for from := uint64(0); ; {
		r, ok := l.NextHeld(from)
		if !ok {
			return out
		}
		out = append(out, r)
		from = r.End
	}
}

func (s *ourSide) seek(name string, pos uint64) place {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	block, offset, err := s.log(name).Seek(ctx, pos)
	s.must(err)
	return place{block, offset}
}

func (s *ourSide) read(name string, from, length uint64) string {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	r := s.log(name).NewReader(ctx)
	if _, err := r.Seek(int64(from), io.SeekStart); err != nil {
		s.must(err)
	}
	p := make([]byte, length)
	_, err := io.ReadFull(r, p)
	s.must(err)
	return sum(p)
}

func (s *ourSide) update(name string) {
	s.t.Helper()
	ctx, cancel := s.patient()
	defer cancel()
	s.must(s.log(name).Update(ctx))
}

func (s *ourSide) download(name string, from, to uint64) {
	s.t.Helper()
	if from == to {
		return // to 0 is all
	}
	ctx, cancel := s.patient()
	defer cancel()
	s.must(s.log(name).Download(ctx, hypercore.DownloadRange{From: from, To: to}))
}

func (s *ourSide) follow(name string) {
	s.t.Helper()
	l := s.log(name)
	s.streams.Go(func() {
		err := l.Download(s.ctx, hypercore.DownloadRange{Live: true})
		if err != nil && s.ctx.Err() == nil {
			s.end(fmt.Errorf("follow %s: %w", name, err))
		}
	})
}

func (s *ourSide) await(name string, c condition) {
	s.t.Helper()
	l := s.log(name)
	w, err := l.Watch()
	s.must(err)
	defer w.Close()
	ctx, cancel := s.patient()
	defer cancel()
	for ctx.Err() == nil {
		h := l.Head()
		if h.Length >= c.Length && h.Fork >= c.Fork && l.Contiguous() >= c.ContiguousLength && s.counted(name).downloaded >= c.Downloaded {
			return
		}
		// Not all that is counted comes with an event.
		moment, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		_, err := w.Next(moment)
		cancel()
		if err != nil && moment.Err() == nil {
			s.must(err)
		}
	}
	s.t.Fatalf("%v: %s is %v, contiguous to %d, want %+v; %s", s, name, headOf(l), l.Contiguous(), c, s.trouble())
}

func (s *ourSide) counted(name string) (out counters) {
	s.t.Helper()
	key := s.log(name).Key()
	s.mu.Lock()
	defer s.mu.Unlock()
	out.downloaded, out.uploaded = int(s.received[name].Load()), s.sent[key]
	for _, p := range s.store.Peers() {
		if p.Log == key {
			out.uploaded += int(p.BlocksUp)
			if p.Open {
				out.peers++
			}
		}
	}
	return out
}

func (s *ourSide) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, err)
}

// carry replicates over a connection until it ends.
func (s *ourSide) carry(conn transport.Conn, begin func(context.Context, io.ReadWriteCloser, secretstream.Options) (*secretstream.Stream, error), begun chan<- error) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan bool)
	s.mu.Lock()
	s.number++
	seed := [32]byte{0xb0, s.number}
	s.cuts = append(s.cuts, func() {
		cancel()
		<-done
	})
	s.mu.Unlock()
	s.streams.Go(func() {
		defer close(done)
		defer cancel()
		stream, err := begin(ctx, conn, secretstream.Options{KeyPair: noise.NewKeyPair(seed)})
		if err == nil {
			err = s.store.Replicate(ctx, stream, corestore.ReplicateOptions{Attached: func(*protomux.Mux) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.begun++
				begun <- nil
			}})
		}
		select {
		case begun <- err: // it never began
		default:
		}
		s.end(err)
	})
}

func (s *ourSide) listen() int {
	s.t.Helper()
	l, err := transport.Listen(s.ctx, "tcp://127.0.0.1:0", transport.ListenOptions{})
	s.must(err)
	s.streams.Go(func() {
		for {
			conn, err := l.Accept(s.ctx)
			if err != nil {
				l.Close()
				return
			}
			s.carry(conn, func(ctx context.Context, c io.ReadWriteCloser, o secretstream.Options) (*secretstream.Stream, error) {
				return secretstream.Server(ctx, c, o)
			}, make(chan error, 1))
		}
	})
	var port int
	_, err = fmt.Sscanf(l.Addr(), "tcp://127.0.0.1:%d", &port)
	s.must(err)
	return port
}

func (s *ourSide) connect(port int) {
	s.t.Helper()
	conn, err := transport.Dial(s.ctx, fmt.Sprintf("tcp://127.0.0.1:%d", port), transport.DialOptions{})
	s.must(err)
	begun := make(chan error, 1)
	s.carry(conn, func(ctx context.Context, c io.ReadWriteCloser, o secretstream.Options) (*secretstream.Stream, error) {
		return secretstream.Client(ctx, c, o)
	}, begun)
	s.must(<-begun)
}

func (s *ourSide) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// cut counts what the connections that it ends have carried, without what came since.
func (s *ourSide) cut() {
	s.t.Helper()
	s.mu.Lock()
	for _, p := range s.store.Peers() {
		s.sent[p.Log] += int(p.BlocksUp)
	}
	cuts := s.cuts
	s.cuts = nil
	s.mu.Unlock()
	for _, cut := range cuts {
		cut()
	}
}

// ourPairs are those of one of Node and one of ours, and of two of ours.
func ourPairs() map[string]func(t *testing.T, single bool) (w, r side) {
	ours := func(t *testing.T) side { return startOurSide(t, replicate.Options{}) }
	pairs := map[string]func(t *testing.T, single bool) (w, r side){
		"Bevy to Bevy": func(t *testing.T, _ bool) (w, r side) { return ours(t), ours(t) },
	}
	for _, pkg := range []string{"11", "10"} {
		pairs["Node "+pkg+" to Bevy"] = func(t *testing.T, single bool) (w, r side) {
			return startNodeSide(t, pkg, single), ours(t)
		}
		pairs["Bevy to Node "+pkg] = func(t *testing.T, single bool) (w, r side) {
			return ours(t), startNodeSide(t, pkg, single)
		}
	}
	return pairs
}

func TestBevyReplicatesWithNode(t *testing.T) {
	for name, fresh := range ourPairs() {
		many := 100_000
		if strings.Contains(name, "10") {
			many = 5_000 * long(20)
		}
		replicateAll(t, many, map[string]func(t *testing.T, single bool) (w, r side){name: fresh})
	}
}
