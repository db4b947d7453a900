package lawtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// clocks may ask the real time: the seam itself, and gear that measures or
// waits for real processes. Everything else is handed a clock.
var clocks = []string{"hyper/clock", "internal/nodepeer", "internal/natlab", "bench", "interop"}

// networks may open real sockets; everything else is handed a connection.
var networks = []string{"hyper/packet", "hyper/portmap", "hyper/transport", "internal/natlab", "bench", "interop", "cmd", "internal/nodepeer", "services", "swarm", "client", "node"}

// timeCalls are the functions of package time that read or wait for the real
// clock.
var timeCalls = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// netPackages are the packages that open sockets. Packages that only know what
// an address looks like, such as net/netip, are not among them.
var netPackages = []string{"net", "net/http", "net/rpc", "net/smtp"}

func TestThereIsNoCgo(t *testing.T)                    { complain(t, noCgo(allFiles(t))) }
func TestEveryPackageSaysWhatItIs(t *testing.T)        { complain(t, packageComments(allFiles(t))) }
func TestTimeComesThroughTheClockSeam(t *testing.T)    { complain(t, timeSeam(allFiles(t))) }
func TestNetworkComesThroughASeam(t *testing.T)        { complain(t, netSeam(allFiles(t))) }
func TestEveryExportedNameIsExplained(t *testing.T)    { complain(t, docComments(allFiles(t))) }
func TestHyperHasNoPredictableRandomness(t *testing.T) { complain(t, noWeakRandom(allFiles(t))) }
func TestNoUnfinishedNotesAreLeft(t *testing.T)        { complain(t, noNotes(allFiles(t))) }

func noCgo(files []*file) (breaches []string) {
	for _, f := range files {
		f.imports(func(spec *ast.ImportSpec, p string) {
			if p == "C" {
				breaches = append(breaches, f.at(spec)+": cgo: Bevy is one static binary that builds anywhere with the Go tool alone")
			}
		})
	}
	return breaches
}

func packageComments(files []*file) (breaches []string) {
	type pkg struct {
		name string
		said bool
	}
	pkgs := map[string]*pkg{}
	var order []string
	for _, f := range files {
		if f.test {
			continue
		}
		p := pkgs[f.dir]
		if p == nil {
			p = &pkg{name: f.ast.Name.Name}
			pkgs[f.dir] = p
			order = append(order, f.dir)
		}
		text := f.ast.Doc.Text()
		if text != "" && (p.name == "main" || strings.HasPrefix(text, "Package "+p.name+" ")) {
			p.said = true
		}
	}
	for _, dir := range order {
		if p := pkgs[dir]; !p.said {
			breaches = append(breaches, fmt.Sprintf("%s: no package comment that begins with %q: say what it is, what it is not, where the spec is, and show five lines of use", dir, "Package "+p.name))
		}
	}
	return breaches
}

func timeSeam(files []*file) (breaches []string) {
	for _, f := range files {
		if f.test || slices.ContainsFunc(clocks, func(dir string) bool { return within(f.dir, dir) }) {
			continue
		}
		name := importName(f, "time")
		if name == "." {
			breaches = append(breaches, f.path+": dot import of time hides who asks the clock")
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			// An identifier that the parser resolved is a variable of that name.
			if ok && name != "" && x.Name == name && x.Obj == nil && slices.Contains(timeCalls, sel.Sel.Name) {
				breaches = append(breaches, fmt.Sprintf("%s: time.%s: take a hyper/clock instead, or no simulation can run this code", f.at(sel), sel.Sel.Name))
			}
			return true
		})
	}
	return breaches
}

// importName is the name by which a file knows an import, or "".
func importName(f *file, importPath string) (name string) {
	f.imports(func(spec *ast.ImportSpec, p string) {
		if p != importPath {
			return
		}
		name = path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
	})
	return name
}

func netSeam(files []*file) (breaches []string) {
	for _, f := range files {
		if f.test || slices.ContainsFunc(networks, func(dir string) bool { return within(f.dir, dir) }) {
			continue
		}
		f.imports(func(spec *ast.ImportSpec, p string) {
			if slices.Contains(netPackages, p) || strings.HasPrefix(p, "net/http/") {
				breaches = append(breaches, fmt.Sprintf("%s: %s: take a connection or a seam instead, or no simulated network can run this code", f.at(spec), p))
			}
		})
	}
	return breaches
}

func noWeakRandom(files []*file) (breaches []string) {
	for _, f := range files {
		if f.test || !within(f.dir, "hyper") {
			continue
		}
		f.imports(func(spec *ast.ImportSpec, p string) {
			if p == "math/rand" || p == "math/rand/v2" {
				breaches = append(breaches, fmt.Sprintf("%s: %s: what a peer can predict it can attack; take an io.Reader of randomness, crypto/rand by default", f.at(spec), p))
			}
		})
	}
	return breaches
}

// note is a mark of work left for later.
var note = regexp.MustCompile(`\b(` + "TO" + `DO|FIX` + `ME|XX` + `X)\b`)

func noNotes(files []*file) (breaches []string) {
	for _, f := range files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if mark := note.FindString(c.Text); mark != "" {
					breaches = append(breaches, fmt.Sprintf("%s: %s: do it, or say in docs/ what is missing and why", f.at(c), mark))
				}
			}
		}
	}
	return breaches
}

// selfEvident are methods that can only mean what the errors package means.
var selfEvident = map[string]bool{"Error": true, "Unwrap": true}

func docComments(files []*file) (breaches []string) {
	for _, f := range files {
		if f.test || !within(f.dir, "hyper") {
			continue
		}
		missing := func(n ast.Node, what string) {
			breaches = append(breaches, fmt.Sprintf("%s: %s is exported and has no comment: say its contract, who owns byte slices, and who may call it when", f.at(n), what))
		}
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				recv := receiver(d)
				if !d.Name.IsExported() || recv != "" && (!ast.IsExported(recv) || selfEvident[d.Name.Name]) {
					continue
				}
				if d.Doc.Text() == "" {
					missing(d, strings.TrimPrefix(recv+"."+d.Name.Name, "."))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					undocumented(d, spec, missing)
				}
			}
		}
	}
	return breaches
}

// undocumented calls missing for each exported name of a type, const or var
// without a comment above it, behind it, or above its group.
func undocumented(d *ast.GenDecl, spec ast.Spec, missing func(ast.Node, string)) {
	switch s := spec.(type) {
	case *ast.TypeSpec:
		if !s.Name.IsExported() {
			return
		}
		if s.Doc.Text() == "" && (d.Doc.Text() == "" || d.Lparen != token.NoPos) {
			missing(s, s.Name.Name)
		}
		face, ok := s.Type.(*ast.InterfaceType)
		if !ok {
			return
		}
		for _, m := range face.Methods.List {
			if len(m.Names) == 1 && m.Names[0].IsExported() && m.Doc.Text() == "" && m.Comment.Text() == "" {
				missing(m, s.Name.Name+"."+m.Names[0].Name)
			}
		}
	case *ast.ValueSpec:
		if s.Doc.Text() != "" || s.Comment.Text() != "" || d.Doc.Text() != "" {
			return
		}
		for _, name := range s.Names {
			if name.IsExported() {
				missing(s, name.Name)
			}
		}
	}
}

// receiver is the name of the type that a method belongs to, or "".
func receiver(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return ""
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
