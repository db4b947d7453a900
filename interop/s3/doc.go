// Package s3 proves the S3 door with programs that nobody here wrote: the AWS SDKs for Go and for JavaScript, the aws
// command, s3cmd, rclone and restic.
//
// It has tests only; README.md says how they are run, also against other servers, and what they need. The programs are
// skipped where they are not installed; with BEVY_INTEROP=1 their tests fail instead. BEVY_LONG=1 does more of
// everything.
package s3
