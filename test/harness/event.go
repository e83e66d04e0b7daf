package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Event is one line of the exporter json. Blocks that the line does not have are nil.
type Event struct {
	Time     time.Time
	Kind     string
	Priority string
	Weight   float64
	Host     struct{ Name string }
	Process  Process
	Network  *Network
	File     *File
	Cgroup   *struct {
		ID   uint64
		Path string
	}
	Error     *Error
	Lifecycle *Lifecycle
	Container *Container
	K8s       map[string]any
	Mesh      map[string]any
	Pending   bool

	Line string `json:"-"` // as it was written
}

// Process is whose the event is.
type Process struct {
	Unknown   bool
	PID       int
	Thread    *struct{ ID int }
	ParentPID int `json:"parent_pid"`
	VPID      int // in its own pid namespace, where that is another number
	Comm      string
	User      struct{ ID uint32 }
	Namespace struct{ PID, Mnt, Net uint32 }

	// of an exec
	Executable *struct {
		Path      string
		Truncated bool
	}
	Args           []string `json:"command_args"`
	ArgsTruncated  bool     `json:"command_args_truncated"`
	ArgsUnreadable bool     `json:"command_args_unreadable"`

	// of an exit
	Exit *struct {
		Code       int
		Signal     int
		SignalName string `json:"signal_name"`
		CoreDumped bool   `json:"core_dumped"`
	}
	Duration Seconds

	Listener bool // the connection was not accepted yet: its listener's process
}

// Network is a TCP socket.
type Network struct {
	Transport, Type string
	Local           Endpoint
	Peer            *Endpoint
	Backlog         uint32
	Connection      *struct{ ID uint64 }
	IO              *struct{ Transmit, Receive int64 }
	Duration        Seconds
}

// Endpoint is an address and port.
type Endpoint struct {
	Address string
	Port    int
}

// File is a call of the open family.
type File struct {
	Path        string
	Flags       int
	DirectoryFD *int `json:"directory_fd"`
	FD          *int
	Truncated   bool
	Unreadable  bool
}

// Error of a call: Type is the errno's name.
type Error struct {
	Type  string
	Errno int
}

// Lifecycle is what a runtime told of something that happened to a container.
type Lifecycle struct {
	Source     string
	ExitCode   *int `json:"exit_code"`
	Signal     int
	SignalName string `json:"signal_name"`
	Image      string
	Inferred   bool
}

// Container is what is known of the event's container.
type Container struct {
	ID, Name string
	Image    *struct {
		Name       string
		Tags       []string
		Digest, ID string
	}
	Runtime *struct{ Name string }
	Label   map[string]string
	Stale   bool
}

// Seconds is a duration that is written as a number of seconds.
type Seconds time.Duration

// UnmarshalJSON takes the number exactly.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	d, err := time.ParseDuration(string(b) + "s")
	*s = Seconds(d)
	return err
}

// Parse reads one line, without its end. It is an error when the line is no JSON object,
// not valid UTF-8, or has a field that is not known here.
func Parse(line []byte) (e Event, err error) {
	if !utf8.Valid(line) {
		return e, fmt.Errorf("the line is not valid UTF-8: %q", line)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return e, fmt.Errorf("read the line %q: %w", line, err)
	}
	if dec.More() {
		return e, fmt.Errorf("something follows the object in %q", line)
	}
	e.Line = string(line)
	return e, nil
}

// Arg tells whether an exec has the argument, other than its name.
func (e *Event) Arg(want string) bool {
	for i, a := range e.Process.Args {
		if i > 0 && a == want {
			return true
		}
	}
	return false
}

// Select gives the events of a kind, or of all for "", that match; match may be nil.
func Select(events []Event, kind string, match func(*Event) bool) (out []*Event) {
	for i := range events {
		if e := &events[i]; (kind == "" || e.Kind == kind) && (match == nil || match(e)) {
			out = append(out, e)
		}
	}
	return out
}

// Densest gives the most events in any window of a length, and those in the one that
// begins with the first event. It sorts them by time.
func Densest(events []*Event, length time.Duration) (most, first int) {
	slices.SortFunc(events, func(a, b *Event) int { return a.Time.Compare(b.Time) })
	from := 0
	for i, e := range events {
		for e.Time.Sub(events[from].Time) >= length {
			from++
		}
		most = max(most, i-from+1)
		if from == 0 {
			first = i + 1
		}
	}
	return most, first
}
