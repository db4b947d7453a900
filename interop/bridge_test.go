package interop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/node/bridge"
)

// A bridgeOn is a bridge that finds drives through a swarm of ours.
type bridgeOn struct {
	t      *testing.T
	s      *ourSwarm
	drives *bridge.Drives
	url    string
	tags   map[string]string // of paths, as they were last
}

func newBridgeOn(t *testing.T, s *ourSwarm) *bridgeOn {
	b := &bridgeOn{t: t, s: s, tags: map[string]string{}}
	b.drives = bridge.NewDrives(bridge.DrivesOptions{Open: b.open})
	server := httptest.NewServer(bridge.New(bridge.Options{Resolver: b, Patience: 30 * time.Second}))
	b.url = server.URL
	t.Cleanup(func() {
		server.Close()
		s.must(b.drives.Close())
	})
	return b
}

// open opens a drive and looks for it, in the way of a node.
func (b *bridgeOn) open(_ context.Context, key hypercore.Key) (*hyperdrive.Drive, func() error, error) {
	found := b.s.store.FindingPeers()
	d, err := hyperdrive.Open(b.s.store, hyperdrive.Options{Key: &key})
	if err != nil {
		found()
		return nil, nil, err
	}
	topic := hyperswarm.Topic(key.Discovery())
	join, err := b.s.Join(topic, hyperswarm.JoinOptions{ClientOnly: true})
	if err != nil {
		found()
		return nil, nil, errors.Join(err, d.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var looking sync.WaitGroup
	looking.Go(func() {
		_ = join.Flushed(ctx) // with the drive's end
		found()
	})
	return d, func() error {
		cancel()
		looking.Wait()
		return errors.Join(b.s.Leave(context.Background(), topic), d.Close())
	}, nil
}

// Resolve implements bridge.Resolver.
func (b *bridgeOn) Resolve(ctx context.Context, _ *http.Request, name, at string) (bridge.Source, func(), error) {
	key, err := hypercore.ParseKey(name)
	if err != nil {
		return nil, nil, err
	}
	return b.drives.Get(ctx, key, at, true)
}

// get asks for a path of a drive; lines are headers.
func (b *bridgeOn) get(drive, path string, lines ...string) (*http.Response, []byte) {
	b.t.Helper()
	return b.ask(hypercore.Key(key32(b.t, drive)).String()+".localhost", path, lines...)
}

func (b *bridgeOn) ask(host, path string, lines ...string) (*http.Response, []byte) {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.url+path, nil)
	b.s.must(err)
	r.Host = host
	for i := 0; i < len(lines); i += 2 {
		r.Header.Set(lines[i], lines[i+1])
	}
	got, err := http.DefaultClient.Do(r)
	b.s.must(err)
	defer got.Body.Close()
	data, err := io.ReadAll(got.Body)
	b.s.must(err)
	return got, data
}

// serves waits until the bridge serves files of a drive.
func (b *bridgeOn) serves(drive string, files swarmFiles) {
	b.t.Helper()
	for path, f := range files {
		took := soon(b.t, 20*time.Second, func() error {
			r, data := b.get(drive, path)
			if r.StatusCode != http.StatusOK || !bytes.Equal(data, f.contents()) {
				return fmt.Errorf("%s: got %s and %d bytes, want %d", path, r.Status, len(data), f.Size)
			}
			b.tags[path] = r.Header.Get("Etag")
			return nil
		})
		b.t.Logf("%s after %v", path, took)
	}
}

// What a peer of Node writes to its drive is served while it is written, and the
// other way round.
func TestBridgeServesDrivesOfNodeLive(t *testing.T) {
	n := newSwarmNet(t, "NB")
	first := swarmFiles{"/index.html": {"index", 500}, "/a/small.txt": {"small", 10}, "/a/large.bin": {"large", 2_000_000}}
	then := swarmFiles{"/a/new.txt": {"new", 70_000}, "/a/small.txt": {"changed", 20}}

	t.Run("a drive of Node", func(t *testing.T) {
		n := n.in(t)
		var drive, other string
		writer := n.add('N', &drive)
		writer.put(first)
		topic := hypercore.Key(key32(t, drive)).Discovery()
		writer.join(topic, true, false)
		b := newBridgeOn(t, n.add('B', &other).(*ourSwarm))
		b.serves(drive, first)
		old := b.tags["/a/small.txt"]
		// A part, and a page of what there is.
		r, data := b.get(drive, "/a/large.bin", "Range", "bytes=1000000-1000099")
		if want := first["/a/large.bin"].contents()[1_000_000:1_000_100]; r.StatusCode != http.StatusPartialContent || !bytes.Equal(data, want) {
			t.Errorf("a part: got %s and %x, want %x", r.Status, data, want)
		}
		if r, data := b.get(drive, "/a/", "Accept", "text/html"); r.StatusCode != http.StatusOK || !bytes.Contains(data, []byte(`href="./large.bin"`)) {
			t.Errorf("the folder: got %s and %s", r.Status, data)
		}
		writer.put(then)
		b.serves(drive, then)
		if b.tags["/a/small.txt"] == old {
			t.Errorf("what changed has the same tag %s", old)
		}
		// A version is what it was: the three files were put one by one, after a header.
		if r, data := b.ask("127.0.0.1", "/d/"+drive+"@4/a/small.txt"); r.StatusCode != http.StatusOK || !bytes.Equal(data, first["/a/small.txt"].contents()) {
			t.Errorf("the version before: got %s and %d bytes", r.Status, len(data))
		}
	})

	t.Run("a drive of ours", func(t *testing.T) {
		n := n.in(t)
		var drive string
		writer := n.add('B', &drive).(*ourSwarm)
		writer.put(first)
		topic := hypercore.Key(key32(t, drive)).Discovery()
		writer.join(topic, true, false)
		near := newBridgeOn(t, writer)
		reader := n.add('N', &drive)
		reader.join(topic, false, true)
		check := func(files swarmFiles) {
			t.Helper()
			near.serves(drive, files)
			for path, f := range files {
				soon(t, 20*time.Second, func() error {
					got, err := reader.sums([]string{path})
					if err == nil && got[0] != sum(f.contents()) {
						err = fmt.Errorf("Node has other contents of %s", path)
					}
					return err
				})
			}
		}
		check(first)
		writer.put(then)
		check(then)
		// A bridge elsewhere says the same of the drive, in the same words.
		var other string
		far := newBridgeOn(t, n.add('B', &other).(*ourSwarm))
		far.serves(drive, then)
		for path := range then {
			if far.tags[path] != near.tags[path] {
				t.Errorf("%s: tag %s, and %s where it is written", path, far.tags[path], near.tags[path])
			}
		}
	})

	t.Run("a drive of nobody", func(t *testing.T) {
		var own string
		b := newBridgeOn(t, n.in(t).add('B', &own).(*ourSwarm))
		key := hypercore.Key{7}
		if r, data := b.get(fmt.Sprintf("%x", key[:]), "/"); r.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("got %s %s, want that nobody has it", r.Status, data)
		}
	})
}
