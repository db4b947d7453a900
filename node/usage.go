package node

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

// A usageMeter tells what the process and its services use, as far as Go knows:
// goroutines and processor time carry the name of the service they belong to,
// memory does not.
type usageMeter struct {
	mu    sync.Mutex
	at    time.Time // of what is below
	known map[string]int
}

// countEvery is how often goroutines are counted at most: it stops all of them
// for a moment.
const countEvery = time.Second

// goroutines counts the goroutines of each service.
func (u *usageMeter) goroutines(now time.Time) map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.known != nil && now.Sub(u.at) < countEvery && !now.Before(u.at) {
		return u.known
	}
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return nil
	}
	u.known, u.at = countLabels(&b), now
	return u.known
}

// countLabels reads a profile of goroutines in words: lines such as "3 @ 0x1 0x2",
// each with one such as `# labels: {"service":"sync"}` behind it.
func countLabels(r io.Reader) map[string]int {
	counts := map[string]int{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	last := 0
	for lines.Scan() {
		line := lines.Text()
		if n, _, ok := strings.Cut(line, " @"); ok {
			last, _ = strconv.Atoi(n)
			continue
		}
		if _, rest, ok := strings.Cut(line, `"service":`); ok && strings.HasPrefix(line, "# labels: ") {
			if quoted, err := strconv.QuotedPrefix(rest); err == nil {
				name, _ := strconv.Unquote(quoted)
				counts[name] += last
			}
		}
	}
	return counts
}

// process tells what the whole process uses.
func (u *usageMeter) process() client.Usage {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	out := client.Usage{Goroutines: runtime.NumGoroutine(), CPU: processorTime().Seconds(), Memory: resident(), Files: openFiles()}
	if heap[0].Value.Kind() == metrics.KindUint64 {
		out.Heap = heap[0].Value.Uint64()
	}
	return out
}

// resident is the memory that the process has, or 0 where nobody tells.
func resident() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages uint64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// openFiles is how many files the process has open, or 0 where nobody tells.
func openFiles() int {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return max(len(names)-1, 0) // not the folder itself
}

// measure watches the processor, and tells which share of one each service
// used. What belongs to none is under "".
func (u *usageMeter) measure(ctx context.Context, c clock.Clock, d time.Duration) (map[string]float64, error) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return nil, &client.Error{Code: client.CodeConflict, Message: "cannot measure", Cause: err.Error(), Try: "wait until the other measurement is over"}
	}
	over := make(chan struct{})
	t := c.AfterFunc(d, func() { close(over) })
	select {
	case <-over:
	case <-ctx.Done():
		t.Stop()
	}
	pprof.StopCPUProfile()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	times, err := readProfile(&b)
	if err != nil {
		return nil, fmt.Errorf("read the profile: %w", err)
	}
	share := map[string]float64{}
	for name, took := range times {
		share[name] = took.Seconds() / d.Seconds()
	}
	return share, nil
}

// maxProfile bounds a profile.
const maxProfile = 64 << 20

// readProfile adds up the times of a processor profile by service. Of its format
// (github.com/google/pprof/proto/profile.proto) it needs samples (2), with values
// (2) and labels (3), and strings (6).
func readProfile(r io.Reader) (map[string]time.Duration, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, maxProfile))
	if err != nil {
		return nil, err
	}
	var words []string
	type sample struct {
		took   int64
		labels [][2]uint64 // key, value: places in words
	}
	var samples []sample
	err = protoFields(b, func(number int, _ uint64, part []byte) error {
		switch number {
		case 6:
			words = append(words, string(part))
		case 2:
			var s sample
			if err := protoFields(part, func(number int, v uint64, part []byte) error {
				switch number {
				case 2: // how often, and nanoseconds: packed or not
					s.took = int64(v)
					for len(part) > 0 {
						v, n := binary.Uvarint(part)
						if n <= 0 {
							return errProfile
						}
						s.took, part = int64(v), part[n:]
					}
				case 3:
					var label [2]uint64
					s.labels = append(s.labels, label)
					return protoFields(part, func(number int, v uint64, _ []byte) error {
						if number == 1 || number == 2 {
							s.labels[len(s.labels)-1][number-1] = v
						}
						return nil
					})
				}
				return nil
			}); err != nil {
				return err
			}
			samples = append(samples, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	times := map[string]time.Duration{}
	for _, s := range samples {
		name := ""
		for _, l := range s.labels {
			if l[0] >= uint64(len(words)) || l[1] >= uint64(len(words)) {
				return nil, errProfile
			}
			if words[l[0]] == "service" {
				name = words[l[1]]
			}
		}
		times[name] += time.Duration(s.took)
	}
	return times, nil
}

var errProfile = errors.New("not a profile")

// protoFields calls f with each field of a message of protocol buffers: with its
// number, and its value or its bytes.
func protoFields(b []byte, f func(number int, value uint64, part []byte) error) error {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return errProfile
		}
		b = b[n:]
		var value uint64
		var part []byte
		switch key & 7 {
		case 0:
			if value, n = binary.Uvarint(b); n <= 0 {
				return errProfile
			}
			b = b[n:]
		case 2:
			length, n := binary.Uvarint(b)
			if n <= 0 || length > uint64(len(b)-n) {
				return errProfile
			}
			part, b = b[n:n+int(length)], b[n+int(length):]
		default: // profiles have no others
			return errProfile
		}
		if err := f(int(key>>3), value, part); err != nil {
			return err
		}
	}
	return nil
}
