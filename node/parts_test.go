package node

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func TestIdleNodeEndsAndABusyOneDoesNot(t *testing.T) {
	fake := clock.NewFake(time.Unix(1e9, 0))
	ended := 0
	i := newIdler(fake, 10*time.Minute, func() { ended++ })
	fake.Advance(9 * time.Minute)
	first, second := i.busy("requests"), i.busy("peers")
	if list, at := i.reasons(); fmt.Sprint(list) != "[{peers 1} {requests 1}]" || !at.IsZero() {
		t.Errorf("reasons are %v, until %v", list, at)
	}
	fake.Advance(time.Hour)
	first()
	first() // a second time is nothing
	fake.Advance(time.Hour)
	if ended != 0 {
		t.Fatal("it ended while it was busy")
	}
	second()
	if list, at := i.reasons(); len(list) != 0 || !at.Equal(fake.Now().Add(10*time.Minute)) {
		t.Errorf("reasons are %v, until %v", list, at)
	}
	fake.Advance(10*time.Minute - 1)
	i.busy("requests")()
	fake.Advance(10*time.Minute - 1)
	if ended != 0 {
		t.Error("a request does not begin the time anew")
	}
	fake.Advance(time.Hour)
	if ended != 1 {
		t.Errorf("it ended %d times", ended)
	}
	never := newIdler(fake, 0, func() { t.Error("it ended") })
	never.busy("x")()
	fake.Advance(1000 * time.Hour)
	closed := newIdler(fake, time.Minute, func() { t.Error("it ended after it was closed") })
	closed.close()
	closed.busy("x")()
	fake.Advance(time.Hour)
}

func TestNodeEndsByItselfOnlyIfSomeoneStartsItAgain(t *testing.T) {
	for _, c := range []struct {
		idle   time.Duration
		handed bool
		want   time.Duration
	}{{0, false, 0}, {0, true, DefaultIdle}, {-1, true, 0}, {time.Second, false, time.Second}, {time.Second, true, time.Second}} {
		n := &Node{opts: Options{Idle: c.idle}, handed: c.handed}
		if got := n.idleAfter(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	o := testOptions(t)
	fake := clock.NewFake(time.Unix(1e9, 0))
	o.Clock, o.Idle = fake, time.Minute
	n := openNode(t, o)
	done := n.Busy("sync")
	fake.Advance(time.Hour)
	select {
	case <-n.ended:
		t.Error("it ended while it was busy")
	default:
	}
	done()
	fake.Advance(time.Minute)
	if err := n.Wait(context.Background()); err != nil || n.why != "idle" {
		t.Errorf("it ended %q, %v", n.why, err)
	}
}

func TestMemoryIsGivenBackOnceWhenNothingHappens(t *testing.T) {
	fake := clock.NewFake(time.Unix(1e9, 0))
	r, rests := newRester(fake), 0
	r.onRest(func() { rests++ })
	order := ""
	r.onRest(func() { order += "a" })
	r.rest[0] = func() { order += "b" } // what gives memory back comes after what frees it
	for range 100 {
		r.stir()
		fake.Advance(restAfter / 10)
	}
	if rests != 0 {
		t.Error("it rests while things happen")
	}
	fake.Advance(24 * time.Hour)
	if order != "ab" {
		t.Errorf("what was called is %q", order)
	}
	if rests != 1 || fake.Waiting() != 0 {
		t.Errorf("it rests %d times, and %d timers wait", rests, fake.Waiting())
	}
	r.stir()
	fake.Advance(restAfter)
	if rests != 2 {
		t.Errorf("it rests %d times", rests)
	}
	r.stir()
	r.close()
	r.stir()
	fake.Advance(time.Hour)
	if rests != 2 || fake.Waiting() != 0 {
		t.Error("it rests after its end")
	}
}

// testSupervisor is one for a bubble of synctest.
func testSupervisor() *supervisor {
	h := newHub(clock.System)
	notices := &Notices{clock: clock.System, publish: h.publish, all: map[noticeID]client.Notice{}}
	return &supervisor{clock: clock.System, log: slog.New(slog.DiscardHandler), notices: notices, publish: h.publish}
}

func TestServiceThatFailsIsStartedAgainEverMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSupervisor()
		ctx, cancel := context.WithCancel(t.Context())
		var starts []time.Duration
		begin := time.Now()
		s.add(ctx, "sync", func(context.Context) error {
			starts = append(starts, time.Since(begin))
			return errors.New("no luck\nat all")
		})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := fmt.Sprint(starts); got != "[0s 100ms 300ms 700ms 1.5s]" {
			t.Errorf("it was started after %s", got)
		}
		if list := s.notices.List(); len(list) != 1 || list[0].Subject != "sync" || strings.Contains(list[0].Text, "\n") {
			t.Errorf("notices are %+v", list)
		}
		one := s.list(nil)[0]
		if one.State != "waiting" || one.Restarts != 5 || one.Crash == nil || one.Crash.Error != "no luck\nat all" {
			t.Errorf("the service is %+v", one)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(starts); n < 60 || n > 75 {
			t.Errorf("it was started %d times in an hour, want about one a minute", n)
		}
		cancel()
		s.running.Wait()
		if one := s.list(nil)[0]; one.State != "ended" {
			t.Errorf("at the end it is %q", one.State)
		}
	})
}

func TestServiceThatRecoversHasNoNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSupervisor()
		ctx, cancel := context.WithCancel(t.Context())
		starts := 0
		s.add(ctx, "sync", func(ctx context.Context) error {
			if starts++; starts <= crashLoop {
				panic(fmt.Sprint("mistake ", starts))
			}
			<-ctx.Done()
			return ctx.Err()
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(s.notices.List()) != 1 {
			t.Error("a service that crashes has no notice")
		}
		time.Sleep(healthy)
		synctest.Wait()
		if list := s.notices.List(); len(list) != 0 {
			t.Errorf("it has recovered, and there is %+v", list)
		}
		one := s.list(nil)[0]
		if one.State != "running" || one.Crash == nil || one.Crash.Error != "panic: mistake 4" || !strings.Contains(one.Crash.Stack, "parts_test.go") {
			t.Errorf("the service is %+v", one)
		}
		cancel()
		s.running.Wait()
	})
}

func TestServiceThatIsDoneIsNotStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSupervisor()
		starts := 0
		s.add(t.Context(), "once", func(context.Context) error { starts++; return nil })
		s.running.Wait()
		if starts != 1 || s.list(nil)[0].State != "ended" {
			t.Errorf("started %d times: %+v", starts, s.list(nil))
		}
	})
}

func TestNoticesAreOneForEachThing(t *testing.T) {
	fake := clock.NewFake(time.Unix(1e9, 0))
	h := newHub(fake)
	n := &Notices{clock: fake, publish: h.publish, all: map[noticeID]client.Notice{}}
	n.Raise(client.Notice{Code: "relay", Subject: "oak", Severity: client.Info, Text: "slow"})
	since := fake.Now()
	fake.Advance(time.Second)
	n.Raise(client.Notice{Code: "disk", Severity: client.Problem, Text: "full"})
	n.Raise(client.Notice{Code: "relay", Subject: "oak", Severity: client.Warning, Text: "slower"})
	n.Raise(client.Notice{Code: "relay", Subject: "oak", Severity: client.Warning, Text: "slower"}) // says nothing new
	list := n.List()
	if len(list) != 2 || list[0].Code != "disk" || list[1].Text != "slower" || !list[1].Since.Equal(since) {
		t.Errorf("notices are %+v", list)
	}
	n.Clear("relay", "oak")
	n.Clear("relay", "oak")
	n.Clear("relay", "elm")
	if len(n.List()) != 1 || len(h.events) != 4 {
		t.Errorf("%d notices, %d events", len(n.List()), len(h.events))
	}
	for i := range 2 * maxNotices {
		n.Raise(client.Notice{Code: "many", Subject: fmt.Sprint(i), Severity: client.Warning})
	}
	n.Raise(client.Notice{Code: "late", Severity: client.Problem})
	n.Raise(client.Notice{Code: "mild", Severity: client.Info})
	list = n.List()
	if len(list) != maxNotices || list[0].Code != "disk" || list[1].Code != "late" || list[2].Subject != "0" {
		t.Errorf("%d notices, the first %+v", len(list), list[:3])
	}
}

func TestLogHasABound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bevy.log")
	line := []byte(strings.Repeat("x", 99) + "\n")
	l, err := openLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for range 25 {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.close(), l.close()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write(line); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if l, err = openLog(path, 1000); err != nil { // goes on where it was
		t.Fatal(err)
	}
	if _, err := l.Write(line); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{path: 600, path + ".old": 1000} {
		if b, err := os.ReadFile(name); err != nil || len(b) != want || !bytes.HasSuffix(b, line) {
			t.Errorf("%s: %d bytes, want %d, %v", name, len(b), want, err)
		}
	}
	var watch bytes.Buffer
	file := &logFile{path: path, max: 1000}
	if err := file.openLocked(); err != nil {
		t.Fatal(err)
	}
	defer file.close()
	newLogger(file, slog.LevelInfo, &watch).With("peer", "oak").Info("met")
	if got := watch.String(); got != "level=INFO msg=met peer=oak\n" {
		t.Errorf("who watches sees %q", got)
	}
}

func TestGoroutinesAreCountedByService(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	began := make(chan struct{})
	go pprof.Do(t.Context(), pprof.Labels("service", `a "b"`), func(context.Context) {
		for range 3 {
			go func() { <-stop }() // belongs to it too
		}
		close(began)
		<-stop
	})
	<-began
	var u usageMeter
	now := time.Unix(1e9, 0)
	for u.goroutines(now)[`a "b"`] != 4 {
		now = now.Add(countEvery) // until all have begun
	}
	p := u.process()
	if p.Goroutines < 5 || p.Heap == 0 {
		t.Errorf("the process uses %+v", p)
	}
	if runtime.GOOS == "linux" && (p.Memory < 1<<20 || p.Files < 3 || p.CPU <= 0) {
		t.Errorf("the process uses %+v", p)
	}
}

func TestProcessorIsMeasuredByService(t *testing.T) {
	stop := make(chan struct{})
	done := make(chan struct{})
	go pprof.Do(t.Context(), pprof.Labels("service", "hot"), func(context.Context) {
		defer close(done)
		for x := 0; ; x++ {
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	var u usageMeter
	var share map[string]float64
	for range 20 { // a machine with much else to do may let it wait
		var err error
		if share, err = u.measure(t.Context(), clock.System, 200*time.Millisecond); err != nil {
			t.Error(err)
		}
		if share["hot"] > 0 {
			break
		}
	}
	close(stop)
	<-done
	if share["hot"] == 0 || share["hot"] > 2 || share["hot"] < share[""] {
		t.Errorf("shares are %v", share)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.measure(ctx, clock.System, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func FuzzReadProfile(f *testing.F) {
	zip := func(b []byte) []byte {
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		_, _ = z.Write(b)
		_ = z.Close()
		return out.Bytes()
	}
	// Two strings, and a sample of 5 ns with a label.
	good := []byte("\x32\x00\x32\x07service\x32\x03hot\x12\x0a\x12\x02\x01\x05\x1a\x04\x08\x01\x10\x02")
	f.Add(good)
	f.Add([]byte("\x32\x00\x12\x04\x10\x02\x10\x05")) // values one by one
	f.Add(good[:len(good)-1])
	f.Add(binary.AppendUvarint(nil, 1<<63))
	f.Fuzz(func(t *testing.T, b []byte) {
		times, err := readProfile(bytes.NewReader(zip(b)))
		if err != nil && times != nil {
			t.Error("times and an error")
		}
		if bytes.Equal(b, good) && (err != nil || times["hot"] != 5) {
			t.Errorf("got %v, %v", times, err)
		}
	})
}

func TestPathsFollowTheSystem(t *testing.T) {
	for _, c := range []struct {
		system string
		env    map[string]string
		want   Paths
	}{
		{"linux", map[string]string{"HOME": "/h"}, Paths{"", "/h/.local/share/bevy", "/h/.local/state/bevy", "/h/.config/bevy", "/h/.cache/bevy"}},
		{"linux", map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/d", "XDG_STATE_HOME": "rel"}, Paths{"", "/d/bevy", "/h/.local/state/bevy", "/h/.config/bevy", "/h/.cache/bevy"}},
		{"linux", map[string]string{"HOME": "/h", "BEVY_HOME": "/b"}, Paths{"/b", "/b", "/b/state", "/b/config", "/b/cache"}},
		{"darwin", map[string]string{"HOME": "/h"}, Paths{"", "/h/Library/Application Support/bevy", "/h/Library/Application Support/bevy/state", "/h/Library/Application Support/bevy/config", "/h/Library/Caches/bevy"}},
		{"windows", map[string]string{"LOCALAPPDATA": "/l"}, Paths{"", "/l/bevy", "/l/bevy/state", "/l/bevy/config", "/l/bevy/cache"}},
	} {
		if got, err := FindPaths(c.system, c.env); err != nil || got != c.want {
			t.Errorf("%s %v: %+v, %v", c.system, c.env, got, err)
		}
	}
	for _, env := range []map[string]string{{}, {"XDG_DATA_HOME": "/d"}} {
		if _, err := FindPaths("linux", env); !errors.Is(err, ErrNoHome) {
			t.Errorf("%v: %v", env, err)
		}
	}
}

func TestSocketsPathIsNeverTooLong(t *testing.T) {
	if !socketControl {
		t.Skip("no such sockets here")
	}
	o := testOptions(t)
	o.Paths = pathsOf(t, filepath.Join(t.TempDir(), strings.Repeat("long", 40)))
	if path := o.Paths.Socket(); len(path) > maxSocketPath || path == pathsOf(t, o.Paths.Home+"x").Socket() {
		t.Errorf("the socket is %s", path)
	}
	n := openNode(t, o)
	if _, err := dial(t, n).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestErrorsOfOthersAreUnderstood(t *testing.T) {
	for _, c := range []struct {
		err  error
		want client.Error
	}{
		{&client.Error{Code: client.CodeDenied, Message: "m"}, client.Error{Code: client.CodeDenied, Message: "m"}},
		{fmt.Errorf("write a log: %w", syscall.ENOSPC), client.Error{Code: client.CodeFull, Message: "write a log", Cause: "no space left on device"}},
		{fmt.Errorf("read a log: %w", storage.ErrNotFound), client.Error{Code: client.CodeNotFound, Message: "read a log", Cause: storage.ErrNotFound.Error()}},
		{hypercore.ErrNotWritable, client.Error{Code: client.CodeDenied}},
		{&RunningError{Record{PID: 7}}, client.Error{Code: client.CodeConflict}},
		{errors.New("alone"), client.Error{Code: client.CodeFailed, Message: "it did not work", Cause: "alone"}},
	} {
		got := FailureOf(c.err)
		if got.Code != c.want.Code || c.want.Message != "" && (got.Message != c.want.Message || got.Cause != c.want.Cause) {
			t.Errorf("%v: %+v", c.err, got)
		}
		if got.Code != client.CodeDenied && !errors.Is(got, c.err) {
			t.Errorf("%v is lost", c.err)
		}
	}
	for _, code := range client.Codes {
		if statuses[code] < 400 || advice[code] == "" {
			t.Errorf("%s has no status or no advice", code)
		}
	}
}

func TestEmptyListsAreListsInAnswers(t *testing.T) {
	type inner struct{ List []string }
	type outer struct {
		Lists []inner
		One   *inner
		None  *inner
		Any   any
		Bytes []byte
	}
	in := outer{Lists: []inner{{}}, One: &inner{}, Any: inner{}}
	out := noNulls(reflect.ValueOf(&in).Elem()).Interface().(outer)
	if out.Lists[0].List == nil || out.One.List == nil || out.None != nil || out.Any.(inner).List == nil || out.Bytes != nil {
		t.Errorf("got %#v", out)
	}
	if in.Lists[0].List != nil || in.One.List != nil {
		t.Error("the value itself was changed")
	}
}

func TestNodeStartsWithAFileOfSessionsThatCantBeRead(t *testing.T) {
	o := testOptions(t)
	if err := o.Paths.make(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.Paths.State, "sessions.json")
	for _, text := range []string{"{", `{"version":2}`, `{"version":1,"sessions":[{"cookie":"xyz"}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		n := openNode(t, o)
		signIn(t, n)
		if b, err := os.ReadFile(path + ".bad"); err != nil || string(b) != text {
			t.Errorf("%s: what was there is %q, %v", text, b, err)
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestNodeLetsGoOfEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	o := testOptions(t)
	var closed []string
	o.Wire = func(_ context.Context, n *Node) error {
		n.Supervise("waits", func(ctx context.Context) error {
			<-ctx.Done()
			closed = append(closed, "service")
			return ctx.Err()
		})
		n.OnClose(func() error { closed = append(closed, "first"); return errors.New("first error") })
		n.OnClose(func() error { closed = append(closed, "second"); return nil })
		return nil
	}
	for range 20 {
		closed = nil
		n, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err == nil || err.Error() != "first error" {
			t.Errorf("got %v", err)
		}
		if want := []string{"service", "second", "first"}; !slices.Equal(closed, want) {
			t.Errorf("it closed %q, want %q", closed, want)
		}
	}
	for i := 0; runtime.NumGoroutine() > before+2; i++ {
		if i == 1000 {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
		runtime.GC()
	}
}

func TestNodeThatCantOpenLetsGoOfTheStore(t *testing.T) {
	o := testOptions(t)
	o.Wire = func(context.Context, *Node) error { return errors.New("no") }
	if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no") {
		t.Fatalf("got %v", err)
	}
	o.Wire = nil
	o.Listen = []string{"127.0.0.1:70000"}
	if _, err := Open(t.Context(), o); err == nil {
		t.Fatal("it listens at port 70000")
	}
	o.Listen = []string{"127.0.0.1:0"}
	openNode(t, o)
}
