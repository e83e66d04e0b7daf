package config

import (
	"bytes"
	"encoding/json"

	"github.com/hashicorp/hcl/v2"
)

// headers are where blocks of one name begin. The library gives all blocks of one
// JSON array the place of the array; here each has its own.
func (s *source) headers(blocks hcl.Blocks) []hcl.Range {
	out := make([]hcl.Range, len(blocks))
	for i, b := range blocks {
		out[i] = b.DefRange
	}
	if !s.json {
		return out
	}
	for first := 0; first < len(blocks); {
		end := first + 1
		for end < len(blocks) && blocks[end].DefRange == blocks[first].DefRange {
			end++
		}
		copy(out[first:end], s.elements(blocks[first].DefRange))
		first = end
	}
	return out
}

// elements are where the elements of the JSON array that opens at a range begin;
// none if there is no array.
func (s *source) elements(open hcl.Range) []hcl.Range {
	if !open.CanSliceBytes(s.file.Bytes) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(s.file.Bytes[open.Start.Byte:]))
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return nil
	}
	var starts []int // from the array's own
	for dec.More() {
		var element json.RawMessage
		if dec.Decode(&element) != nil {
			return nil // the library has read it, and said what is wrong
		}
		starts = append(starts, int(dec.InputOffset())-len(element))
	}
	return s.places(open.Start, starts)
}

// places turns offsets from a place, in rising order, into ranges of one
// character.
func (s *source) places(from hcl.Pos, offsets []int) []hcl.Range {
	at := 0 // the offset reached
	scanner := hcl.NewRangeScannerFragment(s.file.Bytes, s.name, from, func(rest []byte, _ bool) (int, []byte, error) {
		n := 1
		if len(offsets) > 0 && offsets[0] > at {
			n = offsets[0] - at
		}
		at += n
		return n, rest[:n], nil
	})
	var out []hcl.Range
	for len(offsets) > 0 {
		here := at == offsets[0]
		if !scanner.Scan() {
			break
		}
		if here {
			out = append(out, scanner.Range())
			offsets = offsets[1:]
		}
	}
	return out
}
