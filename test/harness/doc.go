// Package harness runs the built daemon as a user would, for the tests of the whole.
//
// Why it exists: what the tracer promises is only believed of the binaries that are
// shipped, started with a configuration file, watched through what they write, and ended
// by a signal. Start does that and waits until the daemon traces; Stop ends it and holds
// its ledger against the lines that it wrote. The counts of what really happened come
// from the test, mostly from package load.
//
// A [Tracer] is owned by the test that started it, which may use it from one goroutine.
// It and its plugins are gone when the test ends, and so is its directory.
//
// The package must never reach into the daemon: no import of core, no shared memory,
// nothing that a user could not do as well.
package harness
