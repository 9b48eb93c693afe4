# shellcheck shell=bash
# For tests that move processes between hosts: source it after tests/lib.sh.

# Our criu, with its plugin and libibverbs. CRIU_LIBS_DIR is where it looks for
# plugins.
criu() {
	local host=$1
	shift
	hostexec -t 120 "$host" "CRIU_LIBS_DIR=/opt/migros/usr/lib/criu \
		/opt/migros/bin/criu $*"
}

# Without the plugin nothing here can work.
need_plugin() {
	hostexec h1 "test -e /opt/migros/usr/lib/criu/rdma_plugin.so" ||
		skip "criu below /opt/migros has no RDMA plugin"
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
	hostexec "$1" "cat /sys/class/infiniband/rx*/ports/1/hw_counters/sent_pkts |
		sort -n | tail -1"
}

# dump HOST NAME [OPTION...]
dump() {
	local host=$1 name=$2
	shift 2

	hostexec "$host" "rm -rf /tmp/$name/images; mkdir /tmp/$name/images"
	criu "$host" dump -t "\$(cat /tmp/$name/pid)" -D "/tmp/$name/images" \
		-o dump.log -v4 --tcp-established "$@" || {
		hostexec "$host" "grep -E 'Error|Warn|rdma' /tmp/$name/images/dump.log |
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
		hostexec "$host" "grep -E 'Error|Warn|rdma' \
			/tmp/$name/images/restore.log | tail -40; dmesg | tail -20" || true
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
