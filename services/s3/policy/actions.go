package policy

import "strings"

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
