package runner

// A Clock is one of the kernel's clocks, numbered as in records.
type Clock uint32

// The clocks, in the order of nsecs' modes.
const (
	ClockBoot Clock = iota
	ClockMonotonic
	ClockTAI
	ClockSwTAI
	clockCount
)
