package describe

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of what is taken of one container. A runtime takes far more, and nothing
// downstream should have to hold it. With them, and with what a Filter lets through,
// a description stays below the largest change that the contract allows.
const (
	MaxName       = 1 << 10  // bytes of a name, an image or a path
	MaxWord       = 4 << 10  // bytes of one argument or variable
	MaxWords      = 16 << 10 // bytes of all arguments, or of all variables
	MaxMounts     = 128
	MaxMountBytes = 32 << 10 // bytes of all mounts
	MaxPorts      = 256
	MaxNetworks   = 16
	MaxUlimits    = 16
	MaxThrottles  = 64 // devices whose I/O is bounded
)

// Ellipsis ends what was cut.
const Ellipsis = "…"

// Cut makes s valid UTF-8 of at most limit bytes, which are at least those of an
// Ellipsis. What is longer is cut between two characters and ends in one. What it
// returns of a longer text does not hold the rest in memory.
func Cut(s string, limit int) string {
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
	return trimRune(s[:min(len(s), max(0, limit-len(Ellipsis)))]) + Ellipsis
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

// Clip shortens the texts of one description and remembers which of the container's
// fields, as the contract calls them, it shortened. The zero value is ready. It is for
// one goroutine.
type Clip struct{ fields []string }

// Fields are those shortened, for the container's field truncated.
func (c *Clip) Fields() []string { return c.fields }

// Shortened notes that a field was shortened by someone else.
func (c *Clip) Shortened(field string) {
	if !slices.Contains(c.fields, field) {
		c.fields = append(c.fields, field)
	}
}

// Text is s, cut to the length of a name.
func (c *Clip) Text(field, s string) string { return c.TextOf(field, s, MaxName) }

// TextOf is s, cut to limit bytes.
func (c *Clip) TextOf(field, s string, limit int) string {
	if len(s) > limit {
		c.Shortened(field)
	}
	return Cut(s, limit)
}

// Words cuts each of a list to MaxWord and the list to MaxWords bytes in all; one that
// is too long ends in an Ellipsis. The list returned is a new one.
func (c *Clip) Words(field string, list []string) []string {
	if len(list) == 0 {
		return nil
	}
	out, left := make([]string, 0, min(len(list), 64)), MaxWords
	for _, w := range list {
		w = c.TextOf(field, w, MaxWord)
		if left -= len(w) + 1; left < 0 {
			c.Shortened(field)
			return append(out, Ellipsis)
		}
		out = append(out, w)
	}
	return out
}

// Room tells whether a list of n items may have one more, and notes when it may not.
func (c *Clip) Room(field string, n, limit int) bool {
	if n < limit {
		return true
	}
	c.Shortened(field)
	return false
}
