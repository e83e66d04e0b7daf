#!/bin/sh
# Compiles the probes in a copy, with the pinned clang, and compares every byte with
# what is committed. The drift test of package bpf needs no clang and holds that the
# sums agree; this holds that the sums are those of a real build.
set -eu
cd "$(dirname "$0")/.."
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir "$copy/sdk"
cp -R bpf go.mod go.sum "$copy/"
cp sdk/go.mod sdk/go.sum "$copy/sdk/"
rm -f "$copy"/bpf/*_bpfel.o "$copy"/bpf/*_bpfel.go "$copy/bpf/objects.sum"
"$copy/bpf/generate.sh"
if ! diff -rq bpf "$copy/bpf"; then
	echo "drift: what is committed is not what the sources compile to: run make generate" >&2
	exit 1
fi
echo "drift: every object is what its source compiles to"
