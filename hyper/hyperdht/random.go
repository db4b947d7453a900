package hyperdht

import (
	"encoding/binary"
	"io"
	"sync"
)

// A random is where chance comes from. It may be used by any goroutine.
type random struct {
	mu sync.Mutex
	r  io.Reader
}

// Read implements io.Reader.
func (r *random) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(p)
}

// below returns a number from 0 to n-1.
func (r *random) below(n int) int {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		panic("hyperdht: " + err.Error()) // a source that fails has failed when the DHT was opened
	}
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n))
}
