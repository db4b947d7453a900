package disk

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A State is how a Keeper is, in two words.
type State string

// The states of a Keeper.
const (
	UpToDate State = "up to date"
	Syncing  State = "syncing"
	Paused   State = "paused"
)

// A Severity says how much a notice matters.
type Severity string

// The severities of notices.
const (
	Info    Severity = "info"    // nothing need be done
	Warning Severity = "warning" // some files are not kept the same
	Severe  Severity = "error"   // nothing is kept the same, or somebody must decide
)

// A Notice is something that the owner should know.
type Notice struct {
	Code     string // stable, for programs
	Severity Severity
	Text     string
	Fix      string   // a command that helps, or ""
	Count    int      // how many paths it is about, 0 if it is about all
	Paths    []string // the first of them
	Cause    string   // what went wrong with one of them, where the code does not say it
}

// Codes of notices.
const (
	CodeRootGone   = "folder-gone"
	CodeRootOther  = "folder-replaced"
	CodeMassDelete = "mass-delete"
	CodeDiskFull   = "disk-full"
	CodeSync       = "sync-failed"
	CodeBehind     = "behind"
	CodeReadOnly   = "read-only-here"
	CodeUnreadable = "unreadable"
	CodeSpecial    = "special-file"
	CodeUnstable   = "file-changing"
	CodeName       = "illegal-name"
	CodeNameHere   = "unkept-name"
	CodeClash      = "name-clash"
	CodeInTheWay   = "in-the-way"
	CodeDenied     = "cannot-write"
	CodeMissing    = "content-elsewhere"
	CodeCorrupt    = "content-damaged"
	CodeFailed     = "failed"
	CodeWatch      = "watches-ran-out"
	CodeBack       = "written-again"
	CodeTorn       = "kept-both"
)

// words are the severity, text and fix of each code. %s is the place of the
// folder.
var words = map[string]struct {
	severity  Severity
	text, fix string
}{
	CodeRootGone:   {Severe, "the folder %s is not there: nothing is removed on account of that", "put the folder back, or: bevy folder here %s"},
	CodeRootOther:  {Severe, "at %s there is another folder than the one that was kept: nothing is removed on account of that", "bevy folder here %s"},
	CodeMassDelete: {Severe, "most files of %s are gone from this disk: they stay in the cloud until you say that this was meant", "bevy folder confirm %s, or: bevy folder restore %s"},
	CodeDiskFull:   {Severe, "the disk is full: %s waits for space", ""},
	CodeSync:       {Severe, "%s can't be kept now, and is tried again", "bevy doctor"},
	CodeBehind:     {Info, "what this machine had heard from others was lost, as by a power cut: %s waits until it comes again", "bevy status"},
	CodeReadOnly:   {Warning, "these were changed here, where the folder may only be read: the changes stay on this disk", ""},
	CodeUnreadable: {Warning, "these can't be read, and are not kept", ""},
	CodeSpecial:    {Info, "these are no files, folders or links, and are not kept", ""},
	CodeUnstable:   {Info, "these change all the time, and are kept once they rest", ""},
	CodeName:       {Warning, "these are kept in the cloud only: this system can't have their names", ""},
	CodeNameHere:   {Warning, "these are not kept: their names, or what they lead to, are no text in UTF-8, or their paths are too long", ""},
	CodeClash:      {Warning, "these are kept in the cloud only: this disk takes their names for those of others", ""},
	CodeInTheWay:   {Warning, "these are kept in the cloud only: a file is where their folder should be, or the other way round", ""},
	CodeDenied:     {Warning, "these can't be written: permission denied", ""},
	CodeMissing:    {Info, "the contents of these are on other devices only, and come when one can be reached", ""},
	CodeCorrupt:    {Severe, "the contents of these are damaged and were not written", "bevy scrub"},
	CodeFailed:     {Warning, "these could not be written, and are tried again", ""},
	CodeBack:       {Info, "this disk had lost these, or had older ones, after a power cut, and they were written again: remove those that you had removed", ""},
	CodeTorn:       {Warning, "after a power cut these were neither what was kept of them nor older: both stay, one beside the other", ""},
	CodeWatch:      {Info, "the system can watch no more folders: %s is looked through from time to time instead", "sysctl fs.inotify.max_user_watches=1048576"},
}

// maxNoticePaths bounds how many paths a notice names.
const maxNoticePaths = 10

// notices collects them by code.
type notices map[string]*Notice

func (n notices) add(code, path string) {
	note := n[code]
	if note == nil {
		note = &Notice{Code: code}
		n[code] = note
	}
	if path == "" {
		return
	}
	if note.Count++; len(note.Paths) < maxNoticePaths {
		note.Paths = append(note.Paths, path)
	}
}

// because notes what went wrong, the first time.
func (n notices) because(code, cause string) {
	if note := n[code]; note.Cause == "" {
		note.Cause = cause
	}
}

// namedPaths is how many paths the text of a notice has.
const namedPaths = 3

// text is that of the code, and what it is about.
func (n *Notice) text(words string) string {
	if len(n.Paths) > 0 {
		words += ": " + strings.Join(n.Paths[:min(len(n.Paths), namedPaths)], ", ")
		if more := n.Count - namedPaths; more > 0 {
			words += fmt.Sprintf(" and %d more", more)
		}
	}
	if n.Cause != "" {
		words += " (" + n.Cause + ")"
	}
	return words
}

// list returns them with their words, in the order of their codes.
func (n notices) list(dir string) []Notice {
	var out []Notice
	for _, code := range slices.Sorted(maps.Keys(n)) {
		note := *n[code]
		w := words[code]
		note.Severity = w.severity
		note.Text = note.text(strings.ReplaceAll(w.text, "%s", dir))
		note.Fix = strings.ReplaceAll(w.fix, "%s", dir)
		note.Paths = slices.Clone(note.Paths)
		out = append(out, note)
	}
	return out
}

// Status is how things are.
type Status struct {
	State State
	// Why is the reason of a pause, in words, or "".
	Why string
	// Files and Bytes are what is the same on the disk and in the cloud.
	Files, Bytes int64
	// Waiting is how many paths are to be written to the disk later.
	Waiting int64
	// Gone is how many files are gone from the disk, while Confirm or Restore is
	// waited for.
	Gone int64
	// Progress is that of the present round, or of the last one.
	Progress Progress
	Notices  []Notice
}

// Progress is what a round has done.
type Progress struct {
	Looked                int64 // paths on the disk that were looked at
	Sent, Removed         int64 // paths that were changed in the cloud
	Written, Erased       int64 // paths that were changed on the disk
	SentBytes, WroteBytes int64
	Conflicts, Errors     int64
	Path                  string // what is being worked on
	FilesToGo, BytesToGo  int64  // of what Measure has counted, if it was called
}

// String returns it as a line of text.
func (p Progress) String() string {
	return fmt.Sprintf("looked at %d, sent %d (%d bytes), removed %d, written %d (%d bytes), erased %d, conflicts %d, errors %d",
		p.Looked, p.Sent, p.SentBytes, p.Removed, p.Written, p.WroteBytes, p.Erased, p.Conflicts, p.Errors)
}
