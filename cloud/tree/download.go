package tree

import (
	"context"
	"fmt"

	"github.com/cloudbevy/bevy/hyper/hypercore"
)

// Download brings all bees here and keeps them so as they grow, also those that
// are added meanwhile, until the context ends, with its error, or the tree is
// closed.
func (t *Tree) Download(ctx context.Context) error {
	return fmt.Errorf("download: %w", hypercore.ErrNotFound)
}
