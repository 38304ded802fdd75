//go:build linux

package guest

// The host and the agent in the guest are the same binary and speak gob over
// the virtio port: requests one way, events the other. Files travel in pieces
// of chunk bytes, so that no message grows large.

const chunk = 1 << 20

const portName = "skep"

// agentEnv on the kernel's command line reaches process 1 as environment.
const agentEnv = "SKEP_GUEST_AGENT"

// modulesFile lists, a path a line, what the agent loads at boot.
const modulesFile = "/etc/skep-modules"

type op uint8

const (
	opRun   op = iota + 1 // start Cmd as ID
	opKill                // SIGKILL to the process group of ID
	opWrite               // write Piece; answered by evDone
	opQuit                // power off
)

type request struct {
	ID    int
	Op    op
	Cmd   Cmd
	Piece piece
}

// A piece is a part of one file; the one with Offset 0 creates it.
type piece struct {
	Path   string
	Mode   uint32 // permission bits
	Offset int64
	Data   []byte
}

type kind uint8

const (
	evHello  kind = iota + 1 // the agent is ready; Text is the kernel's release
	evStdout                 // Piece.Data
	evStderr                 // Piece.Data
	evFile                   // Piece, of a file that Cmd.Collect asked for
	evDone                   // the last event of an ID; Err, or Code and Signal
)

type event struct {
	ID     int
	Kind   kind
	Piece  piece
	Text   string
	Code   int
	Signal int
	Err    string
}
