// Package sampling is what the author of a sampler implements: the kind of
// plugin that decides, from the load, which share of each class of events is
// kept. A sampler sees reports, never events.
package sampling

import (
	"context"
	"time"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Sampler answers reports with policies. Its life:
//
//  1. It is built by New, which waits for nothing outside the process. A sampler
//     that implements Paced is then asked for its interval.
//  2. Start is called at the beginning of each stream. Its policy holds until the
//     first report; what was learned of earlier streams may be kept.
//  3. Plan is called for each report, one at a time. Its policy replaces the last
//     one; nil keeps the last one and renews its TTL.
//  4. While Plan runs the daemon goes on with the last policy until its TTL, and
//     merges the intervals that pass into the next report. A Plan of more than ten
//     seconds is taken for frozen, and the process is replaced.
//  5. What became of a policy (taken, clamped, refused and why) stands in the next
//     report's policies.
//  6. When ctx is done Start and Plan return, at once; half a second later the
//     process is ended.
//  7. After an error the stream begins again, at 2. No two calls overlap.
//
// Sequences of policies rise. A policy without default_probability, or with a rule
// without match or probability, is refused.
//
// What is not wanted at all a policy names in its filters: each drops what has one of the
// values of all its lists, as the block "filter" of a configuration does, whatever the
// budget. Filters hold with their policy, and end with its TTL or with the next policy
// that does not have them, so each policy has them all. They come after those of the
// operator, who may keep what a sampler would drop. What they drop is "filtered" in
// reports, and in seen. There may be 1,024, as far as there is room: up to 32 in all
// beside the operator's, and up to 4,096 that are by one value alone. A policy is refused
// as a whole when one of its filters is malformed or has no room; the one before goes on.
// To change filters takes the daemon some milliseconds: change them when the load does,
// not with each report. A daemon of an earlier version does not know of them.
type Sampler interface {
	Start(ctx context.Context) (*protov1.Policy, error)
	Plan(ctx context.Context, report *protov1.Report) (*protov1.Policy, error)
}

// Paced is what a Sampler implements too when it wants its reports at its own
// pace. Interval is asked for once, after the sampler is built; the daemon clamps
// it, and 0 leaves the pace to the daemon.
type Paced interface{ Interval() time.Duration }
