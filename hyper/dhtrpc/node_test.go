package dhtrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// Nodes on an internet in memory: one by which the others enter, two that keep
// values for who asks them, and one that leaves a value there.
func Example() {
	clk := clock.NewFake(time.Unix(0, 0))
	sim := packet.NewSim(clk, 1)
	open := func(host *packet.SimHost, o dhtrpc.Options) *dhtrpc.Node {
		o.UDX, o.Clock = udx.New(udx.Options{Network: host, Clock: clk}), clk
		n, err := dhtrpc.Open(o)
		if err != nil {
			fmt.Println(err)
		}
		return n
	}

	entry := sim.Host()
	bootstrap := netip.AddrPortFrom(entry.Addr(), 49737)
	open(entry, dhtrpc.Bootstrapper(bootstrap))

	for range 2 {
		values := map[dhtrpc.ID][]byte{}
		open(sim.Host(), dhtrpc.Options{
			Bootstrap: []string{bootstrap.String()}, Ephemeral: dhtrpc.Never,
			Handle: func(r *dhtrpc.Request) bool {
				if r.Token != nil { // it is who it says
					values[*r.Target] = r.Value
				}
				r.Reply(values[*r.Target], dhtrpc.ReplyOptions{})
				return true
			},
		})
		clk.Advance(10 * time.Second)
	}

	reader := open(sim.Host(), dhtrpc.Options{Bootstrap: []string{bootstrap.String()}})
	target := dhtrpc.ID{1, 2, 3}
	reader.Query(context.Background(), target, dhtrpc.QueryOptions{
		Commit: func(r dhtrpc.Reply) (dhtrpc.Call, error) {
			return dhtrpc.Call{Value: []byte("hello"), Token: r.Token}, nil
		},
		Done: func(err error) { fmt.Println("left at the closest:", err) },
	})
	clk.Advance(10 * time.Second)
	reader.Query(context.Background(), target, dhtrpc.QueryOptions{
		Reply: func(r dhtrpc.Reply) {
			if r.Value != nil {
				fmt.Printf("one of them has %q\n", r.Value)
			}
		},
	})
	clk.Advance(10 * time.Second)
	// Output:
	// left at the closest: <nil>
	// one of them has "hello"
	// one of them has "hello"
}

func onLoopback(t *testing.T, o dhtrpc.Options) *dhtrpc.Node {
	t.Helper()
	o.UDX = udx.New(udx.Options{})
	o.Bind = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	n, err := dhtrpc.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// Everything at once, by many goroutines, on real sockets.
func TestNodesAreUsedByManyAtOnce(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("nodes", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		first := onLoopback(t, dhtrpc.Options{Ephemeral: dhtrpc.Never, Open: true})
		entry := fmt.Sprintf("127.0.0.1:%d", first.ServerSocket().LocalAddr().Port())
		nodes := []*dhtrpc.Node{first}
		for range 4 {
			n := onLoopback(t, dhtrpc.Options{
				Bootstrap: []string{entry}, Ephemeral: dhtrpc.Never, Notify: func(dhtrpc.Event) {}, Added: func(netip.AddrPort) {},
				Handle: func(r *dhtrpc.Request) bool {
					go r.Reply(r.Value, dhtrpc.ReplyOptions{})
					return true
				},
			})
			if err := n.Bootstrapped(ctx); err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, n)
		}
		var wg sync.WaitGroup
		for i := range 8 {
			n := nodes[i%len(nodes)]
			wg.Go(func() {
				for j := range 20 {
					to := nodes[1+(i+j)%4].ServerSocket()
					if to == nil {
						continue
					}
					addr := to.LocalAddr()
					switch _, err := n.Do(ctx, addr, dhtrpc.Call{Command: 1, Value: []byte("x")}, dhtrpc.CallOptions{}); {
					case err == nil, errors.Is(err, dhtrpc.ErrSuspended), errors.Is(err, dhtrpc.ErrTimeout):
					default:
						t.Error(err)
					}
					q := n.FindNode(ctx, dhtrpc.ID{byte(i), byte(j)}, dhtrpc.QueryOptions{})
					for {
						_, err := q.Next()
						if j%3 == 0 {
							q.Stop()
						}
						if err == io.EOF || errors.Is(err, context.Canceled) || errors.Is(err, dhtrpc.ErrSuspended) {
							break
						}
						if err != nil {
							t.Error(err)
							break
						}
					}
					q.Closest()
					n.ID()
					n.RemoteAddr()
					n.PublicAddr()
					n.Nodes(3)
					n.Closest(dhtrpc.ID{})
					n.Stats()
					n.Refresh()
					if i == 7 && j%10 == 5 {
						if err := errors.Join(n.Suspend(), n.Resume()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		var closing sync.WaitGroup
		for _, n := range nodes {
			closing.Go(func() { n.Close() })
		}
		closing.Wait()
	})
	// A socket's reader may need a moment to notice that it is closed.
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if runtime.NumGoroutine() <= before {
			return
		}
	}
	stacks := make([]byte, 64<<10)
	t.Errorf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
}

func TestAPortThatIsTakenIsPassedOver(t *testing.T) {
	first := onLoopback(t, dhtrpc.Options{})
	port := first.ServerSocket().LocalAddr().Port()
	if got := onLoopback(t, dhtrpc.Options{Port: port}).ServerSocket().LocalAddr().Port(); got == port {
		t.Errorf("two nodes have port %d", got)
	}
	n, err := dhtrpc.Open(dhtrpc.Options{UDX: udx.New(udx.Options{}), Bind: netip.AddrFrom4([4]byte{127, 0, 0, 1}), Port: port, FixedPort: true})
	if err == nil {
		n.Close()
		t.Errorf("two nodes have port %d", port)
	}
}

func TestABootstrapNodeMayHaveAnyPort(t *testing.T) {
	o := dhtrpc.Bootstrapper(netip.MustParseAddrPort("127.0.0.1:0"))
	n := onLoopback(t, o)
	addr, ok := n.RemoteAddr()
	id, persistent := n.ID()
	if !ok || addr != n.ServerSocket().LocalAddr() || !persistent || id != dhtrpc.NodeID(addr) {
		t.Errorf("it is at %v, %v, with id %x, %v", addr, ok, id, persistent)
	}
}

func TestBootstrapNodesMayBeNames(t *testing.T) {
	first := onLoopback(t, dhtrpc.Options{Ephemeral: dhtrpc.Never, Open: true})
	asked := make(chan string, 10)
	n := onLoopback(t, dhtrpc.Options{
		Bootstrap: []string{fmt.Sprintf("seed.example:%d", first.ServerSocket().LocalAddr().Port()), "nowhere.example:5"},
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			asked <- name
			if name != "seed.example" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := n.Bootstrapped(ctx); err != nil {
		t.Fatal(err)
	}
	if s := n.Stats(); s.Responses == 0 {
		t.Errorf("%+v", s)
	}
	names := map[string]bool{}
	for len(names) < 2 {
		select {
		case name := <-asked:
			names[name] = true
		case <-ctx.Done():
			t.Fatalf("only %v were looked up", names)
		}
	}
	if _, err := dhtrpc.Open(dhtrpc.Options{UDX: udx.New(udx.Options{}), Bootstrap: []string{"nonsense"}}); err == nil {
		t.Error("nonsense is a bootstrap node")
	}
}
