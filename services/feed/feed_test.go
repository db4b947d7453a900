package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A memory is a state that may be power cut: kept is what is on the disk.
type memory struct {
	mu   sync.Mutex
	kept []byte
	full bool
}

func (m *memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kept == nil {
		return nil, fs.ErrNotExist
	}
	return m.kept, nil
}

func (m *memory) Save(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return errors.New("disk full")
	}
	m.kept = append([]byte(nil), b...)
	return nil
}

// A counter is a source that counts: its n-th change has n as data and cursor.
type counter struct {
	mu     sync.Mutex
	known  int
	oldest int // what is before is kept no more
	broken bool
	rare   int // only each so many counts
	opened int
	calls  map[int]func()
	next   int
}

func (c *counter) open(_ context.Context, _, name string) (Source, error) {
	if name != "bucket:numbers" {
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened++
	return c, nil
}

func (c *counter) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened--
	return nil
}

func (c *counter) Cursor(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strconv.Itoa(c.known), nil
}

func (c *counter) Changes(_ context.Context, cursor string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		n := 0
		if cursor != "" {
			var err error
			if n, err = strconv.Atoi(cursor); err != nil {
				yield(Change{}, ErrGone)
				return
			}
		}
		for {
			c.mu.Lock()
			known, oldest, broken := c.known, c.oldest, c.broken
			c.mu.Unlock()
			switch {
			case broken:
				yield(Change{}, errors.New("the source is broken"))
				return
			case n < oldest:
				yield(Change{}, fmt.Errorf("%d: %w", n, ErrGone))
				return
			case n >= known:
				return
			}
			n++
			change := Change{Cursor: strconv.Itoa(n), Data: json.RawMessage(strconv.Itoa(n))}
			if c.rare > 0 && n%c.rare != 0 {
				change.Data = nil
			}
			if !yield(change, nil) {
				return
			}
		}
	}
}

func (c *counter) Notify(f func()) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[int]func(){}
	}
	c.next++
	n := c.next
	c.calls[n] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.calls, n)
	}
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known += n
	for _, f := range c.calls {
		f()
	}
}

func (c *counter) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// A hookServer is a web hook that takes what it likes.
type hookServer struct {
	mu     sync.Mutex
	status func(n int) int // of the n-th request
	asked  int
	taken  []int
	sizes  []int
	last   *http.Request
	body   []byte
}

func (h *hookServer) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.asked++
	n := h.asked
	h.mu.Unlock()
	status := 200
	if h.status != nil {
		status = h.status(n)
	}
	if status == 0 { // it hangs
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.body = r, body
	if status/100 == 2 {
		var got hook
		if err := json.Unmarshal(body, &got); err != nil {
			return nil, err
		}
		for _, c := range got.Changes {
			v, err := strconv.Atoi(string(c.Data))
			if err != nil {
				return nil, err
			}
			h.taken = append(h.taken, v)
		}
		h.sizes = append(h.sizes, len(got.Changes))
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Body: http.NoBody, Header: http.Header{}, Request: r}, nil
}

func (h *hookServer) got() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]int(nil), h.taken...)
}

func serve(t *testing.T, s State, c *counter, h *hookServer) *Feeds {
	t.Helper()
	f, err := Open(Options{State: s, Source: c.open, HTTP: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func add(t *testing.T, f *Feeds, name, from string, to Target) {
	t.Helper()
	if _, err := f.Add(t.Context(), Feed{Name: name, Source: "bucket:numbers", To: to}, from); err != nil {
		t.Fatal(err)
	}
}

func upTo(from, to int) string {
	var s []int
	for i := from; i <= to; i++ {
		s = append(s, i)
	}
	return fmt.Sprint(s)
}

var aHook = Target{URL: "http://hook.test/x", Secret: "shh"}

func TestChangesGoToAWebHookAndAreNotedWhenTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, c, h := &memory{}, &counter{known: 250}, &hookServer{}
		f := serve(t, state, c, h)
		add(t, f, "all", FromStart, aHook)
		add(t, f, "new", FromNow, Target{URL: "http://other.test/"})
		synctest.Wait()
		if got := fmt.Sprint(h.got()); got != upTo(1, 250) {
			t.Fatalf("taken: %s", got)
		}
		if h.sizes[0] != MaxEvents {
			t.Errorf("%d changes in the first delivery", h.sizes[0])
		}
		at := time.Now()
		if got := h.last.Header.Get("Bevy-Signature"); got != Signature("shh", at, h.body) {
			t.Errorf("signature %q", got)
		}
		c.add(3)
		synctest.Wait()
		if got := h.got(); len(got) != 256 {
			t.Errorf("%d taken, want 3 more for each feed", len(got))
		}
		list := f.List()
		if len(list) != 2 || list[0].Delivered != 253 || list[0].Cursor != "253" || list[1].Delivered != 3 {
			t.Errorf("%+v", list)
		}
		f.Close()
		if c.opened != 0 {
			t.Errorf("%d sources are left open", c.opened)
		}
		c.add(2)
		serve(t, state, c, h)
		synctest.Wait()
		if got := h.got(); len(got) != 260 {
			t.Errorf("%d taken after another start", len(got))
		}
	})
}

func TestWhatFailsIsTriedAgainInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, h := &counter{known: 5}, &hookServer{status: func(n int) int {
			switch {
			case n <= 3:
				return 503
			case n == 4:
				return 0
			case n == 5:
				return 302
			}
			return 204
		}}
		f := serve(t, &memory{}, c, h)
		start := time.Now()
		add(t, f, "a", FromStart, aHook)
		synctest.Wait()
		if l := f.List()[0]; l.Failures != 1 || !strings.Contains(l.Error, "503") || l.NextTry.Sub(start) != time.Second {
			t.Errorf("after one failure: %+v", l)
		}
		c.add(1) // does not make it hurry
		for len(h.got()) == 0 && time.Since(start) < time.Hour {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		// 1 + 2 + 4 s, 30 s without an answer, 8 + 16 s.
		if took := time.Since(start); took < 61*time.Second || took > 63*time.Second {
			t.Errorf("taken after %v", took)
		}
		synctest.Wait()
		if got := fmt.Sprint(h.got()); got != upTo(1, 6) {
			t.Errorf("taken: %s", got)
		}
		if l := f.List()[0]; l.Failures != 0 || l.Error != "" || l.Delivered != 6 {
			t.Errorf("afterwards: %+v", l)
		}
	})
}

func TestFeedsArePausedAndRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, c, h := &memory{}, &counter{}, &hookServer{}
		f := serve(t, state, c, h)
		add(t, f, "a", FromStart, aHook)
		if err := f.Pause("a"); err != nil {
			t.Fatal(err)
		}
		c.add(2)
		synctest.Wait()
		f.Close()
		f = serve(t, state, c, h)
		synctest.Wait()
		if got := h.got(); len(got) != 0 || !f.List()[0].Paused {
			t.Errorf("taken while it is paused: %v", got)
		}
		if err := f.Resume("a"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := h.got(); len(got) != 2 {
			t.Errorf("taken then: %v", got)
		}
		if err := f.Remove("a"); err != nil {
			t.Fatal(err)
		}
		c.add(1)
		synctest.Wait()
		f.Close()
		if f = serve(t, state, c, h); len(f.List()) != 0 || len(h.got()) != 2 {
			t.Errorf("it is not removed: %+v, %v", f.List(), h.got())
		}
		for _, err := range []error{f.Remove("a"), f.Pause("a"), f.Resume("a")} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("of none: %v", err)
			}
		}
	})
}

func TestAFeedThatIsTooLateStopsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, c, h := &memory{}, &counter{known: 3}, &hookServer{}
		f := serve(t, state, c, h)
		add(t, f, "a", FromStart, aHook)
		synctest.Wait()
		f.Close()
		c.add(10)
		c.set(func() { c.oldest = 8 })
		f = serve(t, state, c, h)
		synctest.Wait()
		if l := f.List()[0]; !l.Stopped || !strings.Contains(l.Error, ErrGone.Error()) {
			t.Errorf("%+v", l)
		}
		time.Sleep(time.Hour)
		if len(h.got()) != 3 {
			t.Errorf("taken: %v", h.got())
		}
		if _, err := f.Add(t.Context(), Feed{Name: "b", Source: "bucket:numbers", To: aHook}, "5"); !errors.Is(err, ErrGone) {
			t.Errorf("add from what is gone: %v", err)
		}
	})
}

func TestWhatNobodyAskedForIsPassedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state, c, h := &memory{}, &counter{known: 350, rare: 100}, &hookServer{}
		f := serve(t, state, c, h)
		add(t, f, "a", FromStart, aHook)
		synctest.Wait()
		c.add(20) // nothing in it
		synctest.Wait()
		c.add(100)
		synctest.Wait()
		if got := fmt.Sprint(h.got()); got != "[100 200 300 400]" {
			t.Errorf("taken: %s", got)
		}
		if l := f.List()[0]; l.Delivered != 4 || l.Cursor != "470" {
			t.Errorf("%+v", l)
		}
	})
}

func TestWrongFeedsAreRefused(t *testing.T) {
	f := serve(t, &memory{}, &counter{}, &hookServer{})
	for _, x := range []Feed{
		{Name: "", To: aHook}, {Name: "a\nb", To: aHook}, {Name: " a", To: aHook}, {Name: strings.Repeat("a", 65), To: aHook},
		{Name: "a"}, {Name: "a", To: Target{URL: "http://x.test", File: "/x"}}, {Name: "a", To: Target{File: "x"}},
		{Name: "a", To: Target{URL: "file:///etc/passwd"}}, {Name: "a", To: Target{URL: "http://"}}, {Name: "a", To: Target{Program: make([]string, 65)}},
	} {
		x.Source = "bucket:numbers"
		if _, err := f.Add(t.Context(), x, FromNow); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", x, err)
		}
	}
	if _, err := f.Add(t.Context(), Feed{Name: "a", Source: "bucket:none", To: aHook}, FromNow); !errors.Is(err, ErrNotFound) {
		t.Errorf("no source: %v", err)
	}
	add(t, f, "a", FromNow, aHook)
	if _, err := f.Add(t.Context(), Feed{Name: "a", Source: "bucket:numbers", To: aHook}, FromNow); !errors.Is(err, ErrExists) {
		t.Errorf("twice: %v", err)
	}
	for i := range MaxFeeds - 1 {
		add(t, f, fmt.Sprint("n", i), FromNow, aHook)
	}
	if _, err := f.Add(t.Context(), Feed{Name: "b", Source: "bucket:numbers", To: aHook}, FromNow); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many: %v", err)
	}
	for _, b := range []string{"{", `{"version":2}`, `{"version":1,"feeds":[{"name":""}]}`} {
		if _, err := Open(Options{State: &memory{kept: []byte(b)}}); err == nil {
			t.Errorf("%s is a state", b)
		}
	}
}

// Whatever fails in between, and whenever it is stopped, all is delivered in
// order, and only what was not noted comes again.
func TestAllIsDeliveredAtLeastOnce(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			state, c := &memory{}, &counter{}
			h := &hookServer{status: func(int) int {
				mu.Lock()
				defer mu.Unlock()
				return []int{200, 200, 200, 500, 0}[r.IntN(5)]
			}}
			f := serve(t, state, c, h)
			add(t, f, "a", FromStart, aHook)
			for range 60 {
				switch mu.Lock(); r.IntN(6) {
				case 0:
					mu.Unlock()
					f.Close()
					f = serve(t, state, c, h)
				case 1:
					full := r.IntN(2) == 0
					mu.Unlock()
					state.mu.Lock()
					state.full = full
					state.mu.Unlock()
				case 2:
					broken := r.IntN(2) == 0
					mu.Unlock()
					c.set(func() { c.broken = broken })
				default:
					n := r.IntN(150)
					mu.Unlock()
					c.add(n)
				}
				time.Sleep(time.Duration(seed) * time.Second)
			}
			state.mu.Lock()
			state.full = false
			state.mu.Unlock()
			c.set(func() { c.broken = false })
			time.Sleep(time.Hour)
			f.Close()
			next := 1 // what was never taken
			for _, n := range h.got() {
				if n > next {
					t.Fatalf("seed %d: %d came before %d", seed, n, next)
				}
				if n == next {
					next++
				}
			}
			if next != c.known+1 {
				t.Errorf("seed %d: %d of %d were taken", seed, next-1, c.known)
			}
		})
	}
}

func TestChangesGoToAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.jsonl")
	if err := os.WriteFile(path, []byte(`{"cursor":"1","so`), 0o600); err != nil { // a crash
		t.Fatal(err)
	}
	c := &counter{known: 2}
	f := serve(t, &memory{}, c, nil)
	add(t, f, "a", FromStart, Target{File: path})
	waitFor(t, f, 2)
	c.add(1)
	waitFor(t, f, 3)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cursor":"1","so
{"cursor":"1","source":"bucket:numbers","change":1}
{"cursor":"2","source":"bucket:numbers","change":2}
{"cursor":"3","source":"bucket:numbers","change":3}
`
	if string(got) != want {
		t.Errorf("the file:\n%s", got)
	}
	fresh := filepath.Join(t.TempDir(), "new.jsonl")
	add(t, f, "b", "2", Target{File: fresh})
	for start := time.Now(); ; {
		if got, _ := os.ReadFile(fresh); len(got) > 0 {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatal("no new file")
		}
		runtime.Gosched()
	}
}

func waitFor(t *testing.T, f *Feeds, n uint64) {
	t.Helper()
	for start := time.Now(); f.List()[0].Delivered < n; runtime.Gosched() {
		if time.Since(start) > time.Minute {
			t.Fatalf("not delivered: %+v", f.List())
		}
	}
}

func TestChangesGoToAProgram(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the program of the test is a shell's")
	}
	dir := t.TempDir()
	c := &counter{known: 2}
	f := serve(t, &memory{}, c, nil)
	add(t, f, "a", FromStart, Target{Program: []string{"sh", "-c", `cat >> "$1/out"; echo "$BEVY_FEED $BEVY_FEED_SOURCE" >> "$1/out"`, "sh", dir}})
	waitFor(t, f, 2)
	got, err := os.ReadFile(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "{\"cursor\":\"1\",\"source\":\"bucket:numbers\",\"change\":1}\n{\"cursor\":\"2\",\"source\":\"bucket:numbers\",\"change\":2}\na bucket:numbers\n"; string(got) != want {
		t.Errorf("the program got:\n%s", got)
	}
	if err := run(t.Context(), &Feed{To: Target{Program: []string{"sh", "-c", "echo no room >&2; exit 3"}}}, nil); err == nil || !strings.Contains(err.Error(), "exit status 3: no room") {
		t.Errorf("a program that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, &Feed{To: Target{Program: []string{"sh", "-c", "sleep 1000"}}}, nil); err == nil {
		t.Error("a program is not ended with its feed")
	}
}
