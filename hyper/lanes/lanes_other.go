//go:build !amd64 || purego

package lanes

import "unsafe"

const has8, has4, has16 = false, false, false

func blake8(*[64]uint64, *[8]unsafe.Pointer, *[8]uint64, *[8]uint64, int) { panic("lanes: no AVX-512") }

func blake4(*[32]uint64, *[4]unsafe.Pointer, *[4]uint64, *[4]uint64, int) { panic("lanes: no AVX2") }

func salsa16(*byte, *byte, *[16]uint32, int) { panic("lanes: no AVX-512") }
