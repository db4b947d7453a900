package client

import "time"

// GrantType is the media type of a link's grant, which who has the link gets from its
// address by asking for nothing else: in docs/formats/identity.md.
const GrantType = "application/x-bevy-grant"

// What a node is asked about links to parts of folders.
type (
	// Share is a part of a folder that whoever has its link may use.
	Share struct {
		ID      string    `json:"id"`
		Name    string    `json:"name,omitempty"`
		Folder  string    `json:"folder"` // its name
		Path    string    `json:"path"`   // in the folder; "/" is all of it
		Write   bool      `json:"write,omitempty"`
		HandOn  bool      `json:"handOn,omitempty"` // it may be handed on for less
		Until   time.Time `json:"until,omitzero"`   // zero is no end
		Over    bool      `json:"over,omitempty"`   // its time has passed
		Created time.Time `json:"created"`
		Machine string    `json:"machine"`           // that has made it
		Uses    uint64    `json:"uses"`              // of this machine
		Used    time.Time `json:"used,omitzero"`     // the last time
		URL     string    `json:"url,omitempty"`     // the link; only when it is made
		Private bool      `json:"private,omitempty"` // only programs of this machine reach that URL
	}

	// Shares are the shares of the cloud.
	Shares struct {
		Shares []Share `json:"shares"`
	}

	// AddShare shares a file or a folder in a folder.
	AddShare struct {
		Folder string    `path:"folder" json:"-" doc:"its name, its id, or where it is on the disk"`
		Path   string    `json:"path,omitempty" doc:"in the folder, such as /a/b; the folder itself when empty"`
		Write  bool      `json:"write,omitempty" doc:"let them put, change and remove files, too"`
		HandOn bool      `json:"handOn,omitempty" doc:"let them hand on less than that"`
		Until  time.Time `json:"until,omitzero" doc:"for ever when it is left out"`
		Name   string    `json:"name,omitempty" doc:"for people: who gets it"`
	}

	// ShareID names a share.
	ShareID struct {
		Share string `path:"share" json:"-" doc:"its id or the first letters of it, its name, or the token of its link"`
	}
)
