package verifier

import "regexp"

// A kernelMessage maps what Linux says to a category.
type kernelMessage struct {
	re       *regexp.Regexp
	category Category
	insn     bool // the message names the instruction
	whole    bool // it is about the program as a whole
	weak     bool // an earlier line may say more
}

func msg(re string, c Category) kernelMessage {
	return kernelMessage{re: regexp.MustCompile(re), category: c}
}

func msgAt(re string, c Category) kernelMessage {
	return kernelMessage{re: regexp.MustCompile(re), category: c, insn: true}
}

func msgWhole(re string, c Category) kernelMessage {
	return kernelMessage{re: regexp.MustCompile(re), category: c, whole: true}
}

// kernelMessages is searched from the log's last line up; the first that
// matches a line counts.
var kernelMessages = []kernelMessage{
	msg(`Possibly NULL pointer passed to trusted arg`, CatNull),
	msg(`must point to (void, )?scalar, or struct with scalar|args#\d+ expected pointer to|must be referenced or trusted|must be a rcu pointer|expected pointer to func`, CatArgument),
	msg(`must be a known constant|is not a const$`, CatArgument),
	{re: regexp.MustCompile(`memory, len pair leads to`), category: CatArgument, weak: true},
	msg(`expected an (un)?initialized iter|expected an uninitialized iter`, CatObject),
	msg(`only read (from .* )?is supported`, CatReadOnly),
	msg(`access beyond (struct|union|the end of)|invalid variable offset: off|invalid negative access: off|Cannot access kernel .* from non-GPL|access beyond the end of member|cannot access ptr member`, CatKernelObject),
	msg(`Cannot access kernel .* CAP_PERFMON|access is allowed only to CAP_PERFMON`, CatCapability),
	msg(`expected pointer to (allocated object|map value or allocated)|allocated object must be referenced|neither owning or non-owning|with bpf_refcount field|expected for bpf_.*obj_drop|must be non-owning ref|not allowed in rbtree cb`, CatArgument),
	msg(`expects refcounted PTR_TO_BTF_ID`, CatReference),
	msg(`calling kernel function .* is not allowed|program must be sleepable to call sleepable kfunc|destructive kfunc calls`, CatHelper),
	msg(`is sleepable within|nested rcu read lock|unmatched rcu read unlock|unmatched attempt to enable|cannot be used inside|in unnecessary rbtree callback|requires RCU critical section`, CatLock),
	msg(`doesn't point to kptr|has no valid kptr|kptr isn't referenced kptr|invalid kptr access|kptr disallowed|imm must be 0 when storing to kptr|must be 8 bytes|referenced kptr`, CatMap),
	msg(`(list|rb)_(node|head|root) not found at|but expected bpf_|operation on bpf_.* expects|direct access to bpf_`, CatMap),
	msg(`must be held for bpf_|held lock and object are not in the same`, CatLock),
	msg(`type ID argument must be|local type ID argument`, CatKernelObject),
	msgAt(`^unreachable insn \d+`, CatControl),
	msg(`^last insn is not an exit or jmp`, CatControl),
	msgAt(`^jump out of range from insn \d+`, CatControl),
	msgAt(`^jump into the middle of ldimm64 insn`, CatControl),
	msgAt(`^back-edge from insn \d+`, CatControl),
	msgAt(`infinite loop detected at insn`, CatComplexity),
	msg(`^BPF program is too large`, CatComplexity),
	msg(`^The sequence of \d+ jumps is too complex`, CatComplexity),
	msg(`loading/calling other bpf or kernel functions are allowed for`, CatCapability),
	msg(`^call to invalid destination`, CatControl),
	msg(`^invalid insn idx`, CatControl),

	msg(`^R\d+ !read_ok`, CatUninit),
	msg(`^frame pointer is read only`, CatPointer),
	msg(`^div by zero`, CatInstruction),
	msg(`^invalid shift`, CatInstruction),
	msg(`uses reserved fields|^invalid BPF_|^unknown opcode|^BPF_ATOMIC uses invalid atomic opcode|^invalid atomic operand size|^R\d+ is invalid`, CatInstruction),
	msg(`^invalid bpf_ld_imm64 insn`, CatInstruction),
	msg(`BPF_LD_\[ABS\|IND\] instructions not allowed`, CatInstruction),
	msg(`at the time of BPF_LD_ABS\|IND R6 != pointer to skb`, CatType),

	msg(`math between .* pointer and`, CatPointer),
	msg(`pointer offset -?\d+ is not allowed`, CatPointer),
	msg(`makes .* pointer be out of bounds`, CatPointer),
	msg(`32-bit pointer arithmetic prohibited`, CatPointer),
	msg(`pointer arithmetic on .*_or_null prohibited`, CatNull),
	msg(`unknown scalar with mixed signed bounds|pointer with unsupported alu operation|from different maps, paths or scalars|tried to (add|sub) beyond pointer bounds`, CatSpeculation),
	msg(`stack pointer arithmetic goes out of range, prohibited for !root|variable stack access prohibited for !root|pointer arithmetic of map value goes out of range`, CatSpeculation),
	msg(`pointer arithmetic (on .* )?prohibited`, CatPointer),
	msg(`pointer arithmetic with .* operator prohibited|bitwise operator .* on pointer prohibited|pointer .* pointer prohibited`, CatPointer),
	msg(`tried to subtract pointer from scalar|subtraction from stack pointer prohibited`, CatPointer),
	msg(`partial copy of pointer|sign-extension part of pointer`, CatPointer),
	msg(`pointer comparison prohibited`, CatPointer),
	msg(`dereference of modified|negative offset .* ptr|variable .* access var_off`, CatPointer),

	msg(`invalid mem access '.*(_or_null'|ptr_or_null_)`, CatNull),
	msg(`invalid mem access`, CatType),
	msg(`same insn cannot be used with different pointers`, CatType),
	msg(`BPF_(ATOMIC|ST) (stores|loads) (into|from) R\d+ .* is not allowed`, CatType),
	msg(`cannot write into|write into map forbidden|read from map forbidden|write to change key`, CatReadOnly),
	msg(`^misaligned`, CatAlignment),
	msg(`^invalid bpf_context access`, CatContext),
	msg(`cannot be accessed directly by load/store|kptr (cannot|access)`, CatMap),

	msg(`min value is negative`, CatBounds),
	msg(`(min|max) value is outside of the allowed memory range|offset is outside of the packet|unbounded memory access`, CatBounds),
	msg(`invalid access to (map|packet|memory|flow keys)`, CatBounds),
	msg(`invalid zero-sized read`, CatBounds),
	msg(`invalid (sock|tcp_sock|sock_common|xdp_sock) access`, CatBounds),

	msg(`uninit stack in range of var-offset write|spilled ptr in range of var-offset|variable offset stack access prohibited|variable offset stack pointer cannot be passed`, CatStack),
	msg(`^invalid (unbounded )?(variable-offset )?(indirect )?(write to|read from|access to|indirect access to) stack|^invalid  ?(unbounded )?(variable-offset)? ?(write to|read from|indirect access to) stack|invalid (variable-offset)? ?(indirect)? ?(read|write|access) (from|to)( stack)?`, CatStack),
	msg(`^invalid unbounded variable-offset`, CatStack),
	msg(`invalid size of register (spill|fill)|attempt to corrupt spilled pointer|cannot spill pointers to stack|leaking pointer from stack|cannot return stack pointer`, CatStack),
	msgWhole(`^combined stack size|^stack size of subprog`, CatStack),
	msgWhole(`^tail_calls are not allowed when call stack`, CatStack),
	msg(`^the call stack of \d+ frames is too deep`, CatCall),

	msg(`leaks addr (into|as)`, CatLeak),

	msg(`^invalid func|unknown func|cannot use helper|GPL-restricted|helper call is not allowed|might sleep in a non-sleepable|helper access to the packet is not allowed`, CatHelper),
	msg(`R\d+ type=.*_or_null expected=`, CatNull),
	msg(`R\d+ type=.* expected=`, CatArgument),
	msg(`Possibly NULL pointer passed to helper`, CatNull),
	msg(`is not a known constant|does not point to a readonly map|is not a constant address|not zero-terminated|doesn't match map pointer|doesn't have constant offset|doesn't point to 'struct`, CatArgument),
	msg(`doesn't support non-zero flags`, CatArgument),
	msg(`cannot pass map_type|expected prog array map|has no valid bpf_|has to have BTF|progs cannot use|callback function not allowed for map|invalid map_ptr|direct value offset|cannot be used in prog|Sleepable programs can only use|kernel subsystem misconfigured verifier`, CatMap),
	msg(`Unsupported reg type .* for bpf_dynptr_from_mem`, CatArgument),

	msg(`Unreleased reference`, CatReference),
	msg(`would lead to reference leak`, CatReference),
	msg(`must be referenced when passed|reference has not been acquired|is an unacquired reference|more than one arg with ref_obj_id`, CatReference),
	msg(`must have zero offset when passed to release`, CatPointer),
	msg(`function calls are not allowed while holding a lock|bpf_spin_unlock is missing|inside bpf_spin_lock-ed|Locking two|without taking a lock|of different lock|bpf_rcu_read_unlock is missing|preempt_enable`, CatLock),

	msg(`At (program exit|callback return|subprogram exit|async callback)`, CatReturn),
	msg(`R0 not a scalar value`, CatReturn),
	msg(`Caller passes invalid args|is not a scalar|expects pointer to ctx|expected to be non-NULL`, CatCall),
	msg(`cannot overwrite|dynptr|potential write to dynptr`, CatObject),
}
