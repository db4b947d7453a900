package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// A table is rows of columns that are as wide as they need to be.
type table struct {
	rows   [][]string
	right  map[int]bool // columns that end at their right side, as numbers do
	paints map[[2]int]func(string) string
}

func newTable(headings ...string) *table {
	return &table{rows: [][]string{headings}, right: map[int]bool{}, paints: map[[2]int]func(string) string{}}
}

func (t *table) add(cells ...string) {
	row := make([]string, len(cells))
	for i, cell := range cells {
		row[i] = oneLine(cell)
	}
	t.rows = append(t.rows, row)
}

// paint colours a cell of the last row.
func (t *table) paint(column int, f func(string) string) {
	t.paints[[2]int{len(t.rows) - 1, column}] = f
}

func (t *table) write(w io.Writer) error {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for y, row := range t.rows {
		for x, cell := range row {
			pad := strings.Repeat(" ", widths[x]-utf8.RuneCountInString(cell))
			text := cell
			if f := t.paints[[2]int{y, x}]; f != nil {
				text = f(cell)
			}
			switch {
			case t.right[x]:
				text = pad + text
			case x < len(row)-1:
				text += pad
			}
			if x > 0 {
				b.WriteString("  ")
			}
			b.WriteString(text)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}
