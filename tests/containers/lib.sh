# shellcheck shell=bash
# For tests that move containers between hosts: source it after tests/lib.sh.
# See box for what runs in the hosts.

# box [-t SECONDS] HOST ARGUMENT...
box() {
	local limit=120 host

	if [ "$1" = -t ]; then
		limit=$2
		shift 2
	fi
	host=$1
	shift
	hostexec -t "$limit" "$host" "BOX_RUNTIME=$runtime BOX_RESTART=${restart:-no} \
		BOX_NETWORK=${network:-host} box $(printf '%q ' "$@")"
}

# listens HOST NAME: until the container does, on TCP port 18515. For one with a network of its
# own podman does so from the beginning.
listens() {
	local enter=""

	[ "${network:-host}" = host ] ||
		enter="nsenter -n -t \$(podman inspect -f '{{.State.Pid}}' $2)"
	hostexec -t 60 "$1" "until $enter ss -Hltn 'sport = :18515' | grep -q .; do sleep 0.1; done"
}

# prepare RUNTIME: checker, box and root file systems in h1, h2, h3.
prepare() {
	local dir host

	runtime=$1
	hostexec h1 "test -e /opt/migros/usr/lib/criu/rdma_plugin.so" ||
		skip "criu below /opt/migros has no RDMA plugin"
	dir=$(mktemp -d)
	"$TOP/scripts/in-chroot" -b "$TOP/tests/checker:/src" -d "$dir" \
		make -s -C /src BUILD=/work
	for host in h1 h2 h3; do
		hostcopy "$dir/checker" "$host:/usr/bin/checker"
		hostcopy "$TOP/tests/containers/box" "$host:/usr/bin/box"
		[ "$host" = h3 ] || box -t 300 "$host" setup checker
	done
	rm -r "$dir"
}

# received HOST: how many packets the RDMA devices have got so far.
received() {
	hostexec "$1" "cat /sys/class/infiniband/*/ports/1/hw_counters/rcvd_pkts |
		sort -n | tail -1"
}

# busy HOST: wait until there is traffic, or say that there is none.
busy() {
	local before i

	before=$(received "$1")
	for ((i = 0; i < 30; i++)); do
		sleep 0.5
		[ "$(received "$1")" -le $((before + 200)) ] || return 0
	done
	echo "no traffic at $1"
	return 1
}

# move NAME FROM TO [ADDRESS]: checkpoint, carry, restore; the address moves
# along if it is given.
move() {
	box -t 200 "$2" checkpoint "$1"
	[ -z "${4-}" ] || box "$2" leave "$4"
	box "$2" pack "$1" "/share/$1.tar"
	box "$3" unpack "$1" "/share/$1.tar"
	[ -z "${4-}" ] || box "$3" arrive "$4"
	box -t 200 "$3" restore "$1"
}

# ended NAME HOST: the container's command and the partner have ended well.
ended() {
	local server client=0

	server=$(box -t 200 "$2" wait "$1" 190)
	wait "$partner" || client=$?
	hostexec "$2" "cat /tmp/box/$1/out/log"
	echo "container: $server, partner: $client"
	[ "$server$client" = 00 ]
}

# perftest_moves PROGRAM [OPTION...]: its server moves from h1 to h2 in the
# middle of the traffic, with its address; its TCP connection moves too.
perftest_moves() {
	local command="$* -x 1 -u 20 -F" before

	box h1 run "$runtime-perftest" "$command -d rxe0"
	listens h1 "$runtime-perftest"
	hostexec -t 400 h3 "timeout 390 $command -d rxe0 $(address h1)" &
	partner=$!
	busy h1
	before=$(received h2)
	move "$runtime-perftest" h1 h2 "$(address h1)"
	# It may be at its end by now.
	ended "$runtime-perftest" h2
	[ "$(received h2)" -gt $((before + 200)) ] || fail "no traffic at h2"
}

# checker_moves: the checker's server moves from h1 to h2, and its address changes.
# It makes new objects there, and both ends account for each operation. (With its
# address: backforth.test.)
checker_moves() {
	checker_begins
	move "$runtime-checker" h1 h2
	busy h2
	hostexec h2 "echo moved >/tmp/box/$runtime-checker/out/control; sleep 5"
	checker_ends h2
}

# with_network: the checker is in a network of podman's, through which its TCP connection
# comes; both move along.
with_network() {
	local network=bridge

	checker_begins
	move "$runtime-checker" h1 h2 "$(address h1)"
	checker_ends h2
}

# checker_begins: its server in h1, with its partner in h3
checker_begins() {
	box h1 run "$runtime-checker" "checker --server --device rxe0 --control /out/control \
		--stall 300 --output /out/report"
	listens h1 "$runtime-checker"
	hostexec -t 400 h3 "timeout 390 checker --client $(address h1) --stall 300" &
	partner=$!
	busy h1
}

# checker_ends HOST: both ends account for each operation.
checker_ends() {
	busy "$1"
	hostexec "$1" "echo stop >/tmp/box/$runtime-checker/out/control"
	ended "$runtime-checker" "$1"
}

# left_running: twice, and then it moves
left_running() {
	checker_begins
	box -t 200 h1 checkpoint "$runtime-checker" leave
	busy h1
	box -t 200 h1 checkpoint "$runtime-checker" leave
	busy h1
	move "$runtime-checker" h1 h2
	checker_ends h2
}

# restored_twice: its images have been copied before they are used. The partner does not
# listen to the second one, whatever it sends.
restored_twice() {
	local name=$runtime-checker before
	local refused='cat /sys/class/infiniband/rxe0/ports/1/hw_counters/mig_refused'

	checker_begins
	move "$name" h1 h2
	busy h2
	before=$(hostexec h3 "$refused")
	box h1 unpack "$name" "/share/$name.tar"
	hostexec h1 "echo 1000 >/sys/module/rdma_rxe/parameters/mig_resume_limit_ms"
	box -t 200 h1 restore "$name"
	sleep 5
	hostexec h1 "pgrep -x checker >/dev/null
		echo 60000 >/sys/module/rdma_rxe/parameters/mig_resume_limit_ms"
	[ "$(hostexec h3 "$refused")" -gt "$before" ] || fail "nothing was refused"
	checker_ends h2
}

# obey HOST DIR WORD: the checker does what the word says.
obey() {
	hostexec -t 60 "$1" "echo $3 >$2/control
		until [ ! -e $2/control ]; do sleep 0.2; done" ||
		stuck "the checker in $1 does not obey"
}

# What is printed below may be caught.
stuck() { fail "$*" >&2; }

# count HOST DIR NAME...: numbers of the checker's last line of progress
count() {
	local line what found=()

	line=$(hostexec "$1" "grep ' completed=' $2/log | tail -n 1")
	shift 2
	for what; do
		[[ $line =~ \ $what=([0-9]+) ]] || stuck "no number of $what: $line"
		found+=("${BASH_REMATCH[1]}")
	done
	echo "${found[*]}"
}

# clean_up: whatever is left of a case.
clean_up() {
	local host

	# It was started in the subshell of the case.
	hostexec h3 "pkill -KILL -x 'checker|ib_.*_bw' || true"
	for host in h1 h2; do
		box "$host" clean "$runtime-perftest"
		box "$host" clean "$runtime-checker"
	done
	! hostexec h2 "ip -o address | grep -q ' $(address h1)/'" || {
		box h2 leave "$(address h1)"
		box h1 arrive "$(address h1)"
	}
}

number=0
# tap NAME COMMAND...: run a command and print its result.
tap() {
	local name=$1 status
	shift

	number=$((number + 1))
	# Not as a condition: that would switch set -e off in it.
	set +e
	(set -e; "$@")
	status=$?
	set -e
	if [ "$status" -eq 0 ]; then
		echo "ok $number - $name"
	else
		echo "not ok $number - $name"
	fi
	clean_up
}

# all_cases RUNTIME [seldom]: that, for what the other runtime does, too
all_cases() {
	prepare "$1"
	"${2:-tap}" "ib_send_bw, with TCP and address" \
		perftest_moves ib_send_bw -n 15000 -s 65536
	# What is in a container is of no importance to its runtime.
	seldom "ib_write_bw, with TCP and address" \
		perftest_moves ib_write_bw -n 15000 -s 65536
	[ "$1" != podman ] || tap "checker, in a network of podman's" with_network
	# No address tells which device of h2 it is.
	hostexec h2 "printf 'device rxe0 rx9\nnew-address yes\n' >/etc/criu/rdma.conf"
	tap "checker, to another address" checker_moves
	seldom "checker, left running, then to another address" left_running
	[ "$1" != runc ] || seldom "checker, from two copies of its images" restored_twice
	hostexec h2 "rm /etc/criu/rdma.conf"
}
