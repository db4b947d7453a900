package item

import (
	"bytes"
	"encoding/json"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestNumbersAreReadAndWritten(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "00": "0", "0e999999999999999999": "0", "1": "1", "-1": "-1", "007": "7", "1.50": "1.5", ".5": "0.5", "5.": "5",
		"1e3": "1000", "1E-3": "0.001", "-12.34e1": "-123.4", "100": "100", "0.10": "0.1", "1e+2": "100", "+1": "1", "123456789012345678901234567890.12": "123456789012345678901234567890.12",
	} {
		n, ok := ParseNumber(in)
		if got := n.String(); !ok || got != want {
			t.Errorf("%q is %q, %v, want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "-", ".", "e1", "1e", "1e+", "+-1", "1a", " 1", "1 ", "0x1", "--1", "1.2.3", "NaN", "Infinity"} {
		if n, ok := ParseNumber(in); ok {
			t.Errorf("%q is %v", in, n)
		}
	}
	for in, want := range map[string]string{
		"1e125": "", "1e126": "overflow", "-9.9e125": "", "1e-130": "", "9e-131": "underflow", strings.Repeat("9", 38): "", "1" + strings.Repeat("0", 37) + "1": "38 significant",
	} {
		v := Value{Type: N, Text: in}
		if got := v.Check(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q is refused with %q, want %q", in, got, want)
		}
	}
}

// randomNumber is one of all sizes.
func randomNumber(rng *rand.Rand) Number {
	n := Number{Neg: rng.IntN(2) == 0, Exp: rng.IntN(maxExp-minExp+1) + minExp}
	if rng.IntN(2) == 0 {
		n.Exp = rng.IntN(5) - 2
	}
	if rng.IntN(30) == 0 {
		return Number{}
	}
	digits := make([]byte, 1+rng.IntN(1+rng.IntN(maxDigits)))
	for i := range digits {
		digits[i] = byte('0' + rng.IntN(10))
	}
	digits[0], digits[len(digits)-1] = byte('1'+rng.IntN(9)), byte('1'+rng.IntN(9))
	n.Digits = string(digits)
	return n
}

func (n Number) rat() *big.Rat {
	r, _ := new(big.Rat).SetString(n.String())
	return r
}

func TestNumbersSortAndAddUpAsTheyShould(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		a, b := randomNumber(rng), randomNumber(rng)
		want := a.rat().Cmp(b.rat())
		if got := a.Cmp(b); (got > 0) != (want > 0) || (got < 0) != (want < 0) {
			t.Fatalf("%v to %v is %d, want %d", a, b, got, want)
		}
		if got := bytes.Compare(append(a.AppendSortable(nil), 0), append(b.AppendSortable(nil), 0)); got != want {
			t.Fatalf("bytes of %v to those of %v are %d, want %d", a, b, got, want)
		}
		sum, problem := a.Add(b, false)
		if problem == "" && sum.rat().Cmp(new(big.Rat).Add(a.rat(), b.rat())) != 0 {
			t.Fatalf("%v and %v are %v", a, b, sum)
		}
		if again, ok := ParseNumber(sum.String()); !ok || problem == "" && again != sum {
			t.Fatalf("%v was read again as %v", sum, again)
		}
	}
}

func TestItemsAreTheSameAfterReading(t *testing.T) {
	text := `{"b":{"B":"AAEC"},"l":{"L":[{"N":"1"},{"M":{"x":{"NULL":true}}}]},"s":{"S":"a\"\\\u0001é😀"},"t":{"BOOL":true},"x":{"SS":["a","b"]},"y":{"BS":["AA=="]}}`
	i, err := ReadItem([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(i.AppendJSON(nil)); got != text {
		t.Errorf("got %s\nwant %s", got, text)
	}
	if !i.Equal(i.Clone()) {
		t.Error("a copy is another")
	}
	c := i.Clone()
	c["l"].List[1].Map["x"] = Text("y")
	if i.Equal(c) {
		t.Error("a changed copy is the same")
	}
}

// FuzzJSON compares with encoding/json, which takes the same.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,-0.5e3,true,null,"x\ud83d\ude00\u00e9"],"a":{}}`))
	f.Add([]byte(`{"M":{"a":{"L":[{"NS":["1"]}]}}}`))
	f.Add(bytes.Repeat([]byte("9"), 500))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, ok := Parse(text)
		if bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) > maxNesting {
			return
		}
		if valid := json.Valid(text); ok != valid {
			t.Fatalf("%q: %v, want %v", text, ok, valid)
		}
		if !ok {
			return
		}
		var want any
		if err := json.Unmarshal(text, &want); err != nil {
			return // a number out of range
		}
		if got := plain(n); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is %v, want %v", text, got, want)
		}
		if v, problem, err := Read(text); err == nil && problem == "" {
			again, problem, err := Read(v.AppendJSON(nil))
			if err != nil || problem != "" || !v.Equal(again) {
				t.Fatalf("%q: %v was read again as %v, %s, %v", text, v, again, problem, err)
			}
		}
	})
}

func plain(n *Node) any {
	switch n.Kind {
	case Bool:
		return n.Bool
	case Number64:
		return n.Num
	case String:
		return n.Str
	case Array:
		out := []any{}
		for _, e := range n.List {
			out = append(out, plain(e))
		}
		return out
	case Object:
		out := map[string]any{}
		for i, e := range n.List {
			out[n.Keys[i]] = plain(e)
		}
		return out
	}
	return nil
}

func TestNamesOfTypesAreKnown(t *testing.T) {
	if !slices.Equal([]Type{TypeOf("S"), TypeOf("M"), TypeOf("x"), TypeOf("")}, []Type{S, M, None, None}) {
		t.Error("a type has another name")
	}
}
