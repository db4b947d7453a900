package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/node"
	"github.com/spf13/cobra"
)

// overviewInfo is what --json prints.
type overviewInfo struct {
	versionInfo
	Data     string `json:"data"`    // the folder of the cloud
	Running  bool   `json:"running"` // a node runs on this machine
	Cloud    string `json:"cloud"`   // its name, if it does
	Address  string `json:"address"`
	Machines int    `json:"machines"`
	Folders  int    `json:"folders"`
	Copies   int    `json:"copies"`
}

// overview is what bare "bevy" does.
func (a *app) overview(cmd *cobra.Command, _ []string) error {
	p, err := a.paths()
	if err != nil {
		return err
	}
	o := overviewInfo{versionInfo: versionNow(), Data: p.Data}
	state := "no node runs on this machine"
	next := [][2]string{
		{"bevy up", "run it here; it makes a cloud if there is none"},
		{"bevy hyper", "the toolbox for single logs"},
		{"bevy help", "see all commands"},
	}
	c, err := client.Dial(cmd.Context(), node.Control(p))
	if err == nil {
		defer c.Close()
		st, err := c.Status(cmd.Context())
		if err != nil {
			return asked(err, "cannot ask the node")
		}
		o.Running, o.Address, o.Machines, o.Folders = true, st.Node.Address, machinesIn(st), len(st.Folders)
		if st.Cloud != nil {
			o.Cloud, o.Copies = st.Cloud.Name, st.Cloud.Copies
			state = fmt.Sprintf("%s: %s, %s", o.Cloud, plural(uint64(o.Machines), "machine"), safety(st, a.clock.Now()))
		}
		next = [][2]string{
			{"bevy status", "see machines, folders, and what to look at"},
			{"bevy add <folder>", "keep a folder safe"},
			{"bevy join", "add another machine"},
			{"bevy log <folder>", "see what was done; bevy restore undoes it"},
			{"bevy publish <folder>", "have everybody read it who has its key"},
			{"bevy help", "see all commands"},
		}
	} else if !errors.Is(err, client.ErrNotRunning) {
		return asked(err, "cannot ask the node")
	}
	if a.json {
		return written(a.printJSON(o))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "bevy   %s   data %s\n", o.Version, o.Data)
	fmt.Fprintf(&b, "cloud  %s\n", state)
	for i, n := range next {
		label := "next: "
		if i > 0 {
			label = "      "
		}
		fmt.Fprintf(&b, "%s %-22s %s\n", label, n[0], n[1])
	}
	_, err = io.WriteString(a.stdout, b.String())
	return written(err)
}
