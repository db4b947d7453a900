package interop_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/udx"
)

// The commands of the values that both kinds of node keep.
const (
	dhtPut  = 0
	dhtGet  = 1
	dhtFail = 2
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// dhtNode is one of ours, on loopback.
type dhtNode struct {
	*dhtrpc.Node
	t *testing.T
}

func openDHT(t *testing.T, o dhtrpc.Options) dhtNode {
	t.Helper()
	var mu sync.Mutex
	values := map[dhtrpc.ID][]byte{}
	o.UDX = udx.New(udx.Options{})
	o.Bind = loopback
	o.Handle = func(r *dhtrpc.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.Command == dhtFail:
			r.Error(7, dhtrpc.ReplyOptions{})
			return true
		case r.Command > dhtFail || r.Target == nil:
			return false
		case r.Command == dhtPut && r.Token != nil:
			values[*r.Target] = r.Value
		}
		r.Reply(values[*r.Target], dhtrpc.ReplyOptions{})
		return true
	}
	n, err := dhtrpc.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return dhtNode{n, t}
}

// bootstrapDHT is one of ours by which others enter.
func bootstrapDHT(t *testing.T) dhtNode {
	t.Helper()
	return openDHT(t, dhtrpc.Bootstrapper(netip.AddrPortFrom(loopback, 0))).ready()
}

func (n dhtNode) addr() netip.AddrPort {
	return netip.AddrPortFrom(loopback, n.ServerSocket().LocalAddr().Port())
}

func (n dhtNode) ready() dhtNode {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	if err := n.Bootstrapped(ctx); err != nil {
		n.t.Fatal(err)
	}
	return n
}

// isPersistent fails unless the node takes part, under the id of its address.
func (n dhtNode) isPersistent() {
	n.t.Helper()
	id, ok := n.ID()
	remote, known := n.RemoteAddr()
	if !ok || !known || remote != n.addr() || id != dhtrpc.NodeID(n.addr()) || n.Firewalled() {
		n.t.Errorf("a node of ours at %v is not persistent: id %x, %v, seen at %v", n.addr(), id, ok, n.PublicAddr())
	}
}

func (n dhtNode) find(target dhtrpc.ID) (closest []string) {
	n.t.Helper()
	q := n.FindNode(n.t.Context(), target, dhtrpc.QueryOptions{})
	if err := q.Wait(); err != nil {
		n.t.Error(err)
	}
	for _, r := range q.Closest() {
		closest = append(closest, r.From.Addr.String())
	}
	return closest
}

func (n dhtNode) get(target dhtrpc.ID) (values []string) {
	n.t.Helper()
	q := n.Query(n.t.Context(), target, dhtrpc.QueryOptions{Call: dhtrpc.Call{Command: dhtGet}})
	for r, err := range q.All() {
		if err != nil {
			n.t.Error(err)
		} else if len(r.Value) > 0 {
			values = append(values, hex.EncodeToString(r.Value))
		}
	}
	return values
}

func (n dhtNode) put(target dhtrpc.ID, value string) {
	n.t.Helper()
	q := n.Query(n.t.Context(), target, dhtrpc.QueryOptions{
		Call: dhtrpc.Call{Command: dhtGet},
		Commit: func(r dhtrpc.Reply) (dhtrpc.Call, error) {
			return dhtrpc.Call{Command: dhtPut, Value: []byte(value), Token: r.Token}, nil
		},
	})
	if err := q.Wait(); err != nil {
		n.t.Error(err)
	}
}

func (n dhtNode) do(to uint16, c dhtrpc.Call) dhtrpc.Reply {
	n.t.Helper()
	r, err := n.Do(n.t.Context(), netip.AddrPortFrom(loopback, to), c, dhtrpc.CallOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

type (
	dhtInfo struct {
		ID                    *string
		Host                  *string
		Port, ServerPort      uint16
		Ephemeral, Firewalled bool
		Nodes                 []string
	}
	dhtFound struct{ Values, From, Closest []string }
	dhtReply struct {
		From, To     string
		Error        uint64
		Value, Token *string
		Closer       []string
	}
)

func hexID(id dhtrpc.ID) string { return hex.EncodeToString(id[:]) }

// dhtNodes opens some of Node's nodes that take part.
func (n node) dhtNodes(prefix string, count int, bootstrap string) (ports []uint16) {
	n.t.Helper()
	for i := range count {
		handle := fmt.Sprint(prefix, i)
		o := call[struct{ Port uint16 }](n, "open", args{"handle": handle, "bootstrap": []string{bootstrap}, "options": args{"ephemeral": false}})
		call[any](n, "ready", args{"handle": handle})
		ports = append(ports, o.Port)
	}
	return ports
}

func sortedCopy(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// Ours and Node's enter one network by a bootstrap node of either kind; all know
// the same of it, and what one leaves the others find.
func TestDHTOfNodeAndOurs(t *testing.T) {
	for _, by := range []string{"Node", "ours"} {
		t.Run("entered by "+by, func(t *testing.T) {
			n := startScript(t, "dhtrpc.js")
			bootstrap := ""
			var want []string
			if by == "Node" {
				o := call[struct{ Port uint16 }](n, "open", args{"handle": "bootstrap", "bootstrapper": true})
				call[any](n, "ready", args{"handle": "bootstrap"})
				bootstrap = fmt.Sprintf("127.0.0.1:%d", o.Port)
			} else {
				bootstrap = bootstrapDHT(t).addr().String()
			}
			want = append(want, bootstrap)
			const each = 8
			var ours []dhtNode
			var theirs []uint16
			for i := range each {
				o := openDHT(t, dhtrpc.Options{Bootstrap: []string{bootstrap}, Ephemeral: dhtrpc.Never}).ready()
				o.isPersistent()
				ours = append(ours, o)
				theirs = append(theirs, n.dhtNodes(fmt.Sprint("n", i), 1, bootstrap)...)
				want = append(want, o.addr().String(), fmt.Sprintf("127.0.0.1:%d", theirs[i]))
			}
			for i := range each {
				if in := call[dhtInfo](n, "info", args{"handle": fmt.Sprintf("n%d0", i)}); in.ID == nil || in.Ephemeral || in.Firewalled || in.Port != theirs[i] {
					t.Errorf("a node of Node's is not persistent: %+v", in)
				}
			}

			target := dhtrpc.ID{1, 2, 3}
			all := func(not string) []string {
				return sortedCopy(slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == not }))
			}
			for _, o := range ours {
				if got := sortedCopy(o.find(target)); !slices.Equal(got, all(o.addr().String())) {
					t.Errorf("ours at %v finds %d of %d nodes", o.addr(), len(got), len(want)-1)
				}
			}
			for i, port := range theirs {
				got := call[dhtFound](n, "find", args{"handle": fmt.Sprintf("n%d0", i), "target": hexID(target)}).Closest
				if !slices.Equal(sortedCopy(got), all(fmt.Sprintf("127.0.0.1:%d", port))) {
					t.Errorf("Node's at %d finds %d of %d nodes", port, len(got), len(want)-1)
				}
			}

			// Values go both ways, with tokens of both kinds.
			ours[0].put(dhtrpc.ID{7}, "left by ours")
			got := call[dhtFound](n, "query", args{"handle": "n00", "target": hexID(dhtrpc.ID{7}), "command": dhtGet})
			if !slices.Contains(got.Values, hex.EncodeToString([]byte("left by ours"))) || len(got.Values) != 2*each-1 {
				t.Errorf("Node finds %d copies of what ours left", len(got.Values))
			}
			call[dhtFound](n, "query", args{"handle": "n10", "target": hexID(dhtrpc.ID{8}), "command": dhtGet, "put": "abcd"})
			if got := ours[1].get(dhtrpc.ID{8}); !slices.Contains(got, "abcd") || len(got) != 2*each-1 {
				t.Errorf("ours finds %d copies of what Node left", len(got))
			}
		})
	}
}

func TestDHTRequestsBetweenNodeAndOurs(t *testing.T) {
	n := startScript(t, "dhtrpc.js")
	o := bootstrapDHT(t)
	port := n.dhtNodes("n", 1, o.addr().String())[0]
	target := dhtrpc.ID{9}
	wrong := dhtrpc.Token{1}

	// A token is for who was given it.
	refusedBy := o.do(port, dhtrpc.Call{Command: dhtPut, Target: &target, Value: []byte("x"), Token: &wrong})
	if refusedBy.Code != dhtrpc.CodeInvalidToken || refusedBy.Token == nil {
		t.Errorf("Node answers a wrong token with %+v", refusedBy)
	}
	if r := o.do(port, dhtrpc.Call{Command: dhtPut, Target: &target, Value: []byte("x"), Token: refusedBy.Token}); r.Code != 0 || string(r.Value) != "x" {
		t.Errorf("Node answers its token with %+v", r)
	}
	ask := func(command int, token any) dhtReply {
		return call[dhtReply](n, "request", args{"handle": "n0", "port": o.addr().Port(), "command": command, "target": hexID(target), "value": "aa", "token": token})
	}
	r := ask(dhtPut, hexID(dhtrpc.ID(wrong)))
	if r.Error != dhtrpc.CodeInvalidToken || r.Token == nil {
		t.Fatalf("ours answers a wrong token with %+v", r)
	}
	if r = ask(dhtPut, *r.Token); r.Error != 0 || r.Value == nil || *r.Value != "aa" || r.From != o.addr().String() || r.To != fmt.Sprintf("127.0.0.1:%d", port) {
		t.Errorf("ours answers its token with %+v", r)
	}

	// Errors of a command, and commands that nobody knows.
	for command, want := range map[int]uint64{dhtFail: 7, 99: dhtrpc.CodeUnknownCommand} {
		if r := ask(command, nil); r.Error != want || len(r.Closer) == 0 {
			t.Errorf("ours answers command %d with %+v, want error %d and closer nodes", command, r, want)
		}
		if r := o.do(port, dhtrpc.Call{Command: uint64(command), Target: &target}); r.Code != want || len(r.Closer) == 0 {
			t.Errorf("Node answers command %d with %+v, want error %d and closer nodes", command, r, want)
		}
	}

	// Pings of all kinds.
	if r := call[dhtReply](n, "ping", args{"handle": "n0", "port": o.addr().Port()}); r.To != fmt.Sprintf("127.0.0.1:%d", port) {
		t.Errorf("ours sees Node at %s", r.To)
	}
	start := time.Now()
	call[dhtReply](n, "delayedPing", args{"handle": "n0", "port": o.addr().Port(), "delay": 200})
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Errorf("ours answers a ping to be delayed after %v", took)
	}
	to := netip.AddrPortFrom(loopback, port)
	start = time.Now()
	if _, err := o.DelayedPing(t.Context(), to, 200*time.Millisecond, dhtrpc.CallOptions{}); err != nil || time.Since(start) < 200*time.Millisecond {
		t.Errorf("Node answers a ping to be delayed after %v, %v", time.Since(start), err)
	}
	if r, err := o.PingNAT(t.Context(), to, o.ClientSocket().LocalAddr().Port(), dhtrpc.CallOptions{}); err != nil || r.To != netip.AddrPortFrom(loopback, o.ClientSocket().LocalAddr().Port()) {
		t.Errorf("Node answers to another port with %+v, %v", r, err)
	}
}

// A node of Node's is promoted by a network of ours only: it learns from ours
// that it is reachable.
func TestDHTOfOursPromotesNode(t *testing.T) {
	n := startScript(t, "dhtrpc.js")
	bootstrap := bootstrapDHT(t)
	for range 6 {
		openDHT(t, dhtrpc.Options{Bootstrap: []string{bootstrap.addr().String()}, Ephemeral: dhtrpc.Never}).ready().isPersistent()
	}
	o := call[struct{ Port uint16 }](n, "open", args{"handle": "n", "bootstrap": []string{bootstrap.addr().String()}})
	call[any](n, "ready", args{"handle": "n"})
	call[any](n, "hasten", args{"handle": "n"})
	addr := netip.AddrPortFrom(loopback, o.Port)
	if got := call[struct{ ID string }](n, "untilPersistent", args{"handle": "n"}); got.ID != hexID(dhtrpc.NodeID(addr)) {
		t.Errorf("Node's id is %s, want that of %v", got.ID, addr)
	}
	// Ours take it into their tables once it has asked something and answered.
	call[dhtFound](n, "find", args{"handle": "n", "target": hexID(dhtrpc.ID{})})
	for end := time.Now().Add(10 * time.Second); ; {
		got := bootstrap.find(dhtrpc.NodeID(addr))
		if len(got) > 0 && got[0] == addr.String() {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("ours finds %v, want %v first", got, addr)
		}
	}
}

func TestDHTNodesSleepAndWakeUp(t *testing.T) {
	n := startScript(t, "dhtrpc.js")
	bootstrap := call[struct{ Port uint16 }](n, "open", args{"handle": "bootstrap", "bootstrapper": true})
	call[any](n, "ready", args{"handle": "bootstrap"})
	name := fmt.Sprintf("127.0.0.1:%d", bootstrap.Port)
	ports := n.dhtNodes("n", 3, name)
	o := openDHT(t, dhtrpc.Options{Bootstrap: []string{name}, Ephemeral: dhtrpc.Never}).ready()
	addr := o.addr()

	if err := o.Suspend(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Ping(t.Context(), netip.AddrPortFrom(loopback, ports[0]), dhtrpc.CallOptions{}); !errors.Is(err, dhtrpc.ErrSuspended) {
		t.Errorf("a node that is suspended pings: %v", err)
	}
	if err := o.Resume(); err != nil {
		t.Fatal(err)
	}
	if o.addr() != addr {
		t.Errorf("after it slept a node is at %v, want %v", o.addr(), addr)
	}
	if got := o.find(dhtrpc.ID{1}); len(got) != 4 {
		t.Errorf("after it slept a node finds %v", got)
	}

	call[any](n, "suspend", args{"handle": "n0"})
	call[any](n, "resume", args{"handle": "n0"})
	if _, err := o.Ping(t.Context(), netip.AddrPortFrom(loopback, ports[0]), dhtrpc.CallOptions{}); err != nil {
		t.Errorf("Node's node does not answer after it slept: %v", err)
	}
}
