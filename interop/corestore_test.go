package interop_test

import (
	"encoding/hex"
	"testing"

	"github.com/cloudbevy/bevy/hyper/corestore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// Names lead to the same keys in a store of ours and in the reference's, wherever they are from.
func TestStoreNamesLeadToTheirKeys(t *testing.T) {
	n := startNode(t)
	rng := random(t, 1)
	words := []string{"db", "a", "Zürich", "日本語", "👩‍👩‍👧", "é", "é", " ", "with space", "nul\x00inside", "/../x", "ﷺ", "\U0010ffff", "0"}
	long := ""
	for range 300 {
		long += words[rng.IntN(len(words))]
	}
	words = append(words, long)
	deep, empty := 0, 0
	for i := range 40 {
		primary := [32]byte(randomBytes(rng, 32))
		o := corestore.Options{PrimaryKey: &primary}
		params := args{"primaryKey": hex.EncodeToString(primary[:]), "name": words[i%len(words)]}
		if i%4 == 3 {
			o.ManifestVersion = 1 + rng.IntN(3)
			params["manifestVersion"] = o.ManifestVersion
		}
		root, err := corestore.Open(storage.NewMemory(), o)
		if err != nil {
			t.Fatal(err)
		}
		s, namespaces := root, []any{}
		for range rng.IntN(4) {
			name := words[rng.IntN(len(words))]
			switch rng.IntN(4) {
			case 0:
				name = ""
				empty++
			case 1: // any bytes
				name = string(randomBytes(rng, rng.IntN(70)))
			}
			s, namespaces = s.Namespace(name), append(namespaces, args{"hex": hex.EncodeToString([]byte(name))})
			deep++
		}
		params["namespaces"] = namespaces
		l, err := s.Get(corestore.LogOptions{Name: params["name"].(string)})
		if err != nil {
			t.Fatal(err)
		}
		want := call[struct{ PublicKey, SecretKey, Key, DiscoveryKey, ManifestHex string }](n, "corestore", params)
		key, discovery, kp := l.Key(), l.Discovery(), l.KeyPair()
		for what, got := range map[string][2]string{
			"public key":    {hex.EncodeToString(kp.Public[:]), want.PublicKey},
			"secret key":    {hex.EncodeToString(append(kp.Seed(), kp.Public[:]...)), want.SecretKey},
			"key":           {hex.EncodeToString(key[:]), want.Key},
			"discovery key": {hex.EncodeToString(discovery[:]), want.DiscoveryKey},
			"manifest":      {manifestArgs(l.Manifest()), want.ManifestHex},
		} {
			if got[0] != got[1] {
				t.Errorf("%v: %s %s, Node's %s", params, what, got[0], got[1])
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	}
	if deep < 30 || empty == 0 {
		t.Errorf("%d namespaces, %d of them empty", deep, empty)
	}
}
