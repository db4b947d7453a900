package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudbevy/bevy/client"
)

// syncBenchmarks is the table of the benchmarks of two machines that keep a folder: two "bevy up", and two syncthings,
// on one machine, that know each other and talk over 127.0.0.1. Files are made beside the folder, and moved into it all at
// once; time ends when all of them are on the disk of the second, whole. Both sides sync each file that they receive
// before it gets its name. The sender of Bevy has every file in its own log by then, and that on the disk; a syncthing
// keeps hashes of the files. The watcher of syncthing waits for as short as it can, which is 1 s; it is not made to be
// nicer than we are.
//
// BEVY_BENCH_BIG=4096 has the large file be of so many MiB.
func syncBenchmarks() []benchmark {
	big := 512
	if n, err := strconv.Atoi(os.Getenv("BEVY_BENCH_BIG")); err == nil && n > 0 {
		big = n
	}
	ours := side{name: "bevy", prepare: buildBevy, run: measureSync(pairBevy)}
	theirs := side{name: "syncthing", run: measureSync(pairSyncthing)}
	bigWork, bigQuick := work{block: big << 20, count: 1}, work{block: 4 << 20, count: 1}
	edit := func(w work) work {
		w.gets = 1
		return w
	}
	return []benchmark{
		{
			name: "node/sync-small", unit: "s", lowerIsBetter: true, target: 3, maxRounds: 3,
			what: "10,000 files of 4 KiB appear in a folder, until all are on the disk of a second machine",
			full: work{block: 4 << 10, count: 10_000}, quick: work{block: 4 << 10, count: 20},
			bevy: ours, peer: theirs,
		},
		{
			name: "node/sync-big", unit: "s", lowerIsBetter: true, target: 1.5, maxRounds: 3,
			what: fmt.Sprintf("a file of %d MiB appears in a folder, until it is on the disk of a second machine", big),
			full: bigWork, quick: bigQuick,
			bevy: ours, peer: theirs,
		},
		{
			name: "node/sync-byte", unit: "MiB", lowerIsBetter: true, limit: 2, maxRounds: 3,
			what: fmt.Sprintf("a byte changes in the middle of a file of %d MiB that both have: what is sent until it has arrived, and the time", big),
			full: edit(bigWork), quick: edit(bigQuick),
			bevy: ours, peer: theirs,
		},
	}
}

// A machines is two nodes that keep a folder each.
type machines struct {
	name  string
	dirs  [2]string
	sent  func(ctx context.Context) (uint64, error) // bytes by the first, so far
	close func() error
}

// measureSync has files appear in the first folder, and waits until they are in the second. With w.gets, it is a change
// of them that counts.
func measureSync(pair func(context.Context, work) (*machines, error)) measure {
	return func(ctx context.Context, w work) (r result, err error) {
		if w.dir, err = os.MkdirTemp(w.dir, "pair-"); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
		m, err := pair(ctx, w)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, m.close()) }()
		// Whatever is done but once is done before time is taken.
		if _, err := appear(ctx, m, filepath.Join(w.dir, "warm"), work{block: 4 << 10, count: 20}, 1); err != nil {
			return r, err
		}
		before, err := m.sent(ctx)
		if err != nil {
			return r, err
		}
		took, err := appear(ctx, m, filepath.Join(w.dir, "stage"), w, 2)
		if err != nil {
			return r, err
		}
		after, err := m.sent(ctx)
		if err != nil {
			return r, err
		}
		if w.gets == 0 {
			return result{Name: m.name, Value: took.Seconds(), Extra: map[string]float64{
				"MiBPerSecond": float64(w.block*w.count) / (1 << 20) / took.Seconds(), "sentMiB": float64(after-before) / (1 << 20),
			}}, nil
		}
		if err := wait(ctx, 3); err != nil { // the end of what belongs to the file
			return r, err
		}
		if before, err = m.sent(ctx); err != nil {
			return r, err
		}
		if took, err = editOne(ctx, m, w); err != nil {
			return r, err
		}
		if err := wait(ctx, 3); err != nil {
			return r, err
		}
		after, err = m.sent(ctx)
		return result{Name: m.name, Value: float64(after-before) / (1 << 20), Extra: map[string]float64{"seconds": took.Seconds()}}, err
	}
}

// appear makes files of random bytes in a folder of their own, 1,000 each, moves these into the first machine's, and
// waits until the second has them.
func appear(ctx context.Context, m *machines, stage string, w work, seed uint64) (time.Duration, error) {
	random := rand.NewChaCha8([32]byte{byte(seed)})
	var dirs, files []string
	for i := range w.count {
		dir := fmt.Sprintf("%s-%04d", filepath.Base(stage), i/1000)
		if i%1000 == 0 {
			if err := os.MkdirAll(filepath.Join(stage, dir), 0o755); err != nil {
				return 0, err
			}
			dirs = append(dirs, dir)
		}
		file := filepath.Join(dir, fmt.Sprintf("%03d.bin", i%1000))
		f, err := os.Create(filepath.Join(stage, file))
		if err == nil {
			_, err = io.CopyN(f, random, int64(w.block))
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return 0, err
		}
		files = append(files, file)
	}
	start := time.Now()
	for _, dir := range dirs {
		if err := os.Rename(filepath.Join(stage, dir), filepath.Join(m.dirs[0], dir)); err != nil {
			return 0, err
		}
	}
	for _, file := range files {
		for {
			info, err := os.Stat(filepath.Join(m.dirs[1], file))
			if err == nil && info.Size() == int64(w.block) {
				break
			}
			if err := until(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
				return 0, fmt.Errorf("%s has not come: %w", file, err)
			}
		}
	}
	return time.Since(start), nil
}

// editOne changes a byte in the middle of the file of appear, and waits until the second machine has it.
func editOne(ctx context.Context, m *machines, w work) (time.Duration, error) {
	name, at := filepath.Join("stage-0000", "000.bin"), int64(w.block)/2
	byteOf := func(machine int) (b [1]byte, err error) {
		f, err := os.Open(filepath.Join(m.dirs[machine], name))
		if err != nil {
			return b, err
		}
		defer f.Close()
		_, err = f.ReadAt(b[:], at)
		return b, err
	}
	b, err := byteOf(0)
	if err != nil {
		return 0, err
	}
	b[0]++
	f, err := os.OpenFile(filepath.Join(m.dirs[0], name), os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	_, err = f.WriteAt(b[:], at)
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	for {
		if got, err := byteOf(1); err == nil && got == b {
			return time.Since(start), nil
		}
		if err := until(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
			return 0, fmt.Errorf("the change has not come: %w", err)
		}
	}
}

// pairBevy starts two nodes of one cloud, and the network that they find each other on.
func pairBevy(ctx context.Context, w work) (m *machines, err error) {
	m = &machines{}
	var ends []func() error
	m.close = func() (err error) {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
		return err
	}
	end := m.close
	defer func() {
		if err != nil {
			err = errors.Join(err, end())
		}
	}()
	built := filepath.Dir(w.dir) // where prepare has put it
	network := bevyCommand(ctx, built, filepath.Join(w.dir, "network"), "hyper", "dht", "bootstrap", "127.0.0.1", "--port", "0", "--bind", "127.0.0.1")
	out, err := network.StdoutPipe()
	if err == nil {
		err = network.Start()
	}
	if err != nil {
		return nil, err
	}
	ends = append(ends, func() error {
		err := network.Process.Signal(syscall.SIGTERM)
		_ = network.Wait() // its code tells of the signal
		return err
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		return nil, fmt.Errorf("the bootstrap node says %q: %w", line, err)
	}
	var homes [2]string
	for i := range m.dirs {
		m.dirs[i], homes[i] = filepath.Join(w.dir, fmt.Sprintf("folder%d", i)), filepath.Join(w.dir, fmt.Sprintf("home%d", i))
		if err := os.Mkdir(m.dirs[i], 0o755); err != nil {
			return nil, err
		}
		up := bevyCommand(ctx, built, homes[i], "up", "--json", "--listen", "127.0.0.1:0", "--bind", "127.0.0.1", "--name", fmt.Sprintf("machine%d", i))
		up.Env = append(up.Env, "BEVY_BOOTSTRAP="+address)
		n, err := upReady(up)
		if err != nil {
			return nil, err
		}
		ends = append([]func() error{n.stop}, ends...)
	}
	if err := bevy(ctx, built, homes[0], "add", m.dirs[0], "--as", "bench"); err != nil {
		return nil, err
	}
	words, err := bevyCommand(ctx, built, homes[0], "join", "--no-wait").Output()
	if err != nil {
		return nil, fmt.Errorf("bevy join: %w", err)
	}
	words = bytes.TrimSpace(bytes.TrimPrefix(words, []byte("bevy join ")))
	if err := bevy(ctx, built, homes[1], "join", string(words)); err != nil {
		return nil, err
	}
	for { // the folder is known once the second has heard of it
		err := bevy(ctx, built, homes[1], "add", m.dirs[1], "--as", "bench")
		if err == nil {
			break
		}
		if err := until(ctx, time.Now().Add(200*time.Millisecond)); err != nil {
			return nil, err
		}
	}
	m.name = "bevy"
	m.sent = func(ctx context.Context) (sent uint64, err error) {
		c, err := client.Dial(ctx, filepath.Join(homes[0], "state", "bevy.sock"))
		if err != nil {
			return 0, err
		}
		defer c.Close()
		s, err := c.Status(ctx)
		for _, m := range s.Machines {
			sent += m.Sent
		}
		return sent, err
	}
	return m, nil
}

// pairSyncthing starts two syncthings that share a folder, and talk to nobody else.
func pairSyncthing(ctx context.Context, w work) (m *machines, err error) {
	path, err := exec.LookPath("syncthing")
	if err != nil {
		return nil, fmt.Errorf("%w: install it to compare with it", err)
	}
	version, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return nil, err
	}
	m = &machines{name: "syncthing"}
	if words := strings.Fields(string(version)); len(words) > 1 {
		m.name = words[0] + " " + words[1]
	}
	var ends []func() error
	m.close = func() (err error) {
		for _, end := range ends {
			err = errors.Join(err, end())
		}
		return err
	}
	end := m.close
	defer func() {
		if err != nil {
			err = errors.Join(err, end())
		}
	}()
	var homes, ids, listens [2]string
	for i := range m.dirs {
		m.dirs[i], homes[i] = filepath.Join(w.dir, fmt.Sprintf("folder%d", i)), filepath.Join(w.dir, fmt.Sprintf("home%d", i))
		if err := os.MkdirAll(filepath.Join(m.dirs[i], ".stfolder"), 0o755); err != nil {
			return nil, err
		}
		if err := exec.CommandContext(ctx, path, "generate", "--home="+homes[i], "--skip-port-probing", "--no-default-folder").Run(); err != nil {
			return nil, fmt.Errorf("syncthing generate: %w", err)
		}
		id, err := exec.CommandContext(ctx, path, "--home="+homes[i], "--device-id").Output()
		if err != nil {
			return nil, fmt.Errorf("syncthing --device-id: %w", err)
		}
		ids[i] = strings.TrimSpace(string(id))
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		listens[i] = fmt.Sprintf("tcp://127.0.0.1:%d", port)
	}
	var apis [2]string
	const key = "bench"
	for i := range m.dirs {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		apis[i] = fmt.Sprintf("127.0.0.1:%d", port)
		config := fmt.Sprintf(syncthingConfig, m.dirs[i], ids[0], ids[1], listens[0], listens[1], apis[i], key, listens[i])
		if err := os.WriteFile(filepath.Join(homes[i], "config.xml"), []byte(config), 0o600); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, path, "serve", "--home="+homes[i], "--no-browser", "--no-restart", "--no-upgrade", "--no-default-folder")
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &said
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 10 * time.Second
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		ends = append(ends, func() error {
			err := cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait() // its code tells of the signal
			return err
		})
		if err := untilHTTP(ctx, "http://"+apis[i]+"/rest/noauth/health"); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, lastLines(said.String(), 20))
		}
	}
	m.sent = func(ctx context.Context) (uint64, error) {
		var of struct {
			Total struct{ OutBytesTotal uint64 }
		}
		return of.Total.OutBytesTotal, askSyncthing(ctx, "http://"+apis[0]+"/rest/system/connections", key, func(b []byte) error {
			return json.Unmarshal(b, &of)
		})
	}
	return m, nil
}

// syncthingConfig wants a folder, the ids of both, where both listen, where the API of this one is with its key, and
// where this one listens. What it does not say is as it is by default.
const syncthingConfig = `<configuration version="36">
<folder id="bench" label="bench" path="%[1]s" type="sendreceive" rescanIntervalS="3600" fsWatcherEnabled="true" fsWatcherDelayS="1">
<device id="%[2]s"></device><device id="%[3]s"></device>
</folder>
<device id="%[2]s" name="machine0"><address>%[4]s</address></device>
<device id="%[3]s" name="machine1"><address>%[5]s</address></device>
<gui enabled="true"><address>%[6]s</address><apikey>%[7]s</apikey></gui>
<options>
<listenAddress>%[8]s</listenAddress>
<globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled>
<relaysEnabled>false</relaysEnabled>
<natEnabled>false</natEnabled>
<crashReportingEnabled>false</crashReportingEnabled>
<setLowPriority>false</setLowPriority>
<reconnectionIntervalS>1</reconnectionIntervalS>
<startBrowser>false</startBrowser>
<urAccepted>-1</urAccepted>
</options>
</configuration>
`

// askSyncthing gets an answer of its API.
func askSyncthing(ctx context.Context, url, key string, use func([]byte) error) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("X-API-Key", key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("syncthing answers %s", answer.Status)
	}
	return errors.Join(err, use(b))
}
