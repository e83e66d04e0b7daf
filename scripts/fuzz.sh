#!/bin/bash
# fuzz.sh DURATION: every fuzz test of both modules, one after another.
set -euo pipefail
cd "$(dirname "$0")/.."
duration=${1:?usage: fuzz.sh DURATION, for example 30s}
go=$(scripts/go.sh)
PATH=$(dirname "$go"):$PATH
while read -r file; do
	module=. dir=$(dirname "$file")
	if [[ $dir == ./sdk/* ]]; then
		module=sdk dir=./${dir#./sdk/}
	fi
	while read -r name; do
		echo "== $file $name"
		(cd "$module" && go test -run '^$' -fuzz "^$name\$" -fuzztime "$duration" "$dir")
	done < <(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file")
done < <(grep -rl --include='*_test.go' '^func Fuzz' ./bpf ./core ./plugins ./sdk ./test | sort)
