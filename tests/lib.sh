# shellcheck shell=bash
# For tests written in bash: source "$TOP/tests/lib.sh". See tests/run for how
# tests are run, and scripts/testbed for the hosts h1, h2, ... they can use.

set -euo pipefail

skip() { echo "skip: $*"; exit 77; }
fail() { echo "$*"; exit 1; }

# hostexec [-t SECONDS] HOST COMMAND...: run a command in a host.
hostexec() { "$TOP/scripts/testbed" exec "$@"; }

# hostcopy SOURCE DESTINATION, one of them HOST:PATH.
hostcopy() { "$TOP/scripts/testbed" copy "$@"; }

# address HOST: its IPv4 address.
address() { echo "10.77.0.${1#h}"; }

# wait_port HOST PORT: until something listens on a TCP port there.
wait_port() {
	hostexec -t 60 "$1" "until ss -Hltn 'sport = :$2' | grep -q .; do sleep 0.1; done"
}

# perftest SERVER CLIENT PROGRAM [ARG...]: run a perftest program between two
# hosts and print what its client printed. -u 20: the default timeouts cause
# retransmissions at the speed of emulated machines.
perftest() {
	local server=$1 client=$2 program=$3 job
	shift 3

	hostexec -t 90 "$server" "timeout 80 $program -d rxe0 -x 1 -u 20 -F $*" \
		>/dev/null &
	job=$!
	wait_port "$server" 18515
	hostexec -t 90 "$client" \
		"timeout 80 $program -d rxe0 -x 1 -u 20 -F $* $(address "$server")" ||
		fail "$program $*: the client in $client failed"
	wait "$job" || fail "$program $*: the server in $server failed"
}

# seldom NAME COMMAND...: as the caller's tap, if all cases are wanted ("make containers")
seldom() {
	if [ "${CASES-}" = all ]; then
		tap "$@"
		return
	fi
	number=$((number + 1))
	echo "ok $number - $1 # SKIP make containers has it"
}
