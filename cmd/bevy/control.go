package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/node"
)

// paths finds the folders of the node.
func (a *app) paths() (node.Paths, error) {
	p, err := node.FindPaths(runtime.GOOS, a.env)
	if err != nil {
		return p, wrong("--home <folder>", err.Error(), "no place for a cloud")
	}
	return p, nil
}

// control connects to the node that runs on this machine.
func (a *app) control(ctx context.Context) (*client.Client, error) {
	p, err := a.paths()
	if err != nil {
		return nil, err
	}
	c, err := client.Dial(ctx, node.Control(p))
	if err != nil {
		return nil, asked(err, "cannot ask the node")
	}
	return c, nil
}

// withNode calls f with a connection to the node.
func (a *app) withNode(ctx context.Context, f func(*client.Client) error) error {
	c, err := a.control(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// asked is an error of the node as a person is told.
func asked(err error, what string, args ...any) error {
	var told *client.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, client.ErrNotRunning):
		return &failure{code: codeOffline, what: "no node runs on this machine", cause: "nobody answers at its socket", try: "bevy up", err: err}
	case errors.As(err, &told):
		return &failure{code: code(told.Code.Exit()), what: told.Message, cause: told.Cause, try: told.Try, err: err}
	}
	return fail(err, "%s", fmt.Sprintf(what, args...))
}
