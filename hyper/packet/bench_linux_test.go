package packet_test

import (
	"sync/atomic"
	"testing"

	"github.com/cloudbevy/bevy/hyper/packet"
)

// BenchmarkSystem is what a datagram costs from one socket to another of this
// machine, and so the most that a stream can reach: one op is one datagram that
// was sent and received.
func BenchmarkSystem(b *testing.B) {
	for _, form := range []struct {
		name              string
		batches, segments bool
	}{{"all", false, false}, {"no-segments", false, true}, {"no-batches", true, true}} {
		b.Run("flow/"+form.name, func(b *testing.B) {
			defer packet.Without(form.batches, form.segments)()
			flow(b, 64)
		})
		b.Run("single/"+form.name, func(b *testing.B) {
			defer packet.Without(form.batches, form.segments)()
			flow(b, 1)
		})
		b.Run("round-trip/"+form.name, func(b *testing.B) {
			defer packet.Without(form.batches, form.segments)()
			roundTrip(b)
		})
	}
}

// flow sends datagrams in batches. So that none is lost, only so many are under
// way.
func flow(b *testing.B, size int) {
	const window, data = 1024, 1400
	var received atomic.Int64
	room := make(chan struct{}, 1)
	in := bind(b, "127.0.0.1:0", func(batch []packet.Packet) {
		n := 0
		for i := range batch {
			p := &batch[i]
			n += 1
			if p.Segment > 0 {
				n += (len(p.Data) - 1) / p.Segment
			}
		}
		received.Add(int64(n))
		select {
		case room <- struct{}{}:
		default:
		}
	})
	out := bind(b, "127.0.0.1:0", nil)
	batch := make([]packet.Packet, size)
	for i := range batch {
		batch[i] = packet.Packet{Addr: in.LocalAddr(), Data: make([]byte, data)} // not side by side, as those of a stream
	}
	b.SetBytes(data)
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; {
		now := batch[:min(size, b.N-sent)]
		if err := out.Write(now); err != nil {
			b.Fatal(err)
		}
		for sent += len(now); sent-int(received.Load()) > window; {
			<-room
		}
	}
	for int(received.Load()) < b.N {
		<-room
	}
}

// roundTrip sends a small datagram to and fro.
func roundTrip(b *testing.B) {
	back := make(chan struct{}, 1)
	var server packet.Conn
	server = bind(b, "127.0.0.1:0", func(batch []packet.Packet) { server.Write(batch) })
	client := bind(b, "127.0.0.1:0", func([]packet.Packet) { back <- struct{}{} })
	batch := []packet.Packet{{Addr: server.LocalAddr(), Data: make([]byte, 50)}}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		client.Write(batch)
		<-back
	}
}
