package s3

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestAnybodyFollowsPresignedAddresses(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	p := s3.NewPresignClient(c)
	key := aws.String("signed/ä b+c")
	in, err := p.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: key, ContentType: aws.String("text/z")})
	ok(t, err)
	res, text := s.ask(t, in.Method, in.URL, in.SignedHeader, strings.NewReader("by anybody"))
	equal(t, "PUT: "+text, res.StatusCode, 200)
	out, err := p.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key, ResponseContentType: aws.String("q/r")})
	ok(t, err)
	res, text = s.ask(t, "GET", out.URL, nil, nil)
	equal(t, "GET", text+res.Header.Get("Content-Type"), "by anybodyq/r")
	res, text = s.ask(t, "GET", out.URL, http.Header{"Range": {"bytes=3-4"}}, nil)
	equal(t, "GET of a range", fmt.Sprint(res.StatusCode, text), "206an")
	for what, address := range map[string]string{
		"another key":       strings.Replace(out.URL, "signed", "signet", 1),
		"another parameter": strings.Replace(out.URL, "q%2Fr", "q%2Fs", 1),
		"another signature": out.URL[:len(out.URL)-1] + string("01"[1-strings.Count(out.URL[len(out.URL)-1:], "1")]),
	} {
		res, text = s.ask(t, "GET", address, nil, nil)
		if res.StatusCode != http.StatusForbidden || !strings.Contains(text, "SignatureDoesNotMatch") {
			t.Errorf("%s: %s %s", what, res.Status, text)
		}
	}
	res, _ = s.ask(t, "DELETE", out.URL, nil, nil)
	equal(t, "DELETE by an address for GET", res.StatusCode, http.StatusForbidden)
	short, err := p.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: key}, s3.WithPresignExpires(time.Second))
	ok(t, err)
	u, err := url.Parse(short.URL)
	ok(t, err)
	q := u.Query()
	q.Set("X-Amz-Expires", "604801")
	u.RawQuery = q.Encode()
	_, text = s.ask(t, "GET", u.String(), nil, nil)
	if !strings.Contains(text, "AuthorizationQueryParametersError") {
		t.Errorf("an address for more than a week: %s", text)
	}
}

// form is what a page of the web sends, signed.
func (s server) form(t testing.TB, b *string, fields map[string]string, conditions string, file string, at time.Time) (*http.Response, string) {
	t.Helper()
	day, stamp := at.UTC().Format("20060102"), at.UTC().Format("20060102T150405Z")
	scope := day + "/us-east-1/s3/aws4_request"
	policy := fmt.Sprintf(`{"expiration":%q,"conditions":[{"bucket":%q},{"x-amz-algorithm":"AWS4-HMAC-SHA256"},{"x-amz-credential":%q},{"x-amz-date":%q},%s]}`,
		at.Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000Z"), *b, s.Key+"/"+scope, stamp, conditions)
	encoded := base64.StdEncoding.EncodeToString([]byte(policy))
	sign := []byte("AWS4" + s.Secret)
	for _, x := range []string{day, "us-east-1", "s3", "aws4_request", encoded} {
		h := hmac.New(sha256.New, sign)
		h.Write([]byte(x))
		sign = h.Sum(nil)
	}
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	all := map[string]string{"policy": encoded, "x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": s.Key + "/" + scope, "x-amz-date": stamp, "x-amz-signature": hex.EncodeToString(sign)}
	for name, value := range fields {
		all[name] = value
	}
	for name, value := range all {
		ok(t, w.WriteField(name, value))
	}
	part, err := w.CreateFormFile("file", "picture.jpg")
	ok(t, err)
	_, err = part.Write([]byte(file))
	ok(t, err)
	ok(t, w.Close())
	return s.ask(t, "POST", s.URL+"/"+*b, http.Header{"Content-Type": {w.FormDataContentType()}}, &body)
}

func TestAFormUploads(t *testing.T) {
	s := start(t)
	c, b := s.client(), bucket(t, s)
	const conditions = `["starts-with","$key","up/"],{"acl":"private"},["content-length-range",1,20],["starts-with","$Content-Type","image/"],["eq","$x-amz-meta-who","me"],["starts-with","$success_action_status",""]`
	fields := func(key string) map[string]string {
		return map[string]string{"key": key, "acl": "private", "Content-Type": "image/jpeg", "x-amz-meta-who": "me", "success_action_status": "201"}
	}
	res, text := s.form(t, b, fields("up/${filename}"), conditions, "jpeg bytes", time.Now())
	if res.StatusCode != 201 || !strings.Contains(text, "<Key>up/picture.jpg</Key>") {
		t.Fatalf("%s %s", res.Status, text)
	}
	head, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: b, Key: aws.String("up/picture.jpg")})
	ok(t, err)
	equal(t, "what it has", get(t, c, b, "up/picture.jpg")+*head.ContentType+head.Metadata["who"], "jpeg bytesimage/jpegme")
	for what, f := range map[string]func() (*http.Response, string){
		"a key that the policy does not let": func() (*http.Response, string) {
			return s.form(t, b, fields("down/x"), conditions, "x", time.Now())
		},
		"too long a file": func() (*http.Response, string) {
			return s.form(t, b, fields("up/x"), conditions, strings.Repeat("x", 21), time.Now())
		},
		"too short a file": func() (*http.Response, string) { return s.form(t, b, fields("up/x"), conditions, "", time.Now()) },
		"an old policy": func() (*http.Response, string) {
			return s.form(t, b, fields("up/x"), conditions, "x", time.Now().Add(-2*time.Hour))
		},
		"a field that the policy does not name": func() (*http.Response, string) {
			f := fields("up/x")
			f["x-amz-meta-more"] = "x"
			return s.form(t, b, f, conditions, "x", time.Now())
		},
	} {
		if res, text := f(); res.StatusCode/100 != 4 {
			t.Errorf("%s: %s %s", what, res.Status, text)
		}
	}
	equal(t, "objects", strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b}), " "), "up/picture.jpg")
}

func TestBrowsersOfOtherSitesAreAnswered(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	_, err := c.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: b})
	wantCode(t, err, "NoSuchCORSConfiguration")
	_, err = c.PutBucketCors(ctx, &s3.PutBucketCorsInput{Bucket: b, CORSConfiguration: &types.CORSConfiguration{CORSRules: []types.CORSRule{
		{AllowedMethods: []string{"PUT", "GET"}, AllowedOrigins: []string{"https://*.example.com"}, AllowedHeaders: []string{"x-amz-*", "content-type"}, ExposeHeaders: []string{"ETag"}, MaxAgeSeconds: aws.Int32(77)}}}})
	ok(t, err)
	got, err := c.GetBucketCors(ctx, &s3.GetBucketCorsInput{Bucket: b})
	ok(t, err)
	equal(t, "rules", len(got.CORSRules), 1)
	preflight := func(origin, method, headers string) *http.Response {
		res, _ := s.ask(t, "OPTIONS", s.URL+"/"+*b+"/x", http.Header{"Origin": {origin}, "Access-Control-Request-Method": {method}, "Access-Control-Request-Headers": {headers}}, nil)
		return res
	}
	res := preflight("https://www.example.com", "PUT", "content-type, x-amz-date")
	equal(t, "preflight", res.StatusCode, 200)
	equal(t, "the origin", res.Header.Get("Access-Control-Allow-Origin"), "https://www.example.com")
	equal(t, "the age", res.Header.Get("Access-Control-Max-Age"), "77")
	if !strings.Contains(res.Header.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(strings.ToLower(res.Header.Get("Access-Control-Allow-Headers")), "x-amz-date") {
		t.Errorf("it allows %v", res.Header)
	}
	for _, x := range [][3]string{{"https://example.org", "PUT", ""}, {"https://www.example.com", "DELETE", ""}, {"https://www.example.com", "PUT", "x-other"}} {
		equal(t, fmt.Sprint("preflight of ", x), preflight(x[0], x[1], x[2]).StatusCode, 403)
	}
	put(t, c, b, "x", "y")
	address, err := s3.NewPresignClient(c).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: b, Key: aws.String("x")})
	ok(t, err)
	res, _ = s.ask(t, "GET", address.URL, http.Header{"Origin": {"https://www.example.com"}}, nil)
	equal(t, "the origin of a GET", res.Header.Get("Access-Control-Allow-Origin"), "https://www.example.com")
	if got := res.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "ETag") {
		t.Errorf("a GET exposes %q", got)
	}
	_, err = c.DeleteBucketCors(ctx, &s3.DeleteBucketCorsInput{Bucket: b})
	ok(t, err)
}

func TestAnybodyReadsWhatAPolicyLets(t *testing.T) {
	s := start(t)
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	put(t, c, b, "public/x", "open")
	put(t, c, b, "public/secret", "closed")
	put(t, c, b, "other", "closed")
	status := func(method, path string) int {
		res, _ := s.ask(t, method, s.URL+"/"+*b+path, nil, nil)
		return res.StatusCode
	}
	equal(t, "without a policy", status("GET", "/public/x"), 403)
	_, err := c.GetBucketPolicy(ctx, &s3.GetBucketPolicyInput{Bucket: b})
	wantCode(t, err, "NoSuchBucketPolicy")
	policy := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::%[1]s/public/*"]},
		{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"s3:ListBucket","Resource":"arn:aws:s3:::%[1]s"},
		{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::%[1]s/public/secret"}]}`, *b)
	_, err = c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: &policy})
	ok(t, err)
	for _, x := range []struct {
		method, path string
		want         int
	}{{"GET", "/public/x", 200}, {"HEAD", "/public/x", 200}, {"GET", "/public/secret", 403}, {"GET", "/other", 403}, {"GET", "?list-type=2", 200}, {"PUT", "/public/x", 403}, {"DELETE", "/public/x", 403}, {"GET", "?policy", 403}} {
		equal(t, x.method+" "+x.path, status(x.method, x.path), x.want)
	}
	public, err := c.GetBucketPolicyStatus(ctx, &s3.GetBucketPolicyStatusInput{Bucket: b})
	if err == nil {
		equal(t, "it is public", aws.ToBool(public.PolicyStatus.IsPublic), true)
	} else if !s.Other {
		t.Error(err)
	}
	for _, bad := range []string{`{`, `{"Statement":[]}`, `{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::x"}]}`} {
		_, err = c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: &bad})
		wantCode(t, err, "MalformedPolicy")
	}
	_, err = c.DeleteBucketPolicy(ctx, &s3.DeleteBucketPolicyInput{Bucket: b})
	ok(t, err)
	equal(t, "after the policy", status("GET", "/public/x"), 403)
}

func TestABucketIsAWebsite(t *testing.T) {
	s := start(t)
	if s.Other {
		t.Skip("others have another address for it")
	}
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	html := func(key, text string) {
		_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: &key, Body: strings.NewReader(text), ContentType: aws.String("text/html")})
		ok(t, err)
	}
	html("index.html", "top")
	html("docs/index.html", "docs")
	html("error.html", "sorry")
	_, err := c.PutBucketWebsite(ctx, &s3.PutBucketWebsiteInput{Bucket: b, WebsiteConfiguration: &types.WebsiteConfiguration{IndexDocument: &types.IndexDocument{Suffix: aws.String("index.html")}, ErrorDocument: &types.ErrorDocument{Key: aws.String("error.html")},
		RoutingRules: []types.RoutingRule{{Condition: &types.Condition{KeyPrefixEquals: aws.String("old/")}, Redirect: &types.Redirect{ReplaceKeyPrefixWith: aws.String("docs/")}}}}})
	ok(t, err)
	_, err = c.PutBucketPolicy(ctx, &s3.PutBucketPolicyInput{Bucket: b, Policy: aws.String(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::%s/*"}]}`, *b))})
	ok(t, err)
	u, err := url.Parse(s.URL)
	ok(t, err)
	see := func(path string) string {
		res, text := s.ask(t, "GET", s.URL+path, http.Header{"Host": {*b + ".s3-website.localhost:" + u.Port()}}, nil)
		return strings.TrimSpace(fmt.Sprint(res.StatusCode, " ", strings.TrimSpace(text), " ", res.Header.Get("Content-Type"), " ", strings.TrimPrefix(res.Header.Get("Location"), "http://"+*b+".s3-website.localhost:"+u.Port())))
	}
	equal(t, "the top", see("/"), "200 top text/html")
	equal(t, "a folder", see("/docs/"), "200 docs text/html")
	equal(t, "what there is not", see("/none"), "404 sorry text/html")
	if got := see("/docs"); !strings.HasPrefix(got, "302 ") || !strings.HasSuffix(got, "/docs/") {
		t.Errorf("a folder without slash: %s", got)
	}
	if got := see("/old/x"); !strings.HasPrefix(got, "30") || !strings.HasSuffix(got, "/docs/x") {
		t.Errorf("a rule: %s", got)
	}
}

func TestBucketsAreKnownByTheirHosts(t *testing.T) {
	s := up(t)
	u, err := url.Parse(s.URL)
	ok(t, err)
	s.URL = "http://s3.localhost:" + u.Port()
	if s.Other {
		t.Skip("others must be told their names")
	}
	here := up(t)
	b := bucket(t, here)
	config := here.config()
	config.BaseEndpoint = &s.URL
	c := s3.NewFromConfig(config)
	put(t, c, b, "by/host", "x")
	equal(t, "by path", get(t, here.client(), b, "by/host"), "x")
	equal(t, "by host", strings.Join(keys(t, c, &s3.ListObjectsV2Input{Bucket: b}), " "), "by/host")
}

func TestConfigurationsAreKept(t *testing.T) {
	s := start(t)
	if s.Other {
		t.Skip("others have not all of them")
	}
	ctx, c, b := t.Context(), s.client(), bucket(t, s)
	_, err := c.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: b})
	wantCode(t, err, "NoSuchLifecycleConfiguration")
	_, err = c.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: b, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{
		{ID: aws.String("one"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("tmp/")}, Expiration: &types.LifecycleExpiration{Days: aws.Int32(3)}, AbortIncompleteMultipartUpload: &types.AbortIncompleteMultipartUpload{DaysAfterInitiation: aws.Int32(2)}},
		{ID: aws.String("two"), Status: types.ExpirationStatusDisabled, Filter: &types.LifecycleRuleFilter{Tag: &types.Tag{Key: aws.String("k"), Value: aws.String("v")}}, NoncurrentVersionExpiration: &types.NoncurrentVersionExpiration{NoncurrentDays: aws.Int32(9)}}}}})
	ok(t, err)
	life, err := c.GetBucketLifecycleConfiguration(ctx, &s3.GetBucketLifecycleConfigurationInput{Bucket: b})
	ok(t, err)
	if len(life.Rules) != 2 || *life.Rules[0].Expiration.Days != 3 || *life.Rules[1].Filter.Tag.Key != "k" {
		t.Errorf("got %+v", life.Rules)
	}
	_, err = c.DeleteBucketLifecycle(ctx, &s3.DeleteBucketLifecycleInput{Bucket: b})
	ok(t, err)
	_, err = c.PutBucketLifecycleConfiguration(ctx, &s3.PutBucketLifecycleConfigurationInput{Bucket: b, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{}}}}})
	wantCode(t, err, "InvalidRequest", "MalformedXML", "InvalidArgument")

	put(t, c, b, "x", "")
	anybody := func() int {
		res, _ := s.ask(t, "GET", s.URL+"/"+*b+"/x", nil, nil)
		return res.StatusCode
	}
	equal(t, "a private object", anybody(), 403)
	_, err = c.PutObjectAcl(ctx, &s3.PutObjectAclInput{Bucket: b, Key: aws.String("x"), ACL: types.ObjectCannedACLPublicRead})
	ok(t, err)
	equal(t, "a public object", anybody(), 200)
	acl, err := c.GetObjectAcl(ctx, &s3.GetObjectAclInput{Bucket: b, Key: aws.String("x")})
	ok(t, err)
	equal(t, "grants", len(acl.Grants), 2)
	_, err = c.GetBucketEncryption(ctx, &s3.GetBucketEncryptionInput{Bucket: b})
	if code := codeOf(err); err != nil && code != "ServerSideEncryptionConfigurationNotFoundError" {
		t.Errorf("encryption: %v", err)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	s := start(t)
	c, b := s.client(), bucket(t, s)
	p := s3.NewPresignClient(c)
	in, err := p.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: b, Key: aws.String("x")})
	ok(t, err)
	// The address of an object's put, with a sub-resource that it was not signed for.
	res, text := s.ask(t, "PUT", in.URL+"&tagging=", nil, strings.NewReader("<Tagging>"))
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("%s %s", res.Status, text)
	}
	for _, x := range []struct{ method, path, body string }{
		{"GET", "/%zz", ""}, {"GET", "/" + *b + "?list-type=2&max-keys=x", ""}, {"GET", "/" + *b + "?versionId=%00", ""}, {"POST", "/" + *b + "?delete", strings.Repeat("<Delete>", 10000)},
		{"PUT", "/" + *b + "?versioning", "<a>"}, {"POST", "/" + *b, "--x"}, {"BREW", "/" + *b + "/x", ""}, {"GET", "/" + strings.Repeat("a", 5000), ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), x.method, s.URL, strings.NewReader(x.body))
		ok(t, err)
		r.URL.Opaque = x.path
		res, err := http.DefaultClient.Do(r)
		ok(t, err)
		_ = res.Body.Close()
		if res.StatusCode/100 != 4 && res.StatusCode != http.StatusNotImplemented {
			t.Errorf("%s %.60s: %s", x.method, x.path, res.Status)
		}
	}
}
