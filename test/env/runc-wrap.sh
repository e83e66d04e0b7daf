#!/bin/sh
# runc-wrap.sh stands in for runc where even root lacks CAP_SYS_RESOURCE, as on some
# virtual machines: there runc can't give that capability to a privileged container,
# lower an OOM score, or raise a limit. It takes these wishes out of the bundle's
# config.json and leaves the rest to runc.
set -eu
bundle=. previous='' creates=''
for arg; do
	case $previous in --bundle | -b) bundle=$arg ;; esac
	case $arg in
	--bundle=*) bundle=${arg#*=} ;;
	create | run | restore) creates=1 ;;
	esac
	previous=$arg
done
config=$bundle/config.json
if [ -n "$creates" ] && [ -f "$config" ]; then
	# dash's ulimit knows no -u: /proc does, in columns "Max processes SOFT HARD UNIT"
	limit() { sed -n "s/^$1  *[^ ]*  *\([^ ]*\) .*/\1/p" /proc/self/limits; }
	jq --arg nofile "$(limit 'Max open files')" --arg nproc "$(limit 'Max processes')" '
		def least($most): if $most == "unlimited" then . else [., ($most | tonumber)] | min end;
		def most: {RLIMIT_NOFILE: $nofile, RLIMIT_NPROC: $nproc}[.type] // "unlimited";
		(.process.capabilities | objects) |= map_values(map(select(. != "CAP_SYS_RESOURCE")))
		| (.process.oomScoreAdj | numbers) |= ([., 0] | max)
		| (.process.rlimits | arrays) |= map(most as $m | .hard |= least($m) | .soft |= least($m))
	' "$config" >"$config.wrapped"
	mv "$config.wrapped" "$config"
fi
exec runc "$@"
