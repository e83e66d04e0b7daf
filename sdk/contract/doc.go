// Package contract is the contract between the daemon and its plugins as code
// that judges: what a plugin says of itself, and what comes out of its streams.
//
// It exists so that the in-memory harness, the suites in Go and the test of real
// processes in any language hold plugins against one and the same set of rules. A
// finding is a sentence that says what is wrong and what would be right.
//
// It owns nothing but the state of the stream it watches. It must never start
// anything, do I/O, or depend on how a plugin is run.
package contract
