package dynamodb

import (
	"encoding/json"
	"net/http"
	"testing"
)

// Whatever a statement is, it is done or refused.
func FuzzStatements(f *testing.F) {
	for _, s := range []string{
		`SELECT * FROM people WHERE a = 'x' AND b > ? ORDER BY b DESC`, `SELECT a, m.x[1] FROM "people"."byC" WHERE c IN ('red', ?)`,
		`INSERT INTO people VALUE {'a': 'x', 'b': 1, 'm': {'x': [1, <<'a'>>, true, NULL, MISSING]}}`, `DELETE FROM people WHERE a = 'x' AND b = 1 RETURNING ALL OLD *`,
		`UPDATE people SET n = n + 1 SET l = list_append(l, [?]) REMOVE m.x WHERE a = 'x' AND b = 1 RETURNING MODIFIED NEW *`, `EXISTS(SELECT * FROM people WHERE a = 'x' AND b = 1)`,
		`SELECT * FROM people WHERE NOT (begins_with(a, 'x') OR contains(c, 'y')) AND size(c) BETWEEN 1 AND 2 AND attribute_type(c, 'S') AND c IS NOT MISSING`, `''`, `((((`, `"`, `-- x`,
	} {
		f.Add(s, `[{"N":"1"}]`)
		f.Add(s, `[]`)
	}
	r := newRig(f)
	r.ok("CreateTable", newPeople)
	r.ok("PutItem", `{"TableName":"people","Item":{"a":{"S":"x"},"b":{"N":"1"},"c":{"S":"red"},"l":{"L":[]},"m":{"M":{"x":{"L":[{"N":"1"}]}}},"n":{"N":"1"}}}`)
	f.Fuzz(func(t *testing.T, statement, params string) {
		r := &rig{t, r.door, r.clock}
		text, err := json.Marshal(statement)
		if err != nil {
			t.Skip(err)
		}
		for operation, body := range map[string]string{
			"ExecuteStatement":      `{"Statement":` + string(text) + `,"Parameters":` + params + `}`,
			"ExecuteTransaction":    `{"TransactStatements":[{"Statement":` + string(text) + `,"Parameters":` + params + `}]}`,
			"BatchExecuteStatement": `{"Statements":[{"Statement":` + string(text) + `,"Parameters":` + params + `}]}`,
		} {
			if status, answer := r.do(operation, body); status != http.StatusOK && status != http.StatusBadRequest || !json.Valid([]byte(answer)) {
				t.Errorf("%s %s: %d %s", operation, body, status, answer)
			}
		}
	})
}
