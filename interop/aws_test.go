package interop

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A session of a person with a node: the aws program finds its way by "bevy env"
// alone.
const awsSession = `
set -e
case $(command aws --version) in
aws-cli/2.?.*|aws-cli/2.1[012].*) aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; } ;; # it does not know the variable yet
esac
eval $(bevy env)
aws dynamodb create-table --table-name music --billing-mode PAY_PER_REQUEST \
  --attribute-definitions AttributeName=Artist,AttributeType=S AttributeName=Year,AttributeType=N \
  --key-schema AttributeName=Artist,KeyType=HASH AttributeName=Year,KeyType=RANGE > made.json
aws dynamodb put-item --table-name music --item '{"Artist":{"S":"Smetana"},"Year":{"N":"1874"},"Title":{"S":"Vltava"}}'
bevy table put music '{"Artist":"Smetana","Year":1866,"Title":"The Bartered Bride"}'
aws dynamodb query --table-name music --key-condition-expression 'Artist = :a' \
  --expression-attribute-values '{":a":{"S":"Smetana"}}' --query 'Items[].Title.S' --output text
if aws dynamodb put-item --table-name music --item '{"Artist":{"S":"Smetana"},"Year":{"N":"1874"}}' --condition-expression 'attribute_not_exists(Artist)' 2> err.txt; then exit 1; fi
grep -q ConditionalCheckFailedException err.txt
bevy table get music Smetana 1874

aws s3 mb s3://scores > made.txt
echo 'four notes' > vltava.txt
aws s3 cp --no-progress vltava.txt s3://scores/smetana/vltava.txt > copied.txt
bevy cat scores/smetana/vltava.txt
bevy s3 info | grep ^scores | awk '{print $2, $3, $4}'

bevy apps add shop
eval $(bevy env --app shop)
aws dynamodb list-tables --query TableNames --output text
bevy apps keys rm $AWS_ACCESS_KEY_ID --yes
if aws dynamodb list-tables 2> err.txt; then exit 1; fi
grep -q UnrecognizedClientException err.txt
`

const awsSays = `The Bartered Bride	Vltava
{"Artist":"Smetana","Year":1874,"Title":"Vltava"}
four notes
1 11 B
`

func TestAWSProgramUsesANodeByItsEnvironmentAlone(t *testing.T) {
	aws := "/usr/bin/aws" // the package of Debian, before what a person may have
	if _, err := os.Stat(aws); err != nil {
		if aws, err = exec.LookPath("aws"); err != nil || runtime.GOOS == "windows" {
			if os.Getenv("BEVY_INTEROP") == "1" {
				t.Fatal("BEVY_INTEROP=1, but aws is missing: install the package awscli")
			}
			t.Skip("aws is missing")
		}
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "bevy"), "github.com/cloudbevy/bevy/cmd/bevy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as for people
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	env := []string{"PATH=" + dir + ":" + filepath.Dir(aws) + ":" + os.Getenv("PATH"), "HOME=" + dir, "BEVY_HOME=" + filepath.Join(dir, "home"), "LC_ALL=C.UTF-8",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER="}
	up := exec.CommandContext(ctx, filepath.Join(dir, "bevy"), "up", "--offline", "--listen", "127.0.0.1:0")
	up.Env, up.Dir, up.Stderr = env, dir, os.Stderr
	up.Cancel = func() error { return up.Process.Signal(os.Interrupt) }
	out, err := up.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	for said.Scan() && !strings.HasPrefix(said.Text(), "ready in") {
	}
	defer func() {
		cancel()
		_ = up.Wait()
	}()
	session := exec.CommandContext(ctx, "sh", "-c", awsSession)
	session.Env, session.Dir = env, dir
	var stderr strings.Builder
	session.Stderr = &stderr
	got, err := session.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, got, stderr.String())
	}
	if strings.TrimSpace(string(got)) != strings.TrimSpace(awsSays) {
		t.Errorf("it says\n%s\nwant\n%s", got, awsSays)
	}
}

// operationWords are how docs/aws.md writes operations: Put/GetBucketAcl are two.
var operationWords = regexp.MustCompile(`\b((?:[A-Z][a-z]+/)*)([A-Z][a-z]+)([A-Z]\w+)\b`)

// What an SDK can ask for is in docs/aws.md, so that nobody has to try.
func TestTheDocsNameEveryOperation(t *testing.T) {
	text, err := os.ReadFile("../docs/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range operationWords.FindAllStringSubmatch(string(text), -1) {
		for verb := range strings.SplitSeq(m[1]+m[2], "/") {
			named[verb+m[3]] = true
		}
	}
	named["Query"], named["Scan"] = true, true // of one word
	n := 0
	for _, sdk := range []any{&s3.Client{}, &dynamodb.Client{}, &dynamodbstreams.Client{}} {
		kind := reflect.TypeOf(sdk)
		for i := range kind.NumMethod() {
			name := kind.Method(i).Name
			if n++; named[name] || named[strings.TrimSuffix(name, "s")] || name == "Options" {
				continue
			}
			t.Errorf("docs/aws.md does not say whether there is %s", name)
		}
	}
	if n < 150 {
		t.Errorf("the SDKs have %d operations", n)
	}
}
