package policy

import (
	"slices"
	"strings"
)

// bucketActions and objectActions are what a policy can speak of ("Actions, resources
// and condition keys for Amazon S3"). Some are not done here; a policy may name them.
var (
	bucketActions = lower(`CreateBucket DeleteBucket ListBucket ListBucketVersions ListBucketMultipartUploads GetBucketLocation GetBucketVersioning PutBucketVersioning
GetBucketPolicy PutBucketPolicy DeleteBucketPolicy GetBucketPolicyStatus GetBucketAcl PutBucketAcl GetBucketCORS PutBucketCORS GetBucketWebsite PutBucketWebsite DeleteBucketWebsite
GetLifecycleConfiguration PutLifecycleConfiguration GetBucketNotification PutBucketNotification GetBucketTagging PutBucketTagging GetEncryptionConfiguration PutEncryptionConfiguration
GetBucketObjectLockConfiguration PutBucketObjectLockConfiguration GetBucketOwnershipControls PutBucketOwnershipControls GetBucketPublicAccessBlock PutBucketPublicAccessBlock
GetBucketLogging PutBucketLogging GetBucketRequestPayment PutBucketRequestPayment GetAccelerateConfiguration PutAccelerateConfiguration GetReplicationConfiguration PutReplicationConfiguration
GetAnalyticsConfiguration PutAnalyticsConfiguration GetInventoryConfiguration PutInventoryConfiguration GetMetricsConfiguration PutMetricsConfiguration
GetIntelligentTieringConfiguration PutIntelligentTieringConfiguration ListAllMyBuckets`)
	objectActions = lower(`GetObject GetObjectVersion PutObject DeleteObject DeleteObjectVersion GetObjectAcl GetObjectVersionAcl PutObjectAcl PutObjectVersionAcl
GetObjectTagging GetObjectVersionTagging PutObjectTagging PutObjectVersionTagging DeleteObjectTagging DeleteObjectVersionTagging GetObjectAttributes GetObjectVersionAttributes
AbortMultipartUpload ListMultipartUploadParts GetObjectRetention PutObjectRetention GetObjectLegalHold PutObjectLegalHold BypassGovernanceRetention RestoreObject
GetObjectTorrent GetObjectVersionTorrent GetObjectVersionForReplication ReplicateObject ReplicateDelete ReplicateTags InitiateReplication ObjectOwnerOverrideToBucketOwner UpdateObjectEncryption`)
)

// keys are the condition keys that there are; aws:principaltag/… and the tags of
// objects have more in their names.
var keys = lower(`aws:SourceIp aws:SourceArn aws:SourceAccount aws:SourceVpc aws:SourceVpce aws:VpcSourceIp aws:SourceOrgID aws:SourceOrgPaths aws:SourceIdentity aws:SecureTransport aws:UserAgent aws:Referer
aws:CurrentTime aws:EpochTime aws:TokenIssueTime aws:MultiFactorAuthPresent aws:MultiFactorAuthAge aws:username aws:userid aws:PrincipalAccount aws:PrincipalArn aws:PrincipalOrgID aws:PrincipalOrgPaths
aws:PrincipalType aws:PrincipalIsAWSService aws:PrincipalServiceName aws:PrincipalServiceNamesList aws:RequestedRegion aws:ViaAWSService aws:CalledVia aws:CalledViaFirst aws:CalledViaLast aws:TagKeys
aws:ResourceAccount aws:ResourceOrgID aws:ResourceOrgPaths aws:FederatedProvider
s3:prefix s3:delimiter s3:max-keys s3:VersionId s3:authType s3:signatureAge s3:signatureversion s3:LocationConstraint s3:RequestObjectTagKeys s3:ResourceAccount s3:TlsVersion s3:if-match s3:if-none-match
s3:object-lock-mode s3:object-lock-legal-hold s3:object-lock-remaining-retention-days s3:object-lock-retain-until-date s3:ObjectCreationOperation s3:ExistingObjectTagKeys s3:DataAccessPointArn
s3:DataAccessPointAccount s3:AccessPointNetworkOrigin s3:isReplicationPauseRequest s3:InventoryAccessibleOptionalFields s3:x-amz-acl s3:x-amz-content-sha256 s3:x-amz-copy-source s3:x-amz-metadata-directive
s3:x-amz-grant-full-control s3:x-amz-grant-read s3:x-amz-grant-read-acp s3:x-amz-grant-write s3:x-amz-grant-write-acp s3:x-amz-object-ownership s3:x-amz-server-side-encryption
s3:x-amz-server-side-encryption-aws-kms-key-id s3:x-amz-server-side-encryption-customer-algorithm s3:x-amz-storage-class s3:x-amz-website-redirect-location s3:x-amz-tagging`)

// knownKey reports whether there is a condition key, whose name is in lower case.
func knownKey(name string) bool {
	for _, prefix := range []string{"aws:principaltag/", "aws:requesttag/", "aws:resourcetag/", "s3:existingobjecttag/", "s3:requestobjecttag/"} {
		if len(name) > len(prefix) && strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains(keys, name)
}

func lower(list string) []string { return strings.Fields(strings.ToLower(list)) }

// known reports whether there is an action that a pattern takes.
func known(pattern string) bool {
	b, o := levels(pattern)
	return b || o
}

// levels reports whether a pattern takes actions on buckets, or on objects.
func levels(pattern string) (bucket, object bool) {
	pattern = strings.ToLower(pattern)
	for _, a := range bucketActions {
		bucket = bucket || like(pattern, a)
	}
	for _, a := range objectActions {
		object = object || like(pattern, a)
	}
	return bucket, object
}
