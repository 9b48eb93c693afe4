# shellcheck shell=bash
# For what runs inside of a system: source it.

set -euo pipefail

number=0
# tap NAME COMMAND...
tap() {
	local name=$1 status
	shift

	number=$((number + 1))
	set +e
	(set -e; "$@") >/tmp/said 2>&1
	status=$?
	set -e
	[ $status = 0 ] || { sed 's/^/# /' /tmp/said; printf 'not '; }
	echo "ok $number - $name"
}
