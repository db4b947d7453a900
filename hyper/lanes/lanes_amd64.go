//go:build !purego

package lanes

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

var (
	has8  = cpu.X86.HasAVX512F
	has4  = cpu.X86.HasAVX2
	has16 = cpu.X86.HasAVX512F
)

// blake8 takes so many blocks of 128 bytes of each of eight messages. h are the words of their states, t what was
// taken before, and last all ones where the blocks are the end.
//
//go:noescape
func blake8(h *[64]uint64, in *[8]unsafe.Pointer, t, last *[8]uint64, blocks int)

//go:noescape
func blake4(h *[32]uint64, in *[4]unsafe.Pointer, t, last *[4]uint64, blocks int)

// salsa16 encrypts so many times 1024 bytes, and counts in the state.
//
//go:noescape
func salsa16(dst, src *byte, state *[16]uint32, n int)
