package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"
)

// Sign signs a request as a client of S3 does, whose payload has that SHA-256. It
// sets the headers that it signs, beside the host.
func Sign(r *http.Request, payload [sha256.Size]byte, accessKey, secret, region string, at time.Time) error {
	at = at.UTC()
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	sum := hex.EncodeToString(payload[:])
	r.Header.Set("X-Amz-Date", at.Format(timeFormat))
	r.Header.Set("X-Amz-Content-Sha256", sum)
	s := &signature{accessKey: accessKey, date: at.Format("20060102"), region: region, service: "s3", at: at,
		headers: []string{"host", "x-amz-content-sha256", "x-amz-date"}}
	canonical, err := canonicalRequest(r, s, sum, true)
	if err != nil {
		return err
	}
	hash := sha256.Sum256([]byte(canonical))
	toSign := algorithm + "\n" + at.Format(timeFormat) + "\n" + s.scope() + "\n" + hex.EncodeToString(hash[:])
	r.Header.Set("Authorization", algorithm+" Credential="+accessKey+"/"+s.scope()+",SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature="+
		hex.EncodeToString(sign(signingKey(secret, s.date, region, "s3"), toSign)))
	return nil
}
