package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What callers branch on, with errors.Is.
var (
	// ErrNotRunning says that no daemon listens, or that it went away.
	ErrNotRunning = errors.New("the daemon does not answer")
	// ErrPermission says that this user may not ask the daemon.
	ErrPermission = errors.New("permission denied")
	// ErrNoContainer says that a process belongs to no known container, or that there is
	// none of an id or name.
	ErrNoContainer = errors.New("it belongs to no container that is known")
	// ErrNoProcess says that there is no such process.
	ErrNoProcess = errors.New("no such process")
	// ErrNoNamespace says that no known container is in a namespace.
	ErrNoNamespace = errors.New("no container that is known is in it")
	// ErrNoFilter says that none of a name was added.
	ErrNoFilter = errors.New("no filter of this name was added")
	// ErrNoRoom says that there are as many filters as the daemon takes.
	ErrNoRoom = errors.New("there is no room for more filters")
)

// Error is an error for the user, with its kind and its cause.
type Error struct {
	Text  string
	Kind  error // one of the above; nil: none of them
	Cause error // nil: it is no error of a call
}

// Error is the sentence.
func (e *Error) Error() string { return e.Text }

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	return slices.DeleteFunc([]error{e.Kind, e.Cause}, func(err error) bool { return err == nil })
}

// dialError explains why nobody could be reached on a socket.
func dialError(socket string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("connect to the daemon at %s: %w", socket, err)
	case errors.Is(err, fs.ErrPermission):
		return &Error{fmt.Sprintf("no permission to open %s: run as root", socket), ErrPermission, err}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Error{notRunning(socket), ErrNotRunning, err}
	}
	return fmt.Errorf("connect to the daemon at %s: %w", socket, err)
}

func notRunning(socket string) string {
	return fmt.Sprintf("nobody answers at %s: is the daemon running? start it with 'ebpf-tracer run' (or give --socket)", socket)
}

// explain makes of a call's error one for the user; nil stays nil.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		text := "the daemon went away: is it still running? start it with 'ebpf-tracer run'"
		if strings.Contains(s.Message(), "daemon has stopped") {
			text = s.Message()
		} else if strings.Contains(s.Message(), "while dialing") {
			text = notRunning(c.socket)
		}
		return &Error{text, ErrNotRunning, err}
	case codes.PermissionDenied:
		return &Error{s.Message(), ErrPermission, err}
	case codes.NotFound:
		return &Error{s.Message(), ErrNoProcess, err}
	case codes.Canceled:
		return &Error{"the call was canceled", context.Canceled, err}
	case codes.DeadlineExceeded:
		return &Error{"the daemon did not answer in time", context.DeadlineExceeded, err}
	case codes.Unimplemented:
		return &Error{"the daemon does not know this question: it is of another version than this program", nil, err}
	}
	return &Error{s.Message(), nil, err}
}
