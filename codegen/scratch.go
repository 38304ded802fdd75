package codegen

// maxScratch is the largest element of a per-CPU array (PCPU_MIN_UNIT_SIZE,
// include/linux/percpu.h).
const maxScratch = 32 << 10

func (g *generator) scratch() {}
