package home

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/cloudbevy/bevy/node/bridge"
)

func (s *session) drive(_ context.Context, name, _ string) (bridge.Source, func(), error) {
	return nil, nil, fmt.Errorf("%s is no key: %w", name, fs.ErrNotExist)
}
