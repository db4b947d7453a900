package dynamodb

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

// A record is one of a stream, as it is kept: its items are JSON as clients get it.
type record struct {
	Version int             `json:"version"`
	Time    int64           `json:"time"`
	Event   string          `json:"event"`
	Keys    json.RawMessage `json:"keys"`
	New     json.RawMessage `json:"new,omitempty"`
	Old     json.RawMessage `json:"old,omitempty"`
	Size    int             `json:"size"`
	By      json.RawMessage `json:"by,omitempty"`
	View    string          `json:"view"`
}

// record writes what a change is in the stream, if the table has one.
func (x *tx) record(c change, old item.Item) error {
	stream := x.s.Stream
	if stream == nil || !stream.On || c.now != nil && old != nil && c.now.Equal(old) {
		return nil
	}
	r := record{Version: schemaVersion, Time: millis(x.t.door.o.Clock.Now()), View: stream.View, By: json.RawMessage(c.by)}
	of := c.now
	switch {
	case c.now == nil:
		r.Event, of = "REMOVE", old
	case old == nil:
		r.Event = "INSERT"
	default:
		r.Event = "MODIFY"
	}
	key := x.s.keyOf(of)
	r.Keys, r.Size = key.AppendJSON(nil), key.Size()
	if c.now != nil && (stream.View == "NEW_IMAGE" || stream.View == "NEW_AND_OLD_IMAGES") {
		r.New = c.now.AppendJSON(nil)
		r.Size += c.now.Size()
	}
	if old != nil && (stream.View == "OLD_IMAGE" || stream.View == "NEW_AND_OLD_IMAGES") {
		r.Old = old.AppendJSON(nil)
		r.Size += old.Size()
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	x.put(streamKey(x.t.tree.Writer(), x.state.next), b)
	x.state.next++
	return x.trim(r.Time)
}

// trimAtOnce is how many old records go with each new one.
const trimAtOnce = 2

// trim removes records that are too old.
func (x *tx) trim(now int64) error {
	for range trimAtOnce {
		if x.state.first+1 >= x.state.next {
			return nil
		}
		key := streamKey(x.t.tree.Writer(), x.state.first)
		b, err := x.batch.Get(x.ctx, key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			x.err = err
			return err
		}
		if err == nil {
			var r struct {
				Time int64 `json:"time"`
			}
			if json.Unmarshal(b, &r) == nil && now-r.Time < streamTime.Milliseconds() {
				return nil
			}
			x.delete(key)
		}
		x.state.first++
	}
	return nil
}

// Each writer of a table has one shard in its stream.

func shardID(i *streamInfo, writer [8]byte) string {
	return fmt.Sprintf("shardId-%020d-%s", i.made(), hex.EncodeToString(writer[:]))
}

func shardWriter(id string) (w [8]byte, ok bool) {
	i := strings.LastIndexByte(id, '-')
	b, err := hex.DecodeString(id[i+1:])
	if err != nil || len(b) != 8 || !strings.HasPrefix(id, "shardId-") {
		return w, false
	}
	return [8]byte(b), true
}

func sequence(n uint64) string { return fmt.Sprintf("%021d", n+1) }

func parseSequence(s string) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimLeft(s, "0"), 10, 64)
	return n - 1, err == nil
}

// writers are those who have records in the stream, and who writes here.
func (t *table) writers(ctx context.Context) ([][8]byte, error) {
	own := t.tree.Writer()
	out := [][8]byte{own}
	from := []byte{keyStream}
	for {
		var w [8]byte
		found := false
		for e, err := range t.tree.Range(ctx, hyperbee.RangeOptions{Gte: from, Lt: []byte{keyStream + 1}, Limit: 1}) {
			if err != nil {
				return nil, err
			}
			if len(e.Key) == 17 {
				w, found = [8]byte(e.Key[1:9]), true
			}
		}
		if !found {
			return out, nil
		}
		if w != own {
			out = append(out, w)
		}
		if from = after(append([]byte{keyStream}, w[:]...)); from == nil {
			return out, nil
		}
	}
}

// A stream is one of a table, which may be past.
type stream struct {
	*table
	s     *schema
	info  *streamInfo
	until int64 // when the next one was made, 0 for the last
}

// numbers are those of the records that a writer may have in the stream.
func (st *stream) numbers(w [8]byte) (first, last uint64) {
	if w != st.tree.Writer() {
		return 0, 1<<64 - 1
	}
	if st.until == 0 {
		return st.info.First, 1<<64 - 1
	}
	return st.info.First, max(st.info.End, 1) - 1
}

// has reports whether a record is of the stream. The numbers of other writers say
// nothing of that.
func (st *stream) has(w [8]byte, r *record) bool {
	return w == st.tree.Writer() || r.Time >= st.info.made() && (st.until == 0 || r.Time < st.until)
}

// streamOf returns a stream, whose table is to be released.
func (d *Door) streamOf(ctx context.Context, arn string) (*stream, error) {
	rest, ok := strings.CutPrefix(arn, d.arn(""))
	name, label, ok2 := strings.Cut(rest, "/stream/")
	gone := notFound("Requested resource not found: Stream: " + arn + " not found")
	if !strings.HasPrefix(arn, "arn:") {
		return nil, badStreamArn(arn)
	}
	if !ok || !ok2 {
		return nil, gone
	}
	t, err := d.use(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	st := &stream{table: t, s: t.now.Load()}
	if st.info, st.until = st.s.stream(label); st.info == nil {
		d.release(t)
		return nil, gone
	}
	return st, nil
}

func badStreamArn(arn string) *Error {
	return invalid("Invalid StreamArn: " + arn)
}

type streamEntry struct{ StreamArn, TableName, StreamLabel string }

func (d *Door) listStreams(ctx context.Context, r *request) ([]byte, error) {
	limit := 100
	if r.has("Limit") {
		limit = r.int("Limit")
	}
	from, label := "", ""
	if arn := r.str("ExclusiveStartStreamArn"); arn != "" {
		if !strings.HasPrefix(arn, "arn:") {
			return nil, badStreamArn(arn)
		}
		from, label, _ = strings.Cut(strings.TrimPrefix(arn, d.arn("")), "/stream/")
	}
	var all []string
	if from != "" {
		all = []string{from} // which may have later streams
	}
	if name := r.str("TableName"); name != "" {
		all = []string{name}
	} else if err := d.catalog.each(ctx, catTable, from, func(name string, _ []byte) (bool, error) {
		all = append(all, name)
		return true, nil
	}); err != nil {
		return nil, err
	}
	list := []streamEntry{}
	var o object
	for _, name := range all {
		t, err := d.use(ctx, name)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s := t.now.Load()
		d.release(t)
		for _, i := range s.streams() {
			if name != from || i.Label > label {
				list = append(list, streamEntry{d.streamArn(s.Name, i.Label), s.Name, i.Label})
			}
		}
		if len(list) > limit {
			list = list[:limit]
			o.str("LastEvaluatedStreamArn", list[limit-1].StreamArn)
			break
		}
	}
	err := o.any("Streams", list)
	return o.end(), err
}

type shardDescription struct {
	ShardId             string
	SequenceNumberRange struct {
		StartingSequenceNumber string
		EndingSequenceNumber   string `json:",omitempty"`
	}
}

func (d *Door) describeStream(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.streamOf(ctx, r.str("StreamArn"))
	if err != nil {
		return nil, err
	}
	defer d.release(t.table)
	writers, err := t.writers(ctx)
	if err != nil {
		return nil, err
	}
	shards := []shardDescription{}
	limit := 100
	if r.has("Limit") {
		limit = r.int("Limit")
	}
	if f := r.Get("ShardFilter"); f != nil {
		if f.Get("Type") == nil || f.Get("ShardId") == nil {
			return nil, invalid("ShardFilter.Type and ShardFilter.ShardId must both be provided")
		}
		writers = nil // shards are never split here: none has children
	}
	last := ""
	skip := r.str("ExclusiveStartShardId")
	for _, w := range writers {
		sh := shardDescription{ShardId: shardID(t.info, w)}
		if skip != "" {
			if sh.ShardId == skip {
				skip = ""
			}
			continue
		}
		if len(shards) == limit {
			last = shards[limit-1].ShardId
			break
		}
		first := uint64(0)
		if w == t.tree.Writer() {
			first = max(t.counts().first, t.info.First)
			switch {
			case t.until != 0:
				sh.SequenceNumberRange.EndingSequenceNumber = sequence(max(t.info.End, 1) - 1)
			case !t.info.On:
				sh.SequenceNumberRange.EndingSequenceNumber = sequence(max(t.counts().next, 1) - 1)
			}
		}
		sh.SequenceNumberRange.StartingSequenceNumber = sequence(first)
		shards = append(shards, sh)
	}
	status := "ENABLED"
	if !t.info.On {
		status = "DISABLED"
	}
	desc := struct {
		StreamArn, StreamLabel, StreamStatus, StreamViewType string
		CreationRequestDateTime                              json.Number
		TableName                                            string
		KeySchema                                            []keyElement
		Shards                                               []shardDescription
		LastEvaluatedShardId                                 string `json:",omitempty"`
	}{d.streamArn(t.s.Name, t.info.Label), t.info.Label, status, t.info.View, "", t.s.Name, keyElements(t.s.Keys), shards, last}
	desc.CreationRequestDateTime = seconds(t.info.made())
	var o object
	err = o.any("StreamDescription", desc)
	return o.end(), err
}

// An iterator is where a client is in a shard. Clients can't look into it, and may
// as well make one up.
type iterator struct {
	Arn    string
	Writer string
	Next   uint64
	Made   int64
}

// iteratorTime is how long an iterator may be used.
const iteratorTime = 15 * time.Minute

func (i iterator) String() string {
	b, err := json.Marshal(i)
	if err != nil {
		panic(err) // it has nothing that JSON can't say
	}
	return base64.StdEncoding.EncodeToString(b)
}

func (d *Door) getShardIterator(ctx context.Context, r *request) ([]byte, error) {
	t, err := d.streamOf(ctx, r.str("StreamArn"))
	if err != nil {
		return nil, err
	}
	defer d.release(t.table)
	w, ok := shardWriter(r.str("ShardId"))
	if !ok || shardID(t.info, w) != r.str("ShardId") {
		return nil, notFound("Requested resource not found: Shard does not exist")
	}
	next, oldest, err := t.ends(ctx, w)
	if err != nil {
		return nil, err
	}
	it := iterator{Arn: r.str("StreamArn"), Writer: hex.EncodeToString(w[:]), Made: millis(d.o.Clock.Now())}
	kind := r.str("ShardIteratorType")
	if (kind == "LATEST" || kind == "TRIM_HORIZON") && r.has("SequenceNumber") {
		return nil, invalid("Sequence number must not be provided for iterator type: " + kind)
	}
	switch kind {
	case "LATEST":
		it.Next = next
	case "TRIM_HORIZON":
		it.Next = oldest
	default:
		n, ok := parseSequence(r.str("SequenceNumber"))
		if !r.has("SequenceNumber") {
			return nil, invalid("Sequence number must be provided for iterator type: " + kind)
		}
		if !ok {
			return nil, invalid("Invalid SequenceNumber: " + r.str("SequenceNumber"))
		}
		if n+1 < oldest+1 {
			return nil, &Error{Type: "TrimmedDataAccessException", Message: "The operation attempted to read past the oldest stream record in a shard."}
		}
		if it.Next = n; kind == "AFTER_SEQUENCE_NUMBER" {
			it.Next = n + 1
		}
	}
	var o object
	o.str("ShardIterator", it.String())
	return o.end(), nil
}

// ends returns the number of the next record of a shard and of the oldest.
func (t *stream) ends(ctx context.Context, w [8]byte) (next, oldest uint64, err error) {
	if w == t.tree.Writer() {
		s := t.counts()
		if t.until != 0 {
			s.next = t.info.End
		}
		return s.next, max(s.first, t.info.First), nil
	}
	for _, reverse := range []bool{false, true} {
		o := hyperbee.RangeOptions{Gte: streamKey(w, 0), Lte: streamKey(w, 1<<64-1), Limit: 1, Reverse: reverse}
		for e, err := range t.tree.Range(ctx, o) {
			if err != nil {
				return 0, 0, err
			}
			if n := binary.BigEndian.Uint64(e.Key[9:]); reverse {
				next = n + 1
			} else {
				oldest = n
			}
		}
	}
	return next, oldest, nil
}

// maxRecords is the most records of an answer.
const maxRecords = 1000

func (d *Door) getRecords(ctx context.Context, r *request) ([]byte, error) {
	var it iterator
	text, err := base64.StdEncoding.DecodeString(r.str("ShardIterator"))
	if err != nil || json.Unmarshal(text, &it) != nil {
		return nil, invalid("Invalid ShardIterator")
	}
	if d.o.Clock.Now().Sub(time.UnixMilli(it.Made)) > iteratorTime {
		return nil, &Error{Type: "ExpiredIteratorException", Message: "Iterator expired: the iterator was created more than 15 minutes ago"}
	}
	w, err := hex.DecodeString(it.Writer)
	if err != nil || len(w) != 8 {
		return nil, invalid("Invalid ShardIterator")
	}
	t, err := d.streamOf(ctx, it.Arn)
	if err != nil {
		return nil, err
	}
	defer d.release(t.table)
	limit := maxRecords
	if r.has("Limit") {
		limit = r.int("Limit")
	}
	var list []byte
	begin, end := t.numbers([8]byte(w))
	from, to := streamKey([8]byte(w), max(it.Next, begin)), streamKey([8]byte(w), end)
	more := false
	for e, err := range t.tree.Range(ctx, hyperbee.RangeOptions{Gte: from, Lte: to, Limit: limit}) {
		if err != nil {
			return nil, err
		}
		seq := binary.BigEndian.Uint64(e.Key[9:])
		if len(list) > maxPage {
			break
		}
		var rec record
		if err := json.Unmarshal(e.Value, &rec); err != nil {
			return nil, fmt.Errorf("read record %d of stream of %s: %w", seq, t.s.Name, err)
		}
		it.Next, more = seq+1, true
		if !t.has([8]byte(w), &rec) {
			continue
		}
		if list != nil {
			list = append(list, ',')
		}
		list = d.appendRecord(list, [8]byte(w), seq, &rec)
	}
	var o object
	o.raw("Records", append(append([]byte{'['}, list...), ']'))
	if t.info.On || more {
		it.Made = millis(d.o.Clock.Now())
		o.str("NextShardIterator", it.String())
	}
	return o.end(), nil
}

// appendRecord appends a record as clients get it.
func (d *Door) appendRecord(b []byte, w [8]byte, seq uint64, r *record) []byte {
	var in, out object
	in.raw("ApproximateCreationDateTime", []byte(seconds(r.Time)))
	in.raw("Keys", r.Keys)
	if r.New != nil {
		in.raw("NewImage", r.New)
	}
	if r.Old != nil {
		in.raw("OldImage", r.Old)
	}
	in.str("SequenceNumber", sequence(seq))
	in.int("SizeBytes", r.Size)
	in.str("StreamViewType", r.View)
	out.str("eventID", fmt.Sprintf("%x%016x", w, seq))
	out.str("eventName", r.Event)
	out.str("eventVersion", "1.1")
	out.str("eventSource", "aws:dynamodb")
	out.str("awsRegion", d.o.Region)
	out.raw("dynamodb", in.end())
	if r.By != nil {
		out.raw("userIdentity", r.By)
	}
	return append(b, out.end()...)
}

var (
	listStreamsShape = []field{str("TableName"), {"Limit", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(100)}},
		str("ExclusiveStartStreamArn")}
	describeStreamShape = []field{must(str("StreamArn")), {"Limit", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(100)}},
		str("ExclusiveStartShardId"), fieldStruct("ShardFilter", "ShardFilter", enum("Type", "CHILD_SHARDS"), atMost(least(str("ShardId"), 28), 65))}
	shardIteratorShape = []field{must(str("StreamArn")), must(str("ShardId")), must(enum("ShardIteratorType",
		"TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")), str("SequenceNumber")}
	getRecordsShape = []field{must(str("ShardIterator")), {"Limit", shape{kind: kInteger, minValue: ptr(1), maxValue: ptr(1000)}}}
)
