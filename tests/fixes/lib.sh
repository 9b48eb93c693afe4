# shellcheck shell=bash
# The cases of peer.py, each for one of our fixes to the driver. The driver
# under test runs in h1; h2 has none and plays the other end by hand.

# shellcheck source=tests/lib.sh
. "$TOP/tests/lib.sh"

# shellcheck disable=SC2034 # for those who source this
cases=(healthy short_packet ack_completes_atomic ack_completes_read
	ack_within_read bad_response replay_read_after_empty_write replay_empty_read
	replay_empty_read_after_write replay_read_zero_based replay_flush
	flush_without_resources retried_address retry_before_bind
	atomic_write_credit flush_credit acked_before_sent_again
	posted_in_sqd uc_after_loss empty_write_with_payload
	rnr_longer_than_timeout reset_after_send send_with_invalidate
	reconnected full_queue
	destroy_bound)

# prepare: what the hosts need before the first case.
prepare() {
	hostcopy "$TOP/tests/fixes/victim.py" h1:/tmp/victim.py
	hostcopy "$TOP/tests/fixes/peer.py" h2:/tmp/peer.py
	hostexec h1 "modprobe -a rdma_rxe ib_uverbs && { rdma link show rxe0/1 ||
		rdma link add rxe0 type rxe netdev eth0; }" >/dev/null 2>&1
}

# run_case NAME: its status is that of peer.py.
run_case() {
	local job status=0

	if [ "$1" = full_queue ]; then
		hostexec h1 "tc qdisc add dev eth0 root tbf rate 1mbit burst 6k limit 12k"
	fi
	hostexec -t 60 h1 "timeout 50 python3 /tmp/victim.py" >/dev/null &
	job=$!
	hostexec -t 50 h2 "timeout 45 python3 /tmp/peer.py $(address h1) $(address h2) $1" ||
		status=$?
	# The driver may hold the victim for long if it did not behave.
	[ "$status" = 0 ] || kill "$job" || true
	wait "$job" || true
	if [ "$1" = full_queue ]; then
		hostexec h1 "tc qdisc del dev eth0 root"
	fi
	return "$status"
}
