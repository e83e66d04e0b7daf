// Package sampling is what the author of a sampler implements: the kind of
// plugin that decides, from the load, which share of each class of events is
// kept. A sampler sees reports, never events.
package sampling

import (
	"context"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Sampler answers reports with policies. Start is called once at the beginning
// of each stream; its policy holds until the first report. Plan is called for
// each report, one at a time. While it runs the daemon goes on with the last policy
// until its TTL, and merges the intervals that pass into the next report. A nil
// policy keeps the last one and renews its TTL.
type Sampler interface {
	Start(ctx context.Context) (*protov1.Policy, error)
	Plan(ctx context.Context, report *protov1.Report) (*protov1.Policy, error)
}

// Paced is what a Sampler implements too when it wants its reports at its own
// pace. Interval is asked for once, after the sampler is built; the daemon clamps
// it, and 0 leaves the pace to the daemon.
type Paced interface{ Interval() time.Duration }
