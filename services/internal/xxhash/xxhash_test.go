package xxhash

import (
	"encoding/hex"
	"hash"
	"testing"
)

// The sums are those of two other implementations: cespare/xxhash and zeebo/xxh3.
func TestSumsAreThoseOfOthers(t *testing.T) {
	data := make([]byte, 5000)
	x := uint64(12345)
	for i := range data {
		x = x*6364136223846793005 + 1442695040888963407
		data[i] = byte(x >> 56)
	}
	for _, c := range []struct {
		n                      int
		want64, want3, want128 string
	}{
		{0, "ef46db3751d8e999", "2d06800538d394c2", "99aa06d3014798d86001c324468d497f"},
		{1, "f70759d1b211a558", "48846479fbd24c06", "8f0bf2e99c9198bb48846479fbd24c06"},
		{3, "7cf2378d116504d1", "161e64ec3317eedf", "0a124838f1709e4e161e64ec3317eedf"},
		{5, "0e6bac810125ce61", "e6011a1f823ba9b0", "cbe1a12d7441a66ebb91eeb239afd3a0"},
		{8, "403f8a4d45c95452", "49b6cd972e398cc1", "2d732a30ea17d9a29c1ff9bb48b7b52a"},
		{12, "9a0ad854ac64f964", "e1528b4c7a5c8240", "ab260d634aca536a887bee6d24bb5158"},
		{16, "c869c9cc80856d18", "92de7a903673ddbb", "0a07c84ff7bc93c83ad4382ccfd4d4ea"},
		{17, "ed95b72cb5f0923e", "d18313d0d3717af1", "a105d6d8384671a7839d7984d1cf7478"},
		{100, "2a52fd833c1bd705", "a5dbff90e546bf95", "14dd4a7e6b05190830c929450cd7f205"},
		{128, "8e5917f7ad5924d1", "9b9d649d8135936d", "4a61f339aeb740936e61945adc9b88fc"},
		{129, "7b69fdfd9288a0e3", "75f03ff8c7da53ae", "9145530000e3841261b331db3227e2ff"},
		{200, "c58be869b653e337", "1e3be953241fe345", "77cad3d18fb7edba9af0e93e7f0b1a88"},
		{240, "43cae640247455e6", "287a9e3a14605ca7", "164a006f78bcd3024bb3b57ccf5dc47e"},
		{241, "886eace34be1da0e", "9d3f2135e076f892", "31067416be519a519d3f2135e076f892"},
		{1024, "fc30191bc1615587", "8bf56442bec7c988", "827e4c82516fdf2a8bf56442bec7c988"},
		{1025, "b591c30ef8becaed", "c337d6c0c810fd27", "da7fd5b3f67670b3c337d6c0c810fd27"},
		{5000, "bf8dbc2c672be064", "a016ff17a001c176", "472f8ca2711d897ea016ff17a001c176"},
	} {
		for _, step := range []int{1, 7, 64, 1024, 5000} {
			for name, k := range map[string]struct {
				h    hash.Hash
				want string
			}{"XXH64": {New64(), c.want64}, "XXH3": {New3(), c.want3}, "XXH128": {New128(), c.want128}} {
				for p := data[:c.n]; len(p) > 0; p = p[min(step, len(p)):] {
					k.h.Write(p[:min(step, len(p))])
				}
				if got := hex.EncodeToString(k.h.Sum(nil)); got != k.want {
					t.Errorf("%s of %d bytes by %d: %s, want %s", name, c.n, step, got, k.want)
				}
				if len(k.want) != 2*k.h.Size() {
					t.Errorf("%s says that it has %d bytes", name, k.h.Size())
				}
			}
		}
	}
}
