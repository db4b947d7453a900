package s3

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"regexp"
	"strings"
	"testing"
	"time"
)

// between returns what is between two texts in an answer.
func (a answer) between(t testing.TB, before, after string) string {
	t.Helper()
	_, rest, ok := strings.Cut(a.body, before)
	text, _, ok2 := strings.Cut(rest, after)
	if !ok || !ok2 {
		t.Fatalf("no %s…%s in %s", before, after, a.body)
	}
	return text
}

func sum64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func crc(text string) []byte {
	v := crc32.ChecksumIEEE([]byte(text))
	return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
}

func TestVersionsStayUntilTheyAreDeleted(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/bbb/k", "zero").want(t, "put before", 200)
	w.do("PUT", "/bbb?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>").want(t, "enable", 200)
	w.do("GET", "/bbb?versioning", "").want(t, "versioning", 200, "<Status>Enabled</Status>")
	one := w.do("PUT", "/bbb/k", "one").want(t, "put", 200).get("x-amz-version-id")
	two := w.do("PUT", "/bbb/k", "two").want(t, "put", 200).get("x-amz-version-id")
	if one == two || one == "" {
		t.Fatalf("versions %q and %q", one, two)
	}
	w.do("GET", "/bbb/k?versionId="+one, "").want(t, "get the first", 200, "one")
	w.do("GET", "/bbb/k?versionId=null", "").want(t, "get that of before", 200, "zero")
	marker := w.do("DELETE", "/bbb/k", "").want(t, "delete", 204).has(t, "x-amz-delete-marker", "true").get("x-amz-version-id")
	w.do("GET", "/bbb/k", "").want(t, "get what is deleted", 404, "NoSuchKey").has(t, "x-amz-delete-marker", "true")
	w.do("GET", "/bbb/k?versionId="+marker, "").want(t, "get a marker", 405, "MethodNotAllowed").has(t, "Allow", "DELETE")
	list := w.do("GET", "/bbb?versions", "").want(t, "list", 200, "<DeleteMarker><Key>k</Key><VersionId>"+marker, "<VersionId>null</VersionId>")
	if n := strings.Count(list.body, "<Version>"); n != 3 {
		t.Errorf("%d versions", n)
	}
	page := w.do("GET", "/bbb?versions&max-keys=2", "").want(t, "page", 200, "<IsTruncated>true</IsTruncated>")
	next := page.between(t, "<NextVersionIdMarker>", "<")
	w.do("GET", "/bbb?versions&key-marker=k&version-id-marker="+next, "").want(t, "next page", 200, "<VersionId>"+one)
	w.do("DELETE", "/bbb/k?versionId="+marker, "").want(t, "delete the marker", 204).has(t, "x-amz-delete-marker", "true")
	w.do("GET", "/bbb/k", "").want(t, "get again", 200, "two").has(t, "x-amz-version-id", two)
	w.do("GET", "/bbb/k?versionId=nonsense", "").want(t, "nonsense", 400, "InvalidArgument")
	w.do("GET", "/bbb/k?versionId="+strings.Repeat("0", 32), "").want(t, "no version", 404, "NoSuchVersion")
	w.do("DELETE", "/bbb/k?versionId="+strings.Repeat("0", 32), "").want(t, "delete no version", 204)
	w.do("PUT", "/bbb/copy", "", "X-Amz-Copy-Source", "/bbb/k?versionId="+one).want(t, "copy a version", 200).has(t, "x-amz-copy-source-version-id", one)
	w.do("GET", "/bbb/copy", "").want(t, "get the copy", 200, "one")
}

func TestPartsBecomeAnObject(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	a, b := "part one, ", "part two"
	begin := func(headers ...string) string {
		return w.do("POST", "/bbb/big?uploads", "", headers...).want(t, "begin", 200).between(t, "<UploadId>", "<")
	}
	id := begin("X-Amz-Checksum-Algorithm", "CRC32", "X-Amz-Checksum-Type", "FULL_OBJECT", "Content-Type", "text/plain")
	w.do("PUT", "/bbb/big?partNumber=1&uploadId="+id, a, "X-Amz-Checksum-Crc32", sum64(crc("other"))).want(t, "a wrong checksum", 400, "BadDigest")
	w.do("PUT", "/bbb/big?partNumber=1&uploadId="+id, a, "X-Amz-Checksum-Sha1", "AAAA").want(t, "a checksum that is none", 400, "InvalidRequest")
	one := w.do("PUT", "/bbb/big?partNumber=1&uploadId="+id, a, "X-Amz-Checksum-Crc32", sum64(crc(a))).want(t, "part", 200).get("ETag")
	two := w.do("PUT", "/bbb/big?partNumber=3&uploadId="+id, b).want(t, "part", 200).get("ETag")
	w.do("PUT", "/bbb/big?partNumber=0&uploadId="+id, b).want(t, "part 0", 400, "InvalidArgument")
	w.do("PUT", "/bbb/big?partNumber=1&uploadId=none", b).want(t, "no upload", 404, "NoSuchUpload")
	w.do("GET", "/bbb?uploads", "").want(t, "uploads", 200, "<UploadId>"+id, "<Key>big</Key>")
	w.do("GET", "/bbb/big?uploadId="+id+"&max-parts=1", "").want(t, "parts", 200, "<PartNumber>1</PartNumber>", "<IsTruncated>true</IsTruncated>", "<ChecksumCRC32>"+sum64(crc(a)))
	complete := func(parts ...string) string {
		text := ""
		for i := 0; i < len(parts); i += 2 {
			text += "<Part><PartNumber>" + parts[i] + "</PartNumber><ETag>" + parts[i+1] + "</ETag></Part>"
		}
		return "<CompleteMultipartUpload>" + text + "</CompleteMultipartUpload>"
	}
	at := "/bbb/big?uploadId=" + id
	w.do("POST", at, complete("3", two, "1", one)).want(t, "bad order", 400, "InvalidPartOrder")
	w.do("POST", at, complete("1", one, "2", two)).want(t, "no such part", 400, "InvalidPart")
	w.do("POST", at, complete()).want(t, "no parts", 400, "MalformedXML")
	w.do("POST", at, complete("1", one, "3", two), "X-Amz-Checksum-Crc32", sum64(crc("x"))).want(t, "a wrong checksum", 400, "BadDigest")
	w.do("POST", at, complete("1", one, "3", two), "X-Amz-Mp-Object-Size", "3").want(t, "a wrong size", 400, "InvalidRequest")
	h := md5.New()
	for _, p := range []string{a, b} {
		sum := md5.Sum([]byte(p))
		h.Write(sum[:])
	}
	etag := hex.EncodeToString(h.Sum(nil)) + "-2"
	w.do("POST", at, complete("1", one, "3", two), "X-Amz-Checksum-Crc32", sum64(crc(a+b))).want(t, "complete", 200, etag, "<ChecksumCRC32>"+sum64(crc(a+b)), "FULL_OBJECT")
	w.do("GET", "/bbb/big", "", "X-Amz-Checksum-Mode", "ENABLED").want(t, "get", 200, a+b).has(t, "x-amz-checksum-crc32", sum64(crc(a+b))).has(t, "Content-Type", "text/plain")
	w.do("GET", "/bbb/big?partNumber=2", "").want(t, "get a part", 206, b).has(t, "x-amz-mp-parts-count", "2").has(t, "Content-Range", "bytes 10-17/18")
	w.do("GET", "/bbb/big?partNumber=3", "").want(t, "get no part", 416, "InvalidPartNumber")
	w.do("GET", "/bbb/big?attributes", "", "X-Amz-Object-Attributes", "ETag, ObjectParts,Checksum,ObjectSize").want(t, "attributes", 200, "<ETag>"+etag, "<PartsCount>2</PartsCount>", "<ObjectSize>18</ObjectSize>", "<ChecksumType>FULL_OBJECT")
	w.do("GET", "/bbb/big?attributes", "").want(t, "no attributes", 400, "InvalidRequest")

	id = begin("X-Amz-Checksum-Algorithm", "SHA256")
	w.do("PUT", "/bbb/big?partNumber=1&uploadId="+id, a).want(t, "part without a checksum", 400, "InvalidRequest")
	part := w.do("PUT", "/bbb/big?partNumber=1&uploadId="+id, "", "X-Amz-Copy-Source", "bbb/big", "X-Amz-Copy-Source-Range", "bytes=5-7").want(t, "copy a part", 200)
	sum := sha256.Sum256([]byte("one"))
	if got := part.between(t, "<ChecksumSHA256>", "<"); got != sum64(sum[:]) {
		t.Errorf("the part's checksum is %s", got)
	}
	w.do("PUT", "/bbb/big?partNumber=1&uploadId="+id, "", "X-Amz-Copy-Source", "bbb/big", "X-Amz-Copy-Source-Range", "bytes=5-70").want(t, "copy too much", 400, "InvalidArgument")
	w.do("POST", "/bbb/big?uploadId="+id, complete("1", part.between(t, "<ETag>", "</ETag>"))).want(t, "complete without checksums", 400, "InvalidRequest")
	whole := sha256.Sum256(sum[:])
	w.do("POST", "/bbb/big?uploadId="+id, strings.Replace(complete("1", part.between(t, "<ETag>", "</ETag>")), "</Part>", "<ChecksumSHA256>"+sum64(sum[:])+"</ChecksumSHA256></Part>", 1)).
		want(t, "complete", 200, "<ChecksumSHA256>"+sum64(whole[:])+"-1", "COMPOSITE")
	id = begin()
	w.do("DELETE", "/bbb/big?uploadId="+id, "").want(t, "abort", 204)
	w.do("DELETE", "/bbb/big?uploadId="+id, "").want(t, "abort again", 404, "NoSuchUpload")
	w.do("POST", "/bbb/big?uploads", "", "X-Amz-Checksum-Algorithm", "CRC64NVME", "X-Amz-Checksum-Type", "COMPOSITE").want(t, "no such kind", 400, "InvalidRequest")
}

func TestBodiesAreWhatTheyAreSaidToBe(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	sum := md5.Sum([]byte("text"))
	w.do("PUT", "/bbb/k", "text", "Content-MD5", sum64(sum[:])).want(t, "MD5", 200)
	w.do("PUT", "/bbb/k", "other", "Content-MD5", sum64(sum[:])).want(t, "wrong MD5", 400, "BadDigest")
	w.do("PUT", "/bbb/k", "text", "Content-MD5", "AAAA").want(t, "no MD5", 400, "InvalidDigest")
	w.do("PUT", "/bbb/k", "text", "X-Amz-Checksum-Crc32", sum64(crc("text")), "X-Amz-Checksum-Sha1", "AAAA").want(t, "two checksums", 400)
	w.do("PUT", "/bbb/k", "text", "X-Amz-Checksum-Crc32", "AAAA").want(t, "no CRC32", 400, "InvalidRequest")
	w.do("PUT", "/bbb/k", "text", "X-Amz-Sdk-Checksum-Algorithm", "CRC32").want(t, "an algorithm alone", 400, "InvalidRequest")
	r := w.request("PUT", "/bbb/k", "text")
	w.sign("owner", r, "text")
	r.Body = io.NopCloser(strings.NewReader("TEXT"))
	w.serve(r).want(t, "another body", 400, "XAmzContentSHA256Mismatch")
	r = w.request("PUT", "/bbb/k", "text")
	w.sign("owner", r, "text")
	r.Body = io.NopCloser(strings.NewReader("tex"))
	w.serve(r).want(t, "a short body", 400, "IncompleteBody")
	w.do("GET", "/bbb/k", "").want(t, "what is there", 200, "text")
	w.do("PUT", "/bbb/k", "", "X-Amz-Meta-Long", strings.Repeat("x", 2100)).want(t, "much metadata", 400, "MetadataTooLarge")
	w.do("PUT", "/bbb/k", "", "X-Other", strings.Repeat("x", 20000)).want(t, "large headers", 400, "RequestHeaderSectionTooLarge")
	w.do("PUT", "/bbb/"+strings.Repeat("k", 1025), "").want(t, "a long key", 400, "KeyTooLongError")
	w.do("PUT", "/bbb/k", "", "X-Amz-Storage-Class", "PAPER").want(t, "no class", 400, "InvalidStorageClass")
	w.do("PUT", "/bbb/k", "", "X-Amz-Server-Side-Encryption", "aws:kms").want(t, "KMS", 501, "NotImplemented")
	w.do("PUT", "/bbb/k", "", "X-Amz-Server-Side-Encryption", "AES256").want(t, "AES256", 200).has(t, "x-amz-server-side-encryption", "AES256")
	w.do("PUT", "/bbb/k", "new", "If-None-Match", "*").want(t, "put what is there", 412, "PreconditionFailed")
	w.do("PUT", "/bbb/new", "new", "If-None-Match", "*").want(t, "put what is not there", 200)
	w.do("PUT", "/bbb/none", "new", "If-Match", "abc").want(t, "replace nothing", 404)
	chunks := "4\r\ntext\r\n0\r\nx-amz-checksum-crc32:%s\r\n\r\n"
	for sum, status := range map[string]int{sum64(crc("text")): 200, sum64(crc("other")): 400, "?": 400} {
		r := w.request("PUT", "/bbb/chunks", fmt.Sprintf(chunks, sum), "X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Decoded-Content-Length", "4", "X-Amz-Trailer", "x-amz-checksum-crc32", "Content-Encoding", "gzip,aws-chunked")
		w.do("PUT", "/bbb?acl", "", "X-Amz-Acl", "public-read-write").want(t, "open the bucket", 200)
		w.serve(r).want(t, "chunks with the checksum "+sum, status)
	}
	w.do("GET", "/bbb/chunks", "").want(t, "chunks", 200, "text").has(t, "Content-Encoding", "gzip")
}

func TestManyAreDeletedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	for _, k := range []string{"a", "b", "c%26%0A"} {
		w.do("PUT", "/bbb/"+k, "x").want(t, "put", 200)
	}
	w.do("POST", "/bbb?delete", "<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object><Object><Key>c&amp;&#10;</Key></Object></Delete>").
		want(t, "delete", 200, "<Deleted><Key>a</Key></Deleted>", "<Deleted><Key>none</Key></Deleted>", "<Deleted><Key>c&amp;\n</Key></Deleted>")
	quiet := w.do("POST", "/bbb?delete", "<Delete><Quiet>true</Quiet><Object><Key>b</Key><ETag>no</ETag></Object><Object><Key>a</Key></Object></Delete>").want(t, "quiet", 200, "<Error><Key>b</Key>", "PreconditionFailed")
	if strings.Contains(quiet.body, "<Deleted>") {
		t.Errorf("not quiet: %s", quiet.body)
	}
	w.do("POST", "/bbb?delete", "<Delete>"+strings.Repeat("<Object><Key>a</Key></Object>", 1001)+"</Delete>").want(t, "too many", 400, "MalformedXML")
	w.do("POST", "/bbb?delete", "<Delete><Object>").want(t, "half", 400, "MalformedXML")
	w.do("POST", "/bbb?delete", "").want(t, "nothing", 400, "MissingRequestBodyError")
	w.as("reader", "POST", "/bbb?delete", "<Delete><Object><Key>b</Key></Object></Delete>").want(t, "as a reader", 403)
	w.do("GET", "/bbb", "").want(t, "list", 200, "<Key>b</Key>")
}

func TestOthersMayDoWhatTheyAreGiven(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/bbb/k", "text").want(t, "put", 200)
	w.do("PUT", "/bbb/open", "text", "X-Amz-Acl", "public-read").want(t, "put for all", 200)
	w.anon("GET", "/bbb/k", "").want(t, "get as nobody", 403, "AccessDenied")
	w.anon("GET", "/bbb/open", "").want(t, "get what is public", 200, "text")
	w.anon("GET", "/bbb/open?response-content-type=a/b", "").want(t, "with another type", 400, "InvalidRequest")
	w.anon("GET", "/bbb/none", "").want(t, "get nothing as nobody", 403)
	w.anon("GET", "/", "").want(t, "list buckets as nobody", 403)
	w.as("other", "GET", "/bbb/k", "").want(t, "get as another app", 403)
	w.as("unknown", "GET", "/bbb/k", "").want(t, "get with no key", 403, "InvalidAccessKeyId")
	w.as("reader", "GET", "/bbb/k", "").want(t, "get as a reader", 200)
	w.as("reader", "PUT", "/bbb/k", "x").want(t, "put as a reader", 403)

	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bbb/*","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}},
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::other:root"},"Action":["s3:PutObject","s3:ListBucket"],"Resource":["arn:aws:s3:::bbb","arn:aws:s3:::bbb/*"]},
		{"Effect":"Deny","Principal":"*","Action":"s3:DeleteObject","Resource":"arn:aws:s3:::bbb/*"}]}`
	w.do("GET", "/bbb?policy", "").want(t, "no policy", 404, "NoSuchBucketPolicy")
	w.do("PUT", "/bbb?policy", `{"x"`).want(t, "a bad policy", 400, "MalformedPolicy")
	w.do("PUT", "/bbb?policy", policy).want(t, "set the policy", 204)
	w.do("GET", "/bbb?policy", "").want(t, "get the policy", 200, policy)
	w.do("GET", "/bbb?policyStatus", "").want(t, "status", 200, "<IsPublic>false</IsPublic>")
	w.anon("GET", "/bbb/k", "").want(t, "get as nobody", 200, "text")
	w.as("other", "PUT", "/bbb/theirs", "x").want(t, "put as another app", 200)
	w.as("other", "GET", "/bbb?prefix=t", "").want(t, "list as another app", 200, "<Key>theirs</Key>")
	w.do("DELETE", "/bbb/k", "").want(t, "delete what the policy keeps", 403)
	w.as("other", "DELETE", "/bbb?policy", "").want(t, "delete the policy as another app", 403)
	w.do("DELETE", "/bbb?policy", "").want(t, "delete the policy", 204)
	w.do("DELETE", "/bbb/k", "").want(t, "delete", 204)

	w.do("PUT", "/bbb?acl", "", "X-Amz-Acl", "public-read").want(t, "set the ACL", 200)
	w.do("GET", "/bbb?acl", "").want(t, "get the ACL", 200, "AllUsers", "<Permission>READ</Permission>", "FULL_CONTROL")
	w.anon("GET", "/bbb", "").want(t, "list as nobody", 200)
	w.do("PUT", "/bbb?publicAccessBlock", "<PublicAccessBlockConfiguration><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy></PublicAccessBlockConfiguration>").want(t, "block", 200)
	w.anon("GET", "/bbb", "").want(t, "list what is blocked", 403)
	w.do("PUT", "/bbb?policy", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::bbb/*"}}`).want(t, "a public policy", 403)
	w.do("PUT", "/bbb?acl", "", "X-Amz-Acl", "private").want(t, "set the ACL", 200)
	w.do("PUT", "/bbb?ownershipControls", "<OwnershipControls><Rule><ObjectOwnership>BucketOwnerEnforced</ObjectOwnership></Rule></OwnershipControls>").want(t, "no ACLs", 200)
	w.do("PUT", "/bbb/open?acl", "", "X-Amz-Acl", "public-read").want(t, "an ACL", 400, "AccessControlListNotSupported")
	w.do("PUT", "/bbb/mine", "x", "X-Amz-Acl", "private").want(t, "an ACL that is the only one", 400, "AccessControlListNotSupported")
	w.do("PUT", "/bbb/mine", "x", "X-Amz-Acl", "bucket-owner-full-control").want(t, "an ACL that changes nothing", 200)
	w.do("GET", "/bbb/k", "", "X-Amz-Expected-Bucket-Owner", "123").want(t, "another owner", 403)
}

// Who may put may give what it puts to the bucket's owner, and to nobody else.
func TestObjectsAreGivenToTheBucketsOwner(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	mine := "id=" + canonicalID("")
	w.do("PUT", "/bbb?policy", `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::bbb/*","Condition":{"StringEquals":{"s3:x-amz-grant-full-control":"`+mine+`"}}},
		{"Effect":"Allow","Principal":"*","Action":"s3:PutObject","Resource":"arn:aws:s3:::bbb/*","Condition":{"StringEquals":{"s3:x-amz-acl":["bucket-owner-full-control","public-read"]}}}]}`).want(t, "policy", 204)
	w.as("other", "PUT", "/bbb/k", "x").want(t, "put", 403)
	w.as("other", "PUT", "/bbb/k", "x", "X-Amz-Grant-Full-Control", mine).want(t, "put for the owner", 200)
	w.as("other", "PUT", "/bbb/l", "x", "X-Amz-Acl", "bucket-owner-full-control").want(t, "put for the owner", 200)
	w.as("other", "PUT", "/bbb/m", "x", "X-Amz-Acl", "public-read").want(t, "put for all", 403)
	w.do("GET", "/bbb/k?acl", "").want(t, "the owner's", 200, "FULL_CONTROL")
}

func TestConfigurationsComeBack(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	for query, text := range map[string]string{
		"cors":         `<CORSConfiguration><CORSRule><AllowedOrigin>http://a</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>`,
		"lifecycle":    `<LifecycleConfiguration><Rule><ID>x</ID><Filter><Prefix>a/</Prefix></Filter><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>`,
		"website":      `<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument></WebsiteConfiguration>`,
		"notification": `<NotificationConfiguration><QueueConfiguration><Id>q</Id><Queue>arn:aws:sqs:::q</Queue><Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>`,
		"tagging":      `<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>`,
		"encryption":   `<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>`,
	} {
		none := 404
		if query == "notification" {
			none = 200
		}
		w.do("GET", "/bbb?"+query, "").want(t, "get no "+query, none)
		if a := w.do("PUT", "/bbb?"+query, text); a.status != 200 && a.status != 204 {
			t.Errorf("put %s: %d %s", query, a.status, a.body)
		}
		inner := regexp.MustCompile(`^<\w+>|</\w+>$`).ReplaceAllString(text, "")
		if query == "encryption" {
			inner = "<SSEAlgorithm>AES256</SSEAlgorithm>"
		}
		if query == "lifecycle" {
			inner = "<Days>1</Days>"
		}
		w.do("GET", "/bbb?"+query, "").want(t, "get "+query, 200, inner, namespace)
		w.do("PUT", "/bbb?"+query, "<Other/>").want(t, "put another "+query, 400, "MalformedXML")
		w.do("DELETE", "/bbb?"+query, "").want(t, "delete "+query, 204)
		w.do("GET", "/bbb?"+query, "").want(t, "get no "+query+" again", none)
	}
	w.do("GET", "/bbb?replication", "").want(t, "replication", 404, "ReplicationConfigurationNotFoundError")
	w.do("PUT", "/bbb?replication", "").want(t, "put replication", 501, "NotImplemented")
	w.do("GET", "/bbb?requestPayment", "").want(t, "payment", 200, "<Payer>BucketOwner</Payer>")
	w.do("GET", "/bbb?location", "").want(t, "location", 200, "<LocationConstraint")
	w.do("POST", "/bbb/k?select&select-type=2", "").want(t, "select", 501)
	// A list of what there can be many of is empty, and that there is none can be said.
	for _, query := range []string{"analytics", "inventory", "metrics", "intelligent-tiering"} {
		w.do("GET", "/bbb?"+query, "").want(t, "list "+query, 200, "<IsTruncated>false</IsTruncated>")
		w.do("GET", "/bbb?"+query+"&id=a", "").want(t, "get "+query, 404, "NoSuchConfiguration")
		w.do("PUT", "/bbb?"+query+"&id=a", "<A/>").want(t, "put "+query, 501, "NotImplemented")
	}
	for query, text := range map[string]string{
		"logging":        "<BucketLoggingStatus>%</BucketLoggingStatus>|<LoggingEnabled><TargetBucket>b</TargetBucket></LoggingEnabled>|",
		"requestPayment": "<RequestPaymentConfiguration>%</RequestPaymentConfiguration>|<Payer>Requester</Payer>|<Payer>BucketOwner</Payer>",
		"accelerate":     "<AccelerateConfiguration>%</AccelerateConfiguration>|<Status>Enabled</Status>|<Status>Suspended</Status>",
		"abac":           "<AbacStatus>%</AbacStatus>|<Status>Enabled</Status>|<Status>Disabled</Status>",
	} {
		part := strings.Split(text, "|")
		w.do("PUT", "/bbb?"+query, strings.Replace(part[0], "%", part[1], 1)).want(t, "put "+query, 501, "NotImplemented")
		w.do("PUT", "/bbb?"+query, strings.Replace(part[0], "%", part[2], 1)).want(t, "put no "+query, 200)
		w.do("GET", "/bbb?"+query, "").want(t, "get "+query, 200)
	}
	w.do("PUT", "/bbb/k", "text").want(t, "put", 200)
	for _, method := range []string{"PUT", "DELETE"} {
		w.do(method, "/bbb/k?annotation&annotationName=a", "note").want(t, method+" annotation", 501, "NotImplemented")
		w.do(method, "/bbb/k?torrent", "note").want(t, method+" torrent", 405, "MethodNotAllowed")
		w.do(method, "/bbb?versions", "").want(t, method+" versions", 405, "MethodNotAllowed")
	}
	w.do("GET", "/bbb/k", "").want(t, "what is as it was", 200, "text")
	// What S3 has besides is no bucket that is made, and no list of objects.
	w.do("PUT", "/bbb2?metadataInventoryTable", "<A/>").want(t, "another configuration, of no bucket", 404)
	w.do("GET", "/bbb?metadataJournalTable", "").want(t, "another configuration", 404, "NoSuchConfiguration")
}

func TestBucketsAreInTheRegionOfTheirClient(t *testing.T) {
	w := newWorld(t)
	in := func(region string) string {
		return "<CreateBucketConfiguration><LocationConstraint>" + region + "</LocationConstraint></CreateBucketConfiguration>"
	}
	w.do("PUT", "/one", in("eu-west-1")).want(t, "a region that is not signed for", 400, "InvalidLocationConstraint")
	w.region = "eu-west-1"
	w.do("PUT", "/one", in("eu-west-1")).want(t, "a region", 200)
	w.do("PUT", "/two", "").want(t, "no region", 200)
	w.do("PUT", "/three", in("eu-north-1")).want(t, "another one", 400, "InvalidLocationConstraint")
	w.region = "us-east-1"
	w.do("GET", "/one?location", "").want(t, "location", 200, ">eu-west-1</LocationConstraint>")
	w.do("HEAD", "/one", "").want(t, "head", 200).has(t, "x-amz-bucket-region", "eu-west-1")
	w.do("HEAD", "/two", "").want(t, "head", 200).has(t, "x-amz-bucket-region", "us-east-1")
}

func TestPagesOfOtherOriginsAreAnswered(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/bbb/k", "text", "X-Amz-Acl", "public-read").want(t, "put", 200)
	ask := []string{"Origin", "http://a.example", "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "X-Amz-Date, authorization"}
	w.anon("OPTIONS", "/bbb/k", "", ask...).want(t, "before", 403, "AccessForbidden")
	w.do("PUT", "/bbb?cors", `<CORSConfiguration><CORSRule><AllowedOrigin>http://*.example</AllowedOrigin><AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod><AllowedHeader>*</AllowedHeader>
		<ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule></CORSConfiguration>`).want(t, "set", 200)
	w.anon("OPTIONS", "/bbb/k", "", ask...).want(t, "preflight", 200).has(t, "Access-Control-Allow-Origin", "http://a.example").has(t, "Access-Control-Allow-Headers", "x-amz-date, authorization").has(t, "Access-Control-Max-Age", "60")
	w.anon("GET", "/bbb/k", "", "Origin", "http://a.example").want(t, "get", 200).has(t, "Access-Control-Allow-Origin", "http://a.example").has(t, "Access-Control-Expose-Headers", "ETag")
	w.anon("GET", "/bbb/k", "", "Origin", "http://b.other").want(t, "get elsewhere", 200).has(t, "Access-Control-Allow-Origin", "")
	w.anon("OPTIONS", "/bbb/k", "", "Origin", "http://b.other", "Access-Control-Request-Method", "PUT").want(t, "preflight elsewhere", 403)
	w.anon("OPTIONS", "/bbb/k", "").want(t, "no origin", 400)
}

func TestBucketsAreWebsites(t *testing.T) {
	w := newWorld(t)
	site := []string{"Host", "bbb.s3-website.localhost"}
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.anon("GET", "/", "", site...).want(t, "no website", 404, "NoSuchWebsiteConfiguration")
	w.do("PUT", "/bbb?website", `<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument><ErrorDocument><Key>error.html</Key></ErrorDocument>
		<RoutingRules><RoutingRule><Condition><KeyPrefixEquals>old/</KeyPrefixEquals></Condition><Redirect><ReplaceKeyPrefixWith>new/</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>`).want(t, "set", 200)
	for key, text := range map[string]string{"index.html": "home", "docs/index.html": "docs", "error.html": "sorry"} {
		w.do("PUT", "/bbb/"+key, text, "X-Amz-Acl", "public-read", "Content-Type", "text/html").want(t, "put", 200)
	}
	w.do("PUT", "/bbb/secret", "x").want(t, "put", 200)
	w.do("PUT", "/bbb/gone", "x", "X-Amz-Acl", "public-read", "X-Amz-Website-Redirect-Location", "/here").want(t, "put", 200)
	w.anon("GET", "/", "", site...).want(t, "home", 200, "home").has(t, "Content-Type", "text/html")
	w.anon("GET", "/docs/", "", site...).want(t, "folder", 200, "docs")
	w.anon("GET", "/docs", "", site...).want(t, "folder without a slash", 302).has(t, "Location", "/docs/")
	w.anon("GET", "/none", "", site...).want(t, "nothing", 403, "sorry")
	w.anon("GET", "/secret", "", site...).want(t, "secret", 403, "sorry")
	w.anon("GET", "/gone", "", site...).want(t, "redirect", 301).has(t, "Location", "/here")
	w.anon("GET", "/old/a%20b", "", site...).want(t, "rule", 301).has(t, "Location", "http://bbb.s3-website.localhost/new/a%20b")
	w.anon("PUT", "/x", "", site...).want(t, "put", 405)
}

func TestFormsAreTaken(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	scope := "owner/20261123/us-east-1/s3/aws4_request"
	post := func(policy map[string]any, fields ...string) answer {
		t.Helper()
		var b bytes.Buffer
		form := multipart.NewWriter(&b)
		if policy != nil {
			text, err := json.Marshal(policy)
			if err != nil {
				t.Fatal(err)
			}
			encoded := sum64(text)
			key := []byte("AWS4secret of owner")
			for _, part := range []string{"20261123", "us-east-1", "s3", "aws4_request", encoded} {
				h := hmac.New(sha256.New, key)
				h.Write([]byte(part))
				key = h.Sum(nil)
			}
			fields = append(fields, "policy", encoded, "x-amz-algorithm", "AWS4-HMAC-SHA256", "x-amz-credential", scope, "x-amz-date", "20261123T120000Z", "x-amz-signature", hex.EncodeToString(key))
		}
		for i := 0; i < len(fields); i += 2 {
			if err := form.WriteField(fields[i], fields[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		file, err := form.CreateFormFile("file", "pic.jpg")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(file, "the file")
		if err := form.Close(); err != nil {
			t.Fatal(err)
		}
		return w.anon("POST", "/bbb", b.String(), "Content-Type", form.FormDataContentType())
	}
	policy := func(more ...any) map[string]any {
		return map[string]any{"expiration": "2026-11-23T13:00:00Z", "conditions": append([]any{map[string]string{"bucket": "bbb"}, []string{"starts-with", "$key", "up/"},
			[]string{"starts-with", "$x-amz-credential", ""}, []string{"eq", "$x-amz-algorithm", "AWS4-HMAC-SHA256"}, []string{"starts-with", "$x-amz-date", ""}}, more...)}
	}
	post(nil, "key", "up/a").want(t, "as nobody", 403)
	post(policy(), "key", "up/${filename}").want(t, "a form", 204).has(t, "ETag", `"`+hex.EncodeToString(func() []byte { s := md5.Sum([]byte("the file")); return s[:] }())+`"`)
	w.do("GET", "/bbb/up/pic.jpg", "").want(t, "what was posted", 200, "the file")
	post(policy(), "key", "down/a").want(t, "another key", 403)
	post(policy(), "key", "up/a", "acl", "public-read").want(t, "a field too many", 403)
	post(policy([]any{"content-length-range", 1, 3}), "key", "up/a").want(t, "too large", 400, "EntityTooLarge")
	post(policy([]any{"content-length-range", 100, 300}), "key", "up/a").want(t, "too small", 400, "EntityTooSmall")
	post(policy([]string{"starts-with", "$success_action_status", ""}), "key", "up/a", "success_action_status", "201").want(t, "with a document", 201, "<Key>up/a</Key>")
	post(policy([]string{"starts-with", "$success_action_redirect", ""}), "key", "up/a b", "success_action_redirect", "http://x/y?z=1").want(t, "with a redirect", 303).
		has(t, "Location", "http://x/y?z=1&bucket=bbb&key=up/a%20b&etag=%22"+strings.Trim(w.do("HEAD", "/bbb/up/a", "").get("ETag"), `"`)+"%22")
	w.anon("POST", "/bbb", "nothing", "Content-Type", "multipart/form-data; boundary=x").want(t, "no form", 400)
	w.anon("POST", "/bbb", "nothing", "Content-Type", "text/plain").want(t, "no form", 412, "enclosure-type")
	w.clock.Advance(2 * time.Hour)
	post(policy(), "key", "up/a").want(t, "too late", 403, "expired")
}

func TestLocksHold(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("GET", "/bbb?object-lock", "").want(t, "no locks", 404, "ObjectLockConfigurationNotFoundError")
	w.do("PUT", "/bbb/k?legal-hold", "<LegalHold><Status>ON</Status></LegalHold>").want(t, "hold of nothing", 404, "NoSuchKey")
	w.do("PUT", "/locked", "", "X-Amz-Bucket-Object-Lock-Enabled", "true").want(t, "make bucket", 200)
	w.do("PUT", "/locked?object-lock", "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>").want(t, "a default", 200)
	w.do("GET", "/locked?object-lock", "").want(t, "get it", 200, "<Days>1</Days>", "GOVERNANCE")
	id := w.do("PUT", "/locked/k", "x").want(t, "put", 200).get("x-amz-version-id")
	w.do("HEAD", "/locked/k", "").want(t, "head", 200).has(t, "x-amz-object-lock-mode", "GOVERNANCE")
	w.do("DELETE", "/locked/k?versionId="+id, "").want(t, "delete what is locked", 403, "AccessDenied")
	w.do("PUT", "/locked/k?legal-hold&versionId="+id, "<LegalHold><Status>ON</Status></LegalHold>").want(t, "hold", 200)
	w.do("DELETE", "/locked/k?versionId="+id, "", "X-Amz-Bypass-Governance-Retention", "true").want(t, "delete what is held", 403)
	w.do("PUT", "/locked/k?legal-hold&versionId="+id, "<LegalHold><Status>OFF</Status></LegalHold>").want(t, "let go", 200)
	w.do("PUT", "/locked/k?retention&versionId="+id, "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-11-30T00:00:00Z</RetainUntilDate></Retention>").want(t, "another mode", 403)
	w.do("PUT", "/locked/k?retention&versionId="+id, "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2020-11-30T00:00:00Z</RetainUntilDate></Retention>").want(t, "in the past", 400, "InvalidArgument")
	w.do("GET", "/locked/k?retention", "").want(t, "retention", 200, "<Mode>GOVERNANCE</Mode>")
	w.do("DELETE", "/locked/k?versionId="+id, "", "X-Amz-Bypass-Governance-Retention", "true").want(t, "go past", 204)
	w.do("PUT", "/locked?versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>").want(t, "suspend", 409, "InvalidBucketState")
}

func TestTagsMetadataAndCopies(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/bbb/k", "text", "X-Amz-Tagging", "a=b&c=", "X-Amz-Meta-One", "1", "Cache-Control", "no-cache").want(t, "put", 200)
	w.do("GET", "/bbb/k", "").want(t, "get", 200).has(t, "x-amz-tagging-count", "2").has(t, "Cache-Control", "no-cache")
	w.do("GET", "/bbb/k?tagging", "").want(t, "tags", 200, "<Tag><Key>a</Key><Value>b</Value></Tag>")
	w.do("PUT", "/bbb/k", "", "X-Amz-Tagging", "a=b&a=c").want(t, "twice", 400, "InvalidArgument")
	w.do("PUT", "/bbb/k?tagging", "<Tagging><TagSet><Tag><Key>a*</Key><Value/></Tag></TagSet></Tagging>").want(t, "a bad tag", 400, "InvalidTag")
	w.do("PUT", "/bbb/copy", "", "X-Amz-Copy-Source", "/bbb/k").want(t, "copy", 200, "<ETag>")
	w.do("GET", "/bbb/copy", "").want(t, "the copy", 200, "text").has(t, "x-amz-meta-one", "1").has(t, "x-amz-tagging-count", "2")
	w.do("PUT", "/bbb/k", "", "X-Amz-Copy-Source", "/bbb/k").want(t, "onto itself", 400, "InvalidRequest")
	w.do("PUT", "/bbb/k", "", "X-Amz-Copy-Source", "/bbb/k", "X-Amz-Metadata-Directive", "REPLACE", "X-Amz-Meta-Two", "2").want(t, "onto itself", 200)
	w.do("GET", "/bbb/k", "").want(t, "other metadata", 200).has(t, "x-amz-meta-one", "").has(t, "x-amz-meta-two", "2")
	w.do("PUT", "/bbb/copy", "", "X-Amz-Copy-Source", "/bbb/k", "X-Amz-Copy-Source-If-None-Match", "*").want(t, "not if it is there", 412)
	w.do("PUT", "/bbb/copy", "", "X-Amz-Copy-Source", "/bbb/none").want(t, "copy nothing", 404, "NoSuchKey")
	w.do("PUT", "/bbb/copy", "", "X-Amz-Copy-Source", "nonsense").want(t, "copy nonsense", 400, "InvalidArgument")
	w.do("PUT", "/bbb/copy", "", "X-Amz-Copy-Source", "/bbb/k", "X-Amz-Checksum-Algorithm", "CRC32").want(t, "with a checksum", 200, "<ChecksumCRC32>"+sum64(crc("text")))
	w.do("DELETE", "/bbb/copy?tagging", "").want(t, "delete tags", 204)
	w.do("PUT", "/bbb?lifecycle", `<LifecycleConfiguration><Rule><ID>soon</ID><Filter/><Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>`).want(t, "lifecycle", 200)
	w.do("HEAD", "/bbb/k", "").want(t, "head", 200).has(t, "x-amz-expiration", `expiry-date="Wed, 25 Nov 2026 00:00:00 GMT", rule-id="soon"`)
	w.clock.Advance(72 * time.Hour)
	if err := w.door.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.do("GET", "/bbb/k", "").want(t, "what has expired", 404)
}

func TestSignaturesAreLookedAt(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/bbb/k", "text").want(t, "put", 200)
	r := w.request("GET", "/bbb/k", "")
	w.sign("owner", r, "")
	w.clock.Advance(16 * time.Minute)
	w.serve(r).want(t, "late", 403, "RequestTimeTooSkewed")
	late := w.presign("owner", "GET", "/bbb/k", "10")
	w.clock.Advance(11 * time.Second)
	w.serve(late).want(t, "a presigned one, late", 403, "AccessDenied", "expired")
	r = w.request("GET", "/bbb/k", "")
	w.sign("owner", r, "")
	r.URL.Path = "/bbb/other"
	w.serve(r).want(t, "another address", 403, "SignatureDoesNotMatch", "<StringToSign>")
	w.anon("GET", "/bbb/k", "", "Authorization", "AWS owner:AAAA", "Date", w.clock.Now().Format("Mon, 02 Jan 2006 15:04:05 GMT")).want(t, "version 2", 403, "SignatureDoesNotMatch")
	w.anon("GET", "/bbb/k", "", "Authorization", "Basic eDp5").want(t, "basic", 400, "Unsupported Authorization Type")
	w.anon("GET", "/bbb/k?%zz", "").want(t, "a bad query", 400, "InvalidURI")
}

func TestNoticesSayWhatHappened(t *testing.T) {
	w := newWorld(t)
	w.do("PUT", "/bbb", "").want(t, "make bucket", 200)
	w.do("PUT", "/bbb?notification", `<NotificationConfiguration><QueueConfiguration><Queue>arn:aws:sqs:::q</Queue><Event>s3:ObjectCreated:*</Event>
		<Filter><S3Key><FilterRule><Name>suffix</Name><Value>.jpg</Value></FilterRule></S3Key></Filter></QueueConfiguration></NotificationConfiguration>`).want(t, "set", 200)
	for _, k := range []string{"a.jpg", "b.txt"} {
		w.do("PUT", "/bbb/"+k, "x").want(t, "put", 200)
	}
	var told []string
	for n, err := range w.door.Notices(t.Context(), "", "bbb", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n.Target != "" {
			told = append(told, n.Target+" "+string(n.Body))
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], `"key":"a.jpg"`) || !strings.Contains(told[0], `"eventName":"ObjectCreated:Put"`) {
		t.Errorf("told %q", told)
	}
}
