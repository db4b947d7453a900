package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"
)

// A tableChange is what table watch prints of each change.
type tableChange struct {
	Time time.Time       `json:"time"`
	What string          `json:"what"` // "added", "changed" or "removed"
	Key  json.RawMessage `json:"key"`
	Old  json.RawMessage `json:"old,omitempty"`
	New  json.RawMessage `json:"new,omitempty"`
}

func (a *app) tableWatchCommand() *cobra.Command {
	var f *tableFlags
	all := false
	cmd := &cobra.Command{
		Use:   "watch <table> [flags]",
		Short: "Show changes of a table as they come",
		Long: `Shows what is done to items, on all machines of the cloud, until it is stopped:
one object of JSON on each line. It reads the stream of the table, which is
turned on if it is not.`,
		Example: `bevy table watch orders
bevy table watch orders --all`,
		Args: wants(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTables(cmd.Context(), f, func(t *tables) error {
				return untilStopped(t.watch(cmd.Context(), args[0], all))
			})
		},
	}
	f = a.tableFlags(cmd, true)
	cmd.Flags().BoolVar(&all, "all", false, "begin with what the stream still has: that of a day")
	return cmd
}

// look is the time between two looks at a stream, and lookForShards between two
// looks for machines that have begun to write.
const (
	look          = 250 * time.Millisecond
	lookForShards = 20 // times look
)

func (t *tables) watch(ctx context.Context, name string, all bool) error {
	d, err := t.describe(ctx, name)
	if err != nil {
		return err
	}
	if !d.StreamSpecification.StreamEnabled {
		in := map[string]any{"TableName": name, "StreamSpecification": map[string]any{"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"}}
		if err := t.ask(ctx, "UpdateTable", in, nil); err != nil {
			return t.cannot(err, name, "cannot turn on the stream of %s", name)
		}
		if d, err = t.describe(ctx, name); err != nil {
			return err
		}
		t.say("turned on the stream of %s", name)
	}
	w := &watcher{tables: t, table: name, stream: d.LatestStreamArn, keys: keys(d.KeySchema), at: map[string]string{}}
	from := "LATEST"
	if all {
		from = "TRIM_HORIZON"
	}
	if err := w.findShards(ctx, from); err != nil {
		return err
	}
	t.say("watching %s", name)
	for quiet := 0; ; quiet++ {
		some, err := w.read(ctx)
		if err != nil {
			return err
		}
		if some {
			continue
		}
		if !sleep(ctx, t.clock, look) {
			return ctx.Err()
		}
		if quiet%lookForShards == lookForShards-1 {
			if err := w.findShards(ctx, "TRIM_HORIZON"); err != nil {
				return err
			}
		}
	}
}

// A watcher follows the stream of a table: a shard for each machine that writes.
type watcher struct {
	*tables
	table, stream string
	keys          []string
	at            map[string]string // iterators of shards, "" of those that have ended
}

// findShards begins to follow shards that are new.
func (w *watcher) findShards(ctx context.Context, from string) error {
	in := map[string]any{"StreamArn": w.stream}
	for {
		var out struct {
			StreamDescription struct {
				Shards               []struct{ ShardId string }
				LastEvaluatedShardId string
			}
		}
		if err := w.ask(ctx, "DescribeStream", in, &out); err != nil {
			return w.cannot(err, w.table, "cannot read the stream of %s", w.table)
		}
		for _, s := range out.StreamDescription.Shards {
			if _, known := w.at[s.ShardId]; known {
				continue
			}
			var place struct{ ShardIterator string }
			if err := w.ask(ctx, "GetShardIterator", map[string]any{"StreamArn": w.stream, "ShardId": s.ShardId, "ShardIteratorType": from}, &place); err != nil {
				return w.cannot(err, w.table, "cannot read the stream of %s", w.table)
			}
			w.at[s.ShardId] = place.ShardIterator
		}
		last := out.StreamDescription.LastEvaluatedShardId
		if last == "" {
			return nil
		}
		in["ExclusiveStartShardId"] = last
	}
}

// read prints what is new, and tells whether there was anything.
func (w *watcher) read(ctx context.Context) (some bool, err error) {
	for shard, place := range w.at {
		if place == "" {
			continue
		}
		var out struct {
			NextShardIterator string
			Records           []struct {
				EventName string `json:"eventName"`
				Change    struct {
					ApproximateCreationDateTime float64
					Keys, OldImage, NewImage    tableItem
				} `json:"dynamodb"`
			}
		}
		if err := w.ask(ctx, "GetRecords", map[string]any{"ShardIterator": place}, &out); err != nil {
			return some, w.cannot(err, w.table, "cannot read the stream of %s", w.table)
		}
		w.at[shard] = out.NextShardIterator
		for _, r := range out.Records {
			some = true
			c := tableChange{
				Time: time.UnixMilli(int64(r.Change.ApproximateCreationDateTime * 1000)).UTC(), Key: w.line(r.Change.Keys, w.keys),
				What: map[string]string{"INSERT": "added", "MODIFY": "changed", "REMOVE": "removed"}[r.EventName],
			}
			if r.Change.OldImage != nil {
				c.Old = w.line(r.Change.OldImage, w.keys)
			}
			if r.Change.NewImage != nil {
				c.New = w.line(r.Change.NewImage, w.keys)
			}
			if err := w.printJSON(c); err != nil {
				return some, written(err)
			}
		}
	}
	return some, nil
}
