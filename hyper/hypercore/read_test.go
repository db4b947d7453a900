package hypercore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/cloudbevy/bevy/hyper/merkle"
)

// sizePatterns are sizes of blocks, where empty ones lie in all places.
var sizePatterns = [][]int{
	{}, {0}, {0, 0, 0}, {1}, {5}, {0, 3}, {3, 0}, {0, 0, 3, 0, 0, 4, 0}, {1, 1, 1, 1, 1, 1, 1, 1, 1},
	{10, 200, 3, 0, 0, 1000}, {0, 17 << 10, 0, 1, 30, 0, 0, 0, 2}, {40, 40, 40},
}

func logOfSizes(t testing.TB, sizes []int, secret *[32]byte) (l *Log, all []byte) {
	t.Helper()
	kp := keyPairN(1)
	l = testLog(t, Options{KeyPair: &kp, Session: SessionOptions{EncryptionKey: secret}})
	rng := rand.New(rand.NewPCG(uint64(len(sizes)), 1))
	for _, size := range sizes {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		appendTo(t, l, string(b))
		all = append(all, b...)
	}
	return l, all
}

func TestReaderReadsAsAFileDoes(t *testing.T) {
	for i, sizes := range sizePatterns {
		for _, secret := range []*[32]byte{nil, {3}} {
			t.Run(fmt.Sprint(i, secret != nil), func(t *testing.T) {
				l, all := logOfSizes(t, sizes, secret)
				ctx := context.Background()
				if err := iotest.TestReader(l.NewReader(ctx), all); err != nil {
					t.Error(err)
				}
				r := l.NewReader(ctx)
				if r.Size() != int64(len(all)) {
					t.Errorf("size %d, want %d", r.Size(), len(all))
				}
				for _, from := range []int{0, 1, len(all) / 2, len(all), len(all) + 5} {
					if _, err := r.Seek(int64(from), io.SeekStart); err != nil {
						t.Fatal(err)
					}
					var out bytes.Buffer
					want := all[min(from, len(all)):]
					if n, err := r.WriteTo(&out); err != nil || n != int64(len(want)) || !bytes.Equal(out.Bytes(), want) {
						t.Errorf("write to from %d: %d, %v", from, n, err)
					}
				}
				if _, err := r.Seek(-1, io.SeekStart); err == nil {
					t.Error("seek before the start")
				}
				if _, err := r.Seek(0, 7); err == nil {
					t.Error("seek from nowhere")
				}
				if _, err := r.ReadAt(nil, -1); err == nil {
					t.Error("read before the start")
				}
			})
		}
	}
}

func TestReadAtFromManyGoroutines(t *testing.T) {
	l, all := logOfSizes(t, []int{10, 0, 300, 7, 0, 0, 2000, 1, 64}, &[32]byte{1})
	r := l.NewReader(context.Background())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 2))
			for range 100 {
				p := make([]byte, rng.IntN(500))
				off := rng.IntN(len(all))
				n, err := r.ReadAt(p, int64(off))
				want := all[off:min(off+len(p), len(all))]
				if !bytes.Equal(p[:n], want) || (n < len(p)) != (err == io.EOF) {
					t.Errorf("read %d at %d: %d, %v", len(p), off, n, err)
				}
			}
		})
	}
	wg.Wait()
}

// A halfWriter takes half of what it gets and says nothing.
type halfWriter struct{}

func (halfWriter) Write(p []byte) (int, error) { return len(p) / 2, nil }

func TestReaderNoticesAShortWrite(t *testing.T) {
	l := writerOf(t, 20)
	if _, err := l.NewReader(context.Background()).WriteTo(halfWriter{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

// TestSeekEqualsModel compares Seek, ByteOffset and ByteLength with slices.
func TestSeekEqualsModel(t *testing.T) {
	ctx := context.Background()
	for i, sizes := range sizePatterns {
		for _, secret := range []*[32]byte{nil, {3}} {
			l, all := logOfSizes(t, sizes, secret)
			at := 0
			for k, size := range append(slices.Clone(sizes), 0) {
				if got, err := l.ByteOffset(uint64(k)); err != nil || got != uint64(at) {
					t.Errorf("pattern %d: block %d begins at %d, %v, want %d", i, k, got, err, at)
				}
				for o := range min(size, 50) {
					block, offset, err := l.Seek(ctx, uint64(at+o))
					if err != nil {
						t.Fatal(err)
					}
					// Empty blocks before it begin at the same byte.
					start, err := l.ByteOffset(block)
					if err != nil || start+offset != uint64(at+o) || block > uint64(k) || block < uint64(k) && o > 0 {
						t.Errorf("pattern %d: byte %d is in block %d at %d, want %d at %d", i, at+o, block, offset, k, o)
					}
				}
				at += size
			}
			if block, offset, err := l.Seek(ctx, uint64(len(all))); err != nil || offset != 0 || block > l.Length() {
				t.Errorf("pattern %d: the end is block %d, %d, %v", i, block, offset, err)
			}
			if _, _, err := l.Seek(ctx, uint64(len(all)+1)); !errors.Is(err, ErrLength) {
				t.Errorf("pattern %d: beyond the end: %v", i, err)
			}
			if _, err := l.ByteOffset(l.Length() + 1); !errors.Is(err, ErrLength) {
				t.Errorf("pattern %d: block beyond the end: %v", i, err)
			}
		}
	}
}

func TestWriterCutsBlocks(t *testing.T) {
	ctx := context.Background()
	data := make([]byte, 10<<20+77)
	rng := rand.New(rand.NewPCG(1, 3))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for _, c := range []struct{ size, chunk, n int }{{0, 100_000, len(data)}, {7, 3, 1000}, {1, 9, 50}, {4096, 1 << 20, 1 << 20}, {10, 10, 100}} {
		l := writerOf(t, 0)
		w := l.NewWriter(ctx, c.size, AppendOptions{Durability: Soon})
		for part := range slices.Chunk(data[:c.n], c.chunk) {
			if n, err := w.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		size := max(c.size, 1)
		if c.size == 0 {
			size = 64 << 10
		}
		if want := (c.n + size - 1) / size; l.Length() != uint64(want) {
			t.Errorf("blocks of %d bytes: %d, want %d", size, l.Length(), want)
		}
		got, err := io.ReadAll(l.NewReader(ctx))
		if err != nil || !bytes.Equal(got, data[:c.n]) {
			t.Errorf("blocks of %d bytes: read %d bytes, %v", size, len(got), err)
		}
	}
	l := writerOf(t, 0)
	w := l.NewWriter(ctx, 4, AppendOptions{})
	for _, s := range []string{"abcdef", "g", ""} {
		if _, err := io.WriteString(w, s); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	wantContents(t, l, "abcd ef g")
	w = l.NewWriter(ctx, 4, AppendOptions{MaxLength: 3})
	if _, err := io.WriteString(w, "x"); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); !errors.Is(err, ErrLength) {
		t.Errorf("flush: %v", err)
	}
	if _, err := io.WriteString(w, "y"); !errors.Is(err, ErrLength) {
		t.Errorf("write after an error: %v", err)
	}
}

func indices(t testing.TB, l *Log, r BlockRange) (out []uint64, err error) {
	t.Helper()
	for b, err := range l.Blocks(context.Background(), r) {
		if err != nil {
			return out, err
		}
		out = append(out, b.Index)
		if string(b.Data) != fmt.Sprint(b.Index) {
			t.Errorf("block %d is %q", b.Index, b.Data)
		}
	}
	return out, nil
}

func TestBlocksReturnsRanges(t *testing.T) {
	l := writerOf(t, 6)
	snap, err := l.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	appendNumbers(t, l, 1)
	for _, c := range []struct {
		l    *Log
		r    BlockRange
		want []uint64
	}{
		{l, BlockRange{}, []uint64{0, 1, 2, 3, 4, 5, 6}},
		{l, BlockRange{From: 3}, []uint64{3, 4, 5, 6}},
		{l, BlockRange{From: 3, To: 5}, []uint64{3, 4}},
		{l, BlockRange{From: 5, To: 3}, nil},
		{l, BlockRange{From: 9}, nil},
		{l, BlockRange{Reverse: true}, []uint64{6, 5, 4, 3, 2, 1, 0}},
		{l, BlockRange{From: 2, To: 4, Reverse: true}, []uint64{3, 2}},
		{l, BlockRange{From: 2, To: 400, Reverse: true}, []uint64{6, 5, 4, 3, 2}},
		{l, BlockRange{From: 2, To: 4, Live: true}, []uint64{2, 3}},
		{snap, BlockRange{From: 4}, []uint64{4, 5}},
		{snap, BlockRange{From: 4, Live: true}, []uint64{4, 5}},
	} {
		if got, err := indices(t, c.l, c.r); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: %d, %v, want %d", c.r, got, err, c.want)
		}
	}
	if got, err := indices(t, l, BlockRange{From: 5, To: 9}); !errors.Is(err, ErrNotFound) || !slices.Equal(got, []uint64{5, 6}) {
		t.Errorf("beyond the end: %d, %v", got, err)
	}
	if _, err := indices(t, l, BlockRange{Live: true, Reverse: true}); err == nil {
		t.Error("a live range in reverse")
	}
	for range l.Blocks(context.Background(), BlockRange{Live: true}) {
		break // which ends it
	}
	if len(l.c.watchers) != 0 {
		t.Error("a watcher is left")
	}
}

func TestLiveBlocksFollowAndEndAtATruncation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		kp := keyPairN(1)
		l, err := Open(memoryStore(t), Options{KeyPair: &kp})
		if err != nil {
			t.Fatal(err)
		}
		appendNumbers(t, l, 2)
		got, ended := make(chan string, 100), make(chan error, 1)
		follow := func(ctx context.Context, r BlockRange) {
			go func() {
				for b, err := range l.Blocks(ctx, r) {
					if err != nil {
						ended <- err
						return
					}
					got <- string(b.Data)
				}
				ended <- nil
			}()
		}
		want := func(blocks ...string) {
			t.Helper()
			synctest.Wait()
			for _, b := range blocks {
				if g := <-got; g != b {
					t.Errorf("got %q, want %q", g, b)
				}
			}
			if len(got) != 0 {
				t.Errorf("%d blocks more", len(got))
			}
		}
		follow(ctx, BlockRange{Live: true})
		want("0", "1")
		appendNumbers(t, l, 2)
		want("2", "3")
		// Cut to where it stands: nothing that it gave is gone.
		if err := l.Truncate(ctx, 4, TruncateOptions{}); err != nil {
			t.Fatal(err)
		}
		appendTo(t, l, "four")
		want("four")
		if err := l.Truncate(ctx, 3, TruncateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ErrTruncated) {
			t.Errorf("ended with %v", err)
		}
		want()
		// Also when the log has grown over it before anyone looks.
		follow(ctx, BlockRange{From: 2, Live: true})
		want("2")
		if err := l.Truncate(ctx, 1, TruncateOptions{}); err != nil {
			t.Fatal(err)
		}
		for range 9 {
			appendTo(t, l, "other")
		}
		if err := <-ended; !errors.Is(err, ErrTruncated) {
			t.Errorf("ended with %v", err)
		}
		want()
		follow(ctx, BlockRange{From: 9, To: 11, Live: true})
		want("other")
		appendTo(t, l, "10", "11")
		want("10")
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
		follow(ctx, BlockRange{From: 12, Live: true})
		want()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		follow(context.Background(), BlockRange{From: 12, Live: true})
		synctest.Wait()
		closeAll(t, l)
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	})
}

// A consumer that is slow must not be given blocks of two histories.
func TestLiveBlocksNeverMixHistories(t *testing.T) {
	ctx := context.Background()
	l := writerOf(t, 4)
	n := 0
	for b, err := range l.Blocks(ctx, BlockRange{Live: true}) {
		if err != nil {
			if !errors.Is(err, ErrTruncated) || n != 2 {
				t.Errorf("after %d blocks: %v", n, err)
			}
			break
		}
		if n++; n == 2 {
			if err := l.Truncate(ctx, 1, TruncateOptions{}); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				appendTo(t, l, "other")
			}
		}
		if n > 2 {
			t.Fatalf("block %d is %q", b.Index, b.Data)
		}
	}
}

// fakeSource brings what a writer has.
type fakeSource struct {
	t                   testing.TB
	r, w                *Log
	err                 error
	blocks, seeks, head int

	ranges bool // FetchRange brings something
	mu     sync.Mutex
}

func (s *fakeSource) FetchBlock(_ context.Context, index uint64) error {
	s.blocks++
	if s.err == nil && index < s.r.Length() {
		mustApply(s.t, s.r, prove(s.t, s.w, blockRequest(s.t, s.r, index)))
	}
	return s.err
}

func (s *fakeSource) FetchSeek(_ context.Context, pos, padding uint64, r Range) error {
	s.seeks++
	if s.err != nil {
		return s.err
	}
	root := uint64(0)
	for _, n := range s.r.Head().Roots {
		if under(n.Index).Start <= r.Start && r.End <= under(n.Index).End {
			root = n.Index
		}
	}
	levels := uint64(merkle.Depth(root))
	p, err := s.w.Prove(context.Background(), merkle.Request{Seek: &merkle.SeekRequest{Bytes: pos, Padding: padding}, Hash: &merkle.NodeRequest{Index: 2 * r.Start, Nodes: levels}}, false)
	if err != nil {
		return err
	}
	mustApply(s.t, s.r, p)
	return nil
}

func (s *fakeSource) FetchRange(ctx context.Context, d DownloadRange) error {
	if !s.ranges {
		return nil // who reads ahead finds nothing
	}
	s.mu.Lock() // of several at once
	defer s.mu.Unlock()
	for i := d.From; i < d.To; i++ {
		if err := s.FetchBlock(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeSource) FetchHead(context.Context) error {
	s.head++
	if s.err == nil && s.r.Length() < s.w.Length() {
		upgradeTo(s.t, s.r, s.w)
	}
	return s.err
}

func TestDownload(t *testing.T) {
	ctx := context.Background()
	kp := keyPairN(1)
	w := testLog(t, Options{KeyPair: &kp})
	appendNumbers(t, w, 20)
	key := w.Key()
	r := testLog(t, Options{Key: &key, Manifest: w.Manifest()})
	upgradeTo(t, r, w)
	if err := r.Download(ctx, DownloadRange{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("download without a source: %v", err)
	}
	s := &fakeSource{t: t, r: r, w: w, ranges: true}
	r.SetSource(s)
	if err := r.Download(ctx, DownloadRange{From: 2, To: 5}, DownloadRange{From: 9, To: 10}); err != nil || s.blocks != 4 || !r.Has(4) || !r.Has(9) || r.Has(5) {
		t.Errorf("download: %v, %d blocks", err, s.blocks)
	}
	if err := r.Download(ctx, DownloadRange{From: 2, To: 5}); err != nil || s.blocks != 4 {
		t.Errorf("download what is here: %v, %d blocks", err, s.blocks)
	}
	if err := r.Download(ctx, DownloadRange{}); err != nil || r.Contiguous() != 20 {
		t.Errorf("download all: %v, %d blocks", err, r.Contiguous())
	}
	s.err = errors.New("offline")
	if err := r.Download(ctx, DownloadRange{To: 30}); !errors.Is(err, s.err) {
		t.Errorf("download from a source that fails: %v", err)
	}
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	if err := snap.Download(ctx, DownloadRange{}); !errors.Is(err, ErrNotWritable) {
		t.Errorf("download a snapshot: %v", err)
	}
}

func TestSourceBringsWhatIsMissing(t *testing.T) {
	ctx := context.Background()
	for _, secret := range []*[32]byte{nil, {3}} {
		kp := keyPairN(1)
		o := SessionOptions{EncryptionKey: secret}
		w := testLog(t, Options{KeyPair: &kp, Session: o})
		appendNumbers(t, w, 64)
		key := w.Key()
		r := testLog(t, Options{Key: &key, Manifest: w.Manifest(), Session: o})
		if err := r.Update(ctx); err != nil {
			t.Errorf("update without a source: %v", err)
		}
		s := &fakeSource{t: t, r: r, w: w}
		r.SetSource(s)
		if err := r.Update(ctx); err != nil || s.head != 1 || r.Length() != 64 {
			t.Errorf("update: %v, %d calls, length %d", err, s.head, r.Length())
		}
		for range 2 {
			if got, err := r.Get(ctx, 40); err != nil || string(got) != "40" || s.blocks != 1 {
				t.Errorf("get: %q, %v, %d calls", got, err, s.blocks)
			}
		}
		// Bytes 0 to 9 are blocks of one byte, then each has two.
		if block, offset, err := r.Seek(ctx, 10+2*25+1); err != nil || block != 35 || offset != 1 || s.seeks == 0 {
			t.Errorf("seek: block %d, byte %d, %v, %d calls", block, offset, err, s.seeks)
		}
		got, err := io.ReadAll(r.NewReader(ctx))
		if want, _ := io.ReadAll(w.NewReader(ctx)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %q, %v", got, err)
		}
		holdsOnly(t, r, w)
		s.blocks = 0
		if _, err := r.Get(ctx, 70); !errors.Is(err, ErrNotFound) {
			t.Errorf("get what the source does not bring: %v", err)
		}
		s.err = errors.New("offline")
		for what, err := range map[string]error{
			"get":    second(r.Get(ctx, 64)),
			"update": r.Update(ctx),
		} {
			if !errors.Is(err, s.err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, err := r.Clear(ctx, 0, 64); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Seek(ctx, 20000); !errors.Is(err, s.err) {
			t.Errorf("seek: %v", err)
		}
		r.SetSource(nil)
		if _, err := r.Get(ctx, 40); !errors.Is(err, ErrNotFound) {
			t.Errorf("get without a source: %v", err)
		}
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := w.Get(canceled, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("get with a context that ended: %v", err)
		}
	}
}
