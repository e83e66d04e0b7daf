#!/bin/sh
# Runs the Go tool with the arguments given, one that is new enough for go.mod, and
# gets it where there is none:
#
#	scripts/go.sh build ./...
#
# It takes the `go` of the PATH, or that of /usr/local/go. Where neither is new
# enough it fetches Go's own toolchain through the module proxy, checked against the
# checksum database like any module, into the module cache. Any Go since 1.16 can do
# that, and where there is none at all the distribution's package is installed
# first. The toolchain does not replace anything on the machine: only what this
# script starts sees it.
#
# With no arguments it prints the path of the tool.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
fetched=1.26.8 # what is fetched; not older than what go.mod asks for
wanted=$(sed -n 's/^go \([0-9.]*\).*/\1/p' "$root/go.mod")

die() { echo "scripts/go.sh: $*" >&2; exit 1; }

# version GO prints its version. From the root directory: an old Go refuses to do
# anything at all in a module that it is too old for.
version() { (cd / && GOTOOLCHAIN=local GOFLAGS='' "$1" env GOVERSION 2>/dev/null | sed 's/^go//; s/[^0-9.].*//'); }

# new_enough GO
new_enough() {
	v=$(version "$1") && [ -n "$v" ] || return 1
	[ "$(printf '%s\n%s\n' "$wanted" "$v" | sort -V | head -n 1)" = "$wanted" ]
}

# fetch GO: prints the path of the toolchain's own go, fetched by an older one.
fetch() {
	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*) die "no Go toolchain is known for $(uname -m): install Go $wanted or later" ;;
	esac
	module=golang.org/toolchain@v0.0.1-go$fetched.linux-$arch
	dir=$(cd / && GOFLAGS='' "$1" env GOMODCACHE)/$module
	if [ ! -x "$dir/bin/go" ]; then
		echo "scripts/go.sh: Go $(version "$1") is too old for go.mod's $wanted; fetching $fetched" >&2
		# GOFLAGS may hold flags that this command does not have.
		(cd / && GOTOOLCHAIN=local GOFLAGS=-modcacherw GO111MODULE=on "$1" mod download -json "$module") >&2 ||
			die "could not fetch $module: set GOPROXY to a proxy that can be reached, or install Go $wanted or later"
		# A module's files are not executable. bin/go comes last: it marks the end.
		find "$dir/pkg/tool" -type f -exec chmod +x {} +
		chmod +x "$dir/bin/gofmt"
		chmod +x "$dir/bin/go"
	fi
	echo "$dir/bin/go"
}

find_go() {
	any=''
	for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go/bin/go; do
		[ -n "$go" ] && [ -x "$go" ] || continue
		if new_enough "$go"; then
			echo "$go"
			return
		fi
		[ -n "$any" ] || any=$go
	done
	if [ -z "$any" ]; then
		[ "$(id -u)" = 0 ] || die "there is no Go here: run this as root, which installs it, or install Go $wanted or later"
		command -v apt-get >/dev/null || die "there is neither Go nor apt-get here: install Go $wanted or later"
		echo "scripts/go.sh: no Go here; installing the distribution's" >&2
		packages=golang-go
		# Go asks the proxy over TLS, so it needs certificates.
		[ -s /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"
		DEBIAN_FRONTEND=noninteractive
		export DEBIAN_FRONTEND
		{
			apt-get -q -o DPkg::Lock::Timeout=300 update
			apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $packages
		} >&2 || die "could not install golang-go: install Go $wanted or later"
		any=$(command -v go) || die "golang-go is installed, but there is no go command"
		if new_enough "$any"; then
			echo "$any"
			return
		fi
	fi
	fetch "$any"
}

go=$(find_go)
if [ $# = 0 ]; then
	echo "$go"
	exit
fi
# What it runs, go tests among it, finds the same tool.
PATH=$(dirname "$go"):$PATH
export PATH
exec "$go" "$@"
