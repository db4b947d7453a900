package words

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestListIsThatOfBIP39(t *testing.T) {
	const want = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda" // of english.txt in bitcoin/bips
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(english))); got != want {
		t.Fatalf("list has hash %s, want %s", got, want)
	}
	seen := map[string]bool{}
	for _, w := range list {
		p := w[:min(prefix, len(w))]
		if seen[p] {
			t.Errorf("two words begin with %q", p)
		}
		seen[p] = true
	}
	if len(list) != 2048 || !slices.IsSorted(list) {
		t.Fatalf("list has %d words, sorted: %v", len(list), slices.IsSorted(list))
	}
}

// vectors are those for 32 bytes of github.com/trezor/python-mnemonic,
// vectors.json.
var vectors = []struct{ seed, words string }{
	{strings.Repeat("00", 32), strings.Repeat("abandon ", 23) + "art"},
	{strings.Repeat("7f", 32), "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title"},
	{strings.Repeat("80", 32), "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless"},
	{strings.Repeat("ff", 32), strings.Repeat("zoo ", 23) + "vote"},
	{"68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c", "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel tennis maple dilemma loan word shrug inflict delay length"},
	{"9f6a2878b2520799a44ef18bc7df394e7061a224d2c33cd015b157d746869863", "panda eyebrow bullet gorilla call smoke muffin taste mesh discover soft ostrich alcohol speed nation flash devote level hobby quick inner drive ghost inside"},
	{"066dca1a2bb7e8a1db2832148ce9933eea0f3ac9548d793112d9a95c9407efad", "all hour make first leader extend hole alien behind guard gospel lava path output census museum junior mass reopen famous sing advance salt reform"},
	{"f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f", "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol group space point ten exist slush involve unfold"},
}

func TestSeedsAreWrittenAsBIP39Does(t *testing.T) {
	for _, v := range vectors {
		b, err := hex.DecodeString(v.seed)
		if err != nil {
			t.Fatal(err)
		}
		if got := FromSeed([32]byte(b)); got != v.words {
			t.Errorf("FromSeed(%s)\n got %s\nwant %s", v.seed, got, v.words)
		}
		if got, err := ParseSeed(v.words); err != nil || got != [32]byte(b) {
			t.Errorf("ParseSeed(%s) = %x, %v", v.words, got, err)
		}
	}
}

func TestTypingIsForgiven(t *testing.T) {
	want, err := ParseSeed(vectors[4].words)
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(vectors[4].words)
	short := make([]string, len(words))
	numbered := ""
	for i, w := range words {
		short[i] = w[:min(4, len(w))]
		numbered += fmt.Sprintf("%2d. %s\r\n", i+1, w)
	}
	for name, text := range map[string]string{
		"capitals":     strings.ToUpper(vectors[4].words),
		"dashes":       strings.Join(words, "-"),
		"commas":       strings.Join(words, ", "),
		"four letters": strings.Join(short, " "),
		"numbers":      numbered,
		"tabs, spaces": "\t " + strings.Join(words, " \t\u00a0") + "\n\n",
	} {
		if got, err := ParseSeed(text); err != nil || got != want {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	words := strings.Fields(vectors[4].words)
	with := func(i int, w string) string {
		c := slices.Clone(words)
		c[i] = w
		return strings.Join(c, " ")
	}
	for _, tt := range []struct {
		typed   string
		place   int
		nearest string
	}{
		{with(0, "hamstre"), 1, "hamster"},
		{with(7, "meatt"), 8, "meat"},
		{with(23, "lenght"), 24, "length"},
		{with(4, "causse"), 5, "cause"},
		{with(5, "dela"), 0, ""}, // the first four letters
		{with(5, "delax"), 6, "delay"},
		{with(3, "dútch"), 4, "dutch"},
	} {
		_, err := ParseSeed(tt.typed)
		var wrong *WordError
		switch {
		case tt.place == 0:
			if err != nil {
				t.Errorf("%s: %v", tt.typed, err)
			}
		case !errors.As(err, &wrong):
			t.Errorf("%s: %v", tt.typed, err)
		case wrong.Place != tt.place:
			t.Errorf("%s: word %d is named, want %d", tt.typed, wrong.Place, tt.place)
		case wrong.Nearest != tt.nearest:
			t.Errorf("%s: nearest %q, want %q", tt.typed, wrong.Nearest, tt.nearest)
		}
	}
	for text, want := range map[string]error{
		"":                            ErrCount,
		strings.Join(words[:23], " "): ErrCount,
		strings.Join(append(slices.Clone(words), "zoo"), " "):                 ErrCount,
		strings.Repeat("zoo ", 1<<20):                                         ErrCount,
		with(0, "zoo"):                                                        ErrChecksum,
		strings.Join(append([]string{words[1], words[0]}, words[2:]...), " "): ErrChecksum,
	} {
		if _, err := ParseSeed(text); !errors.Is(err, want) {
			t.Errorf("%.80s: %v, want %v", text, err, want)
		}
	}
	var wrong *WordError
	if _, err := ParseSeed(strings.Repeat("q", 1<<20)); !errors.As(err, &wrong) || len(wrong.Word) > longest {
		t.Errorf("a word of a MiB: %.100v", err)
	}
}

func TestCodesGoThroughText(t *testing.T) {
	for range 200 {
		c, err := NewCode(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseCode(strings.ToUpper(strings.ReplaceAll(c.Words(), "-", " ")))
		if err != nil || got != c || c.IsZero() {
			t.Fatalf("%s is read as %s: %v", c.Words(), got.Words(), err)
		}
		if !strings.HasPrefix(c.Words(), c.Meeting()+"-") || strings.Count(c.Words(), "-") != 5 {
			t.Fatalf("%s, to meet at %s", c.Words(), c.Meeting())
		}
	}
	a, err := NewCode(bytes.NewReader([]byte{0xff, 0xe0, 0, 0, 0, 0, 0, 0, 0xff}))
	if err != nil || a.Words() != "zoo-abandon-abandon-abandon-abandon-about" {
		t.Errorf("got %s, %v", a.Words(), err)
	}
	if _, err := NewCode(bytes.NewReader(make([]byte, 8))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too few random bytes: %v", err)
	}
	if (Code{}).Words() != "-" || !(Code{}).IsZero() {
		t.Errorf("no code has words: %s", (Code{}).Words())
	}
	if _, err := ParseCode("stone river amount name lottery"); !errors.Is(err, ErrCount) {
		t.Errorf("five words: %v", err)
	}
	if _, err := ParseCode("stone river amount name lotus frog"); err == nil {
		t.Error("a word that is in no list is taken")
	}
}

func TestCodesStayOutOfLogs(t *testing.T) {
	c, _ := NewCode(rand.Reader)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "code", c)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "code", c)
	out := log.String() + fmt.Sprintf("%v %+v %#v %s %q %x %d", c, c, c, c, c, c, c)
	if strings.Contains(out, c.Meeting()[:4]) || strings.Count(out, "[words redacted]") != 9 {
		t.Errorf("printed %s", out)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(vectors[1].words)
	f.Add("stone-river-amount-name-salon-frog")
	f.Add("ünï \xff cöde")
	f.Fuzz(func(t *testing.T, text string) {
		if seed, err := ParseSeed(text); err == nil {
			if again, err := ParseSeed(FromSeed(seed)); err != nil || again != seed {
				t.Errorf("%x becomes %x, %v", seed, again, err)
			}
		}
		if c, err := ParseCode(text); err == nil {
			if again, err := ParseCode(c.Words()); err != nil || again != c {
				t.Errorf("%s becomes %s, %v", c.Words(), again.Words(), err)
			}
		}
	})
}

func Example() {
	seed := [32]byte(bytes.Repeat([]byte{0x7f}, 32))
	text := FromSeed(seed)
	fmt.Println(text[:23])

	_, err := ParseSeed(strings.Replace(text, "winner", "wimner", 1))
	fmt.Println(err)
	// Output:
	// legal winner thank year
	// read 24 words: word 2, "wimner", is not one that can be: did you mean "winner"?
}
