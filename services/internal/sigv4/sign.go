package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
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

// A signingOf is what a signing key is made of.
type signingOf struct{ secret, date, region, service string }

// signingKeys are those made last: one serves for all requests of a client in a day.
type signingKeys struct {
	mu   sync.Mutex
	made map[signingOf][]byte
}

// maxSigningKeys bounds them, as clients choose dates and regions.
const maxSigningKeys = 256

func (k *signingKeys) get(of signingOf) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := k.made[of]
	if key == nil {
		if len(k.made) >= maxSigningKeys {
			clear(k.made)
		}
		if k.made == nil {
			k.made = map[signingOf][]byte{}
		}
		key = signingKey(of.secret, of.date, of.region, of.service)
		k.made[of] = key
	}
	return key
}
