package packet

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Without makes sockets that are opened from now on do without what some
// kernels lack.
func Without(batches, segments bool) (restore func()) {
	was := lacking
	lacking.batches, lacking.segments = batches, segments
	return func() { lacking = was }
}

// Segments tells whether the kernel cuts what a socket sends into datagrams.
func Segments(c Conn) bool {
	s, ok := c.(*socket)
	return ok && s.gso.Load()
}

// Option returns an option of a socket.
func Option(t *testing.T, c Conn, level, name int) (value int) {
	t.Helper()
	control(t, c, func(fd int) (err error) {
		value, err = unix.GetsockoptInt(fd, level, name)
		return err
	})
	return value
}

// SetOption sets an option of a socket.
func SetOption(t *testing.T, c Conn, level, name, value int) {
	t.Helper()
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) })
}

func control(t *testing.T, c Conn, f func(fd int) error) {
	t.Helper()
	var conn *net.UDPConn
	switch s := c.(type) {
	case *socket:
		conn = s.conn
	case *plainSocket:
		conn = s.conn
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = f(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
}
