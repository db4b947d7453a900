// Command bench measures Bevy beside the reference packages on the same machine, in the same minutes.
//
//	go run ./bench                     every benchmark, as a table
//	go run ./bench -run log/get        those whose names match
//	go run ./bench -quick -json        smaller sizes, a JSON line each
//
// Each measurement runs in a process of its own (this program again, or node with a script of bench/node) and in a folder
// of its own; the two sides take turns, and the medians of the rounds are reported with the extremes. The npm packages
// are installed from interop/node/package-lock.json when they are missing. A figure is worth what the machine was
// worth: compare ratios, and look at the extremes before believing one.
//
// The exit status is 1 when something could not be measured. Missing a target is not an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/cloudbevy/bevy/internal/nodepeer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command is the whole program; it returns the exit code.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	run := flags.String("run", "", "only benchmarks whose names match this `regexp`")
	asJSON := flags.Bool("json", false, "print one JSON line a benchmark")
	rounds := flags.Int("rounds", 5, "`times` to measure each side")
	list := flags.Bool("list", false, "list the benchmarks and their work, and measure nothing")
	quick := flags.Bool("quick", false, "smaller sizes: says that it runs, not how fast")
	dir := flags.String("dir", "", "`folder` for scratch data (the system's temporary folder)")
	timeout := flags.Duration("timeout", 10*time.Minute, "longest `time` for one measurement")
	name := flags.String("child", "", "")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./bench [flags]")
		visible := flag.NewFlagSet("", flag.ContinueOnError)
		visible.SetOutput(stderr)
		flags.VisitAll(func(f *flag.Flag) {
			if f.Usage != "" {
				visible.Var(f.Value, f.Name, f.Usage)
			}
		})
		visible.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	all := slices.Concat(logBenchmarks(openStore), peerBenchmarks(), beeBenchmarks(), driveBenchmarks(), udxBenchmarks(), dhtBenchmarks(), swarmBenchmarks(), httpBenchmarks(), nodeBenchmarks(), dynamoBenchmarks(), s3Benchmarks())
	if *name != "" {
		return child(ctx, all, *name, flags.Args(), os.Stdin, stdout)
	}
	chosen, err := matching(all, *run)
	if err == nil && (*rounds < 1 || flags.NArg() > 0) {
		err = fmt.Errorf("wants -rounds of 1 or more and no arguments, has %d and %q", *rounds, flags.Args())
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	if *list {
		return exitCode(stderr, printList(stdout, chosen))
	}
	err = measureAll(ctx, chosen, *dir, &harness{rounds: *rounds, timeout: *timeout, quick: *quick, progress: stderr}, *asJSON, stdout)
	return exitCode(stderr, err)
}

func exitCode(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

func printList(out io.Writer, benchmarks []benchmark) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, b := range benchmarks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", b.name, b.unit, b.what)
	}
	return t.Flush()
}

// measureAll gives the harness what it needs of the machine, runs the benchmarks, and prints them.
func measureAll(ctx context.Context, chosen []benchmark, dir string, h *harness, asJSON bool, out io.Writer) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	h.self = []string{self}
	root, err := nodepeer.Root()
	if err != nil {
		return err
	}
	h.scripts = filepath.Join(root, "bench", "node")
	for _, b := range chosen {
		if b.peer.script == "" {
			continue
		}
		if h.noPeer = nodepeer.Install(ctx, h.progress); h.noPeer != nil {
			fmt.Fprintf(h.progress, "measuring Bevy alone: %v\n", h.noPeer)
		}
		break
	}
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return err
		}
	}
	if h.scratch, err = os.MkdirTemp(dir, "bevy-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.scratch)) }()

	var rows []row
	missing := 0
	for _, b := range chosen {
		r := h.run(ctx, b)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.bevyGot.err != nil || r.peerGot.err != nil {
			missing++
		}
		rows = append(rows, r)
		if !asJSON {
			continue
		}
		line, err := r.jsonLine()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", line); err != nil {
			return err
		}
	}
	if !asJSON {
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d benchmarks were not measured on both sides", missing, len(chosen))
	}
	return nil
}
