package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/cloudbevy/bevy/services/internal/sigv4"
	"github.com/cloudbevy/bevy/services/s3/objects"
)

// An Error is one that clients are told.
type Error struct {
	Code, Message string
	Status        int // of HTTP
	// Extra are more elements of the answer: names and values.
	Extra [][2]string
	// Header is sent with it.
	Header http.Header
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// with returns a copy with one more element.
func (e *Error) with(name, value string) *Error {
	c := *e
	c.Extra = append(c.Extra[:len(c.Extra):len(c.Extra)], [2]string{name, value})
	return &c
}

// withHeader returns a copy with one more header.
func (e *Error) withHeader(name, value string) *Error {
	c := *e
	c.Header = c.Header.Clone()
	if c.Header == nil {
		c.Header = http.Header{}
	}
	c.Header.Set(name, value)
	return &c
}

// A code is what an error is by default.
type code struct {
	status  int
	message string
}

// codes are the errors by their codes ("Error responses" of the S3 API reference).
var codes = map[string]code{
	"AccessControlListNotSupported":                  {400, "The bucket does not allow ACLs."},
	"AccessDenied":                                   {403, "Access Denied."},
	"AccessForbidden":                                {403, "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."},
	"AuthorizationHeaderMalformed":                   {400, "The authorization header that you provided is not valid."},
	"AuthorizationQueryParametersError":              {400, "The authorization query parameters that you provided are not valid."},
	"BadDigest":                                      {400, "The Content-MD5 you specified did not match what we received."},
	"BadRequest":                                     {400, "Bad Request"},
	"BucketAlreadyExists":                            {409, "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again."},
	"BucketAlreadyOwnedByYou":                        {409, "Your previous request to create the named bucket succeeded and you already own it."},
	"BucketNotEmpty":                                 {409, "The bucket you tried to delete is not empty."},
	"EntityTooLarge":                                 {400, "Your proposed upload exceeds the maximum allowed object size."},
	"EntityTooSmall":                                 {400, "Your proposed upload is smaller than the minimum allowed size"},
	"IllegalLocationConstraintException":             {400, "The specified location constraint is incompatible for the region specific endpoint this request was sent to."},
	"IllegalVersioningConfigurationException":        {400, "The Versioning element must be specified"},
	"IncompleteBody":                                 {400, "The request body terminated unexpectedly"},
	"InternalError":                                  {500, "We encountered an internal error. Please try again."},
	"InvalidAccessKeyId":                             {403, "The AWS Access Key Id you provided does not exist in our records."},
	"InvalidArgument":                                {400, "Invalid Argument"},
	"InvalidBucketAclWithObjectOwnership":            {400, "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"},
	"InvalidBucketName":                              {400, "The specified bucket is not valid."},
	"InvalidBucketState":                             {409, "The request is not valid with the current state of the bucket."},
	"InvalidDigest":                                  {400, "The Content-Md5 you specified is not valid."},
	"InvalidEncryptionAlgorithmError":                {400, "The encryption request that you specified is not valid. The valid value is AES256."},
	"InvalidLocationConstraint":                      {400, "The specified location-constraint is not valid"},
	"InvalidObjectState":                             {403, "The operation is not valid for the object's storage class"},
	"InvalidPart":                                    {400, "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."},
	"InvalidPartNumber":                              {416, "The requested partnumber is not satisfiable."},
	"InvalidPartOrder":                               {400, "The list of parts was not in ascending order. Parts must be ordered by part number."},
	"InvalidPolicyDocument":                          {400, "The content of the form does not meet the conditions specified in the policy document."},
	"InvalidRange":                                   {416, "The requested range is not satisfiable"},
	"InvalidRedirectLocation":                        {400, "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."},
	"InvalidRequest":                                 {400, "Invalid Request"},
	"InvalidStorageClass":                            {400, "The storage class you specified is not valid"},
	"InvalidTag":                                     {400, "The TagKey you have provided is invalid"},
	"InvalidURI":                                     {400, "Couldn't parse the specified URI."},
	"KeyTooLongError":                                {400, "Your key is too long."},
	"MalformedACLError":                              {400, "The XML you provided was not well-formed or did not validate against our published schema."},
	"MalformedPOSTRequest":                           {400, "The body of your POST request is not well-formed multipart/form-data."},
	"MalformedPolicy":                                {400, "This policy contains invalid Json"},
	"MalformedTrailerError":                          {400, "The request contained trailing data that was not well-formed or did not conform to our published schema."},
	"MalformedXML":                                   {400, "The XML you provided was not well-formed or did not validate against our published schema."},
	"MaxMessageLengthExceeded":                       {400, "Your request was too big."},
	"MetadataTooLarge":                               {400, "Your metadata headers exceed the maximum allowed metadata size"},
	"MethodNotAllowed":                               {405, "The specified method is not allowed against this resource."},
	"MissingContentLength":                           {411, "You must provide the Content-Length HTTP header."},
	"MissingRequestBodyError":                        {400, "Request Body is empty"},
	"MissingSecurityHeader":                          {400, "Your request was missing a required header."},
	"NoSuchBucket":                                   {404, "The specified bucket does not exist."},
	"NoSuchBucketPolicy":                             {404, "The bucket policy does not exist."},
	"NoSuchCORSConfiguration":                        {404, "The CORS configuration does not exist"},
	"NoSuchConfiguration":                            {404, "The specified configuration does not exist."},
	"NoSuchKey":                                      {404, "The specified key does not exist."},
	"NoSuchLifecycleConfiguration":                   {404, "The lifecycle configuration does not exist"},
	"NoSuchObjectLockConfiguration":                  {404, "The specified object does not have a ObjectLock configuration."},
	"NoSuchPublicAccessBlockConfiguration":           {404, "The public access block configuration was not found"},
	"NoSuchTagSet":                                   {404, "The TagSet does not exist."},
	"NoSuchUpload":                                   {404, "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."},
	"NoSuchVersion":                                  {404, "The specified version does not exist."},
	"NoSuchWebsiteConfiguration":                     {404, "The specified bucket does not have a website configuration"},
	"NotImplemented":                                 {501, "A header you provided implies functionality that is not implemented."},
	"NotModified":                                    {304, "Not Modified"},
	"ObjectLockConfigurationNotFoundError":           {404, "Object Lock configuration does not exist for this bucket."},
	"OperationAborted":                               {409, "A conflicting conditional operation is currently in progress against this resource. Try again."},
	"OwnershipControlsNotFoundError":                 {404, "The bucket ownership controls were not found."},
	"PreconditionFailed":                             {412, "At least one of the pre-conditions you specified did not hold."},
	"ReplicationConfigurationNotFoundError":          {404, "The replication configuration was not found"},
	"RequestHeaderSectionTooLarge":                   {400, "Your request header section exceeds the maximum allowed size."},
	"RequestTimeTooSkewed":                           {403, "The difference between the request time and the current time is too large."},
	"RequestTimeout":                                 {400, "Your socket connection to the server was not read from or written to within the timeout period."},
	"ServerSideEncryptionConfigurationNotFoundError": {404, "The server side encryption configuration was not found"},
	"ServiceUnavailable":                             {503, "Please reduce your request rate."},
	"SignatureDoesNotMatch":                          {403, "The request signature we calculated does not match the signature you provided. Check your key and signing method."},
	"TooManyBuckets":                                 {400, "You have attempted to create more buckets than allowed"},
	"UnexpectedContent":                              {400, "This request does not support content."},
	"UnresolvableGrantByEmailAddress":                {400, "The e-mail address you provided does not match any account on record."},
	"UserKeyMustBeSpecified":                         {400, "The bucket POST must contain the specified field name. If it is specified, check the order of the fields."},
	"XAmzContentSHA256Mismatch":                      {400, "The provided 'x-amz-content-sha256' header does not match what was computed."},
}

// fail returns the error of a code.
func fail(name string) *Error {
	c, ok := codes[name]
	if !ok {
		panic("s3: there is no error " + name)
	}
	return &Error{Code: name, Message: c.message, Status: c.status}
}

// failf is fail with another message.
func failf(name, format string, args ...any) *Error {
	e := fail(name)
	e.Message = fmt.Sprintf(format, args...)
	return e
}

// badArgument is about one parameter or header.
func badArgument(name, value, format string, args ...any) *Error {
	return failf("InvalidArgument", format, args...).with("ArgumentName", name).with("ArgumentValue", value)
}

func badRequest(format string, args ...any) *Error { return failf("InvalidRequest", format, args...) }

func notImplemented(format string, args ...any) *Error {
	return failf("NotImplemented", format, args...)
}

// storeErrors are the errors of objects as clients are told them.
var storeErrors = []struct {
	err error
	is  *Error
}{
	{objects.ErrNoBucket, fail("NoSuchBucket")},
	{objects.ErrBucketExists, fail("BucketAlreadyOwnedByYou")},
	{objects.ErrNotEmpty, fail("BucketNotEmpty")},
	{objects.ErrNoKey, fail("NoSuchKey")},
	{objects.ErrNoVersion, fail("NoSuchVersion")},
	{objects.ErrMarker, fail("MethodNotAllowed")},
	{objects.ErrKey, fail("InvalidURI")},
	{objects.ErrTooLarge, fail("EntityTooLarge")},
	{objects.ErrPrecondition, fail("PreconditionFailed")},
	{objects.ErrLocked, failf("AccessDenied", "Access Denied because object protected by object lock.")},
	{objects.ErrNoLock, fail("NoSuchObjectLockConfiguration")},
	{objects.ErrState, fail("InvalidBucketState")},
	{objects.ErrNoUpload, fail("NoSuchUpload")},
	{objects.ErrPart, fail("InvalidPart")},
	{objects.ErrPartOrder, fail("InvalidPartOrder")},
	{objects.ErrPartSize, fail("EntityTooSmall")},
	{objects.ErrReadOnly, failf("AccessDenied", "Access Denied: this device may only read the bucket")},
}

// told returns an error as a client is told it; ok is false for what is nobody's
// business.
func told(err error) (e *Error, ok bool) {
	if e = new(Error); errors.As(err, &e) {
		return e, true
	}
	if s := new(sigv4.Error); errors.As(err, &s) {
		return signatureError(s), true
	}
	for _, s := range storeErrors {
		if errors.Is(err, s.err) {
			return s.is, true
		}
	}
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		return fail("MaxMessageLengthExceeded"), true
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fail("RequestTimeout"), true
	}
	return fail("InternalError"), false
}

// signatureError says what is wrong with a signature as S3 does.
func signatureError(s *sigv4.Error) *Error {
	say := func(code string) *Error { return failf(code, "%s", s.Message) }
	switch s.Kind {
	case sigv4.Missing:
		return failf("InvalidRequest", "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.")
	case sigv4.Incomplete, sigv4.Malformed, sigv4.BadScope:
		return failf("AuthorizationHeaderMalformed", "The authorization header is malformed; %s", s.Message)
	case sigv4.BadQuery:
		return say("AuthorizationQueryParametersError")
	case sigv4.BadHeader:
		return badArgument("Authorization", s.Value, "%s", s.Message)
	case sigv4.BadHash:
		return badArgument("x-amz-content-sha256", s.Value, "%s", s.Message)
	case sigv4.Unsigned:
		return say("AccessDenied").with("HeadersNotSigned", s.Value)
	case sigv4.NoDate, sigv4.Expired, sigv4.Denied:
		return say("AccessDenied")
	case sigv4.UnknownKey:
		return fail("InvalidAccessKeyId").with("AWSAccessKeyId", s.Value)
	case sigv4.Mismatch:
		return mismatch(s)
	case sigv4.Skewed:
		return fail("RequestTimeTooSkewed").with("MaxAllowedSkewMilliseconds", "900000")
	case sigv4.BadPayload:
		return say("XAmzContentSHA256Mismatch")
	case sigv4.BadChunk:
		return fail("IncompleteBody")
	case sigv4.BadTrailer:
		return fail("MalformedTrailerError")
	case sigv4.BadStream:
		return say("InvalidRequest")
	case sigv4.NoLength:
		return fail("MissingContentLength")
	case sigv4.Short:
		return say("IncompleteBody")
	case sigv4.BadPolicy:
		return say("InvalidPolicyDocument")
	}
	return say("AccessDenied")
}

// mismatch says what was signed here, so that somebody can find the difference.
func mismatch(s *sigv4.Error) *Error {
	e := failf("SignatureDoesNotMatch", "%s", s.Message)
	for _, x := range [][2]string{{"AWSAccessKeyId", s.AccessKey}, {"StringToSign", s.ToSign}, {"SignatureProvided", s.Signature}, {"StringToSignBytes", spaced(s.ToSign)},
		{"CanonicalRequest", s.Canonical}, {"CanonicalRequestBytes", spaced(s.Canonical)}} {
		if x[1] != "" {
			e = e.with(x[0], x[1])
		}
	}
	return e
}

func spaced(text string) string { return strings.TrimSpace(fmt.Sprintf("% x", text)) }
