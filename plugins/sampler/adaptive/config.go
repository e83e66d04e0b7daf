package main

import (
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Config is the checked configuration of the samplers adaptive and predictive.
type Config struct {
	Budget   float64       `json:"budget"` // events/s; 0: the daemon's
	MinRate  float64       `json:"min_rate"`
	Interval time.Duration `json:"interval"`
	Exponent float64       `json:"exponent"`
	Bands    bool          `json:"bands"`
	Season   time.Duration `json:"season"` // of predictive; 0: none
}

const defaultInterval = 250 * time.Millisecond

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
			{Name: "interval", Type: schema.Duration, Default: defaultInterval, Min: schema.Bound(defaultInterval), Max: schema.Bound(time.Minute),
				Doc: "How often a plan is made."},
			{Name: "exponent", Type: schema.Number, Default: 0.5, Min: schema.Bound(0), Max: schema.Bound(1),
				Doc: "What a class's load counts for: 1 keeps the same share of every class, 0 the same number."},
			{Name: "bands", Type: schema.Bool, Default: false,
				Doc: "While the load is above the budget, keep 90 to 100 % of the errors, 50 to 80 % of the warnings, 10 to 50 % of the infos and 1 to 10 % of the debug events. " +
					"The lower bounds are met in this order, as far as the budget goes: what they leave is shared by weight, up to the upper ones, which may leave a part of the budget unused. " +
					"The first priority whose lower bound there is no room for shares what is left, but for a hundredth of the budget at most, which those below it share. " +
					"It is the price of many errors that all else is told less of: at ten times the budget, with two events of nine an error, " +
					"totals of a class in a second are off by 130 % on average, instead of 46 %. Critical events are always kept."},
		},
	}
}

func predictiveSchema() schema.Block {
	b := adaptiveSchema()
	b.Doc = "Keeps events as the sampler adaptive does, but plans for the load that it expects in the next interval, not for the one before. " +
		"It forecasts how many events of each kind and priority will come, by their level, a trend that dies away and, where one is set, the season. " +
		"As long as that is no better than to expect the last interval again it plans as adaptive does; the reason of the policy in force says how far off both have been, and whether the forecast is used. " +
		"It is for loads that come by the clock, of which it uses the budget from the first moment on. Totals were no truer with it than with adaptive in any load measured so far: the kernel meets a burst within milliseconds, foreseen or not."
	b.Attributes = append(b.Attributes, schema.Attribute{
		Name: "season", Type: schema.Duration, Default: time.Duration(0), Min: schema.Bound(time.Duration(0)), Max: schema.Bound(7 * 24 * time.Hour),
		Doc: "How long it takes until the load comes again, such as an hour where jobs start every hour. At least four intervals. It is learned once all of it has passed, and told apart into intervals, or into 4,096 parts where there would be more. 0: there is no season.",
	})
	return b
}

// leastSlots are the intervals that a season needs to be one.
const leastSlots = 4

func validatePredictive(c Config) diag.Diagnostics {
	if c.Season != 0 && c.Season < leastSlots*c.Interval {
		return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("season")}, "not a season",
			"%v is shorter than %d intervals of %v; write how long it takes until the load comes again, or leave it out.", c.Season, leastSlots, c.Interval)}
	}
	return nil
}
