package objects

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cloudbevy/bevy/hyper/storage/storagetest"
)

// What clients were told is put is there after any power cut, with all its bytes and
// its version; what is removed is gone, and nothing is half there.
func TestAcknowledgedObjectsOutlivePowerCuts(t *testing.T) {
	const clients = 4
	type crash struct {
		disk  *storagetest.Faulty
		acked map[string]string // key: data; "" is removed
		parts map[string]bool   // that were put
		point uint64
	}
	disk := storagetest.NewFaulty()
	engine, err := disk.Disk().Open()
	must(t, err)
	r, done := openRig(t, engine)
	ctx := t.Context()
	r.versioned()
	multi, err := r.CreateUpload(ctx, "multi", UploadOptions{})
	must(t, err)
	every, rounds, most := uint64(11), 10, 40
	if os.Getenv("BEVY_LONG") == "1" {
		every, rounds, most = 1, 30, 400
	}
	var mu sync.Mutex
	var crashes []crash
	acked, parts := map[string]string{}, map[string]bool{}
	disk.Hook(func(p storagetest.Point) {
		mu.Lock()
		defer mu.Unlock()
		if p.Number%every == 0 && len(crashes) < most {
			crashes = append(crashes, crash{disk.PowerCut(p.Number), maps.Clone(acked), maps.Clone(parts), p.Number})
		}
	})
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(c)))
			for i := range rounds {
				key := fmt.Sprintf("c%d/%d", c, i%5) // and beside it what is no file
				if i%2 == 1 {
					key += "//"
				}
				size := rng.IntN(2000)
				if i%4 == 3 {
					size = 100<<10 + rng.IntN(100<<10)
				}
				data := string(random(size, byte(c*50+i)))
				mu.Lock()
				delete(acked, key) // it is one or the other from now on
				mu.Unlock()
				var err error
				if i%6 == 5 {
					data = ""
					_, err = r.Delete(ctx, key, DeleteOptions{})
				} else {
					_, err = r.Put(ctx, key, strings.NewReader(data), PutOptions{})
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked[key] = data
				mu.Unlock()
				p, err := r.PutPart(ctx, "multi", multi.ID, 1+c*rounds+i, bytes.NewReader(random(size, byte(i))), nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				parts[fmt.Sprint(p.Number, p.ETag)] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	disk.Hook(nil)
	done()
	if len(crashes) < 12 {
		t.Fatalf("there were %d crashes only", len(crashes))
	}
	for _, c := range crashes {
		engine, err := c.disk.Disk().Open()
		must(t, err)
		r, done := openRig(t, engine)
		for key, data := range c.acked {
			if got := r.get(key, ""); got != data && (data != "" || got != "removed") {
				t.Errorf("after a crash at write point %d %q has %d bytes, not %d", c.point, key, len(got), len(data))
			}
		}
		for _, v := range r.listed(ListOptions{}) {
			if v.Marker {
				continue
			}
			if sum := fmt.Sprintf("%x", md5.Sum([]byte(r.data(v)))); sum != v.ETag {
				t.Errorf("after a crash at write point %d version %s of %q is not whole", c.point, v.Version, v.Key)
			}
			if _, ok, err := r.now().row(t.Context(), rowOf(rowVersion, v.Key, v.v.id)); !ok || err != nil {
				t.Errorf("after a crash at write point %d version %s of %q has no row: %v", c.point, v.Version, v.Key, err)
			}
		}
		list, _, err := r.Parts(t.Context(), "multi", multi.ID, 0, MaxPart)
		must(t, err)
		var complete []CompletePart
		for _, p := range list {
			delete(c.parts, fmt.Sprint(p.Number, p.ETag))
			complete = append(complete, CompletePart{Number: p.Number, ETag: p.ETag})
		}
		if len(c.parts) > 0 {
			t.Errorf("after a crash at write point %d parts are not there: %v", c.point, c.parts)
		}
		if len(complete) > 0 {
			o, err := r.Complete(t.Context(), "multi", multi.ID, complete, CompleteOptions{})
			must(t, err)
			r.data(o)
		}
		done()
	}
}

// A registerOp is a put with a condition, a read or a removal.
type registerOp struct{ kind, data, if_ string }

// register is an object that one operation happens to after the other.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, in, out any) (bool, any) {
		s, op, res := state.(string), in.(registerOp), out.(string)
		switch op.kind {
		case "get":
			return res == s, s
		case "new":
			if ok := s == ""; ok != (res == "ok") {
				return false, s
			} else if ok {
				return true, op.data
			}
			return true, s
		case "swap":
			if ok := s == op.if_ && s != ""; ok != (res == "ok") {
				return false, s
			} else if ok {
				return true, op.data
			}
			return true, s
		case "delete":
			return true, ""
		}
		return true, op.data
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprint(in, " -> ", out) },
}

func TestConditionalPutsOfManyClientsAreLinearizable(t *testing.T) {
	for _, key := range []string{"k", "k//odd"} {
		r := newRig(t)
		ctx := t.Context()
		const clients, ops = 6, 60
		var mu sync.Mutex
		var history []porcupine.Operation
		begin := time.Now()
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(3, uint64(c)))
				seen := ""
				for i := range ops {
					op := registerOp{kind: []string{"get", "get", "get", "new", "swap", "swap", "swap", "put", "delete"}[rng.IntN(9)], data: fmt.Sprint(c, "-", i), if_: seen}
					if op.kind == "swap" && seen == "" {
						op.kind = "get"
					}
					call := time.Since(begin).Nanoseconds()
					res := "ok"
					put := func(c Conditions) {
						switch _, err := r.Put(ctx, key, strings.NewReader(op.data), PutOptions{If: c}); {
						case errors.Is(err, ErrPrecondition) || errors.Is(err, ErrNoKey):
							res = "no"
						case err != nil:
							t.Error(err)
						default:
							seen = op.data
						}
					}
					switch op.kind {
					case "get":
						if res = r.get(key, ""); res == "no key" {
							res = ""
						}
						seen = res
					case "new":
						put(Conditions{IfNoneMatch: []string{"*"}})
					case "swap":
						put(Conditions{IfMatch: []string{fmt.Sprintf("%x", md5.Sum([]byte(op.if_)))}})
					case "put":
						put(Conditions{})
					case "delete":
						if _, err := r.Delete(ctx, key, DeleteOptions{}); err != nil {
							t.Error(err)
						}
					}
					end := time.Since(begin).Nanoseconds()
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: c, Input: op, Output: res, Call: call, Return: end})
					mu.Unlock()
				}
			})
		}
		all.Wait()
		// Among others a swap may always come too late; alone it must not.
		if now := r.get(key, ""); now == "no key" {
			_, err := r.Put(ctx, key, strings.NewReader("last"), PutOptions{If: Conditions{IfNoneMatch: []string{"*"}}})
			must(t, err)
		} else {
			_, err := r.Put(ctx, key, strings.NewReader("last"), PutOptions{If: Conditions{IfMatch: []string{fmt.Sprintf("%x", md5.Sum([]byte(now)))}}})
			must(t, err)
		}
		if res := porcupine.CheckOperationsTimeout(register, history, 20*time.Second); res != porcupine.Ok {
			t.Errorf("%q: what clients saw is %s", key, res)
		}
	}
}

func TestIdleBucketsHaveNoGoroutines(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	before := runtime.NumGoroutine()
	count := 100
	if os.Getenv("BEVY_LONG") == "1" {
		count = 1000
	}
	for i := range count {
		b, err := r.store.Make(ctx, "", fmt.Sprint("bucket", i), false)
		must(t, err)
		_, err = b.Put(ctx, "k", strings.NewReader("x"), PutOptions{})
		must(t, err)
		must(t, b.Close())
	}
	list, err := r.store.List(ctx, "")
	must(t, err)
	want(t, "buckets", len(list), count+1)
	for range 1000 {
		if runtime.NumGoroutine() <= before+2 {
			break
		}
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before+10 {
		t.Errorf("%d goroutines for %d buckets", n-before, count)
	}
	if n := len(r.store.open); n > r.store.o.Idle+1 {
		t.Errorf("%d buckets are open", n)
	}
}

func TestBucketsAreMadeAndDropped(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, err := r.store.Make(ctx, "", "bucket", false)
	wantErr(t, "made twice", err, ErrBucketExists)
	_, err = r.store.Open(ctx, "other", "bucket")
	wantErr(t, "of another app", err, ErrNoBucket)
	r.put("k", "")
	wantErr(t, "full", r.store.Drop(ctx, "", "bucket"), ErrNotEmpty)
	r.remove("k", "")
	r.put("a//b", "")
	wantErr(t, "full of what is odd", r.store.Drop(ctx, "", "bucket"), ErrNotEmpty)
	r.remove("a//b", "")
	r.versioned()
	d := r.remove("k", "")
	wantErr(t, "with a marker", r.store.Drop(ctx, "", "bucket"), ErrNotEmpty)
	r.remove("k", d.Version)
	r.upload("multi", []int{1}, []byte("x"))
	// It waits for who uses it, and nobody can open it meanwhile.
	dropped := make(chan error, 1)
	go func() { dropped <- r.store.Drop(ctx, "", "bucket") }()
	for {
		b, err := r.store.Open(ctx, "", "bucket")
		if errors.Is(err, ErrNoBucket) {
			break
		}
		must(t, err)
		must(t, b.Close())
		runtime.Gosched()
	}
	select {
	case err := <-dropped:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	must(t, r.Close())
	must(t, <-dropped)
	wantErr(t, "dropped twice", r.store.Drop(ctx, "", "bucket"), ErrNoBucket)
	b, err := r.store.Make(ctx, "", "bucket", false)
	must(t, err)
	defer b.Close()
	p, err := b.List(ctx, ListOptions{})
	must(t, err)
	want(t, "made again", len(p.Objects), 0)
	s, err := b.State(ctx)
	must(t, err)
	want(t, "state", s, State{})
}

// goes is spaces whose bucket can be another one.
type goes struct {
	Spaces
	gone   map[*Space]bool
	opened int
	closed int
}

func (g *goes) Open(ctx context.Context, app, name string) (*Space, error) {
	s, err := g.Spaces.Open(ctx, app, name)
	if err != nil {
		return nil, err
	}
	g.opened++
	end := s.Close
	s.Close = func() error { g.closed++; return end() }
	s.Gone = func() bool { return g.gone[s] }
	return s, nil
}

func TestABucketThatIsGoneIsOpenedAnew(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	g := &goes{Spaces: r.spaces, gone: map[*Space]bool{}}
	store := New(Options{Spaces: g})
	first, err := store.Open(ctx, "", "bucket")
	must(t, err)
	again, err := store.Open(ctx, "", "bucket")
	must(t, err)
	want(t, "opened", g.opened, 1)
	g.gone[first.space] = true
	other, err := store.Open(ctx, "", "bucket")
	must(t, err)
	want(t, "opened anew", g.opened, 2)
	must(t, first.Close())
	want(t, "in use", g.closed, 0)
	must(t, again.Close())
	want(t, "the gone one is closed", g.closed, 1)
	must(t, other.Close())
	g.gone[other.space] = true
	b, err := store.Open(ctx, "", "bucket")
	must(t, err)
	want(t, "opened and closed", fmt.Sprint(g.opened, g.closed), "3 2")
	must(t, b.Close())
	must(t, store.Close())
	want(t, "all closed", g.closed, 3)
}
