package expr

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cloudbevy/bevy/services/dynamodb/item"
)

func read(t testing.TB, text string) item.Item {
	t.Helper()
	i, err := item.ReadItem([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// someNames are placeholders for tests.
func someNames(t testing.TB) *Names {
	values := read(t, `{":one":{"N":"1"},":s":{"S":"ab"},":l":{"L":[{"N":"9"}]},":ss":{"SS":["a","z"]},":t":{"S":"N"}}`)
	return NewNames(map[string]string{"#n": "name", "#a": "a"}, nil, values, nil)
}

const someItem = `{"a":{"S":"abc"},"n":{"N":"5"},"l":{"L":[{"N":"0"},{"N":"1"},{"N":"2"},{"M":{"k":{"S":"v"}}}]},"m":{"M":{"x":{"N":"3"}}},"s":{"SS":["a","b"]},"name":{"S":"N"}}`

func TestConditions(t *testing.T) {
	for text, want := range map[string]bool{
		"n > :one": true, "n < :one": false, "NOT n < :one": true, "begins_with(a, :s)": true, "contains(s, a)": false, "contains(#a, :s)": true,
		"attribute_exists(m.x) and attribute_not_exists(m.y)": true, "size(l) > :one": true, "size(#n) = :one": true, "l[1] = :one": true, "l[9] = :one": false,
		"attribute_type(n, :t)": true, "n in (:one, :s)": false, "l[1] IN (:s, :one)": true, "n between :one and n": true, "(n > :one or n < :one) and not (a = :s)": true,
		"x = y": false, "x <> y": true, "x <= y": false, "((l))[0] < :one": false, "(l)[0] < :one": true,
	} {
		c, err := ParseCondition(text, someNames(t))
		if strings.Contains(text, "((") {
			if err == nil || !strings.Contains(err.Error(), "redundant parentheses") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Match(read(t, someItem)); got != want {
			t.Errorf("%s is %v", text, got)
		}
	}
}

func TestUpdates(t *testing.T) {
	for text, want := range map[string]string{
		"set n = n + :one":                           `"n":{"N":"6"}`,
		"set n = :one - n":                           `"n":{"N":"-4"}`,
		"remove l[0], l[2]":                          `"l":{"L":[{"N":"1"},{"M":{"k":{"S":"v"}}}]}`,
		"set l[9] = :s, l[3].k = :one":               `"l":{"L":[{"N":"0"},{"N":"1"},{"N":"2"},{"M":{"k":{"N":"1"}}},{"S":"ab"}]}`,
		"set l = list_append(:l, l) remove m":        `"l":{"L":[{"N":"9"},{"N":"0"}`,
		"add s :ss":                                  `"s":{"SS":["a","b","z"]}`,
		"delete s :ss":                               `"s":{"SS":["b"]}`,
		"add q :one":                                 `"q":{"N":"1"}`,
		"set q = if_not_exists(q, n), z = (m.x + n)": `"q":{"N":"5"},"s":{"SS":["a","b"]},"z":{"N":"8"}`,
		"set a = name, #n = a":                       `"a":{"S":"N"}`, // name is reserved, see below
	} {
		u, err := ParseUpdate(text, someNames(t))
		if strings.Contains(text, "= name") {
			if err == nil || !strings.Contains(err.Error(), "reserved keyword: name") {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		i := read(t, someItem)
		if err := u.Apply(i, false, func(string) (item.Type, bool) { return item.None, false }); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := string(i.AppendJSON(nil)); !strings.Contains(got, want) {
			t.Errorf("%s made %s, want %s", text, got, want)
		}
	}
}

func TestLimitsOfExpressionsAreHeld(t *testing.T) {
	for name, text := range map[string]string{
		"bytes":     "n = :one or n = :one" + strings.Repeat(" ", 4096),
		"operators": strings.TrimSuffix(strings.Repeat("n=n1 or ", 200), " or "),
		"depth":     strings.Repeat("(", 1500) + "n = :one" + strings.Repeat(")", 1500),
		"path":      "m" + strings.Repeat(".m", 40) + " = :one",
		"not":       strings.Repeat("not ", 900) + "n = :one",
	} {
		if _, err := ParseCondition(text, someNames(t)); err == nil {
			t.Errorf("%s: there is no limit", name)
		}
	}
}

func FuzzExpressions(f *testing.F) {
	for _, seed := range []string{"n > :one and (not begins_with(a, :s))", "set a = if_not_exists(n, :one) + :one remove l[0] add q :one", "a.b[1], #n.c", "a between :one and :s or b in (:l)", "((a)) = b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		i := read(t, someItem)
		if c, err := ParseCondition(text, someNames(t)); err == nil {
			c.Match(i)
		} else if err.Error() == "" {
			t.Fatal("no words")
		}
		if p, err := ParseProjection(text, someNames(t)); err == nil {
			Pick(i, p.Paths)
		}
		if u, err := ParseUpdate(text, someNames(t)); err == nil {
			before := fmt.Sprint(i)
			c := i.Clone()
			_ = u.Apply(c, false, func(string) (item.Type, bool) { return item.None, false })
			if fmt.Sprint(i) != before {
				t.Fatalf("%s changed what is shared", text)
			}
		}
	})
}
