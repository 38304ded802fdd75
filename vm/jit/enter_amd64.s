//go:build linux

#include "go_asm.h"
#include "textflag.h"

// func enter(s *engine.State)
//
// The callee leaves by RET with the stack pointer it came with. It may use all
// other registers: this ABI has no callee-saved ones but the frame pointer, which
// the assembler saves because the frame is not empty. (What calls from Go code
// expect, g in R14 and zero in X15, is put back by the wrapper around this.)
TEXT ·enter(SB), NOSPLIT, $8-8
	MOVQ s+0(FP), R10
	CALL const_stateResumePC(R10)
	RET
