#!/bin/sh
# runc-remap.sh gives every container a user namespace, as dockerd does with
# --userns-remap, which would need lines in the machine's /etc/subuid: user ids from 0 on
# are the host's from 100000 on, group ids those from 200000 on. @RUNTIME@ does the rest.
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
# The container's root is nobody here, and has to reach its files.
pass() {
	at=$1
	while case $at in @DIR@*) true ;; *) false ;; esac; do
		chmod o+x "$at"
		at=$(dirname "$at")
	done
}
config=$bundle/config.json
if [ -n "$creates" ] && [ -f "$config" ]; then
	# What dockerd wishes for groups and ports is not to be had with fewer of them.
	jq 'del(.linux.sysctl)
		| .linux.namespaces += [{type: "user"}]
		| .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
		| .linux.gidMappings = [{containerID: 0, hostID: 200000, size: 65536}]
	' "$config" >"$config.remapped"
	mv "$config.remapped" "$config"
	pass "$bundle"
	pass "$(jq -r .root.path "$config")"
fi
exec "@RUNTIME@" "$@"
