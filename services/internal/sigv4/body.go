package sigv4

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// What X-Amz-Content-Sha256 may be besides a hash.
const (
	unsignedPayload = "UNSIGNED-PAYLOAD"
	signedChunks    = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	signedTrailer   = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
	unsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
)

// What bounds chunks.
const (
	maxLine     = 4 << 10 // of a chunk's head or of a trailer
	maxTrailers = 16
	maxChunk    = 5 << 30 // of data
)

// A Body is the body of a request. Reading it fails at the end, at the latest, if
// it is not what was signed.
type Body struct {
	// Length is how many bytes there are to be read, -1 if that is not known.
	Length int64
	// Trailer has what came after the data; it is complete once reading has ended.
	Trailer http.Header

	read  func(p []byte) (int, error)
	err   error
	left  int64 // of Length
	sized bool
	sum   string // what the SHA-256 has to be; "" if that is not looked at here
}

// TakeSum returns the SHA-256 that the whole body has to have, "" if none was signed.
// It is the caller's to compare then: reading does so no more. Nothing may have been
// read.
func (b *Body) TakeSum() string {
	sum := b.sum
	b.sum = ""
	return sum
}

// ErrSum is for a body that is not what was signed.
var ErrSum = fail(BadPayload, "The provided 'x-amz-content-sha256' header does not match what was computed.")

var _ io.Reader = (*Body)(nil)

// Read implements [io.Reader].
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.read(p)
	b.left -= int64(n)
	switch {
	case b.sized && b.left < 0:
		err = fail(Short, "You did not provide the number of bytes specified by the Content-Length HTTP header")
	case b.sized && b.left > 0 && err == io.EOF:
		err = fail(Short, "You did not provide the number of bytes specified by the Content-Length HTTP header")
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fail(Short, "The request body terminated unexpectedly")
	}
	b.err = err
	return n, err
}

// goodPayload reports whether a value of X-Amz-Content-Sha256 is one.
func goodPayload(payload string) bool {
	switch payload {
	case unsignedPayload, signedChunks, signedTrailer, unsignedTrailer:
		return true
	}
	_, err := hex.DecodeString(payload)
	return err == nil && len(payload) == 64
}

// newBody returns the body of a request with that payload.
func newBody(r *http.Request, payload string, sig *chain) (*Body, error) {
	body := r.Body
	if body == nil {
		body = http.NoBody
	}
	b := &Body{Length: r.ContentLength, Trailer: http.Header{}}
	switch payload {
	case unsignedPayload:
		b.read = body.Read
	case signedChunks, signedTrailer, unsignedTrailer:
		text := r.Header.Get("X-Amz-Decoded-Content-Length")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return nil, fail(NoLength, "X-Amz-Decoded-Content-Length must say how long the data is")
		}
		b.Length = n
		c := &chunks{r: bufio.NewReaderSize(body, maxLine), trailer: b.Trailer, wants: payload != signedChunks, names: trailerNames(r.Header)}
		if payload != unsignedTrailer {
			c.sig, c.hash = sig, sha256.New()
		}
		b.read = c.Read
	default:
		if !goodPayload(payload) {
			return nil, fail(BadPayload, "The provided 'x-amz-content-sha256' header does not match what was computed.")
		}
		h := sha256.New()
		b.sum = payload
		b.read = func(p []byte) (int, error) {
			n, err := body.Read(p)
			if b.sum == "" {
				return n, err
			}
			h.Write(p[:n])
			if err == io.EOF && !same(h.Sum(nil), payload) {
				err = ErrSum
			}
			return n, err
		}
	}
	b.left, b.sized = b.Length, b.Length >= 0
	return b, nil
}

// trailerNames are the trailers that a request announces.
func trailerNames(h http.Header) []string {
	return strings.FieldsFunc(strings.ToLower(h.Get("X-Amz-Trailer")), func(r rune) bool { return r == ',' || r == ' ' })
}

// A chain is the signatures of chunks, each of which is over the one before.
type chain struct {
	key         []byte
	time, scope string
	last        string
}

// next verifies the next signature.
func (c *chain) next(kind, text, got string) error {
	want := sign(c.key, kind+"\n"+c.time+"\n"+c.scope+"\n"+c.last+"\n"+text)
	if !same(want, got) {
		return fail(Mismatch, "The signature of a chunk does not match")
	}
	c.last = got
	return nil
}

const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// chunks reads a body of chunks (aws-chunked):
//
//	HEX-SIZE[;chunk-signature=SIGNATURE] CRLF data CRLF
//
// The last has no data; after it may come trailers.
type chunks struct {
	r       *bufio.Reader
	sig     *chain // nil if chunks are not signed
	hash    hash.Hash
	wants   bool // trailers
	names   []string
	trailer http.Header

	left      int64 // of the chunk
	signature string
}

// Read implements [io.Reader].
func (c *chunks) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.head(); err != nil {
			return 0, err
		}
		if c.left == 0 {
			return 0, c.end()
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if c.hash != nil {
		c.hash.Write(p[:n])
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && c.left == 0 {
		err = c.close()
	}
	return n, err
}

// errNothing says that there is no line any more.
var errNothing = fmt.Errorf("no more lines: %w", io.ErrUnexpectedEOF)

// line reads a line without its end.
func (c *chunks) line() (string, error) {
	b, err := c.r.ReadSlice('\n')
	if err == io.EOF && len(b) == 0 {
		return "", errNothing
	}
	if err == io.EOF {
		return "", io.ErrUnexpectedEOF
	}
	if errors.Is(err, bufio.ErrBufferFull) || err == nil && (len(b) < 2 || b[len(b)-2] != '\r') {
		return "", fail(BadChunk, "A line of the chunks makes no sense")
	}
	if err != nil {
		return "", err
	}
	return string(b[:len(b)-2]), nil
}

// head reads what a chunk begins with.
func (c *chunks) head() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	size, extension, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(size, 16, 63)
	if err != nil || n > maxChunk {
		return fail(BadChunk, "The size of a chunk makes no sense")
	}
	c.left = int64(n)
	if c.sig == nil {
		return nil
	}
	var ok bool
	if c.signature, ok = strings.CutPrefix(extension, "chunk-signature="); !ok || len(c.signature) != 2*sha256.Size {
		return fail(BadChunk, "A chunk has no signature")
	}
	c.hash.Reset()
	return nil
}

// verify verifies the chunk that was read.
func (c *chunks) verify() error {
	if c.sig == nil {
		return nil
	}
	return c.sig.next(algorithm+"-PAYLOAD", emptyHash+"\n"+hex.EncodeToString(c.hash.Sum(nil)), c.signature)
}

// close ends a chunk with data.
func (c *chunks) close() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	if line != "" {
		return fail(BadChunk, "A chunk is longer than it says")
	}
	return c.verify()
}

// end reads what comes after the last chunk.
func (c *chunks) end() error {
	if err := c.verify(); err != nil {
		return err
	}
	var text strings.Builder
	signed := false
	for range maxTrailers {
		line, err := c.line()
		if err != nil {
			// Some clients leave out the last line when there are no trailers.
			if !c.wants && err == errNothing {
				return c.last()
			}
			return err
		}
		if line == "" {
			// A trailer's signature may come after an empty line.
			if c.sig == nil || !c.wants || signed {
				return c.last()
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !c.wants || signed {
			return fail(BadChunk, "A trailer makes no sense")
		}
		name = strings.ToLower(strings.TrimSpace(name))
		value = strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" {
			if c.sig == nil {
				return fail(BadChunk, "A trailer makes no sense")
			}
			if len(value) != 2*sha256.Size {
				return fail(BadChunk, "The signature of the trailers is not one")
			}
			sum := sha256.Sum256([]byte(text.String()))
			if err := c.sig.next(algorithm+"-TRAILER", hex.EncodeToString(sum[:]), value); err != nil {
				return err
			}
			signed = true
			continue
		}
		if !slices.Contains(c.names, name) {
			return fail(BadTrailer, "The request contained trailing data that was not well-formed or did not conform to our published schema.")
		}
		text.WriteString(name + ":" + value + "\n")
		c.trailer.Add(name, value)
	}
	return fail(BadChunk, "There are too many trailers")
}

// last makes sure that nothing follows.
func (c *chunks) last() error {
	if _, err := c.r.ReadByte(); err != io.EOF {
		if err == nil {
			err = fail(BadChunk, "There is something after the last chunk")
		}
		return err
	}
	return io.EOF
}
