package hypercore

import (
	"encoding/json"
	"testing"
)

func TestKeyIsTextInJSON(t *testing.T) {
	key := Key{1, 2, 3}
	b, err := json.Marshal(key)
	if err != nil || string(b) != `"`+key.String()+`"` {
		t.Fatalf("%s, %v", b, err)
	}
	var back Key
	if err := json.Unmarshal(b, &back); err != nil || back != key {
		t.Fatalf("%v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`"nonsense"`), &back); err == nil {
		t.Fatal("nonsense was taken for a key")
	}
}
