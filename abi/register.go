package abi

// MachineRegister is a register as struct pt_regs saves it.
type MachineRegister struct {
	Name   string // as bpftrace's reg() has it
	Field  string // the member of struct pt_regs
	Offset int    // in bytes
	Size   int    // in bytes
}

// Registers describes an architecture's struct pt_regs and calling conventions.
// Names are those of [MachineRegister].
type Registers struct {
	All []MachineRegister // in the order of their offsets
	// ContextType is the C structure that the context of kprobe and uprobe
	// programs is for them: pt_regs where it is stable, else the part of it
	// that user space knows. (bpf_user_pt_regs_t)
	ContextType string
	Size        int      // of that structure, in bytes
	Args        []string // of a function call: integers and pointers
	// SyscallArgs are the arguments at the entry of a system call. On arm64 and
	// riscv64 the first one's register takes the result, so its saved copy
	// stands here.
	SyscallArgs        []string
	SyscallNumber      string
	Return             string // result of a function or a system call
	StackPointer       string
	InstructionPointer string
	FramePointer       string
	LinkRegister       string // empty where calls push the return address
}

// Lookup returns the register with a name, or with that field.
func (r *Registers) Lookup(name string) (MachineRegister, bool) {
	for _, m := range r.All {
		if m.Name == name || m.Field == name {
			return m, true
		}
	}
	return MachineRegister{}, false
}

// Registers returns the registers of a 64-bit architecture, or nil.
func (a Arch) Registers() *Registers {
	switch a {
	case AMD64:
		return &amd64Registers
	case ARM64:
		return &arm64Registers
	case RISCV64:
		return &riscv64Registers
	}
	return nil
}

// arch/x86/include/asm/ptrace.h
var amd64Registers = Registers{
	All: []MachineRegister{
		{"r15", "r15", 0, 8},
		{"r14", "r14", 8, 8},
		{"r13", "r13", 16, 8},
		{"r12", "r12", 24, 8},
		{"bp", "bp", 32, 8},
		{"bx", "bx", 40, 8},
		{"r11", "r11", 48, 8},
		{"r10", "r10", 56, 8},
		{"r9", "r9", 64, 8},
		{"r8", "r8", 72, 8},
		{"ax", "ax", 80, 8},
		{"cx", "cx", 88, 8},
		{"dx", "dx", 96, 8},
		{"si", "si", 104, 8},
		{"di", "di", 112, 8},
		{"orig_ax", "orig_ax", 120, 8},
		{"ip", "ip", 128, 8},
		{"cs", "cs", 136, 8},
		{"flags", "flags", 144, 8},
		{"sp", "sp", 152, 8},
		{"ss", "ss", 160, 8},
	},
	ContextType:        "pt_regs",
	Size:               168,
	Args:               []string{"di", "si", "dx", "cx", "r8", "r9"},
	SyscallArgs:        []string{"di", "si", "dx", "r10", "r8", "r9"},
	SyscallNumber:      "orig_ax",
	Return:             "ax",
	StackPointer:       "sp",
	InstructionPointer: "ip",
	FramePointer:       "bp",
}

// arch/arm64/include/asm/ptrace.h
var arm64Registers = Registers{
	All: []MachineRegister{
		{"r0", "regs[0]", 0, 8},
		{"r1", "regs[1]", 8, 8},
		{"r2", "regs[2]", 16, 8},
		{"r3", "regs[3]", 24, 8},
		{"r4", "regs[4]", 32, 8},
		{"r5", "regs[5]", 40, 8},
		{"r6", "regs[6]", 48, 8},
		{"r7", "regs[7]", 56, 8},
		{"r8", "regs[8]", 64, 8},
		{"r9", "regs[9]", 72, 8},
		{"r10", "regs[10]", 80, 8},
		{"r11", "regs[11]", 88, 8},
		{"r12", "regs[12]", 96, 8},
		{"r13", "regs[13]", 104, 8},
		{"r14", "regs[14]", 112, 8},
		{"r15", "regs[15]", 120, 8},
		{"r16", "regs[16]", 128, 8},
		{"r17", "regs[17]", 136, 8},
		{"r18", "regs[18]", 144, 8},
		{"r19", "regs[19]", 152, 8},
		{"r20", "regs[20]", 160, 8},
		{"r21", "regs[21]", 168, 8},
		{"r22", "regs[22]", 176, 8},
		{"r23", "regs[23]", 184, 8},
		{"r24", "regs[24]", 192, 8},
		{"r25", "regs[25]", 200, 8},
		{"r26", "regs[26]", 208, 8},
		{"r27", "regs[27]", 216, 8},
		{"r28", "regs[28]", 224, 8},
		{"r29", "regs[29]", 232, 8},
		{"r30", "regs[30]", 240, 8},
		{"sp", "sp", 248, 8},
		{"pc", "pc", 256, 8},
		{"pstate", "pstate", 264, 8},
		{"orig_x0", "orig_x0", 272, 8},
		{"syscallno", "syscallno", 280, 4},
	},
	ContextType:        "user_pt_regs",
	Size:               272,
	Args:               []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"},
	SyscallArgs:        []string{"orig_x0", "r1", "r2", "r3", "r4", "r5"},
	SyscallNumber:      "syscallno",
	Return:             "r0",
	StackPointer:       "sp",
	InstructionPointer: "pc",
	FramePointer:       "r29",
	LinkRegister:       "r30",
}

// arch/riscv/include/asm/ptrace.h
var riscv64Registers = Registers{
	All: []MachineRegister{
		{"pc", "epc", 0, 8},
		{"ra", "ra", 8, 8},
		{"sp", "sp", 16, 8},
		{"gp", "gp", 24, 8},
		{"tp", "tp", 32, 8},
		{"t0", "t0", 40, 8},
		{"t1", "t1", 48, 8},
		{"t2", "t2", 56, 8},
		{"s0", "s0", 64, 8},
		{"s1", "s1", 72, 8},
		{"a0", "a0", 80, 8},
		{"a1", "a1", 88, 8},
		{"a2", "a2", 96, 8},
		{"a3", "a3", 104, 8},
		{"a4", "a4", 112, 8},
		{"a5", "a5", 120, 8},
		{"a6", "a6", 128, 8},
		{"a7", "a7", 136, 8},
		{"s2", "s2", 144, 8},
		{"s3", "s3", 152, 8},
		{"s4", "s4", 160, 8},
		{"s5", "s5", 168, 8},
		{"s6", "s6", 176, 8},
		{"s7", "s7", 184, 8},
		{"s8", "s8", 192, 8},
		{"s9", "s9", 200, 8},
		{"s10", "s10", 208, 8},
		{"s11", "s11", 216, 8},
		{"t3", "t3", 224, 8},
		{"t4", "t4", 232, 8},
		{"t5", "t5", 240, 8},
		{"t6", "t6", 248, 8},
		{"status", "status", 256, 8},
		{"badaddr", "badaddr", 264, 8},
		{"cause", "cause", 272, 8},
		{"orig_a0", "orig_a0", 280, 8},
	},
	ContextType:        "user_regs_struct",
	Size:               256,
	Args:               []string{"a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"},
	SyscallArgs:        []string{"orig_a0", "a1", "a2", "a3", "a4", "a5"},
	SyscallNumber:      "a7",
	Return:             "a0",
	StackPointer:       "sp",
	InstructionPointer: "pc",
	FramePointer:       "s0",
	LinkRegister:       "ra",
}
