#!/bin/bash
# install.sh installs, from the distribution's own packages, what the tests need:
# real container runtimes, a static busybox to make images of, qemu, a C compiler
# for the load programs and for CRI-O, which is no package and is built from its Go
# module (servers.go), gRPC for the plugin in Python. Debian and Ubuntu, as root.
#
# It asks for commands, not for packages: a machine that has its dockerd from
# elsewhere keeps it, since the distribution's package would remove it. Run again,
# it finds everything there and does nothing. No daemon is left started.
set -euo pipefail

wanted=(
	# command                      package
	dockerd                        docker.io
	docker                         docker.io
	containerd                     containerd
	containerd-shim-runc-v2        containerd
	ctr                            containerd
	runc                           runc
	crun                           crun
	podman                         podman
	conmon                         conmon
	skopeo                         skopeo
	/usr/lib/cni/bridge            containernetworking-plugins
	/bin/busybox                   busybox-static
	iptables                       iptables
	nft                            nftables
	ip                             iproute2
	unshare                        util-linux
	jq                             jq
	gcc                            gcc
	/usr/include/stdlib.h          libc6-dev
	/usr/include/seccomp.h         libseccomp-dev
	pkg-config                     pkg-config
	qemu-system-x86_64             qemu-system-x86
	qemu-system-aarch64            qemu-system-arm
	cpio                           cpio
	xz                             xz-utils
	zstd                           zstd
	/usr/bin/python3               python3
	/usr/lib/python3/dist-packages/grpc/__init__.py            python3-grpcio
	/usr/lib/python3/dist-packages/google/protobuf/__init__.py python3-protobuf
)

have() { # have NAME: is the command, or the file, there?
	case $1 in
	/bin/busybox) # the dynamic busybox would not run in an image of its own
		[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 ;;
	/*) [ -e "$1" ] ;;
	*) PATH=/usr/sbin:/usr/bin:/sbin:/bin type -P "$1" >/dev/null ;;
	esac
}

missing() { # the packages of the commands that are not there, each once
	local i
	for ((i = 0; i < ${#wanted[@]}; i += 2)); do
		have "${wanted[i]}" || echo "${wanted[i + 1]}"
	done | sort -u
}

todo=$(missing)
[ -n "$todo" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "install.sh: run it as root; it has to install:" $todo >&2
	exit 1
fi
if ! type -P apt-get >/dev/null; then
	echo "install.sh: no apt-get on this machine; install by hand what provides:" $todo >&2
	exit 1
fi

# A package must not start its daemon: the tests start their own, elsewhere.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
apt update
# Later releases ship the docker command as a package of its own.
if [[ $todo == *docker.io* ]] && apt-cache show docker-cli >/dev/null 2>&1; then
	todo+=" docker-cli"
fi
apt install -y --no-install-recommends $todo

left=$(missing)
if [ -n "$left" ]; then
	echo "install.sh: installed, but what they should bring is still not there:" $left >&2
	exit 1
fi
