// Package conformance puts a plugin's real process to the test, whatever language it
// is written in: `ebpf-tracer plugin test`.
//
// It exists so that an author hears of a mistake from a sentence, before an operator
// hears of it from the supervisor. It starts the plugin the way the daemon does,
// treats it well and ill, and reports check by check what was found and what to do.
// What a stream must look like is sdk/contract's to say.
//
// It owns the processes that it starts, and leaves none behind. It must never ask for
// more than the contract does, never judge what a plugin is good for, and never fail
// because the machine is slow where the daemon would have waited.
package conformance
