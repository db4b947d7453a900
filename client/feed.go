package client

import (
	"encoding/json"
	"time"
)

// What a node is asked about changes of buckets and tables, and who gets them.
type (
	// Feed hands the changes of a bucket or a table on.
	Feed struct {
		Name      string     `json:"name"`
		App       string     `json:"app,omitempty"`
		Source    string     `json:"source" doc:"bucket:NAME, notices:NAME or table:NAME"`
		To        FeedTarget `json:"to"`
		Created   time.Time  `json:"created"`
		Paused    bool       `json:"paused,omitempty"`
		Stopped   bool       `json:"stopped,omitempty"` // it can't go on by itself
		Cursor    string     `json:"cursor,omitempty"`  // behind all that was taken
		Delivered uint64     `json:"delivered"`         // changes
		Last      time.Time  `json:"last,omitzero"`
		Failures  int        `json:"failures,omitempty"` // since then
		Error     string     `json:"error,omitempty"`    // of the last of them
		NextTry   time.Time  `json:"nextTry,omitzero"`
	}

	// FeedTarget is where changes go: one of the three.
	FeedTarget struct {
		URL     string   `json:"url,omitempty"`
		Program []string `json:"program,omitempty"`
		File    string   `json:"file,omitempty"`
		Secret  string   `json:"secret,omitempty"` // that signs what goes to a URL; only when it is made
	}

	// Feeds are those of a machine.
	Feeds struct {
		Feeds []Feed `json:"feeds"`
	}

	// AddFeed makes one.
	AddFeed struct {
		Name   string     `json:"name"`
		App    string     `json:"app,omitempty"`
		Source string     `json:"source"`
		To     FeedTarget `json:"to"`
		From   string     `json:"from,omitempty" doc:"a cursor, or now; all that ever happened when empty"`
	}

	// FeedName names one.
	FeedName struct {
		Name string `path:"feed" json:"-"`
	}

	// ChangeFeed changes one.
	ChangeFeed struct {
		Name   string `path:"feed" json:"-"`
		Paused bool   `json:"paused"`
	}

	// ReadChanges asks for changes.
	ReadChanges struct {
		App    string `query:"app" json:"-"`
		Source string `query:"source" json:"-" doc:"bucket:NAME, notices:NAME or table:NAME"`
		From   string `query:"from" json:"-" doc:"a cursor, or now; all that ever happened when empty"`
		Wait   int    `query:"wait" json:"-" doc:"how many seconds to wait for some, 0 to 60"`
	}

	// SourceChange is one thing that happened.
	SourceChange struct {
		Cursor string          `json:"cursor"` // goes on behind it
		Source string          `json:"source"`
		Change json.RawMessage `json:"change"`
	}

	// SourceChanges are some.
	SourceChanges struct {
		Changes []SourceChange `json:"changes"`
		Cursor  string         `json:"cursor"` // goes on behind them
	}
)
