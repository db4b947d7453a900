package replicate

import (
	"bytes"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/runs"
)

// FuzzReceive gives a machine that has a part of a log whatever messages, among
// them answers of an honest peer with changes. Nothing of it makes it panic, keep
// much, lose count, or store what the writer has not signed, and nothing that a
// peer says looks like a fault of the disk.
//
// The input is a program: each step is an opcode, a byte of how long its argument
// is, and the argument.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{20, 0, 22, 0, 21, 0, 21, 0, 23, 0})
	f.Add([]byte{22, 0, 21, 4, 1, 9, 0, 1, 21, 4, 0, 1, 0, 0, 24, 0, 21, 0})
	f.Add([]byte{25, 0, 21, 0, 23, 0, 26, 0, 21, 4, 0, 3, 7, 1})
	f.Add(append([]byte{22, 0, 0, 5}, (&syncMessage{fork: 7, length: 90, canUpgrade: true, uploading: true}).append(nil)...))
	f.Add(append([]byte{7, 6}, appendBitfield(nil, 0, []uint32{5})...))
	f.Fuzz(func(t *testing.T, program []byte) {
		d := newDesk(t, 24, 30)
		m := d.m
		p := d.peer(runs.Range{End: 24})
		honest := d.peer(runs.Range{End: 24})
		honest.access.Upload = false
		var requests []requestMessage
		take := func() {
			requests = append(requests, d.asked(p)...)
			d.sent()
		}
		for steps := 0; len(program) >= 2 && steps < 200; steps++ {
			op, size := int(program[0]), min(int(program[1]), len(program)-2)
			arg := program[2 : 2+size]
			program = program[2+size:]
			m.now = d.now
			switch {
			case op < messages && op != msgExtension:
				if err := m.receive(p, op, bytes.Clone(arg)); err != nil {
					m.drop(p, err)
				} else {
					m.received(p)
				}
			case op == 20:
				m.setDownloading(len(arg)%2 == 0)
			case op == 21 && len(requests) > 0: // an answer, changed or not
				k := 0
				if len(arg) > 0 {
					k = int(arg[0]) % len(requests)
				}
				r := requests[k]
				requests = append(requests[:k], requests[k+1:]...)
				number, b := d.w.reply(&peer{access: Full}, &r)
				for i := 1; i+2 < len(arg) && len(b) > 0; i += 3 {
					if at := (int(arg[i])<<8 | int(arg[i+1])) % len(b); arg[i+2] == 0 {
						b = b[:at+1]
					} else {
						b[at] ^= arg[i+2]
					}
				}
				if b == nil {
					break // no answer
				}
				if err := m.receive(p, number, b); err != nil {
					m.drop(p, err)
				} else {
					m.received(p)
				}
			case op == 22:
				m.wantRange(&rangeWant{Range: runs.Range{End: noBlock}, linear: len(arg)%2 == 0, waiter: newWaiter()})
			case op == 23:
				d.pass(time.Duration(len(arg)) * time.Second)
			case op == 24:
				if _, err := d.w.log.Append(t.Context(), bytes.Clone(arg)); err != nil {
					t.Fatal(err)
				}
			case op == 25 && d.w.log.Length() > 0:
				if err := d.w.log.Truncate(t.Context(), d.w.log.Length()/2, hypercore.TruncateOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := d.w.log.Append(t.Context(), []byte("after a truncation")); err != nil {
					t.Fatal(err)
				}
			case op == 26:
				head := d.w.log.Head()
				s := syncMessage{fork: head.Fork, length: head.Length, remoteLength: d.x.log.Length(), canUpgrade: true, uploading: true}
				if err := m.receive(p, msgSync, s.append(nil)); err != nil {
					t.Fatal(err)
				}
				m.received(p)
			case op == 27:
				m.wantSeek(&seekWant{bytes: uint64(size) * 5, among: runs.Range{End: m.head.Length}, waiter: newWaiter()})
			case op == 28:
				m.suspect(p, merkle.ErrProof)
			case op == 29:
				d.x.flushJobs()
			}
			take()
			for len(m.gone) > 0 {
				m.gone = m.gone[1:]
			}
			d.x.books()
			if m.now.Before(m.fullUntil) {
				t.Fatal("a peer has made it look as if nothing could be stored")
			}
		}
		d.x.flushJobs()
		d.x.books()
		for problem, err := range d.x.log.Audit(t.Context()) {
			t.Fatal(problem, err)
		}
		// What the log is, it is by the writer's hand.
		if d.x.log.Fork() == d.w.log.Fork() {
			for i := range min(d.x.log.Length(), d.w.log.Length()) {
				if got, err := d.x.log.Stored(t.Context(), i); err == nil {
					if want, err := d.w.log.Stored(t.Context(), i); err != nil || !bytes.Equal(got, want) {
						t.Fatalf("block %d is %q, want %q, %v", i, got, want, err)
					}
				}
			}
		}
	})
}
