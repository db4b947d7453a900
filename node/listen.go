package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/net/netutil"
)

const (
	// DefaultPort is where the page is; when it is taken, one of the next.
	DefaultPort = 7070
	morePorts   = 50
	// maxConnections bounds the memory that callers can make us use.
	maxConnections = 1024
)

// listenPort opens the port for pages and doors: at these addresses, or else at
// this machine's own, at the first port that is free.
func listenPort(ctx context.Context, addrs []string) (_ []net.Listener, err error) {
	if len(addrs) == 0 {
		return listenNext(ctx)
	}
	var all []net.Listener
	for _, addr := range addrs {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func listenNext(ctx context.Context) ([]net.Listener, error) {
	for port := DefaultPort; ; port++ {
		all, err := listenLoopback(ctx, port)
		if errors.Is(err, syscall.EADDRINUSE) && port < DefaultPort+morePorts {
			continue
		}
		return all, err
	}
}

// FreePort finds a port that a node could have now, and whether the machine has
// the second loopback address.
func FreePort(ctx context.Context) (port int, ipv6 bool) {
	all, err := listenNext(ctx)
	if err != nil {
		return DefaultPort, false
	}
	defer closeAll(all)
	return int(addrOf(all[0]).Port()), len(all) > 1
}

// listenLoopback opens a port of both loopback addresses, so that nobody else
// gets what is meant for "localhost". A machine may have no second one.
func listenLoopback(ctx context.Context, port int) ([]net.Listener, error) {
	first, err := new(net.ListenConfig).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	all := []net.Listener{first}
	second, err := new(net.ListenConfig).Listen(ctx, "tcp6", net.JoinHostPort("::1", strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		closeAll(all)
		return nil, err
	}
	if err == nil {
		all = append(all, second)
	}
	return all, nil
}

func closeAll(all []net.Listener) {
	for _, l := range all {
		_ = l.Close() // it was not used
	}
}

// listenSocket opens the control socket. What a process that was killed has
// left there is taken away.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := ownFolder(dir); err != nil {
		return nil, err
	}
	if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen at %s: %w: a service manager, if one starts the node when it is asked for", path, errTaken)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return ownerOnly{l}, nil
}

// errTaken: someone listens there.
var errTaken = fmt.Errorf("someone else does (%w)", syscall.EADDRINUSE)

// ownerOnly takes connections of the user's own programs, and of root's.
type ownerOnly struct{ net.Listener }

// Accept implements net.Listener.
func (l ownerOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peerIsOwner(c) {
			return c, nil
		}
		_ = c.Close() // and nothing is said
	}
}

// bounded takes so many connections at once; others wait.
func bounded(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }

// addrOf is the address of a TCP listener.
func addrOf(l net.Listener) netip.AddrPort {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		at := a.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}
