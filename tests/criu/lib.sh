# shellcheck shell=bash
# For tests that move processes between hosts: source it after tests/lib.sh.

# Our criu, with its plugin and libibverbs.
criu() {
	local host=$1
	shift
	hostexec -t 120 "$host" "export CRIU_LIBS_DIR=/opt/migros/usr/lib/criu
		/opt/migros/bin/criu $*"
}

# Without the plugin nothing here can work. The first time criu runs, it spends
# long finding out what the kernel can do.
need_plugin() {
	local host

	hostexec h1 "test -e /opt/migros/usr/lib/criu/rdma_plugin.so" ||
		skip "criu below /opt/migros has no RDMA plugin"
	for host in h1 h2; do
		criu "$host" check >/dev/null 2>&1 || true
	done
}

# start HOST NAME COMMAND: run a command that can be moved: a session of its
# own, process ids that are free elsewhere, files that travel along. The
# session's first process is a shell, which stores the exit status.
start() {
	local host=$1 name=$2 command=$3

	hostexec "$host" "rm -rf /tmp/$name; mkdir /tmp/$name; cd /tmp/$name
		echo \$((20000 + RANDOM % 10000)) >/proc/sys/kernel/ns_last_pid
		setsid sh -c '$command; echo \$? >status' </dev/null >out 2>&1 &
		echo \$! >pid"
}

# status HOST NAME [SECONDS]: wait for the exit status and print it.
status() {
	hostexec -t "$((${3:-120} + 10))" "$1" "for i in \$(seq ${3:-120}); do
		[ ! -s /tmp/$2/status ] || break; sleep 1; done
		cat /tmp/$2/status 2>/dev/null || echo 'still running'"
}

output() { hostexec "$1" "cat /tmp/$2/out"; }

# progress HOST: how many packets the RDMA device has sent so far.
progress() {
	hostexec "$1" "cat /sys/class/infiniband/*/ports/1/hw_counters/sent_pkts |
		sort -n | tail -1"
}

# dump HOST NAME [OPTION...]
dump() {
	local host=$1 name=$2
	shift 2

	hostexec "$host" "rm -rf /tmp/$name/images; mkdir /tmp/$name/images"
	criu "$host" dump -t "\$(cat /tmp/$name/pid)" -D "/tmp/$name/images" \
		-o dump.log -v4 --tcp-established "$@" || {
		hostexec "$host" "grep -E 'Error|Warn|rdma_plugin:' /tmp/$name/images/dump.log |
			tail -40" || true
		return 1
	}
}

# restore HOST NAME [OPTION...]
restore() {
	local host=$1 name=$2
	shift 2

	criu "$host" restore -D "/tmp/$name/images" -o restore.log -v4 \
		--tcp-established --restore-detached "$@" || {
		hostexec "$host" "grep -E 'Error|Warn|rdma_plugin:' \
			/tmp/$name/images/restore.log | tail -40" || true
		return 1
	}
}

# carry FROM TO NAME: copy the images and the files of a process.
carry() {
	hostexec "$1" "rm -rf /share/carry-$3; cp -a /tmp/$3 /share/carry-$3"
	hostexec "$2" "rm -rf /tmp/$3; cp -a /share/carry-$3 /tmp/$3"
}

# move_address ADDRESS FROM TO: with an announcement, as switches and partners
# still know the old place.
move_address() {
	hostexec "$2" "ip address del $1/24 dev eth0"
	hostexec "$3" "ip address add $1/24 dev eth0 && python3 -c '
import socket, struct, sys
a = socket.inet_aton(\"$1\")
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((\"eth0\", 0))
m = s.getsockname()[4]
f = b\"\\xff\" * 6 + m + struct.pack(\"!HHHBBH\", 0x806, 1, 0x800, 6, 4, 1)
s.send(f + m + a + b\"\\0\" * 6 + a)'"
}

# build_loop HOST...: build loop.c into /usr/bin.
build_loop() {
	local dir host

	dir=$(mktemp -d)
	"$TOP/scripts/in-chroot" -b "$TOP/tests/criu:/src" -d "$dir" gcc -O2 -g -Wall \
		-Wextra -Wno-missing-field-initializers -o loop /src/loop.c -libverbs
	for host; do
		hostcopy "$dir/loop" "$host:/usr/bin/loop"
		hostexec "$host" "modprobe rdma_ucm; chmod 666 /dev/infiniband/*"
	done
	rm -r "$dir"
}

# finish HOST NAME: end loop, which checks itself.
finish() {
	local status

	hostexec "$1" "touch /tmp/$2/stop"
	status=$(status "$1" "$2" 60)
	output "$1" "$2"
	[ "$status" = 0 ] || { echo "exit status: $status"; return 1; }
}

# busy HOST NAME: loop still makes progress, or is said not to.
busy() {
	local before

	before=$(progress "$1")
	sleep 3
	[ "$(progress "$1")" -gt $((before + 20)) ] ||
		{ echo "$2 in $1 is stuck"; return 1; }
}

# says HOST NAME LOG TEXT: the log of criu has the text.
says() {
	hostexec "$1" "grep -q -- '$4' /tmp/$2/images/$3" ||
		{ echo "$3 does not say: $4"; return 1; }
}

# fails COMMAND...: it does. (After "!" the shell's -e has no effect.)
fails() {
	if "$@"; then
		echo "should have failed: $*"
		return 1
	fi
}

number=0
# tap NAME COMMAND...: run a command and print its result.
tap() {
	local name=$1
	shift

	number=$((number + 1))
	# Not as a condition: that would switch set -e off in it.
	set +e
	(set -e; "$@")
	local status=$?
	set -e
	if [ "$status" -eq 0 ]; then
		echo "ok $number - $name"
	else
		echo "not ok $number - $name"
	fi
}
