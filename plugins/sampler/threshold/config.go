package main

import (
	"math"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/diag"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Level is a row of the table.
type Level struct {
	Below float64 `json:"below"` // events/s
	Rate  float64 `json:"rate"`
}

// Config is the checked configuration of the sampler threshold.
type Config struct {
	Levels       []Level       `json:"level"`
	AboveMaxRate float64       `json:"above_max_rate"`
	AboveMinRate float64       `json:"above_min_rate"`
	Smoothing    time.Duration `json:"smoothing"`
	Hysteresis   float64       `json:"hysteresis"`
}

// defaultLevels are used where a configuration has none.
func defaultLevels() []Level { return []Level{{1_000, 1}, {10_000, 0.8}, {50_000, 0.5}} }

func (c Config) withDefaults() Config {
	if len(c.Levels) == 0 {
		c.Levels = defaultLevels()
	}
	return c
}

func thresholdSchema() schema.Block {
	rate := func(name, doc string, def any) schema.Attribute {
		return schema.Attribute{Name: name, Type: schema.Number, Required: def == nil, Default: def, Min: schema.Bound(0), Max: schema.Bound(1), Doc: doc}
	}
	return schema.Block{
		Doc: "Keeps a share of the events that falls in steps with their number: by default all below 1,000 events a second, " +
			"80 % below 10,000, 50 % below 50,000, and above that from 20 % down to 1 %, which it reaches at ten times the last level. " +
			"Critical events are always kept.",
		Attributes: []schema.Attribute{
			rate("above_max_rate", "The share kept at the last level. From there it falls with the logarithm of the load.", 0.20),
			rate("above_min_rate", "The share kept at ten times the last level, and beyond.", 0.01),
			{Name: "smoothing", Type: schema.Duration, Default: time.Second, Min: schema.Bound(time.Duration(0)), Max: schema.Bound(5 * time.Minute),
				Doc: "The time constant of the moving average that the load is measured by. A load that has doubled counts at once. 0: no average."},
			{Name: "hysteresis", Type: schema.Number, Default: 0.1, Min: schema.Bound(0), Max: schema.Bound(0.9),
				Doc: "How far below a level's bound, as a share of it, the load must fall before that level's rate holds again. Going up, the bounds count as they stand."},
		},
		Blocks: []schema.NestedBlock{{
			Name: "level", MaxItems: 32,
			Block: schema.Block{
				Doc: "A row of the table, from the lowest load to the highest. Without any, the default table holds.",
				Attributes: []schema.Attribute{
					{Name: "below", Type: schema.Number, Required: true, Min: schema.Bound(1), Doc: "Events per second, filtered ones apart, below which the rate holds."},
					rate("rate", "The share of events kept.", nil),
				},
			},
		}},
	}
}

// validateThreshold checks that more load never means a larger share.
func validateThreshold(c Config) diag.Diagnostics {
	var ds diag.Diagnostics
	c = c.withDefaults()
	for i, l := range c.Levels {
		at := func(name string) diag.Path {
			return diag.Path{diag.Attr("level"), diag.Index(i), diag.Attr(name)}
		}
		if !(l.Below > 0) || math.IsInf(l.Below, 0) {
			ds = append(ds, diag.Errorf(at("below"), "not a load", "%v is not a number of events per second.", l.Below))
		}
		if !isRate(l.Rate) {
			ds = append(ds, diag.Errorf(at("rate"), "not a rate", "%v is not between 0 and 1.", l.Rate))
		}
		if i == 0 {
			continue
		}
		if before := c.Levels[i-1]; l.Below <= before.Below {
			ds = append(ds, diag.Errorf(at("below"), "levels must ascend", "%v is not above the %v of the level before; write the levels from the lowest load to the highest.", l.Below, before.Below))
		}
		if before := c.Levels[i-1]; l.Rate >= before.Rate {
			ds = append(ds, diag.Errorf(at("rate"), "rates must fall", "%v is not below the %v of the level before; more load cannot mean more, or as many, kept.", l.Rate, before.Rate))
		}
	}
	last := c.Levels[len(c.Levels)-1].Rate
	if c.AboveMaxRate > last {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("above_max_rate")}, "rates must fall", "%v is above the last level's rate, %v.", c.AboveMaxRate, last))
	}
	if c.AboveMinRate > c.AboveMaxRate {
		ds = append(ds, diag.Errorf(diag.Path{diag.Attr("above_min_rate")}, "rates must fall", "%v is above above_max_rate, %v.", c.AboveMinRate, c.AboveMaxRate))
	}
	return ds
}

func isRate(r float64) bool { return r >= 0 && r <= 1 }

// FixedConfig is the checked configuration of the sampler fixed.
type FixedConfig struct {
	Rate float64 `json:"rate"`
}

func fixedSchema() schema.Block {
	return schema.Block{
		Doc: "Keeps one share of all events, whatever the load. Critical events are always kept.",
		Attributes: []schema.Attribute{
			{Name: "rate", Type: schema.Number, Required: true, Min: schema.Bound(0), Max: schema.Bound(1), Doc: "The share of events kept."},
		},
	}
}

func validateFixed(c FixedConfig) diag.Diagnostics {
	if !isRate(c.Rate) {
		return diag.Diagnostics{diag.Errorf(diag.Path{diag.Attr("rate")}, "not a rate", "%v is not between 0 and 1.", c.Rate)}
	}
	return nil
}
