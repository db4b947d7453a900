package folder

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Problem is something stored that is not what it should be.
type Problem struct {
	// Path is of an entry that makes no sense or whose content does not. It may be
	// none.
	Path string
	// Log and Blocks are of what is bad in a log.
	Log    hypercore.Key
	Blocks hypercore.Range
	Err    error
	// Repaired says that it was replaced by what others have.
	Repaired bool
}

// String says what is bad, and where.
func (p Problem) String() string {
	where := fmt.Sprintf("%q", p.Path)
	if p.Path == "" {
		where = fmt.Sprintf("log %s, blocks %d to %d", p.Log, p.Blocks.Start, p.Blocks.End)
	}
	if p.Repaired {
		return fmt.Sprintf("%s: %v (repaired)", where, p.Err)
	}
	return fmt.Sprintf("%s: %v", where, p.Err)
}

// ScrubOptions for Scrub.
type ScrubOptions struct {
	// Logs are read besides those of contents: those of the entries.
	Logs []*hypercore.Log
	// Repair replaces bad blocks by those of others, where somebody has them.
	Repair bool
	// Report is told of each problem. It must not use the folder.
	Report func(Problem)
}

// A Scrubbed says what a scrub found.
type Scrubbed struct {
	Logs, Files        int
	Missing            int64 // bytes of files that are not held here
	Problems, Repaired int
}

// Scrub reads everything that is held here and checks it: each log against the head
// that its writer signed, and each file's content against its entry.
func (f *Folder) Scrub(ctx context.Context, o ScrubOptions) (Scrubbed, error) {
	var out Scrubbed
	fail := func(err error) (Scrubbed, error) { return out, fmt.Errorf("scrub: %w", err) }
	report := func(p Problem) {
		out.Problems++
		if p.Repaired {
			out.Repaired++
		}
		if o.Report != nil {
			o.Report(p)
		}
	}
	for _, log := range append(f.content.Logs(), o.Logs...) {
		out.Logs++
		var bad []Problem
		for p, err := range log.Audit(ctx) {
			if err != nil {
				return fail(err)
			}
			found := Problem{Log: log.Key(), Blocks: p.Blocks, Err: p.Err}
			if p.What == hypercore.BadBlock && o.Repair && log.HasSource() && len(bad) < maxRepairs {
				bad = append(bad, found)
				continue
			}
			report(found)
		}
		for _, p := range bad {
			// What is bad is of no use, so it can go before something better is here.
			_, err := log.Clear(ctx, p.Blocks.Start, p.Blocks.End)
			if err == nil {
				err = log.Download(ctx, hypercore.DownloadRange{From: p.Blocks.Start, To: p.Blocks.End})
			}
			if ctx.Err() != nil {
				return fail(ctx.Err())
			}
			if p.Repaired = err == nil; err != nil {
				p.Err = errors.Join(p.Err, err)
			}
			report(p)
		}
	}
	for raw, err := range both(f.tree.Range(ctx, inPaths), f.tree.Range(ctx, inAside)) {
		if err != nil {
			return fail(err)
		}
		e := read(raw)
		if !isFile(e.Path) {
			report(Problem{Path: e.Path, Err: CheckPath(e.Path)})
			continue
		}
		for _, e := range append([]*Entry{&e}, pointers(e.Others)...) {
			if e.Err != nil {
				report(Problem{Path: e.Path, Err: e.Err})
			}
			if e.Kind != File {
				continue
			}
			out.Files++
			missing, err := f.content.Verify(ctx, e.Content)
			out.Missing += missing
			if ctx.Err() != nil {
				return fail(ctx.Err())
			}
			if err != nil {
				report(Problem{Path: e.Path, Err: err})
			}
		}
	}
	return out, nil
}

// maxRepairs is how many bad blocks of a log are kept in mind at once.
const maxRepairs = 1 << 16
