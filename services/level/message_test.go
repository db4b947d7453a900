package level

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestParseTakesRequestsAndNothingElse(t *testing.T) {
	ten := 10
	for message, want := range map[string]request{
		`{"id":1,"op":"get","key":"a"}`:                 {ID: 1, Op: "get", Key: data("a")},
		`{"id":2,"op":"get","key":""}`:                  {ID: 2, Op: "get", Key: data{}},
		`{"id":2,"op":"get","key":null}`:                {ID: 2, Op: "get"},
		`{"id":3,"op":"get","key":{"base64":"/wA="}}`:   {ID: 3, Op: "get", Key: data("\xff\x00")},
		`{"id":4,"op":"get","key":"\ud800"}`:            {ID: 4, Op: "get", Key: data("\ufffd")},
		`{"id":5,"op":"get","keys":["a",""]}`:           {ID: 5, Op: "get", Keys: list[data]{data("a"), {}}},
		`{"id":9007199254740991,"op":"x","limit":10}  `: {ID: maxSafe, Op: "x", Limit: &ten},
		`{"id":6,"op":"batch","changes":[{"type":"put","key":"k","value":""}]}`: {
			ID: 6, Op: "batch", Changes: list[change]{{"put", data("k"), data{}}},
		},
	} {
		if got, err := parse([]byte(message)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, %v, want %+v", message, got, err, want)
		}
	}
	for message, id := range map[string]uint64{
		``:                                   0,
		`null`:                               0,
		`[]`:                                 0,
		`{}`:                                 0,
		`{"id":0}`:                           0,
		`{"id":-1,"op":"get"}`:               0,
		`{"id":"1"}`:                         0,
		`{"id":9007199254740992}`:            0,
		`{"id":1}]`:                          0,
		`{"id":1}{`:                          0,
		"{\"id\":1,\"key\":\"\xff\"}":        1,
		`{"id":1,"gtt":"a"}`:                 1,
		`{"id":1,"key":1}`:                   1,
		`{"id":1,"key":{}}`:                  1,
		`{"id":1,"key":{"base64":"!"}}`:      1,
		`{"id":1,"key":{"base64":"","x":1}}`: 1,
		`{"id":1,"keys":{}}`:                 1,
		`{"id":1,"keys":null}`:               1,
		`{"id":1,"changes":[{"type":"put","k":1}]}`:                  1,
		`{"id":1,"keys":[` + strings.Repeat(`"",`, maxList) + `""]}`: 1,
	} {
		if got, err := parse([]byte(message)); err == nil || got.ID != id {
			t.Errorf("%.60s is taken for %+v, %v, want an error and id %d", message, got, err, id)
		}
	}
}

func TestDataIsWrittenAsItIsRead(t *testing.T) {
	for in, want := range map[string]string{
		"":       `""`,
		"a<>&":   `"a<>&"`,
		"\x00":   `"\u0000"`,
		"\ufeff": "\"\ufeff\"",
		"\xff":   `{"base64":"/w=="}`,
	} {
		got, err := data(in).MarshalJSON()
		if strings.TrimSpace(string(got)) != want || err != nil {
			t.Errorf("%q is %s, %v, want %s", in, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"op":"hello","version":1}`,
		`{"id":2,"op":"batch","changes":[{"type":"put","key":"k","value":{"base64":"/w=="}},{"type":"del","key":""}]}`,
		`{"id":3,"op":"iterator","gt":"a","lte":"b","reverse":true,"limit":0,"only":"keys","snapshot":1}`,
		`{"id":4,"op":"next","iterator":3,"size":10,"seek":"\ud800\u2028"}`,
		`{"id":5,"keys":["a",null,{"base64":""}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := parse(message)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parse(again); err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%s is %+v, and written again %s is %+v, %v", message, r, again, got, err)
		}
	})
}
