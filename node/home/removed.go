package home

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/services/dynamodb"
)

// removedRoutes hangs into the node how to see and bring back what was removed
// altogether: by a program, or from all machines.
func (h *Home) removedRoutes() {
	h.node.Route(
		node.Call("GET", "/removed", "List the folders, buckets, tables and apps that were removed and can be brought back", h.getRemoved),
		node.Call("POST", "/removed/{id}", "Bring one of them back", h.bringBack),
	)
}

// appID begins the id of an app among what was removed; those of spaces are hex.
const appID = "app:"

func (h *Home) getRemoved(ctx context.Context, _ node.None) (out client.RemovedThings, err error) {
	err = h.use(ctx, func(s *session) error {
		out.Removed, err = s.removed(ctx)
		return err
	})
	return out, err
}

// removed lists what was removed, what was removed last first.
func (s *session) removed(ctx context.Context) ([]client.Removed, error) {
	list := []client.Removed{}
	all, err := s.cloud.Removed(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		switch {
		case r.App != "":
			list = append(list, client.Removed{ID: appID + r.App + "@" + r.Time.UTC().Format(time.RFC3339Nano), Kind: "app", Name: r.App, Time: r.Time})
		case r.Info.Kind == cloud.Folder:
			kind := "folder"
			if r.Info.App != "" {
				kind = "bucket"
			}
			list = append(list, client.Removed{ID: r.Info.ID, Kind: kind, Name: called(r.Info), App: r.Info.App, Time: r.Time})
		}
	}
	for _, info := range s.cloud.Spaces(cloud.Table) {
		if info.Name != dynamodb.Catalog {
			continue
		}
		tables, err := s.removedTables(ctx, info, all)
		if err != nil {
			return nil, err
		}
		for _, r := range tables {
			if !strings.Contains(r.Name, client.RestoringInfix) {
				list = append(list, r.Removed)
			}
		}
	}
	slices.SortFunc(list, func(a, b client.Removed) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// A removedTable is one that its program deleted.
type removedTable struct {
	client.Removed
	table string // its name alone
}

// removedTables lists the tables that a catalog had.
func (s *session) removedTables(ctx context.Context, catalog cloud.SpaceInfo, all []cloud.Removed) (list []removedTable, err error) {
	space, err := s.cloud.Space(catalog.ID)
	if err != nil {
		return nil, err
	}
	dropped, err := dynamodb.DroppedTables(ctx, space.Tree())
	if err != nil {
		return nil, err
	}
	for _, d := range dropped {
		r := client.Removed{Kind: "table", App: catalog.App, Time: d.Time, Name: called(cloud.SpaceInfo{App: catalog.App, Name: d.Name})}
		for _, gone := range all {
			if gone.Info.Kind == cloud.Table && gone.Info.App == catalog.App && gone.Info.Name == d.Tree {
				r.ID = gone.Info.ID
			}
		}
		if info, err := s.cloud.Find(cloud.Table, catalog.App, d.Tree); err == nil { // there are backups of it
			r.ID = info.ID
		}
		if r.ID != "" {
			list = append(list, removedTable{r, d.Name})
		}
	}
	return list, nil
}

func (h *Home) bringBack(ctx context.Context, in client.BringBack) (out client.Removed, err error) {
	err = h.use(ctx, func(s *session) error {
		list, err := s.removed(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(r client.Removed) bool { return r.ID == in.ID })
		if i < 0 {
			return &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("nothing %q was removed", in.ID), Cause: "or it is there again already", Try: "bevy removed ls"}
		}
		out = list[i]
		if in.As != "" && (out.Kind == "app" || cloud.CheckName(in.As) != nil) {
			return &client.Error{Code: client.CodeUsage, Message: fmt.Sprintf("%s can't be brought back as %q", out.Name, in.As), Cause: "an app keeps its name; others have 1 to 255 bytes that can be printed, and no slash", Try: "another name, or none"}
		}
		if err := s.bringBack(ctx, out, in.As); err != nil {
			return toldOfRemoved(err, out)
		}
		if in.As != "" {
			out.Name = called(cloud.SpaceInfo{App: out.App, Name: in.As})
		}
		out.Time = time.Time{}
		h.node.Say("%s %s was brought back", out.Kind, out.Name)
		return nil
	})
	return out, err
}

func (s *session) bringBack(ctx context.Context, r client.Removed, as string) error {
	switch r.Kind {
	case "app":
		return s.cloud.BringBackApp(ctx, r.Name, r.Time)
	case "table":
		info, _ := s.cloud.SpaceInfo(r.ID)
		door, err := s.home.doorsOf(s).tables(ctx, r.App)
		if err != nil {
			return err
		}
		if err := s.cloud.BringBackSpace(ctx, r.ID, ""); err != nil { // it goes by the name of its tree
			return err
		}
		name := r.Name
		if r.App != "" {
			name = strings.TrimPrefix(name, r.App+":")
		}
		return door.BringBack(ctx, info.Name, cmp.Or(as, name))
	}
	err := s.cloud.BringBackSpace(ctx, r.ID, as)
	if err == nil {
		_, err = s.folderOf(r.ID)
	}
	return err
}

// toldOfRemoved gives errors about what was removed their codes.
func toldOfRemoved(err error, r client.Removed) error {
	what := fmt.Sprintf("cannot bring back the %s %s", r.Kind, r.Name)
	table := new(dynamodb.Error)
	switch {
	case errors.Is(err, cloud.ErrExists), errors.As(err, &table) && table.Type == "ResourceInUseException":
		try := "bevy removed back <what> --as <another name>"
		if r.Kind == "app" {
			try = "bevy apps rm, when what is in the other one is not wanted any more"
		}
		return (&client.Error{Code: client.CodeConflict, Message: what, Cause: "there is one of that name by now", Try: try}).Because(err)
	case errors.As(err, &table):
		return (&client.Error{Code: client.CodeUsage, Message: what, Cause: table.Message, Try: "bevy removed back <what> --as <another name>"}).Because(err)
	}
	return err
}
