package home

import (
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/internal/apicheck"
)

// Whatever a node with a cloud can be asked without changing anything answers,
// and as the document says.
func TestAnswersAreAsTheDocumentSays(t *testing.T) {
	m := newMachine(t, network(t), "solo")
	m.write("f/a.txt", "hello")
	m.add("f", "")
	m.until("the file", func() bool {
		var e client.Entry
		return m.Do(t.Context(), "GET", "/folders/f/entry?path=/a.txt", nil, &e) == nil
	})
	m.do("POST", "/folders/f/tags", map[string]string{"name": "v1"}, nil)
	m.do("POST", "/folders/f/publication", nil, nil)
	m.do("POST", "/invitation", nil, nil)
	var b client.Backup
	m.do("POST", "/backups", client.AddBackup{Place: client.BackupPlace{Address: t.TempDir()}}, &b)
	m.do("POST", "/backups/"+b.ID+"/runs", nil, nil)
	m.do("POST", "/feeds", client.AddFeed{Name: "log", Source: "bucket:f", To: client.FeedTarget{File: filepath.Join(t.TempDir(), "log")}}, nil)

	var text json.RawMessage
	m.do("GET", "/openapi.json", nil, &text)
	d, err := apicheck.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for path, operations := range d.Paths {
		op, ok := operations["get"]
		if !ok || path == client.Base+"/events" {
			continue
		}
		at := strings.NewReplacer(client.Base, "", "{folder}", "f", "{machine}", "solo", "{backup}", b.ID).Replace(path)
		query := []string{}
		for _, p := range op.Parameters {
			if p.In == "query" && p.Name == "path" && !strings.HasSuffix(path, "/entries") {
				query = append(query, "path=/a.txt")
			}
			if p.In == "query" && p.Name == "source" {
				query = append(query, "source=bucket:f")
			}
		}
		answer, err := m.Stream(t.Context(), "GET", at+"?"+strings.Join(query, "&"), nil, nil)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		if err == nil {
			err = answer.Body.Close()
		}
		if err == nil {
			err = d.Check("GET", path, answer.StatusCode, answer.Header.Get("Content-Type"), body)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		checked++
	}
	if checked < 15 {
		t.Errorf("only %d answers were looked at", checked)
	}
}
