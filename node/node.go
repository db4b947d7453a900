// Package node is a node of a personal cloud: the process that "bevy up" runs.
//
// A node has its folders to itself (Paths), a port for pages and doors, a
// socket by which its owner's programs control it, and services that it keeps
// running. What it is asked comes as JSON over HTTP: see Route, and package
// client, which has the types. What it does beyond that is hung into it:
//
//	n, err := node.Open(ctx, node.Options{Paths: paths, Wire: func(ctx context.Context, n *node.Node) error {
//		n.Route(node.Call("GET", "/folders", "List folders", folders.list))
//		n.Supervise("sync", folders.sync)
//		n.OnClose(folders.close)
//		return nil
//	}})
//	err = errors.Join(n.Wait(ctx), n.Close())
//
// The socket has all rights. The port is for those who have signed in with a
// link that was made by way of the socket, and listens to this machine only
// unless told otherwise.
package node

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// DefaultIdle is after how long a node ends that is started when it is asked.
	DefaultIdle = 10 * time.Minute
	// How long requests and services have to end when the node does.
	drainTime, endTime = 10 * time.Second, 20 * time.Second
	// Slow callers: how long they have for a header, for a body, and to take what
	// they are sent; and how long a connection may be silent.
	headerTime, bodyTime, takeTime, silentTime = 10 * time.Second, 30 * time.Second, 30 * time.Second, 2 * time.Minute
	maxHeader                                  = 64 << 10
	// When the node ends, who has said nothing yet may still begin to.
	lastMoment = 200 * time.Millisecond
)

// Options say how a node is.
type Options struct {
	Paths   Paths
	Version string
	Env     map[string]string // has what a service manager tells; nil: nothing

	// Listen has addresses for the port, such as ":7070" for all networks. None is
	// this machine only, at port 7070 or the next that is free.
	Listen []string
	// Hosts are names that the port answers to, beside those of this machine.
	Hosts []string

	// Idle is after how long without anything to do the node ends. 0 is
	// DefaultIdle if a service manager would start it again, and else never; less
	// than 0 is never.
	Idle time.Duration

	Clock clock.Clock  // nil: the machine's
	Level slog.Leveler // of the log; nil: info
	Watch io.Writer    // gets the log too, for someone who watches
	// Process says that the process is the node's alone. Then what it says when it
	// crashes is kept.
	Process bool

	// Wire hangs services, routes and doors into the node before it answers
	// anyone. What it opens it gives to OnClose.
	Wire func(ctx context.Context, n *Node) error
}

// A Node is a running node. Its methods may be called by any goroutine; Route
// and Door only by Options.Wire.
type Node struct {
	// Log is for what happens, Notices for what the owner should know.
	Log     *slog.Logger
	Notices *Notices

	opts     Options
	clock    clock.Clock
	since    time.Time
	lock     *lock
	before   Record // who had the store before
	reserve  *reserve
	logFile  *logFile
	events   *hub
	idle     *idler
	rester   *rester
	sessions *sessions
	super    *supervisor
	usage    usageMeter

	hosts   []string
	port    []net.Listener // the first one is where the page is
	control net.Listener
	token   string // where the control is a port
	handed  bool   // the listeners are a service manager's

	routes   []Route
	mux      *http.ServeMux
	doors    []*openDoor
	statuses []func(context.Context, *client.Status)
	closers  []func() error
	document []byte
	streams  atomic.Int64 // of events

	servers  []*http.Server
	silent   silent
	serving  sync.WaitGroup
	context  context.Context // of services and streams
	cancel   context.CancelFunc
	draining chan struct{} // closed: streams end

	end     sync.Once
	ended   chan struct{} // closed: the node is to end
	why     string        // "stopped" or "idle"
	failure error
	once    sync.Once // of Close
	closed  error
}

// Open starts a node: when it returns, the node answers. If another process has
// the store, the error is a *RunningError. The caller owes the node Close.
func Open(ctx context.Context, o Options) (_ *Node, err error) {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	n := &Node{opts: o, clock: o.Clock, since: o.Clock.Now(), draining: make(chan struct{}), ended: make(chan struct{})}
	n.context, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := n.openState(); err != nil {
		return nil, fmt.Errorf("open the node's state: %w", err)
	}
	if err := n.listen(ctx); err != nil {
		return nil, err
	}
	n.rester = newRester(n.clock)
	n.rester.stir()
	n.idle = newIdler(n.clock, n.idleAfter(), func() { n.stop("idle", nil) })
	defer n.idle.busy("starting")()
	n.Route(n.ownRoutes()...)
	if o.Wire != nil {
		if err := o.Wire(ctx, n); err != nil {
			return nil, err
		}
	}
	if err := n.seal(); err != nil {
		return nil, err
	}
	n.serve()
	n.lock.Address, n.lock.Socket, n.lock.Control = n.Address(), n.opts.Paths.Socket(), n.controlTarget()
	if err := n.lock.write(); err != nil {
		return nil, fmt.Errorf("write down who has the store: %w", err)
	}
	if err := tellManager(o.Env, "READY=1\nSTATUS=page "+n.Address()); err != nil {
		n.Log.Warn("cannot tell the service manager", "err", err)
	}
	n.Log.Info("ready", "version", o.Version, "page", n.Address(), "pid", os.Getpid(), "before", n.before.Ended)
	return n, nil
}

// openState takes the lock, and opens what is kept in the state folder.
func (n *Node) openState() (err error) {
	p := n.opts.Paths
	if err := p.make(); err != nil {
		return err
	}
	n.reserve = newReserve(p, n.clock)
	n.reserve.giveUp()
	if n.lock, n.before, err = takeLock(p, n.since); err != nil {
		return err
	}
	if n.logFile, err = openLog(logPath(p), maxLog); err != nil {
		return err
	}
	n.Log = newLogger(n.logFile, n.opts.Level, n.opts.Watch)
	n.events = newHub(n.clock)
	n.Notices = &Notices{clock: n.clock, publish: n.events.publish, all: map[noticeID]client.Notice{}}
	n.reserve.begin(n.Notices)
	n.super = &supervisor{clock: n.clock, log: n.Log, notices: n.Notices, publish: n.events.publish}
	if err := n.openSessions(filepath.Join(p.State, "sessions.json")); err != nil {
		return err
	}
	return n.keepCrashes()
}

// openSessions reads who is signed in. If that can't be read, nobody is.
func (n *Node) openSessions(path string) (err error) {
	if n.sessions, err = openSessions(path, n.clock); err == nil {
		return nil
	}
	n.Log.Warn("nobody is signed in any more", "err", err)
	if err := os.Rename(path, path+".bad"); err != nil {
		return err
	}
	n.sessions, err = openSessions(path, n.clock)
	return err
}

// keepCrashes has the runtime write to a file what it says when it ends the
// process, and puts aside what it said the last time.
func (n *Node) keepCrashes() error {
	path := filepath.Join(n.opts.Paths.State, "crash.txt")
	if n.before.PID != 0 && n.before.Ended == "" {
		n.before.Ended = "killed"
	}
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		if err := os.Rename(path, n.lastCrash()); err != nil {
			return err
		}
		n.before.Ended = "crashed"
		n.Notices.Raise(client.Notice{
			Code: "crashed", Severity: client.Warning,
			Text: "bevy has crashed, and was started again; what was acknowledged is there. The reason is in " + n.lastCrash(),
		})
	}
	if !n.opts.Process {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = debug.SetCrashOutput(f, debug.CrashOptions{})
	return errors.Join(err, f.Close()) // the runtime has a copy
}

func (n *Node) lastCrash() string { return filepath.Join(n.opts.Paths.State, "crash-last.txt") }

// listen opens the port and the control socket, as far as a service manager has
// not.
func (n *Node) listen(ctx context.Context) error {
	given, err := handed(n.opts.Env)
	if err != nil {
		return err
	}
	n.handed = len(given) > 0
	for _, l := range given {
		switch l.Addr().Network() {
		case "unix":
			n.control = ownerOnly{l}
		default:
			n.port = append(n.port, l)
		}
	}
	if n.control == nil && socketControl {
		n.control, err = listenSocket(ctx, n.opts.Paths.Socket())
	} else if n.control == nil {
		n.token = rand.Text()
		n.control, err = new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return fmt.Errorf("open the control socket: %w", err)
	}
	if len(n.port) == 0 {
		if n.port, err = listenPort(ctx, n.opts.Listen); err != nil {
			return fmt.Errorf("open the port: %w", err)
		}
	}
	for _, host := range n.opts.Hosts {
		n.hosts = append(n.hosts, strings.ToLower(host))
	}
	for _, l := range n.port {
		if at := addrOf(l); at.IsValid() && !at.Addr().IsLoopback() {
			n.Notices.Raise(client.Notice{
				Code: "open-port", Severity: client.Warning,
				Text: fmt.Sprintf("the page is open to the network at %s, and not encrypted on the way", at),
				Fix:  "bevy down; bevy up",
			})
		}
	}
	return nil
}

// idleAfter is after how long the node ends, 0 for never.
func (n *Node) idleAfter() time.Duration {
	switch {
	case n.opts.Idle > 0:
		return n.opts.Idle
	case n.opts.Idle == 0 && n.handed:
		return DefaultIdle
	}
	return 0
}

// Address is where the page is, such as http://127.0.0.1:7070.
func (n *Node) Address() string {
	at := addrOf(n.port[0])
	host := at.Addr().String()
	if at.Addr().IsUnspecified() {
		host = "127.0.0.1"
	}
	return address(net.JoinHostPort(host, strconv.Itoa(int(at.Port()))))
}

// cookieName has the port in it: nodes at other ports of the machine have
// cookies of their own, and a browser does not tell the ports apart.
func (n *Node) cookieName() string { return fmt.Sprintf("bevy-%d", addrOf(n.port[0]).Port()) }

func (n *Node) controlTarget() string {
	if n.token == "" {
		return n.opts.Paths.Socket()
	}
	return fmt.Sprintf("http://:%s@%s", n.token, n.control.Addr())
}

// Link makes a link that signs a browser in, once and soon.
func (n *Node) Link() client.Link {
	token, until := n.sessions.link()
	return client.Link{URL: n.Address() + "/#t=" + token, Expires: until}
}

// Paths are the folders of the node.
func (n *Node) Paths() Paths { return n.opts.Paths }

// Hosts are the names that the port answers to beside those of this machine.
func (n *Node) Hosts() []string { return n.hosts }

// Clock is the node's.
func (n *Node) Clock() clock.Clock { return n.clock }

// Route adds to what the node can be asked.
func (n *Node) Route(routes ...Route) { n.routes = append(n.routes, routes...) }

// Door opens a door at the port. It returns what the door is accounted by: doors of
// one name together.
func (n *Node) Door(d Door) *Account {
	a := new(Account)
	if i := slices.IndexFunc(n.doors, func(o *openDoor) bool { return o.Name == d.Name }); i >= 0 {
		a = n.doors[i].account
	}
	n.doors = append(n.doors, &openDoor{d, a})
	return a
}

// Supervise runs a service until the node ends or serve returns nil. If it
// fails or panics it is started again, after a while that grows. It is over when
// its context is; the node waits for it.
func (n *Node) Supervise(name string, serve func(context.Context) error) *Account {
	return n.super.add(n.context, name, serve)
}

// Busy keeps the node from ending by itself until done is called. why is told
// to people: "sync", "peers".
func (n *Node) Busy(why string) (done func()) {
	over := n.idle.busy(why)
	return func() {
		n.rester.stir()
		over()
	}
}

// Publish tells all who follow the events. See client for kinds; data becomes
// JSON, at most 64 KiB of it.
func (n *Node) Publish(kind string, data any) {
	n.rester.stir()
	n.events.publish(kind, data)
}

// Say publishes something that happened, in words for people.
func (n *Node) Say(format string, args ...any) {
	n.events.publish(client.Said, client.Words{Text: fmt.Sprintf(format, args...)})
}

// OnStatus has f add to each status that is asked for.
func (n *Node) OnStatus(f func(context.Context, *client.Status)) { n.statuses = append(n.statuses, f) }

// OnRest has the node call f when nothing has happened for a while, to free memory
// that only work needs. f must return soon.
func (n *Node) OnRest(f func()) { n.rester.onRest(f) }

// OnClose has the node call f when it ends, after the services have ended. What
// was opened last is closed first.
func (n *Node) OnClose(f func() error) { n.closers = append(n.closers, f) }

// Stop has the node end: Wait returns.
func (n *Node) Stop() { n.stop("stopped", nil) }

func (n *Node) stop(why string, err error) {
	n.end.Do(func() {
		n.why, n.failure = why, err
		close(n.ended)
	})
}

// Wait returns when the node is to end: the context ends, it was told to, or it
// was idle for long enough; or its listener broke, which is an error.
func (n *Node) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		n.stop("stopped", nil)
	case <-n.ended:
	}
	return n.failure
}

// serve begins to answer.
func (n *Node) serve() {
	errs := slog.NewLogLogger(n.Log.Handler(), slog.LevelDebug)
	start := func(l net.Listener, h http.Handler) {
		s := &http.Server{
			Handler: h, ErrorLog: errs, MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime, IdleTimeout: silentTime,
			BaseContext: func(net.Listener) context.Context { return n.context }, ConnState: n.silent.note,
		}
		n.servers = append(n.servers, s)
		n.serving.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				n.stop("stopped", fmt.Errorf("serve at %s: %w", l.Addr(), err))
			}
		})
	}
	start(n.control, http.HandlerFunc(n.serveControl))
	for _, l := range n.port {
		start(bounded(l), http.HandlerFunc(n.servePort))
	}
}

// Close ends the node: it lets requests and services end, within bounds, and
// closes everything. It returns the first error.
func (n *Node) Close() error {
	n.once.Do(func() { n.closed = n.close() })
	return n.closed
}

func (n *Node) close() (err error) {
	n.stop("stopped", nil)
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	if n.idle != nil {
		n.idle.close()
		n.rester.close()
	}
	close(n.draining)
	if len(n.servers) > 0 {
		_ = tellManager(n.opts.Env, "STOPPING=1") // it sees it anyway
		n.drain()
	} else {
		n.closeListeners()
	}
	n.cancel()
	if n.super != nil && !n.within(endTime, n.super.running.Wait) {
		n.Log.Error("services do not end")
	}
	for _, f := range slices.Backward(n.closers) {
		keep(f())
	}
	if n.Log != nil {
		n.Log.Info("ended", "why", n.why)
	}
	if n.reserve != nil {
		n.reserve.close()
	}
	if n.logFile != nil {
		keep(n.logFile.close())
	}
	if n.lock != nil {
		keep(n.lock.free(n.why))
	}
	return err
}

// drain stops listening and lets requests end, for a while.
func (n *Node) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	t := n.clock.AfterFunc(drainTime, cancel)
	defer t.Stop()
	n.silent.end()
	var all sync.WaitGroup
	for _, s := range n.servers {
		all.Go(func() {
			if s.Shutdown(ctx) != nil {
				_ = s.Close() // they had their time
			}
		})
	}
	all.Wait()
	cancel()
	n.serving.Wait()
}

// silent are connections that have not said anything yet.
type silent struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	ending bool
}

func (s *silent) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if state != http.StateNew {
		return
	}
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	s.conns[c] = true
	if s.ending {
		s.hurryLocked(c)
	}
}

// end gives them a moment: what they say may be on its way.
func (s *silent) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	for c := range s.conns {
		s.hurryLocked(c)
	}
}

func (s *silent) hurryLocked(c net.Conn) {
	_ = c.SetReadDeadline(clock.System.Now().Add(lastMoment)) // else it has the time that all have
}

func (n *Node) closeListeners() {
	closeAll(n.port)
	if n.control != nil {
		closeAll([]net.Listener{n.control})
	}
}

// within reports whether f returns in time. If not, it goes on by itself.
func (n *Node) within(d time.Duration, f func()) bool {
	done, late := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	t := n.clock.AfterFunc(d, func() { close(late) })
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-late:
		return false
	}
}

func sameSecret(a, b string) bool {
	x, y := hashOf(a), hashOf(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
