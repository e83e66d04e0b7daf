package main

import (
	"strings"
	"testing"
	"time"
)

func TestWhatDoesNotBelongTogetherIsRefusedAtItsPlace(t *testing.T) {
	goal, weight, half, two := 100, 0.5, 2500*time.Millisecond, 2*time.Second
	for _, tt := range []struct {
		name   string
		config Config
		wrong  string // paths
	}{
		{"a throughput has a goal", Config{Strategy: "ema_throughput", GoalThroughput: &goal, Interval: time.Second, Weight: &weight}, ""},
		{"a sample rate has a goal", Config{Strategy: "avg_sample_rate", GoalSampleRate: &goal, Interval: time.Second}, ""},
		{"a window of two intervals", Config{Strategy: "windowed_throughput", GoalThroughput: &goal, Interval: time.Second, Lookback: &two}, ""},
		{"no goal at all", Config{Strategy: "total_throughput", Interval: time.Second}, "strategy"},
		{"the other goal", Config{Strategy: "ema_throughput", GoalSampleRate: &goal, Interval: time.Second}, "strategy goal_sample_rate"},
		{"a weight where nothing moves", Config{Strategy: "avg_sample_rate", GoalSampleRate: &goal, Interval: time.Second, Weight: &weight, BurstMultiple: &weight}, "weight burst_multiple"},
		{"a window without a windowed strategy", Config{Strategy: "total_throughput", GoalThroughput: &goal, Interval: time.Second, Lookback: &two}, "lookback"},
		{"a window that is no multiple", Config{Strategy: "windowed_throughput", GoalThroughput: &goal, Interval: two, Lookback: &half}, "lookback"},
		{"a window shorter than its interval", Config{Strategy: "windowed_throughput", GoalThroughput: &goal, Interval: 4 * time.Second, Lookback: &two}, "lookback"},
		{"an interval that is cut", Config{Strategy: "per_key_throughput", GoalThroughput: &goal, Interval: half}, "interval"},
		{"an unknown strategy", Config{Strategy: "best", Interval: time.Second}, "strategy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var paths []string
			for _, d := range validate(tt.config) {
				paths = append(paths, d.Path.String())
			}
			if got := strings.Join(paths, " "); got != tt.wrong {
				t.Errorf("mistakes at %q, want %q", got, tt.wrong)
			}
		})
	}
}
