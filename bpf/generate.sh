#!/bin/sh
# Compiles the probes for amd64 and arm64 with the pinned clang and writes the Go
# bindings. Installs clang and libbpf's headers where they are missing (Debian,
# Ubuntu).
set -eu
cd "$(dirname "$0")"
clang=clang-19
if ! command -v $clang >/dev/null || [ ! -e /usr/include/bpf/bpf_helpers.h ]; then
	apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $clang llvm-19 libbpf-dev
fi
for name in Process Network File Cgroup Account Simulate; do
	probe=$(echo $name | tr '[:upper:]' '[:lower:]')
	go tool bpf2go -cc $clang -strip llvm-strip-19 -go-package bpf \
		-target amd64,arm64 -no-global-types \
		-cflags "-O2 -g -mcpu=v3 -Wall -Werror" \
		-output-stem "$probe" "$name" "$probe.bpf.c"
done
{
	$clang --version | head -n 1 | sed 's/^/# /'
	sha256sum ./*.h ./*.bpf.c ./*_bpfel.o
} >objects.sum
