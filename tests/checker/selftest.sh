#!/bin/sh
# SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
# Proves the detectors: a clean run reports nothing, and each planted fault
# shows in its counter and in no other.  Runs on any host with an RDMA device,
# both ends on that host.
#
# usage: selftest.sh [checker options, such as --device NAME]
#	CHECKER=FILE	the program (./checker beside this script)
#	PLANTS="..."	some of "checker --plant list" instead of all
set -u

checker=${CHECKER:-$(dirname "$0")/checker}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0
count=0

if [ -z "$(ls /sys/class/infiniband 2>/dev/null)" ]; then
	echo "skip: no RDMA device"
	exit 4
fi

run() {
	rm -f "$tmp/log"
	timeout 120 "$checker" --loopback --log "$tmp/log" "$@" \
		>"$tmp/out" 2>"$tmp/client"
}

# counter NAME: own and peer's value together, from the last line
counter() {
	tail -n 1 "$tmp/out" | grep -o "\"$1\":[0-9]*" | cut -d: -f2 |
		awk '{ s += $1 } END { print NR ? s : "none" }'
}

verdict() {
	count=$((count + 1))
	if [ -z "$2" ]; then
		echo "ok $count - $1"
	else
		echo "not ok $count - $1: $2"
		sed 's/^/# /' "$tmp/log"
		bad=$((bad + 1))
	fi
}

clean() {
	name=$1
	shift
	run "$@"
	rc=$?
	why=
	[ $rc -eq 0 ] || why="exit status $rc"
	for c in lost duplicated reordered corrupted errors; do
		n=$(counter $c)
		[ "$n" = 0 ] || why="$why $c=$n"
	done
	verdict "clean, $name" "$why"
}

planted() {
	plant=$1
	expect=$2
	shift 2
	run --qps 2 --ops 150 --stall 6 --plant "$plant" "$@"
	rc=$?
	why=
	[ $rc -eq 1 ] || why="exit status $rc"
	grep -q "planted $plant" "$tmp/log" || why="$why not planted"
	for c in lost duplicated reordered corrupted errors; do
		n=$(counter $c)
		if [ $c = "$expect" ]; then
			case $n in 0 | none) why="$why $c=$n" ;; esac
		else
			[ "$n" = 0 ] || why="$why $c=$n"
		fi
	done
	verdict "$plant shows as $expect" "$why"
}

# Stock rdma_rxe breaks retried FLUSH, ATOMIC_WRITE and binds (see README).
retry_safe=send,send_imm,send_inv,write,write_imm,write_mw,read,cmp_swp,fetch_add

if [ -z "${PLANTS:-}" ]; then
	clean "all types" --ops 200 "$@"
	clean "another seed, events" --ops 200 --seed 7 --events "$@"
	clean "shared receive queues" --ops 200 --srq all --shared "$@"
	clean "no shared receive queue, no inline" --ops 200 --srq none \
		--inline 0 "$@"
	clean "RNR waits" --ops 100 --rnr --lone-bind --types $retry_safe "$@"
	clean "RNR waits, events" --ops 100 --rnr --events --qps 2 \
		--lone-bind --types $retry_safe "$@"
	clean "long messages, small MTU" --ops 60 --qps 2 --max-msg 65536 \
		--mtu 1024 "$@"
fi

"$checker" --plant list >"$tmp/plants"
while read -r plant expect; do
	case " ${PLANTS:-$plant} " in
	*" $plant "*) planted "$plant" "$expect" "$@" </dev/null ;;
	esac
done <"$tmp/plants"

echo "1..$count"
[ $bad -eq 0 ]
