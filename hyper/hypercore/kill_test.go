package hypercore_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/cloudbevy/bevy/hyper/hypercore"
	"github.com/cloudbevy/bevy/hyper/storage"
)

// killEnv makes the test binary the process that is killed.
const killEnv = "BEVY_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		fmt.Println("error", writeUntilKilled(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

var killKeys = hypercore.NewKeyPair([32]byte{77})

// killBlock is block i of the log that is written: one in eight is large.
func killBlock(i uint64) []byte {
	size := 40 + i%200
	if i%8 == 0 {
		size = 17 << 10
	}
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, i), int(size/8)+1)
}

// writeUntilKilled appends durably and says so, one line an append.
func writeUntilKilled(dir string) error {
	e, err := storage.Disk{Dir: dir}.Open()
	if err != nil {
		return err
	}
	s, err := storage.Open(e, storage.Options{})
	if err != nil {
		return err
	}
	l, err := hypercore.Open(s, hypercore.Options{KeyPair: &killKeys})
	if err != nil {
		return err
	}
	for l.Length() < 1<<20 {
		var blocks [][]byte
		for i := range 1 + l.Length()%5 {
			blocks = append(blocks, killBlock(l.Length()+i))
		}
		n, err := l.Append(context.Background(), blocks...)
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
	return errors.New("not killed")
}

// TestKilledProcessLosesNothingAcknowledged kills a process that appends, again
// and again, on a real disk.
func TestKilledProcessLosesNothingAcknowledged(t *testing.T) {
	rounds := 4
	if os.Getenv("BEVY_LONG") != "" {
		rounds = 100
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range rounds {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var acknowledged uint64
		for range 1 + rng.IntN(150) {
			if !lines.Scan() {
				break
			}
			if acknowledged, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
				t.Fatalf("the writer says %q", lines.Text())
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died counts
			if n, err := strconv.ParseUint(lines.Text(), 10, 64); err == nil {
				acknowledged = n
			}
		}
		_ = cmd.Wait() // killed

		e, err := storage.Disk{Dir: dir}.Open()
		if err != nil {
			t.Fatal(err)
		}
		s, err := storage.Open(e, storage.Options{})
		if err != nil {
			t.Fatal(err)
		}
		l, err := hypercore.Open(s, hypercore.Options{KeyPair: &killKeys, MustExist: true})
		if err != nil {
			t.Fatal(err)
		}
		if acknowledged == 0 || l.Length() < acknowledged {
			t.Fatalf("round %d: %d blocks are left of %d acknowledged", round, l.Length(), acknowledged)
		}
		for i := range l.Length() {
			if got, err := l.Get(context.Background(), i); err != nil || !bytes.Equal(got, killBlock(i)) {
				t.Fatalf("round %d: block %d of %d: %d bytes, %v", round, i, l.Length(), len(got), err)
			}
		}
		for p, err := range l.Audit(context.Background()) {
			t.Fatalf("round %d: audit: %v, %v", round, p, err)
		}
		if err := errors.Join(l.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
