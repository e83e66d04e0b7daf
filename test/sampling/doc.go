// Package sampling holds tests that run samplers on the frozen loads of
// core/simulation and print how each did.
//
// It exists so that what is claimed of this tracer's sampling is held against the
// samplers that others use, on the same events and by the same figures:
//
//	go test -v ./test/sampling -args -peers
//
// runs every candidate on every scenario, which takes a minute or two; without the flag
// a part of one scenario shows that the comparison itself works. Samplers with a clock
// run in a testing/synctest bubble, on the scenario's time. The package owns no sampler
// that ships.
package sampling
