package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
	door "github.com/cloudbevy/bevy/services/s3"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// The key of our own server. Another one is of another app.
const ourKey, ourSecret, otherKey, otherSecret = "MAIN", "secretmain", "ALT", "secretalt"

// folderOfServer makes this program a server on that folder, instead of one that tests.
const folderOfServer = "BEVY_TEST_S3_FOLDER"

func TestMain(m *testing.M) {
	dir := os.Getenv(folderOfServer)
	if dir == "" {
		code := m.Run()
		for _, end := range []func() error{ours.close, node.close} {
			if end == nil {
				continue
			}
			if err := end(); err != nil {
				fmt.Fprintln(os.Stderr, "close a server:", err)
				code = 1
			}
		}
		os.Exit(code)
	}
	if err := serveFolder(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveFolder serves the buckets in a folder, says where, and ends with its input.
func serveFolder(dir string) error {
	logs, err := corestore.OpenDisk(storage.Disk{Dir: dir}, corestore.Options{})
	if err != nil {
		return err
	}
	spaces, err := objects.NewLocal(logs, clock.System)
	if err != nil {
		return errors.Join(err, logs.Close())
	}
	listener, err := net.Listen("tcp", os.Getenv(folderOfServer+"_AT"))
	if err != nil {
		return errors.Join(err, spaces.Close(), logs.Close())
	}
	end, err := serve(listener, spaces, true)
	if err != nil {
		return errors.Join(err, listener.Close(), spaces.Close(), logs.Close())
	}
	fmt.Println(listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, end(), spaces.Close(), logs.Close())
}

// serve opens a door to spaces, maybe with parts that are small for S3. It returns what closes it.
func serve(listener net.Listener, spaces objects.Spaces, smallParts bool) (end func() error, err error) {
	secrets := map[string]string{ourKey: ourSecret, otherKey: otherSecret}
	d, err := door.New(context.Background(), door.Options{Spaces: spaces, SmallParts: smallParts, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		App: func(key string) string {
			if key == otherKey {
				return "other"
			}
			return ""
		},
		Apps: func(context.Context) ([]string, error) { return []string{"", "other"}, nil },
		Verifier: &door.Verifier{Service: "s3", Keys: func(_ context.Context, key string) (door.Key, error) {
			if secrets[key] == "" {
				return door.Key{}, door.ErrUnknownKey
			}
			return door.Key{Secret: secrets[key], Principal: key}, nil
		}}})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: d}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return errors.Join(err, d.Close())
	}, nil
}

// ours is the server in memory that all tests of this process use.
var ours struct {
	once  sync.Once
	url   string
	err   error
	close func() error
}

// start returns the server that the tests are run against: the one of BEVY_S3_URL, or a door of ours in memory.
func start(t testing.TB) server {
	t.Helper()
	if url := os.Getenv("BEVY_S3_URL"); url != "" {
		return server{URL: url, Key: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), Other: os.Getenv("BEVY_S3_OURS") == ""}
	}
	ours.once.Do(func() {
		var spaces *objects.Local
		if spaces, ours.err = objects.NewMemory(clock.System); ours.err != nil {
			return
		}
		var listener net.Listener
		if listener, ours.err = net.Listen("tcp", "127.0.0.1:0"); ours.err != nil {
			return
		}
		var end func() error
		if end, ours.err = serve(listener, spaces, false); ours.err == nil {
			ours.url = "http://" + listener.Addr().String()
			ours.close = func() error { return errors.Join(end(), spaces.Close()) }
		}
	})
	ok(t, ours.err)
	return server{URL: ours.url, Key: ourKey, Secret: ourSecret}
}
