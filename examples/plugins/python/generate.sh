#!/bin/sh
# Regenerates *_pb2.py beside it from the contract, sdk/proto/v1. Needs Debian's protoc
# (protobuf-compiler): what a protoc writes is read by the Python package of its own
# release, python3-protobuf, and by later ones.
set -eu
cd "$(dirname "$0")"
here=$PWD
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd ../../..
protoc -I. --python_out="$out" sdk/proto/v1/plugin.proto sdk/proto/v1/discover.proto \
	sdk/proto/v1/mesh.proto sdk/proto/v1/sampling.proto
# A plugin's files lie side by side.
for file in "$out"/sdk/proto/v1/*_pb2.py; do
	sed 's/^from sdk\.proto\.v1 import/import/' "$file" >"$here/$(basename "$file")"
done
