# shellcheck shell=bash
# Completion of migros for bash: source it, or put it into
# /usr/share/bash-completion/completions/migros.

_migros() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
	local verb=${COMP_WORDS[1]} move="--runtime --keep-ip --new-ip --copy --rsh --remote --timeout" choices=

	if [ "$COMP_CWORD" = 1 ]; then
		choices="check migrate recover status inspect diff forget device"
	elif [ "$before" = --runtime ]; then
		choices="runc podman"
	elif [ "$before" = --keep-ip ]; then
		choices=$(ip -o address | awk '{ sub("/.*", "", $4); print $4 }')
	elif [ "$verb/$before" = device/--on ]; then
		choices=$(ls /sys/class/net)
	elif [ "$before" = --copy ]; then
		mapfile -t COMPREPLY < <(compgen -d -- "$word")
		return
	else
		case $verb/$word in
		check/-*) choices="$move --json" ;;
		migrate/-*) choices="$move --dry-run" ;;
		recover/-*) choices="--back --to --source-is-gone --believe-images --rsh --remote --timeout" ;;
		status/*) choices="--connections --all --json" ;;
		device/-*) choices="--address --on --json" ;;
		device/*)
			choices="add del list up"
			[ "$COMP_CWORD" = 2 ] || choices=$(ls /etc/migros/devices.d 2>/dev/null)
			;;
		check/* | migrate/*)
			if [ "$COMP_CWORD" = 2 ]; then
				choices=$(runc list -q 2>/dev/null; podman ps --format '{{.Names}}' 2>/dev/null)
			else
				mapfile -t COMPREPLY < <(compgen -A hostname -- "$word")
				return
			fi
			;;
		inspect/-*) choices="--verbose --json" ;;
		diff/-*) choices="--json" ;;
		inspect/* | diff/*)
			mapfile -t COMPREPLY < <(compgen -f -- "$word"; compgen -W "$(migros status --all \
				2>/dev/null | awk '{ print $1 }')" -- "$word")
			return
			;;
		recover/* | forget/*) choices=$(migros status --all 2>/dev/null | awk '{ print $1 }') ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$word")
}

complete -F _migros migros
