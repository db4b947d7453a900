package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"
)

// maxLine bounds a line of a stream of events.
const maxLine = 4 << 20

// Events yields what happens from now on, or after the event of an id. When the
// connection ends it yields the error and, if the caller goes on, connects
// anew, with pauses of up to 10 seconds: nothing is lost or told twice, unless
// there was too much of it; then an event of the kind Reset comes in its place.
// It ends with the context, or when the node refuses.
func (c *Client) Events(ctx context.Context, after string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		pause := firstPause
		for {
			err := c.events(ctx, &after, func(e Event) bool {
				pause = firstPause
				return yield(e, nil)
			})
			if errors.Is(err, errEnough) || ctx.Err() != nil {
				return
			}
			if !yield(Event{}, err) {
				return
			}
			var refused *Error
			if errors.As(err, &refused) && refused.Status >= 400 && refused.Status < 500 && refused.Status != http.StatusTooManyRequests {
				return
			}
			if !c.wait(ctx, pause) {
				return
			}
			pause = min(2*pause, lastPause)
		}
	}
}

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// errEnough: the caller wants no more.
var errEnough = errors.New("enough")

// events yields what comes over one connection.
func (c *Client) events(ctx context.Context, after *string, yield func(Event) bool) error {
	header := http.Header{"Accept": {"text/event-stream"}}
	if *after != "" {
		header.Set(LastEvent, *after)
	}
	answer, err := c.Stream(ctx, http.MethodGet, "/events", nil, header)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return readEvents(answer.Body, func(e Event) bool {
		*after = e.ID
		return yield(e)
	})
}

// readEvents reads a stream of events, as HTML Living Standard §9.2.6 has it. Of
// its fields only the data counts: it has all that the others say.
func readEvents(r io.Reader, yield func(Event) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var data []byte
	for lines.Scan() {
		line := lines.Bytes()
		if value, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if len(data)+len(value) > maxLine {
				return fmt.Errorf("read events: %w", bufio.ErrTooLong)
			}
			data = append(append(data, bytes.TrimPrefix(value, []byte(" "))...), '\n')
		}
		if len(line) > 0 || len(data) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		data = nil
		if !yield(e) {
			return errEnough
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return fmt.Errorf("read events: %w", io.ErrUnexpectedEOF) // a stream has no end of its own
}

// wait waits, and reports whether the context goes on.
func (c *Client) wait(ctx context.Context, d time.Duration) bool {
	over := make(chan struct{})
	t := c.Clock.AfterFunc(d, func() { close(over) })
	defer t.Stop()
	select {
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}
