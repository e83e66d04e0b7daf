package main

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of what is taken of one container. A runtime takes far more, and
// nothing downstream should have to hold it: together they stay below the
// largest change that the contract allows.
const (
	maxName       = 1 << 10  // bytes of a name, an image or a path
	maxWord       = 4 << 10  // bytes of one argument or variable
	maxWords      = 16 << 10 // bytes of all arguments
	maxMounts     = 128
	maxMountBytes = 32 << 10 // bytes of all mounts
	maxPorts      = 256
	maxNetworks   = 16
	maxUlimits    = 16
)

const ellipsis = "…"

// cut makes s valid UTF-8 of at most limit bytes; what is longer ends in an
// ellipsis.
func cut(s string, limit int) string {
	over := len(s) > limit
	if over {
		// First of all, so that a huge text costs no more than a short one; a
		// clone, so that the few bytes kept do not hold the many.
		s = strings.Clone(s[:limit])
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(trimRune(s), "\uFFFD")
		over = over || len(s) > limit
	}
	if !over {
		return s
	}
	return trimRune(s[:min(len(s), max(0, limit-len(ellipsis)))]) + ellipsis
}

// trimRune takes off the beginning of a character whose end was cut off.
func trimRune(s string) string {
	for i := 1; i <= min(utf8.UTFMax-1, len(s)); i++ {
		if b := s[len(s)-i:]; utf8.RuneStart(b[0]) {
			if !utf8.FullRuneInString(b) {
				return s[:len(s)-i]
			}
			break
		}
	}
	return s
}

// clip shortens the texts of one description and remembers which fields it
// shortened.
type clip struct {
	fields []string
	labels int // room left for labels and annotations; 0: not begun
}

func (c *clip) shortened(field string) {
	if !slices.Contains(c.fields, field) {
		c.fields = append(c.fields, field)
	}
}

// text is cut to the length of a name.
func (c *clip) text(field, s string) string { return c.textOf(field, s, maxName) }

func (c *clip) textOf(field, s string, limit int) string {
	if len(s) > limit {
		c.shortened(field)
	}
	return cut(s, limit)
}

// words cuts each of a list and the list itself, whose bytes in all are
// bounded; a list that is too long ends in an ellipsis.
func (c *clip) words(field string, list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out, left := make([]string, 0, min(len(list), 64)), maxWords
	for _, w := range list {
		w = c.textOf(field, w, maxWord)
		if left -= len(w) + 1; left < 0 {
			c.shortened(field)
			return append(out, ellipsis)
		}
		out = append(out, w)
	}
	return out
}

// room tells whether a list of n items may have one more.
func (c *clip) room(field string, n, limit int) bool {
	if n < limit {
		return true
	}
	c.shortened(field)
	return false
}
