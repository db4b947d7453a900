package corestore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// Parts of a log make the log; some may come twice.
func TestPartsAreExportedAndImported(t *testing.T) {
	from, err := Open(storage.NewMemory(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	l, err := from.Get(LogOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	appendSome := func(n int) {
		for i := range n {
			if _, err := l.Append(t.Context(), bytes.Repeat([]byte{byte(i)}, 100)); err != nil {
				t.Fatal(err)
			}
		}
	}
	appendSome(100)
	if _, err := l.Clear(t.Context(), 40, 50); err != nil {
		t.Fatal(err)
	}
	var parts [][]byte
	part := func(since uint64, limit int64, blocks ...hypercore.Range) (next uint64) {
		t.Helper()
		var b bytes.Buffer
		length, next, err := from.ExportPart(t.Context(), l.Key(), &b, Part{Since: since, Blocks: blocks, Limit: limit})
		if err != nil || length != l.Length() {
			t.Fatal(length, err)
		}
		parts = append(parts, b.Bytes())
		return next
	}
	next := part(0, 2000, hypercore.Range{Start: 0, End: 40})
	if next < 5 || next > 25 {
		t.Errorf("2000 bytes are %d blocks", next)
	}
	if n := part(100, 0, hypercore.Range{Start: next, End: 40}, hypercore.Range{Start: 50, End: 60}); n != 60 {
		t.Errorf("goes on at %d", n)
	}
	appendSome(30)
	part(100, 0, hypercore.Range{Start: 60, End: 130})
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1, 0}, {0, 1, 1, 2, 0, 1}} {
		to, err := Open(storage.NewMemory(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range order {
			if _, err := to.Import(t.Context(), bytes.NewReader(parts[i])); err != nil {
				t.Fatalf("order %v: part %d: %v", order, i, err)
			}
		}
		key := l.Key()
		got, err := to.Get(LogOptions{Key: &key, MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		if want := "[{0 40} {50 130}]"; got.Length() != 130 || fmt.Sprint(slices.Collect(held(got))) != want {
			t.Errorf("order %v: %d blocks, held %v", order, got.Length(), slices.Collect(held(got)))
		}
		for i := uint64(0); i < 130; i++ {
			if i >= 40 && i < 50 {
				continue
			}
			a, err := l.Get(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := got.Get(t.Context(), i); err != nil || !bytes.Equal(a, b) {
				t.Fatalf("block %d: %v", i, err)
			}
		}
		got.Close()
		to.Close()
	}
}

// Parts can be read from any of their marks on, by who knows what the log was.
func TestPartsAreReadFromMarks(t *testing.T) {
	from, err := Open(storage.NewMemory(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	l, err := from.Get(LogOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 100 {
		if _, err := l.Append(t.Context(), bytes.Repeat([]byte{byte(i)}, 100)); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	type mark struct {
		block uint64
		at    int64
	}
	var marks []mark
	if _, _, err := from.ExportPart(t.Context(), l.Key(), &b, Part{
		Blocks: []hypercore.Range{{Start: 3, End: 90}}, Lengths: []uint64{7, 64}, MarkEvery: 1000,
		Mark: func(block uint64, at int64) { marks = append(marks, mark{block, at}) },
	}); err != nil {
		t.Fatal(err)
	}
	if len(marks) < 5 || marks[0].block != 3 {
		t.Fatal(marks)
	}
	for i, m := range marks {
		end := b.Len()
		if i+1 < len(marks) {
			end = int(marks[i+1].at)
		}
		to, err := Open(storage.NewMemory(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		key := l.Key()
		got, err := to.Get(LogOptions{Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		for _, span := range [][2]int{{0, int(marks[0].at)}, {int(m.at), end}} {
			list, err := Proofs(b.Bytes()[span[0]:span[1]])
			if err != nil {
				t.Fatal(err)
			}
			errs, err := got.Apply(t.Context(), hypercore.Soon, list...)
			for _, err := range append(errs, err) {
				if err != nil {
					t.Fatalf("mark %v: %v", m, err)
				}
			}
		}
		if !got.Has(m.block) || got.Length() != 100 {
			t.Errorf("mark %v: block is not there", m)
		}
		if err := errors.Join(got.Close(), to.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzProofs(f *testing.F) {
	f.Add([]byte(exportMagic))
	f.Add([]byte{3, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0x07})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := Proofs(b)
		if err == nil && len(list) > len(b) {
			t.Error("more proofs than bytes")
		}
	})
}
