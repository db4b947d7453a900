package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cloudbevy/bevy/client"
)

// Paths are the folders of a node. BEVY_HOME has all of them in one.
type Paths struct {
	Home   string // BEVY_HOME, if that is what decides
	Data   string // logs and keys: what must not be lost
	State  string // the socket, sessions, own logs
	Config string // what people write
	Cache  string // what can be made anew
}

// FindPaths returns the folders on a system (as runtime.GOOS has it) with these
// variables. It makes none of them.
func FindPaths(system string, env map[string]string) (Paths, error) {
	if home := env["BEVY_HOME"]; home != "" {
		home, err := filepath.Abs(home)
		if err != nil {
			return Paths{}, fmt.Errorf("find BEVY_HOME: %w", err)
		}
		return Paths{home, home, filepath.Join(home, "state"), filepath.Join(home, "config"), filepath.Join(home, "cache")}, nil
	}
	var base Paths
	switch home := env["HOME"]; {
	case system == "windows" && env["LOCALAPPDATA"] != "":
		local := filepath.Join(env["LOCALAPPDATA"], "bevy")
		base = Paths{"", local, filepath.Join(local, "state"), filepath.Join(local, "config"), filepath.Join(local, "cache")}
	case system == "darwin" && home != "":
		support := filepath.Join(home, "Library", "Application Support", "bevy")
		base = Paths{"", support, filepath.Join(support, "state"), filepath.Join(support, "config"), filepath.Join(home, "Library", "Caches", "bevy")}
	case system != "windows" && home != "":
		base = Paths{
			"", filepath.Join(home, ".local", "share", "bevy"), filepath.Join(home, ".local", "state", "bevy"),
			filepath.Join(home, ".config", "bevy"), filepath.Join(home, ".cache", "bevy"),
		}
	}
	for _, p := range []struct {
		path *string
		name string
	}{{&base.Data, "XDG_DATA_HOME"}, {&base.State, "XDG_STATE_HOME"}, {&base.Config, "XDG_CONFIG_HOME"}, {&base.Cache, "XDG_CACHE_HOME"}} {
		if dir := env[p.name]; filepath.IsAbs(dir) { // a relative one is void, by its specification
			*p.path = filepath.Join(dir, "bevy")
		}
		if *p.path == "" {
			return Paths{}, ErrNoHome
		}
	}
	return base, nil
}

// ErrNoHome: the system does not say where programs keep their data.
var ErrNoHome = errors.New("neither BEVY_HOME nor HOME is set")

// maxSocketPath is the longest path that a socket can have on any system.
const maxSocketPath = 103

// Socket is the path of the control socket. Where the state folder's own would
// be too long it lies in a folder of the user's below /tmp.
func (p Paths) Socket() string {
	path := filepath.Join(p.State, "bevy.sock")
	if len(path) <= maxSocketPath || runtime.GOOS == "windows" {
		return path
	}
	sum := sha256.Sum256([]byte(path))
	return filepath.Join("/tmp", fmt.Sprintf("bevy-%d", os.Getuid()), hex.EncodeToString(sum[:8])+".sock")
}

// lock guards the data; record tells who has it.
func (p Paths) lock() string   { return filepath.Join(p.Data, "node.lock") }
func (p Paths) record() string { return filepath.Join(p.Data, "node.json") }

// make makes the folders that a node writes to, for their owner only.
func (p Paths) make() error {
	for _, dir := range []string{p.Data, p.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (p Paths) wire() client.Paths {
	return client.Paths{Data: p.Data, State: p.State, Config: p.Config, Cache: p.Cache, Socket: p.Socket()}
}
