package packet

// Without makes sockets that are opened from now on do without what some
// kernels lack.
func Without(batches, segments bool) (restore func()) {
	was := lacking
	lacking.batches, lacking.segments = batches, segments
	return func() { lacking = was }
}
