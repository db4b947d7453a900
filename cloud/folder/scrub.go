package folder

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// A Problem is something stored that is not what it should be.
type Problem struct {
	// Path is of an entry that makes no sense or whose content does not. It may be
	// none.
	Path string
	// Log and Blocks are of what is bad in a log, which Device writes, as people call
	// it.
	Log    hypercore.Key
	Device string
	Blocks hypercore.Range
	Err    error
	// Repaired says that it was replaced by what others have.
	Repaired bool
}

// String says what is bad, and where, on one line.
func (p Problem) String() string {
	where := fmt.Sprintf("%q", p.Path)
	if p.Path == "" {
		where = "log " + p.Log.String()
		if p.Device != "" {
			where += " of " + p.Device
		}
		if p.Blocks.End == p.Blocks.Start+1 {
			where += fmt.Sprintf(", block %d", p.Blocks.Start)
		} else {
			where += fmt.Sprintf(", blocks %d to %d", p.Blocks.Start, p.Blocks.End-1)
		}
	}
	why, _, _ := strings.Cut(fmt.Sprint(p.Err), "\n") // where several blocks can't be read it is the same again
	if p.Repaired {
		why += " (repaired)"
	}
	return where + ": " + why
}

// ScrubOptions for Scrub and ScrubLogs.
type ScrubOptions struct {
	// Logs are read besides those of contents: those of the entries.
	Logs []*hypercore.Log
	// Repair replaces bad blocks by those of others, where somebody has them.
	Repair bool
	// Device says who writes a log, as people call it. It may be nil.
	Device func(log hypercore.Key) string
	// Report is told of each problem, and Seen of bytes that were read: of blocks
	// and of files. They must not use the folder, and may be nil.
	Report func(Problem)
	Seen   func(bytes int64)
}

// A Scrubbed says what a scrub found.
type Scrubbed struct {
	Logs, Files        int
	Missing            int64 // bytes of files that are not held here
	Problems, Repaired int
}

func (s *Scrubbed) report(o *ScrubOptions, p Problem) {
	s.Problems++
	if p.Repaired {
		s.Repaired++
	}
	if o.Report != nil {
		o.Report(p)
	}
}

// ScrubLogs reads what is held here of o.Logs, and checks it against the heads that
// their writers signed.
func ScrubLogs(ctx context.Context, o ScrubOptions) (out Scrubbed, err error) {
	for _, log := range o.Logs {
		out.Logs++
		if err := out.log(ctx, log, &o); err != nil {
			return out, fmt.Errorf("scrub: %w", err)
		}
	}
	return out, nil
}

func (s *Scrubbed) log(ctx context.Context, log *hypercore.Log, o *ScrubOptions) error {
	device := ""
	if o.Device != nil {
		device = o.Device(log.Key())
	}
	seen := func(n int) {
		if o.Seen != nil {
			o.Seen(int64(n))
		}
	}
	var bad []Problem
	for p, err := range log.AuditSeen(ctx, seen) {
		if err != nil {
			return err
		}
		found := Problem{Log: log.Key(), Device: device, Blocks: p.Blocks, Err: p.Err}
		if p.What == hypercore.BadBlock && o.Repair && log.HasSource() && len(bad) < maxRepairs {
			bad = append(bad, found)
			continue
		}
		s.report(o, found)
	}
	for _, p := range bad {
		// What is bad is of no use, so it can go before something better is here.
		_, err := log.Clear(ctx, p.Blocks.Start, p.Blocks.End)
		if err == nil {
			err = log.Download(ctx, hypercore.DownloadRange{From: p.Blocks.Start, To: p.Blocks.End})
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if p.Repaired = err == nil; err != nil {
			p.Err = errors.Join(p.Err, err)
		}
		s.report(o, p)
	}
	return nil
}

// Scrub reads everything that is held here and checks it: each log against the head
// that its writer signed, and each file's content against its entry.
func (f *Folder) Scrub(ctx context.Context, o ScrubOptions) (Scrubbed, error) {
	o.Logs = append(f.content.Logs(), o.Logs...)
	out, err := ScrubLogs(ctx, o)
	if err != nil {
		return out, err
	}
	fail := func(err error) (Scrubbed, error) { return out, fmt.Errorf("scrub: %w", err) }
	report := func(p Problem) { out.report(&o, p) }
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
			if o.Seen != nil {
				o.Seen(e.Size)
			}
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
