package s3

import (
	"strings"
	"testing"
)

// What suites of others ask, and S3 was seen to answer.
func TestAnswersThatOthersAskFor(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/locked", "", "X-Amz-Bucket-Object-Lock-Enabled", "true").want(t, "make bucket", 200)
	w.do("PUT", "/locked/k", "x").want(t, "put", 200)
	w.do("PUT", "/bbb/k", "hello").want(t, "put", 200)
	website := func(rule string) string {
		return `<WebsiteConfiguration><IndexDocument><Suffix>i.html</Suffix></IndexDocument><RoutingRules><RoutingRule>` + rule + `</RoutingRule></RoutingRules></WebsiteConfiguration>`
	}
	cors := func(header string) string {
		return `<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod><AllowedHeader>` + header + `</AllowedHeader></CORSRule></CORSConfiguration>`
	}
	for _, c := range []struct {
		what, method, target, body string
		headers                    []string
		status                     int
		text                       string
	}{
		// Checksums of all kinds, of "hello".
		{"SHA512", "PUT", "/bbb/c", "hello", []string{"X-Amz-Checksum-Sha512", "m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw=="}, 200, ""},
		{"MD5", "PUT", "/bbb/c", "hello", []string{"X-Amz-Checksum-Md5", "XUFAKrxLKna5cZ2REBfFkg=="}, 200, ""},
		{"XXHASH64", "PUT", "/bbb/c", "hello", []string{"X-Amz-Checksum-Xxhash64", "Jsf4OP2J2SY="}, 400, "BadDigest"},
		{"XXHASH64", "PUT", "/bbb/c", "", []string{"X-Amz-Checksum-Xxhash64", "70bbN1HY6Zk="}, 200, ""},
		{"XXHASH3", "PUT", "/bbb/c", "", []string{"X-Amz-Checksum-Xxhash3", "LQaABTjTlMI="}, 200, ""},
		{"XXHASH128", "PUT", "/bbb/c", "", []string{"X-Amz-Checksum-Xxhash128", "maoG0wFHmNhgAcMkRo1Jfw=="}, 200, ""},
		{"listed", "GET", "/bbb?prefix=c", "", nil, 200, "<ChecksumAlgorithm>XXHASH128</ChecksumAlgorithm>"},
		{"two checksums", "PUT", "/bbb/c", "hello", []string{"X-Amz-Checksum-Md5", "x", "X-Amz-Checksum-Sha1", "y"}, 400, "Expecting a single"},
		// Uploads.
		{"kind of checksum", "POST", "/bbb/u?uploads", "", []string{"X-Amz-Checksum-Type", "SOME"}, 400, "Value for x-amz-checksum-type header is invalid."},
		// Versions of which there are none.
		{"no such version", "GET", "/bbb/k?versionId=01BX5ZZKBKACTAV9WEVGEMMVRZ", "", nil, 404, "NoSuchVersion"},
		{"no version", "GET", "/bbb/k?versionId=none", "", nil, 400, "Invalid version id specified"},
		{"copy no version", "PUT", "/bbb/l", "", []string{"X-Amz-Copy-Source", "bbb/k%3FversionId=none"}, 400, "Invalid version id specified"},
		// Locks.
		{"hold never set", "GET", "/locked/k?legal-hold", "", nil, 404, "NoSuchObjectLockConfiguration"},
		{"hold taken away", "PUT", "/locked/k?legal-hold", "<LegalHold><Status>OFF</Status></LegalHold>", nil, 200, ""},
		{"hold that is none", "GET", "/locked/k?legal-hold", "", nil, 200, "<Status>OFF</Status>"},
		{"retention of nothing", "GET", "/bbb/none?retention", "", nil, 404, "NoSuchKey"},
		{"lock without locks", "PUT", "/bbb/m", "", []string{"X-Amz-Object-Lock-Legal-Hold", "ON"}, 400, "Bucket is missing ObjectLockConfiguration"},
		{"versions are left", "DELETE", "/locked", "", nil, 409, "You must delete all versions in the bucket."},
		// Lists of uploads, and rules of a bucket.
		{"after no upload", "GET", "/bbb?uploads&key-marker=a&upload-id-marker=none", "", nil, 400, "Invalid uploadId marker"},
		{"after an upload of no key", "GET", "/bbb?uploads&upload-id-marker=none", "", nil, 200, "<UploadIdMarker>none</UploadIdMarker>"},
		{"a day that is none", "PUT", "/bbb?lifecycle", "<LifecycleConfiguration><Rule><Prefix/><Status>Enabled</Status><Transition><Date>20220927</Date><StorageClass>GLACIER</StorageClass></Transition></Rule></LifecycleConfiguration>", nil, 501, "NotImplemented"},
		{"a transition", "PUT", "/bbb?lifecycle", "<LifecycleConfiguration><Rule><Prefix/><Status>Enabled</Status><Transition><Date>bad</Date><StorageClass>GLACIER</StorageClass></Transition></Rule></LifecycleConfiguration>", nil, 400, "MalformedXML"},
		// Lists of access.
		{"canned and grants", "PUT", "/bbb?acl", "", []string{"X-Amz-Acl", "private", "X-Amz-Grant-Read", "nonsense"}, 400, "Specifying both Canned ACLs"},
		{"body and grants", "PUT", "/bbb?acl", "<AccessControlPolicy/>", []string{"X-Amz-Grant-Read", "nonsense"}, 400, "UnexpectedContent"},
		{"groups come first", "PUT", "/bbb?acl", "", []string{"X-Amz-Acl", "public-read"}, 200, ""},
		// Other configurations.
		{"CORS header", "PUT", "/bbb?cors", cors("a b"), nil, 400, "contains invalid character"},
		{"CORS star", "PUT", "/bbb?cors", cors("x-*"), nil, 200, ""},
		{"empty condition", "PUT", "/bbb?website", website("<Condition></Condition><Redirect><HostName>x</HostName></Redirect>"), nil, 400, "MalformedXML"},
		{"empty redirect", "PUT", "/bbb?website", website("<Redirect></Redirect>"), nil, 400, "MalformedXML"},
		{"code", "PUT", "/bbb?website", website("<Redirect><HttpRedirectCode>306</HttpRedirectCode></Redirect>"), nil, 400, "Valid codes are 3XX except 300"},
		{"error's code", "PUT", "/bbb?website", website("<Condition><HttpErrorCodeReturnedEquals>399</HttpErrorCodeReturnedEquals></Condition><Redirect><HostName>x</HostName></Redirect>"), nil, 400, "Valid codes are 4XX or 5XX"},
		{"too many buckets", "GET", "/?max-buckets=10001", "", nil, 400, "between 1 and 10000."},
		{"directive", "PUT", "/bbb/l", "", []string{"X-Amz-Copy-Source", "bbb/k", "X-Amz-Metadata-Directive", "KEEP"}, 400, "Unknown metadata directive."},
	} {
		a := w.do(c.method, c.target, c.body, c.headers...)
		if a.status != c.status || !strings.Contains(a.body, c.text) {
			t.Errorf("%s: %d %s, want %d with %q", c.what, a.status, a.body, c.status, c.text)
		}
	}
	w.do("GET", "/bbb?acl", "").between(t, "AllUsers", "FULL_CONTROL")
	// The version of what is put while versions are suspended is not told.
	w.do("PUT", "/bbb?versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>").want(t, "suspend", 200)
	if v := w.do("PUT", "/bbb/k", "x").want(t, "put", 200).get("x-amz-version-id"); v != "" {
		t.Errorf("the put told version %q", v)
	}
	// A policy's no is told with its reason.
	w.do("PUT", "/bbb?policy", `{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bbb/k"}}`).want(t, "policy", 204)
	w.do("GET", "/bbb/k", "").want(t, "what is denied", 403, "with an explicit deny in a resource-based policy")
}

// A client that did not hear of it, or that asks twice, gets the object of its upload.
func TestUploadsAreCompletedTwice(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	id := w.do("POST", "/bbb/u?uploads", "").want(t, "upload", 200).between(t, "<UploadId>", "</UploadId>")
	tag := strings.Trim(w.do("PUT", "/bbb/u?partNumber=1&uploadId="+id, "x").want(t, "part", 200).get("ETag"), `"`)
	part := func(more string) string {
		return "<CompleteMultipartUpload><Part>" + more + "</Part></CompleteMultipartUpload>"
	}
	whole := part("<PartNumber>1</PartNumber><ETag>" + tag + "</ETag>")
	w.do("POST", "/bbb/u?uploadId="+id, part("<ETag>"+tag+"</ETag>")).want(t, "no number", 400, "MalformedXML")
	w.do("POST", "/bbb/u?uploadId="+id, part("<PartNumber>1</PartNumber><ETag>"+tag+"</ETag><ChecksumCRC32>?</ChecksumCRC32>")).want(t, "bad checksum", 400, "Invalid Base64")
	w.do("POST", "/bbb/u?uploadId="+id, whole, "X-Amz-Mp-Object-Size", "-1").want(t, "size", 400, "is less than zero")
	for range 2 {
		w.do("POST", "/bbb/u?uploadId="+id, whole).want(t, "complete", 200, "-1&quot;")
	}
}
