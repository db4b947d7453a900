package objects

import (
	"encoding/hex"
	"testing"
)

// What was written once is read for ever: docs/formats/s3.md.
func TestBytesStayWhatTheyAre(t *testing.T) {
	a := attributes{
		md5: []byte("0123456789abcdef"), sizes: []run{{2, 5 << 20}, {1, 7}},
		meta: Meta{ContentType: "3", CacheControl: "4", ContentDisposition: "5", ContentEncoding: "6", ContentLanguage: "7", Expires: "8", WebsiteRedirect: "9", StorageClass: "10", User: map[string]string{"b": "2", "a": "1"}},
		tags: []Tag{{"k", "v"}}, checksum: Checksum{"CRC64NVME", []byte{0xab}, true}, checksums: []byte{1, 2},
		lock: Lock{Mode: Compliance, Until: epoch, Hold: true}, acl: "p", version: []byte("versionversionve"), event: "e", by: "b", marker: true,
		upload: []byte("uploaduploadupl1"), state: State{Suspended, true, Governance, 3, 0},
	}
	want(t, "attributes", hex.EncodeToString(a.encode()), "01"+"0110"+hex.EncodeToString(a.md5)+"0209"+"0202fe000050000107"+
		"030133"+"040134"+"050135"+"060136"+"070137"+"080138"+"090139"+"0a023130"+"0b0801610131"+"01620132"+"0c04016b0176"+"0d030301ab"+"0e020102"+
		"0f0902"+"0032961cf2ca8618"+"1000"+"110170"+"1210"+hex.EncodeToString(a.version)+"130165"+"140162"+"1500"+"1610"+hex.EncodeToString(a.upload)+
		"1709"+hex.EncodeToString([]byte("Suspended"))+"1800"+"1903010300")
	want(t, "version's row", hex.EncodeToString([]byte(rowOf(rowVersion, "k\x00", versionID(epoch, 1, [6]byte{1, 2, 3, 4, 5, 6})))), "733376"+"6b00ff"+"0000"+"e779350de369cdff"+"fffe"+"010203040506")
	want(t, "null version's row", hex.EncodeToString([]byte(rowOf(rowVersion, "k", nullID))), "733376"+"6b"+"0000"+"ff")
	want(t, "part's row", hex.EncodeToString([]byte(partRow("id", 258))), "733370"+"6964"+"0102")
}
