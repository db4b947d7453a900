package replicate

// An evil node changes what it says.
type evil struct {
	kind string
}

type message struct {
	number  int
	payload []byte
}

func newEvil(n *network, i int) *evil { return nil }

func (v *evil) messages(e *wireEnd, number int, payload []byte) []message {
	return []message{{number, payload}}
}
