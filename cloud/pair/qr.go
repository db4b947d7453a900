package pair

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// QR returns a QR code of a text for a terminal that writes light on dark: lines
// of half blocks, each of which shows two rows, with the margin that cameras need.
// A text of capitals, digits and dashes makes a smaller one.
func QR(text string) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", fmt.Errorf("draw a QR code: %w", err)
	}
	const margin = 2
	light := func(x, y int) bool { return !code.Black(x, y) } // so is what is outside
	var b strings.Builder
	for y := -margin; y < code.Size+margin; y += 2 {
		for x := -margin; x < code.Size+margin; x++ {
			switch up, down := light(x, y), light(x, y+1) && y+1 < code.Size+margin; {
			case up && down:
				b.WriteRune('█')
			case up:
				b.WriteRune('▀')
			case down:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}
