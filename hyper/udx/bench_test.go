package udx_test

import (
	"io"
	"testing"

	"github.com/cloudbevy/bevy/hyper/packet"
	"github.com/cloudbevy/bevy/hyper/udx"
)

func BenchmarkLoopback(b *testing.B) {
	a := listen(b, packet.System, loopback, udx.SocketOptions{})
	s, r := join(a, listen(b, packet.System, loopback, udx.SocketOptions{}))
	data := pattern(64 << 10)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(r, int64(len(data))*int64(b.N)), make([]byte, 64<<10))
		done <- err
	}()
	b.ResetTimer()
	for range b.N {
		if _, err := s.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	b.Logf("%+v", s.Stats())
}

// BenchmarkAnswer is a byte there and a byte back.
func BenchmarkAnswer(b *testing.B) {
	s, r := join(listen(b, packet.System, loopback, udx.SocketOptions{}), listen(b, packet.System, loopback, udx.SocketOptions{}))
	b.ReportAllocs()
	go func() {
		p := make([]byte, 1)
		for {
			if _, err := r.Read(p); err != nil {
				return
			}
			r.Write(p)
		}
	}()
	p := make([]byte, 1)
	for b.Loop() {
		s.Write(p)
		if _, err := s.Read(p); err != nil {
			b.Fatal(err)
		}
	}
}
