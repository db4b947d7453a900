package s3

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A level is what an address names.
type level int

const (
	service level = iota
	bucket
	object
)

// A permission is what an access control list can grant.
type permission string

const (
	noGrant  permission = ""
	read     permission = "READ"
	write    permission = "WRITE"
	readACP  permission = "READ_ACP"
	writeACP permission = "WRITE_ACP"
	full     permission = "FULL_CONTROL"
)

// An operation is one that requests may ask for.
type operation struct {
	method string
	level  level
	// query are the parameters that make it this one, and header the header.
	query, header string
	name          string
	// action is what policies call it; versions have one of their own.
	action string
	write  bool
	// onBucket and onObject are the grants that let somebody do it.
	onBucket, onObject permission
	run                func(*call) error
}

// operations are in the order in which they are tried: the first whose method, level,
// parameters and header a request has is it.
var operations []operation

func init() {
	operations = []operation{
		{"GET", service, "", "", "ListBuckets", "ListAllMyBuckets", false, noGrant, noGrant, (*call).listBuckets},
		{"HEAD", service, "", "", "ListBuckets", "ListAllMyBuckets", false, noGrant, noGrant, (*call).listBuckets},

		{"PUT", bucket, "acl", "", "PutBucketAcl", "PutBucketAcl", true, writeACP, noGrant, (*call).putBucketACL},
		{"GET", bucket, "acl", "", "GetBucketAcl", "GetBucketAcl", false, readACP, noGrant, (*call).getBucketACL},
		{"PUT", bucket, "versioning", "", "PutBucketVersioning", "PutBucketVersioning", true, noGrant, noGrant, (*call).putVersioning},
		{"GET", bucket, "versioning", "", "GetBucketVersioning", "GetBucketVersioning", false, noGrant, noGrant, (*call).getVersioning},
		{"PUT", bucket, "object-lock", "", "PutObjectLockConfiguration", "PutBucketObjectLockConfiguration", true, noGrant, noGrant, (*call).putLocks},
		{"GET", bucket, "object-lock", "", "GetObjectLockConfiguration", "GetBucketObjectLockConfiguration", false, noGrant, noGrant, (*call).getLocks},
		{"GET", bucket, "location", "", "GetBucketLocation", "GetBucketLocation", false, noGrant, noGrant, (*call).getLocation},
		{"GET", bucket, "policyStatus", "", "GetBucketPolicyStatus", "GetBucketPolicyStatus", false, noGrant, noGrant, (*call).getPolicyStatus},
		{"PUT", bucket, "policy", "", "PutBucketPolicy", "PutBucketPolicy", true, noGrant, noGrant, (*call).putPolicy},
		{"GET", bucket, "policy", "", "GetBucketPolicy", "GetBucketPolicy", false, noGrant, noGrant, (*call).getPolicy},
		{"DELETE", bucket, "policy", "", "DeleteBucketPolicy", "DeleteBucketPolicy", true, noGrant, noGrant, (*call).deletePolicy},
	}
	for _, k := range configurations {
		operations = append(operations,
			operation{"PUT", bucket, k.query, "", "PutBucket" + k.name, "Put" + k.action, true, noGrant, noGrant, func(c *call) error { return c.putConfiguration(k) }},
			operation{"GET", bucket, k.query, "", "GetBucket" + k.name, "Get" + k.action, false, noGrant, noGrant, func(c *call) error { return c.getConfiguration(k) }},
			operation{"DELETE", bucket, k.query, "", "DeleteBucket" + k.name, "Put" + k.action, true, noGrant, noGrant, func(c *call) error { return c.deleteConfiguration(k) }})
	}
	for _, k := range missing {
		for _, method := range []string{"GET", "PUT", "DELETE", "POST"} {
			operations = append(operations, operation{method, bucket, k.query, "", k.name, k.action, method != "GET", noGrant, noGrant, func(c *call) error { return c.missing(k) }})
		}
	}
	operations = append(operations, []operation{
		{"GET", bucket, "uploads", "", "ListMultipartUploads", "ListBucketMultipartUploads", false, read, noGrant, (*call).listUploads},
		{"GET", bucket, "versions", "", "ListObjectVersions", "ListBucketVersions", false, read, noGrant, (*call).listVersions},
		{"GET", bucket, "list-type", "", "ListObjectsV2", "ListBucket", false, read, noGrant, (*call).listV2},
		{"GET", bucket, "", "", "ListObjects", "ListBucket", false, read, noGrant, (*call).listV1},
		{"HEAD", bucket, "", "", "HeadBucket", "ListBucket", false, read, noGrant, (*call).headBucket},
		{"PUT", bucket, "", "", "CreateBucket", "CreateBucket", true, noGrant, noGrant, (*call).createBucket},
		{"DELETE", bucket, "", "", "DeleteBucket", "DeleteBucket", true, noGrant, noGrant, (*call).deleteBucket},
		{"POST", bucket, "delete", "", "DeleteObjects", "DeleteObject", true, write, noGrant, (*call).deleteObjects},
		{"POST", bucket, "", "", "PostObject", "PutObject", true, write, noGrant, (*call).postObject},

		{"PUT", object, "acl", "", "PutObjectAcl", "PutObjectAcl", true, noGrant, writeACP, (*call).putObjectACL},
		{"GET", object, "acl", "", "GetObjectAcl", "GetObjectAcl", false, noGrant, readACP, (*call).getObjectACL},
		{"PUT", object, "tagging", "", "PutObjectTagging", "PutObjectTagging", true, noGrant, noGrant, (*call).putTags},
		{"GET", object, "tagging", "", "GetObjectTagging", "GetObjectTagging", false, noGrant, noGrant, (*call).getTags},
		{"DELETE", object, "tagging", "", "DeleteObjectTagging", "DeleteObjectTagging", true, noGrant, noGrant, (*call).deleteTags},
		{"PUT", object, "retention", "", "PutObjectRetention", "PutObjectRetention", true, noGrant, noGrant, (*call).putRetention},
		{"GET", object, "retention", "", "GetObjectRetention", "GetObjectRetention", false, noGrant, noGrant, (*call).getRetention},
		{"PUT", object, "legal-hold", "", "PutObjectLegalHold", "PutObjectLegalHold", true, noGrant, noGrant, (*call).putHold},
		{"GET", object, "legal-hold", "", "GetObjectLegalHold", "GetObjectLegalHold", false, noGrant, noGrant, (*call).getHold},
		{"GET", object, "attributes", "", "GetObjectAttributes", "GetObjectAttributes", false, noGrant, read, (*call).getAttributes},
		{"GET", object, "annotation", "", "GetObjectAnnotation", "GetObject", false, noGrant, read, (*call).noOperation},
		{"PUT", object, "annotation", "", "PutObjectAnnotation", "PutObject", true, noGrant, noGrant, (*call).noOperation},
		{"DELETE", object, "annotation", "", "DeleteObjectAnnotation", "PutObject", true, noGrant, noGrant, (*call).noOperation},
		{"GET", object, "torrent", "", "GetObjectTorrent", "GetObjectTorrent", false, noGrant, read, (*call).noOperation},
		{"POST", object, "restore", "", "RestoreObject", "RestoreObject", true, noGrant, noGrant, (*call).noOperation},
		{"POST", object, "select", "", "SelectObjectContent", "GetObject", false, noGrant, read, (*call).noOperation},
		{"PUT", object, "encryption", "", "UpdateObjectEncryption", "UpdateObjectEncryption", true, noGrant, noGrant, (*call).noOperation},
		{"PUT", object, "renameObject", "", "RenameObject", "PutObject", true, noGrant, noGrant, (*call).noOperation},
		{"POST", object, "uploads", "", "CreateMultipartUpload", "PutObject", true, write, noGrant, (*call).createUpload},
		{"PUT", object, "uploadId partNumber", "x-amz-copy-source", "UploadPartCopy", "PutObject", true, write, noGrant, (*call).copyPart},
		{"PUT", object, "uploadId partNumber", "", "UploadPart", "PutObject", true, write, noGrant, (*call).putPart},
		{"GET", object, "uploadId", "", "ListParts", "ListMultipartUploadParts", false, noGrant, noGrant, (*call).listParts},
		{"POST", object, "uploadId", "", "CompleteMultipartUpload", "PutObject", true, write, noGrant, (*call).completeUpload},
		{"DELETE", object, "uploadId", "", "AbortMultipartUpload", "AbortMultipartUpload", true, write, noGrant, (*call).abortUpload},
		{"PUT", object, "", "x-amz-copy-source", "CopyObject", "PutObject", true, write, noGrant, (*call).copyObject},
		{"PUT", object, "", "", "PutObject", "PutObject", true, write, noGrant, (*call).putObject},
		{"GET", object, "", "", "GetObject", "GetObject", false, noGrant, read, (*call).getObject},
		{"HEAD", object, "", "", "HeadObject", "GetObject", false, noGrant, read, (*call).getObject},
		{"DELETE", object, "", "", "DeleteObject", "DeleteObject", true, write, noGrant, (*call).deleteObject},
	}...)
	for _, o := range operations {
		for name := range strings.FieldsSeq(o.query) {
			if !slices.Contains(details, name) {
				parts[o.level][name] = true
			}
		}
	}
}

// details are parameters that say more of a whole bucket or object. All others in
// operations name a part of one: parts has them, by level.
var (
	details = []string{"list-type", "partNumber", "uploadId"}
	parts   = map[level]map[string]bool{bucket: {}, object: {}}
)

// route returns the operation of a request, or nil. What is asked of a part is never
// done with the whole: DELETE of a bucket's acl is not that of the bucket.
func route(method string, at level, query url.Values, header http.Header) *operation {
	for i := range operations {
		o := &operations[i]
		if o.method == method && o.level == at && (o.header == "" || header.Get(o.header) != "") && hasAll(query, o.query) {
			for name := range query {
				if parts[at][name] && !slices.Contains(strings.Fields(o.query), name) {
					return nil
				}
			}
			return o
		}
	}
	return nil
}

func hasAll(query url.Values, names string) bool {
	for name := range strings.FieldsSeq(names) {
		if !query.Has(name) {
			return false
		}
	}
	return true
}

// onVersion are the actions that policies call differently for versions.
var onVersion = []string{"GetObject", "DeleteObject", "GetObjectAcl", "PutObjectAcl", "GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging", "GetObjectAttributes"}

// actionName is an action as policies call it.
func actionName(action, version string) string {
	if version != "" && slices.Contains(onVersion, action) {
		verb, rest, _ := strings.Cut(action, "Object")
		action = verb + "ObjectVersion" + rest
	}
	return "s3:" + action
}

// An address is what a URL names.
type address struct {
	bucket, key string
	website     bool
}

func (a address) level() level {
	switch {
	case a.bucket == "":
		return service
	case a.key == "":
		return bucket
	}
	return object
}

// hosts returns the names that buckets can be part of, the longest first.
func hosts(more []string) []string {
	out := []string{"localhost"}
	for _, h := range more {
		if h = strings.ToLower(strings.TrimSuffix(h, ".")); h != "" && net.ParseIP(h) == nil {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(out)
}

// hostName is a host without its port.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// locate reads an address: virtual-host style where the host is BUCKET.HOST or
// BUCKET.s3.HOST, else path style.
func locate(host, path string, bases []string) address {
	host = hostName(host)
	for _, base := range bases {
		name, ok := strings.CutSuffix(host, "."+base)
		if !ok {
			continue
		}
		if site, ok := strings.CutSuffix(name, ".s3-website"); ok {
			return address{site, strings.TrimPrefix(path, "/"), true}
		}
		if name == "s3" || name == "s3-website" {
			break
		}
		name = strings.TrimSuffix(name, ".s3")
		return address{bucket: name, key: strings.TrimPrefix(path, "/")}
	}
	name, key, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return address{bucket: name, key: key}
}
