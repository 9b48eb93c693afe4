# shellcheck shell=bash
# For tests of our libibverbs: source it after tests/lib.sh.

# Our libraries and provider, for programs below /tmp/verbs of a host.
OURS="export LD_LIBRARY_PATH=/opt/migros/usr/lib/x86_64-linux-gnu
	export RDMAV_DRIVERS=\$LD_LIBRARY_PATH/libibverbs/librxe
	export PYTHONPATH=/opt/migros/usr/lib/python3/dist-packages
	cd /tmp/verbs"

# build_programs HOST...: build the programs of this directory into /tmp/verbs.
build_programs() { build_in tests/verbs cycle objects -- "$@"; }

# build_in DIRECTORY PROGRAM... -- HOST...: the same with programs of another.
build_in() {
	local programs=() directory=$1 dir host program

	shift
	while [ "$1" != -- ]; do
		programs+=("$1")
		shift
	done
	shift
	dir=$(mktemp -d)
	compile "$directory" "$dir" "${programs[@]}"
	for host; do
		hostexec "$host" "mkdir -p /tmp/verbs"
		for program in "${programs[@]}"; do
			hostcopy "$dir/out/$program" "$host:/tmp/verbs/$program"
		done
	done
	rm -r "$dir"
}

# compile DIRECTORY DIR PROGRAM...: the same into DIR/out; our libraries are in DIR/rdma-core
# then.
compile() {
	local directory=$1 dir=$2 debs deb
	shift 2

	debs=$("$TOP/scripts/debs" rdma-core)
	mkdir "$dir/rdma-core" "$dir/out"
	for deb in "$debs"/libibverbs1_*.deb "$debs"/libibverbs-dev_*.deb; do
		dpkg-deb -x "$deb" "$dir/rdma-core"
	done
	"$TOP/scripts/in-chroot" -b "$TOP:/src" -b "$dir/rdma-core:/rdma-core" \
		-d "$dir/out" make -s -C "/src/$directory" BUILD=/work \
		RDMA_CORE=/rdma-core "${@/#//work/}"
}

# ours [-t SECONDS] HOST COMMAND: run a command with our libraries.
ours() {
	local limit=()

	if [ "$1" = -t ]; then
		limit=(-t "$2")
		shift 2
	fi
	hostexec "${limit[@]}" "$1" "$OURS; $2"
}

number=0
# tap NAME COMMAND...: run a command and print its result.
tap() {
	local name=$1 status=0
	shift

	number=$((number + 1))
	"$@" || status=$?
	case $status in
	0) echo "ok $number - $name" ;;
	77) echo "ok $number - $name # SKIP no migration on this device" ;;
	*) echo "not ok $number - $name" ;;
	esac
}
