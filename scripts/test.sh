#!/bin/bash
# test.sh all|unit|race: the tests of all modules, every line that go test prints,
# and a summary. It ends with 1 when a test failed, or, in `all`, was left out: a
# test that did not run proved nothing.
#
# The plugins in examples are modules of their own, as a third party's are.
#
# Unit tests need no rights and nothing installed, and their results may come from
# Go's cache. Those that touch the machine (kernel, cgroups, container runtimes,
# virtual machines) run one package at a time and are never taken from the cache,
# which can't know what they looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:?usage: test.sh all|unit|race}

# Packages that touch the machine, below the module's path.
machine='^(core/kernel|core/rehearsal|core/resource|core/pluginhost|core/daemon|core/cmd/.*|plugins/(discoverer/.*|sampler/adaptive)|test/(authors|e2e|env|faults|goldens|harness|kernel|load|bench|sampling|sandbox|thirdparty).*)$'

if [ "$what" = all ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "make test loads programs into the kernel and starts container runtimes: run it as root. Without root there is make test-unit." >&2
		exit 1
	fi
	test/env/install.sh
fi
go=$(scripts/go.sh)
export PATH
PATH=$(dirname "$go"):$PATH

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
summary=()

# step NAME DIRECTORY COMMAND...: runs it, shows it, counts it.
step() {
	local name=$1 dir=$2 began=$SECONDS status=0
	shift 2
	echo "== $name: $*"
	(cd "$dir" && "$@") 2>&1 | tee "$log" || status=$?
	local passed wrong skipped
	local noun=tests
	passed=$(grep -c '^ *--- PASS' "$log" || true)
	if [ "$what" != all ]; then # go test names only the packages
		noun=packages
		passed=$(grep -c '^ok' "$log" || true)
	fi
	wrong=$(grep -c '^ *--- FAIL' "$log" || true)
	skipped=$(grep -c '^ *--- SKIP' "$log" || true)
	summary+=("$(printf '%-10s %5d %s passed, %d failed, %d left out, %d s' "$name" "$passed" "$noun" "$wrong" "$skipped" $((SECONDS - began)))")
	while IFS= read -r line; do summary+=("    $line"); done < <(grep -E '^ *--- (FAIL|SKIP)|^FAIL.*\[|^panic:|^FAIL	' "$log" || true)
	[ $status = 0 ] || failed=1
	if [ "$what" = all ] && [ "$skipped" -gt 0 ]; then failed=1; fi
}

module=$(go list -m)
# The suite of all container runtimes is a step of its own.
packages=$(go list ./... | sed "s|^$module/||" | grep -vx 'test/runtimes')
# test/arch looks at the whole repository, of which the cache knows nothing.
quiet=$(grep -vE "$machine|^test/arch\$" <<<"$packages" | sed 's|^|./|')
loud=$(grep -E "$machine" <<<"$packages" | sed 's|^|./|' || true)

# examples ARGUMENTS...: go test in each module of the examples.
examples() {
	local module
	for module in examples/plugins/*/go.mod; do
		module=$(dirname "$module")
		step "$(basename "$module")" "$module" go test "$@" -p 2 ./...
	done
}

case $what in
race)
	# shellcheck disable=SC2086 # a list of packages
	CGO_ENABLED=1 step race . go test -race -p 2 $quiet
	CGO_ENABLED=1 step "race sdk" sdk go test -race -p 2 ./...
	CGO_ENABLED=1 examples -race
	;;
unit)
	step rules . go test -count=1 ./test/arch
	# shellcheck disable=SC2086
	step unit . go test -p 2 $quiet
	step sdk sdk go test -p 2 ./...
	examples
	;;
all)
	make build
	# Takes minutes on a machine that never did it: not a part of any test's time.
	go run ./test/env/cmd/testenv servers
	step lint . scripts/lint.sh
	# shellcheck disable=SC2086
	step unit . go test -v -p 2 $quiet
	step sdk sdk go test -v -p 2 ./...
	examples -v
	# shellcheck disable=SC2086
	step machine . go test -v -count=1 -p 1 -timeout 40m $loud
	step runtimes . go test -v -count=1 -timeout 40m ./test/runtimes -args -rows all
	;;
*)
	echo "test.sh: $what is not all, unit or race" >&2
	exit 2
	;;
esac

echo
echo "== summary"
printf '%s\n' "${summary[@]}"
if [ $failed != 0 ]; then
	echo "FAIL in $SECONDS s"
	exit 1
fi
echo "PASS in $SECONDS s"
