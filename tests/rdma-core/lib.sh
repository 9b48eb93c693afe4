# shellcheck shell=bash
# For runs of rdma-core's own tests: source it after tests/lib.sh.

# prepare: what "each" needs, in h1.
prepare() {
	local archive

	archive=$(mktemp)
	tar -C "$("$TOP/scripts/sources" rdma-core)/rdma-core-56.1" -cf "$archive" tests
	hostexec h1 "mkdir -p /tmp/rdma-core /tmp/verbs"
	hostcopy "$archive" h1:/tmp/rdma-core/tests.tar
	rm "$archive"
	hostcopy "$TOP/tests/rdma-core/each" h1:/tmp/rdma-core/each
	hostexec h1 "tar -C /tmp/rdma-core -xf /tmp/rdma-core/tests.tar"
}

# shellcheck disable=SC2034 # for those who source this
EACH="python3 /tmp/rdma-core/each /tmp/rdma-core rxe0"
