package transport_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/cloudbevy/bevy/hyper/transport"
)

// A door for peers beside the pages of a web server.
func ExampleHandler() {
	pages := http.NewServeMux()
	pages.Handle("/peers", transport.Handler(func(conn transport.Conn) {
		defer conn.Close()
		io.Copy(conn, conn) // or the server of a secretstream
	}))
	server := httptest.NewServer(pages)
	defer server.Close()

	addr := "ws" + strings.TrimPrefix(server.URL, "http") + "/peers"
	conn, err := transport.Dial(context.Background(), addr, transport.DialOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Fprint(conn, "hello")
	answer := make([]byte, 5)
	_, err = io.ReadFull(conn, answer)
	fmt.Println(string(answer), err)
	// Output: hello <nil>
}
