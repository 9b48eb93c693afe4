# shellcheck shell=bash
# For the tests that feed a host with what it must survive: source it after
# tests/verbs/lib.sh.

length=${FUZZ_SECONDS:-60}
# shellcheck disable=SC2034  # of those who source it
seed=${FUZZ_SEED:-$((RANDOM << 15 | RANDOM))}

# fuzz HOST COMMAND: its result, with what it says before in front
fuzz() {
	local output status=0

	output=$(ours -t $((length + 300)) "$1" "$2") || status=$?
	grep '^#' <<<"$output" || true
	grep -E '^(not )?ok' <<<"$output" || echo "not ok - status $status"
	return "$status"
}
