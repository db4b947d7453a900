package node

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"syscall"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// kinds are errors of others, by what they come to.
var kinds = []struct {
	code client.Code
	errs []error
}{
	{client.CodeFull, []error{storage.ErrFull, syscall.ENOSPC}},
	{client.CodeCorrupt, []error{storage.ErrCorrupt, hyperbee.ErrInvalid, hypercore.ErrSignature, hypercore.ErrManifest, merkle.ErrProof}},
	{client.CodeConflict, []error{storage.ErrLocked, hypercore.ErrConflict, hypercore.ErrFrozen, hypercore.ErrTruncated, fs.ErrExist, syscall.EADDRINUSE}},
	{client.CodeDenied, []error{storage.ErrReadOnly, hypercore.ErrNotWritable, fs.ErrPermission}},
	{client.CodeNotFound, []error{storage.ErrNotFound, fs.ErrNotExist}},
	{client.CodeOffline, []error{context.DeadlineExceeded, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH}},
	{client.CodeUsage, []error{hypercore.ErrLength, hypercore.ErrTooLarge, fs.ErrInvalid}},
}

// CodeOf finds what kind of error it is.
func CodeOf(err error) client.Code {
	var told *client.Error
	if errors.As(err, &told) {
		return told.Code
	}
	var running *RunningError
	var copied *corestore.CopiedError
	if errors.As(err, &running) || errors.As(err, &copied) {
		return client.CodeConflict
	}
	for _, k := range kinds {
		for _, e := range k.errs {
			if errors.Is(err, e) {
				return k.code
			}
		}
	}
	return client.CodeFailed
}

// advice is what to do about a code, where nothing better is known.
var advice = map[client.Code]string{
	client.CodeFailed:   "bevy notices, and the log: bevy.log in the folder for state",
	client.CodeUsage:    "look at the words",
	client.CodeNotFound: "look at the name",
	client.CodeDenied:   "look at who owns it, and who may write to it",
	client.CodeConflict: "look at what else works on the same, and do it again",
	client.CodeOffline:  "bevy hyper netcheck",
	client.CodeCorrupt:  "restore it from another machine, or as it was before",
	client.CodeFull:     "make room on the disk, and do it again",
}

// FailureOf is an error as it is told: a *client.Error as it is, and any other
// with the code that CodeOf finds.
func FailureOf(err error) *client.Error {
	var told *client.Error
	if errors.As(err, &told) {
		return told
	}
	what, cause, ok := strings.Cut(err.Error(), ": ")
	if !ok {
		what, cause = "it did not work", what
	}
	code := CodeOf(err)
	return (&client.Error{Code: code, Message: what, Cause: cause, Try: advice[code]}).Because(err)
}

// statuses are those of HTTP for the codes.
var statuses = map[client.Code]int{
	client.CodeFailed:   http.StatusInternalServerError,
	client.CodeUsage:    http.StatusBadRequest,
	client.CodeNotFound: http.StatusNotFound,
	client.CodeDenied:   http.StatusForbidden,
	client.CodeConflict: http.StatusConflict,
	client.CodeOffline:  http.StatusServiceUnavailable,
	client.CodeCorrupt:  http.StatusInternalServerError,
	client.CodeFull:     http.StatusInsufficientStorage,
}

// refuse sends an error.
func refuse(w http.ResponseWriter, err error) {
	e := FailureOf(err)
	status := e.Status
	if status == 0 {
		status = statuses[e.Code]
	}
	_ = answer(w, status, client.Failure{Error: *e}) // who asked may be gone
}
