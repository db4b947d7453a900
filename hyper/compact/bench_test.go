package compact

import (
	"bytes"
	"testing"
)

var (
	sinkBytes []byte
	sinkUint  uint64
)

func BenchmarkAppendUint(b *testing.B) {
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendUint(AppendUint(AppendUint(buf[:0], 7), 70_000), 1<<40)
	}
	sinkBytes = buf
}

func BenchmarkDecodeUint(b *testing.B) {
	in := AppendUint(AppendUint(AppendUint(nil, 7), 70_000), 1<<40)
	b.ReportAllocs()
	for b.Loop() {
		d := NewDecoder(in)
		sinkUint = d.Uint() + d.Uint() + d.Uint()
	}
}

func BenchmarkAppendBuffer(b *testing.B) {
	p := bytes.Repeat([]byte{1}, 1024)
	buf := make([]byte, 0, 2048)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBuffer(buf[:0], p)
	}
	sinkBytes = buf
}

func BenchmarkDecodeBuffer(b *testing.B) {
	in := AppendBuffer(nil, bytes.Repeat([]byte{1}, 1024))
	b.ReportAllocs()
	for b.Loop() {
		d := NewDecoder(in)
		sinkBytes = d.Buffer(4096)
	}
}

func TestUintAndBufferDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 2048)
	p := make([]byte, 1024)
	var key [32]byte
	got := testing.AllocsPerRun(100, func() {
		b := AppendUint(buf, 1<<40)
		b = AppendInt(b, -3)
		b = AppendUint64(b, 9)
		b = AppendLexint(b, 1<<40)
		b = AppendBuffer(b, p)
		b = AppendFixed32(b, &key)
		d := NewDecoder(b)
		sinkUint = d.Uint() + uint64(d.Int()) + d.Uint64() + d.Lexint()
		sinkBytes = d.Buffer(4096)
		key = d.Fixed32()
		if d.Finish() != nil {
			t.Error(d.Finish())
		}
	})
	if got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
