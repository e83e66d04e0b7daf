package main

import (
	"math"
	"time"
)

// jump is the growth that is taken at once, without the average.
const jump = 2

// load is an exponential moving average over reports of any length: after a
// time constant it has gone 63 % of the way. A load that has at least doubled
// is no noise and is taken as it is, so that a burst meets its rate with the
// first report that shows it; a load that falls is believed by and by, so that
// bursts with pauses between them do not make the rate flap.
type load struct {
	constant time.Duration
	mean     float64
	known    bool
}

// add takes the events of an interval and gives the average, in events/s.
func (l *load) add(events uint64, interval time.Duration) float64 {
	now := float64(events) / interval.Seconds()
	if !l.known || l.constant <= 0 || now >= jump*l.mean {
		l.mean, l.known = now, true
		return now
	}
	l.mean += (now - l.mean) * -math.Expm1(-float64(interval)/float64(l.constant))
	return l.mean
}
