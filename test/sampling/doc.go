// Package sampling holds tests that run samplers on the frozen loads of
// core/simulation and print how each did.
//
// It exists so that what is claimed of this tracer's sampling is held against the
// samplers that others use, on the same events and by the same figures, and that the
// bounds which are promised hold without a sampler, or with one that lies. Ours is the
// plugin adaptive, in its own process, with the decision of the real probes: it needs
// root. Its targets are tests like any others.
//
//	make bench-sampling
//
// runs every candidate on every scenario, each after a minute of its first phase, which
// is not scored, and 20 seeds of two; it takes some minutes. Samplers with a clock run in
// a testing/synctest bubble, on the scenario's time. The package owns no sampler that
// ships.
package sampling
