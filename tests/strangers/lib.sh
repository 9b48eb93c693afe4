# shellcheck shell=bash
# The partner in h3 has a driver that knows nothing of migrations. Source it after
# tests/lib.sh, and tests/containers/lib.sh for what moves containers. With the address moving
# along, its own retries and the RNR NAKs of the old host (CAP-2) hold it.

# strange HOST: its driver is such a one
strange() {
	[ "$(hostexec "$1" "modinfo -F parm rdma_rxe | grep -c mig_ || true")" = 0 ] ||
		fail "$1 has our driver"
	echo "$1: $(hostexec "$1" "uname -r; modinfo -n rdma_rxe" | xargs)"
}

# newer HOST: its kernel is not that of h1
newer() {
	[ "$(hostexec "$1" "uname -r")" != "$(hostexec h1 "uname -r")" ] ||
		fail "$1 has the kernel of h1"
}

# there_and_back [OPTION...]: the checker's server moves from h1 to h2 and home; both ends
# account for each operation.
there_and_back() {
	local name=runc-checker from=h1 to=h2

	box h1 run "$name" "checker --server --device rxe0 --control /out/control --stall 300 \
		--log /out/errors --output /out/report --retry-cnt 7 $*"
	wait_port h1 18515
	hostexec -t 600 h3 "timeout 590 checker --client $(address h1) --stall 300 \
		--log /tmp/errors --retry-cnt 7" &
	# shellcheck disable=SC2034 # ended waits for it
	partner=$!
	busy h1
	for _ in 1 2; do
		move "$name" "$from" "$to" "$(address h1)"
		busy "$to"
		read -r from to <<<"$to $from"
	done
	hostexec "$from" "echo stop >/tmp/box/$name/out/control"
	ended "$name" "$from" || { hostexec h3 "cat /tmp/errors"; return 1; }
}

# one_packet: there_and_back with what the stock driver does not retry wrongly without any
# migration, see tests/checker/README.md: SENDs and WRITEs of one packet, no windows
one_packet() {
	there_and_back --types send,send_imm,write,write_imm --min-msg 1 --max-msg 1024
}
