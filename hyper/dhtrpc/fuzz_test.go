package dhtrpc

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// bounded fails if a machine keeps more than it may.
func (r *rig) bounded(t *testing.T) {
	m := r.m
	for what, n := range map[string][2]int{
		"requests":    {len(m.requests), maxRequests},
		"timers":      {len(m.timers.heap), maxRequests + maxDelayed + 2},
		"delayed":     {m.delayed, maxDelayed},
		"nodes":       {m.nodes.length, K * 64},
		"round trips": {len(m.times.young) + len(m.times.old), 2 * maxTimes},
		"queries":     {len(m.queries), maxQueries},
		"samples":     {len(m.onceSeen), 1},
		"checks":      {m.checks, 2 * maxChecks},
	} {
		if n[0] < 0 || n[0] > n[1] {
			t.Errorf("%s: %d are kept, at most %d may be", what, n[0], n[1])
		}
	}
	if m.nodes.length != m.table.size {
		t.Errorf("%d nodes are in order and %d in the table", m.nodes.length, m.table.size)
	}
	for _, q := range m.queries {
		if len(q.seen) > maxSeen || q.visits > maxVisits || len(q.closest) > K || q.inflight < 0 || q.slow < 0 || q.slow > q.inflight {
			t.Errorf("a query knows %d nodes, has visited %d, keeps %d, %d under way, %d slow", len(q.seen), q.visits, len(q.closest), q.inflight, q.slow)
		}
	}
}

// hostile plays bytes as what comes to a machine that does things. Each step is
// a byte that says what, and what it needs.
func hostile(t *testing.T, r *rig, b []byte) {
	take := func(n int) []byte {
		out := make([]byte, n)
		b = b[copy(out, b):]
		return out
	}
	addr := func() netip.AddrPort {
		p := take(2)
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{24, p[0] % 4, p[0], p[1]}), 1000)
	}
	sockets := func() socket { return []socket{r.m.client, r.m.server, &rigSocket{"other"}}[take(1)[0]%3] }
	for steps := 0; len(b) > 0 && steps < 2000; steps++ {
		switch p := take(1)[0]; p % 8 {
		case 0: // bytes of any kind
			r.receive(sockets(), addr(), take(int(take(1)[0])))
		case 1, 2: // a request
			from := addr()
			m := message{internal: p&16 == 0, command: uint64(take(1)[0] % 6), tid: binary.LittleEndian.Uint16(take(2)), to: from}
			if p&32 != 0 {
				id := NodeID(from)
				m.id = &id
			}
			if p&64 != 0 {
				id := ID(take(32))
				m.target = &id
			}
			if p&128 != 0 {
				m.value = take(int(take(1)[0] % 16))
			}
			r.receive(sockets(), from, m.append(nil))
		case 3, 4: // an answer to what was asked, true or not
			sent := r.sent()
			for _, asked := range sent {
				if asked.reply {
					continue
				}
				m := message{reply: true, tid: asked.tid, to: addr()}
				if p&16 == 0 {
					id := NodeID(asked.to)
					m.id = &id
				}
				if p&32 != 0 {
					token := Token(take(32))
					m.token = &token
				}
				for range take(1)[0] % 40 {
					m.closer = append(m.closer, addr())
				}
				if p&64 != 0 {
					m.code = uint64(take(1)[0])
				}
				r.receive(r.m.socket(), asked.to, m.append(nil))
			}
		case 5: // a query
			spec := querySpec{target: ID(take(32)), call: Call{Internal: true, Command: CommandFindNode}}
			if p&16 != 0 {
				spec.commit = func(Reply) (Call, error) { return Call{Command: 1}, nil }
			}
			if r.m.query(spec); p&32 != 0 && len(r.m.queries) > 0 {
				r.m.queries[0].finish(ErrTimeout)
			}
			r.settle()
		case 6: // time
			r.pass(time.Duration(take(1)[0]) * 100 * time.Millisecond)
		case 7:
			if p&128 == 0 {
				continue
			}
			r.m.suspend(r.now)
			r.now = r.now.Add(time.Minute)
			r.m.bind(r.now, &rigSocket{"client"}, &rigSocket{"server"}, testPort)
			r.settle()
		}
		r.bounded(t)
	}
	r.m.out = nil
	r.pass(time.Hour)
	r.m.out = nil
	r.bounded(t)
	// Each query has an end, and so has each question.
	if m := r.m; len(m.queries) > 1 || len(m.requests) > 30 {
		t.Errorf("after an hour %d queries and %d requests are under way", len(m.queries), len(m.requests))
	}
	r.m.close(r.now)
	if m := r.m; len(m.queries)+len(m.requests)+len(m.waiting)+len(m.timers.heap)+m.checks+m.repinging != 0 {
		t.Errorf("after the end there are %d queries, %d requests, %d waiting, %d timers, %d checks, %d pings", len(m.queries), len(m.requests), len(m.waiting), len(m.timers.heap), m.checks, m.repinging)
	}
}

func FuzzANodeAmongHostilePackets(f *testing.F) {
	f.Add([]byte("\x01\x20\x03\x05aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x03\x06\xff\x04\x06\x10"))
	f.Add([]byte{0x25, 1, 2, 3, 0x13, 5, 6, 7, 0x06, 0xff, 0x87, 0x15})
	d, err := newDice([32]byte{7})
	if err != nil {
		f.Fatal(err)
	}
	for range 30 {
		b := make([]byte, 100+d.below(3000))
		if _, err := d.Read(b); err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRig(t, config{
			public: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), testPort), ephemeral: Ephemeral(len(b) % 3), open: len(b)%2 == 0,
			handle: func(in *incoming) {},
		})
		hostile(t, r, b)
	})
}
