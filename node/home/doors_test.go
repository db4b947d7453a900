package home

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/cloudbevy/bevy/client"
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
