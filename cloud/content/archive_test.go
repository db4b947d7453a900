package content

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// A vault is an archive: a peer that is asked for what others do not bring.
type vault struct {
	*peer
	mu    sync.Mutex
	err   error
	empty bool
	asked int
}

func (v *vault) Ready() bool { return !v.empty }

func (v *vault) Bring(ctx context.Context, log *hypercore.Log, blocks *runs.Set) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked++; v.err != nil {
		return v.err
	}
	for r := range blocks.All() {
		if err := v.FetchRange(ctx, hypercore.DownloadRange{From: r.Start, To: r.End}); err != nil {
			return err
		}
	}
	return nil
}

func (v *vault) set(err error) (asked int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
	asked, v.asked = v.asked, 0
	return asked
}

// silent is a source that has nothing, and waits for who does.
type silent struct{ *peer }

func (silent) FetchBlock(ctx context.Context, _ uint64) error {
	<-ctx.Done()
	return ctx.Err()
}

func (s silent) FetchRange(ctx context.Context, _ hypercore.DownloadRange) error {
	return s.FetchBlock(ctx, 0)
}

func TestWhatNoPeerHasComesFromTheArchive(t *testing.T) {
	clk := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	v := &vault{}
	from := newStore(t, Options{ChunkSize: 512, Clock: clk, Archive: v})
	data := randomBytes(3, 20_000)
	ref := write(t, from, Ref{}, data)
	to, p := far(t, from)
	v.peer = &peer{log: p.log, from: p.from}
	must(t, p.FetchHead(t.Context()))

	// With no peer at all it is asked at once.
	p.log.SetSource(nil)
	wantContent(t, to, ref, data)
	if n := v.set(nil); n == 0 {
		t.Error("the archive was not asked")
	}
	clearAll := func() {
		t.Helper()
		_, err := to.Clear(t.Context(), ref)
		must(t, err)
	}

	// Peers that have nothing are waited for, once.
	clearAll()
	p.log.SetSource(silent{p})
	done := make(chan error, 1)
	go func() {
		_, err := to.Get(t.Context(), ref, 1<<20)
		done <- err
	}()
	for waiting := true; waiting; {
		select {
		case err := <-done:
			must(t, err)
			waiting = false
		default:
			if clk.Waiting() > 0 {
				clk.Advance(peersPatience)
			}
		}
	}
	if clk.Now().After(time.Date(2026, 11, 23, 12, 0, 10, 0, time.UTC)) {
		t.Errorf("it took until %v", clk.Now())
	}
	v.set(nil)

	// Peers that have it are asked first.
	clk.Advance(2 * archiveFirst)
	clearAll()
	p.log.SetSource(p)
	wantContent(t, to, ref, data)
	if n := v.set(nil); n != 0 {
		t.Errorf("the archive was asked %d times though a peer has all", n)
	}

	// An archive that can't be reached says why; one that has it not leads back to peers.
	clearAll()
	p.log.SetSource(nil)
	away := errors.New("it does not answer")
	v.set(away)
	if _, err := to.Get(t.Context(), ref, 1<<20); !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
	v.set(ErrNotFound)
	if err := to.Download(t.Context(), ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
	v.set(nil)
	must(t, to.Download(t.Context(), ref))

	// What is checked and not found elsewhere is not cleared.
	no := errors.New("only here")
	if n, err := to.ClearChecked(t.Context(), func(context.Context, *hypercore.Log, *runs.Set) error { return no }, ref); n != 0 || !errors.Is(err, no) {
		t.Errorf("freed %d: %v", n, err)
	}
	wantContent(t, to, ref, data)
	var seen uint64
	n, err := to.ClearChecked(t.Context(), func(_ context.Context, _ *hypercore.Log, blocks *runs.Set) error {
		seen += count(blocks)
		return nil
	}, ref)
	if must(t, err); n < int64(len(data)) || seen == 0 {
		t.Errorf("freed %d bytes of %d blocks", n, seen)
	}
}
