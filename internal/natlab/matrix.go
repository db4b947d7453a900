package natlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Path is the way that a connection takes.
type Path string

// The paths.
const (
	LAN     Path = "lan"     // by addresses of the network that both are on
	Direct  Path = "direct"  // to an address that is open to all
	Punched Path = "punched" // through NATs, by holes that both made
	Relayed Path = "relayed" // through another machine
	None    Path = "none"    // there is no connection
)

// A Result is what came of connecting. Its JSON is that of subjects that are
// processes.
type Result struct {
	Path  Path    `json:"path"`
	Ms    float64 `json:"ms"`    // from the call until the first echo
	Error string  `json:"error"` // why there is no connection, or empty
}

func (r Result) String() string {
	if r.Path == None {
		return "none"
	}
	return fmt.Sprintf("%s %.0f", r.Path, r.Ms)
}

// Took is Ms as a duration.
func (r Result) Took() time.Duration { return time.Duration(r.Ms * float64(time.Millisecond)) }

// A Subject listens or connects on a host. Its calls are made one after another.
type Subject interface {
	// Listen starts a new server that echoes, in place of the last one, and
	// returns its key.
	Listen(ctx context.Context) (key string, err error)
	// Connect connects to a key as somebody new, in place of the last connection,
	// and says how that went. If through is set a relay may be used. No connection
	// within the time is not an error.
	Connect(ctx context.Context, key string, through bool, within time.Duration) (Result, error)
	// Again says when the next echo comes back over the last connection, or over
	// one that was made because that had broken.
	Again(ctx context.Context, within time.Duration) (Result, error)
	// Drop closes the server and the connection.
	Drop(ctx context.Context) error
}

// A Place is a site with a subject on it.
type Place struct {
	Kind    Kind
	Subject Subject
	// Flush forgets what the site's NATs know.
	Flush func() error

	busy bool // a cell uses the place; guarded by Run
}

// A Cell is a client and a server on two sites. Those of one carrier have the
// same carrier.
type Cell struct{ Client, Server Kind }

func (c Cell) String() string { return fmt.Sprintf("%s to %s", c.Client, c.Server) }

// Doors say which subjects use the WebSocket door of their network when there is
// no UDP.
type Doors struct{ Client, Server bool }

// Want is the path that a cell must take: without doors, what hyperdht does in
// Node.js. Only subjects in cells that want to be Relayed may use a relay.
func (d Doors) Want(c Cell) Path {
	switch {
	case c.Client.NoUDP() && !d.Client || c.Server.NoUDP() && !d.Server:
		return None
	case c.Client.NoUDP() || c.Server.NoUDP():
		return Relayed
	case c.Client == Symmetric && c.Server == Symmetric:
		return Relayed
	case c.Client == Carrier && c.Server == Carrier:
		return Relayed // both are behind the same address, which they can't send to
	case c.Client == Open || c.Server == Open:
		return Direct
	}
	return Punched
}

// Allows tells whether a path is as good as the one wanted. A node that is open
// to all and does not know it yet has others make a hole to it, where there is
// nothing in the way. And a client can't tell that what it reaches is the door
// which its server is behind.
func (d Doors) Allows(c Cell, p Path) bool {
	want := d.Want(c)
	return p == want || want == Direct && p == Punched || want == Relayed && c.Server.NoUDP() && p != None
}

// NoUDP tells whether UDP does not get out of sites of this kind.
func (k Kind) NoUDP() bool { return k == NoUDP || k == OnlyTCP443 }

// All are the cells of some kinds of clients and servers.
func All(clients, servers []Kind) (cells []Cell) {
	for _, c := range clients {
		for _, s := range servers {
			cells = append(cells, Cell{c, s})
		}
	}
	return cells
}

// A Matrix is what came of cells.
type Matrix struct {
	Name    string
	mu      sync.Mutex
	results map[Cell]Result // guarded by mu
}

// Run tries cells, so many at once; each has its two places for itself, with
// fresh NATs. A place of each kind is needed among the clients and the servers.
// Runs at the same time share no places. What fails is in the results. Cells
// that ctx leaves no time for have none.
func Run(ctx context.Context, name string, cells []Cell, doors Doors, clients, servers map[Kind]*Place, atOnce int, within time.Duration) *Matrix {
	m := &Matrix{Name: name, results: make(map[Cell]Result)}
	var mu sync.Mutex
	waiting := slices.Clone(cells)
	changed := sync.NewCond(&mu)
	defer context.AfterFunc(ctx, changed.Broadcast)()
	// next is a cell whose places are free, and takes them.
	next := func() (Cell, bool) {
		mu.Lock()
		defer mu.Unlock()
		for len(waiting) > 0 && ctx.Err() == nil {
			for i, c := range waiting {
				client, server := clients[c.Client], servers[c.Server]
				if client.busy || server.busy {
					continue
				}
				client.busy, server.busy = true, true
				waiting = slices.Delete(waiting, i, i+1)
				return c, true
			}
			changed.Wait()
		}
		return Cell{}, false
	}
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for cell, ok := next(); ok; cell, ok = next() {
				client, server := clients[cell.Client], servers[cell.Server]
				result, err := try(ctx, cell, doors.Want(cell), client, server, within)
				if err != nil {
					result = Result{Path: None, Error: err.Error()}
				}
				m.Set(cell, result)
				mu.Lock()
				client.busy, server.busy = false, false
				mu.Unlock()
				changed.Broadcast()
			}
		})
	}
	workers.Wait()
	return m
}

// setup is the time that subjects have for what is not measured.
const setup = 20 * time.Second

// try is one cell.
func try(ctx context.Context, cell Cell, want Path, client, server *Place, within time.Duration) (result Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, within+setup)
	defer cancel()
	for _, p := range []*Place{client, server} {
		if p.Flush == nil {
			continue
		}
		if err := p.Flush(); err != nil {
			return result, err
		}
	}
	defer func() {
		for _, p := range []*Place{client, server} {
			err = errors.Join(err, p.Subject.Drop(ctx))
		}
	}()
	key, err := server.Subject.Listen(ctx)
	if err != nil {
		return result, fmt.Errorf("listen: %w", err)
	}
	if want == None {
		within = min(within, 3*time.Second)
	}
	return client.Subject.Connect(ctx, key, want == Relayed, within)
}

// Set notes what came of a cell.
func (m *Matrix) Set(c Cell, r Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results[c] = r
}

// Result is what came of a cell.
func (m *Matrix) Result(c Cell) (Result, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.results[c]
	return r, ok
}

// Print writes the matrix: a line for each kind of client, a column for each
// kind of server, in each cell the path and the milliseconds.
func (m *Matrix) Print(w io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows, columns []Kind
	for _, k := range Kinds {
		for c := range m.results {
			if c.Client == k && !slices.Contains(rows, k) {
				rows = append(rows, k)
			}
			if c.Server == k && !slices.Contains(columns, k) {
				columns = append(columns, k)
			}
		}
	}
	table := [][]string{{"client \\ server"}}
	for _, s := range columns {
		table[0] = append(table[0], string(s))
	}
	for _, c := range rows {
		line := []string{string(c)}
		for _, s := range columns {
			text := "."
			if r, ok := m.results[Cell{c, s}]; ok {
				text = r.String()
			}
			line = append(line, text)
		}
		table = append(table, line)
	}
	fmt.Fprintf(w, "%s: path and milliseconds\n", m.Name)
	for _, line := range table {
		for i, text := range line {
			width := 0
			for _, other := range table {
				width = max(width, len(other[i]))
			}
			fmt.Fprint(w, text, strings.Repeat(" ", width-len(text)+2))
		}
		fmt.Fprintln(w)
	}
}
