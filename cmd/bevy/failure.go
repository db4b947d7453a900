package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cloudbevy/bevy/hyper/compact"
	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/dhtrpc"
	"github.com/cloudbevy/bevy/hyper/hyperbee"
	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/hyperdht"
	"github.com/cloudbevy/bevy/hyper/merkle"
	"github.com/cloudbevy/bevy/hyper/secretstream"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// A code is an exit code.
type code int

const (
	codeOK code = iota
	codeFailed
	codeUsage
	codeNotFound
	codeDenied
	codeConflict
	codeOffline
	codeCorrupt
	codeFull
)

// A failure is what a person is told when a command could not do its work.
type failure struct {
	code  code
	what  string // what failed
	cause string // why
	try   string // what to do
	err   error  // what it came from, if anything
}

func (f *failure) Error() string { return f.what + ": " + f.cause }
func (f *failure) Unwrap() error { return f.err }

// fail says what could not be done because of err, and finds the code and the
// advice that go with it. What failed with its own words already stays.
func fail(err error, format string, args ...any) error {
	var f *failure
	var copied *corestore.CopiedError
	if err == nil || errors.As(err, &f) || errors.Is(err, errGone) {
		return err
	}
	f = &failure{code: codeOf(err), what: fmt.Sprintf(format, args...), cause: causeOf(err), err: err}
	f.try = advice[f.code]
	switch {
	case errors.Is(err, context.Canceled):
		f.cause, f.try = "it was interrupted", "the same command again; what was done is kept"
	case errors.Is(err, storage.ErrLocked):
		f.cause = f.cause[strings.LastIndex(f.cause, ": ")+2:] // without the folder, which is in f.what
		f.try = `stop it; or, if it serves, read with --temp --peer tcp://<host>:<port>`
	case errors.As(err, &copied):
		f.cause = fmt.Sprintf("it is a copy of a store; if both are written to, %s can be lost", plural(uint64(len(copied.Writable)), "log"))
		f.try = "--adopt, if the original is gone for good; reading works without"
	case errors.Is(err, hypercore.ErrFrozen):
		f.try = "read it on; nobody can add to it any more"
	case errors.Is(err, hypercore.ErrNotWritable):
		f.try = "append where the log was created, or create one of your own"
	}
	return f
}

// wrong is a failure of use: the words are not those that a command takes.
func wrong(try, cause, format string, args ...any) error {
	return &failure{code: codeUsage, what: fmt.Sprintf(format, args...), cause: cause, try: try}
}

// errGone means that whoever read our output is gone, and with them the reason
// to go on.
var errGone = errors.New("nobody reads the output any more")

// written turns the error of a write to stdout into what it means. What failed
// with its own words already stays.
func written(err error) error {
	if errors.As(err, new(*failure)) {
		return err
	}
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, errGone) {
		return errGone
	}
	if err != nil {
		return &failure{code: codeOf(err), what: "cannot write the output", cause: causeOf(err), err: err,
			try: "look at where the output goes"}
	}
	return nil
}

// codeOf finds the exit code of an error.
func codeOf(err error) code {
	is := func(kinds ...error) bool {
		for _, k := range kinds {
			if errors.Is(err, k) {
				return true
			}
		}
		return false
	}
	var f *failure
	switch {
	case err == nil:
		return codeOK
	case errors.As(err, &f):
		return f.code
	case is(storage.ErrFull, syscall.ENOSPC):
		return codeFull
	case is(storage.ErrCorrupt, hyperbee.ErrInvalid, hypercore.ErrSignature, hypercore.ErrManifest, merkle.ErrProof):
		return codeCorrupt
	case is(hyperdht.ErrSeqReused, hyperdht.ErrSeqTooLow, hyperdht.ErrKeyInUse, storage.ErrLocked, hypercore.ErrConflict, hypercore.ErrFrozen, hypercore.ErrTruncated, fs.ErrExist, syscall.EADDRINUSE), errors.As(err, new(*corestore.CopiedError)):
		return codeConflict
	case is(storage.ErrReadOnly, hypercore.ErrNotWritable, fs.ErrPermission, secretstream.ErrRefused, hyperdht.ErrRefused):
		return codeDenied
	case is(syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, secretstream.ErrTimeout, hyperdht.ErrUnreachable, hyperdht.ErrAborted, hyperdht.ErrBothRandom, dhtrpc.ErrTimeout, dhtrpc.ErrTooFew):
		return codeOffline
	case is(storage.ErrNotFound, fs.ErrNotExist, hyperdht.ErrNotFound):
		return codeNotFound
	case is(hypercore.ErrLength, hypercore.ErrTooLarge, hypercore.ErrDecrypt, compact.ErrInvalid):
		return codeUsage
	}
	return codeFailed
}

// advice is what to do about a code, where nothing better is known.
var advice = map[code]string{
	codeFailed:   "bevy help exit-codes",
	codeUsage:    "the same command with --help",
	codeNotFound: "bevy hyper core ls",
	codeDenied:   "look at who owns the folder, and who may write to it",
	codeConflict: "look at what else works on the same, and do the command again",
	codeOffline:  "look at the address, and whether something listens there",
	codeCorrupt:  "restore the folder from a copy, or fetch the log from a peer anew",
	codeFull:     "make room on the disk, and do the command again",
}

// causeOf is an error as one line.
func causeOf(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// report tells of the error that ended the command, in three parts, and returns
// the exit code.
func (a *app) report(err error) code {
	if err == nil || errors.Is(err, errGone) {
		return codeOK
	}
	var f *failure
	if !errors.As(err, &f) {
		f = fail(err, "the command failed").(*failure)
	}
	if a.json {
		b := jsonLine(struct {
			Error string `json:"error"`
			Cause string `json:"cause"`
			Try   string `json:"try"`
			Code  code   `json:"code"`
		}{f.what, f.cause, f.try, f.code})
		fmt.Fprintf(a.stderr, "%s", b)
		return f.code
	}
	on, off := "", ""
	if a.color(a.stderr) {
		on, off = "\x1b[1;31m", "\x1b[0m"
	}
	a.say("%serror:%s %s", on, off, oneLine(f.what))
	if f.cause != "" {
		a.say("%s", folded(a.stderr, "cause: "+oneLine(f.cause)))
	}
	if f.try != "" {
		a.say("%s", folded(a.stderr, "try:   "+oneLine(f.try)))
	}
	return f.code
}
