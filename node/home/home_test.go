package home

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/node"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// network makes a DHT of its own on the loopback.
func network(t *testing.T) string {
	t.Helper()
	d, err := hyperdht.Open(hyperdht.Options{
		Bind: loopback, Port: -1, Bootstrap: []string{}, Open: true, Node: true, Public: netip.MustParseAddrPort("127.0.0.1:0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.Node().ServerSocket().LocalAddr().String()
}

// A machine is a node with a home, and a client of its owner's.
type machine struct {
	*client.Client
	t    *testing.T
	name string
	node *node.Node
	home *Home
	dir  string // what is on its disk
	data string
	net  string

	clock clock.Clock // nil is the machine's
}

func newMachine(t *testing.T, network, name string) *machine {
	t.Helper()
	m := &machine{t: t, name: name, dir: t.TempDir(), data: t.TempDir(), net: network}
	m.up()
	t.Cleanup(m.down)
	return m
}

func (m *machine) up() {
	m.t.Helper()
	paths, err := node.FindPaths("linux", map[string]string{"BEVY_HOME": m.data})
	if err != nil {
		m.t.Fatal(err)
	}
	o := Options{Name: m.name, Offline: m.net == ""}
	if !o.Offline {
		o.DHT = hyperdht.Options{Bind: loopback, Port: -1, Bootstrap: []string{m.net}}
	}
	m.home = New(o)
	if m.node, err = node.Open(m.t.Context(), node.Options{Paths: paths, Version: "test", Listen: []string{"127.0.0.1:0"}, Clock: m.clock, Wire: m.home.Wire}); err != nil {
		m.t.Fatal(err)
	}
	if m.Client, err = client.Dial(m.t.Context(), node.Control(paths)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) down() {
	if m.node == nil {
		return
	}
	m.Client.Close()
	if err := m.node.Close(); err != nil {
		m.t.Errorf("%s: %v", m.name, err)
	}
	m.node = nil
}

// do asks the machine's node.
func (m *machine) do(method, path string, in, out any) {
	m.t.Helper()
	if err := m.Do(m.t.Context(), method, path, in, out); err != nil {
		m.t.Fatalf("%s: %s %s: %v", m.name, method, path, err)
	}
}

// until waits until something is so: it is asked again with each event.
func (m *machine) until(what string, is func() bool) {
	m.t.Helper()
	if is() {
		return
	}
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	for _, err := range m.Events(ctx, "") {
		if err != nil {
			m.t.Fatalf("%s: waiting for %s: %v", m.name, what, err)
		}
		if is() {
			return
		}
	}
	m.t.Fatalf("%s: never came: %s", m.name, what)
}

// write writes a file on the machine's disk.
func (m *machine) write(name, text string) {
	m.t.Helper()
	p := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// reads is what is in a file on the machine's disk, "" if there is none.
func (m *machine) reads(name string) string {
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil && !os.IsNotExist(err) {
		m.t.Error(err)
	}
	return string(b)
}

func (m *machine) add(dir, name string) {
	m.t.Helper()
	m.do("POST", "/folders", client.AddFolder{Path: filepath.Join(m.dir, dir), Name: name}, nil)
}

func (m *machine) folder(name string) (f client.Folder) {
	m.t.Helper()
	var all client.Folders
	m.do("GET", "/folders", nil, &all)
	for _, f := range all.Folders {
		if f.Name == name {
			return f
		}
	}
	return f
}

// pair has another machine join the cloud of m.
func (m *machine) pair(other *machine) {
	m.t.Helper()
	var v client.Invitation
	m.do("POST", "/invitation", nil, &v)
	other.do("POST", "/join", client.JoinRequest{Words: v.Words}, nil)
}

func TestAFolderIsOnTwoMachines(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("docs/a.txt", "hello")
	a.write("docs/sub/big", strings.Repeat("0123456789abcdef", 200_000))
	a.add("docs", "")
	a.pair(b)
	b.until("the folder", func() bool { f := b.folder("docs"); return f.Files == 2 && f.State == "safe" })
	b.add("mine", "docs")
	b.until("the file", func() bool { return b.reads("mine/a.txt") == "hello" })
	b.write("mine/b.txt", "from the attic")
	a.until("the other's file", func() bool { return a.reads("docs/b.txt") == "from the attic" })
	if got := b.reads("mine/sub/big"); got != strings.Repeat("0123456789abcdef", 200_000) {
		t.Errorf("%d bytes", len(got))
	}
	a.until("two copies", func() bool { return a.folder("docs").Copies == 2 })
}

// browse asks a machine's port for a page.
func (m *machine) browse(host, path string) (status int, body string) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), "GET", m.node.Address()+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAPublishedFolderIsForEverybody(t *testing.T) {
	net := network(t)
	a, x := newMachine(t, net, "laptop"), newMachine(t, net, "stranger")
	a.write("site/index.html", "<p>hello")
	a.write("site/sub/b.txt", "b")
	a.add("site", "")
	a.until("it is kept", func() bool { f := a.folder("site"); return f.Files == 2 && f.State == "safe" })
	var p client.Published
	a.do("POST", "/folders/site/publication", nil, &p)
	host := p.Key + ".localhost"
	read := func(m *machine, path string) string {
		status, body := m.browse(host, path)
		if status != http.StatusOK {
			return ""
		}
		return body
	}
	a.until("the drive", func() bool { return read(a, "/sub/b.txt") == "b" })
	if got := read(x, "/"); got != "<p>hello" {
		t.Fatalf("a stranger reads %q", got)
	}
	a.write("site/sub/b.txt", "changed")
	a.until("the change", func() bool { return read(a, "/sub/b.txt") == "changed" })
	x.wait("the change", func() bool { return read(x, "/sub/b.txt") == "changed" })
	if status, _ := x.browse("site.localhost", "/"); status != http.StatusForbidden {
		t.Errorf("a folder that is not a drive: status %d", status)
	}
	// It stays published, by the same key.
	a.down()
	a.up()
	var again client.Published
	a.do("GET", "/folders/site/publication", nil, &again)
	if again.Key != p.Key {
		t.Errorf("published as %s, then as %s", p.Key, again.Key)
	}
	a.do("DELETE", "/folders/site/publication", nil, nil)
	again = client.Published{}
	a.do("GET", "/folders/site/publication", nil, &again)
	if again.Key != "" {
		t.Error("it is published still")
	}
}

// wait asks again and again whether something is so.
func (m *machine) wait(what string, is func() bool) {
	m.t.Helper()
	for !is() {
		if m.t.Context().Err() != nil {
			m.t.Fatalf("%s: never came: %s", m.name, what)
		}
	}
}
