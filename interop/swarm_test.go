package interop_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/hyperswarm"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/internal/nodepeer"
)

// A someSwarm is a swarm of Node or of ours.
type someSwarm interface {
	key() noise.Key
	// join joins a topic and waits until it is announced and looked up.
	join(topic [32]byte, server, client bool)
	leave(topic [32]byte)
	refresh(topic [32]byte)
	listen()
	joinPeer(key noise.Key)
	leavePeer(key noise.Key)
	drop(key noise.Key)
	suspend()
	resume()
	// conns are the keys of those there is a connection to that has said hello,
	// and whether this side made it.
	conns() map[noise.Key]bool
	// put writes files to the swarm's drive, and sums reads them.
	put(files swarmFiles)
	sums(paths []string) ([]string, error)
}

type swarmFiles map[string]swarmFile

type swarmFile struct {
	Seed string `json:"seed"`
	Size int    `json:"size"`
}

// contents is what a file has; Node makes the same.
func (f swarmFile) contents() (data []byte) {
	for n := 0; len(data) < f.Size; n++ {
		part := sha256.Sum256(fmt.Appendf(nil, "%s %d", f.Seed, n))
		data = append(data, part[:]...)
	}
	return data[:f.Size]
}

// A swarmNet is swarms on a testnet.
type swarmNet struct {
	*testnet
	swarms node
	count  *byte // of all tests on it
}

// in is the net for a part of the test.
func (n *swarmNet) in(t *testing.T) *swarmNet {
	net := *n.testnet
	net.t = t
	return &swarmNet{&net, node{t, n.swarms.p}, n.count}
}

func newSwarmNet(t *testing.T, kinds string) *swarmNet {
	t.Helper()
	n := &swarmNet{testnet: newTestnet(t, kinds), count: new(byte)}
	p, err := nodepeer.Start(t.Context(), "swarm.js")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	n.swarms = node{t, p}
	return n
}

// add begins a swarm, of Node if kind is 'N'. With a drive it has one, of that
// key or, if it is empty, its own.
func (n *swarmNet) add(kind byte, drive *string) someSwarm {
	n.t.Helper()
	*n.count++
	number := *n.count
	keys := keysOf(number)
	if kind == 'N' {
		s := &nodeSwarm{n.swarms, fmt.Sprint("swarm", number), keys.Public}
		a := args{"handle": s.handle, "bootstrap": n.seeds(), "seed": seed(number)}
		if drive != nil {
			a["drive"] = true
			if *drive != "" {
				a["drive"] = *drive
			}
		}
		opened := call[struct{ Key, Drive string }](s.node, "open", a)
		if opened.Key != hexKey(keys.Public) {
			n.t.Fatalf("the key of Node's swarm is %s, want %v", opened.Key, hexKey(keys.Public))
		}
		if drive != nil {
			*drive = opened.Drive
		}
		return s
	}
	s := &ourSwarm{t: n.t, hello: map[*hyperswarm.Conn]bool{}}
	if drive != nil {
		s.openDrive(drive)
	}
	d, err := hyperdht.Open(hyperdht.Options{Bind: loopback, Port: -1, Bootstrap: n.seeds()})
	s.must(err)
	s.Swarm, err = hyperswarm.New(hyperswarm.Options{DHT: d, KeyPair: keys, Serve: s.serve})
	s.must(err)
	n.t.Cleanup(func() {
		if err := errors.Join(s.Swarm.Close(), d.Close()); err != nil {
			n.t.Error(err)
		}
	})
	return s
}

// An ourSwarm is a swarm of ours.
type ourSwarm struct {
	*hyperswarm.Swarm
	t     *testing.T
	store *corestore.Store
	drive *hyperdrive.Drive

	mu    sync.Mutex
	hello map[*hyperswarm.Conn]bool
}

func (s *ourSwarm) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *ourSwarm) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *ourSwarm) openDrive(key *string) {
	s.t.Helper()
	var err error
	s.store, err = corestore.Open(storage.NewMemory(), corestore.Options{})
	s.must(err)
	o := hyperdrive.Options{}
	if *key != "" {
		k := hypercore.Key(key32(s.t, *key))
		o.Key = &k
	}
	s.drive, err = hyperdrive.Open(s.store, o)
	s.must(err)
	k := s.drive.Key()
	*key = hex.EncodeToString(k[:])
	s.t.Cleanup(func() {
		if err := errors.Join(s.drive.Close(), s.store.Close()); err != nil {
			s.t.Error(err)
		}
	})
}

func (s *ourSwarm) serve(c *hyperswarm.Conn) {
	if s.store != nil {
		s.store.Replicate(context.Background(), c.Stream, corestore.ReplicateOptions{})
		return
	}
	if c.WriteMessage([]byte("hello")) != nil {
		return
	}
	if m, err := c.ReadMessage(nil); err != nil || string(m) != "hello" {
		return
	}
	s.mu.Lock()
	s.hello[c] = true
	s.mu.Unlock()
	c.ReadMessage(nil) // the end
}

func (s *ourSwarm) key() noise.Key { return s.KeyPair().Public }

func (s *ourSwarm) join(topic [32]byte, server, client bool) {
	s.t.Helper()
	d, err := s.Join(topic, hyperswarm.JoinOptions{ServerOnly: !client, ClientOnly: !server})
	s.must(err)
	s.must(d.Flushed(s.ctx()))
}

func (s *ourSwarm) leave(topic [32]byte)    { s.must(s.Leave(s.ctx(), topic)) }
func (s *ourSwarm) refresh([32]byte)        { s.Refresh() }
func (s *ourSwarm) listen()                 { s.must(s.Listen(s.ctx())) }
func (s *ourSwarm) joinPeer(key noise.Key)  { s.JoinPeer(key) }
func (s *ourSwarm) leavePeer(key noise.Key) { s.LeavePeer(key) }
func (s *ourSwarm) suspend()                { s.must(s.Suspend(s.ctx())) }
func (s *ourSwarm) resume()                 { s.must(s.Resume(s.ctx())) }

func (s *ourSwarm) drop(key noise.Key) {
	for _, c := range s.Conns() {
		if c.RemoteKey() == key {
			c.Close()
		}
	}
}

func (s *ourSwarm) conns() map[noise.Key]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[noise.Key]bool{}
	for _, c := range s.Conns() {
		if s.store != nil || s.hello[c] {
			all[c.RemoteKey()] = c.Initiator()
		}
	}
	return all
}

func (s *ourSwarm) put(files swarmFiles) {
	s.t.Helper()
	for path, f := range files {
		s.must(s.drive.Put(s.ctx(), path, f.contents(), hyperdrive.PutOptions{}))
	}
}

func (s *ourSwarm) sums(paths []string) (sums []string, err error) {
	ctx := s.ctx()
	for _, path := range paths {
		data, err := s.drive.ReadFile(ctx, path)
		for errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond)
			data, err = s.drive.ReadFile(ctx, path)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s in version %d: %w", path, s.drive.Version(), err)
		}
		sum := sha256.Sum256(data)
		sums = append(sums, hex.EncodeToString(sum[:]))
	}
	return sums, nil
}

// A nodeSwarm is a swarm of Node.
type nodeSwarm struct {
	node
	handle string
	public noise.Key
}

func (s *nodeSwarm) do(method string, a args) {
	s.t.Helper()
	a["handle"] = s.handle
	call[any](s.node, method, a)
}

func (s *nodeSwarm) key() noise.Key { return s.public }

func (s *nodeSwarm) join(topic [32]byte, server, client bool) {
	s.t.Helper()
	s.do("join", args{"topic": hexKey(topic), "server": server, "client": client})
}

func (s *nodeSwarm) leave(topic [32]byte)    { s.do("leave", args{"topic": hexKey(topic)}) }
func (s *nodeSwarm) refresh(topic [32]byte)  { s.do("refresh", args{"topic": hexKey(topic)}) }
func (s *nodeSwarm) listen()                 { s.do("listen", args{}) }
func (s *nodeSwarm) joinPeer(key noise.Key)  { s.do("joinPeer", args{"key": hexKey(key)}) }
func (s *nodeSwarm) leavePeer(key noise.Key) { s.do("leavePeer", args{"key": hexKey(key)}) }
func (s *nodeSwarm) drop(key noise.Key)      { s.do("drop", args{"key": hexKey(key)}) }
func (s *nodeSwarm) suspend()                { s.do("suspend", args{}) }
func (s *nodeSwarm) resume()                 { s.do("resume", args{}) }

func (s *nodeSwarm) conns() map[noise.Key]bool {
	s.t.Helper()
	all := map[noise.Key]bool{}
	for _, c := range call[struct {
		Conns []struct {
			Key              string
			Initiator, Hello bool
		}
	}](s.node, "state", args{"handle": s.handle}).Conns {
		if c.Hello {
			all[noise.Key(key32(s.t, c.Key))] = c.Initiator
		}
	}
	return all
}

func (s *nodeSwarm) put(files swarmFiles) {
	s.t.Helper()
	s.do("put", args{"files": files})
}

func (s *nodeSwarm) sums(paths []string) ([]string, error) {
	var r struct{ Sums []string }
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	err := s.p.Call(ctx, "sums", args{"handle": s.handle, "paths": paths}, &r)
	return r.Sums, err
}

// soon waits until what is asked for is true, and returns how long that
// took.
func soon(t *testing.T, most time.Duration, what func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := what()
		took := time.Since(began)
		if err == nil {
			return took
		}
		if took > most {
			t.Fatalf("not within %v: %v", most, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// together says who of the swarms is not connected to all others, by one
// connection.
func together(all ...someSwarm) (err error) {
	state := map[noise.Key]map[noise.Key]bool{}
	for _, s := range all {
		state[s.key()] = s.conns()
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			mine, ok1 := state[a.key()][b.key()]
			theirs, ok2 := state[b.key()][a.key()]
			if !ok1 || !ok2 || mine == theirs {
				err = errors.Join(err, fmt.Errorf("%.6s and %.6s: connected %v, %v; made by %v, %v", a.key(), b.key(), ok1, ok2, mine, theirs))
			}
		}
	}
	return err
}

// swarmPairs are a swarm of Node and one of ours, in both orders, and two of
// ours. Two of Node are no test of us.
var swarmPairs = []string{"NB", "BN", "BB"}

// Swarms of Node and of ours, over a DHT that is of both. With BEVY_LONG=1 more
// peers share the drive, and the first node of the DHT is ours, too.
func TestSwarmsOfNodeAndBevy(t *testing.T) {
	kinds, each := []string{"NB"}, 3
	if os.Getenv("BEVY_LONG") == "1" {
		kinds, each = []string{"NB", "BN"}, 10
	}
	for _, kind := range kinds {
		n := newSwarmNet(t, kind)
		for i, pair := range swarmPairs {
			t.Run(kind+"/"+pair+" server and client", func(t *testing.T) { n.in(t).meet(pair, [32]byte{1, byte(i)}) })
			t.Run(kind+"/"+pair+" both", func(t *testing.T) { n.in(t).meetBoth(pair, [32]byte{2, byte(i)}) })
			t.Run(kind+"/"+pair+" at once", func(t *testing.T) { n.in(t).agree(pair) })
			t.Run(kind+"/"+pair+" suspended", func(t *testing.T) { n.in(t).suspend(pair, [32]byte{3, byte(i)}) })
		}
		for _, writer := range []byte("NB") {
			t.Run(kind+"/a drive of "+string(writer), func(t *testing.T) { n.in(t).shareDrive(writer, each, [32]byte{4, writer}) })
		}
	}
}

// meet has a server and a client of a topic meet, and lose one another.
func (n *swarmNet) meet(pair string, topic [32]byte) {
	t := n.t
	a, b := n.add(pair[0], nil), n.add(pair[1], nil)
	a.join(topic, true, false)
	b.join(topic, false, true)
	took := soon(t, 10*time.Second, func() error { return together(a, b) })
	t.Logf("met after %v", took)
	if a.conns()[b.key()] || !b.conns()[a.key()] {
		t.Error("the server has made the connection")
	}
	// What is lost is made again, by whoever made it.
	a.drop(b.key())
	soon(t, 5*time.Second, func() error {
		if together(a, b) == nil {
			return errors.New("still connected")
		}
		return nil
	})
	took = soon(t, 20*time.Second, func() error { return together(a, b) })
	t.Logf("met again after %v", took)
}

// meetBoth has two meet that are both server and client.
func (n *swarmNet) meetBoth(pair string, topic [32]byte) {
	a, b := n.add(pair[0], nil), n.add(pair[1], nil)
	a.join(topic, true, true)
	b.join(topic, true, true)
	a.refresh(topic)
	soon(n.t, 10*time.Second, func() error { return together(a, b) })
}

// agree has both connect at the same moment, again and again: they agree on
// which connection stays.
func (n *swarmNet) agree(pair string) {
	t := n.t
	a, b := n.add(pair[0], nil), n.add(pair[1], nil)
	a.listen()
	b.listen()
	for round := range 4 {
		var wg sync.WaitGroup
		wg.Go(func() { a.joinPeer(b.key()) })
		wg.Go(func() { b.joinPeer(a.key()) })
		wg.Wait()
		took := soon(t, 20*time.Second, func() error { return together(a, b) })
		t.Logf("round %d: %v", round, took)
		a.leavePeer(b.key())
		b.leavePeer(a.key())
		a.drop(b.key())
		b.drop(a.key())
		soon(t, 5*time.Second, func() error {
			if len(a.conns())+len(b.conns()) > 0 {
				return errors.New("still connected")
			}
			return nil
		})
	}
}

func (n *swarmNet) suspend(pair string, topic [32]byte) {
	t := n.t
	a, b := n.add(pair[0], nil), n.add(pair[1], nil)
	a.join(topic, true, true)
	b.join(topic, true, true)
	soon(t, 10*time.Second, func() error { return together(a, b) })
	a.suspend()
	soon(t, 10*time.Second, func() error {
		if len(b.conns()) > 0 {
			return errors.New("still connected")
		}
		return nil
	})
	a.resume()
	took := soon(t, 20*time.Second, func() error { return together(a, b) })
	t.Logf("met again after %v", took)
}

// shareDrive has peers of both kinds share a drive: each gets all of it from
// whoever has it.
func (n *swarmNet) shareDrive(writer byte, each int, topic [32]byte) {
	t := n.t
	var drive string
	all := []someSwarm{n.add(writer, &drive)}
	files := swarmFiles{"/small": {"small", 10}, "/a/middle": {"middle", 100_000}, "/a/large": {"large", 2_000_000}}
	var paths, want []string
	for path, f := range files {
		paths = append(paths, path)
		sum := sha256.Sum256(f.contents())
		want = append(want, hex.EncodeToString(sum[:]))
	}
	all[0].put(files)
	for i := 1; i < 2*each; i++ {
		kind := byte('N')
		if (i%2 == 0) == (writer == 'B') {
			kind = 'B'
		}
		all = append(all, n.add(kind, &drive))
	}
	began := time.Now()
	var joined sync.WaitGroup
	for _, s := range all {
		joined.Go(func() { s.join(topic, true, true) })
	}
	joined.Wait()
	t.Logf("%d joined after %v", len(all), time.Since(began))
	// All read at once: a peer of Node that is not connected to the writer has
	// it from those who are.
	read := func(paths, want []string) {
		var reading sync.WaitGroup
		for _, s := range all {
			reading.Go(func() {
				if got, err := s.sums(paths); err != nil || !slices.Equal(got, want) {
					t.Errorf("%T %.6s has %v, %v, want %v", s, s.key(), got, err, want)
				}
			})
		}
		reading.Wait()
	}
	read(paths, want)
	t.Logf("all have all of it after %v", time.Since(began))
	// And what is written while they are connected.
	late := swarmFiles{"/late": {"late", 50_000}}
	all[0].put(late)
	sum := sha256.Sum256(late["/late"].contents())
	read([]string{"/late"}, []string{hex.EncodeToString(sum[:])})
}
