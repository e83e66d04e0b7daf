package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// MaxSpec is how large a specification Decode need take, in bytes. One with a long
// seccomp profile has 60 KiB; what grows are labels and environments, of which a
// megabyte has been seen.
const MaxSpec = 4 << 20

// ErrTooLarge is of a specification of more bytes than were allowed. Nothing of it was
// read.
var ErrTooLarge = errors.New("it is too large")

// Decode reads a specification of at most limit bytes.
//
// What has another type than it should is left out: the specification is then not nil,
// nor is the error, which says where; DescribePart tells of such a one what is sure.
// With any other error the specification is nil.
func Decode(r io.Reader, limit int64) (*specs.Spec, error) {
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read a specification: %w", err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("read a specification of more than %d bytes: %w", limit, ErrTooLarge)
	}
	return DecodeBytes(raw)
}

// DecodeBytes is Decode of what is in memory.
func DecodeBytes(raw []byte) (*specs.Spec, error) {
	s := &specs.Spec{}
	err := json.Unmarshal(raw, s)
	if err == nil {
		return s, nil
	}
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return s, fmt.Errorf("read a specification: %.100s is no %v, but %.100s", wrong.Field, wrong.Type, wrong.Value)
	}
	if wrong := (*json.SyntaxError)(nil); errors.As(err, &wrong) {
		return nil, fmt.Errorf("read a specification: at byte %d: %w", wrong.Offset, err)
	}
	return nil, fmt.Errorf("read a specification: %w", err)
}
