package kernel

// A PrivilegeError says that this process may not do something.
type PrivilegeError struct {
	// What is what was tried: "loading program p".
	What string
	// Missing names the capabilities that this process lacks for it; "" when it
	// has them and something else forbids it.
	Missing string
	// Why and what to do.
	Why string
	// Err is the system's error.
	Err error
}

func (e *PrivilegeError) Error() string {
	s := e.What + " was refused"
	if e.Missing != "" {
		s += ": this process lacks " + e.Missing
	}
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s + " (" + e.Err.Error() + ")"
}

// Unwrap returns the system's error.
func (e *PrivilegeError) Unwrap() error { return e.Err }
