// Package soak runs the tracer for as long as it is told to, on a machine that has no
// idle moment, and says what became of it.
//
// Why it exists: a plugin that is killed because the host was busy, memory that grows by
// a page a minute, a ledger that is off by one in a hundred million: none of it shows in
// the seconds that a test has. The test here does in seconds, as a part of all tests,
// what `make soak` does for half an hour.
//
// It must never judge a speed: only counts, and whether anything was killed that had
// done nothing wrong.
package soak
