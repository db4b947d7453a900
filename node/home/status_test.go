package home

import (
	"testing"

	"github.com/cloudbevy/bevy/client"
)

func TestProgressOfAFolderCountsWhatIsOnItsWayToTheCloud(t *testing.T) {
	for _, test := range []struct {
		name   string
		folder client.Folder
		want   float64
	}{
		{"nothing is known yet", client.Folder{}, 0},
		{"all is here", client.Folder{Files: 4, Bytes: 400}, 1},
		{"a quarter is missing", client.Folder{Files: 4, Bytes: 400, Missing: 100}, 0.75},
		{"a tenth was put into the cloud", client.Folder{Files: 10, Bytes: 400, Now: &client.Progress{FilesToGo: 100}}, 0.1},
		{"it was counted before more came", client.Folder{Files: 10, Bytes: 400, Missing: 200, Now: &client.Progress{FilesToGo: 8}}, 0.5},
		{"nobody has counted", client.Folder{Files: 10, Bytes: 400, Now: &client.Progress{Looked: 5}}, 1},
	} {
		if got := progressOf(test.folder); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
