package client

import "time"

// What a node with a cloud is asked.
type (
	// FolderRequest names a folder: by its name or id, or by where it is on the disk
	// of the node.
	FolderRequest struct {
		Folder string `path:"folder" json:"-" doc:"its name, its id, or where it is on the disk"`
	}

	// AddFolder has a folder on the disk kept safe.
	AddFolder struct {
		Path   string `json:"path" doc:"where it is on the node's disk, from the root on"`
		Name   string `json:"name,omitempty" doc:"what it is called in the cloud; the last part of the path when empty"`
		Sparse bool   `json:"sparse,omitempty" doc:"list everything, and bring contents only when they are asked for"`
	}

	// DropFolder ends keeping a folder.
	DropFolder struct {
		Folder     string `path:"folder" json:"-"`
		Everywhere bool   `query:"everywhere" doc:"remove it from the cloud, too"`
	}

	// Answer is what to do about a question that a folder has asked by a notice.
	Answer struct {
		Folder string `path:"folder" json:"-"`
		Answer string `path:"answer" json:"-" doc:"confirm, restore or here"`
	}

	// PathRequest names something in a folder.
	PathRequest struct {
		Folder string `path:"folder" json:"-"`
		Path   string `query:"path" doc:"in the folder, such as /a/b; the folder itself when empty"`
		At     string `query:"at" doc:"a moment: a time, a tag, or how long ago, such as 2h; now when empty"`
	}

	// ListRequest lists what is in a folder.
	ListRequest struct {
		Folder    string `path:"folder" json:"-"`
		Path      string `query:"path"`
		At        string `query:"at"`
		Recursive bool   `query:"recursive"`
		After     string `query:"after" doc:"go on behind this path"`
		Limit     int    `query:"limit" doc:"the most to return; 1000 when 0, and at most 10000"`
	}

	// Entry is a file, a folder or a link.
	Entry struct {
		Path    string    `json:"path"`
		Kind    string    `json:"kind"` // "file", "folder" or "link"
		Size    int64     `json:"size,omitempty"`
		Mode    string    `json:"mode,omitempty"` // such as "0644"
		ModTime time.Time `json:"modTime,omitzero"`
		Link    string    `json:"link,omitempty"`
		Hash    string    `json:"sha256,omitempty"`
		// Time is when it was written into the cloud, and Machine by which device.
		Time      time.Time `json:"time,omitzero"`
		Machine   string    `json:"machine,omitempty"`
		Deleted   bool      `json:"deleted,omitempty"`
		Conflicts int       `json:"conflicts,omitempty"` // how many others stand beside it
		Error     string    `json:"error,omitempty"`     // why it makes no sense
	}

	// Entries is a part of a list.
	Entries struct {
		Entries []Entry `json:"entries"`
		More    bool    `json:"more,omitempty"` // go on behind the last
	}

	// WriteRequest writes a file, whose content is the body.
	WriteRequest struct {
		Folder  string `path:"folder" json:"-"`
		Path    string `query:"path"`
		Mode    string `query:"mode" doc:"permissions, such as 0644"`
		ModTime string `query:"modTime" doc:"RFC 3339"`
	}

	// MoveRequest moves something in a folder.
	MoveRequest struct {
		Folder string `path:"folder" json:"-"`
		From   string `json:"from"`
		To     string `json:"to"`
	}

	// CopyRequest copies something in a folder, also from another moment.
	CopyRequest struct {
		Folder  string `path:"folder" json:"-"`
		From    string `json:"from"`
		At      string `json:"at,omitempty" doc:"a moment; now when empty"`
		To      string `json:"to" doc:"where nothing is yet"`
		Replace bool   `json:"replace,omitempty" doc:"a file may replace a file"`
	}

	// MkdirRequest makes a folder in a folder.
	MkdirRequest struct {
		Folder  string `path:"folder" json:"-"`
		Path    string `json:"path"`
		Mode    string `json:"mode,omitempty" doc:"permissions, such as 0755"`
		ModTime string `json:"modTime,omitempty" doc:"RFC 3339; now when empty"`
	}

	// LinkRequest makes a symbolic link in a folder.
	LinkRequest struct {
		Folder string `path:"folder" json:"-"`
		Path   string `json:"path"`
		Target string `json:"target" doc:"where it leads, which need not be there"`
	}

	// Stats say how much is at a path and in it.
	Stats struct {
		Files   int   `json:"files"`
		Folders int   `json:"folders"`
		Links   int   `json:"links"`
		Bytes   int64 `json:"bytes"`        // of files
		Missing int64 `json:"missingBytes"` // of these, not on this machine
	}

	// Moment is a moment of a folder that stays the same: a tag, or else a time.
	Moment struct {
		Tag  string    `json:"tag,omitempty"`
		Time time.Time `json:"time"` // when the tag was given, if it is one
	}

	// Freed says how much room there is again on the disk.
	Freed struct {
		Files int   `json:"files"`
		Bytes int64 `json:"bytes"`
		// Backup has it, if no other machine is known to.
		Backup string `json:"backup,omitempty"`
	}

	// RemoveRequest removes something in a folder.
	RemoveRequest struct {
		Folder    string `path:"folder" json:"-"`
		Path      string `query:"path"`
		Recursive bool   `query:"recursive" doc:"also what is in it"`
	}

	// HistoryRequest asks what was said of a path.
	HistoryRequest struct {
		Folder  string `path:"folder" json:"-"`
		Path    string `query:"path"`
		Since   string `query:"since" doc:"a time, or how long ago"`
		Until   string `query:"until" doc:"a time, or how long ago"`
		Limit   int    `query:"limit" doc:"the most to return; 100 when 0, and at most 10000"`
		Forward bool   `query:"forward" doc:"the oldest first"`
	}

	// DiffRequest compares two moments.
	DiffRequest struct {
		Folder string `path:"folder" json:"-"`
		Path   string `query:"path"`
		From   string `query:"from" doc:"a moment"`
		To     string `query:"to" doc:"a moment; now when empty"`
		After  string `query:"after" doc:"go on behind this path"`
		Limit  int    `query:"limit" doc:"the most to return; 1000 when 0, and at most 10000"`
	}

	// Change is a path that is not what it was.
	Change struct {
		Path string `json:"path"`
		What string `json:"what"` // "added", "changed" or "removed"
		Old  *Entry `json:"old,omitempty"`
		New  *Entry `json:"new,omitempty"`
	}

	// Changes is a part of a comparison.
	Changes struct {
		Changes []Change `json:"changes"`
		More    bool     `json:"more,omitempty"` // there are others
	}

	// RestoreRequest makes a path what it was.
	RestoreRequest struct {
		Folder string `path:"folder" json:"-"`
		Path   string `json:"path"`
		At     string `json:"at" doc:"a moment"`
		To     string `json:"to,omitempty" doc:"another path, where nothing is yet"`
	}

	// Restored says how many entries were changed.
	Restored struct {
		Changed int `json:"changed"`
	}

	// TagRequest names a moment.
	TagRequest struct {
		Folder string `path:"folder" json:"-"`
		Name   string `json:"name"`
		Note   string `json:"note,omitempty"`
		At     string `json:"at,omitempty" doc:"a moment; now when empty"`
	}

	// TagName names a tag.
	TagName struct {
		Folder string `path:"folder" json:"-"`
		Name   string `path:"name" json:"-"`
	}

	// Tag is a moment with a name.
	Tag struct {
		Name string    `json:"name"`
		Note string    `json:"note,omitempty"`
		Time time.Time `json:"time"`
	}

	// Tags are all of a folder.
	Tags struct {
		Tags []Tag `json:"tags"`
	}

	// Check is something that can be checked: it has logs.
	Check struct {
		Space string `json:"space"` // its id
		// Kind is "folder", "bucket" (of an app), "table", "tables" (the list of an app's
		// tables) or "cloud" (who is in it, and what there is).
		Kind    string `json:"kind"`
		Name    string `json:"name"` // app:name, of what is an app's
		App     string `json:"app,omitempty"`
		Removed bool   `json:"removed,omitempty"` // and still kept
		Bytes   uint64 `json:"bytes"`             // to read, about
	}

	// Checks is all that can be checked.
	Checks struct {
		Checks []Check `json:"checks"`
	}

	// CheckRequest checks what is here of one of them: Client.Check.
	CheckRequest struct {
		Space  string `path:"space" json:"-"`
		Repair bool   `query:"repair" doc:"bring what is damaged from other machines"`
	}

	// CheckLine is a line of the answer. The last one has what was found, or why that
	// can't be said.
	CheckLine struct {
		Bytes int64     `json:"bytes,omitempty"` // that were read
		Found *Scrubbed `json:"found,omitempty"`
		Error *Error    `json:"error,omitempty"`
	}

	// Scrubbed says what a check found.
	Scrubbed struct {
		Logs     int      `json:"logs"`
		Files    int      `json:"files"`           // of a folder or bucket
		Items    int      `json:"items,omitempty"` // of a table
		Missing  int64    `json:"missingBytes"`    // of files
		Problems int      `json:"problems"`
		Repaired int      `json:"repaired"`
		Details  []string `json:"details"` // the first problems
	}

	// Removed is something that was removed and can be brought back.
	Removed struct {
		ID   string    `json:"id"`
		Kind string    `json:"kind"`          // "folder", "bucket" (of an app), "table" or "app"
		Name string    `json:"name"`          // app:name, of what is an app's
		App  string    `json:"app,omitempty"` // whose it is
		Time time.Time `json:"time,omitzero"` // when it was removed; not of what was brought back
	}

	// RemovedThings is all of that, what was removed last first.
	RemovedThings struct {
		Removed []Removed `json:"removed"`
	}

	// BringBack brings one of them back.
	BringBack struct {
		ID string `path:"id" json:"-"`
		As string `json:"as,omitempty" doc:"another name; the one it had when empty"`
	}

	// ClearRequest frees contents that are past what is kept.
	ClearRequest struct {
		Folder string `path:"folder" json:"-"`
		All    string `json:"all,omitempty" doc:"how far back every version is kept, such as 720h; 30 days when empty"`
		Daily  string `json:"daily,omitempty" doc:"how far back the last of each day is kept; a year when empty"`
		Dry    bool   `json:"dry,omitempty" doc:"only say what would go"`
	}

	// Cleared says what was freed.
	Cleared struct {
		Blocks uint64 `json:"blocks"`
		Bytes  uint64 `json:"bytes"`
		DryRun bool   `json:"dryRun,omitempty"` // nothing was
	}

	// Folders are all of the cloud.
	Folders struct {
		Folders []Folder `json:"folders"`
	}

	// Machines are those of the cloud.
	Machines struct {
		Machines []Machine `json:"machines"`
	}

	// MachineRequest names a machine: by its name, or the beginning of its key.
	MachineRequest struct {
		Machine string `path:"machine" json:"-"`
	}

	// RemoveMachine takes a machine out by the owner's 24 words.
	RemoveMachine struct {
		Machine string `path:"machine" json:"-"`
		Words   string `json:"words"`
	}

	// Leave takes this machine out of its cloud.
	Leave struct {
		// Force leaves also if nobody else has all that is here.
		Force bool `json:"force,omitempty"`
	}

	// Left is what stays where this machine has left its cloud.
	Left struct {
		// Folders are the folders of the disk that are kept no longer.
		Folders []string `json:"folders"`
	}

	// Pong is how long a message to a machine and back took.
	Pong struct {
		Machine string  `json:"machine"`
		RTT     float64 `json:"rttMs"`
		Path    string  `json:"path"`
		Why     string  `json:"why,omitempty"`
	}

	// Invitation lets one machine in.
	Invitation struct {
		Words   string    `json:"words,omitempty"` // only when it is made
		QR      string    `json:"qr,omitempty"`    // of the words, for a terminal
		Expires time.Time `json:"expires"`
		State   string    `json:"state"`             // "open", "joined" or "over"
		Machine string    `json:"machine,omitempty"` // that has joined
		Why     string    `json:"why,omitempty"`     // it is over
	}

	// JoinRequest makes this machine one of another cloud.
	JoinRequest struct {
		Words string `json:"words"`
		Name  string `json:"name,omitempty" doc:"what this machine is to be called"`
		Wait  string `json:"wait,omitempty" doc:"how long to look for the other machine; 2m when empty"`
	}

	// Joined says which cloud this machine is in.
	Joined struct {
		Cloud string `json:"cloud"`
	}

	// SeedWords are the owner's words.
	SeedWords struct {
		Words string `json:"words"`
		Cloud string `json:"cloud"`
	}

	// Published is a drive that everyone may read.
	Published struct {
		Folder string `json:"folder"`
		Key    string `json:"key,omitempty"` // none: it is not published
		Link   string `json:"link,omitempty"`
		URL    string `json:"url,omitempty"` // at this node
	}
)
