// Package bpf holds the kernel side: the C sources of the probes, the one header
// that lays out their records (abi.h), and the objects compiled from them for
// amd64 and arm64, so that building the daemon needs no clang.
//
// Only core/kernel imports it. `make generate` rebuilds the objects with the
// clang named in generate.sh; objects.sum tells which sources they were built
// from, and a test fails when the two drift apart.
package bpf
