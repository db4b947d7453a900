package pair

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"rsc.io/qr"
)

// What is drawn is read back dot by dot.
func TestQRIsDrawnDotByDot(t *testing.T) {
	for _, text := range []string{"A", "STONE-RIVER-AMOUNT-NAME-SALON-FROG", "https://example.org/" + strings.Repeat("x", 200)} {
		drawn, err := QR(text)
		if err != nil {
			t.Fatal(err)
		}
		code, err := qr.Encode(text, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		var rows [][]bool // light or not
		for line := range strings.Lines(drawn) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n != code.Size+4 {
				t.Fatalf("a line of %d, want %d", n, code.Size+4)
			}
			var up, down []bool
			for _, r := range line {
				up, down = append(up, r == '█' || r == '▀'), append(down, r == '█' || r == '▄')
			}
			rows = append(rows, up, down)
		}
		for y := range code.Size + 4 {
			for x := range code.Size + 4 {
				if rows[y][x] == code.Black(x-2, y-2) {
					t.Fatalf("%.20q: the dot at %d, %d is light: %v", text, x-2, y-2, rows[y][x])
				}
			}
		}
	}
	if _, err := QR(strings.Repeat("x", 4000)); err == nil {
		t.Error("a text that is too long is drawn")
	}
}

func ExampleQR() {
	drawn, err := QR("BEVY")
	if err != nil {
		fmt.Println(err)
	}
	fmt.Print(drawn)
	// Output:
	// █████████████████████████
	// ██ ▄▄▄▄▄ ██ ▀ ▄█ ▄▄▄▄▄ ██
	// ██ █   █ █▄ █ ▄█ █   █ ██
	// ██ █▄▄▄█ ███▄█ █ █▄▄▄█ ██
	// ██▄▄▄▄▄▄▄█ ▀▄▀ █▄▄▄▄▄▄▄██
	// ██▄▄▄█▄▄▄  ▄ ▄█▄ ██▀ ████
	// ███ ▄  ▀▄ ▄███▄█▀█▄ █▄▀██
	// ██▄█▄▄▄▄▄▄ █▀▀▄▀▄▀▄▀▀▄███
	// ██ ▄▄▄▄▄ █ ▄▄ ▀ ▄ ▀▀█▀ ██
	// ██ █   █ █▄▄ ▄█▄ ▄██ ▀▄██
	// ██ █▄▄▄█ █   █▄█▀█▄█▀▀ ██
	// ██▄▄▄▄▄▄▄█▄███▄█▄█▄█▄█▄██
	// ▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀
}
