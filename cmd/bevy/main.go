// Command bevy is Bevy on the command line.
//
//	bevy                      what there is, and what to do next
//	bevy hyper core create notes
//	bevy hyper core append notes list.txt --lines
//	bevy hyper serve --tcp :4233
//	bevy help
//
// It parses words and prints answers; what it does is in the packages below it.
// One file holds one verb. Each verb is a method of app, so that a test can run
// it in its own process. docs/cli.md has the fields that --json prints.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the process at once
	// Whoever reads our output may go. Then writing fails, and the store is closed
	// as usual.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
