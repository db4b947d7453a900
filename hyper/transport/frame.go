package transport

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Opcodes of frames (RFC 6455 §11.8).
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// Reasons for a Close frame (RFC 6455 §7.4.1).
const (
	statusNormal    = 1000
	statusGoingAway = 1001
	statusProtocol  = 1002
	statusNotBinary = 1003
	statusNone      = 1005 // never on the wire: the frame has no status
)

const (
	maxHeader  = 14
	maxControl = 125 // bytes of content of a control frame (RFC 6455 §5.5)
)

// A header is how a frame begins (RFC 6455 §5.2).
type header struct {
	fin    bool
	op     byte
	masked bool
	mask   uint32 // little endian: the first byte is the lowest
	size   uint64 // of the content
	length int    // of the header itself
}

// headerLength is how many bytes a header has that begins with a and b.
func headerLength(b byte) int {
	n := 2
	switch b & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b&0x80 != 0 {
		n += 4
	}
	return n
}

// parseHeader reads a header that is whole. fromClient tells who sent it: only
// clients must mask, and they must (RFC 6455 §5.1).
func parseHeader(b []byte, fromClient bool) (h header, fault string) {
	h = header{fin: b[0]&0x80 != 0, op: b[0] & 0xf, masked: b[1]&0x80 != 0, size: uint64(b[1] & 0x7f), length: headerLength(b[1])}
	rest := b[2:h.length]
	minimal := true
	switch h.size {
	case 126:
		h.size = uint64(binary.BigEndian.Uint16(rest))
		minimal = h.size >= 126
		rest = rest[2:]
	case 127:
		h.size = binary.BigEndian.Uint64(rest)
		minimal = h.size > 0xffff
		rest = rest[8:]
	}
	if h.masked {
		h.mask = binary.LittleEndian.Uint32(rest)
	}
	switch {
	case b[0]&0x70 != 0:
		return h, "a frame uses an extension that was not agreed on"
	case h.masked != fromClient && fromClient:
		return h, "a frame of the client is not masked"
	case h.masked != fromClient:
		return h, "a frame of the server is masked"
	case !minimal || h.size>>63 != 0:
		return h, "a frame's length is not written as it must be"
	case h.op > opPong || h.op > opBinary && h.op < opClose:
		return h, "a frame is of no known kind"
	case h.op >= opClose && (!h.fin || h.size > maxControl):
		return h, "a control frame is too long or in parts"
	}
	return h, ""
}

// appendHeader appends the header of a frame that is a whole message.
func appendHeader(b []byte, op byte, masked bool, mask uint32, size int) []byte {
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	b = append(b, 0x80|op)
	switch {
	case size < 126:
		b = append(b, bit|byte(size))
	case size <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(size))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(size))
	}
	if masked {
		b = binary.LittleEndian.AppendUint32(b, mask)
	}
	return b
}

// applyMask masks or unmasks p (RFC 6455 §5.3), and returns the mask for what
// follows it.
func applyMask(p []byte, mask uint32) uint32 {
	wide := uint64(mask)<<32 | uint64(mask)
	for len(p) >= 32 {
		q := p[:32]
		binary.LittleEndian.PutUint64(q, binary.LittleEndian.Uint64(q)^wide)
		binary.LittleEndian.PutUint64(q[8:], binary.LittleEndian.Uint64(q[8:])^wide)
		binary.LittleEndian.PutUint64(q[16:], binary.LittleEndian.Uint64(q[16:])^wide)
		binary.LittleEndian.PutUint64(q[24:], binary.LittleEndian.Uint64(q[24:])^wide)
		p = p[32:]
	}
	for i := range p {
		p[i] ^= byte(mask)
		mask = bits.RotateLeft32(mask, -8)
	}
	return mask
}

// parseClose reads the content of a Close frame (RFC 6455 §5.5.1).
func parseClose(p []byte) (status int, reason, fault string) {
	if len(p) == 0 {
		return statusNone, "", ""
	}
	if len(p) == 1 {
		return 0, "", "a Close frame has half a status"
	}
	status = int(binary.BigEndian.Uint16(p))
	valid := status >= 1000 && status <= 1014 && (status < 1004 || status > 1006) || status >= 3000 && status <= 4999
	if !valid || !utf8.Valid(p[2:]) {
		return 0, "", "a Close frame has no valid status or reason"
	}
	return status, string(p[2:]), ""
}
