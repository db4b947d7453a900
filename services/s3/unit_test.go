package s3

import (
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/services/s3/objects"
)

func TestRequestsAreTheirOperations(t *testing.T) {
	for _, c := range []struct{ method, host, target, header, want string }{
		{"GET", "s3.localhost", "/", "", "ListBuckets"},
		{"GET", "s3.localhost", "/?x-id=ListBuckets", "", "ListBuckets"},
		{"PUT", "s3.localhost", "/b", "", "CreateBucket b"},
		{"PUT", "b.s3.localhost", "/", "", "CreateBucket b"},
		{"GET", "b.localhost:7070", "/", "", "ListObjects b"},
		{"GET", "s3.localhost", "/b/", "", "ListObjects b"},
		{"GET", "s3.localhost", "/b?list-type=2", "", "ListObjectsV2 b"},
		{"GET", "s3.localhost", "/b?versions&prefix=a", "", "ListObjectVersions b"},
		{"GET", "s3.localhost", "/b?uploads", "", "ListMultipartUploads b"},
		{"GET", "s3.localhost", "/b?location", "", "GetBucketLocation b"},
		{"GET", "s3.localhost", "/b?cors", "", "GetBucketCors b"},
		{"DELETE", "s3.localhost", "/b?lifecycle", "", "DeleteBucketLifecycleConfiguration b"},
		{"GET", "s3.localhost", "/b?replication", "", "BucketReplication b"},
		{"POST", "s3.localhost", "/b?delete", "", "DeleteObjects b"},
		{"POST", "s3.localhost", "/b", "", "PostObject b"},
		{"HEAD", "s3.localhost", "/b", "", "HeadBucket b"},
		{"GET", "s3.localhost", "/b/k", "", "GetObject b k"},
		{"GET", "s3.localhost", "/b//k", "", "GetObject b /k"},
		{"GET", "s3.localhost", "/b/k/", "", "GetObject b k/"},
		{"GET", "b.example.com", "/k/x", "", "GetObject b k/x"},
		{"GET", "b.c.example.com", "/k", "", "GetObject b.c k"},
		{"GET", "example.com", "/b/k", "", "GetObject b k"},
		{"GET", "127.0.0.1:7070", "/b/k", "", "GetObject b k"},
		{"GET", "[::1]:7070", "/b/k", "", "GetObject b k"},
		{"HEAD", "s3.localhost", "/b/k?versionId=1", "", "HeadObject b k"},
		{"PUT", "s3.localhost", "/b/k", "", "PutObject b k"},
		{"PUT", "s3.localhost", "/b/k", "x-amz-copy-source", "CopyObject b k"},
		{"PUT", "s3.localhost", "/b/k?partNumber=1&uploadId=x", "", "UploadPart b k"},
		{"PUT", "s3.localhost", "/b/k?partNumber=1&uploadId=x", "x-amz-copy-source", "UploadPartCopy b k"},
		{"GET", "s3.localhost", "/b/k?uploadId=x", "", "ListParts b k"},
		{"POST", "s3.localhost", "/b/k?uploads", "", "CreateMultipartUpload b k"},
		{"POST", "s3.localhost", "/b/k?uploadId=x", "", "CompleteMultipartUpload b k"},
		{"DELETE", "s3.localhost", "/b/k?uploadId=x", "", "AbortMultipartUpload b k"},
		{"GET", "s3.localhost", "/b/k?attributes", "", "GetObjectAttributes b k"},
		{"GET", "s3.localhost", "/b/k?legal-hold", "", "GetObjectLegalHold b k"},
		// What is no part of a bucket or an object is not the whole of it.
		{"DELETE", "s3.localhost", "/b?acl", "", "none"},
		{"DELETE", "s3.localhost", "/b?versioning", "", "none"},
		{"DELETE", "s3.localhost", "/b?uploads", "", "none"},
		{"PUT", "s3.localhost", "/b?policyStatus", "", "none"},
		{"DELETE", "s3.localhost", "/b/k?acl", "", "none"},
		{"DELETE", "s3.localhost", "/b/k?legal-hold", "", "none"},
		{"PUT", "s3.localhost", "/b/k?attributes", "", "none"},
		{"DELETE", "s3.localhost", "/b/k?versionId=1", "", "DeleteObject b k"},
		{"PUT", "s3.localhost", "/b/k?x-id=PutObject&other=1", "", "PutObject b k"},
		{"PUT", "s3.localhost", "/b/k?annotation&annotationName=a", "", "PutObjectAnnotation b k"},
		{"DELETE", "s3.localhost", "/b/k?annotation&annotationName=a", "", "DeleteObjectAnnotation b k"},
		{"PATCH", "s3.localhost", "/b/k", "", "none"},
		{"POST", "s3.localhost", "/b/k", "", "none"},
		{"PUT", "s3.localhost", "/", "", "none"},
	} {
		r := httptest.NewRequest(c.method, "http://"+c.host+c.target, nil)
		if c.header != "" {
			r.Header.Set(c.header, "x")
		}
		a := locate(c.host, r.URL.Path, hosts([]string{"Example.com.", "127.0.0.1"}))
		got := "none"
		if o := route(c.method, a.level(), r.URL.Query(), r.Header); o != nil {
			got = strings.TrimSpace(o.name + " " + a.bucket + " " + a.key)
		}
		if got != c.want {
			t.Errorf("%s %s%s is %q, want %q", c.method, c.host, c.target, got, c.want)
		}
	}
	if a := locate("b.s3-website.localhost:80", "/x/y", hosts(nil)); a != (address{"b", "x/y", true}) {
		t.Errorf("the website is %+v", a)
	}
}

func TestEveryOperationCanBeReached(t *testing.T) {
	for i := range operations {
		o := &operations[i]
		query := url.Values{}
		for name := range strings.FieldsSeq(o.query) {
			query.Set(name, "")
		}
		h := http.Header{}
		if o.header != "" {
			h.Set(o.header, "x")
		}
		if got := route(o.method, o.level, query, h); got != o {
			t.Errorf("%s hides %s", got.name, o.name)
		}
	}
}

func TestTextsAreAsXMLHasThem(t *testing.T) {
	d := bare("A")
	d.put("B", "<a&b>\"\r\x01\n\xff\uFFFE語")
	text := string(d.bytes())
	if want := "<B>&lt;a&amp;b&gt;&quot;&#xd;&#x1;\n\uFFFD\uFFFD語</B></A>"; !strings.HasSuffix(text, want) {
		t.Errorf("got %q", text)
	}
	var in struct{ B string }
	for text, ok := range map[string]bool{
		"<A><B>x</B></A>":                        true,
		"<?xml version='1.0'?><A xmlns='y'/> \n": true,
		"<A><B>x</A>":                            false,
		"<B/>":                                   false,
		"<A/><A/>":                               false,
		"<A/>x":                                  false,
		"":                                       false,
		"<!DOCTYPE A [<!ENTITY b 'c'>]><A>&b;</A>": false,
	} {
		if err := decode([]byte(text), "A", &in); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRangesAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"bytes=0-3": "bytes 0-3/10", "bytes=4-": "bytes 4-9/10", "bytes=-3": "bytes 7-9/10", "bytes=-30": "bytes 0-9/10", "bytes=2-100": "bytes 2-9/10",
		"bytes=10-": "no", "bytes=-0": "no", "bytes=3-2": "all", "bytes=a-b": "all", "lines=1-2": "all", "bytes=0-1,3-4": "all", "bytes=": "all", "bytes=--1": "all",
	} {
		s, ok, err := parseRange(text, 10)
		got := "all"
		if ok {
			got = s.header(10)
		}
		if err != nil {
			got = "no"
		}
		if got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	if _, _, err := parseRange("bytes=0-", 0); err == nil {
		t.Error("there is a range in nothing")
	}
}

func TestConditionsAreJudgedInTheirOrder(t *testing.T) {
	o := objects.Object{ETag: "abc", Modified: start.Add(time.Millisecond)}
	before, at := start.Add(-time.Hour).Format(http.TimeFormat), start.Format(http.TimeFormat)
	for _, c := range []struct {
		headers []string
		want    int
	}{
		{nil, 200},
		{[]string{"If-Match", `"abc"`}, 200},
		{[]string{"If-Match", `abc`}, 200},
		{[]string{"If-Match", `*`}, 200},
		{[]string{"If-Match", `"x", "abc"`}, 200},
		{[]string{"If-Match", `"x"`}, 412},
		{[]string{"If-None-Match", `"abc"`}, 304},
		{[]string{"If-None-Match", `W/"abc"`}, 304},
		{[]string{"If-None-Match", `"x"`}, 200},
		{[]string{"If-Modified-Since", at}, 304},
		{[]string{"If-Modified-Since", before}, 200},
		{[]string{"If-Modified-Since", "yesterday"}, 200},
		{[]string{"If-Unmodified-Since", at}, 200},
		{[]string{"If-Unmodified-Since", before}, 412},
		{[]string{"If-Match", `"abc"`, "If-Unmodified-Since", before}, 200},
		{[]string{"If-None-Match", `"x"`, "If-Modified-Since", at}, 200},
		{[]string{"If-None-Match", `"abc"`, "If-Modified-Since", before}, 304},
		{[]string{"If-Match", `"x"`, "If-None-Match", `"abc"`}, 412},
	} {
		h := http.Header{}
		for i := 0; i < len(c.headers); i += 2 {
			h.Set(c.headers[i], c.headers[i+1])
		}
		got := 200
		if err := readConditions(h, "").check(o); err != nil {
			e, _ := told(err)
			got = e.Status
		}
		if got != c.want {
			t.Errorf("%v: %d, want %d", c.headers, got, c.want)
		}
	}
}

func TestBucketsHaveGoodNames(t *testing.T) {
	for name, want := range map[string]bool{
		"abc": true, "a.b-c": true, "123": true, strings.Repeat("a", 63): true,
		"ab": false, strings.Repeat("a", 64): false, "Abc": false, "a_b": false, "-ab": false, "ab-": false, "a..b": false, "a.-b": false, "192.168.0.1": false, "xn--abc": false, "a/b": false, "": false,
	} {
		if got := goodBucket(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestEveryErrorHasAStatusAndWords(t *testing.T) {
	for name, c := range codes {
		if c.status < 300 || c.status > 599 || c.message == "" {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for _, s := range storeErrors {
		if e, ok := told(s.err); !ok || e.Code == "InternalError" {
			t.Errorf("%v is told as %v", s.err, e)
		}
	}
	d := errorDocument(fail("NoSuchKey").with("Key", "a\x00b"), "/b/\x01", "ID")
	if text := string(d.bytes()); !strings.Contains(text, "<Key>a&#x0;b</Key>") || !strings.HasSuffix(text, "</Error>") {
		t.Errorf("got %s", text)
	}
}

func TestRequestsAreMatched(t *testing.T) {
	for target, want := range map[string]bool{
		"http://s3.localhost/": true, "http://b.s3.localhost:7070/k": true, "http://b.s3-website.localhost/": true, "http://s3.home.example/b": true,
		"http://localhost/": false, "http://key.localhost/": false,
		"http://localhost/b/k?X-Amz-Credential=a%2F1%2Fr%2Fs3%2Faws4_request": true, "http://localhost/?X-Amz-Credential=a%2F1%2Fr%2Fdynamodb%2Faws4_request": false,
		"http://localhost/b?AWSAccessKeyId=a": true,
	} {
		if got := Match([]string{"home.example"}, httptest.NewRequest("GET", target, nil)); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
	r := httptest.NewRequest("GET", "http://localhost/", nil)
	for auth, want := range map[string]bool{"AWS4-HMAC-SHA256 Credential=a/1/r/s3/aws4_request, x": true, "AWS4-HMAC-SHA256 Credential=a/1/r/dynamodb/aws4_request": false, "AWS a:b": true, "Basic x": false} {
		r.Header.Set("Authorization", auth)
		if got := Match(nil, r); got != want {
			t.Errorf("%s: %v", auth, got)
		}
	}
}

func FuzzXML(f *testing.F) {
	for _, k := range configurations {
		f.Add([]byte("<"+k.root+"></"+k.root+">"), k.query)
	}
	f.Add([]byte(`<LifecycleConfiguration><Rule><Status>Enabled</Status><Prefix/><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>`), "lifecycle")
	f.Add([]byte(`<CORSConfiguration><CORSRule><AllowedMethod>GET</AllowedMethod><AllowedOrigin>*</AllowedOrigin></CORSRule></CORSConfiguration>`), "cors")
	f.Add([]byte(`<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>`), "tagging")
	f.Fuzz(func(t *testing.T, text []byte, query string) {
		i := slices.IndexFunc(configurations, func(k configuration) bool { return k.query == query && k.query != "ownershipControls" })
		if i < 0 {
			return
		}
		k := configurations[i]
		v, err := k.read(nil, text)
		if err != nil {
			if _, ok := told(err); !ok {
				t.Fatalf("nobody can be told %v", err)
			}
			return
		}
		kept, err := encode(k.root, v)
		if err != nil {
			t.Skip() // no XML has such characters
		}
		if _, err := k.read(nil, kept); err != nil && xml.Unmarshal(kept, new(struct{})) == nil {
			t.Fatalf("%q was read, but not as it was kept: %q: %v", text, kept, err)
		}
	})
}

func FuzzForm(f *testing.F) {
	f.Add("--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\na\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"b\"\r\n\r\nhello\r\n--x--\r\n")
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/b", strings.NewReader(body))
		r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
		form, err := readForm(r)
		if err != nil {
			if _, ok := told(err); !ok {
				t.Fatalf("nobody can be told %v", err)
			}
			return
		}
		size := 0
		for _, v := range form.fields {
			size += len(v)
		}
		if form.file == nil || size > maxFields {
			t.Fatalf("%d bytes of fields, file %v", size, form.file)
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add("GET", "/b/k", "versionId=1", "Range", "bytes=1-2")
	f.Add("PUT", "/b/k", "", "x-amz-copy-source", "/b/x%20y?versionId=1")
	f.Add("PUT", "/b/k", "", "x-amz-tagging", "a=b&c=d")
	f.Add("GET", "/b", "list-type=2&max-keys=1&encoding-type=url", "x", "y")
	w := newWorld(f)
	w.do("PUT", "/bbb", "").want(f, "make bucket", 200)
	w.do("PUT", "/bbb", "", "X-Amz-Acl", "public-read-write")
	w.do("PUT", "/bbb?acl", "", "X-Amz-Acl", "public-read-write").want(f, "open it", 200)
	f.Fuzz(func(t *testing.T, method, path, query, name, value string) {
		if strings.ContainsAny(method, " \r\n\t") || method == "" || len(name)+len(value) > 1<<12 {
			return
		}
		r := httptest.NewRequest("GET", "http://s3.localhost/", nil)
		r.Method, r.URL.Path, r.URL.RawPath, r.URL.RawQuery = method, "/bbb"+path, "", query
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
		rec := httptest.NewRecorder()
		w.door.ServeHTTP(rec, r)
		if rec.Code >= 500 && rec.Code != http.StatusNotImplemented {
			t.Fatalf("%s %q ?%q %q: %q: %d %s", method, path, query, name, value, rec.Code, rec.Body)
		}
	})
}
