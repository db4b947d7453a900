package bridge_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperdrive"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/node/bridge"
)

// A names resolves names to sources that anybody may see.
type names map[string]bridge.Source

func (n names) Resolve(_ context.Context, _ *http.Request, name, at string) (bridge.Source, func(), error) {
	if n[name] == nil || at != "" {
		return nil, nil, fs.ErrNotExist
	}
	return n[name], nil, nil
}

func Example() {
	store, err := corestore.Open(storage.NewMemory(), corestore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	drive, err := hyperdrive.Open(store, hyperdrive.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer drive.Close()
	if err := drive.Put(context.Background(), "/sea.txt", []byte("blue and wide"), hyperdrive.PutOptions{}); err != nil {
		log.Fatal(err)
	}

	h := bridge.New(bridge.Options{Resolver: names{"photos": bridge.NewDrive(drive, bridge.DriveOptions{Public: true})}})
	server := httptest.NewServer(h)
	defer server.Close()
	r, err := http.Get(server.URL + "/d/photos/sea.txt")
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	fmt.Println(r.Status, r.Header.Get("Content-Type"), string(body), err)
	// Output: 200 OK text/plain; charset=utf-8 blue and wide <nil>
}
