package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// shownEvent is what the short line of an event is made of.
type shownEvent struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"`
	Priority  string    `json:"priority"`
	Weight    float64   `json:"weight"`
	Pending   bool      `json:"pending"`
	Container struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"container"`
	Lifecycle *struct {
		ExitCode *int32 `json:"exit_code"`
		Signal   string `json:"signal_name"`
		Image    string `json:"image"`
		Inferred bool   `json:"inferred"`
	} `json:"lifecycle"`
	Process struct {
		PID        uint32 `json:"pid"`
		ParentPID  uint32 `json:"parent_pid"`
		Comm       string `json:"comm"`
		Executable struct {
			Path string `json:"path"`
		} `json:"executable"`
		Args []string `json:"command_args"`
		Exit *struct {
			Code   uint32 `json:"code"`
			Signal string `json:"signal_name"`
		} `json:"exit"`
		Duration float64 `json:"duration"`
	} `json:"process"`
	Network *struct {
		Local address `json:"local"`
		Peer  address `json:"peer"`
		IO    *struct {
			Transmit uint64 `json:"transmit"`
			Receive  uint64 `json:"receive"`
		} `json:"io"`
	} `json:"network"`
	File struct {
		Path string `json:"path"`
	} `json:"file"`
	Cgroup struct {
		Path string `json:"path"`
	} `json:"cgroup"`
	Error struct {
		Type string `json:"type"`
	} `json:"error"`
}

type address struct {
	Address string `json:"address"`
	Port    uint16 `json:"port"`
}

func (a address) String() string { return net.JoinHostPort(a.Address, strconv.Itoa(int(a.Port))) }

// eventLine makes the short line of an event: time, kind, whose, which process,
// and what it did.
func eventLine(line []byte) ([]byte, error) {
	var e shownEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, err
	}
	whose := e.Container.Name
	if whose == "" {
		whose = short(e.Container.ID)
	}
	switch {
	case whose == "" && e.Pending:
		whose = "?"
	case whose == "":
		whose = "-"
	}
	process := "-"
	if e.Process.PID != 0 || e.Process.Comm != "" {
		process = fmt.Sprintf("%s[%d]", e.Process.Comm, e.Process.PID)
	}
	b := fmt.Appendf(nil, "%s  %-22s  %-20s  %-22s", e.Time.Local().Format("15:04:05.000"), clean(e.Kind), clean(whose), clean(process))
	if what := clean(e.what()); what != "" {
		b = append(append(b, "  "...), what...)
	}
	if e.Weight > 1 {
		b = fmt.Appendf(b, "  ×%.3g", e.Weight)
	}
	if e.Priority == "error" || e.Priority == "critical" {
		b = append(append(b, "  "...), e.Priority...)
	}
	return append(b, '\n'), nil
}

// lived says what happened to the container.
func (e *shownEvent) lived() (parts []string) {
	l := e.Lifecycle
	if l.Image != "" {
		parts = append(parts, l.Image)
	}
	if l.ExitCode != nil {
		parts = append(parts, "status", strconv.Itoa(int(*l.ExitCode)))
	}
	if l.Signal != "" {
		parts = append(parts, l.Signal)
	}
	if l.Inferred {
		parts = append(parts, "(inferred)")
	}
	return parts
}

// what says what the process did.
func (e *shownEvent) what() string {
	var parts []string
	switch {
	case e.Process.Executable.Path != "":
		parts = append(parts, e.Process.Executable.Path)
		if len(e.Process.Args) > 1 {
			parts = append(parts, e.Process.Args[1:]...)
		}
	case e.Process.Exit != nil && e.Process.Exit.Signal != "":
		parts = append(parts, e.Process.Exit.Signal, "after", seconds(e.Process.Duration))
	case e.Process.Exit != nil:
		parts = append(parts, "status", strconv.FormatUint(uint64(e.Process.Exit.Code), 10), "after", seconds(e.Process.Duration))
	case e.Lifecycle != nil:
		parts = e.lived()
	case e.Kind == "process.fork":
		parts = append(parts, fmt.Sprintf("of %d", e.Process.ParentPID))
	case e.File.Path != "":
		parts = append(parts, e.File.Path)
	case e.Cgroup.Path != "":
		parts = append(parts, e.Cgroup.Path)
	case e.Network != nil && e.Network.Peer.Address == "":
		parts = append(parts, e.Network.Local.String())
	case e.Network != nil:
		parts = append(parts, e.Network.Local.String(), "→", e.Network.Peer.String())
		if io := e.Network.IO; io != nil {
			parts = append(parts, fmt.Sprintf("sent %s received %s", size(io.Transmit), size(io.Receive)))
		}
	}
	if e.Error.Type != "" {
		parts = append(parts, e.Error.Type)
	}
	return strings.Join(parts, " ")
}
