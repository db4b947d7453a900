package node

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cloudbevy/bevy/client"
	"github.com/cloudbevy/bevy/hyper/clock"
)

const (
	// How long a link signs in, and how many there can be.
	linkLife, maxLinks = 5 * time.Minute, 16
	// How long a session lasts that nobody uses, and how many there can be.
	sessionLife, maxSessions = 30 * 24 * time.Hour, 64
	// How often it is written down that a session is used.
	noteUse = time.Hour
	// maxName bounds how someone who signs in calls themselves.
	maxName = 80
)

// hash stands for a secret: the secret itself is kept nowhere.
type hash [sha256.Size]byte

// MarshalText writes it in hex.
func (h hash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText reads hex.
func (h *hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return hex.ErrLength
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// A session is someone who is signed in. A browser has its two halves: a
// cookie, which no script sees, and a key, which only pages of this very
// address see. A cookie alone goes to every server of the machine.
type session struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	From   string    `json:"from"`
	Made   time.Time `json:"made"`
	Used   time.Time `json:"used"`
	Cookie hash      `json:"cookie"`
	Key    hash      `json:"key"`
}

// sessions are who is signed in, and the links that can be used to.
type sessions struct {
	clock clock.Clock
	path  string // of the file

	mu    sync.Mutex
	all   []*session
	links map[hash]time.Time // until when
	tries *Tries
}

// A sessionFile is what is kept (docs/formats/node.md).
type sessionFile struct {
	Version  int        `json:"version"`
	Sessions []*session `json:"sessions"`
}

var errVersion = errors.New("another version of bevy has written it")

func openSessions(path string, c clock.Clock) (*sessions, error) {
	s := &sessions{clock: c, path: path, links: map[hash]time.Time{}, tries: NewTries(c)}
	b, err := readFile(path)
	if err != nil || b == nil {
		return s, err
	}
	var file sessionFile
	if err := json.Unmarshal(b, &file); err != nil || file.Version != 1 {
		return nil, fmt.Errorf("read %s: version %d: %w", path, file.Version, cmp.Or(err, errVersion))
	}
	s.all = file.Sessions
	return s, nil
}

func hashOf(secret string) hash { return sha256.Sum256([]byte(secret)) }

// link makes a token that signs in once.
func (s *sessions) link() (token string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for h, at := range s.links {
		if !now.Before(at) {
			delete(s.links, h)
		}
	}
	for len(s.links) >= maxLinks {
		var first hash
		for h, at := range s.links {
			if old, ok := s.links[first]; !ok || at.Before(old) {
				first = h
			}
		}
		delete(s.links, first)
	}
	token, until = rand.Text(), now.Add(linkLife)
	s.links[hashOf(token)] = until
	return token, until
}

// signIn makes a session with a token, which is used up by that.
func (s *sessions) signIn(token, name string, from netip.Addr) (made *session, cookie, key string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	if !s.tries.Take(from) {
		return nil, "", "", &client.Error{Code: client.CodeDenied, Message: "cannot sign in", Cause: "there were too many tries", Try: "wait a minute", Status: http.StatusTooManyRequests}
	}
	h := hashOf(token)
	until, ok := s.links[h]
	delete(s.links, h)
	if !ok || !now.Before(until) {
		return nil, "", "", &client.Error{Code: client.CodeDenied, Message: "cannot sign in", Cause: "the link was used before, or is too old", Try: "bevy up prints another one", Status: http.StatusUnauthorized}
	}
	if name == "" {
		name = "somebody"
	}
	cookie, key = rand.Text(), rand.Text()
	made = &session{ID: rand.Text()[:10], Name: short(name), From: from.String(), Made: now, Used: now, Cookie: hashOf(cookie), Key: hashOf(key)}
	s.pruneLocked(now)
	s.all = append(s.all, made)
	return made, cookie, key, s.writeLocked()
}

// short is the beginning of a text, cut between letters.
func short(s string) string {
	letters := []rune(s)
	return string(letters[:min(len(letters), maxName)])
}

// pruneLocked makes room for one more.
func (s *sessions) pruneLocked(now time.Time) {
	s.all = slices.DeleteFunc(s.all, func(one *session) bool { return now.Sub(one.Used) >= sessionLife })
	slices.SortStableFunc(s.all, func(a, b *session) int { return cmp.Compare(b.Used.UnixNano(), a.Used.UnixNano()) })
	s.all = s.all[:min(len(s.all), maxSessions-1)]
}

// find returns the session of a cookie and, unless cookieOnly, its key.
func (s *sessions) find(cookie, key string, cookieOnly bool) (id string, ok bool) {
	c, k := hashOf(cookie), hashOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for _, one := range s.all {
		if subtle.ConstantTimeCompare(one.Cookie[:], c[:]) != 1 || now.Sub(one.Used) >= sessionLife {
			continue
		}
		if !cookieOnly && subtle.ConstantTimeCompare(one.Key[:], k[:]) != 1 {
			return "", false
		}
		if now.Sub(one.Used) >= noteUse {
			one.Used = now
			_ = s.writeLocked() // else the session ends a little sooner
		}
		return one.ID, true
	}
	return "", false
}

// has reports whether a session goes on.
func (s *sessions) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(one *session) bool { return one.ID == id })
}

func (s *sessions) list(current string) (list []client.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock.Now()
	for _, one := range s.all {
		if now.Sub(one.Used) < sessionLife {
			list = append(list, client.Session{ID: one.ID, Name: one.Name, From: one.From, Made: one.Made, Used: one.Used, Current: one.ID == current})
		}
	}
	return list
}

func (s *sessions) revoke(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.all, func(one *session) bool { return one.ID == id })
	if i < 0 {
		return &client.Error{Code: client.CodeNotFound, Message: "there is no such session", Cause: "it has ended", Try: "reload the list"}
	}
	s.all = slices.Delete(s.all, i, i+1)
	return s.writeLocked()
}

func (s *sessions) writeLocked() error {
	b, err := json.Marshal(sessionFile{1, s.all})
	if err == nil {
		err = writeFile(s.path, b, true)
	}
	if err != nil {
		return fmt.Errorf("write down who is signed in: %w", err)
	}
	return nil
}
