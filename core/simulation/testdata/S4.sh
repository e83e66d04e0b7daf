#!/bin/bash
# S4.sh TRACER FILE: records the trace of scenario S4 anew, with TRACER, a built
# ebpf-tracer, to FILE. As root, on a machine with little else to do:
#
#   apt-get install --no-install-recommends gcc libc6-dev redis-server redis-tools nginx-light apache2-utils
#   make build && core/simulation/testdata/S4.sh bin/ebpf-tracer core/simulation/testdata/S4.trace
#
# Another trace makes another scenario, with another name: the figures of S4 are compared
# with those of years ago.
#
# What runs, each in a cgroup of its own on the default hierarchy:
#
#   cc        gcc compiles and links programs of 1 to 4 files, one after another
#   redis     redis-server
#   bench     redis-benchmark, a connection for each request, with pauses
#   nginx     nginx with 200 static files, two workers
#   ab        ApacheBench, a connection for each request, in bursts; also of files that
#             are not there, and of a port at which nobody listens
#   short     a shell that runs small programs, of which some fail and a few are killed
#   job-N     ten times a second a job in a new cgroup: a shell, and two to four programs
set -euo pipefail
tracer=$(realpath "${1:?usage: S4.sh TRACER FILE}")
file=$(realpath -m "${2:?usage: S4.sh TRACER FILE}")
seconds=${SECONDS_RECORDED:-24}
for program in gcc redis-server redis-benchmark nginx ab; do
	command -v $program >/dev/null || { echo "$program is missing: see the head of this file" >&2; exit 1; }
done
unified=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
[ -n "$unified" ] || { echo "no cgroup2 is mounted" >&2; exit 1; }
base=$unified/ebpf-tracer-s4
work=$(mktemp -d)
redis_port=16399 http_port=18099

# of GROUP: ends the processes of a cgroup and takes it off.
end() {
	local group=$1
	for _ in $(seq 100); do
		# shellcheck disable=SC2046
		kill -KILL $(cat "$group/cgroup.procs" 2>/dev/null) 2>/dev/null || true
		rmdir "$group" 2>/dev/null && return
		[ -d "$group" ] || return 0
		sleep 0.05
	done
}
clean() {
	for group in "$base"/*/; do [ -d "$group" ] && end "${group%/}"; done
	[ ! -d "$base" ] || rmdir "$base"
	rm -rf "$work"
}
trap clean EXIT

# within GROUP COMMAND...: runs a command in a new cgroup, in the background.
within() {
	local group=$base/$1
	shift
	mkdir "$group"
	(echo 0 >"$group/cgroup.procs" && exec "$@") >/dev/null 2>&1 &
	disown
}

mkdir "$base"
mkdir "$work/www" "$work/cc" "$work/redis"
for i in $(seq 200); do head -c $((i * 97)) /dev/zero | tr '\0' x >"$work/www/$i.html"; done
for i in $(seq 12); do
	cat >"$work/cc/part$i.c" <<-END
	#include <stdio.h>
	#include <stdlib.h>
	#include <string.h>
	#include <errno.h>
	#include <pthread.h>
	#include <sys/socket.h>
	int part$i(int n) { char b[64]; snprintf(b, sizeof b, "%d", n * $i); return strlen(b) + errno; }
	END
done
echo 'int main(void) { return 0; }' >"$work/cc/main.c"
cat >"$work/nginx.conf" <<END
worker_processes 2;
daemon off;
pid $work/nginx.pid;
error_log /dev/null;
events { worker_connections 512; }
http { access_log off; client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3;
	uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
	server { listen 127.0.0.1:$http_port; root $work/www; } }
END
chmod 755 "$work" "$work/www"

cat >"$work/cc.sh" <<'END'
cd "$1/cc"
n=0
while :; do
	n=$((n + 1)) objects=
	for i in $(seq $((1 + n % 4))); do
		part=part$((1 + (n + i) % 12))
		gcc -O1 -c $part.c -o $part.o && objects="$objects $part.o"
	done
	gcc main.c $objects -o program && ./program
done
END
cat >"$work/bench.sh" <<'END'
while :; do
	redis-benchmark -p "$1" -k 0 -c 10 -n 600 -t set,get -q
	sleep 0.5
done
END
cat >"$work/ab.sh" <<'END'
n=0
while :; do
	n=$((n + 1))
	ab -q -n $((100 + n * 37 % 400)) -c 8 "http://127.0.0.1:$1/$((1 + n * 7 % 200)).html"
	[ $((n % 5)) != 0 ] || ab -q -n 20 -c 2 "http://127.0.0.1:$1/gone/$n.html"
	[ $((n % 9)) != 0 ] || ab -q -n 5 -c 1 "http://127.0.0.1:$(($1 + 1))/"
	sleep 0.15
done
END
cat >"$work/short.sh" <<'END'
n=0
while :; do
	n=$((n + 1))
	date
	cat /etc/hostname /proc/self/stat
	[ $((n % 3)) != 0 ] || grep -r nowhere /etc/apt
	[ $((n % 10)) != 0 ] || ls /nowhere
	[ $((n % 40)) != 0 ] || sh -c 'kill -SEGV $$'
	sleep 0.02
done
END
cat >"$work/job.sh" <<'END'
date
cat /etc/passwd
[ $(($1 % 3)) != 0 ] || sort /etc/services
[ $(($1 % 4)) != 0 ] || sed -n 1p /etc/hosts
[ $(($1 % 20)) != 0 ] || exit 3
END

within redis redis-server --port $redis_port --bind 127.0.0.1 --save '' --dir "$work/redis"
within nginx nginx -c "$work/nginx.conf" -e /dev/null
within cc nice bash "$work/cc.sh" "$work"
within bench bash "$work/bench.sh" $redis_port
within ab bash "$work/ab.sh" $http_port
within short bash "$work/short.sh"

"$tracer" record --duration "${seconds}s" --output "$file" &
recorder=$!
n=0
while kill -0 $recorder 2>/dev/null; do
	n=$((n + 1))
	within "job-$n" bash "$work/job.sh" $n
	sleep 0.1
	if [ $n -gt 10 ]; then rmdir "$base/job-$((n - 10))" 2>/dev/null || true; fi
done
wait $recorder
