package transport

import (
	"net"
	"syscall"
	"testing"
)

func TestTCPIsKeptAliveAndSendsAtOnce(t *testing.T) {
	for _, addr := range []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0"} {
		l, err := Listen(t.Context(), addr, ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := Dial(t.Context(), l.Addr(), DialOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := l.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		for _, c := range []Conn{a, b} {
			var conn *net.TCPConn
			switch c := c.(type) {
			case *tcpConn:
				conn = c.conn
			case *wsConn:
				conn = c.socket.raw.(*net.TCPConn)
			}
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				for name, option := range map[string][3]int{
					"TCP_NODELAY":   {syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
					"SO_KEEPALIVE":  {syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
					"TCP_KEEPIDLE":  {syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 30},
					"TCP_KEEPINTVL": {syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 10},
				} {
					if got, err := syscall.GetsockoptInt(int(fd), option[0], option[1]); got != option[2] || err != nil {
						t.Errorf("%s: %s is %d, %v, want %d", addr, name, got, err, option[2])
					}
				}
			})
		}
	}
}
