#!/bin/bash
# Format, vet and import rules, with the Go tool alone. Says all that is wrong, not
# only the first.
set -uo pipefail
cd "$(dirname "$0")/.."
go=$(scripts/go.sh) || exit 1
PATH=$(dirname "$go"):$PATH
status=0

unformatted=$(gofmt -l bpf core examples plugins sdk test) || status=1
if [ -n "$unformatted" ]; then
	printf 'gofmt: run gofmt -w on\n%s\n' "$unformatted"
	status=1
fi
for module in . sdk $(dirname examples/plugins/*/go.mod); do
	(cd "$module" && go vet ./...) || status=1
done
go test -count=1 -v ./test/arch || status=1
exit $status
