// Package api serves the daemon's local API: protov1.Tracer over gRPC on a unix
// socket.
//
// It is how the CLI, package sdk/client and other tools on the host ask a running
// daemon. It owns the socket and the connections, and no data: what it answers it
// reads from a Source at the time of the question, to whom it passes a reload on
// too. It must never answer a peer whose credentials, as the kernel gives them, are
// not root's or the daemon's own, never let the value of an environment variable
// out, and never let a slow reader hold up the daemon.
package api
