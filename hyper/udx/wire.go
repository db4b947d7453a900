package udx

import "encoding/binary"

const (
	headerSize = 20
	magic      = 0xff
	version    = 1

	maxBlocks = 50 // of a SACK
)

// What a packet is, as bits. A packet without any is an ack, and all are acks
// besides.
const (
	typeData      = 1 << iota // bytes of the stream; takes a seq
	typeEnd                   // nothing comes after it; takes a seq
	typeSACK                  // with blocks of packets that came out of order
	typeMessage               // a datagram beside the stream
	typeDestroy               // the stream is gone
	typeHeartbeat             // asks for an ack
)

// A header is what is in front of each packet of a stream: 20 bytes, its
// numbers little-endian.
type header struct {
	kind   uint8
	offset uint8  // bytes behind the header that are not data
	id     uint32 // of the stream, at the receiver
	window uint32 // bytes that the sender is ready to take
	seq    uint32 // of this packet, or of the next one that takes one
	ack    uint32 // seq that the sender waits for
}

// parse splits a packet. What is no packet of a stream is not ok. A packet
// whose offset is past its end has no data.
func parse(p []byte) (h header, blocks, data []byte, ok bool) {
	if len(p) < headerSize || p[0] != magic || p[1] != version {
		return h, nil, nil, false
	}
	h = header{
		kind:   p[2],
		offset: p[3],
		id:     binary.LittleEndian.Uint32(p[4:]),
		window: binary.LittleEndian.Uint32(p[8:]),
		seq:    binary.LittleEndian.Uint32(p[12:]),
		ack:    binary.LittleEndian.Uint32(p[16:]),
	}
	data = p[headerSize:]
	if h.kind&typeSACK != 0 {
		blocks = data
		if n := int(h.offset); n > 0 && n < len(data) {
			blocks = data[:n]
		}
		blocks = blocks[:min(len(blocks)/8, maxBlocks)*8]
	}
	if int(h.offset) > len(data) {
		// Nothing sends this. The ack in it is not trusted either.
		return h, nil, nil, false
	}
	return h, blocks, data[h.offset:], true
}

// put writes the header into the first 20 bytes of p.
func (h *header) put(p []byte) {
	_ = p[headerSize-1]
	p[0], p[1], p[2], p[3] = magic, version, h.kind, h.offset
	binary.LittleEndian.PutUint32(p[4:], h.id)
	binary.LittleEndian.PutUint32(p[8:], h.window)
	binary.LittleEndian.PutUint32(p[12:], h.seq)
	binary.LittleEndian.PutUint32(p[16:], h.ack)
}

// putID changes the stream that a packet is for.
func putID(p []byte, id uint32) { binary.LittleEndian.PutUint32(p[4:], id) }

// A span is the seqs from start up to end, without end.
type span struct{ start, end uint32 }

func putBlock(p []byte, b span) {
	binary.LittleEndian.PutUint32(p, b.start)
	binary.LittleEndian.PutUint32(p[4:], b.end)
}

func getBlock(p []byte) span {
	return span{binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])}
}

// diff is how far seq a is past b; they wrap around.
func diff(a, b uint32) int { return int(int32(a - b)) }
