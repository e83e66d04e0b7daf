#!/bin/bash
# docs.sh PROGRAM PLUGINS DIR: writes a page for each plugin in the directory PLUGINS,
# and one that leads to them, to DIR, and removes what else is there.
set -euo pipefail
program=${1:?usage: docs.sh PROGRAM PLUGINS DIR} plugins=${2:?} dir=${3:?}
mkdir -p "$dir"
rm -f "$dir"/*.md
for manifest in "$plugins"/*/*.plugin.hcl; do
	name=$(basename "$manifest" .plugin.hcl)
	kind=$(basename "$(dirname "$manifest")")
	"$program" plugin describe "$kind/$name" --dir "$plugins" -o markdown >"$dir/$kind-$name.md"
done
"$program" plugin describe --dir "$plugins" -o markdown >"$dir/README.md"
