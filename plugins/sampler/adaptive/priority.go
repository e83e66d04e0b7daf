package main

// priority of what a plan decides on. Critical events are none of it: the daemon
// always keeps them.
type priority uint8

// In the order in which they are pressed.
const (
	debug priority = iota
	info
	warning
	fault
	priorities
)

func (p priority) String() string { return [...]string{"debug", "info", "warning", "error"}[p] }

// parsePriority tells too whether it is one of them.
func parsePriority(name string) (priority, bool) {
	switch name {
	case "debug":
		return debug, true
	case "info":
		return info, true
	case "warning":
		return warning, true
	case "error":
		return fault, true
	}
	return 0, false
}

// importance is how many times as much an event counts as a debug event.
var importance = [priorities]float64{debug: 1, info: 1.5, warning: 2, fault: 3}

// band is the shares of the events of a priority between which it is kept while the
// budget is short.
type band struct{ least, most float64 }

var bands = [priorities]band{debug: {0.01, 0.1}, info: {0.1, 0.5}, warning: {0.5, 0.8}, fault: {0.9, 1}}
