package main

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/spf13/cobra"
)

func (h *hyper) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit <key> [flags]",
		Short: "Check all that is here of a log",
		Long: `Reads everything that is stored of a log and proves it against the head that its
writer signed: the signature, each hash, each block. What is bad is printed, a
line each, and the exit code is 7.`,
		Example: `bevy hyper core audit notes`,
		Args:    wants(1, 1),
		RunE:    func(cmd *cobra.Command, args []string) error { return h.audit(cmd.Context(), args[0]) },
	}
}

// An audited is what --json prints of each problem, and at the end of the whole.
type audited struct {
	Problem string  `json:"problem,omitempty"` // "head", "node" or "block"
	From    *uint64 `json:"from,omitempty"`    // the blocks it is about
	To      *uint64 `json:"to,omitempty"`      // without this one
	Node    *uint64 `json:"node,omitempty"`
	Cause   string  `json:"cause,omitempty"`

	Key      string  `json:"key,omitempty"`
	Length   *uint64 `json:"length,omitempty"`
	Held     *uint64 `json:"held,omitempty"`
	Problems *uint64 `json:"problems,omitempty"`
}

var problemNames = map[hypercore.ProblemKind]string{hypercore.BadHead: "head", hypercore.BadNode: "node", hypercore.BadBlock: "block"}

func (h *hyper) audit(ctx context.Context, word string) error {
	return h.withLog(ctx, reading, word, hypercore.SessionOptions{}, func(ctx context.Context, l *log) error {
		problems := uint64(0)
		for p, err := range l.Audit(ctx) {
			if err != nil {
				return fail(err, "cannot audit log %s", l.called())
			}
			problems++
			if err := h.printProblem(p); err != nil {
				return written(err)
			}
		}
		length := l.Length()
		here := heldIn(l.Log, hypercore.Range{End: length})
		if h.json {
			if err := h.printJSON(audited{Key: l.Key().String(), Length: &length, Held: &here, Problems: &problems}); err != nil {
				return written(err)
			}
		}
		if problems > 0 {
			return &failure{code: codeCorrupt, what: fmt.Sprintf("log %s has %s", l.called(), plural(problems, "problem")),
				cause: "what is stored is not what its writer signed", try: advice[codeCorrupt]}
		}
		h.say("ok: %s of %s of log %s are here and proven", count(here), plural(length, "block"), l.called())
		return nil
	})
}

func (h *hyper) printProblem(p hypercore.Problem) error {
	if !h.json {
		_, err := fmt.Fprintln(h.stdout, p)
		return err
	}
	a := audited{Problem: problemNames[p.What], From: &p.Blocks.Start, To: &p.Blocks.End, Cause: causeOf(p.Err)}
	if p.What == hypercore.BadNode {
		a.Node = &p.Node
	}
	return h.printJSON(a)
}
