package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestCommandsInTheDocsOfAWSAreThere: docs/aws.md calls no command that there is not.
func TestCommandsInTheDocsOfAWSAreThere(t *testing.T) {
	n := 0
	for _, m := range regexp.MustCompile("(?:`|\n|\\()(bevy [a-z][^`)\n]*)").FindAllStringSubmatch(readDoc(t, "docs/aws.md"), -1) {
		n++
		words := strings.Fields(m[1])[1:]
		root := newApp(nil, io.Discard, io.Discard, nil).rootCommand()
		found, rest, err := root.Find(words)
		if err == nil && !found.HasSubCommands() {
			err = found.ParseFlags(rest)
		}
		if err != nil || !found.HasParent() {
			t.Errorf("%q: %v", m[1], err)
		}
	}
	if n < 25 {
		t.Errorf("it has %d commands only", n)
	}
	services := strings.Count(readDoc(t, "docs/aws.md"), "\n| ")
	if services < 25 {
		t.Errorf("it maps %d services only", services)
	}
}

// signRequest signs a request with AWS Signature Version 4, as programs for AWS do.
func signRequest(r *http.Request, service, region, key, secret string, body []byte) {
	sum := func(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }
	at := time.Now().UTC().Format("20060102T150405Z")
	r.Header.Set("X-Amz-Date", at)
	r.Header.Set("X-Amz-Content-Sha256", sum(body))
	names := []string{"host"}
	for name := range r.Header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20") + "\n"
	for _, name := range names {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		canonical += name + ":" + value + "\n"
	}
	canonical += "\n" + strings.Join(names, ";") + "\n" + sum(body)
	scope := at[:8] + "/" + region + "/" + service + "/aws4_request"
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	signing := mac(mac(mac(mac([]byte("AWS4"+secret), at[:8]), region), service), "aws4_request")
	signature := mac(signing, "AWS4-HMAC-SHA256\n"+at+"\n"+scope+"\n"+sum([]byte(canonical)))
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+key+"/"+scope+",SignedHeaders="+strings.Join(names, ";")+",Signature="+hex.EncodeToString(signature))
}

// awsMain is a small program for AWS that scripts run, with the variables that
// "bevy env" prints:
//
//	aws dynamodb <operation> <json>
//	aws s3 <method> <path> [<body>]
func awsMain() {
	status, err := awsRun(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if status >= 300 {
		os.Exit(1)
	}
}

func awsRun(args []string) (status int, err error) {
	if len(args) < 3 {
		return 0, fmt.Errorf("usage: aws {dynamodb | s3} ...")
	}
	method, path, body := http.MethodPost, "/", ""
	if args[0] == "dynamodb" {
		body = args[2]
	} else {
		method, path = args[1], args[2]
		if len(args) > 3 {
			body = args[3]
		}
	}
	at, err := url.Parse(os.Getenv("AWS_ENDPOINT_URL") + path)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequest(method, at.String(), strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	if args[0] == "dynamodb" {
		space := "DynamoDB_20120810."
		if strings.Contains(args[1], "Stream") || strings.Contains(args[1], "Shard") || args[1] == "GetRecords" {
			space = "DynamoDBStreams_20120810."
		}
		r.Header.Set("X-Amz-Target", space+args[1])
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	}
	signRequest(r, args[0], os.Getenv("AWS_REGION"), os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), []byte(body))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	out := io.Writer(os.Stdout)
	if answer.StatusCode >= 300 {
		out = os.Stderr
		fmt.Fprintf(out, "%d ", answer.StatusCode)
	}
	_, err = io.Copy(out, answer.Body)
	fmt.Fprintln(out)
	return answer.StatusCode, err
}

// evalOutput sets the variables that the last command has printed, as a shell
// does: eval.
func evalOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: eval")
	}
	lines := regexp.MustCompile(`(?m)^export (\w+)=(\S+)$`).FindAllStringSubmatch(ts.ReadFile("stdout"), -1)
	if len(lines) == 0 {
		ts.Fatalf("it sets no variables")
	}
	for _, m := range lines {
		ts.Setenv(m[1], m[2])
	}
}
