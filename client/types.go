package client

import (
	"encoding/json"
	"time"
)

// Hello tells which node answers.
type Hello struct {
	API     int       `json:"api"` // 1
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Address string    `json:"address"` // of the page, such as http://127.0.0.1:7070
}

// Status is how a node is.
type Status struct {
	Node     Hello     `json:"node"`
	Paths    Paths     `json:"paths"`
	Busy     []Busy    `json:"busy"`                // why the node is not idle
	IdleExit string    `json:"idleExit,omitempty"`  // after how long without any it ends; "" is never
	IdleAt   time.Time `json:"idleAt,omitzero"`     // when it will end, if nothing comes
	Process  Usage     `json:"process"`             // what the whole process uses
	Services []Service `json:"services"`            // its parts
	Notices  []Notice  `json:"notices"`             // what the owner should know
	Recent   []Event   `json:"recent"`              // the last things that happened, newest first
	Cloud    *Cloud    `json:"cloud,omitempty"`     // none: it has not been made yet
	Machines []Machine `json:"machines"`            // of the cloud, this one first
	Folders  []Folder  `json:"folders"`             // that are kept safe
	LastEnd  string    `json:"lastEnd,omitempty"`   // how the process before ended: "stopped", "idle", "killed" or "crashed"
	Crash    string    `json:"lastCrash,omitempty"` // the file that tells of the last crash
}

// Paths are the folders of a node.
type Paths struct {
	Data   string `json:"data"`
	State  string `json:"state"`
	Config string `json:"config"`
	Cache  string `json:"cache"`
	Socket string `json:"socket"`
}

// Busy is a reason why a node does not end by itself.
type Busy struct {
	Why   string `json:"why"`
	Count int    `json:"count"`
}

// Usage is what something uses. What is not known is left out.
type Usage struct {
	Goroutines int     `json:"goroutines"`
	Memory     uint64  `json:"memory,omitempty"`     // bytes; of the process: resident
	Heap       uint64  `json:"heap,omitempty"`       // bytes of Go's heap that are in use
	CPU        float64 `json:"cpuSeconds,omitempty"` // since the start
	CPUShare   float64 `json:"cpuShare,omitempty"`   // of one processor, as it was asked to be measured
	Requests   uint64  `json:"requests,omitempty"`
	In         uint64  `json:"bytesIn,omitempty"`
	Out        uint64  `json:"bytesOut,omitempty"`
	Files      int     `json:"files,omitempty"` // open ones
}

// Service is a part of a node.
type Service struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // "running", "waiting" to be started again, or "ended"
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Usage    Usage     `json:"usage"`
	Crash    *Crash    `json:"crash,omitempty"` // the last one
}

// Services are the parts of a node.
type Services struct {
	Process  Usage     `json:"process"`
	Services []Service `json:"services"`
}

// ServicesRequest asks for Services.
type ServicesRequest struct {
	Measure string `query:"measure" doc:"watch the processor for this long first, such as 1s; at most 10s"`
}

// Crash tells why a service ended.
type Crash struct {
	Time  time.Time `json:"time"`
	Error string    `json:"error"`
	Stack string    `json:"stack,omitempty"` // of a panic
}

// Severity says how much a notice matters.
type Severity string

// The severities.
const (
	Info    Severity = "info"    // good to know
	Warning Severity = "warning" // works, but not as well as it should
	Problem Severity = "problem" // does not work, or data is in danger
)

// Severities are all severities.
var Severities = []Severity{Info, Warning, Problem}

// A Notice is something that the owner should know, as long as it is so.
type Notice struct {
	Code     string    `json:"code"`              // such as "service-crashes"
	Subject  string    `json:"subject,omitempty"` // what it is about, such as a folder
	Severity Severity  `json:"severity"`
	Text     string    `json:"text"`
	Fix      string    `json:"fix,omitempty"` // the command that helps
	Since    time.Time `json:"since"`
}

// Notices is a list of them, the worst first.
type Notices struct {
	Notices []Notice `json:"notices"`
}

// Event is something that happened.
type Event struct {
	ID   string          `json:"id"`   // where a stream goes on
	Kind string          `json:"kind"` // such as "notice"; see Reset
	Time time.Time       `json:"time"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Kinds of events that a stream has of its own.
const (
	// Reset: events before this one are not known any more. Read what you need
	// anew.
	Reset = "reset"
	// Changed: the status is another one. Data is absent, or names what.
	Changed = "changed"
	// Noticed: a notice was raised (data: Notice) or cleared (data: Notice without
	// text).
	Noticed = "notice"
	// Serviced: a service began or ended. Data is a Service.
	Serviced = "service"
	// Said: something for people. Data is Words.
	Said = "said"
)

// Words are what Said events tell.
type Words struct {
	Text string `json:"text"`
}

// EventsRequest asks for events.
type EventsRequest struct {
	After string `query:"after" doc:"the id of the last event that is known; the header Last-Event-ID says the same"`
}

// Link signs in once.
type Link struct {
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

// SignInRequest makes a session.
type SignInRequest struct {
	Token string `json:"token"` // of a link
	Name  string `json:"name,omitempty"`
}

// SignedIn is a session that was made. The other half of it is a cookie.
type SignedIn struct {
	ID  string `json:"id"`
	Key string `json:"key"` // to be sent as the header KeyHeader with each request
}

// Session is someone who is signed in.
type Session struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // what they say they are
	From    string    `json:"from"` // the address they signed in from
	Made    time.Time `json:"made"`
	Used    time.Time `json:"used"`
	Current bool      `json:"current"` // the one that asks
}

// Sessions are all of them.
type Sessions struct {
	Sessions []Session `json:"sessions"`
}

// SessionID names a session.
type SessionID struct {
	ID string `path:"id" doc:"of the session; \"current\" is the one that asks"`
}

// Cloud is the cloud that a node is part of.
type Cloud struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Copies int       `json:"copies"` // machines that have all of it
	Want   int       `json:"want"`   // how many should
	Newest time.Time `json:"newest,omitzero"`
}

// Machine is a device of the cloud.
type Machine struct {
	ID    string    `json:"id"`
	Name  string    `json:"name"`
	This  bool      `json:"this,omitempty"`
	State string    `json:"state"`          // "this", "active", "idle", "away" or "revoked"
	Path  string    `json:"path,omitempty"` // such as "direct lan" or "relay via attic"
	Why   string    `json:"why,omitempty"`  // the path is no better
	RTT   float64   `json:"rttMs,omitempty"`
	Up    float64   `json:"upBytesPerSecond,omitempty"`
	Down  float64   `json:"downBytesPerSecond,omitempty"`
	Sent  uint64    `json:"sentBytes,omitempty"` // over the connection there is, with its encryption
	Got   uint64    `json:"receivedBytes,omitempty"`
	Holds uint64    `json:"holdsBytes,omitempty"`
	Seen  time.Time `json:"seen,omitzero"`
}

// Folder is a folder that is kept safe.
type Folder struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`           // app:name, of a bucket of an app
	App     string    `json:"app,omitempty"`  // whose bucket it is
	Path    string    `json:"path,omitempty"` // on this machine; "" if it is not kept here
	Sparse  bool      `json:"sparse,omitempty"`
	Files   uint64    `json:"files"`
	Bytes   uint64    `json:"bytes"`
	Missing uint64    `json:"missingBytes,omitempty"` // of these, not on this machine
	State   string    `json:"state"`                  // "safe", "syncing" or "paused"
	Why     string    `json:"why,omitempty"`          // it is paused
	Copies  int       `json:"copies"`                 // machines that have all of it
	Changed time.Time `json:"changed,omitzero"`
	// Progress is how much of it is where it is to be, 0 to 1, while State is
	// "syncing".
	Progress float64   `json:"progress,omitempty"`
	Now      *Progress `json:"now,omitempty"` // if it is kept here
}

// Progress is what is being done with a folder, or was last.
type Progress struct {
	Looked       int64  `json:"looked"` // paths on the disk
	Sent         int64  `json:"sent"`   // paths put into the cloud
	SentBytes    int64  `json:"sentBytes"`
	Written      int64  `json:"written"` // paths put on the disk
	WrittenBytes int64  `json:"writtenBytes"`
	Errors       int64  `json:"errors"`
	Path         string `json:"path,omitempty"` // that is being worked on
	FilesToGo    int64  `json:"filesToGo,omitempty"`
	BytesToGo    int64  `json:"bytesToGo,omitempty"`
}
