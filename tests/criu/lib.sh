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

# paced HOST MS: what its RDMA device sends is on the way for so long, so that
# a program does not end sooner on a fast machine. TCP is not held up.
paced() {
	hostexec "$1" "modprobe -a sch_prio sch_netem cls_u32
		$unpace
		tc qdisc add dev eth0 root handle 1: prio bands 2 \
			priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0
		tc qdisc add dev eth0 parent 1:2 netem delay $2ms limit 100000
		tc filter add dev eth0 parent 1: protocol ip u32 \
			match ip dport 4791 0xffff flowid 1:2"
}

unpace="! tc qdisc show dev eth0 root | grep -q prio || tc qdisc del dev eth0 root"

# reached HOST NAME PACKETS: wait until the device has sent that many, while
# the program runs.
reached() {
	hostexec "$1" "end=\$((\$(date +%s) + 60))
		while [ \$(date +%s) -lt \$end ]; do
			[ ! -s /tmp/$2/status ] ||
				{ echo '$2 has ended before it was moved'; exit 1; }
			n=\$(cat /sys/class/infiniband/*/ports/1/hw_counters/sent_pkts |
				sort -n | tail -1)
			[ \$n -lt $3 ] || exit 0
			sleep 0.3
		done
		echo \"$1 has sent \$n packets, waited for $3\"; exit 1"
}

# pair END PORT COMMAND: app in h1 and peer in h3, the two ends of a program
# whose client is told the address of its server; app is the END.
pair() {
	local end=$1 port=$2 command=$3

	if [ "$end" = server ]; then
		start h1 app "$command"
		wait_port h1 "$port"
		start h3 peer "$command $(address h1)"
	else
		start h3 peer "$command"
		wait_port h3 "$port"
		start h1 app "$command $(address h3)"
	fi
}

# prepare_stopped: what stopped needs in h1.
prepare_stopped() {
	hostcopy "$TOP/tests/criu/at-stop" h1:/usr/bin/at-stop
	hostcopy "$TOP/criu/migros" h1:/usr/lib
}

# stopped: what app and peer had done at the stop; see at-stop.
stopped() {
	hostexec h3 "rdma -j res show qp >/share/partner"
	hostexec h1 "at-stop /tmp/app/images /share/partner"
}

# over_there: app, which is dumped, goes on in h2, with its address.
over_there() {
	# Nothing is on the way any more.
	hostexec h3 "$unpace"
	move_address "$(address h1)" h1 h2
	carry h1 h2 app
	# UD and UC do not repeat what goes to the old place.
	hostexec -t 60 h2 "until ping -q -c 1 -W 1 -I $(address h1) $(address h3) \
		>/dev/null; do :; done"
	restore h2 app
}

# both_end HOST: app in HOST and peer end well, or all is said about them.
both_end() {
	local app peer

	app=$(status "$1" app 300) || app="not known"
	peer=$(status h3 peer 60) || peer="not known"
	echo "exit status: app $app, peer $peer"
	[ "$app$peer" = 00 ] || { said "$1"; return 1; }
}

# said HOST: what app in HOST and peer have printed.
said() {
	echo "app:"
	output "$1" app
	hostexec "$1" "rdma res show qp"
	echo "peer:"
	output h3 peer
	hostexec h3 "rdma res show qp; cd /sys/class/infiniband/rxe0/ports/1/hw_counters
		grep . *"
}

# home: app and peer are killed, the address is back in h1.
home() {
	local host kill='[ ! -e $name/pid ] || pkill -KILL -s $(cat $name/pid) || true'

	hostexec h3 "name=/tmp/peer; $kill; $unpace"
	for host in h2 h1; do
		# The rules are those by which criu locks a TCP connection.
		hostexec "$host" "name=/tmp/app; $kill; nft flush ruleset
			ip -o address | grep -q ' $(address h1)/'" ||
			[ "$host" = h2 ] || move_address "$(address h1)" h2 h1
	done
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

# goes_on HOST NAME: loop still makes progress, within 3 s, or is said not to.
goes_on() {
	hostexec -t 60 "$1" "
		sent() { cat /sys/class/infiniband/*/ports/1/hw_counters/sent_pkts | sort -n | tail -1; }
		before=\$(sent) end=\$((SECONDS + 3))
		while [ \$SECONDS -le \$end ]; do
			[ \$(sent) -le \$((before + 20)) ] || exit 0
			sleep 0.1
		done
		exit 1" || { echo "$2 in $1 is stuck"; return 1; }
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
