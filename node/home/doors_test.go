package home

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// environment is what programs have to know to use a machine.
func (m *machine) environment(app string) (e client.Environment) {
	m.t.Helper()
	m.do("POST", "/environment", client.EnvironmentRequest{App: app}, &e)
	return e
}

// sdk is what the SDK of AWS is told.
func sdk(e client.Environment) aws.Config {
	return aws.Config{Region: e.Region, BaseEndpoint: &e.Endpoint, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: e.AccessKey, SecretAccessKey: e.Secret}, nil
		})}
}

// codeOfAWS is that of an error of the SDK, "" if there is none.
func codeOfAWS(err error) string {
	var e interface {
		error
		ErrorCode() string
	}
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func makeTable(t *testing.T, db *dynamodb.Client, name string) {
	t.Helper()
	if _, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: "HASH"}},
	}); err != nil {
		t.Fatal(err)
	}
}

func putID(t *testing.T, db *dynamodb.Client, table, id string) {
	t.Helper()
	if _, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &table, Item: map[string]types.AttributeValue{"id": &types.AttributeValueMemberS{Value: id}}}); err != nil {
		t.Fatal(err)
	}
}

// ids are those of the items of a table, -1 of none that there is.
func ids(t *testing.T, db *dynamodb.Client, table string) int {
	out, err := db.Scan(t.Context(), &dynamodb.ScanInput{TableName: &table})
	if err != nil {
		if code := codeOfAWS(err); code != "ResourceNotFoundException" {
			t.Fatalf("scan: %v", err)
		}
		return -1
	}
	return int(out.Count)
}

func TestTablesAreOnTwoMachines(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	db := dynamodb.NewFromConfig(sdk(a.environment("")))
	makeTable(t, db, "things")
	putID(t, db, "things", "one")
	a.pair(b)
	e := a.environment("")
	b.until("the key", func() bool { return b.environment("").AccessKey == e.AccessKey })
	there := dynamodb.NewFromConfig(sdk(b.environment("")))
	b.wait("the item", func() bool { return ids(t, there, "things") == 1 })
	putID(t, there, "things", "two")
	makeTable(t, there, "more")
	a.wait("the other's item", func() bool { return ids(t, db, "things") == 2 })
	a.wait("the other's table", func() bool { return ids(t, db, "more") == 0 })

	// After a restart it is all there, with the same key.
	b.down()
	b.up()
	there = dynamodb.NewFromConfig(sdk(b.environment("")))
	if n := ids(t, there, "things"); n != 2 || b.environment("").Secret != e.Secret {
		t.Errorf("%d items", n)
	}

	// A key that is taken back on one is over on the other.
	b.do("DELETE", "/access-keys/"+e.AccessKey, nil, nil)
	if _, err := there.ListTables(t.Context(), nil); codeOfAWS(err) != "UnrecognizedClientException" {
		t.Errorf("a key that was taken back: %v", err)
	}
	a.wait("that the key is over", func() bool {
		_, err := db.ListTables(t.Context(), nil)
		return codeOfAWS(err) == "UnrecognizedClientException"
	})
	if again := a.environment(""); again.AccessKey == e.AccessKey {
		t.Error("it is given out again")
	}
}

// buckets is a program for S3.
func buckets(e client.Environment) *s3.Client {
	return s3.NewFromConfig(sdk(e), func(o *s3.Options) { o.UsePathStyle = true })
}

func putObject(t *testing.T, c *s3.Client, bucket, key, text string) {
	t.Helper()
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
		t.Fatal(err)
	}
}

// object reads an object, "" if there is none.
func object(t *testing.T, c *s3.Client, bucket, key string) string {
	t.Helper()
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if code := codeOfAWS(err); code == "NoSuchKey" || code == "NoSuchBucket" {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(out.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBucketsAreFoldersOfTheCloud(t *testing.T) {
	net := network(t)
	a, b := newMachine(t, net, "laptop"), newMachine(t, net, "attic")
	here := buckets(a.environment(""))
	name := aws.String("docs")
	if _, err := here.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: name}); err != nil {
		t.Fatal(err)
	}
	putObject(t, here, "docs", "a/one.txt", "one")
	putObject(t, here, "docs", "no//path", "odd")
	a.pair(b)
	e := a.environment("")
	b.until("the key", func() bool { return b.environment("").AccessKey == e.AccessKey })
	there := buckets(b.environment(""))
	b.wait("the object", func() bool {
		return object(t, there, "docs", "a/one.txt") == "one" && object(t, there, "docs", "no//path") == "odd"
	})
	// It is on the disk of who keeps the folder, and what is saved there is an object.
	b.add("mine", "docs")
	b.until("the file", func() bool { return b.reads("mine/a/one.txt") == "one" })
	b.write("mine/two.txt", "two")
	a.wait("the other's file", func() bool { return object(t, here, "docs", "two.txt") == "two" })
	// So it is not for programs to remove.
	for _, key := range []string{"a/one.txt", "two.txt", "no//path"} {
		if _, err := here.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: name, Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := here.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: name}); codeOfAWS(err) != "BucketNotEmpty" || !strings.Contains(err.Error(), "bevy restore docs@10m") {
		t.Errorf("a bucket that is kept on a disk was removed: %v", err)
	}
	b.do("DELETE", "/folders/docs?everywhere=true", nil, nil)
	a.wait("the bucket is gone", func() bool {
		_, err := here.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: name})
		return codeOfAWS(err) == "NoSuchBucket"
	})
	// One of the same name is another, on both.
	if _, err := there.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: name}); err != nil {
		t.Fatal(err)
	}
	putObject(t, there, "docs", "new", "new")
	a.wait("the new bucket", func() bool { return object(t, here, "docs", "new") == "new" })
	if got := object(t, here, "docs", "a/one.txt"); got != "" {
		t.Errorf("it has %q of the old one", got)
	}
}

func TestATableIsExportedToABucket(t *testing.T) {
	m := newMachine(t, "", "solo")
	e := m.environment("")
	db, store := dynamodb.NewFromConfig(sdk(e)), buckets(e)
	makeTable(t, db, "things")
	putID(t, db, "things", "one")
	if _, err := db.UpdateContinuousBackups(t.Context(), &dynamodb.UpdateContinuousBackupsInput{TableName: aws.String("things"),
		PointInTimeRecoverySpecification: &types.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
	in := &dynamodb.ExportTableToPointInTimeInput{TableArn: aws.String("arn:aws:dynamodb:us-east-1:000000000000:table/things"), S3Bucket: aws.String("out"), S3Prefix: aws.String("all")}
	if _, err := store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: in.S3Bucket}); err != nil {
		t.Fatal(err)
	}
	made, err := db.ExportTableToPointInTime(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	m.wait("the export", func() bool {
		out, err := db.DescribeExport(t.Context(), &dynamodb.DescribeExportInput{ExportArn: made.ExportDescription.ExportArn})
		if err != nil || out.ExportDescription.ExportStatus == types.ExportStatusFailed {
			t.Fatal(err, aws.ToString(out.ExportDescription.FailureMessage))
		}
		return out.ExportDescription.ExportStatus == types.ExportStatusCompleted
	})
	list, err := store.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: in.S3Bucket, Prefix: aws.String("all/")})
	if err != nil || len(list.Contents) < 3 {
		t.Errorf("it has %d objects: %v", len(list.Contents), err)
	}
}

// DynamoDB's own call restores files, too: a bucket is named as what is restored.
func TestABucketIsRestoredAsTablesAre(t *testing.T) {
	clk := clock.NewFake(time.Now())
	m := &machine{t: t, name: "solo", dir: t.TempDir(), data: t.TempDir(), clock: clk}
	m.up()
	t.Cleanup(func() { m.down() })
	e := m.environment("")
	db, store := dynamodb.NewFromConfig(sdk(e)), buckets(e)
	for _, bucket := range []string{"files", "taken"} {
		if _, err := store.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(bucket)}); err != nil {
			t.Fatal(err)
		}
	}
	putObject(t, store, "files", "a/one.txt", "one")
	putObject(t, store, "files", "no//path", "odd")
	clk.Advance(time.Minute)
	at := clk.Now()
	clk.Advance(time.Minute)
	putObject(t, store, "files", "a/one.txt", "another")
	if _, err := store.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("files"), Key: aws.String("no//path")}); err != nil {
		t.Fatal(err)
	}
	restore := func(from, to string, at time.Time) error {
		_, err := db.RestoreTableToPointInTime(t.Context(), &dynamodb.RestoreTableToPointInTimeInput{SourceTableArn: aws.String("arn:aws:s3:::" + from), TargetTableName: &to, RestoreDateTime: &at})
		return err
	}
	if err := restore("files", "before", at); err != nil {
		t.Fatal(err)
	}
	if one, odd := object(t, store, "before", "a/one.txt"), object(t, store, "before", "no//path"); one != "one" || odd != "odd" {
		t.Errorf("before, there were %q and %q", one, odd)
	}
	if one := object(t, store, "files", "a/one.txt"); one != "another" {
		t.Errorf("now there is %q", one)
	}
	for _, c := range []struct {
		from, to string
		at       time.Time
		code     string
	}{
		{"files", "taken", at, "TableAlreadyExistsException"}, {"none", "new", at, "TableNotFoundException"},
		{"files", "early", at.Add(-time.Hour), "InvalidRestoreTimeException"}, {"files", "late", at.Add(time.Hour), "InvalidRestoreTimeException"},
	} {
		if err := restore(c.from, c.to, c.at); codeOfAWS(err) != c.code {
			t.Errorf("restore %s to %s: %v, want %s", c.from, c.to, err, c.code)
		}
	}
}

func TestPagesDoNotReachTables(t *testing.T) {
	m := newMachine(t, "", "solo")
	e := m.environment("")
	ask := func(method, path string, headers map[string]string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, e.Endpoint+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range headers {
			if name == "Host" {
				r.Host = value
			}
			r.Header.Set(name, value)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var body [1 << 10]byte
		n, _ := answer.Body.Read(body[:])
		return answer.StatusCode, string(body[:n])
	}
	target := map[string]string{"X-Amz-Target": "DynamoDB_20120810.ListTables"}
	if status, body := ask("POST", "/", target); status != 400 || !strings.Contains(body, "MissingAuthenticationTokenException") {
		t.Errorf("without a signature: %d %s", status, body)
	}
	if status, _ := ask("POST", "/", map[string]string{"X-Amz-Target": "DynamoDB_20120810.ListTables", "Host": "evil.example"}); status != http.StatusMisdirectedRequest {
		t.Errorf("by the name of a stranger: %d", status)
	}
	// A browser may ask whether it may: what it sends then has to be signed.
	if status, _ := ask("OPTIONS", "/", map[string]string{"Origin": "http://evil.example", "Access-Control-Request-Headers": "authorization,x-amz-target"}); status != 200 {
		t.Errorf("a browser that asks first: %d", status)
	}
	// The API is not reached by what looks like a signature, nor tables by a session.
	if status, body := ask("POST", client.Base+"/stop", map[string]string{"Authorization": "AWS4-HMAC-SHA256 Credential=x/y/z/dynamodb/aws4_request", "Content-Type": "application/json"}); status != 400 {
		t.Errorf("the API: %d %s", status, body)
	}
	if status, _ := ask("POST", client.Base+"/dynamodb/ListTables", map[string]string{"Content-Type": "application/json"}); status != 401 {
		t.Errorf("tables without a session: %d", status)
	}
	if status, _ := ask("POST", client.Base+"/environment", map[string]string{"Content-Type": "application/json"}); status != 401 {
		t.Errorf("secrets without a session: %d", status)
	}
	var out struct{ TableNames []string }
	if err := m.DynamoDB(t.Context(), "", "ListTables", struct{}{}, &out); err != nil {
		t.Error(err)
	}
	var told *client.Error
	if err := m.DynamoDB(t.Context(), "", "DescribeTable", map[string]string{"TableName": "none"}, nil); !errors.As(err, &told) || told.Code != client.CodeNotFound {
		t.Errorf("a table that there is not: %v", err)
	}
	if err := m.DynamoDB(t.Context(), "nix", "ListTables", struct{}{}, nil); !errors.As(err, &told) || told.Code != client.CodeNotFound {
		t.Errorf("an app that there is not: %v", err)
	}
}
