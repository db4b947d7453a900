package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// ErrNotRunning: no node answers.
var ErrNotRunning = errors.New("bevy is not running")

// A Code says what kind of error it is. Each has an exit code.
type Code string

// The codes.
const (
	CodeFailed   Code = "failed"
	CodeUsage    Code = "usage"
	CodeNotFound Code = "not-found"
	CodeDenied   Code = "denied"
	CodeConflict Code = "conflict"
	CodeOffline  Code = "offline"
	CodeCorrupt  Code = "corrupt"
	CodeFull     Code = "full"
)

// Codes are all codes, the first of exit code 1.
var Codes = []Code{CodeFailed, CodeUsage, CodeNotFound, CodeDenied, CodeConflict, CodeOffline, CodeCorrupt, CodeFull}

// Exit is the exit code of a command that ends so: 1 to 8.
func (c Code) Exit() int {
	for i, code := range Codes {
		if c == code {
			return i + 1
		}
	}
	return 1
}

// An Error is what a node answers when it could not do what it was asked.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"` // what failed
	Cause   string `json:"cause"`   // why
	Try     string `json:"try"`     // what to do

	// Status is that of HTTP, if a node must answer with another one than the
	// code's own, or has.
	Status int `json:"-"`

	err error
}

func (e *Error) Error() string {
	if e.Cause == "" {
		return e.Message
	}
	return e.Message + ": " + e.Cause
}

func (e *Error) Unwrap() error { return e.err }

// Because returns the error with what it came from.
func (e *Error) Because(err error) *Error {
	e.err = err
	return e
}

// Failure is an error as it is sent.
type Failure struct {
	Error Error `json:"error"`
}

// readError reads the error of an answer.
func readError(answer *http.Response) error {
	var f Failure
	b, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil || f.Error.Message == "" {
		f.Error = Error{Code: CodeFailed, Message: "the node gave an answer that is not its own", Cause: fmt.Sprintf("HTTP %s", answer.Status), Try: "look at what listens at that address"}
	}
	f.Error.Status = answer.StatusCode
	return &f.Error
}
