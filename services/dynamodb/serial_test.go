package dynamodb

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// An accountOp is an operation of a history: a transfer between two accounts in
// different tables if there is enough, a transaction that reads some, or a read of
// one alone.
type accountOp struct {
	kind     string
	from, to string
	amount   int
	read     []string
}

// accountResult is what came back: whether it was done, and what was read.
type accountResult struct {
	done   bool
	values string
}

// accounts is a model in which one operation happens after the other.
var accounts = porcupine.Model{
	Init: func() any { return map[string]int{} },
	Step: func(state, in, out any) (bool, any) {
		s, op, res := state.(map[string]int), in.(accountOp), out.(accountResult)
		switch op.kind {
		case "put":
			next := maps.Clone(s)
			next[op.to] = op.amount
			return true, next
		case "move":
			if enough := s[op.from] >= op.amount; enough != res.done {
				return false, s
			} else if !enough {
				return true, s
			}
			next := maps.Clone(s)
			next[op.from] -= op.amount
			next[op.to] += op.amount
			return true, next
		}
		var all []string
		for _, name := range op.read {
			all = append(all, fmt.Sprint(s[name]))
		}
		return res.values == strings.Join(all, " "), s
	},
	Equal: func(a, b any) bool { return maps.Equal(a.(map[string]int), b.(map[string]int)) },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprint(in, " -> ", out)
	},
}

// account is the table and the key of one: "left/a".
func account(name string) string {
	table, id, _ := strings.Cut(name, "/")
	return `"TableName":"` + table + `","Key":{"a":{"S":"` + id + `"}}`
}

func simpleTable(name string) string {
	return `{"TableName":"` + name + `","KeySchema":[{"AttributeName":"a","KeyType":"HASH"}],"AttributeDefinitions":[{"AttributeName":"a","AttributeType":"S"}],"BillingMode":"PAY_PER_REQUEST"}`
}

// balance is what an answer says that an account has.
func balance(item any) string {
	m, _ := item.(map[string]any)
	n, _ := m["n"].(map[string]any)
	if s, ok := n["N"].(string); ok {
		return s
	}
	return "0"
}

// perform does an operation at a door.
func (op accountOp) perform(t *testing.T, r *rig) accountResult {
	switch op.kind {
	case "put":
		r.ok("UpdateItem", `{`+account(op.to)+fmt.Sprintf(`,"UpdateExpression":"set n = :n","ExpressionAttributeValues":{":n":{"N":"%d"}}}`, op.amount))
		return accountResult{done: true}
	case "move":
		status, body := r.do("TransactWriteItems", fmt.Sprintf(`{"TransactItems":[
			{"Update":{%s,"UpdateExpression":"set n = n - :n","ConditionExpression":"n >= :n","ExpressionAttributeValues":{":n":{"N":"%d"}}}},
			{"Update":{%s,"UpdateExpression":"add n :n","ExpressionAttributeValues":{":n":{"N":"%d"}}}}]}`, account(op.from), op.amount, account(op.to), op.amount))
		if status != 200 && !strings.Contains(body, "ConditionalCheckFailed") {
			t.Errorf("transfer: %d %s", status, body)
		}
		return accountResult{done: status == 200}
	case "get":
		return accountResult{values: balance(r.ok("GetItem", `{`+account(op.read[0])+`}`)["Item"])}
	}
	var gets []string
	for _, name := range op.read {
		gets = append(gets, `{"Get":{`+account(name)+`}}`)
	}
	var all []string
	for _, one := range r.ok("TransactGetItems", `{"TransactItems":[`+strings.Join(gets, ",")+`]}`)["Responses"].([]any) {
		all = append(all, balance(one.(map[string]any)["Item"]))
	}
	return accountResult{values: strings.Join(all, " ")}
}

func TestTransactionsHappenOneAfterTheOther(t *testing.T) {
	names := []string{"left/a", "left/b", "right/a", "right/c"}
	rounds := uint64(2)
	if os.Getenv("BEVY_LONG") == "1" {
		rounds = 40
	}
	for round := range rounds {
		r := newRig(t)
		r.ok("CreateTable", simpleTable("left"))
		r.ok("CreateTable", simpleTable("right"))
		var mu sync.Mutex
		var history []porcupine.Operation
		var all sync.WaitGroup
		begin := time.Now()
		for client := range 5 {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(round, uint64(client)))
				for range 12 {
					perm := rng.Perm(len(names))
					op := accountOp{kind: []string{"put", "move", "move", "move", "read", "read", "get"}[rng.IntN(7)],
						from: names[perm[0]], to: names[perm[1]], amount: 1 + rng.IntN(5)}
					switch op.kind {
					case "read":
						op.read = []string{names[perm[0]], names[perm[1]], names[perm[2]]}
					case "get":
						op.read = []string{names[perm[0]]}
					}
					call := time.Since(begin).Nanoseconds()
					res := op.perform(t, r)
					end := time.Since(begin).Nanoseconds()
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: client, Input: op, Output: res, Call: call, Return: end})
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if got := porcupine.CheckOperationsTimeout(accounts, history, 20*time.Second); got != porcupine.Ok {
			t.Errorf("round %d: a history of %d operations is %s", round, len(history), got)
		}
	}
}

func TestTransactionIsDoneOnceForItsToken(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("left"))
	r.ok("CreateTable", simpleTable("right"))
	add := `{"ClientRequestToken":"abc","TransactItems":[{"Update":{` + account("left/x") + `,"UpdateExpression":"add n :n","ExpressionAttributeValues":{":n":{"N":"1"}}}},
		{"Update":{` + account("right/x") + `,"UpdateExpression":"add n :n","ExpressionAttributeValues":{":n":{"N":"1"}}}}]}`
	r.ok("TransactWriteItems", add)
	r.ok("TransactWriteItems", add)
	if status, body := r.do("TransactWriteItems", strings.Replace(add, `"N":"1"`, `"N":"2"`, 1)); !strings.Contains(body, "IdempotentParameterMismatchException") {
		t.Errorf("another transaction of the same token: %d %s", status, body)
	}
	if got := balance(r.ok("GetItem", `{`+account("right/x")+`}`)["Item"]); got != "1" {
		t.Errorf("it was done %s times", got)
	}
	r.clock.Advance(tokenTime + time.Second)
	r.ok("TransactWriteItems", add)
	if got := balance(r.ok("GetItem", `{`+account("left/x")+`}`)["Item"]); got != "2" {
		t.Errorf("after the token was forgotten: %s", got)
	}
}

func TestCancelledTransactionSaysWhyForEachPart(t *testing.T) {
	r := newRig(t)
	r.ok("CreateTable", simpleTable("left"))
	r.ok("PutItem", `{"TableName":"left","Item":{"a":{"S":"x"},"n":{"N":"1"}}}`)
	_, body := r.do("TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"left","Item":{"a":{"S":"y"}}}},
		{"Delete":{`+account("left/x")+`,"ConditionExpression":"n > :n","ExpressionAttributeValues":{":n":{"N":"5"}},"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}}]}`)
	var got struct {
		Message             string
		CancellationReasons []map[string]any
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(got.Message, "[None, ConditionalCheckFailed]") || len(got.CancellationReasons) != 2 || balance(got.CancellationReasons[1]["Item"]) != "1" {
		t.Errorf("got %s", body)
	}
	_, body = r.do("TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"left","Item":{"a":{"S":"y"}}}},{"Delete":{`+account("left/y")+`}}]}`)
	if !strings.Contains(body, "Transaction request cannot include multiple operations on one item") {
		t.Errorf("got %s", body)
	}
}
