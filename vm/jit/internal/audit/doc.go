// Package audit decodes what the JIT emitted and checks that it cannot leave its
// cage, whatever the program was. It has its own decoders and its own idea of
// what generated code may look like, and imports nothing of skep, so that a
// mistake of the code generator is not repeated here. Start reading at [AMD64] and [ARM64].
//
// Only instructions that the decoders know pass; there is none among them that
// enters the kernel or touches the machine's state, and one that jumps to where a
// register says, for tail calls on arm64. What remains is checked on all paths, by a forward analysis with
// one value per register: memory is touched in the cage (its base plus
// 32 bits plus a 16-bit offset), in the fields of the State, or on the stack of
// the run; branches lead to instructions; the stack is level at each return.
package audit
