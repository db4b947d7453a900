package sigv4

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
)

func keysOf(id, secret string) func(context.Context, string) (Key, error) {
	return func(_ context.Context, asked string) (Key, error) {
		if asked != id {
			return Key{}, ErrUnknownKey
		}
		return Key{secret, "somebody"}, nil
	}
}

// suite is a verifier for AWS's published test suite.
func suite() *Verifier {
	return &Verifier{Service: "service", Region: "us-east-1", Keys: keysOf("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
		Clock: clock.NewFake(time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC))}
}

// Cases of aws-sig-v4-test-suite.
var suiteCases = []struct {
	name, method, target string
	headers              [][2]string
	signed, signature    string
	body                 string
}{
	{"get-vanilla", "GET", "/", nil, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", ""},
	{"get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", nil, "host;x-amz-date", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500", ""},
	{"get-unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", nil, "host;x-amz-date", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f", ""},
	{"get-utf8", "GET", "/ሴ", nil, "host;x-amz-date", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85", ""},
	{"get-relative", "GET", "/example/..", nil, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", ""},
	{"get-relative-relative", "GET", "/example1/example2/../..", nil, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", ""},
	{"get-slash", "GET", "//", nil, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", ""},
	{"get-slash-dot-slash", "GET", "/./", nil, "host;x-amz-date", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31", ""},
	{"get-header-value-trim", "GET", "/", [][2]string{{"My-Header1", " value1"}, {"My-Header2", ` "a   b   c"`}}, "host;my-header1;my-header2;x-amz-date", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736", ""},
	{"get-header-key-duplicate", "GET", "/", [][2]string{{"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}}, "host;my-header1;x-amz-date", "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea", ""},
	{"post-vanilla", "POST", "/", nil, "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", ""},
	{"post-x-www-form-urlencoded", "POST", "/", [][2]string{{"Content-Type", "application/x-www-form-urlencoded"}}, "content-type;host;x-amz-date", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a", "Param1=value1"},
}

func TestPublishedSignaturesAreRight(t *testing.T) {
	for _, c := range suiteCases {
		r := httptest.NewRequest(c.method, "https://example.amazonaws.com"+strings.ReplaceAll(c.target, "ሴ", "%E1%88%B4"), nil)
		for _, h := range c.headers {
			r.Header.Add(h[0], h[1])
		}
		r.Header.Set("X-Amz-Date", "20150830T123600Z")
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="+c.signed+", Signature="+c.signature)
		if c.name == "get-utf8" {
			// The suite has the path as bytes, which are encoded once.
			s, err := suite().parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := canonicalRequest(r, s, emptyHash, true); err != nil || !strings.Contains(got, "\n/%E1%88%B4\n") {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
			continue
		}
		if _, err := suite().VerifyBody(r, []byte(c.body)); err != nil {
			e := new(Error)
			errors.As(err, &e)
			t.Errorf("%s: %v\n%s\n%s", c.name, err, e.Canonical, e.ToSign)
		}
	}
}

// s3 is a verifier for the examples in the S3 API reference.
func s3() *Verifier {
	return &Verifier{Service: "s3", Region: "us-east-1", Keys: keysOf("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
		Clock: clock.NewFake(time.Date(2013, 5, 24, 0, 5, 0, 0, time.UTC))}
}

const s3Scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"

func s3Request(method, target, signed, signature, payload string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, "https://examplebucket.s3.amazonaws.com"+target, nil)
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	r.Header.Set("X-Amz-Content-Sha256", payload)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+s3Scope+",SignedHeaders="+signed+",Signature="+signature)
	return r
}

func setBody(r *http.Request, body string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
}

func TestExamplesOfS3AreRight(t *testing.T) {
	get := s3Request("GET", "/test.txt", "host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", emptyHash, "Range", "bytes=0-9")
	put := s3Request("PUT", "/test%24file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		"44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "Date", "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Storage-Class", "REDUCED_REDUNDANCY")
	setBody(put, "Welcome to Amazon S3.")
	lifecycle := s3Request("GET", "/?lifecycle", "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", emptyHash)
	list := s3Request("GET", "/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", emptyHash)
	presigned := httptest.NewRequest("GET", "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+strings.ReplaceAll(s3Scope, "/", "%2F")+
		"&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", nil)
	for name, r := range map[string]*http.Request{"get": get, "put": put, "lifecycle": lifecycle, "list": list, "presigned": presigned} {
		signed, err := s3().Verify(r)
		if err != nil {
			e := new(Error)
			errors.As(err, &e)
			t.Errorf("%s: %v\n%s", name, err, e.Canonical)
			continue
		}
		if signed.Principal != "somebody" || signed.Presigned != (name == "presigned") {
			t.Errorf("%s: %+v", name, signed)
		}
		if _, err := io.ReadAll(signed.Body); err != nil {
			t.Errorf("%s: read body: %v", name, err)
		}
	}
}

// chunked is the example of a body in signed chunks: 65 KiB of 'a'.
func chunked() (r *http.Request, body string) {
	a := strings.Repeat("a", 65536)
	body = "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + a + "\r\n" +
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + a[:1024] + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
	r = s3Request("PUT", "/examplebucket/chunkObject.txt", "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
		"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9", signedChunks,
		"X-Amz-Storage-Class", "REDUCED_REDUNDANCY", "Content-Encoding", "aws-chunked", "X-Amz-Decoded-Content-Length", "66560")
	r.Host = "s3.amazonaws.com"
	setBody(r, body)
	return r, body
}

func TestSignedChunksAreReadAndChecked(t *testing.T) {
	r, body := chunked()
	signed, err := s3().Verify(r)
	if err != nil {
		t.Fatal(err)
	}
	if signed.Body.Length != 66560 {
		t.Errorf("length %d", signed.Body.Length)
	}
	got, err := io.ReadAll(signed.Body)
	if err != nil || string(got) != strings.Repeat("a", 66560) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// Whatever is changed is noticed.
	for _, at := range []int{0, 1, 40, 100, 5000, len(body) - 100, len(body) - 1, len(body) - 3} {
		broken := []byte(body)
		broken[at] ^= 1
		r, _ := chunked()
		setBody(r, string(broken))
		signed, err := s3().Verify(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(signed.Body); err == nil {
			t.Errorf("byte %d was changed, and nothing said", at)
		}
	}
	for _, cut := range []int{0, 10, 60000, len(body) - 1, len(body) - 90} {
		r, _ := chunked()
		signed, err := s3().Verify(r)
		if err != nil {
			t.Fatal(err)
		}
		c := r.Clone(t.Context())
		setBody(c, body[:cut])
		cutBody, err := newBody(c, signedChunks, &chain{signingKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3"), "20130524T000000Z",
			"20130524/us-east-1/s3/aws4_request", "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(cutBody); err == nil {
			t.Errorf("cut at %d, and nothing said", cut)
		}
		_ = signed
	}
}

func TestTrailersAreReadAndChecked(t *testing.T) {
	// The example of "Signature calculations: including trailing headers".
	key := signingKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3")
	a := strings.Repeat("a", 65536)
	body := "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + a + "\r\n" +
		"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + a[:1024] + "\r\n" +
		"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:%s\r\n\r\n"
	read := func(payload, body string) (*Body, error) {
		r := httptest.NewRequest("PUT", "/", nil)
		setBody(r, body)
		r.Header.Set("X-Amz-Decoded-Content-Length", "66560")
		r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32c, x-amz-checksum-crc32")
		b, err := newBody(r, payload, &chain{key, "20130524T000000Z", "20130524/us-east-1/s3/aws4_request", "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, b)
		return b, err
	}
	b, err := read(signedTrailer, fmt.Sprintf(body, "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"))
	if err != nil || b.Trailer.Get("X-Amz-Checksum-Crc32c") != "sOO8/Q==" {
		t.Errorf("%v, %v", b.Trailer, err)
	}
	if _, err := read(signedTrailer, fmt.Sprintf(body, strings.Repeat("0", 64))); err == nil {
		t.Error("a wrong signature of trailers was let through")
	}
	if _, err := read(signedTrailer, strings.Replace(body, "x-amz-trailer-signature:%s\r\n", "", 1)); err == nil {
		t.Error("trailers without a signature were let through")
	}
	if _, err := read(unsignedTrailer, "10000\r\n"+a+"\r\n400\r\n"+a[:1024]+"\r\n0\r\nx-amz-checksum-sha1:abc=\r\n\r\n"); err == nil {
		t.Error("a trailer that was not announced was let through")
	}
	b, err = read(unsignedTrailer, "10000\r\n"+a+"\r\n400\r\n"+a[:1024]+"\r\n0\r\nx-amz-checksum-crc32:abc=\r\n\r\n")
	if err != nil || b.Trailer.Get("X-Amz-Checksum-Crc32") != "abc=" {
		t.Errorf("%v, %v", b.Trailer, err)
	}
}

func TestWhatIsWrongIsToldByKind(t *testing.T) {
	good := func() *http.Request {
		return s3Request("GET", "/?lifecycle", "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", emptyHash)
	}
	auth := func(old, new string) func(*http.Request, *Verifier) {
		return func(r *http.Request, _ *Verifier) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, new, 1))
		}
	}
	at := func(d time.Duration) func(*http.Request, *Verifier) {
		return func(_ *http.Request, v *Verifier) {
			v.Clock = clock.NewFake(time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC).Add(d))
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request, *Verifier)
		want   Kind
	}{
		"nothing":         {func(*http.Request, *Verifier) {}, ""},
		"no header":       {func(r *http.Request, _ *Verifier) { r.Header.Del("Authorization") }, Missing},
		"another kind":    {auth("AWS4-HMAC-SHA256 ", "Basic "), BadHeader},
		"another hash":    {auth("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), BadHeader},
		"no signature":    {auth("Signature=", "S="), Malformed},
		"wrong signature": {auth("Signature=f", "Signature=e"), Mismatch},
		"unknown key":     {auth("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLF"), UnknownKey},
		"another service": {auth("/s3/", "/dynamodb/"), BadScope},
		"another region":  {auth("us-east-1", "us-west-1"), BadScope},
		"another day":     {auth("20130524/", "20130525/"), BadScope},
		"short":           {auth("/aws4_request", ""), BadScope},
		"host unsigned":   {auth("host;", ""), Malformed},
		"method":          {func(r *http.Request, _ *Verifier) { r.Method = "PUT" }, Mismatch},
		"path":            {func(r *http.Request, _ *Verifier) { r.URL.Path = "/x" }, Mismatch},
		"query":           {func(r *http.Request, _ *Verifier) { r.URL.RawQuery = "acl" }, Mismatch},
		"payload":         {func(r *http.Request, _ *Verifier) { r.Header.Set("X-Amz-Content-Sha256", strings.Repeat("0", 64)) }, Mismatch},
		"no payload":      {func(r *http.Request, _ *Verifier) { r.Header.Del("X-Amz-Content-Sha256") }, Malformed},
		"header added":    {func(r *http.Request, _ *Verifier) { r.Header.Set("X-Amz-Acl", "public-read") }, Unsigned},
		"both":            {func(r *http.Request, _ *Verifier) { r.URL.RawQuery = "X-Amz-Algorithm=x" }, Malformed},
		"early":           {at(-14 * time.Minute), ""},
		"too early":       {at(-16 * time.Minute), Skewed},
		"late":            {at(14 * time.Minute), ""},
		"too late":        {at(16 * time.Minute), Skewed},
		"body":            {func(r *http.Request, _ *Verifier) { setBody(r, "x") }, BadPayload},
	} {
		r, v := good(), s3()
		c.change(r, v)
		signed, err := v.Verify(r)
		if err == nil {
			_, err = io.ReadAll(signed.Body)
		}
		e := new(Error)
		errors.As(err, &e)
		if e.Kind != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestFormsAreHeldToTheirPolicy(t *testing.T) {
	policy := `{"expiration":"2013-05-25T00:00:00.000Z","conditions":[{"bucket":"b"},["starts-with","$key","user/"],{"acl":"public-read"},["content-length-range",1,100],
{"x-amz-credential":"` + s3Scope + `"},{"x-amz-algorithm":"AWS4-HMAC-SHA256"},{"x-amz-date":"20130524T000000Z"}]}`
	form := func() map[string]string {
		encoded := base64.StdEncoding.EncodeToString([]byte(policy))
		h := hmac.New(sha256.New, signingKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3"))
		h.Write([]byte(encoded))
		return map[string]string{"key": "user/a.txt", "acl": "public-read", "policy": encoded, "x-amz-credential": s3Scope,
			"x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-date": "20130524T000000Z", "x-amz-signature": hex.EncodeToString(h.Sum(nil))}
	}
	for name, c := range map[string]struct {
		change func(map[string]string)
		bucket string
		want   Kind
	}{
		"nothing":    {func(map[string]string) {}, "b", ""},
		"key":        {func(f map[string]string) { f["key"] = "other/a" }, "b", Denied},
		"acl":        {func(f map[string]string) { f["acl"] = "private" }, "b", Denied},
		"bucket":     {func(map[string]string) {}, "c", Denied},
		"more":       {func(f map[string]string) { f["tagging"] = "x" }, "b", Denied},
		"ignored":    {func(f map[string]string) { f["x-ignore-me"] = "x" }, "b", ""},
		"signature":  {func(f map[string]string) { f["x-amz-signature"] = strings.Repeat("0", 64) }, "b", Mismatch},
		"unknown":    {func(f map[string]string) { f["x-amz-credential"] = "X" + s3Scope }, "b", UnknownKey},
		"no policy":  {func(f map[string]string) { delete(f, "policy") }, "b", Missing},
		"bad policy": {func(f map[string]string) { f["policy"] = "e30=" }, "b", Mismatch},
	} {
		f := form()
		c.change(f)
		posted, err := s3().VerifyForm(t.Context(), f, c.bucket)
		e := new(Error)
		errors.As(err, &e)
		if e.Kind != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err == nil && (posted.MinLength != 1 || posted.MaxLength != 100) {
			t.Errorf("%s: %+v", name, posted)
		}
	}
	v := s3()
	v.Clock = clock.NewFake(time.Date(2013, 5, 26, 0, 0, 0, 0, time.UTC))
	if _, err := v.VerifyForm(t.Context(), form(), "b"); err == nil {
		t.Error("a policy that has expired was let through")
	}
}

func FuzzChunks(f *testing.F) {
	_, body := chunked()
	f.Add([]byte(body[len(body)-1200:]), false)
	f.Add([]byte("4\r\nabcd\r\n0\r\na:b\r\n\r\n"), true)
	f.Add([]byte("0\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, trailer bool) {
		r := httptest.NewRequest("PUT", "/", nil)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		r.Header.Set("X-Amz-Decoded-Content-Length", "4")
		payload := signedChunks
		if trailer {
			payload = unsignedTrailer
		}
		body, err := newBody(r, payload, &chain{key: []byte("k")})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if len(got) > len(b) || err == nil && len(got) != 4 {
			t.Fatalf("%d bytes of %d, %v", len(got), len(b), err)
		}
	})
}

func FuzzCanonical(f *testing.F) {
	f.Add("/a/../b%20c", "a=b&c=%2B+", "x;y", "v  w")
	f.Fuzz(func(t *testing.T, path, query, signed, value string) {
		r := httptest.NewRequest("GET", "http://h/", nil)
		r.URL.Path, r.URL.RawQuery = path, query
		r.Header.Set("X", value)
		for _, isS3 := range []bool{true, false} {
			text, err := canonicalRequest(r, &signature{headers: strings.Split(signed, ";")}, "p", isS3)
			if err == nil && !strings.HasPrefix(text, "GET\n") {
				t.Fatalf("%q", text)
			}
			if p, err := canonicalPath(r.URL, isS3); err == nil && !isS3 && (strings.Contains(p, "//") || strings.Contains(p+"/", "/../")) {
				t.Fatalf("path %q became %q", path, p)
			}
		}
	})
}
