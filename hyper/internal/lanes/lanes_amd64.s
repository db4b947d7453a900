//go:build !purego

#include "textflag.h"

// Four messages lie side by side: a vector is the same word of all four. The stack has the 16 words of a block, and room for one
// vector more.

#define WORD(i) (i*32)(SP)
#define SPARE (16*32)(SP)

DATA iv<>+0(SB)/8, $0x6a09e667f3bcc908
DATA iv<>+8(SB)/8, $0x6a09e667f3bcc908
DATA iv<>+16(SB)/8, $0x6a09e667f3bcc908
DATA iv<>+24(SB)/8, $0x6a09e667f3bcc908
DATA iv<>+32(SB)/8, $0xbb67ae8584caa73b
DATA iv<>+40(SB)/8, $0xbb67ae8584caa73b
DATA iv<>+48(SB)/8, $0xbb67ae8584caa73b
DATA iv<>+56(SB)/8, $0xbb67ae8584caa73b
DATA iv<>+64(SB)/8, $0x3c6ef372fe94f82b
DATA iv<>+72(SB)/8, $0x3c6ef372fe94f82b
DATA iv<>+80(SB)/8, $0x3c6ef372fe94f82b
DATA iv<>+88(SB)/8, $0x3c6ef372fe94f82b
DATA iv<>+96(SB)/8, $0xa54ff53a5f1d36f1
DATA iv<>+104(SB)/8, $0xa54ff53a5f1d36f1
DATA iv<>+112(SB)/8, $0xa54ff53a5f1d36f1
DATA iv<>+120(SB)/8, $0xa54ff53a5f1d36f1
DATA iv<>+128(SB)/8, $0x510e527fade682d1
DATA iv<>+136(SB)/8, $0x510e527fade682d1
DATA iv<>+144(SB)/8, $0x510e527fade682d1
DATA iv<>+152(SB)/8, $0x510e527fade682d1
DATA iv<>+160(SB)/8, $0x9b05688c2b3e6c1f
DATA iv<>+168(SB)/8, $0x9b05688c2b3e6c1f
DATA iv<>+176(SB)/8, $0x9b05688c2b3e6c1f
DATA iv<>+184(SB)/8, $0x9b05688c2b3e6c1f
DATA iv<>+192(SB)/8, $0x1f83d9abfb41bd6b
DATA iv<>+200(SB)/8, $0x1f83d9abfb41bd6b
DATA iv<>+208(SB)/8, $0x1f83d9abfb41bd6b
DATA iv<>+216(SB)/8, $0x1f83d9abfb41bd6b
DATA iv<>+224(SB)/8, $0x5be0cd19137e2179
DATA iv<>+232(SB)/8, $0x5be0cd19137e2179
DATA iv<>+240(SB)/8, $0x5be0cd19137e2179
DATA iv<>+248(SB)/8, $0x5be0cd19137e2179
GLOBL iv<>(SB), RODATA|NOPTR, $256

DATA size<>+0(SB)/8, $128
DATA size<>+8(SB)/8, $128
DATA size<>+16(SB)/8, $128
DATA size<>+24(SB)/8, $128
GLOBL size<>(SB), RODATA|NOPTR, $32

DATA rot24<>+0(SB)/8, $0x0201000706050403
DATA rot24<>+8(SB)/8, $0x0a09080f0e0d0c0b
DATA rot24<>+16(SB)/8, $0x0201000706050403
DATA rot24<>+24(SB)/8, $0x0a09080f0e0d0c0b
GLOBL rot24<>(SB), RODATA|NOPTR, $32
DATA rot16<>+0(SB)/8, $0x0100070605040302
DATA rot16<>+8(SB)/8, $0x09080f0e0d0c0b0a
DATA rot16<>+16(SB)/8, $0x0100070605040302
DATA rot16<>+24(SB)/8, $0x09080f0e0d0c0b0a
GLOBL rot16<>(SB), RODATA|NOPTR, $32

// MIX adds words, and the second row, to the first, whose sum goes into the fourth.
#define MIX(m0, m1, m2, m3, b0, b1, b2, b3, d0, d1, d2, d3) \
	VPADDQ WORD(m0), Y0, Y0; \
	VPADDQ WORD(m1), Y1, Y1; \
	VPADDQ WORD(m2), Y2, Y2; \
	VPADDQ WORD(m3), Y3, Y3; \
	VPADDQ b0, Y0, Y0; \
	VPADDQ b1, Y1, Y1; \
	VPADDQ b2, Y2, Y2; \
	VPADDQ b3, Y3, Y3; \
	VPXOR  Y0, d0, d0; \
	VPXOR  Y1, d1, d1; \
	VPXOR  Y2, d2, d2; \
	VPXOR  Y3, d3, d3

// STIR adds the fourth row to the third, whose sum goes into the second.
#define STIR(b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3) \
	VPADDQ d0, c0, c0; \
	VPADDQ d1, c1, c1; \
	VPADDQ d2, c2, c2; \
	VPADDQ d3, c3, c3; \
	VPXOR  c0, b0, b0; \
	VPXOR  c1, b1, b1; \
	VPXOR  c2, b2, b2; \
	VPXOR  c3, b3, b3

#define ROTATE32(x0, x1, x2, x3) \
	VPSHUFD $0xb1, x0, x0; \
	VPSHUFD $0xb1, x1, x1; \
	VPSHUFD $0xb1, x2, x2; \
	VPSHUFD $0xb1, x3, x3

#define ROTATE(by, x0, x1, x2, x3) \
	VPSHUFB by<>(SB), x0, x0; \
	VPSHUFB by<>(SB), x1, x1; \
	VPSHUFB by<>(SB), x2, x2; \
	VPSHUFB by<>(SB), x3, x3

// ROTATE63 needs a register, which it gives back.
#define ROTATE63(x0, x1, x2, x3, t) \
	VMOVDQU t, SPARE; \
	VPADDQ  x0, x0, t; \
	VPSRLQ  $63, x0, x0; \
	VPOR    t, x0, x0; \
	VPADDQ  x1, x1, t; \
	VPSRLQ  $63, x1, x1; \
	VPOR    t, x1, x1; \
	VPADDQ  x2, x2, t; \
	VPSRLQ  $63, x2, x2; \
	VPOR    t, x2, x2; \
	VPADDQ  x3, x3, t; \
	VPSRLQ  $63, x3, x3; \
	VPOR    t, x3, x3; \
	VMOVDQU SPARE, t

// HALF is the function G of RFC 7693, §3.1, of four columns or diagonals. Their first row is Y0 to Y3.
#define HALF(m0, m1, m2, m3, m4, m5, m6, m7, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3) \
	MIX(m0, m2, m4, m6, b0, b1, b2, b3, d0, d1, d2, d3); \
	ROTATE32(d0, d1, d2, d3); \
	STIR(b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3); \
	ROTATE(rot24, b0, b1, b2, b3); \
	MIX(m1, m3, m5, m7, b0, b1, b2, b3, d0, d1, d2, d3); \
	ROTATE(rot16, d0, d1, d2, d3); \
	STIR(b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3); \
	ROTATE63(b0, b1, b2, b3, c0)

#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
	HALF(m0, m1, m2, m3, m4, m5, m6, m7, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15); \
	HALF(m8, m9, m10, m11, m12, m13, m14, m15, Y5, Y6, Y7, Y4, Y10, Y11, Y8, Y9, Y15, Y12, Y13, Y14)

// TURN puts four words of each message on the stack.
#define TURN(i) \
	VMOVDQU     (i*8)(R8), Y0; \
	VMOVDQU     (i*8)(R9), Y1; \
	VMOVDQU     (i*8)(R10), Y2; \
	VMOVDQU     (i*8)(R11), Y3; \
	VPUNPCKLQDQ Y1, Y0, Y4; \
	VPUNPCKHQDQ Y1, Y0, Y5; \
	VPUNPCKLQDQ Y3, Y2, Y6; \
	VPUNPCKHQDQ Y3, Y2, Y7; \
	VPERM2I128  $0x20, Y6, Y4, Y0; \
	VPERM2I128  $0x20, Y7, Y5, Y1; \
	VPERM2I128  $0x31, Y6, Y4, Y2; \
	VPERM2I128  $0x31, Y7, Y5, Y3; \
	VMOVDQU     Y0, WORD(i); \
	VMOVDQU     Y1, WORD((i+1)); \
	VMOVDQU     Y2, WORD((i+2)); \
	VMOVDQU     Y3, WORD((i+3))

// FEED puts two vectors of the end into the state.
#define FEED(i, low, high) \
	VPXOR   high, low, low; \
	VPXOR   (i*32)(DI), low, low; \
	VMOVDQU low, (i*32)(DI)

// func compress(s *state, data *[4]*byte, blocks int)
TEXT ·compress(SB), NOSPLIT, $544-24
	MOVQ s+0(FP), DI
	MOVQ data+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVQ 0(SI), R8
	MOVQ 8(SI), R9
	MOVQ 16(SI), R10
	MOVQ 24(SI), R11

block:
	TURN(0)
	TURN(4)
	TURN(8)
	TURN(12)

	// The count grows by the block.
	VMOVDQU 256(DI), Y12
	VPADDQ  size<>(SB), Y12, Y12
	VMOVDQU Y12, 256(DI)

	VMOVDQU 0(DI), Y0
	VMOVDQU 32(DI), Y1
	VMOVDQU 64(DI), Y2
	VMOVDQU 96(DI), Y3
	VMOVDQU 128(DI), Y4
	VMOVDQU 160(DI), Y5
	VMOVDQU 192(DI), Y6
	VMOVDQU 224(DI), Y7
	VMOVDQU iv<>+0(SB), Y8
	VMOVDQU iv<>+32(SB), Y9
	VMOVDQU iv<>+64(SB), Y10
	VMOVDQU iv<>+96(SB), Y11
	VPXOR   iv<>+128(SB), Y12, Y12
	VMOVDQU iv<>+160(SB), Y13
	VMOVDQU iv<>+192(SB), Y14
	VPXOR   288(DI), Y14, Y14
	VMOVDQU iv<>+224(SB), Y15

	ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)
	ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4)
	ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8)
	ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13)
	ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9)
	ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11)
	ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10)
	ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5)
	ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0)
	ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)

	FEED(0, Y0, Y8)
	FEED(1, Y1, Y9)
	FEED(2, Y2, Y10)
	FEED(3, Y3, Y11)
	FEED(4, Y4, Y12)
	FEED(5, Y5, Y13)
	FEED(6, Y6, Y14)
	FEED(7, Y7, Y15)

	ADDQ $128, R8
	ADDQ $128, R9
	ADDQ $128, R10
	ADDQ $128, R11
	DECQ CX
	JNZ  block
	VZEROUPPER
	RET
