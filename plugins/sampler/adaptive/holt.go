package main

import "math"

// holt forecasts a load by its level and a damped trend: E. S. Gardner and E. McKenzie,
// Forecasting trends in time series, 1985. A change that can't be one of its errors is a
// step: the level takes all of it at once, and the trend nothing.
type holt struct {
	level float64 // events/s
	trend float64 // events/s from one report to the next
	noise float64 // standard deviation of what came from what was forecast
	known bool
}

const (
	smoothing = 0.3  // of the level
	leaning   = 0.1  // of the trend
	damping   = 0.98 // of the trend
	calming   = 0.1  // of the noise
	stepping  = 4    // standard deviations
)

// hear takes the load of an interval. chance is the standard deviation that it has if
// events come by chance.
func (h *holt) hear(load, chance float64) {
	if !h.known {
		*h = holt{level: load, noise: chance, known: true}
		return
	}
	expected := h.next()
	wrong := load - expected
	most := stepping * max(h.noise, chance)
	if math.Abs(wrong) > most {
		h.level, h.trend = load, 0
	} else {
		before := h.level
		h.level = expected + smoothing*wrong
		h.trend = leaning*(h.level-before) + (1-leaning)*damping*h.trend
	}
	const ofNormal = 1.2533 // standard deviations in a mean absolute one
	h.noise += calming * (min(ofNormal*math.Abs(wrong), most) - h.noise)
}

// next is what is forecast for the next interval, in events/s.
func (h *holt) next() float64 { return h.level + damping*h.trend }
