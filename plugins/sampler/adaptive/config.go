package main

import (
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration of the sampler adaptive.
type Config struct {
	Budget   float64       `json:"budget"` // events/s; 0: the daemon's
	MinRate  float64       `json:"min_rate"`
	Interval time.Duration `json:"interval"`
	Exponent float64       `json:"exponent"`
}

func adaptiveSchema() schema.Block {
	return schema.Block{
		Doc: "Keeps as many events a second as the budget has room for, and chooses them so that totals per class are as true as they can be. " +
			"A class is a kind of event with a priority, of one container where that is busy or lasts, of all others together where not. " +
			"Critical events, and the first of each container, are kept before all others.",
		Attributes: []schema.Attribute{
			{Name: "budget", Type: schema.Number, Default: 0, Min: schema.Bound(0),
				Doc: "Events kept per second, over all. 0: what the daemon's own budget is. More than that it can't be."},
			{Name: "min_rate", Type: schema.Number, Default: 0, Min: schema.Bound(0), Max: schema.Bound(1),
				Doc: "The least share of any class that is planned for. Where the budget has no room for it, it is halved for all alike."},
			{Name: "interval", Type: schema.Duration, Default: 250 * time.Millisecond, Min: schema.Bound(250 * time.Millisecond), Max: schema.Bound(time.Minute),
				Doc: "How often a plan is made."},
			{Name: "exponent", Type: schema.Number, Default: 0.5, Min: schema.Bound(0), Max: schema.Bound(1),
				Doc: "What a class's load counts for: 1 keeps the same share of every class, 0 the same number."},
		},
	}
}
