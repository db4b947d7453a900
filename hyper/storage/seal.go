package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// After a crash, Pebble takes a bad end of its manifest or its log for what was
// being written then, and goes on without. That must be: but a bit that flips
// there later looks the same, and would take whole files of data with it,
// without a word. Two checks before the database is opened tell them apart:
//
//   - A store that was closed is sealed: the file CLOSED lists its files with
//     their checksums. It goes before anything is written again.
//   - In one that was not, a bad place that is followed by what can only have
//     been written after that place was synced is no crash.
const sealName = "CLOSED"

const sealVersion = "bevy store closed 1\n"

// sealed returns the content of the seal for the store's files as they are.
func (d *disk) sealed() ([]byte, error) {
	names, err := d.opts.FS.List(d.opts.Dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	out := []byte(sealVersion)
	for _, name := range names {
		info, err := d.opts.FS.Stat(d.path(name))
		if err != nil {
			return nil, err
		}
		switch {
		case info.IsDir(), name == "LOCK", name == "OWNER", strings.HasPrefix(name, sealName), strings.HasPrefix(name, markPrefix):
		case strings.HasSuffix(name, ".sst"), strings.HasSuffix(name, ".blob"): // they have checksums of their own
			out = fmt.Appendf(out, "- %d %s\n", info.Size(), name)
		default:
			data, err := d.readFile(name)
			if err != nil {
				return nil, err
			}
			out = fmt.Appendf(out, "%08x %d %s\n", crc32.Checksum(data, castagnoli), len(data), name)
		}
	}
	return fmt.Appendf(out, "%08x\n", crc32.Checksum(out, castagnoli)), nil
}

func (d *disk) path(name string) string { return d.opts.FS.PathJoin(d.opts.Dir, name) }

// seal says that the store was closed.
func (d *disk) seal() error {
	seal, err := d.sealed()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	f, err := d.opts.FS.Create(d.path(sealName+".new"), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	_, err = f.Write(seal)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := d.opts.FS.Rename(d.path(sealName+".new"), d.path(sealName)); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return d.syncFolder()
}

func (d *disk) syncFolder() error {
	f, err := d.opts.FS.OpenDir(d.opts.Dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	d.files.syncs.Add(1)
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// checkFiles makes sure that the database will not take a damaged file for one
// that a crash cut off. For writing it breaks the seal.
func (d *disk) checkFiles() error {
	seal, err := d.readFile(sealName)
	if errors.Is(err, fs.ErrNotExist) {
		return d.checkTails()
	}
	if err != nil {
		return err
	}
	if err := d.checkSeal(seal); err != nil {
		return err
	}
	if d.opts.ReadOnly {
		return nil
	}
	if err := d.opts.FS.Remove(d.path(sealName)); err != nil {
		return fmt.Errorf("break seal: %w", err)
	}
	return d.syncFolder()
}

func (d *disk) checkSeal(seal []byte) error {
	if end := len(seal) - 9; end < 0 || !bytes.HasPrefix(seal, []byte(sealVersion)) ||
		string(seal[end:]) != fmt.Sprintf("%08x\n", crc32.Checksum(seal[:end], castagnoli)) {
		return fmt.Errorf("file %s: %w: remove it to open the store as after a crash", sealName, ErrCorrupt)
	}
	is, err := d.sealed()
	if err != nil {
		return err
	}
	// Files that came since do no harm.
	for line := range bytes.Lines(seal[len(sealVersion) : len(seal)-9]) {
		if !bytes.Contains(is, append([]byte{'\n'}, line...)) {
			name := bytes.TrimSpace(line[bytes.LastIndexByte(line, ' ')+1:])
			return fmt.Errorf("file %s is not what it was when the store was closed: %w", name, ErrCorrupt)
		}
	}
	return nil
}

// checkTails looks at the manifest and the logs of a store that was not closed.
func (d *disk) checkTails() error {
	names, err := d.opts.FS.List(d.opts.Dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	manifest := ""
	for _, name := range names {
		if rest, ok := strings.CutPrefix(name, "marker.manifest."); ok {
			_, manifest, _ = strings.Cut(rest, ".") // the last one counts
		}
	}
	for _, name := range names {
		number, isLog := strings.CutSuffix(name, ".log")
		if name != manifest && !isLog {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if isLog && err != nil {
			continue
		}
		data, err := d.readFile(name)
		if err != nil {
			return err
		}
		if at, bad := damaged(data, isLog, uint32(n)); bad {
			return fmt.Errorf("file %s at %d: %w: what comes later was written after this was safe", name, at, ErrCorrupt)
		}
	}
	return nil
}

// Pebble's record format (record/record.go): blocks of 32 KiB of chunks, which
// have a header: masked CRC-32C of what follows it, length, encoding; in logs
// also the number of the log, and how much of it was synced before.
const (
	recordBlock   = 32 << 10
	chunkHeader   = 7
	logHeader     = chunkHeader + 4 + 8
	firstLogChunk = 9
	lastLogChunk  = 12
	maskDelta     = 0xa282ead8
)

// chunk returns the length of the chunk at a place, header included, and to
// where the file was synced before it; or 0 when there is none.
func chunk(data []byte, at int, log bool, number uint32) (size int, synced uint64) {
	b := data[at:min(len(data), at-at%recordBlock+recordBlock)]
	header := chunkHeader
	if log {
		header = logHeader
	}
	if len(b) < header {
		return 0, 0
	}
	encoding := b[6]
	size = header + int(binary.LittleEndian.Uint16(b[4:]))
	if size > len(b) || encoding == 0 {
		return 0, 0
	}
	if log {
		if encoding < firstLogChunk || encoding > lastLogChunk || binary.LittleEndian.Uint32(b[7:]) != number {
			return 0, 0
		}
		synced = binary.LittleEndian.Uint64(b[11:])
	} else if encoding > 4 {
		return 0, 0
	}
	crc := crc32.Checksum(b[6:size], castagnoli)
	if (crc>>15|crc<<17)+maskDelta != binary.LittleEndian.Uint32(b) {
		return 0, 0
	}
	return size, synced
}

// damaged returns where a manifest or log stops to make sense, if later parts
// of it show that it made sense once.
func damaged(data []byte, log bool, number uint32) (at int, bad bool) {
	for at < len(data) {
		size, _ := chunk(data, at, log, number)
		if size > 0 {
			at += size
			continue
		}
		left := min(recordBlock-at%recordBlock, len(data)-at)
		if left < logHeader && len(bytes.Trim(data[at:at+left], "\x00")) == 0 {
			at += left
			continue
		}
		break
	}
	// In a manifest each record is synced before the next is written. In a log a
	// chunk says how much was synced before it; too little, once a log is longer
	// than a block (v2.1.7 leaves out whole blocks). But it grows with each sync,
	// and when it has grown twice since a chunk, the second sync began after that
	// chunk was there.
	syncs, last := 0, uint64(0)
	for later := at + 1; later < len(data); {
		size, synced := chunk(data, later, log, number)
		if size == 0 {
			later++
			continue
		}
		if syncs == 0 || synced > last {
			syncs, last = syncs+1, synced
		}
		if !log || synced > uint64(at) || syncs == 3 {
			return at, true
		}
		later += size
	}
	return 0, false
}

// readFile returns the whole of a file in the store's folder.
func (d *disk) readFile(name string) ([]byte, error) {
	f, err := d.opts.FS.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(f)
	return data, errors.Join(err, f.Close())
}
