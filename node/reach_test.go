package node

import (
	"net"
	"strings"
	"testing"
)

// at is a listener at an address.
type at struct {
	net.Listener
	addr net.TCPAddr
}

func (a at) Addr() net.Addr { return &a.addr }

func TestAddressesForOthers(t *testing.T) {
	port := func(ips ...string) (all []net.Listener) {
		for _, ip := range ips {
			all = append(all, at{addr: net.TCPAddr{IP: net.ParseIP(ip), Port: 7070}})
		}
		return all
	}
	for _, c := range []struct {
		port   []net.Listener
		hosts  []string
		want   string
		others bool
	}{
		{port("127.0.0.1", "::1"), nil, "http://127.0.0.1:7070", false},
		{port("127.0.0.1", "192.0.2.7"), nil, "http://192.0.2.7:7070", true},
		{port("2001:db8::7"), nil, "http://[2001:db8::7]:7070", true},
		{port("0.0.0.0"), []string{"oak.example"}, "http://oak.example:7070", true},
		{port("127.0.0.1"), []string{"oak.example"}, "http://oak.example:7070", true},
	} {
		n := &Node{port: c.port, hosts: c.hosts}
		if got, others := n.Reach(); got != c.want || others != c.others {
			t.Errorf("%v: %s, %v", c.want, got, others)
		}
	}
	if got, others := (&Node{port: port("::")}).Reach(); strings.Contains(got, "[::]") || !others {
		t.Errorf("everywhere: %s, %v", got, others)
	}
}
