package main

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cloudbevy/bevy/hyper/clock"
)

// A progress is the one line on a terminal that says how far a long command is.
// Elsewhere it prints nothing. Its methods may be called by any goroutine.
type progress struct {
	clock  clock.Clock
	app    *app // nil when nobody looks
	width  int
	what   string
	thing  string // what is counted: "block"
	things uint64 // how many there will be; 0 if that is not known
	bytes  uint64 // likewise
	start  time.Time

	mu        sync.Mutex // guards the fields below
	done      uint64     // things
	doneBytes uint64
	skipped   uint64 // things done before the start
	samples   []sample
	drawn     time.Time
	timer     clock.Timer
	ended     bool
}

// A sample is how much was done at some time.
type sample struct {
	at     time.Time
	things uint64
	bytes  uint64
}

const (
	// drawEvery is the least time between two drawings.
	drawEvery = 100 * time.Millisecond
	// redrawEvery is the most, so that a stall can be told from a hang.
	redrawEvery = time.Second
	// speedOver is the time that the speed is an average over.
	speedOver = 5 * time.Second
)

// progress begins the line of some work on things, which it calls so, and bytes,
// of which 0 means that nobody knows how many there will be.
func (a *app) progress(what, thing string, things, bytes uint64) *progress {
	p := &progress{clock: a.clock, what: what, thing: thing, things: things, bytes: bytes}
	if !isTerminal(a.stderr) || a.json || a.env["TERM"] == "dumb" {
		return p
	}
	p.app, p.width, p.start = a, width(a.stderr), a.clock.Now()
	p.samples = []sample{{at: p.start}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drawLocked(p.start)
	return p
}

// skip counts things that were done before.
func (p *progress) skip(things uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += things
	p.skipped += things
}

// add counts what was done.
func (p *progress) add(things, bytes uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += things
	p.doneBytes += bytes
	if p.app == nil || p.ended {
		return
	}
	if now := p.clock.Now(); now.Sub(p.drawn) >= drawEvery {
		p.drawLocked(now)
	}
}

// end takes the line away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.app == nil || p.ended {
		return
	}
	p.ended = true
	p.timer.Stop()
	p.app.talk.Lock()
	defer p.app.talk.Unlock()
	p.app.line = false
	fmt.Fprint(p.app.stderr, eraseLine)
}

const eraseLine = "\r\x1b[K"

func (p *progress) drawLocked(now time.Time) {
	p.drawn = now
	p.samples = append(p.samples, sample{now, p.done - p.skipped, p.doneBytes})
	for len(p.samples) > 2 && now.Sub(p.samples[1].at) >= speedOver {
		p.samples = p.samples[1:]
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer = p.clock.AfterFunc(redrawEvery, p.redraw)
	line := p.line(now)
	for utf8.RuneCountInString(line) >= p.width {
		_, n := utf8.DecodeLastRuneInString(line)
		line = line[:len(line)-n]
	}
	p.app.talk.Lock()
	defer p.app.talk.Unlock()
	p.app.line = true
	fmt.Fprint(p.app.stderr, "\r", line, "\x1b[K")
}

func (p *progress) redraw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.drawLocked(p.clock.Now())
	}
}

// line is what the line says:
//
//	"notes"  1,201 of 3,201 blocks  75 MiB  [0:12] 37%  6.2 MiB/s  ETA 0:20
func (p *progress) line(now time.Time) string {
	parts := []string{p.what}
	if p.things > 0 {
		parts = append(parts, fmt.Sprintf("%s of %s", count(p.done), plural(p.things, p.thing)))
	} else {
		parts = append(parts, plural(p.done, p.thing))
	}
	parts = append(parts, size(p.doneBytes), fmt.Sprintf("[%s]", minutes(now.Sub(p.start))))
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	span := last.at.Sub(first.at).Seconds()
	done, total, speed := p.done, p.things, 0.0
	if span > 0 {
		speed = float64(last.things-first.things) / span
	}
	if total == 0 {
		done, total = p.doneBytes, p.bytes
		if span > 0 {
			speed = float64(last.bytes-first.bytes) / span
		}
	}
	if total > 0 {
		parts[len(parts)-1] += fmt.Sprintf(" %d%%", min(100, done*100/total))
	}
	if span > 0 {
		parts = append(parts, size(uint64(float64(last.bytes-first.bytes)/span))+"/s")
	}
	if total > done && speed > 0 {
		if left := float64(total-done) / speed; left < 100*3600 {
			parts = append(parts, "ETA "+minutes(time.Duration(left*float64(time.Second))))
		}
	}
	return strings.Join(parts, "  ")
}
