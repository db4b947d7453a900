package lawtest

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// seedRows is how many rows the seed map has, for good.
const seedRows = 367

// seedStates are the states a row of the seed map can have.
var seedStates = []string{"not yet", "partly", "works"}

func TestEveryDependencyIsExplained(t *testing.T) {
	complain(t, dependencies(allFiles(t), readDoc(t, "go.mod"), readDoc(t, "docs/why.md")))
}

func TestPromisesAreKeptByTests(t *testing.T) {
	complain(t, promises(testNames(allFiles(t)), readDoc(t, "docs/promises.md")))
}

func TestSeedMapIsWholeAndProven(t *testing.T) {
	complain(t, seedMap(testNames(allFiles(t)), readDoc(t, "docs/seed-map.md")))
}

// requirement is a line of go.mod that asks for a module.
var requirement = regexp.MustCompile(`^(?:require\s+)?([a-z0-9][^\s()]*\.[^\s()]*/[^\s()]+)\s+v\S+(\s*//\s*indirect)?\s*$`)

// dependencies wants docs/why.md to name each module that go.mod calls direct
// or that a file imports.
func dependencies(files []*file, gomod, why string) (breaches []string) {
	imported := map[string]bool{}
	for _, f := range files {
		f.imports(func(_ *ast.ImportSpec, p string) { imported[p] = true })
	}
	for line := range strings.Lines(gomod) {
		m := requirement.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		direct := m[2] == ""
		for p := range imported {
			direct = direct || within(p, m[1])
		}
		if direct && !strings.Contains(why, m[1]) {
			breaches = append(breaches, fmt.Sprintf("docs/why.md does not name %s: say what it replaces, its size, its licence and that it has no cgo", m[1]))
		}
	}
	return breaches
}

// testNames are the tests, benchmarks, fuzz targets and examples of the tree:
// each by its name, and by its folder, a dot and its name.
func testNames(files []*file) map[string]bool {
	names := map[string]bool{}
	for _, f := range files {
		if !f.test {
			continue
		}
		for _, decl := range f.ast.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if ok && d.Recv == nil && testName.MatchString(d.Name.Name) && d.Name.Name != "TestMain" {
				names[d.Name.Name] = true
				names[f.dir+"."+d.Name.Name] = true
			}
		}
	}
	return names
}

// testName is the name of a test function; namedTest is one in a text, with or
// without the folder of its package before it.
var (
	testName  = regexp.MustCompile(`^(?:Test|Benchmark|Fuzz|Example)(?:[A-Z0-9_]\w*)?$`)
	namedTest = regexp.MustCompile("`((?:[\\w./-]+\\.)?(?:Test|Benchmark|Fuzz|Example)(?:[A-Z0-9_]\\w*)?)`")
)

// proofs returns the tests that a text names, and the complaints about those
// that are not there.
func proofs(tests map[string]bool, where, text string) (named []string, breaches []string) {
	for _, m := range namedTest.FindAllStringSubmatch(text, -1) {
		named = append(named, m[1])
		if !tests[m[1]] {
			breaches = append(breaches, fmt.Sprintf("%s names %s, which is no test of this tree: a promise without its proof is a wish", where, m[1]))
		}
	}
	return named, breaches
}

// cells are those of a row of a Markdown table, or nil for other lines and for
// the line under the heading.
func cells(line string) []string {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || strings.Trim(line, "|-: ") == "" {
		return nil
	}
	row := strings.Split(strings.ReplaceAll(line[1:len(line)-1], `\|`, "\x00"), "|")
	for i := range row {
		row[i] = strings.ReplaceAll(strings.TrimSpace(row[i]), "\x00", "|")
	}
	return row
}

func promises(tests map[string]bool, text string) (breaches []string) {
	rows := 0
	for line := range strings.Lines(text) {
		row := cells(line)
		if len(row) < 2 || strings.EqualFold(row[0], "promise") {
			continue
		}
		rows++
		where := fmt.Sprintf("docs/promises.md: %q", row[0])
		named, missing := proofs(tests, where, row[len(row)-1])
		breaches = append(breaches, missing...)
		if len(named) == 0 {
			breaches = append(breaches, where+" names no test: a promise without its proof is a wish")
		}
	}
	if rows == 0 {
		breaches = append(breaches, "docs/promises.md has no rows")
	}
	return breaches
}

// seedNumber is the first cell of a row of the seed map.
var seedNumber = regexp.MustCompile(`^S(\d{3})$`)

func seedMap(tests map[string]bool, text string) (breaches []string) {
	seen := make([]int, seedRows+1)
	for line := range strings.Lines(text) {
		row := cells(line)
		if len(row) == 0 || !seedNumber.MatchString(row[0]) {
			continue
		}
		where := "docs/seed-map.md: " + row[0]
		n, err := strconv.Atoi(row[0][1:])
		if err != nil || n < 1 || n > seedRows {
			breaches = append(breaches, fmt.Sprintf("%s is not a row of the seed, which has S001 to S%d", where, seedRows))
			continue
		}
		seen[n]++
		if len(row) != 4 {
			breaches = append(breaches, fmt.Sprintf("%s has %d cells, want number, name, state, proof", where, len(row)))
			continue
		}
		state, proof := row[2], row[3]
		if !slices.Contains(seedStates, state) {
			breaches = append(breaches, fmt.Sprintf("%s is %q, want one of %q", where, state, seedStates))
		}
		named, missing := proofs(tests, where, proof)
		breaches = append(breaches, missing...)
		if state != "not yet" && len(named) == 0 {
			breaches = append(breaches, fmt.Sprintf("%s is %q and names no test: say which test shows it", where, state))
		}
	}
	for n := 1; n <= seedRows; n++ {
		if seen[n] != 1 {
			breaches = append(breaches, fmt.Sprintf("docs/seed-map.md has S%03d %d times, want once: rows are never dropped or renumbered", n, seen[n]))
		}
	}
	return breaches
}
