#!/bin/bash
# vm.sh boots a Debian cloud kernel under qemu's software emulation (no /dev/kvm
# needed), runs one static program in it as root, prints what it prints and exits with
# its status. It is where the BPF objects meet the kernels, and the processor, that the
# test machine does not run.
#
#   vm.sh [-a ARCHITECTURE] [-t SECONDS] [-f DIR] [-e NAME=VALUE]... [-l FILE] [-m MIB] [-s CPUS] [-k PARAMETERS] [-c] KERNEL PROGRAM [ARG...]
#   vm.sh [-a ARCHITECTURE] -d KERNEL    only fetch the kernel; print its version
#
# KERNEL   a series, "6.1" or "6.12": the newest cloud kernel of it that is cached
#          already, else the newest that Debian has. Or a version in full, as in
#          the package's name: "6.1.0-47-cloud-amd64".
# PROGRAM  a static executable (CGO_ENABLED=0). In the guest it is /test/NAME and
#          /test, a RAM disk, is its working directory.
#   -a     amd64 (the default) or arm64, of kernel and program
#   -t     seconds until the guest is ended (default 180)
#   -f     a directory whose contents are put into /test too
#   -e     put into the program's environment; may be given again
#   -l     keep the kernel's own console output in FILE
#   -m -s  memory in MiB (default 1024) and CPUs (default 2) of the guest
#   -k     more parameters of the kernel, such as preempt=full
#   -c     its clock counts instructions, one a nanosecond, of a single CPU
#
# Kernels are kept in ${EBPF_TRACER_VM_CACHE:-${XDG_CACHE_HOME:-~/.cache}/ebpf-tracer/vm};
# nothing else is written but a temporary directory in there. Root is not needed.
# On a machine whose own package sources are not Debian's, name a Debian mirror in
# EBPF_TRACER_VM_MIRROR and install debian-archive-keyring.
#
# Exit status: the program's own. 124: the time was up. 125: the guest died, or never
# started; its console is on standard error. 126: wrong use, or no such kernel.
set -euo pipefail

die() { echo "vm.sh: $*" >&2; exit 126; }
usage() { sed -n 's/^#   vm.sh/usage: vm.sh/p' "$0" >&2; exit 126; }

arch=amd64 limit=180 files='' console='' mem=1024 cpus=2 parameters='' clock=(-accel tcg,thread=multi) fetch_only='' env=()
while getopts a:t:f:e:l:m:s:k:cd opt; do
	case $opt in
	a) arch=$OPTARG ;; t) limit=$OPTARG ;; f) files=$OPTARG ;; e) env+=("$OPTARG") ;; l) console=$OPTARG ;;
	m) mem=$OPTARG ;; s) cpus=$OPTARG ;; k) parameters=$OPTARG ;;
	c) cpus=1 clock=(-accel tcg,thread=single -icount shift=0,sleep=off) ;; d) fetch_only=1 ;; *) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || usage
want=$1; shift
case $arch in
amd64) emulator=qemu-system-x86_64 ;;
arm64) emulator=qemu-system-aarch64 ;;
*) die "$arch is neither amd64 nor arm64" ;;
esac
case $want in *-"$arch") ;; *) want="$want.*-cloud-$arch" ;; esac
if [ -z "$fetch_only" ]; then
	[ $# -ge 1 ] || usage
	program=$1; shift
	[ -f "$program" ] && [ -x "$program" ] || die "$program is not an executable file"
	[ -z "$files" ] || [ -d "$files" ] || die "$files is not a directory"
fi
for tool in "$emulator" cpio /bin/busybox apt-get dpkg-deb; do
	type -P "$tool" >/dev/null || die "$tool is missing: run test/env/install.sh"
done

cache=${EBPF_TRACER_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ebpf-tracer/vm}
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/tmp.XXXXXX")
qemu=''
cleanup() { # ends this run's own qemu and no other
	if [ -n "$qemu" ]; then
		kill "$qemu" 2>/dev/null || true
		wait "$qemu" 2>/dev/null || true
	fi
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# --- the kernel -------------------------------------------------------------

newest() { # the newest of the versions on stdin that are what is wanted
	local v
	while read -r v; do
		# shellcheck disable=SC2053 # $want is a pattern
		if [[ $v == $want ]]; then echo "$v"; fi
	done | sort -V | tail -n 1
}

offered() { # the newest that apt has. Only signed kernels end in the architecture.
	apt-cache pkgnames linux-image- | sed -n "s/^linux-image-\\([0-9].*-$arch\\)\$/\\1/p" | newest
}

fetch() { # fetch VERSION into the cache, complete or not at all
	local version=$1
	mkdir "$tmp/deb"
	(cd "$tmp/deb" && apt-get -q download -o APT::Sandbox::User=root "linux-image-$version") >&2 || {
		rm -rf "$tmp/deb"
		return 1
	}
	dpkg-deb --fsys-tarfile "$tmp"/deb/*.deb | tar -xO "./boot/vmlinuz-$version" >"$tmp/vmlinuz"
	mv "$tmp/vmlinuz" "$cache/vmlinuz-$version"
	rm -rf "$tmp/deb"
}

# private_apt makes apt read one Debian suite, the one that has the series, with
# lists and sources of its own in the cache: the machine's are not touched.
private_apt() {
	local suite key mirrors
	case $want in
	5.10.*) suite=bullseye ;; 6.1.*) suite=bookworm ;; 6.12.*) suite=trixie ;;
	*) die "no Debian suite is known for $want" ;;
	esac
	key=$(find /usr/share/keyrings -name 'debian-archive-keyring.[gp]*' 2>/dev/null | sort | head -n 1)
	[ -n "$key" ] || die "debian-archive-keyring is not installed"
	mirrors=${EBPF_TRACER_VM_MIRROR:-$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian$' | sort -u)}
	[ -n "$mirrors" ] || die "no Debian mirror among apt's sources: name one in EBPF_TRACER_VM_MIRROR"
	local dir=$cache/apt-$suite-$arch m
	mkdir -p "$dir"/{state/lists/partial,archives/partial,parts}
	for m in $mirrors; do echo "deb [signed-by=$key arch=$arch] $m $suite main"; done >"$dir/sources.list"
	cat >"$dir/apt.conf" <<-CONF
		Dir::State "$dir/state";
		Dir::State::status "/dev/null";
		Dir::Cache "$dir";
		Dir::Etc::sourcelist "$dir/sources.list";
		Dir::Etc::sourceparts "$dir/parts";
		APT::Architecture "$arch";
		APT::Architectures "$arch";
		APT::Sandbox::User "root";
		Acquire::Languages "none";
	CONF
	export APT_CONFIG=$dir/apt.conf
	apt-get -q update >&2 || die "could not read the package lists of Debian $suite"
}

# find_kernel sets version, fetching it first if it is not cached: from the machine's
# own sources, then from those with fresh lists, then from the suite that has it.
find_kernel() {
	version=$(find "$cache" -maxdepth 1 -name 'vmlinuz-*' -printf '%f\n' | sed 's/^vmlinuz-//' | newest)
	[ -z "$version" ] || return 0
	local step steps=(true refresh private_apt)
	[ "$arch" = amd64 ] || steps=(private_apt) # the machine's own sources need not have it
	for step in "${steps[@]}"; do
		$step || continue
		version=$(offered)
		if [ -n "$version" ] && fetch "$version"; then return 0; fi
	done
	die "no linux-image-$want could be had from apt"
}
refresh() { [ "$(id -u)" = 0 ] && apt-get -q -o DPkg::Lock::Timeout=300 update >&2; }

# find_busybox sets busybox, a static one of the architecture.
find_busybox() {
	busybox=/bin/busybox
	[ "$arch" != amd64 ] || return 0
	busybox=$cache/busybox-$arch
	[ ! -x "$busybox" ] || return 0
	[ -n "${APT_CONFIG:-}" ] || private_apt
	mkdir "$tmp/deb"
	(cd "$tmp/deb" && apt-get -q download -o APT::Sandbox::User=root busybox-static) >&2 || die "no busybox for $arch could be had from apt"
	dpkg-deb --fsys-tarfile "$tmp"/deb/*.deb | tar -xO --wildcards './*bin/busybox' >"$tmp/busybox"
	chmod +x "$tmp/busybox"
	mv "$tmp/busybox" "$busybox"
	rm -rf "$tmp/deb"
}

find_kernel
find_busybox
if [ -n "$fetch_only" ]; then
	echo "$version"
	exit 0
fi

# --- the guest's root -------------------------------------------------------

root=$tmp/root
mkdir -p "$root"/{bin,dev,etc,proc,root,run,sys,test,tmp}
cp "$busybox" "$root/bin/busybox"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
[ -z "$files" ] || cp -r "$files/." "$root/test/"
name=$(basename "$program")
cp "$program" "$root/test/$name"

quoted() { # each argument in single quotes, which any shell reads alike
	local a
	for a; do printf " '%s'" "${a//\'/\'\\\'\'}"; done
}
{
	for e in "${env[@]}"; do echo "export$(quoted "$e")"; done
	echo "exec$(quoted "/test/$name" "$@")"
} >"$root/run.sh"

# Three serial lines: the kernel's console, the program's output, its exit status,
# so that none has to be told from another; which they are stands in the kernel's
# parameters, which are init's environment. All controllers are left to cgroup v2.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
for c in $(cat /sys/fs/cgroup/cgroup.controllers); do
	echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control
done
hostname vm
ip link set lo up
stty -F "/dev/$output" raw -echo
stty -F "/dev/$status" raw -echo
cd /test
setsid sh /run.sh </dev/null >"/dev/$output" 2>&1
echo "status $?" >"/dev/$status"
sync
poweroff -f
INIT
chmod +x "$root/init"
# Not compressed: the emulated CPU reads faster than it unpacks.
(cd "$root" && find . -print0 | cpio --null -o -H newc --quiet) >"$tmp/initrd"

# --- run --------------------------------------------------------------------

# A CPU without AVX: Go's runtime takes AVX2 where it is there, and emulated it is
# slow. rdrand fills the random pool at once. A panic reboots, and -no-reboot ends
# qemu on that.
append="quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr random.trust_cpu=on cgroup_no_v1=all"
case $arch in
amd64)
	machine=(-machine q35 -cpu Nehalem,+rdrand
		-serial "file:$tmp/console" -serial "file:$tmp/output" -serial "file:$tmp/status")
	append+=" tsc=reliable console=ttyS0 output=ttyS1 status=ttyS2"
	;;
arm64) # whose machine has one serial line of its own
	machine=(-machine virt -cpu cortex-a72 -serial "file:$tmp/console"
		-chardev "file,id=output,path=$tmp/output" -chardev "file,id=status,path=$tmp/status"
		-device pci-serial-2x,chardev1=output,chardev2=status)
	append+=" console=ttyAMA0 output=ttyS0 status=ttyS1"
	;;
esac
append+=" $parameters"
touch "$tmp/console" "$tmp/output" "$tmp/status"
timeout --foreground "$limit" "$emulator" \
	-nodefaults -no-user-config -display none -no-reboot -net none \
	"${machine[@]}" "${clock[@]}" -smp "$cpus" -m "$mem" \
	-kernel "$cache/vmlinuz-$version" -initrd "$tmp/initrd" -append "$append" \
	</dev/null >"$tmp/qemu" 2>&1 &
qemu=$!
# The output is shown as it comes; tail ends with qemu.
tail -n +1 -s 0.1 -f --pid="$qemu" "$tmp/output" &
shown=$!
ended=0
wait "$qemu" || ended=$?
qemu=''
wait "$shown" || true
[ -z "$console" ] || cp "$tmp/console" "$console"

status=$(sed -n 's/^status \([0-9]*\).*/\1/p' "$tmp/status")
[ -z "$status" ] || exit "$status"
{
	echo "vm.sh: $version ended without an exit status (qemu's is $ended); its console:"
	cat "$tmp/qemu"
	tail -n 60 "$tmp/console" | tr -d '\r'
} >&2
[ "$ended" != 124 ] || exit 124
exit 125
