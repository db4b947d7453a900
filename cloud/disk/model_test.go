package disk

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "run the random tests with this seed only")

// long tells whether the long forms of tests are to run.
var long = os.Getenv("BEVY_LONG") != ""

// A people is those who use the folders of a world, and what they mean to keep.
type people struct {
	*world
	r     *rand.Rand
	n     int
	alive map[string]bool // contents that nobody has replaced or removed
	trace []string
}

// content is one that nobody wrote before, and of another size than all.
func (p *people) content() string {
	p.n++
	c := fmt.Sprintf("content %d %s", p.n, strings.Repeat("=", p.n))
	p.alive[c] = true
	return c
}

// paths are those of files and folders on a device.
func (p *people) paths(d *device) (files, dirs []string) {
	dirs = []string{""}
	must(p.t, filepath.WalkDir(d.dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch rel, _ := clean(d.dir, at); {
		case rel == "":
		case e.IsDir():
			dirs = append(dirs, rel)
		default:
			files = append(files, rel)
		}
		return nil
	}))
	return files, dirs
}

func pick[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// ends notes that the contents in a path are replaced or removed.
func (p *people) ends(d *device, path string) {
	_ = filepath.WalkDir(d.at(path), func(at string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, err := os.ReadFile(at)
			must(p.t, err)
			delete(p.alive, string(b))
		}
		return nil
	})
}

func (p *people) free(d *device, dirs []string) string {
	at := fmt.Sprintf("%s/%s", pick(p.r, dirs), pick(p.r, []string{"a", "b", "c.txt", "d e", "ü"}))
	if _, err := os.Lstat(d.at(at)); err == nil {
		return ""
	}
	return at
}

// act does something that people do.
func (p *people) act(d *device) {
	files, dirs := p.paths(d)
	note := func(format string, args ...any) {
		p.trace = append(p.trace, d.cloud.name+": "+fmt.Sprintf(format, args...))
	}
	at, n := p.free(d, dirs), p.r.IntN(12)
	switch {
	case n < 4 && at != "":
		note("make %s", at)
		d.write(at, p.content())
	case n < 6 && len(files) > 0:
		f := pick(p.r, files)
		note("edit %s", f)
		p.ends(d, f)
		d.remove(f) // or a link is written through
		d.write(f, p.content())
	case n < 7 && len(files) > 3:
		f := pick(p.r, files)
		note("remove %s", f)
		p.ends(d, f)
		d.remove(f)
	case n < 8 && len(files) > 0 && at != "":
		f := pick(p.r, files)
		note("move %s to %s", f, at)
		d.rename(f, at)
	case n < 9 && at != "":
		note("make folder %s", at)
		must(p.t, os.Mkdir(d.at(at), 0o755))
	case n < 10 && len(dirs) > 1 && at != "":
		dir := pick(p.r, dirs[1:])
		if !strings.HasPrefix(at, dir+"/") {
			note("move folder %s to %s", dir, at)
			d.rename(dir, at)
		}
	case n < 11 && len(dirs) > 4:
		dir := pick(p.r, dirs[1:])
		note("remove folder %s", dir)
		p.ends(d, dir)
		d.remove(dir)
	case at != "":
		note("link %s", at)
		must(p.t, os.Symlink("to "+at, d.at(at)))
	}
}

func testModel(t *testing.T, seed uint64, devices, steps int, real bool) {
	p := &people{world: newWorld(t, devices, real), r: rand.New(rand.NewPCG(seed, 1)), alive: map[string]bool{}}
	defer func() {
		if t.Failed() {
			t.Logf("seed %d, real %v:\n%s", seed, real, strings.Join(p.trace, "\n"))
		}
	}()
	for range steps {
		i := p.r.IntN(devices)
		d := p.devices[i]
		switch p.r.IntN(10) {
		case 0:
			j := p.r.IntN(devices)
			if i != j {
				p.trace = append(p.trace, fmt.Sprintf("%d meets %d", i, j))
				p.meet(i, j)
			}
		case 1, 2:
			p.trace = append(p.trace, fmt.Sprintf("%d looks", i))
			d.sync()
			p.answer(d)
		case 3:
			p.trace = append(p.trace, fmt.Sprintf("%d starts again", i))
			d.again()
			d.clock.Advance(time.Minute)
		default:
			p.act(d)
		}
	}
	p.rest()
	for _, d := range p.devices {
		p.answer(d)
	}
	p.rest()
	want := p.devices[0].tree()
	for _, d := range p.devices[1:] {
		same(t, "device "+d.cloud.name, d.tree(), want)
	}
	all := map[string]bool{}
	files, _ := p.paths(p.devices[0])
	for _, f := range files {
		all[p.devices[0].read(f)] = true
	}
	for c := range p.alive {
		if !all[c] {
			t.Errorf("%.30q is lost:\n%s", c, want)
		}
	}
	for _, d := range p.devices {
		d.wantCalm()
	}
}

// answer says that what is gone was meant to go.
func (p *people) answer(d *device) {
	if d.k.Status().Gone > 0 {
		must(p.t, d.k.Confirm(p.t.Context()))
	}
}

func TestDevicesAgreeAndLoseNothing(t *testing.T) {
	for _, c := range []struct {
		real         bool
		seeds, steps int
	}{{false, 12, 60}, {true, 3, 40}} {
		t.Run(fmt.Sprintf("real=%v", c.real), func(t *testing.T) {
			if long {
				c.seeds *= 50
				c.steps *= 3
			}
			for seed := range uint64(c.seeds) {
				if seed++; *seedFlag != 0 {
					seed = *seedFlag
				}
				if testModel(t, seed, 2+int(seed%2), c.steps, c.real); t.Failed() || *seedFlag != 0 {
					return
				}
			}
		})
	}
}
