package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/cloudbevy/bevy/client"
)

// A door is a node as a user has it, "bevy up" in an empty home, and what "bevy env" tells programs of it.
type door struct {
	*nodeProcess
	client.Environment
	Port   int // of Endpoint
	Client *client.Client
	home   string
}

// openDoor starts the node that buildBevy has put into w.dir, in a home of its own there. It must be closed. What it is
// asked over its port is signed with AccessKey and Secret, for Region.
func openDoor(ctx context.Context, w work) (_ *door, err error) {
	d := &door{}
	if d.home, err = os.MkdirTemp(w.dir, "home-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.nodeProcess, err = startUp(ctx, w.dir, d.home, nil); err != nil {
		return nil, err
	}
	if d.Client, err = client.Dial(ctx, filepath.Join(d.home, "state", "bevy.sock")); err != nil {
		return nil, err
	}
	if err := d.Client.Do(ctx, http.MethodPost, "/environment", client.EnvironmentRequest{}, &d.Environment); err != nil {
		return nil, err
	}
	at, err := url.Parse(d.Endpoint)
	if err == nil {
		d.Port, err = strconv.Atoi(at.Port())
	}
	if err != nil {
		return nil, fmt.Errorf("the node is at %q: %w", d.Endpoint, err)
	}
	return d, nil
}

// close ends the node, and removes its home. It can be called once.
func (d *door) close() (err error) {
	if d.Client != nil {
		d.Client.Close()
	}
	if d.nodeProcess != nil {
		err = d.stop()
	}
	return errors.Join(err, os.RemoveAll(d.home))
}

// measureDoor loads a node by f, and adds what it has used.
func measureDoor(f func(context.Context, work, *door) (result, error)) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		d, err := openDoor(ctx, w)
		if err != nil {
			return r, err
		}
		r, err = f(ctx, w, d)
		if err := errors.Join(err, d.close()); err != nil {
			return r, err
		}
		serverFigures(&r, d.cmd)
		return r, nil
	}
}

// serverFigures adds what a server that has ended has used.
func serverFigures(r *result, cmd *exec.Cmd) {
	r.Extra["serverCPUSeconds"] = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if mib, ok := maxResidentOf(cmd.ProcessState); ok {
		r.Extra["serverMaxRssMiB"] = mib
	}
}
