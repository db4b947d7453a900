package lawtest

import (
	"fmt"
	"go/ast"
	"strings"
	"testing"
)

// floors is the order of the house from the bottom up. A package may import
// what stands on lower lines, and packages of its own family: those under the
// same folder of this table. Folders that share a line know nothing of one
// another. A folder that ends in "/*" stands for each folder in it.
var floors = [][]string{
	{"internal/*"}, // seams and test gear; a hyper package uses it in tests only

	{"hyper/clock"},
	{"hyper/internal/lanes"},
	{"hyper/internal/salsa"},
	{"hyper/compact"},
	{"hyper/merkle"},
	{"hyper/runs"},
	{"hyper/storage"},
	{"hyper/hypercore"},
	{"hyper/noise"},
	{"hyper/secretstream"},
	{"hyper/protomux"},
	{"hyper/transport"},
	{"hyper/replicate"},
	{"hyper/corestore"},
	{"hyper/hyperbee"},
	{"hyper/hyperblobs"},
	{"hyper/treefs"},
	{"hyper/hyperdrive"},
	{"hyper/localdrive"},
	{"hyper/mirrordrive"},
	{"hyper/autobase"},
	{"hyper/packet", "hyper/portmap"},
	{"hyper/udx"},
	{"hyper/dhtrpc"},
	{"hyper/blindrelay"},
	{"hyper/hyperdht"},
	{"hyper/dhtrelay"},
	{"hyper/mdns"},
	{"hyper/hyperswarm"},

	{"cloud/words"},
	{"cloud/identity", "cloud/tree"},
	{"cloud/pair", "cloud/content"},
	{"cloud/folder"},
	{"cloud/disk"},
	{"cloud"},
	{"services/internal"},
	{"services/*"},
	{"swarm"},
	{"client"},
	{"node/bridge"},
	{"node"},
	{"."},
	{"bench", "interop", "cmd/*"},
}

// bans are imports that the order alone would let through.
var bans = []struct {
	from, to string
	testsMay bool
	why      string
}{
	{"hyper", "internal", true, "hyper is importable alone, and nobody outside can import internal packages"},
	{"swarm", "services", false, "a cloud moves and heals the same whichever doors are open on it"},
}

// openFamilies are folders whose packages may import one another although each
// is a family.
var openFamilies = map[string]bool{"internal": true}

func TestImportsGoDownOnly(t *testing.T) { complain(t, importsGoDown(allFiles(t))) }

func importsGoDown(files []*file) (breaches []string) {
	unplaced := map[string]bool{}
	for _, f := range files {
		if _, _, ok := place(f.dir); !ok && !unplaced[f.dir] {
			unplaced[f.dir] = true
			breaches = append(breaches, fmt.Sprintf("%s: package has no floor: decide where it stands and add it to internal/lawtest/floors_test.go", f.dir))
		}
		f.imports(func(spec *ast.ImportSpec, p string) {
			to, ok := ours(p)
			if !ok || to == f.dir {
				return
			}
			if why := mayNotImport(f.dir, to, f.test); why != "" {
				breaches = append(breaches, fmt.Sprintf("%s: %s imports %s: %s", f.at(spec), f.dir, to, why))
			}
		})
	}
	return breaches
}

// ours turns an import path into a folder of the tree.
func ours(importPath string) (dir string, ok bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// place finds the family and the floor of a folder.
func place(dir string) (family string, floor int, ok bool) {
	for i, line := range floors {
		for _, name := range line {
			if parent, each := strings.CutSuffix(name, "/*"); each {
				rest, under := strings.CutPrefix(dir, parent+"/")
				if under {
					child, _, _ := strings.Cut(rest, "/")
					return parent + "/" + child, i, true
				}
				continue
			}
			if within(dir, name) {
				return name, i, true
			}
		}
	}
	return "", 0, false
}

// within tells whether dir is folder or lies in it. The root has nothing in it.
func within(dir, folder string) bool {
	return dir == folder || folder != "." && strings.HasPrefix(dir, folder+"/")
}

// mayNotImport returns the reason why from may not import to, or nothing.
func mayNotImport(from, to string, test bool) string {
	for _, b := range bans {
		if within(from, b.from) && within(to, b.to) && !(test && b.testsMay) {
			return b.why
		}
	}
	fromFamily, fromFloor, ok1 := place(from)
	toFamily, toFloor, ok2 := place(to)
	if !ok1 || !ok2 || fromFamily == toFamily || toFloor < fromFloor {
		return ""
	}
	if toFloor > fromFloor {
		return "an import goes down only, so that each floor can be read, tested and used without those above"
	}
	parent, _, _ := strings.Cut(fromFamily, "/")
	if openFamilies[parent] {
		return ""
	}
	return "they share a floor and must not know one another"
}
