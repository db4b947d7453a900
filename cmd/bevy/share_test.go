package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// readLink sets a variable to the link that a file has: link file variable.
func readLink(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: link file variable")
	}
	ts.Setenv(args[1], strings.TrimSpace(ts.ReadFile(args[0])))
}

// webMain is a small browser that scripts run, with a file that has a link:
//
//	web <method> <file> <path> [<body>]
func webMain() {
	if err := webRun(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func webRun(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: web method file path [body]")
	}
	link, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	at, body := strings.TrimSpace(string(link)), ""
	if args[2] != "" { // else the link as it is
		at = at[:strings.Index(at, "/s/")+3] + shareWord(at) + args[2]
	}
	if len(args) > 3 {
		body = args[3]
	}
	r, err := http.NewRequest(args[0], at, strings.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%d %s", answer.StatusCode, text)
	}
	fmt.Printf("%s\n", text)
	return nil
}
