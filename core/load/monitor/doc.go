// Package monitor knows how busy the host and the daemon are: it reads the load, says
// how high it is and what makes it so, which share of the events it leaves room for, and
// what it was in the last ten minutes.
//
// It owns the last counters, of which rates are made, and the history. It reads when
// Observe is called, never by itself and never because somebody looks at the history; it
// starts no goroutine. What the kernel does not tell is left out and not taken for zero.
// It decides on no event: levels and relief are advice, and the caller brings them into a
// policy or not.
//
// The files are parsed by github.com/prometheus/procfs, but for links of sysfs, which
// tell the kind of a device by where they point.
package monitor
