package s3_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/s3"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

func Example() {
	ctx := context.Background()
	spaces, err := objects.NewMemory(clock.System)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer spaces.Close()
	door, err := s3.New(ctx, s3.Options{Spaces: spaces})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer door.Close()
	// What anybody may read is what somebody said so of.
	b, err := door.Store().Make(ctx, "", "pictures", false)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	if _, err := b.Put(ctx, "2026/sea.txt", strings.NewReader("the sea"), objects.PutOptions{ACL: "public-read"}); err != nil {
		fmt.Println(err)
		return
	}
	r := httptest.NewRequest(http.MethodGet, "http://pictures.s3.localhost/2026/sea.txt", nil)
	r.Header.Set("Range", "bytes=4-")
	w := httptest.NewRecorder()
	door.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Header().Get("Content-Range"), w.Body)
	// Output: 206 bytes 4-6/7 sea
}
