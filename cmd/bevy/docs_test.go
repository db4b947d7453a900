package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/node/service"
	"github.com/spf13/cobra"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// printed is what each command prints with --json.
var printed = map[string]any{
	"bevy":                      overviewInfo{},
	"bevy version":              versionInfo{},
	"bevy hyper core create":    created{},
	"bevy hyper core ls":        listedLog{},
	"bevy hyper core info":      logInfo{},
	"bevy hyper core append":    appended{},
	"bevy hyper core get":       printedBlock{},
	"bevy hyper core cat":       nil, // as get
	"bevy hyper core truncate":  truncated{},
	"bevy hyper core clear":     cleared{},
	"bevy hyper core audit":     audited{},
	"bevy hyper core download":  downloaded{},
	"bevy hyper bee create":     created{},
	"bevy hyper bee put":        changed{},
	"bevy hyper bee del":        changed{},
	"bevy hyper bee get":        printedEntry{},
	"bevy hyper bee ls":         printedEntry{},
	"bevy hyper bee load":       loaded{},
	"bevy hyper bee history":    printedChange{},
	"bevy hyper bee diff":       printedDifference{},
	"bevy hyper bee watch":      nil, // as diff
	"bevy hyper bee info":       beeInfo{},
	"bevy hyper bee serve":      door{},
	"bevy hyper drive create":   created{},
	"bevy hyper drive ls":       listedFile{},
	"bevy hyper drive get":      nil, // two kinds
	"bevy hyper drive mirror":   mirroredAll{},
	"bevy hyper drive checkout": nil, // as mirror
	"bevy hyper drive put":      changedFiles{},
	"bevy hyper drive cat":      printedPart{},
	"bevy hyper drive rm":       changedFiles{},
	"bevy hyper drive restore":  changedFiles{},
	"bevy hyper drive diff":     fileDifference{},
	"bevy hyper drive history":  fileChange{},
	"bevy hyper drive watch":    nil, // as diff
	"bevy hyper drive download": downloadedFiles{},
	"bevy hyper drive seed":     seeded{},
	"bevy hyper drive info":     driveInfo{},
	"bevy hyper drive clear":    clearedFiles{},
	"bevy hyper serve":          served{},
	"bevy hyper dht bootstrap":  nodeEvent{},
	"bevy hyper dht node":       nil, // as bootstrap
	"bevy hyper dht lookup":     foundPeer{},
	"bevy hyper dht announce":   announced{},
	"bevy hyper dht find":       nil, // as lookup
	"bevy hyper dht put":        record{},
	"bevy hyper dht get":        nil, // as put
	"bevy hyper dht mput":       nil, // as put
	"bevy hyper dht mget":       nil, // as put
	"bevy hyper dht ping":       pinged{},
	"bevy hyper dht connect":    nil, // what the peer sends
	"bevy hyper dht listen":     nil, // what the peer sends
	"bevy hyper dht relay":      relayEvent{},
	"bevy hyper netcheck":       finding{},
	"bevy up":                   started{},
	"bevy down":                 nil, // nothing
	"bevy status":               client.Status{},
	"bevy notices":              client.Notices{},
	"bevy ping":                 client.Pong{},
	"bevy add":                  client.Folder{},
	"bevy folder ls":            client.Folder{},
	"bevy folder drop":          nil, // nothing
	"bevy folder confirm":       nil, // nothing
	"bevy folder restore":       nil, // nothing
	"bevy folder here":          nil, // nothing
	"bevy publish":              client.Published{},
	"bevy share link":           client.Share{},
	"bevy share narrow":         narrowed{},
	"bevy share ls":             client.Share{},
	"bevy share stop":           nil, // nothing
	"bevy join":                 client.Invitation{},
	"bevy leave":                client.Left{},
	"bevy machines ls":          client.Machine{},
	"bevy machines rm":          nil, // nothing
	"bevy keys show":            client.SeedWords{},
	"bevy keys forget":          nil, // nothing
	"bevy doctor":               finding{},
	"bevy netcheck":             finding{},
	"bevy service install":      serviceChange{},
	"bevy service uninstall":    serviceChange{},
	"bevy service status":       service.State{},
	"bevy completion":           nil, // a script
	"bevy ls":                   listedEntry{},
	"bevy cat":                  printedPart{},
	"bevy get":                  fetched{},
	"bevy checkout":             fetched{},
	"bevy put":                  changedPlace{},
	"bevy cp":                   changedPlace{},
	"bevy mv":                   moved{},
	"bevy rm":                   changedPlace{},
	"bevy mkdir":                changedPlace{},
	"bevy free":                 changedPlace{},
	"bevy log":                  listedEntry{},
	"bevy diff":                 listedChange{},
	"bevy restore":              changedPlace{},
	"bevy tag ls":               listedTag{},
	"bevy tag add":              listedTag{},
	"bevy tag rm":               listedTag{},
	"bevy scrub":                scrubbed{},
	"bevy verify":               scrubbed{},
	"bevy clear":                clearedContents{},
	"bevy env":                  client.Environment{},
	"bevy apps ls":              client.App{},
	"bevy apps add":             client.App{},
	"bevy apps rm":              nil, // nothing
	"bevy apps keys ls":         client.AccessKey{},
	"bevy apps keys add":        client.AccessKey{},
	"bevy apps keys rm":         nil, // nothing
	"bevy table ls":             listedTable{},
	"bevy table get":            nil, // an item
	"bevy table put":            putItems{},
	"bevy table query":          nil, // items
	"bevy table watch":          tableChange{},
	"bevy table export":         exported{},
	"bevy table restore":        putItems{},
	"bevy removed ls":           client.Removed{},
	"bevy removed back":         client.Removed{},
	"bevy backup to":            madeBackup{},
	"bevy backup ls":            client.Backup{},
	"bevy backup run":           madeBackup{},
	"bevy backup verify":        client.BackupChecked{},
	"bevy backup prune":         client.BackupPruned{},
	"bevy backup restore":       client.BackupSnapshot{},
	"bevy backup stop":          nil, // nothing
	"bevy feed read":            client.SourceChange{},
	"bevy feed add":             client.Feed{},
	"bevy feed ls":              client.Feed{},
	"bevy feed pause":           nil, // nothing
	"bevy feed resume":          nil, // nothing
	"bevy feed rm":              nil, // nothing
	"bevy s3 info":              doorInfo{},
	"bevy dynamo info":          doorInfo{},
}

// TestEveryFieldIsInTheDocs compares the sections of docs/cli.md with the
// commands and what they print.
func TestEveryFieldIsInTheDocs(t *testing.T) {
	text := readDoc(t, "docs/cli.md")
	_, text, ok := strings.Cut(text, "\n## JSON\n")
	if !ok {
		t.Fatal("docs/cli.md has no section about JSON")
	}
	sections := map[string]string{}
	for _, part := range strings.Split(text, "\n### ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		sections[title] = body
	}
	everyCommand(t, func(cmd *cobra.Command, _ string) {
		name := cmd.CommandPath()
		if cmd.Name() == "help" || cmd.IsAdditionalHelpTopicCommand() || cmd.HasAvailableSubCommands() && cmd.HasParent() {
			return
		}
		value, known := printed[name]
		if !known {
			t.Errorf("%s is not among the commands whose output this test knows", name)
			return
		}
		body, ok := sections[name]
		if !ok {
			t.Errorf("docs/cli.md has no section on %q", name)
		}
		delete(sections, name)
		if value == nil {
			return
		}
		for _, field := range jsonFields(reflect.TypeOf(value)) {
			if !strings.Contains(body, "`"+field+"`") {
				t.Errorf("docs/cli.md does not name the field %q of %q", field, name)
			}
		}
	})
	for name := range sections {
		t.Errorf("docs/cli.md is about %q, which is no command", name)
	}
}

// jsonFields are the names of all fields that a type has in JSON, also inside of
// others.
func jsonFields(typ reflect.Type) (names []string) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" {
			names = append(names, name)
		} else if f.Name[0] >= 'A' && f.Name[0] <= 'Z' {
			names = append(names, "a tag for "+f.Name) // which no text has
		}
		if f.IsExported() || f.Anonymous {
			names = append(names, jsonFields(f.Type)...)
		}
	}
	return names
}

func TestExitCodesInTheDocsAreThoseOfHelp(t *testing.T) {
	var help bytes.Buffer
	if exit := run(t.Context(), []string{"help", "exit-codes"}, nil, &help, io.Discard, nil); exit != 0 {
		t.Fatalf("help exit-codes: exit code %d", exit)
	}
	text := readDoc(t, "docs/cli.md")
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^  (\d)  (\w+)`).FindAllStringSubmatch(help.String(), -1) {
		n++
		if !regexp.MustCompile(`(?m)^\| ` + m[1] + ` \| ` + m[2]).MatchString(text) {
			t.Errorf("docs/cli.md says something else about code %s, which is %q", m[1], m[2])
		}
	}
	if n != 9 {
		t.Errorf("help tells of %d codes, want 9", n)
	}
}

// TestReadmeCommandsWork runs the sessions of the README: what stands behind "$ "
// is run, and the lines below are what it must print. "…" is anything.
func TestReadmeCommandsWork(t *testing.T) {
	dir := t.TempDir()
	nodes := "BEVY_BOOTSTRAP=" + newNetwork(t)
	here := []string{"BEVY_HOME=" + filepath.Join(dir, "here"), nodes}
	elsewhere := []string{"BEVY_HOME=" + filepath.Join(dir, "elsewhere"), nodes}
	var key string
	ran := 0
	for _, block := range strings.Split(readDoc(t, "README.md"), "\n```console\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
			line, want, _ := strings.Cut(part, "\n")
			ran++
			input := ""
			if m := regexp.MustCompile(`^echo "(.*)" \| `).FindStringSubmatch(line); m != nil {
				line, input = line[len(m[0]):], m[1]+"\n"
			}
			words := strings.Fields(line)
			if words[0] != "bevy" {
				t.Fatalf("README.md runs %q", line)
			}
			args, env := words[1:], here
			for i := range args {
				if args[i] == "<key>" {
					args[i] = key
				}
			}
			if slices.Contains(args, "--swarm") {
				args, env = append(args, "--bind", "127.0.0.1"), elsewhere
			}
			var got bytes.Buffer
			if args[0] == "up" {
				got.WriteString(upUntilReady(t, append(args, "--bind", "127.0.0.1", "--listen", "127.0.0.1:0"), here, strings.Count(want, "\n")))
			} else if args[1] == "serve" {
				var said string
				said, key = serveStoreBy(t, here, args[2:]...)
				got.WriteString(said)
			} else if exit := run(t.Context(), args, strings.NewReader(input), &got, &got, env); exit != 0 {
				t.Errorf("%s: exit code %d", line, exit)
			}
			// Columns are as wide as what "…" stands for.
			spaces := regexp.MustCompile(` +`)
			pattern := strings.ReplaceAll(regexp.QuoteMeta(spaces.ReplaceAllString(strings.TrimSuffix(want, "\n"), " ")), "…", ".*")
			if text := spaces.ReplaceAllString(strings.TrimSuffix(got.String(), "\n"), " "); !regexp.MustCompile(`^(?:` + pattern + `)$`).MatchString(text) {
				t.Errorf("%s prints\n%s\nand the README says\n%s", line, text, want)
			}
		}
	}
	if ran < 5 {
		t.Errorf("README.md has %d commands only", ran)
	}
}

// upUntilReady runs a node until it has said so many lines, and returns them.
func upUntilReady(t *testing.T, args, env []string, lines int) string {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, args, nil, in, &screen{}, env)
		in.Close()
	}()
	var said strings.Builder
	scanner := bufio.NewScanner(out)
	for range lines {
		if !scanner.Scan() {
			break
		}
		said.WriteString(scanner.Text() + "\n")
	}
	stop()
	if exit := <-done; exit != 0 {
		t.Errorf("up: exit code %d", exit)
	}
	return said.String()
}
