package content

import (
	"fmt"
	"io"
)

// AppendRef adds the bytes of a content that is kept by something, or by the writer's
// hold. They are read for the hash, but stored nowhere else: the new content names
// their blocks. So contents are joined at the cost of reading them. The chunks at the
// seams stay as they are. What is read goes to also, too, if that is not nil.
func (w *Writer) AppendRef(r Ref, also io.Writer) error {
	if !w.usable() {
		return w.failure()
	}
	w.h.Keep(r)
	w.cut(true) // what was written before
	walk := walk{s: w.h.s, again: true, visit: func(p pointer, depth int) error {
		if depth > 0 {
			return nil
		}
		block, err := w.h.s.block(w.ctx, p)
		if err != nil {
			return err
		}
		if int64(len(block)) != p.size {
			return fmt.Errorf("%w: a chunk has %d bytes, not %d", ErrInvalid, len(block), p.size)
		}
		w.hash.Write(block)
		if also != nil {
			if _, err := also.Write(block); err != nil {
				return err
			}
		}
		w.size += p.size
		w.chunks = append(w.chunks, chunk{pointer: p})
		if len(w.chunks) >= 4*maxPointers {
			w.settle()
		}
		return w.err
	}}
	if err := walk.ref(w.ctx, r); err != nil {
		w.fail(err)
	}
	return w.err
}
