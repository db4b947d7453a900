package udx

// A maxFilter keeps the largest value of a sliding window in constant space:
// the best, and the best that came after it, twice (Nichols' algorithm, as in
// Linux lib/win_minmax.c). Time is whatever counts upwards.
type maxFilter struct {
	best [3]struct {
		at    uint64
		value float64
	}
}

// value is the largest of the window.
func (f *maxFilter) value() float64 { return f.best[0].value }

// reset forgets all but one value.
func (f *maxFilter) reset(at uint64, value float64) {
	for i := range f.best {
		f.best[i].at, f.best[i].value = at, value
	}
}

// add takes a value; those older than window count no more.
func (f *maxFilter) add(at, window uint64, value float64) {
	b := &f.best
	if value >= b[0].value || at-b[2].at > window {
		f.reset(at, value)
		return
	}
	if value >= b[1].value {
		b[1].at, b[1].value = at, value
		b[2] = b[1]
	} else if value >= b[2].value {
		b[2].at, b[2].value = at, value
	}
	// The best may have left the window; and the second and the third are to be
	// of later parts of it, so that there is one to follow.
	for at-b[0].at > window && b[0].at != at {
		b[0], b[1] = b[1], b[2]
		b[2].at, b[2].value = at, value
	}
	switch age := at - b[0].at; {
	case b[1].at == b[0].at && age > window/4:
		b[1].at, b[1].value = at, value
		b[2] = b[1]
	case b[2].at == b[1].at && age > window/2:
		b[2].at, b[2].value = at, value
	}
}
