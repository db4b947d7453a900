package mdns

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"golang.org/x/crypto/blake2b"
)

// A Topic is what peers have in common: 32 bytes that are not to be guessed.
type Topic = [32]byte

const (
	saltSize = 16
	tagSize  = 8
	// tagGroup is what the number of tags is rounded up to, so that it tells
	// little of how many topics there are.
	tagGroup = 8
	// MaxTopics is how many topics a node can announce, so that all of them go
	// into one packet.
	MaxTopics = 64
	// tagsInString is how many tags go into a string of a TXT record.
	tagsInString = 30
)

// A salt makes the names of a node, for a while.
type salt [saltSize]byte

// A tag stands for a topic under one salt. Nobody can tell that two tags are of
// one topic, or of which, without the topic.
type tag [tagSize]byte

// labels are in lower case, as names of DNS are compared without regard to it.
var labels = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func newSalt(random io.Reader) (s salt) {
	if _, err := io.ReadFull(random, s[:]); err != nil {
		panic("mdns: no randomness: " + err.Error())
	}
	return s
}

// label is the salt as the first part of names.
func (s salt) label() string { return labels.EncodeToString(s[:]) }

// saltOf reads a label.
func saltOf(label string) (s salt, ok bool) {
	raw, err := labels.DecodeString(label)
	if err != nil || len(raw) != saltSize {
		return s, false
	}
	s = salt(raw)
	return s, s.label() == label // no other spelling
}

// tag returns the tag of a topic.
func (s salt) tag(topic Topic) tag {
	sum := s.derive(topic, "tag")
	return tag(sum[:tagSize])
}

// derive returns bytes that who knows topic and salt can make, for one purpose.
func (s salt) derive(topic Topic, purpose string) (out [32]byte) {
	h, err := blake2b.New256(topic[:])
	if err != nil {
		panic("mdns: " + err.Error()) // the topic is as long as a key may be
	}
	h.Write([]byte("hyperlan 1 " + purpose + "\x00"))
	h.Write(s[:])
	h.Sum(out[:0])
	return out
}

// tags returns those of the topics and some that mean nothing, in no order that
// says which.
func (s salt) tags(topics []Topic, random io.Reader) []tag {
	n := (len(topics) + tagGroup - 1) / tagGroup * tagGroup
	tags := make([]tag, 0, n)
	for _, t := range topics {
		tags = append(tags, s.tag(t))
	}
	for len(tags) < n {
		other := newSalt(random)
		tags = append(tags, tag(other[:tagSize]))
	}
	slices.SortFunc(tags, func(a, b tag) int { return bytes.Compare(a[:], b[:]) })
	return tags
}

// text returns the strings of a TXT record with the tags.
func text(tags []tag) []string {
	out := []string{"v=1"}
	for i := 0; len(tags) > 0; i++ {
		n := min(len(tags), tagsInString)
		s := fmt.Sprintf("t%d=", i)
		for _, t := range tags[:n] {
			s += string(t[:])
		}
		out, tags = append(out, s), tags[n:]
	}
	return out
}

// tagsOf reads the strings of a TXT record. It returns nothing if they are of
// another version.
func tagsOf(text []string) []tag {
	var tags []tag
	version := false
	for i, s := range text {
		if i == 0 {
			version = s == "v=1"
			continue
		}
		list, ok := bytes.CutPrefix([]byte(s), fmt.Appendf(nil, "t%d=", i-1))
		if !ok {
			break
		}
		for len(list) >= tagSize && len(tags) < MaxTopics {
			tags, list = append(tags, tag(list[:tagSize])), list[tagSize:]
		}
	}
	if !version {
		return nil
	}
	return tags
}

// below returns a number under n, near enough to evenly.
func below(random io.Reader, n uint64) uint64 {
	s := newSalt(random)
	return binary.LittleEndian.Uint64(s[:]) % n
}
