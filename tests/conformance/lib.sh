# shellcheck shell=bash
# The peer made by hand: source it after tests/lib.sh and tests/verbs/lib.sh.

# peer DRIVER PEER: the endpoint runs in one host, the peer's files are in
# /tmp/conformance of the other, which has no driver then.
peer() {
	local archive

	build_in tests/conformance endpoint -- "$1"
	archive=$(mktemp)
	tar -C "$TOP/tests/conformance" -cf "$archive" roce.py peer.py flow.py states.py \
		clauses.py run.py cases -C "$TOP/drivers/infiniband/sw/rxe" rxe_mig_wire.h
	hostcopy "$archive" "$2:/tmp/conformance.tar"
	rm "$archive"
	hostexec "$2" "mkdir -p /tmp/conformance
		tar -C /tmp/conformance -xf /tmp/conformance.tar
		rdma link delete rxe0 && modprobe -r rdma_rxe
		ip address replace 10.77.0.32/24 dev eth0
		ip address replace fd77::20/64 dev eth0 nodad"
	ours "$1" "setsid ./endpoint >/tmp/endpoint.log 2>&1 </dev/null &"
}

# unpeer DRIVER PEER: as before
unpeer() {
	hostexec "$1" "pkill -x endpoint"
	hostexec "$2" "ip address del 10.77.0.32/24 dev eth0
		ip address del fd77::20/64 dev eth0"
}
