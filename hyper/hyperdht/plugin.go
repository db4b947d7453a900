package hyperdht

import (
	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
)

// A Plugin adds commands of its own to nodes.
type Plugin struct {
	// Name and Version say whose commands they are. Nodes that have another
	// version, or none, do not answer.
	Name    string
	Version uint64
	// Handle gets the requests, one at a time, and may answer later. It must not
	// block.
	Handle func(r *dhtrpc.Request, command uint64, value []byte)
}

// maxPluginName is the most bytes of a plugin's name.
const maxPluginName = 256

// Call is what asks a node for a command of the plugin, by methods of
// [DHT.Node].
func (p Plugin) Call(command uint64, value []byte) dhtrpc.Call {
	return dhtrpc.Call{Command: cmdPlugin, Value: pluginMsg{p.Name, p.Version, command, value}.append(nil)}
}

// A pluginMsg is the value of PLUGIN.
type pluginMsg struct {
	name             string
	version, command uint64
	value            []byte // nil is none
}

func (m pluginMsg) append(b []byte) []byte {
	b = compact.AppendString(b, m.name)
	b = compact.AppendUint(b, m.version)
	b = compact.AppendUint(b, m.command)
	b = compact.AppendUint(b, bit(0, m.value != nil))
	if m.value != nil {
		b = compact.AppendBuffer(b, m.value)
	}
	return b
}

func readPlugin(b []byte) (m pluginMsg, err error) {
	d := compact.NewDecoder(b)
	m.name, m.version, m.command = d.String(maxPluginName), d.Uint(), d.Uint()
	if has(d.Uint(), 0) {
		m.value = d.Buffer(maxValue)
	}
	return m, d.Err()
}

// onPlugin gives a request to its plugin, if there is one.
func (d *DHT) onPlugin(r *dhtrpc.Request) {
	m, err := readPlugin(r.Value)
	if err != nil {
		return
	}
	for _, p := range d.o.Plugins {
		if p.Name == m.name && p.Version == m.version {
			p.Handle(r, m.command, m.value)
		}
	}
}
