// Package words writes secrets as words that people can write down, read out
// and type: the 32 bytes a cloud begins with as 24 words, and codes of six
// words by which two machines find and trust each other.
//
// The words are the English list of BIP-39, and so is the way 32 bytes become
// 24 of them: eleven bits a word, the last eight bits a checksum. BIP-39 goes on
// to stretch the words into the seed of a wallet; nothing of that is here, the 32
// bytes are the secret.
//
//	text := words.FromSeed(seed)        // "legal winner thank year …"
//	seed, err := words.ParseSeed(typed) // "LEGA winn, thank-year …" is fine
//
// Whoever types is forgiven much: capitals, commas, dashes, numbers of lines, and
// all letters of a word but the first four.
package words

import (
	"crypto/sha256"
	_ "embed" // for the list
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"unicode"
)

// SeedWords is how many words a seed is written in.
const SeedWords = 24

// CodeWords is how many words a code has.
const CodeWords = 6

// The kinds of error of this package, besides [WordError]. They come wrapped:
// test with [errors.Is].
var (
	// ErrCount means that there are too few or too many words.
	ErrCount = errors.New("wrong number of words")
	// ErrChecksum means that all words are of the list, and yet they are not the
	// ones that were written down.
	ErrChecksum = errors.New("the words do not belong together: one of them is wrong, or two are exchanged")
)

// A WordError says which word is not of the list.
type WordError struct {
	// Place is the word's place in the text: 1 for the first.
	Place int
	// Word is what was there, at most the first 32 bytes of it.
	Word string
	// Nearest is the word of the list that is most like it.
	Nearest string
}

func (e *WordError) Error() string {
	return fmt.Sprintf("word %d, %q, is not one that can be: did you mean %q?", e.Place, e.Word, e.Nearest)
}

// english is the list of BIP-39, in alphabetical order. The first four letters of
// a word are those of no other.
//
//go:embed english.txt
var english string

var list = strings.Fields(english)

const (
	prefix  = 4  // letters that tell a word from all others
	longest = 32 // bytes of a word that are looked at
)

// FromSeed returns a seed as 24 words with a space between them. They are as
// secret as it is.
func FromSeed(seed [32]byte) string {
	sum := sha256.Sum256(seed[:])
	data := append(seed[:], sum[0])
	out := make([]string, SeedWords)
	for i := range out {
		out[i] = list[eleven(data, i)]
	}
	return strings.Join(out, " ")
}

// ParseSeed reads a seed that somebody typed. It fails with a [*WordError],
// [ErrCount] or [ErrChecksum].
func ParseSeed(text string) (seed [32]byte, err error) {
	numbers, err := parse(text, SeedWords)
	if err != nil {
		return seed, fmt.Errorf("read %d words: %w", SeedWords, err)
	}
	var data [33]byte
	for i, n := range numbers {
		for bit := range 11 {
			if n>>(10-bit)&1 != 0 {
				at := i*11 + bit
				data[at/8] |= 0x80 >> (at % 8)
			}
		}
	}
	copy(seed[:], data[:])
	if sum := sha256.Sum256(seed[:]); sum[0] != data[32] {
		return [32]byte{}, fmt.Errorf("read %d words: %w", SeedWords, ErrChecksum)
	}
	return seed, nil
}

// eleven returns bits i*11 to i*11+10 of data.
func eleven(data []byte, i int) (n uint16) {
	for at := i * 11; at < i*11+11; at++ {
		n = n<<1 | uint16(data[at/8]>>(7-at%8)&1)
	}
	return n
}

// A Code is six words by which two machines pair. It is a secret while it lives,
// so only Words shows it. Its zero value is no code.
type Code struct {
	numbers [CodeWords]uint16 // places in the list
	made    bool
}

// NewCode makes a code from 66 random bits.
func NewCode(random io.Reader) (Code, error) {
	var data [9]byte
	if _, err := io.ReadFull(random, data[:]); err != nil {
		return Code{}, fmt.Errorf("make a code of words: %w", err)
	}
	c := Code{made: true}
	for i := range c.numbers {
		c.numbers[i] = eleven(data[:], i)
	}
	return c, nil
}

// ParseCode reads a code that somebody typed. It fails with a [*WordError] or
// [ErrCount].
func ParseCode(text string) (Code, error) {
	numbers, err := parse(text, CodeWords)
	if err != nil {
		return Code{}, fmt.Errorf("read a code of %d words: %w", CodeWords, err)
	}
	return Code{[CodeWords]uint16(numbers), true}, nil
}

// IsZero reports whether it is no code.
func (c Code) IsZero() bool { return !c.made }

// Words returns the words with a dash between them.
func (c Code) Words() string { return strings.Join(c.split(), "-") }

// Meeting returns the words that tell where two machines meet, the first two;
// what is announced is made from them. The others are in nothing that strangers
// see.
func (c Code) Meeting() string { return strings.Join(c.split()[:2], "-") }

func (c Code) split() []string {
	if !c.made {
		return make([]string, 2)
	}
	out := make([]string, CodeWords)
	for i, n := range c.numbers {
		out[i] = list[n]
	}
	return out
}

// Format keeps the words out of logs, whatever the verb.
func (Code) Format(s fmt.State, _ rune) { io.WriteString(s, "[words redacted]") }

// LogValue does the same for handlers of slog that look into values.
func (Code) LogValue() slog.Value { return slog.StringValue("[words redacted]") }

// parse returns the places in the list of exactly count words.
func parse(text string, count int) ([]uint16, error) {
	// What stands between words may be anything but letters. A text that is much
	// too long is not looked at to its end.
	var typed []string
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) }) {
		if typed = append(typed, word); len(typed) > 2*SeedWords {
			return nil, fmt.Errorf("%w: %d are needed, there are many more", ErrCount, count)
		}
	}
	numbers := make([]uint16, len(typed))
	for i, word := range typed {
		n, ok := find(word)
		if !ok {
			word = word[:min(len(word), longest)]
			return nil, &WordError{i + 1, strings.ToValidUTF8(word, ""), nearest(strings.ToLower(word))}
		}
		numbers[i] = n
	}
	if len(numbers) != count {
		return nil, fmt.Errorf("%w: %d are needed, there are %d", ErrCount, count, len(numbers))
	}
	return numbers, nil
}

// find returns the place of a word in the list, which may be cut short after the
// letters that tell it from all others.
func find(word string) (uint16, bool) {
	if len(word) > longest {
		return 0, false
	}
	word = strings.ToLower(word)
	i, exact := slices.BinarySearch(list, word)
	if exact || i < len(list) && len(word) >= prefix && strings.HasPrefix(list[i], word) {
		return uint16(i), true
	}
	return 0, false
}

// nearest returns the word of the list that needs the fewest changes.
func nearest(word string) string {
	best, least := "", 1<<30
	for _, candidate := range list {
		if d := distance(word, candidate); d < least {
			best, least = candidate, d
		}
	}
	return best
}

// distance counts the letters to put in, take out, change, or exchange with the
// next that make b of a.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		now := make([]int, len(b)+1)
		now[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			now[j+1] = min(now[j]+1, last[j+1]+1, change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last = last, now
	}
	return last[len(b)]
}
