package bridge

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A coding is how the contents of an answer are compressed.
type coding uint8

const (
	plain coding = iota
	gzipped
	zstandard
)

func (c coding) String() string { return [...]string{"", "gzip", "zstd"}[c] }

// What is compressed: files of these sizes.
const (
	minCompressed = 512
	maxCompressed = 4 << 20
)

// codingFor returns the coding that a client likes best of those there are.
func codingFor(h http.Header) coding {
	best, bestQ := plain, 0.0
	for _, line := range h["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			var c coding
			switch name = strings.TrimSpace(name); {
			case strings.EqualFold(name, "zstd"):
				c = zstandard
			case strings.EqualFold(name, "gzip"), strings.EqualFold(name, "x-gzip"):
				c = gzipped
			default:
				continue
			}
			if q := quality(params); q > bestQ || q == bestQ && q > 0 && c > best {
				best, bestQ = c, q
			}
		}
	}
	return best
}

// quality is the q of an item that a client accepts.
func quality(params string) float64 {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		q, err := strconv.ParseFloat(value, 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}

// A compressor compresses for as many requests at once as there are processors,
// with a writer kept for each.
type compressor struct {
	places
	gzips, zstds *sync.Pool
}

func newCompressor() compressor {
	return compressor{
		places: make(places, runtime.GOMAXPROCS(0)),
		gzips:  &sync.Pool{},
		zstds:  &sync.Pool{},
	}
}

type resetter interface {
	io.WriteCloser
	Reset(io.Writer)
}

// compress returns data compressed.
func (c compressor) compress(how coding, data []byte) ([]byte, error) {
	pool := c.gzips
	if how == zstandard {
		pool = c.zstds
	}
	w, ok := pool.Get().(resetter)
	if !ok {
		var err error
		if w, err = newWriter(how); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	out.Grow(len(data) / 3)
	w.Reset(&out)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	w.Reset(nil) // it keeps nothing of the answer
	pool.Put(w)
	return out.Bytes(), nil
}

func newWriter(how coding) (resetter, error) {
	if how == gzipped {
		return gzip.NewWriter(nil), nil
	}
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(1<<20))
}
