package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

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
