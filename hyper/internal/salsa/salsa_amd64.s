//go:build !purego

#include "textflag.h"

// A vector has a diagonal of the matrices of several blocks, four words a lane; four vectors are a set. Both kinds of rounds are
// the same then, but for what each diagonal is turned by between them. The state is that of salsa_amd64.go:
#define A 0(DX)
#define B 64(DX)
#define D 128(DX)
#define ADDED 192(DX)
#define C0 256(DX)
#define C1 320(DX)
#define C2 384(DX)
#define C3 448(DX)

// VPSHUFD turns words by these.
#define LEFT $0x39
#define HALF $0x4e
#define RIGHT $0x93

// STEP3 does z ^= (x + y) <<< left, in three sets. Y12 to Y15 are free.
#define STEP3(x0, y0, z0, x1, y1, z1, x2, y2, z2, left, right) \
	VPADDD x0, y0, Y12; \
	VPADDD x1, y1, Y13; \
	VPADDD x2, y2, Y14; \
	VPSLLD left, Y12, Y15; \
	VPSRLD right, Y12, Y12; \
	VPXOR  Y15, z0, z0; \
	VPXOR  Y12, z0, z0; \
	VPSLLD left, Y13, Y15; \
	VPSRLD right, Y13, Y13; \
	VPXOR  Y15, z1, z1; \
	VPXOR  Y13, z1, z1; \
	VPSLLD left, Y14, Y15; \
	VPSRLD right, Y14, Y14; \
	VPXOR  Y15, z2, z2; \
	VPXOR  Y14, z2, z2

// ROUND3 is a round, with what the second and the fourth diagonal are turned by at its end.
#define ROUND3(a0, b0, c0, d0, a1, b1, c1, d1, a2, b2, c2, d2, turnB, turnD) \
	STEP3(a0, d0, b0, a1, d1, b1, a2, d2, b2, $7, $25); \
	STEP3(b0, a0, c0, b1, a1, c1, b2, a2, c2, $9, $23); \
	STEP3(c0, b0, d0, c1, b1, d1, c2, b2, d2, $13, $19); \
	STEP3(d0, c0, a0, d1, c1, a1, d2, c2, a2, $18, $14); \
	VPSHUFD turnB, b0, b0; \
	VPSHUFD turnB, b1, b1; \
	VPSHUFD turnB, b2, b2; \
	VPSHUFD HALF, c0, c0; \
	VPSHUFD HALF, c1, c1; \
	VPSHUFD HALF, c2, c2; \
	VPSHUFD turnD, d0, d0; \
	VPSHUFD turnD, d1, d1; \
	VPSHUFD turnD, d2, d2

// SUM adds what a set began with, and has the next group begin further on.
#define SUM(a, b, c, d, begin, vector) \
	VPADDD  A, a, a; \
	VPADDD  B, b, b; \
	VPADDD  D, d, d; \
	VMOVDQU begin, vector; \
	VPADDD  vector, c, c; \
	VPADDD  ADDED, vector, vector; \
	VMOVDQU vector, begin

// XOR2 makes rows of the diagonals of a set, and blocks of the rows, and encrypts two blocks.
#define XOR2(a, b, c, d, at) \
	VPBLENDD $0xaa, d, a, Y12; \
	VPBLENDD $0xaa, a, d, Y13; \
	VPBLENDD $0xaa, b, c, Y14; \
	VPBLENDD $0xaa, c, b, Y15; \
	VPBLENDD $0xcc, Y14, Y12, a; \
	VPBLENDD $0x66, Y13, Y15, b; \
	VPBLENDD $0xcc, Y12, Y14, c; \
	VPBLENDD $0x66, Y15, Y13, d; \
	VPERM2I128 $0x20, b, a, Y12; \
	VPERM2I128 $0x20, d, c, Y13; \
	VPERM2I128 $0x31, b, a, Y14; \
	VPERM2I128 $0x31, d, c, Y15; \
	VPXOR   (at+0)(SI), Y12, Y12; \
	VPXOR   (at+32)(SI), Y13, Y13; \
	VPXOR   (at+64)(SI), Y14, Y14; \
	VPXOR   (at+96)(SI), Y15, Y15; \
	VMOVDQU Y12, (at+0)(DI); \
	VMOVDQU Y13, (at+32)(DI); \
	VMOVDQU Y14, (at+64)(DI); \
	VMOVDQU Y15, (at+96)(DI)

// func xorAVX2(out, in *byte, groups int, s *state)
TEXT ·xorAVX2(SB), NOSPLIT, $0-32
	MOVQ out+0(FP), DI
	MOVQ in+8(FP), SI
	MOVQ groups+16(FP), BX
	MOVQ s+24(FP), DX

group:
	VMOVDQU A, Y0
	VMOVDQU B, Y1
	VMOVDQU C0, Y2
	VMOVDQU D, Y3
	VMOVDQA Y0, Y4
	VMOVDQA Y1, Y5
	VMOVDQU C1, Y6
	VMOVDQA Y3, Y7
	VMOVDQA Y0, Y8
	VMOVDQA Y1, Y9
	VMOVDQU C2, Y10
	VMOVDQA Y3, Y11
	MOVQ    $10, CX

rounds:
	ROUND3(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, RIGHT, LEFT)
	ROUND3(Y0, Y3, Y2, Y1, Y4, Y7, Y6, Y5, Y8, Y11, Y10, Y9, RIGHT, LEFT)
	DECQ CX
	JNZ  rounds

	SUM(Y0, Y1, Y2, Y3, C0, Y12)
	SUM(Y4, Y5, Y6, Y7, C1, Y12)
	SUM(Y8, Y9, Y10, Y11, C2, Y12)
	XOR2(Y0, Y1, Y2, Y3, 0)
	XOR2(Y4, Y5, Y6, Y7, 128)
	XOR2(Y8, Y9, Y10, Y11, 256)
	ADDQ $384, SI
	ADDQ $384, DI
	DECQ BX
	JNZ  group
	VZEROUPPER
	RET

// STEP4 is STEP3 in four sets. Z16 to Z19 are free.
#define STEP4(x0, y0, z0, x1, y1, z1, x2, y2, z2, x3, y3, z3, left) \
	VPADDD x0, y0, Z16; \
	VPADDD x1, y1, Z17; \
	VPADDD x2, y2, Z18; \
	VPADDD x3, y3, Z19; \
	VPROLD left, Z16, Z16; \
	VPROLD left, Z17, Z17; \
	VPROLD left, Z18, Z18; \
	VPROLD left, Z19, Z19; \
	VPXORD Z16, z0, z0; \
	VPXORD Z17, z1, z1; \
	VPXORD Z18, z2, z2; \
	VPXORD Z19, z3, z3

// ROUND4 is ROUND3 in four sets: a, c and the others are from Z0, Z4, Z8, and Z12 on.
#define ROUND4(b0, d0, b1, d1, b2, d2, b3, d3) \
	STEP4(Z0, d0, b0, Z4, d1, b1, Z8, d2, b2, Z12, d3, b3, $7); \
	STEP4(b0, Z0, Z2, b1, Z4, Z6, b2, Z8, Z10, b3, Z12, Z14, $9); \
	STEP4(Z2, b0, d0, Z6, b1, d1, Z10, b2, d2, Z14, b3, d3, $13); \
	STEP4(d0, Z2, Z0, d1, Z6, Z4, d2, Z10, Z8, d3, Z14, Z12, $18); \
	VPSHUFD RIGHT, b0, b0; \
	VPSHUFD RIGHT, b1, b1; \
	VPSHUFD RIGHT, b2, b2; \
	VPSHUFD RIGHT, b3, b3; \
	VPSHUFD HALF, Z2, Z2; \
	VPSHUFD HALF, Z6, Z6; \
	VPSHUFD HALF, Z10, Z10; \
	VPSHUFD HALF, Z14, Z14; \
	VPSHUFD LEFT, d0, d0; \
	VPSHUFD LEFT, d1, d1; \
	VPSHUFD LEFT, d2, d2; \
	VPSHUFD LEFT, d3, d3

// XOR4 is XOR2 for four blocks.
#define XOR4(a, b, c, d, at) \
	VPBLENDMD d, a, K1, Z16; \
	VPBLENDMD a, d, K1, Z17; \
	VPBLENDMD b, c, K1, Z18; \
	VPBLENDMD c, b, K1, Z19; \
	VPBLENDMD Z18, Z16, K2, a; \
	VPBLENDMD Z17, Z19, K3, b; \
	VPBLENDMD Z16, Z18, K2, c; \
	VPBLENDMD Z19, Z17, K3, d; \
	VSHUFI32X4 $0x44, b, a, Z16; \
	VSHUFI32X4 $0x44, d, c, Z17; \
	VSHUFI32X4 $0xee, b, a, Z18; \
	VSHUFI32X4 $0xee, d, c, Z19; \
	VSHUFI32X4 $0x88, Z17, Z16, a; \
	VSHUFI32X4 $0xdd, Z17, Z16, b; \
	VSHUFI32X4 $0x88, Z19, Z18, c; \
	VSHUFI32X4 $0xdd, Z19, Z18, d; \
	VPXORD    (at+0)(SI), a, a; \
	VPXORD    (at+64)(SI), b, b; \
	VPXORD    (at+128)(SI), c, c; \
	VPXORD    (at+192)(SI), d, d; \
	VMOVDQU32 a, (at+0)(DI); \
	VMOVDQU32 b, (at+64)(DI); \
	VMOVDQU32 c, (at+128)(DI); \
	VMOVDQU32 d, (at+192)(DI)

// func xorAVX512(out, in *byte, groups int, s *state)
TEXT ·xorAVX512(SB), NOSPLIT, $0-32
	MOVQ  out+0(FP), DI
	MOVQ  in+8(FP), SI
	MOVQ  groups+16(FP), BX
	MOVQ  s+24(FP), DX
	MOVL  $0xaaaa, AX
	KMOVW AX, K1
	MOVL  $0xcccc, AX
	KMOVW AX, K2
	MOVL  $0x6666, AX
	KMOVW AX, K3

	// What each set began with: Z24 to Z26 for all of them, and Z28 to Z31.
	VMOVDQU32 A, Z24
	VMOVDQU32 B, Z25
	VMOVDQU32 D, Z26
	VMOVDQU32 ADDED, Z27
	VMOVDQU32 C0, Z28
	VMOVDQU32 C1, Z29
	VMOVDQU32 C2, Z30
	VMOVDQU32 C3, Z31

group:
	VMOVDQA32 Z24, Z0
	VMOVDQA32 Z25, Z1
	VMOVDQA32 Z28, Z2
	VMOVDQA32 Z26, Z3
	VMOVDQA32 Z24, Z4
	VMOVDQA32 Z25, Z5
	VMOVDQA32 Z29, Z6
	VMOVDQA32 Z26, Z7
	VMOVDQA32 Z24, Z8
	VMOVDQA32 Z25, Z9
	VMOVDQA32 Z30, Z10
	VMOVDQA32 Z26, Z11
	VMOVDQA32 Z24, Z12
	VMOVDQA32 Z25, Z13
	VMOVDQA32 Z31, Z14
	VMOVDQA32 Z26, Z15
	MOVQ $10, CX

rounds:
	ROUND4(Z1, Z3, Z5, Z7, Z9, Z11, Z13, Z15)
	ROUND4(Z3, Z1, Z7, Z5, Z11, Z9, Z15, Z13)
	DECQ CX
	JNZ  rounds

	VPADDD Z24, Z0, Z0
	VPADDD Z25, Z1, Z1
	VPADDD Z28, Z2, Z2
	VPADDD Z26, Z3, Z3
	VPADDD Z27, Z28, Z28
	VPADDD Z24, Z4, Z4
	VPADDD Z25, Z5, Z5
	VPADDD Z29, Z6, Z6
	VPADDD Z26, Z7, Z7
	VPADDD Z27, Z29, Z29
	VPADDD Z24, Z8, Z8
	VPADDD Z25, Z9, Z9
	VPADDD Z30, Z10, Z10
	VPADDD Z26, Z11, Z11
	VPADDD Z27, Z30, Z30
	VPADDD Z24, Z12, Z12
	VPADDD Z25, Z13, Z13
	VPADDD Z31, Z14, Z14
	VPADDD Z26, Z15, Z15
	VPADDD Z27, Z31, Z31
	XOR4(Z0, Z1, Z2, Z3, 0)
	XOR4(Z4, Z5, Z6, Z7, 256)
	XOR4(Z8, Z9, Z10, Z11, 512)
	XOR4(Z12, Z13, Z14, Z15, 768)
	ADDQ $1024, SI
	ADDQ $1024, DI
	DECQ BX
	JNZ  group

	VMOVDQU32 Z28, C0
	VMOVDQU32 Z29, C1
	VMOVDQU32 Z30, C2
	VMOVDQU32 Z31, C3
	VZEROUPPER
	RET
