//go:build linux

#include "go_asm.h"
#include "textflag.h"

// func enter(s *engine.State)
//
// The callee leaves R18, R28 (the goroutine), R29 and RSP alone. It may use all
// other registers: this ABI has no more callee-saved ones. The link register is
// saved because the frame is not empty.
TEXT ·enter(SB), NOSPLIT, $16-8
	MOVD s+0(FP), R25
	MOVD const_stateResumePC(R25), R9
	CALL (R9)
	RET

// func flushCode(start, length uintptr)
//
// Cleans the data cache to the point of unification and invalidates the
// instruction caches of the inner shareable domain, line by line, as the Arm
// Architecture Reference Manual has it for self-modifying code (B2.4.4). The
// shortest lines are in CTR_EL0: log2 of words, DminLine in bits 19:16, IminLine
// in bits 3:0.
TEXT ·flushCode(SB), NOSPLIT, $0-16
	MOVD start+0(FP), R0
	MOVD length+8(FP), R1
	ADD  R0, R1            // the end
	WORD $0xd53b0022       // mrs x2, ctr_el0
	MOVD $4, R5
	UBFX $16, R2, $4, R3
	LSL  R3, R5, R3        // bytes of a data line
	SUB  $1, R3, R6
	BIC  R6, R0, R4

data:
	WORD $0xd50b7b24       // dc cvau, x4
	ADD  R3, R4
	CMP  R1, R4
	BLO  data
	WORD $0xd5033b9f       // dsb ish
	UBFX $0, R2, $4, R3
	LSL  R3, R5, R3        // bytes of an instruction line
	SUB  $1, R3, R6
	BIC  R6, R0, R4

code:
	WORD $0xd50b7524       // ic ivau, x4
	ADD  R3, R4
	CMP  R1, R4
	BLO  code
	WORD $0xd5033b9f       // dsb ish
	WORD $0xd5033fdf       // isb
	RET
