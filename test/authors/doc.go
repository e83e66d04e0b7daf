// Package authors tests what the author of a plugin goes through: a module from
// `ebpf-tracer plugin new`, its own tests, `ebpf-tracer plugin test`, and the daemon
// that runs it; and whether the test of plugins finds what is wrong with one.
package authors
