package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"slices"

	"github.com/cloudbevy/bevy/services/s3/objects"
	"github.com/cloudbevy/bevy/services/s3/policy"
)

// A configuration is one of a bucket that clients put, get and delete. It is kept as
// the XML that they get, behind a byte that is the version of how it is kept.
type configuration struct {
	name, query, action string
	file                string // what it is kept as
	root                string // of its XML
	none                string // the code when there is none; "" for an empty one
	// read reads and checks one. What it returns is kept.
	read func(c *call, body []byte) (any, error)
}

// configVersion begins what is kept.
const configVersion = '1'

var configurations = []configuration{
	{"Cors", "cors", "BucketCORS", "cors", "CORSConfiguration", "NoSuchCORSConfiguration", readCORS},
	{"LifecycleConfiguration", "lifecycle", "LifecycleConfiguration", "lifecycle", "LifecycleConfiguration", "NoSuchLifecycleConfiguration", readLifecycle},
	{"Website", "website", "BucketWebsite", "website", "WebsiteConfiguration", "NoSuchWebsiteConfiguration", readWebsite},
	{"NotificationConfiguration", "notification", "BucketNotification", "notification", "NotificationConfiguration", "", readNotification},
	{"Tagging", "tagging", "BucketTagging", "tagging", "Tagging", "NoSuchTagSet", readBucketTags},
	{"Encryption", "encryption", "EncryptionConfiguration", "encryption", "ServerSideEncryptionConfiguration", "ServerSideEncryptionConfigurationNotFoundError", readEncryption},
	{"OwnershipControls", "ownershipControls", "BucketOwnershipControls", "ownership", "OwnershipControls", "OwnershipControlsNotFoundError", readOwnership},
	{"PublicAccessBlock", "publicAccessBlock", "BucketPublicAccessBlock", "public", "PublicAccessBlockConfiguration", "NoSuchPublicAccessBlockConfiguration", readPublicBlock},
}

// An absence is a configuration that this door has not. Asked for it, it says so, or
// that there is none.
type absence struct {
	name, query, action string
	root                string // of an empty one, or
	none                string // the code that says that there is none
	// list is the root of a list of them, where there can be many; one has an id.
	list string
	// idle is how one says that it is not wanted, which can be put.
	idle string
}

var missing = []absence{
	{name: "BucketLogging", query: "logging", action: "GetBucketLogging", root: "BucketLoggingStatus"},
	{name: "BucketAccelerateConfiguration", query: "accelerate", action: "GetAccelerateConfiguration", root: "AccelerateConfiguration", idle: "Suspended"},
	{name: "BucketRequestPayment", query: "requestPayment", action: "GetBucketRequestPayment", root: "RequestPaymentConfiguration", idle: "BucketOwner"},
	{name: "BucketReplication", query: "replication", action: "GetReplicationConfiguration", none: "ReplicationConfigurationNotFoundError"},
	{name: "BucketAnalyticsConfiguration", query: "analytics", action: "GetAnalyticsConfiguration", none: "NoSuchConfiguration", list: "ListBucketAnalyticsConfigurationsResult"},
	{name: "BucketInventoryConfiguration", query: "inventory", action: "GetInventoryConfiguration", none: "NoSuchConfiguration", list: "ListInventoryConfigurationsResult"},
	{name: "BucketMetricsConfiguration", query: "metrics", action: "GetMetricsConfiguration", none: "NoSuchConfiguration", list: "ListMetricsConfigurationsResult"},
	{name: "BucketIntelligentTieringConfiguration", query: "intelligent-tiering", action: "GetIntelligentTieringConfiguration", none: "NoSuchConfiguration", list: "ListBucketIntelligentTieringConfigurationsOutput"},
	{name: "BucketMetadataConfiguration", query: "metadataConfiguration", action: "GetBucketTagging", none: "NoSuchConfiguration"},
	{name: "BucketMetadataTableConfiguration", query: "metadataTable", action: "GetBucketTagging", none: "NoSuchConfiguration"},
	{name: "BucketMetadataInventoryTableConfiguration", query: "metadataInventoryTable", action: "GetBucketTagging", none: "NoSuchConfiguration"},
	{name: "BucketMetadataJournalTableConfiguration", query: "metadataJournalTable", action: "GetBucketTagging", none: "NoSuchConfiguration"},
	{name: "BucketMetadataAnnotationTableConfiguration", query: "metadataAnnotationTable", action: "GetBucketTagging", none: "NoSuchConfiguration"},
	{name: "BucketAbac", query: "abac", action: "GetBucketTagging", root: "AbacStatus", idle: "Disabled"},
	{name: "CreateSession", query: "session", action: "ListBucket"},
}

func (c *call) missing(k absence) error {
	switch {
	case c.r.Method == http.MethodDelete && k.none != "":
		return c.done(http.StatusNoContent)
	case c.r.Method == http.MethodPut && k.root != "":
		return c.putMissing(k)
	case c.r.Method != http.MethodGet || k.root == "" && k.none == "":
		return notImplemented("%s is not implemented", k.name)
	case k.list != "" && !c.query.Has("id"):
		d := newDocument(k.list)
		d.truth("IsTruncated", false)
		return c.reply(d)
	case k.none != "":
		return fail(k.none)
	}
	d := newDocument(k.root)
	switch k.query {
	case "requestPayment":
		d.put("Payer", k.idle)
	case "abac":
		d.put("Status", k.idle)
	}
	return c.reply(d)
}

// putMissing takes a configuration that says that it is not wanted.
func (c *call) putMissing(k absence) error {
	var in struct {
		LoggingEnabled *struct{}
		Status, Payer  string
	}
	if err := c.xml(k.root, &in); err != nil {
		return err
	}
	if in.LoggingEnabled != nil || in.Status+in.Payer != k.idle {
		return notImplemented("%s is not implemented", k.name)
	}
	return c.done(http.StatusOK)
}

func (c *call) putConfiguration(k configuration) error {
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return fail("MissingRequestBodyError")
	}
	v, err := k.read(c, body)
	if err != nil {
		return err
	}
	text, err := encode(k.root, v)
	if err != nil {
		return err
	}
	if err := c.b.SetConfig(c.ctx, k.file, append([]byte{configVersion}, text...)); err != nil {
		return err
	}
	if k.query == "tagging" {
		return c.done(http.StatusNoContent)
	}
	return c.done(http.StatusOK)
}

// encode writes a value as XML.
func encode(root string, v any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(xml.Header)
	err := xml.NewEncoder(&b).EncodeElement(v, xml.StartElement{Name: xml.Name{Local: root}, Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: namespace}}})
	return b.Bytes(), err
}

func (c *call) getConfiguration(k configuration) error {
	text, err := configText(c.ctx, c.b, k.file)
	if err != nil {
		return err
	}
	if text == nil {
		if k.none != "" {
			return fail(k.none).with("BucketName", c.bucket)
		}
		return c.reply(newDocument(k.root))
	}
	c.h.Set("Content-Type", "application/xml")
	return c.send(http.StatusOK, text)
}

func (c *call) deleteConfiguration(k configuration) error {
	if err := c.b.SetConfig(c.ctx, k.file, nil); err != nil && !errors.Is(err, objects.ErrNoConfig) {
		return err
	}
	return c.done(http.StatusNoContent)
}

// configText returns a configuration's XML, nil if there is none.
func configText(ctx context.Context, b *objects.Bucket, file string) ([]byte, error) {
	kept, err := b.Config(ctx, file)
	if errors.Is(err, objects.ErrNoConfig) {
		return nil, nil
	}
	if err != nil || len(kept) == 0 || kept[0] != configVersion {
		return nil, err // a later version's is none of ours
	}
	return kept[1:], nil
}

// config reads a configuration that was kept, and reports whether there is one.
func config(ctx context.Context, b *objects.Bucket, file, root string, into any) (bool, error) {
	text, err := configText(ctx, b, file)
	if err != nil || text == nil {
		return false, err
	}
	return true, decode(text, root, into)
}

type encryption struct {
	Rule []struct {
		Apply struct {
			SSEAlgorithm   string
			KMSMasterKeyID string `xml:",omitempty"`
		} `xml:"ApplyServerSideEncryptionByDefault"`
		BucketKeyEnabled bool
	}
}

func readEncryption(_ *call, body []byte) (any, error) {
	var in encryption
	if err := decode(body, "ServerSideEncryptionConfiguration", &in); err != nil {
		return nil, err
	}
	if len(in.Rule) != 1 {
		return nil, fail("MalformedXML")
	}
	switch in.Rule[0].Apply.SSEAlgorithm {
	case "AES256":
		if in.Rule[0].Apply.KMSMasterKeyID != "" {
			return nil, badArgument("KMSMasterKeyID", in.Rule[0].Apply.KMSMasterKeyID, "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse")
		}
		return in, nil
	case "aws:kms", "aws:kms:dsse":
		return nil, notImplemented("Encryption with keys of KMS is not implemented")
	}
	return nil, fail("MalformedXML")
}

type ownership struct {
	Rule []struct{ ObjectOwnership string }
}

func goodOwnership(v string) bool {
	return slices.Contains([]string{"BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"}, v)
}

func readOwnership(c *call, body []byte) (any, error) {
	var in ownership
	if err := decode(body, "OwnershipControls", &in); err != nil {
		return nil, err
	}
	if len(in.Rule) != 1 || !goodOwnership(in.Rule[0].ObjectOwnership) {
		return nil, fail("MalformedXML")
	}
	if in.Rule[0].ObjectOwnership == "BucketOwnerEnforced" {
		list, err := bucketACL(c.ctx, c.b, c.owner)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(list, func(g grant) bool { return g.ID != canonicalID(c.owner) }) {
			return nil, fail("InvalidBucketAclWithObjectOwnership")
		}
	}
	return in, nil
}

// setOwnership keeps what a new bucket is to have.
func (c *call) setOwnership(v string) error {
	text, err := encode("OwnershipControls", ownership{Rule: []struct{ ObjectOwnership string }{{v}}})
	if err != nil {
		return err
	}
	return c.b.SetConfig(c.ctx, "ownership", append([]byte{configVersion}, text...))
}

// ownerEnforced reports whether access control lists are switched off.
func ownerEnforced(ctx context.Context, b *objects.Bucket) (bool, error) {
	var v ownership
	ok, err := config(ctx, b, "ownership", "OwnershipControls", &v)
	return ok && len(v.Rule) == 1 && v.Rule[0].ObjectOwnership == "BucketOwnerEnforced", err
}

type publicAccessBlock struct {
	BlockPublicAcls       bool
	IgnorePublicAcls      bool
	BlockPublicPolicy     bool
	RestrictPublicBuckets bool
}

func readPublicBlock(_ *call, body []byte) (any, error) {
	var in publicAccessBlock
	err := decode(body, "PublicAccessBlockConfiguration", &in)
	return in, err
}

func publicBlock(ctx context.Context, b *objects.Bucket) (v publicAccessBlock, err error) {
	_, err = config(ctx, b, "public", "PublicAccessBlockConfiguration", &v)
	return v, err
}

// bucketPolicy returns a bucket's policy, nil if it has none.
func bucketPolicy(ctx context.Context, b *objects.Bucket) (*policy.Policy, error) {
	text, err := configText(ctx, b, "policy")
	if err != nil || text == nil {
		return nil, err
	}
	return policy.Parse(text, b.Name())
}

func (c *call) putPolicy() error {
	body, err := c.text(maxBody)
	if err != nil {
		return err
	}
	p, err := policy.Parse(body, c.bucket)
	if err != nil {
		return failf("MalformedPolicy", "%s", policy.Problem(err))
	}
	block, err := publicBlock(c.ctx, c.b)
	if err != nil {
		return err
	}
	if block.BlockPublicPolicy && p.Public() {
		return fail("AccessDenied")
	}
	if err := c.b.SetConfig(c.ctx, "policy", append([]byte{configVersion}, body...)); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (c *call) getPolicy() error {
	text, err := configText(c.ctx, c.b, "policy")
	if err != nil {
		return err
	}
	if text == nil {
		return fail("NoSuchBucketPolicy").with("BucketName", c.bucket)
	}
	c.h.Set("Content-Type", "application/json")
	return c.send(http.StatusOK, text)
}

func (c *call) deletePolicy() error {
	if err := c.b.SetConfig(c.ctx, "policy", nil); err != nil && !errors.Is(err, objects.ErrNoConfig) {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (c *call) getPolicyStatus() error {
	p, err := bucketPolicy(c.ctx, c.b)
	if err != nil {
		return err
	}
	list, err := bucketACL(c.ctx, c.b, c.owner)
	if err != nil {
		return err
	}
	block, err := publicBlock(c.ctx, c.b)
	if err != nil {
		return err
	}
	d := newDocument("PolicyStatus")
	d.truth("IsPublic", p != nil && p.Public() && !block.RestrictPublicBuckets || list.public() && !block.IgnorePublicAcls)
	return c.reply(d)
}

// jsonText is a value as JSON that can't fail.
func jsonText(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("s3: " + err.Error())
	}
	return b
}
