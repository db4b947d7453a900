// Package dhtrpc is a node of a distributed hash table: it knows some of the
// others, finds those that are closest to an id, and asks and answers them over
// UDP. What is asked beyond that, such as where a peer is, is up to the package
// above.
//
// It is a port of the npm package dht-rpc 6.27 and speaks with it; the golden
// files in testdata come from there.
//
//	n, err := dhtrpc.Open(dhtrpc.Options{UDX: u, Bootstrap: []string{"192.0.2.1:49737"}})
//	err = n.Bootstrapped(ctx)
//	q := n.Query(ctx, target, dhtrpc.QueryOptions{Command: 7})
//	for reply, err := range q.All() { … }
//
// # Addresses and ids
//
// The id of a node is the hash of its address, so nobody chooses where in the
// table it is, but among the addresses it has. The protocol knows IPv4 only.
//
// A node begins as one that others don't keep in their tables. If it is
// reachable and stays so it becomes persistent: it tells its id from then on,
// and takes part. [Options].Ephemeral decides otherwise.
//
// A node has two sockets. What it asks goes out by the client socket as long as
// it doesn't know that others reach it uninvited, since answers that come there
// say nothing about the server socket. Then all goes by the server socket.
//
// # What bad nodes can do
//
// Any packet may be a lie, its source too. These bounds hold whatever comes:
//
//   - An answer counts only if it comes from the address that was asked, with
//     the 16 random bits of the question.
//   - A node comes into the table, and stays there, only by answers to questions,
//     so addresses of others can't be put there. Who has addresses can come in, but with at
//     most half of the places of a row for each network of 256 public addresses,
//     and only where there is room or a node that is there does not answer. The
//     closest of a query are bounded by network in the same way.
//   - To a source that has not proven its address with a token goes not more
//     than came from it, packet by packet, but for an allowance of 64 KiB that
//     grows by 1 KiB a second, which each network of 256 addresses has, or shares
//     with others: there are 1,024. So the answers that the protocol wants to be
//     larger than questions, as those with 20 nodes to a question for the
//     closest are, have the ratio they have in the reference (3.8, or 4.5 with a
//     token, and what a command adds) until the allowance is used up, and then
//     lose what is too much: nodes first. Answers that can't be made as small as
//     the question aren't sent. This machine itself has no bound: nobody else
//     can send in its name.
//   - Who names nodes that don't exist delays a query, but a node that named some
//     of which none answers is not believed further.
//   - Questions under way, queries and what they know, delayed answers, requests
//     that wait for the user and what is remembered of others are bounded in
//     number. Packets beyond that are lost, and what the user starts fails with
//     [ErrBusy].
package dhtrpc

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/blake2b"

	"github.com/cloudbevy/bevy/hyper/compact"
)

// K is how many nodes a row of the table holds, an answer tells of, and a query
// ends with.
const K = 20

// The commands that all nodes know, which are those of a [Call] that is
// Internal.
const (
	CommandPing        = 0
	CommandPingNAT     = 1
	CommandFindNode    = 2
	CommandDownHint    = 3
	CommandDelayedPing = 4
)

// The errors that every node may answer with.
const (
	CodeUnknownCommand = 1
	CodeInvalidToken   = 2
)

// MaxPingDelay is how long the answer to a delayed ping may be held back.
const MaxPingDelay = 10 * time.Second

// The kinds of error of this package. They come wrapped: test with [errors.Is].
var (
	// ErrClosed means that the node was closed.
	ErrClosed = errors.New("dht node closed")
	// ErrSuspended means that the node is suspended.
	ErrSuspended = errors.New("dht node suspended")
	// ErrTimeout means that a node did not answer.
	ErrTimeout = errors.New("no answer")
	// ErrBusy means that as much is under way as may be.
	ErrBusy = errors.New("too much under way")
	// ErrTooFew means that a query that was to leave something at the closest
	// nodes found none, or none that took it.
	ErrTooFew = errors.New("too few nodes answered")
	// ErrAddress means that an address can't be one of a node.
	ErrAddress = errors.New("not an IPv4 address with a port")
)

// An ID is a place in the space of the table: of a node, or of what is looked
// for.
type ID [32]byte

// NodeID is the id that the node with this address has.
func NodeID(addr netip.AddrPort) ID {
	var b [addrSize]byte
	return blake2b.Sum256(compact.AppendIPv4Address(b[:0], addr))
}

// A Token is given by a node to whom it answers, and proves when it comes back
// that the address is not a lie. It is good for some seconds.
type Token [32]byte

// A Peer is who sent something.
type Peer struct {
	Addr netip.AddrPort
	// ID is the node's, if HasID is true. Nodes that don't take part in the table
	// tell none.
	ID    ID
	HasID bool
}

// A Call is what a node is asked.
type Call struct {
	// Internal says that Command is one of those that all nodes know.
	Internal bool
	Command  uint64
	// Target is the place that it is about, or nil.
	Target *ID
	// Value is up to the command; nil is none.
	Value []byte
	// Token is what the node gave before, if the command wants one.
	Token *Token
}

// A Reply is what a node answered. Its bytes are the caller's.
type Reply struct {
	From Peer
	// To is the address of ours that the node saw.
	To netip.AddrPort
	// Token, if it is not nil, may go with calls to the same node.
	Token *Token
	// Closer are nodes that are close to the target of the call.
	Closer []netip.AddrPort
	// Code is an error that the node reports, such as [CodeUnknownCommand]; zero
	// is none. It is no error of the call.
	Code  uint64
	Value []byte
	RTT   time.Duration
}

// Ephemeral says whether a node takes part in the tables of others.
type Ephemeral int

const (
	// Adaptive begins outside and takes part once the node is found to be
	// reachable and was up for 20 minutes.
	Adaptive Ephemeral = iota
	// Always stays outside.
	Always
	// Never takes part as soon as the node's address is known.
	Never
)

// An Event is something that happened to a node by itself.
type Event int

const (
	// Ready means that the node has found its place, as far as it can.
	Ready Event = iota
	// Persistent means that the node takes part in the table now, with an id.
	Persistent
	// BackOutside means that it does no longer.
	BackOutside
	// NATChanged means that what others see as its address changed.
	NATChanged
	// HealthChanged means that Online or Degraded changed.
	HealthChanged
	// InterfacesChanged means that this machine has other addresses.
	InterfacesChanged
	// WokeUp means that time was lost, as when a laptop slept.
	WokeUp
)

// String names the event.
func (e Event) String() string {
	return [...]string{"ready", "persistent", "back outside", "nat changed", "health changed", "interfaces changed", "woke up"}[e]
}

// Stats count what a node did.
type Stats struct {
	Queries, ActiveQueries                                 int
	Requests, ActiveRequests, Responses, Timeouts, Repeats int
	// Sent and Answered are the internal commands that were asked, and those that
	// were answered.
	Sent, Answered [CommandDelayedPing + 1]int
	// Served are questions that came; Trimmed are answers to them that were made
	// smaller or not sent, as their source had not proven its address.
	Served, Trimmed int
}

// A seed is a node by which a table is entered: an address, a name, or both, and
// the name is looked up if the address does not answer.
type seed struct {
	addr netip.Addr
	name string
	port uint16
}

func parseSeed(s string) (seed, error) {
	host, port, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil || n == 0 {
		return seed{}, fmt.Errorf("bootstrap node %q is not host:port or ip@host:port", s)
	}
	ip, name, both := strings.Cut(host, "@")
	out := seed{name: name, port: uint16(n)}
	addr, err := netip.ParseAddr(ip)
	switch {
	case err == nil && addr.Is4():
		out.addr = addr
	case both || host == "":
		return seed{}, fmt.Errorf("bootstrap node %q: %w", s, ErrAddress)
	default:
		out.name = host
	}
	return out, nil
}

// reachable reports whether an address can be one of a node.
func reachable(a netip.AddrPort) bool {
	return a.Addr().Is4() && a.Port() != 0 && !a.Addr().IsUnspecified()
}
