package node

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestOnlyWhatIsAsInAFileIsForgotten(t *testing.T) {
	const smaps = `00400000-01298000 r-xp 00000000 fe:00 1310  /usr/bin/bevy
Rss:               14000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
01298000-02234000 r--p 00e98000 fe:00 1310  /usr/bin/bevy (deleted)
Anonymous:             0 kB
02234000-02235000 r--p 01e34000 fe:00 1310  /usr/bin/bevy
Anonymous:             4 kB
02235000-022ff000 rw-p 01e35000 fe:00 1310  /usr/bin/bevy
Anonymous:             0 kB
c000000000-c000400000 ---p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 00:00 0  [vdso]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x1298000}, {0x1298000, 0x2234000}}
	if got := fileMappings(strings.NewReader(smaps)); !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := fileMappings(strings.NewReader("x\n\nAnonymous:")); got != nil {
		t.Errorf("of what is no such file: got %x", got)
	}
}

func TestRestingNeedsLittleOfTheProgram(t *testing.T) {
	ofFiles := func() int {
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Skip(err)
		}
		m := regexp.MustCompile(`RssFile:\s+(\d+) kB`).FindSubmatch(b)
		if m == nil {
			t.Skip("the kernel does not tell")
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := ofFiles()
	giveBack()
	if after := ofFiles(); after > before*3/4 {
		t.Errorf("%d KiB of files are in memory, before it was %d", after, before)
	}
}
