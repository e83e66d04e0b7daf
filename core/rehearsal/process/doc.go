// Package process has a sampler's own process take part in a rehearsal: it is started
// and confined as under the daemon, and asked over the daemon's own stream.
//
// It exists because the daemon asks when a ticker says so, and a rehearsal when its
// virtual clock does: here each question waits for its answer, in lock-step. It owns
// the processes that it starts, and leaves none behind. It never starts one again: a
// sampler that has died, hangs or breaks the contract stays away, as it would for the
// moments that a rehearsal is about.
package process
