package cloudlab

import (
	"fmt"
	"testing"
	"time"

	"github.com/cloudbevy/bevy/internal/natlab"
)

// Two machines of one owner, one behind a NAT, are paired by words, and have the
// same folder from then on.
func TestTwoMachinesKeepOneFolder(t *testing.T) {
	l := newLab(t)
	attic := l.machine(place{"attic", natlab.Open})
	laptop := l.machine(place{"laptop", natlab.PortRestricted})
	attic.up()
	laptop.up()
	laptop.joins(attic)

	attic.write("a/hello.txt", "hello")
	attic.must("add", attic.folder)
	laptop.write("mine.txt", "mine")
	laptop.must("add", laptop.folder)
	l.await("both have both", 30*time.Second, func() string {
		if !laptop.has("a/hello.txt", "hello") {
			return "laptop has no hello.txt"
		}
		if !attic.has("mine.txt", "mine") {
			return "attic has no mine.txt"
		}
		return ""
	})
	l.await("both know that it is safe", 5*time.Second, func() string {
		for _, m := range []*machine{attic, laptop} {
			if f, err := m.things(); err != nil || f.State != "safe" || f.Copies != 2 || f.Files != 2 {
				st, _ := m.status()
				return fmt.Sprintf("%s says %s, %v %s", m.name, text(f), err, text(st.Notices))
			}
		}
		return ""
	})
}
