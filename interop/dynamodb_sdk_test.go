package interop

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams"
	streams "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/cloudbevy/bevy/hyper/clock"
	door "github.com/cloudbevy/bevy/services/dynamodb"
)

// signedDynamoDoor returns the address of a door that looks at signatures, of the
// key AK with the secret "secret".
func signedDynamoDoor(t testing.TB) string {
	t.Helper()
	trees, err := door.NewMemory(clock.System)
	if err != nil {
		t.Fatal(err)
	}
	d, err := door.New(t.Context(), door.Options{Trees: trees, Authorize: door.Authorize(&door.Verifier{Service: "dynamodb",
		Keys: func(_ context.Context, key string) (door.Key, error) {
			if key != "AK" {
				return door.Key{}, door.ErrUnknownKey
			}
			return door.Key{Secret: "secret", Principal: "somebody"}, nil
		}})})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d)
	t.Cleanup(func() {
		server.Close()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		trees.Close()
	})
	return server.URL
}

func awsConfig(url, secret string) aws.Config {
	return aws.Config{Region: "us-east-1", BaseEndpoint: &url, RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AK", SecretAccessKey: secret}, nil
		})}
}

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
func num(n int) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

type attrs = map[string]types.AttributeValue

func TestSDKForGoUsesTheDynamoDoor(t *testing.T) {
	ctx := t.Context()
	url := signedDynamoDoor(t)
	db := dynamodb.NewFromConfig(awsConfig(url, "secret"))
	feed := dynamodbstreams.NewFromConfig(awsConfig(url, "secret"))
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dynamodb.NewFromConfig(awsConfig(url, "wrong")).ListTables(ctx, nil); err == nil {
		t.Fatal("a wrong secret was let in")
	}
	name := aws.String("orders")
	made, err := db.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("who"), AttributeType: "S"}, {AttributeName: aws.String("n"), AttributeType: "N"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("who"), KeyType: "HASH"}, {AttributeName: aws.String("n"), KeyType: "RANGE"}},
		StreamSpecification:  &types.StreamSpecification{StreamEnabled: aws.Bool(true), StreamViewType: "NEW_AND_OLD_IMAGES"}})
	ok(err)
	if made.TableDescription.LatestStreamArn == nil {
		t.Fatal("the table has no stream")
	}
	ok(dynamodb.NewTableExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: name}, time.Minute))
	for i := range 30 {
		_, err := db.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: attrs{"who": str("ann"), "n": num(i), "color": str([]string{"red", "blue"}[i%2])}})
		ok(err)
	}
	got, err := db.GetItem(ctx, &dynamodb.GetItemInput{TableName: name, Key: attrs{"who": str("ann"), "n": num(7)}})
	ok(err)
	if got.Item["color"].(*types.AttributeValueMemberS).Value != "blue" {
		t.Errorf("got %v", got.Item)
	}
	pages := dynamodb.NewQueryPaginator(db, &dynamodb.QueryInput{TableName: name, Limit: aws.Int32(7), KeyConditionExpression: aws.String("who = :w and n >= :n"),
		ExpressionAttributeValues: attrs{":w": str("ann"), ":n": num(10)}})
	n := 0
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		ok(err)
		n += len(page.Items)
	}
	if n != 20 {
		t.Errorf("a query found %d items, want 20", n)
	}
	_, err = db.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: name, Key: attrs{"who": str("ann"), "n": num(1)}, UpdateExpression: aws.String("set color = :c"),
		ConditionExpression: aws.String("color = :x"), ExpressionAttributeValues: attrs{":c": str("green"), ":x": str("red")}})
	failed := new(types.ConditionalCheckFailedException)
	if !errors.As(err, &failed) {
		t.Errorf("an update whose condition is not met: %v", err)
	}
	_, err = db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
		{Put: &types.Put{TableName: name, Item: attrs{"who": str("bob"), "n": num(1)}}},
		{ConditionCheck: &types.ConditionCheck{TableName: name, Key: attrs{"who": str("ann"), "n": num(99)}, ConditionExpression: aws.String("attribute_exists(who)")}}}})
	cancelled := new(types.TransactionCanceledException)
	if !errors.As(err, &cancelled) || len(cancelled.CancellationReasons) != 2 || *cancelled.CancellationReasons[1].Code != "ConditionalCheckFailed" {
		t.Errorf("a transaction whose condition is not met: %v", err)
	}
	_, err = db.UpdateTable(ctx, &dynamodb.UpdateTableInput{TableName: name, AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("color"), AttributeType: "S"}},
		GlobalSecondaryIndexUpdates: []types.GlobalSecondaryIndexUpdate{{Create: &types.CreateGlobalSecondaryIndexAction{IndexName: aws.String("byColor"),
			KeySchema: []types.KeySchemaElement{{AttributeName: aws.String("color"), KeyType: "HASH"}}, Projection: &types.Projection{ProjectionType: "ALL"}}}}})
	ok(err)
	for {
		d, err := db.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
		ok(err)
		if d.Table.GlobalSecondaryIndexes[0].IndexStatus == "ACTIVE" {
			if *d.Table.ItemCount != 30 {
				t.Errorf("the table has %d items, want 30", *d.Table.ItemCount)
			}
			break
		}
	}
	red, err := db.Query(ctx, &dynamodb.QueryInput{TableName: name, IndexName: aws.String("byColor"), KeyConditionExpression: aws.String("color = :c"), ExpressionAttributeValues: attrs{":c": str("red")}})
	ok(err)
	if red.Count != 15 {
		t.Errorf("the new index has %d red items, want 15", red.Count)
	}
	stream, err := feed.DescribeStream(ctx, &dynamodbstreams.DescribeStreamInput{StreamArn: made.TableDescription.LatestStreamArn})
	ok(err)
	it, err := feed.GetShardIterator(ctx, &dynamodbstreams.GetShardIteratorInput{StreamArn: made.TableDescription.LatestStreamArn,
		ShardId: stream.StreamDescription.Shards[0].ShardId, ShardIteratorType: "TRIM_HORIZON"})
	ok(err)
	records, err := feed.GetRecords(ctx, &dynamodbstreams.GetRecordsInput{ShardIterator: it.ShardIterator})
	ok(err)
	if len(records.Records) != 30 || records.Records[3].EventName != streams.OperationTypeInsert || records.Records[3].Dynamodb.NewImage["n"].(*streams.AttributeValueMemberN).Value != "3" {
		t.Errorf("the stream has %d records", len(records.Records))
	}
	_, err = db.DeleteTable(ctx, &dynamodb.DeleteTableInput{TableName: name})
	ok(err)
	ok(dynamodb.NewTableNotExistsWaiter(db).Wait(ctx, &dynamodb.DescribeTableInput{TableName: name}, time.Minute))
}

func TestSDKForGoWritesFromManyClients(t *testing.T) {
	ctx := t.Context()
	db := dynamodb.NewFromConfig(awsConfig(signedDynamoDoor(t), "secret"))
	name := aws.String("counters")
	if _, err := db.CreateTable(ctx, &dynamodb.CreateTableInput{TableName: name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("id"), AttributeType: "S"}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("id"), KeyType: "HASH"}}}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 25 {
				if _, err := db.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: name, Key: attrs{"id": str("x")}, UpdateExpression: aws.String("add n :one"),
					ExpressionAttributeValues: attrs{":one": num(1)}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	got, err := db.GetItem(ctx, &dynamodb.GetItemInput{TableName: name, Key: attrs{"id": str("x")}})
	if err != nil || got.Item["n"].(*types.AttributeValueMemberN).Value != "200" {
		t.Errorf("got %v, %v", got.Item, err)
	}
}

func TestSDKForJavaScriptUsesTheDynamoDoor(t *testing.T) {
	cmd := doorScript(t, "dynamodb-sdk.js", signedDynamoDoor(t))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}
