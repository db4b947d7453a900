package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cloudbevy/bevy/hyper/clock"
	"github.com/cloudbevy/bevy/services/internal/sigv4"
)

// S3 is a Remote in a bucket of any server that speaks S3. It must not be changed
// once it is used.
type S3 struct {
	Endpoint string // such as "https://s3.example.com", without a bucket
	Bucket   string
	Prefix   string // of names, "" or one that ends in a slash
	Region   string // "us-east-1" if it is empty
	// AccessKey and Secret are those of who may read, write, list and delete there.
	AccessKey, Secret string

	HTTP  http.RoundTripper // http.DefaultTransport if nil
	Clock clock.Clock       // the machine's clock if nil
}

const (
	tries       = 4
	partTries   = 2
	tryTimeout  = 5 * time.Minute
	partTimeout = 30 * time.Second // somebody waits to read
	firstPause  = 500 * time.Millisecond
	maxListing  = 16 << 20 // of one page
	maxErrorXML = 64 << 10
)

// Check returns why it makes no sense.
func (s *S3) Check() error {
	u, err := url.Parse(s.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("%q is no address of an S3 server", s.Endpoint)
	case s.Bucket == "" || strings.ContainsAny(s.Bucket, "/?#"):
		return fmt.Errorf("%q is no bucket", s.Bucket)
	case s.AccessKey == "" || s.Secret == "":
		return errors.New("there is no access key")
	}
	return nil
}

// An s3Error is what a server answers.
type s3Error struct {
	Status  int    `xml:"-"`
	Code    string `xml:"Code"`
	Message string `xml:"Message"`
}

func (e *s3Error) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("the server answers %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("the server answers %s: %.300s", e.Code, e.Message)
}

func (e *s3Error) Unwrap() error {
	switch {
	case e.Code == "NoSuchBucket":
		return ErrNoBucket
	case e.Status == http.StatusNotFound:
		return ErrNotFound
	case e.Status == http.StatusForbidden || e.Status == http.StatusUnauthorized:
		return ErrDenied
	}
	return nil
}

// A question is a request. The answer's body has up to limit bytes.
type question struct {
	method, name string
	query        url.Values
	body         []byte
	limit        int64
	part         bool // only limit bytes of the object are wanted, from at on
	at           int64
}

// ask sends a request, again after what passes, and returns the answer's body.
func (s *S3) ask(ctx context.Context, q question) (b []byte, err error) {
	c := s.Clock
	if c == nil {
		c = clock.System
	}
	n := tries
	if q.part {
		n = partTries
	}
	for try := range n {
		if try > 0 {
			over := make(chan struct{})
			t := c.AfterFunc(firstPause<<(2*try-2), func() { close(over) })
			select {
			case <-over:
			case <-ctx.Done():
				t.Stop()
				return nil, errors.Join(err, ctx.Err())
			}
		}
		var again bool
		if b, again, err = s.askOnce(ctx, c, q); err == nil || !again || ctx.Err() != nil {
			break
		}
	}
	return b, err
}

func (s *S3) askOnce(ctx context.Context, c clock.Clock, q question) (b []byte, again bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := tryTimeout
	if q.part {
		timeout = partTimeout
	}
	defer c.AfterFunc(timeout, func() { cancel(fmt.Errorf("no answer in %v", timeout)) }).Stop()
	path := "/" + s.Bucket
	if q.name != "" {
		path += "/" + s.Prefix + q.name
	}
	u, err := url.Parse(strings.TrimRight(s.Endpoint, "/"))
	if err != nil {
		return nil, false, err
	}
	u.Path, u.RawQuery = path, q.query.Encode()
	req, err := http.NewRequestWithContext(ctx, q.method, u.String(), bytes.NewReader(q.body))
	if err != nil {
		return nil, false, err
	}
	if q.part {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", q.at, q.at+q.limit-1))
	}
	region := s.Region
	if region == "" {
		region = "us-east-1"
	}
	if err := sigv4.Sign(req, sha256.Sum256(q.body), s.AccessKey, s.Secret, region, c.Now()); err != nil {
		return nil, false, err
	}
	client := http.Client{Transport: s.HTTP, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, true, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		e := &s3Error{Status: resp.StatusCode}
		if b, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorXML)); err == nil {
			_ = xml.Unmarshal(b, e) // else the status says enough
		}
		return nil, resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, e
	}
	if q.part {
		if resp.StatusCode != http.StatusPartialContent { // it does not know parts
			if _, err := io.CopyN(io.Discard, resp.Body, q.at); err != nil && !errors.Is(err, io.EOF) {
				return nil, true, err
			}
		}
		b, err = io.ReadAll(io.LimitReader(resp.Body, q.limit))
		return b, true, err
	}
	b, err = io.ReadAll(io.LimitReader(resp.Body, q.limit+1))
	if err == nil && int64(len(b)) > q.limit {
		return nil, false, fmt.Errorf("%s has more than %d bytes: %w", q.name, q.limit, ErrKey)
	}
	return b, true, err
}

// Put implements [Remote].
func (s *S3) Put(ctx context.Context, name string, body []byte) error {
	_, err := s.ask(ctx, question{method: http.MethodPut, name: name, body: body, limit: maxErrorXML})
	return err
}

// Get implements [Remote].
func (s *S3) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	return s.ask(ctx, question{method: http.MethodGet, name: name, limit: limit})
}

// GetRange implements [Remote].
func (s *S3) GetRange(ctx context.Context, name string, at, n int64) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b, err := s.ask(ctx, question{method: http.MethodGet, name: name, limit: n, part: true, at: at})
	if e := (*s3Error)(nil); errors.As(err, &e) && e.Status == http.StatusRequestedRangeNotSatisfiable {
		return nil, nil // it is shorter
	}
	return b, err
}

// Delete implements [Remote].
func (s *S3) Delete(ctx context.Context, name string) error {
	_, err := s.ask(ctx, question{method: http.MethodDelete, name: name, limit: maxErrorXML})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// List implements [Remote].
func (s *S3) List(ctx context.Context, prefix string) (items []Item, err error) {
	query := url.Values{"list-type": {"2"}, "prefix": {s.Prefix + prefix}}
	for {
		b, err := s.ask(ctx, question{method: http.MethodGet, query: query, limit: maxListing})
		if err != nil {
			return nil, err
		}
		var page struct {
			XMLName  xml.Name `xml:"ListBucketResult"` // a page that asks to sign in is no empty list
			Contents []struct {
				Key          string
				Size         int64
				LastModified time.Time
			}
			IsTruncated           bool
			NextContinuationToken string
		}
		if err := xml.Unmarshal(b, &page); err != nil {
			return nil, fmt.Errorf("read the list of objects: %w", err)
		}
		for _, o := range page.Contents {
			items = append(items, Item{strings.TrimPrefix(o.Key, s.Prefix), o.Size, o.LastModified})
		}
		if !page.IsTruncated || page.NextContinuationToken == "" {
			return items, nil
		}
		query.Set("continuation-token", page.NextContinuationToken)
	}
}
