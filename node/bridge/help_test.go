package bridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/storage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openStore(t testing.TB, c byte) *corestore.Store {
	t.Helper()
	primary := [32]byte(bytes.Repeat([]byte{c}, 32))
	s, err := corestore.Open(storage.NewMemory(), corestore.Options{PrimaryKey: &primary})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func driveIn(t testing.TB, s *corestore.Store, o hyperdrive.Options) *hyperdrive.Drive {
	t.Helper()
	o.Durability = hypercore.Soon
	d, err := hyperdrive.Open(s, o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func newDrive(t testing.TB) *hyperdrive.Drive {
	t.Helper()
	return driveIn(t, openStore(t, 'c'), hyperdrive.Options{})
}

func put(t testing.TB, d *hyperdrive.Drive, path string, data []byte, o hyperdrive.PutOptions) {
	t.Helper()
	must(t, d.Put(t.Context(), path, data, o))
}

// someBytes is n bytes that are the same every time.
func someBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// A resolverFunc is a Resolver.
type resolverFunc func(ctx context.Context, r *http.Request, name, at string) (Source, func(), error)

func (f resolverFunc) Resolve(ctx context.Context, r *http.Request, name, at string) (Source, func(), error) {
	return f(ctx, r, name, at)
}

// only resolves the name "x", and its versions, to a drive.
func only(d *hyperdrive.Drive, o DriveOptions) Resolver {
	return resolverFunc(func(_ context.Context, _ *http.Request, name, at string) (Source, func(), error) {
		if name != "x" {
			return nil, nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
		}
		if at == "" {
			return NewDrive(d, o), nil, nil
		}
		version, err := strconv.ParseUint(at, 10, 64)
		if err != nil {
			return nil, nil, ErrBadTime
		}
		old, err := d.Checkout(version)
		if err != nil {
			return nil, nil, ErrBadTime
		}
		return NewDrive(old, DriveOptions{Public: o.Public, Fixed: true}), func() { _ = old.Close() }, nil
	})
}

// get asks a handler. Lines are headers.
func get(t testing.TB, h http.Handler, method, url string, lines ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, url, nil)
	for i := 0; i < len(lines); i += 2 {
		r.Header.Set(lines[i], lines[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	must(t, err)
	return string(b)
}
