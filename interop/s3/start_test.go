package s3

import (
	"os"
	"testing"
)

// start returns the server that the tests are run against: the one of BEVY_S3_URL, or a door of ours.
func start(t testing.TB) server {
	t.Helper()
	if url := os.Getenv("BEVY_S3_URL"); url != "" {
		return server{URL: url, Key: os.Getenv("AWS_ACCESS_KEY_ID"), Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), Other: true}
	}
	t.Skip("no server")
	return server{}
}
