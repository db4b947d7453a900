package home

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/cloudbevy/bevy/client"
)

// A machine leaves its cloud once others have all of it. Its files stay, and it
// begins an empty cloud.
func TestAMachineLeaves(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	a.write("docs/a.txt", "hello")
	a.add("docs", "")
	a.do("GET", "/keys/words", nil, nil)
	refused := func(m *machine, what string) {
		t.Helper()
		var e *client.Error
		if err := m.Do(t.Context(), "POST", "/leave", client.Leave{}, nil); !errors.As(err, &e) || e.Code != client.CodeConflict {
			t.Errorf("%s: leaving: %v", what, err)
		}
	}
	refused(a, "nobody else has it")
	a.pair(b)
	b.until("the folder", func() bool { return b.folder("docs").Name != "" })
	b.add("mine", "docs")
	b.until("the file", func() bool { return b.reads("mine/a.txt") == "hello" && b.folder("docs").Copies == 2 })
	was := b.self()
	var left client.Left
	b.do("POST", "/leave", client.Leave{}, &left)
	if len(left.Folders) != 1 || left.Folders[0] != filepath.Join(b.dir, "mine") {
		t.Errorf("it kept %v", left.Folders)
	}
	a.until("the other is out", func() bool {
		var all client.Machines
		a.do("GET", "/machines", nil, &all)
		for _, m := range all.Machines {
			if m.ID == was {
				return m.State == "revoked"
			}
		}
		return false
	})
	if b.self() == was || b.folder("docs").Name != "" || b.reads("mine/a.txt") != "hello" {
		t.Error("it has not left, or its files are gone")
	}
	a.write("docs/later.txt", "later")
	a.until("it goes on", func() bool { return a.folder("docs").Files == 2 })
	refused(a, "nobody else has it any more")
	a.pair(b)
	b.until("the folder", func() bool { return b.folder("docs").Name != "" })
	b.add("again", "docs")
	b.until("all of it", func() bool { return b.reads("again/later.txt") == "later" })
}

// What would be lost is named as people know it.
func TestWhoLeavesIsToldWhatNobodyElseHas(t *testing.T) {
	m := newMachine(t, "", "laptop")
	m.do("GET", "/keys/words", nil, nil)
	m.do("POST", "/apps", client.AddApp{Name: "shop"}, nil)
	makeTable(t, dynamodb.NewFromConfig(sdk(m.environment("shop"))), "orders")
	var e *client.Error
	if err := m.Do(t.Context(), "POST", "/leave", client.Leave{}, nil); !errors.As(err, &e) || !strings.Contains(e.Cause, "the list of tables") || !strings.Contains(e.Cause, "the table shop:orders") {
		t.Errorf("leaving: %v", err)
	}
}
