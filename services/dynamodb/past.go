package dynamodb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloudbevy/bevy/cloud/tree"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// A Past has trees as they were at some time. Methods may be called by any goroutine.
type Past interface {
	// Open returns a tree by its name, or ErrNotFound.
	Open(ctx context.Context, name string) (View, error)
}

// ViewOnCloud returns a tree of a cloud as it was at a time.
func ViewOnCloud(ctx context.Context, t *tree.Tree, at time.Time) (View, error) {
	view, err := t.At(ctx, at)
	if err != nil {
		return nil, err
	}
	return cloudView{cloudReader{view}, view}, nil
}

// PastOptions for NewPast.
type PastOptions struct {
	Past   Past
	Clock  clock.Clock  // the system's if nil
	Log    *slog.Logger // none if nil
	Region string
}

// NewPast returns a door to tables as they were. All that reads them works, for as long
// as it is open on the same trees; what would change them is refused.
func NewPast(ctx context.Context, o PastOptions) (*Door, error) {
	d := newDoor(Options{Trees: pastTrees{o.Past}, Clock: o.Clock, Log: o.Log, Region: o.Region})
	d.past = true
	catalog, err := d.o.Trees.Open(ctx, Catalog, false)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open dynamodb as it was: %w", err), d.Close())
	}
	d.catalog.tree = catalog
	return d, nil
}

// errPast is why nothing is written.
var errPast = invalid("Tables as they were can be read and not changed")

type pastTrees struct{ past Past }

func (p pastTrees) Open(ctx context.Context, name string, create bool) (Tree, error) {
	view, err := p.past.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return pastTree{view}, nil
}

func (pastTrees) Delete(context.Context, string) error { return errPast }

// pastTree is a Tree that was.
type pastTree struct{ View }

func (pastTree) Batch(context.Context) (Batch, error)        { return nil, errPast }
func (pastTree) At(context.Context, time.Time) (View, error) { return nil, errPast }
func (pastTree) Writer() (none [8]byte)                      { return none }
func (pastTree) Shared() bool                                { return true }
