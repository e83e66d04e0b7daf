// Package wire is what a plugin and the daemon must agree on besides the
// protobuf messages: the handshake, the largest message, how strings that are
// not UTF-8 are sent, and how schemas and diagnostics are written as messages.
//
// Both ends import it; plugin authors do not need it. It holds no state, starts
// nothing and does no I/O.
package wire
