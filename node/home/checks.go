package home

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/cloud"
	"github.com/cloudbevy/bevy/cloud/folder"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/noise"
	"github.com/cloudbevy/bevy/hyper/storage"
	"github.com/cloudbevy/bevy/node"
	"github.com/cloudbevy/bevy/services/dynamodb"
)

// checkRoutes hangs into the node what checks that all that is here is what was
// written.
func (h *Home) checkRoutes() {
	h.node.Route(
		node.Call("GET", "/checks", "List what can be checked: folders, buckets, tables, and the cloud itself", h.getChecks),
		node.Raw("POST", "/checks/{space}", "Check what is here of one of these, and tell how far it is: lines of JSON", "", "application/jsonl", h.check),
	)
}

// called is how the folder or bucket is called: those of apps by the app and the
// name.
func called(info cloud.SpaceInfo) string {
	if info.App == "" {
		return info.Name
	}
	return info.App + ":" + info.Name
}

// checkOrder is the order of kinds in the list, and so of what is checked.
var checkOrder = []string{"cloud", "folder", "bucket", "tables", "table"}

// getChecks lists all that has logs here, also what was removed and is still kept.
func (h *Home) getChecks(ctx context.Context, _ node.None) (out client.Checks, err error) {
	out.Checks = []client.Check{}
	err = h.use(ctx, func(s *session) error {
		logs, err := s.cloud.Logs(ctx)
		if err != nil {
			return err
		}
		tables := s.tableNames(ctx)
		at := map[string]int{}
		for _, l := range logs {
			i, ok := at[l.Space]
			if !ok {
				i = len(out.Checks)
				at[l.Space] = i
				out.Checks = append(out.Checks, s.checkOf(l, tables))
			}
			bytes, err := h.held(l.Key)
			if err != nil {
				return err
			}
			out.Checks[i].Bytes += bytes
		}
		for i := range out.Checks {
			if k := s.open(out.Checks[i].Space); k != nil { // its files are read, too
				k.mu.Lock()
				out.Checks[i].Bytes += uint64(max(0, k.stats.Bytes-k.stats.Missing))
				k.mu.Unlock()
			}
		}
		return nil
	})
	slices.SortFunc(out.Checks, func(a, b client.Check) int {
		order := func(c client.Check) int { return slices.Index(checkOrder, c.Kind) }
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Space, b.Space))
	})
	return out, err
}

// checkOf describes the space of a log.
func (s *session) checkOf(l cloud.Log, tables map[string]string) client.Check {
	c := client.Check{Space: l.Space, Removed: l.Removed}
	info, ok := s.cloud.SpaceInfo(l.Space)
	c.Name, c.App = called(info), info.App
	switch {
	case !ok:
		c.Kind, c.Name = "cloud", s.name()
	case info.Kind == cloud.Folder && info.App == "":
		c.Kind = "folder"
	case info.Kind == cloud.Folder:
		c.Kind = "bucket"
	case info.Name == dynamodb.Catalog:
		c.Kind, c.Name = "tables", info.App
	default:
		c.Kind = "table"
		info.Name = cmp.Or(tables[l.Space], info.Name)
		c.Name = called(info)
	}
	return c
}

// tableNames are the names of tables by the ids of their spaces. A list of tables
// that can't be read is found by its own check.
func (s *session) tableNames(ctx context.Context) map[string]string {
	names := map[string]string{}
	removed, err := s.cloud.Removed(ctx)
	if err != nil {
		return names
	}
	for _, info := range s.cloud.Spaces(cloud.Table) {
		if info.Name != dynamodb.Catalog {
			continue
		}
		space, err := s.cloud.Space(info.ID)
		if err != nil {
			continue
		}
		trees, err := dynamodb.TableTrees(ctx, space.Tree())
		if err != nil {
			continue
		}
		for tree, name := range trees {
			if of, err := s.cloud.Find(cloud.Table, info.App, tree); err == nil {
				names[of.ID] = name
			}
		}
		if gone, err := s.removedTables(ctx, info, removed); err == nil {
			for _, r := range gone {
				names[r.ID] = r.table
			}
		}
	}
	return names
}

// open returns a folder that is open, or nil.
func (s *session) open(id string) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.folders[id]
}

// held is how many bytes a log has, if it is here at all.
func (h *Home) held(key hypercore.Key) (uint64, error) {
	log, err := h.store.Get(corestore.LogOptions{Key: &key, MustExist: true})
	if errors.Is(err, storage.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return log.ByteLength(), log.Close()
}

// tellEvery is the time between two lines about how far a check is.
const tellEvery = 200 * time.Millisecond

// check checks a space. Each line of the answer is a client.CheckLine.
func (h *Home) check(w http.ResponseWriter, r *http.Request, in client.CheckRequest) error {
	return h.use(r.Context(), func(s *session) error {
		logs := s.cloud.LogsOf(in.Space)
		if len(logs) == 0 {
			return &client.Error{Code: client.CodeNotFound, Message: fmt.Sprintf("there is nothing %q to check", in.Space), Cause: "the cloud has no logs of it", Try: "bevy verify"}
		}
		w.Header().Set("Content-Type", "application/jsonl")
		t := &teller{w: w, clock: h.node.Clock(), last: h.node.Clock().Now()}
		if err := t.tell(client.CheckLine{}); err != nil { // a sign of life
			return err
		}
		var line client.CheckLine
		if got, err := s.check(r.Context(), logs, in.Repair, t.seen); err != nil {
			line.Error = node.FailureOf(told(err))
		} else {
			line.Bytes, line.Found = t.bytes, &got
		}
		return t.tell(line)
	})
}

// A teller writes how far something is. One goroutine uses it.
type teller struct {
	w     http.ResponseWriter
	clock interface{ Now() time.Time }
	last  time.Time
	bytes int64
}

func (t *teller) seen(n int64) {
	t.bytes += n
	if now := t.clock.Now(); now.Sub(t.last) >= tellEvery {
		t.last = now
		_ = t.tell(client.CheckLine{Bytes: t.bytes}) // who has gone has ended the request's context
	}
}

func (t *teller) tell(line client.CheckLine) error {
	b, err := json.Marshal(line)
	if err == nil {
		_, err = t.w.Write(append(b, '\n'))
	}
	if err != nil {
		return err
	}
	return http.NewResponseController(t.w).Flush()
}

// check reads all that is here of a space's logs, and what they make.
func (s *session) check(ctx context.Context, logs []cloud.Log, repair bool, seen func(int64)) (out client.Scrubbed, err error) {
	devices := map[hypercore.Key]string{}
	for _, l := range logs {
		devices[l.Key] = s.cloud.DeviceName(noise.Key(l.Device))
	}
	out.Details = []string{}
	report := func(text string) {
		if len(out.Details) < maxDetails {
			out.Details = append(out.Details, text)
		}
	}
	o := folder.ScrubOptions{
		Repair: repair, Seen: seen, Device: func(log hypercore.Key) string { return devices[log] },
		Report: func(p folder.Problem) { report(fmt.Sprint(p)) },
	}
	info, known := s.cloud.SpaceInfo(logs[0].Space)
	if known && info.Kind == cloud.Folder && !info.Removed {
		k, err := s.folderOf(info.ID)
		if err != nil {
			return out, err
		}
		o.Logs = k.trees()
		got, err := k.folder.Scrub(ctx, o)
		out.Logs, out.Files, out.Missing, out.Problems, out.Repaired = got.Logs, got.Files, got.Missing, got.Problems, got.Repaired
		if err != nil && got.Problems > got.Repaired && ctx.Err() == nil {
			report("so not all files could be looked at: " + err.Error())
			err = nil
		}
		return out, err
	}
	for _, l := range logs {
		log, err := s.home.store.Get(corestore.LogOptions{Key: &l.Key, MustExist: true})
		if errors.Is(err, storage.ErrNotFound) {
			continue // nothing of it is here
		}
		if err != nil {
			return out, err
		}
		defer log.Close()
		o.Logs = append(o.Logs, log)
	}
	got, err := folder.ScrubLogs(ctx, o)
	out.Logs, out.Problems, out.Repaired = got.Logs, got.Problems, got.Repaired
	if err != nil || !known || info.Kind != cloud.Table || info.Removed || info.Name == dynamodb.Catalog || got.Problems > got.Repaired {
		return out, err // of damaged logs it is clear that not all can be read
	}
	space, err := s.cloud.Space(info.ID)
	if err != nil {
		return out, err
	}
	out.Items, err = dynamodb.CheckItems(ctx, space.Tree(), func(err error) {
		out.Problems++
		report(err.Error())
	})
	return out, err
}
