package node

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// maxLog bounds the file of the log. There is one older one.
const maxLog = 4 << 20

// A logFile is a file that starts anew when it is full. What was in it is kept
// under another name, once.
type logFile struct {
	path string
	max  int64

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string, max int64) (*logFile, error) {
	l := &logFile{path: path, max: max}
	return l, l.openLocked()
}

func (l *logFile) openLocked() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer. A line is never cut in two.
func (l *logFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, fs.ErrClosed
	}
	if l.size > 0 && l.size+int64(len(line)) > l.max {
		if err := l.turnLocked(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

func (l *logFile) turnLocked() error {
	err := l.file.Close()
	l.file = nil
	if err == nil {
		err = os.Rename(l.path, l.path+".old")
	}
	if err != nil {
		return err
	}
	return l.openLocked()
}

func (l *logFile) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// newLogger writes to the file, and to a person who watches, if any.
func newLogger(file *logFile, level slog.Leveler, watch io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	h := slog.Handler(slog.NewTextHandler(file, o))
	if watch != nil {
		h = slog.NewMultiHandler(h, slog.NewTextHandler(watch, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
	}
	return slog.New(h)
}

// withoutTime leaves out what who watches knows.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && len(groups) == 0 {
		return slog.Attr{}
	}
	return a
}

func logPath(p Paths) string { return filepath.Join(p.State, "bevy.log") }
