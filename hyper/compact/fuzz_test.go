package compact

import (
	"bytes"
	"encoding/hex"
	"maps"
	"runtime"
	"slices"
	"testing"
)

// FuzzDecode gives any bytes to every reader. None may panic or allocate far
// more than it was given, and what is read, written and read again must be
// written the same way again.
func FuzzDecode(f *testing.F) {
	names := slices.Sorted(maps.Keys(codecs))
	for _, v := range readVectors(f) {
		i := slices.Index(names, v.Encoding)
		b, err := hex.DecodeString(v.Hex)
		if err != nil || i < 0 {
			f.Fatalf("%s %s: %v", v.Encoding, v.Hex, err)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		name := names[int(which)%len(names)]
		c := codecs[name]
		kept := bytes.Clone(in)

		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d := NewDecoder(in)
		v := c.decode(&d)
		runtime.ReadMemStats(&after)
		// Other goroutines of the test binary allocate too, hence the slack.
		if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(1<<17+128*len(in)); got > limit {
			t.Errorf("%s: allocated %d bytes for %d of input", name, got, len(in))
		}
		if !bytes.Equal(in, kept) {
			t.Errorf("%s: changed its input", name)
		}
		if d.Err() != nil || name == "frame(string)" {
			return
		}
		once := c.encode(nil, v)
		d = NewDecoder(once)
		again := c.decode(&d)
		if err := d.Finish(); err != nil {
			t.Fatalf("%s: read %x, wrote %x, which does not read: %v", name, in, once, err)
		}
		if twice := c.encode(nil, again); !bytes.Equal(once, twice) {
			t.Errorf("%s: read %x, wrote %x, then %x", name, in, once, twice)
		}
	})
}

// FuzzParseKey gives any text to the reader of keys.
func FuzzParseKey(f *testing.F) {
	f.Add("tkrq8zmwb8a3m9k15csu3q17qmfgqnp9dskbrg9uq1rydpyxp7qy")
	f.Add("pear://0101010101010101010101010101010101010101010101010101010101010101/a")
	f.Add("9")
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := DecodeZ32(s); err == nil {
			again, err := DecodeZ32(EncodeZ32(b))
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("%q: read %x, then %x, %v", s, b, again, err)
			}
		}
		key, err := ParseKey(s)
		if err != nil {
			return
		}
		if again, err := ParseKey(FormatKey(key)); err != nil || again != key {
			t.Errorf("%q: read %x, then %x, %v", s, key, again, err)
		}
	})
}
