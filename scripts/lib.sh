# shellcheck shell=bash
# Helpers shared by the scripts: messages, needed programs, the cache, the
# package mirror. Source it; it sets the shell options.

set -euo pipefail
shopt -s inherit_errexit

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${MIGROS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/migros}
export TOP CACHE

# The supported kernels, and the distribution that ships them.
KERNEL_SERIES=6.12
SUITE=trixie
export KERNEL_SERIES SUITE

log() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { log "error: $*"; exit 1; }

# need PROGRAM[=PACKAGE]...: make sure that programs are there. Root gets them
# installed; anybody else is told what to install, before anything is fetched.
need() {
	local item program package missing=()

	for item in "$@"; do
		program=${item%%=*}
		package=${item#*=}
		PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null ||
			missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	[ "$EUID" -eq 0 ] ||
		die "missing programs; ask the administrator for: apt-get install ${missing[*]}"
	log "installing ${missing[*]}"
	{
		apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
			--no-install-recommends "${missing[@]}"
	} </dev/null >&2
}

# as_root COMMAND...: run with a mount namespace of its own, as root or, for an
# ordinary user, as root of a user namespace.
as_root() {
	if [ "$EUID" -eq 0 ]; then
		unshare --mount -- "$@"
	else
		need newuidmap=uidmap
		unshare --user --map-root-user --map-auto --mount -- "$@"
	fi
}

# hash_text: 16 hex digits for the standard input.
hash_text() { sha256sum | cut -c1-16; }

# hash_defs NAME...: 16 hex digits for the text of functions and variables.
hash_defs() {
	local name

	for name in "$@"; do
		declare -f "$name" || declare -p "$name"
	done | hash_text
}

# hash_files FILE...: 16 hex digits for names (without directory) and contents.
hash_files() {
	local file

	for file in "$@"; do
		printf '%s ' "${file##*/}"
		sha256sum <"$file"
	done | hash_text
}

# hash_tree DIR: 16 hex digits for the files below DIR.
hash_tree() {
	(cd "$1" && find -L . -type f -print0 | LC_ALL=C sort -z |
		xargs -0r sha256sum) | hash_text
}

# cached KIND KEY BUILDER [ARG...]: print the path of the cache entry KIND-KEY.
# If it is not there, call "BUILDER OUT ARG..." to make it as OUT, which is
# renamed only when the builder succeeds. Two callers wait for one another.
cached() {
	local kind=$1 key=$2 entry lock out start status
	shift 2

	entry=$CACHE/$kind-$key
	if [ ! -e "$entry" ]; then
		mkdir -p "$CACHE/lock"
		exec {lock}>"$CACHE/lock/$kind-$key"
		flock "$lock"
		if [ ! -e "$entry" ]; then
			out=$CACHE/tmp-$kind-$key
			as_root rm -rf "$out" "$out".*
			start=$SECONDS
			log "building $kind-$key"
			set +e
			# It keeps the lock, in case that it outlives this shell.
			(set -e; "$1" "$out" "${@:2}") </dev/null >&2
			status=$?
			set -e
			[ "$status" -eq 0 ] || die "building $kind-$key failed"
			mv "$out" "$entry"
			log "built $kind-$key in $((SECONDS - start)) s"
			prune "$kind"
		fi
		exec {lock}>&-
	fi
	touch -c "$entry" 2>/dev/null || true
	printf '%s\n' "$entry"
}

# prune KIND: drop entries that nobody has used for a week, and what a killed
# builder left.
prune() {
	find "$CACHE" -maxdepth 1 -mtime +7 \
		\( -name "$1-????????????????" -o -name "tmp-$1-*" \) -print0 |
		while IFS= read -r -d '' old; do
			log "removing ${old##*/}, not used for a week"
			as_root rm -rf "$old"
		done
}

# mirror: the address of the Debian archive, as this machine's apt knows it.
# MIGROS_MIRROR overrides it.
mirror() {
	local uri

	if [ -n "${MIGROS_MIRROR:-}" ]; then
		printf '%s\n' "${MIGROS_MIRROR%/}"
		return
	fi
	# shellcheck disable=SC2016 # the format is apt's, not the shell's
	uri=$(apt-get indextargets --format '$(REPO_URI)|$(COMPONENT)' \
		'Created-By: Packages' | sed -n 's,/*|main$,,p' | sort -u |
		grep -E '/debian$' | head -n 1)
	[ -n "$uri" ] ||
		die "no Debian archive among apt's sources; set MIGROS_MIRROR to the address of one"
	printf '%s\n' "$uri"
}

# bootstrap OUT PACKAGE...: a root directory with Debian packages; with BACKPORTS=yes
# those of the backports, where there are some.
bootstrap() {
	local out=$1 uri include scheme proxy options=() sources
	shift

	need mmdebstrap
	uri=$(mirror)
	include=$(IFS=,; printf '%s' "$*")
	for scheme in http https; do
		proxy=
		eval "$(apt-config shell proxy "Acquire::$scheme::Proxy")"
		[ -z "$proxy" ] || options+=(--aptopt="Acquire::$scheme::Proxy \"$proxy\"")
	done
	sources=("deb $uri $SUITE main")
	if [ -n "${BACKPORTS-}" ]; then
		sources+=("deb $uri $SUITE-backports main")
		options+=(--aptopt="Apt::Default-Release \"$SUITE-backports\"")
	fi
	# INITRD=No: the guest's initrd is made by scripts/image.
	INITRD=No as_root mmdebstrap --mode=root --variant=minbase --quiet \
		--aptopt='Apt::Install-Recommends "false"' \
		--aptopt='Acquire::Languages "none"' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		"${options[@]}" --include="$include" \
		"$SUITE" "$out" "${sources[@]}"
}
