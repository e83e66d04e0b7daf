// Command ebpf-tracer is the daemon and its command line: it traces a Linux host
// and tells which container every kernel event belongs to.
//
// It reads the arguments and prints the answers; the daemon itself is package
// daemon, and what a running one knows comes through package client. It holds no
// logic of tracing.
package main

import (
	"context"
	"os"

	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost/sandbox"
)

func main() {
	if sandbox.Called() {
		sandbox.Main() // becomes a plugin
	}
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
