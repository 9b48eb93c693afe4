# shellcheck shell=bash
# The partner in h3 has a driver that knows nothing of migrations. Source it after
# tests/containers/lib.sh. With the address moving along, its own retries and the RNR NAKs
# of the old host (CAP-2) hold it.

# strange: that of h3 is one
strange() {
	[ "$(hostexec h3 "modinfo -F parm rdma_rxe | grep -c mig_ || true")" = 0 ] ||
		fail "h3 has our driver"
	echo "h3: $(hostexec h3 "uname -r; modinfo -n rdma_rxe" | xargs)"
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
