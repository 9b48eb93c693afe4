# shellcheck shell=bash
# For tests in which something dies when migros moves a container: source it after
# tests/lib.sh and tests/criu/lib.sh.

# shellcheck source=tests/containers/lib.sh
. "$TOP/tests/containers/lib.sh"

container=moved
out=/tmp/box/$container/out
migros="env PATH=/opt/migros/bin:/usr/sbin:/usr/bin:/sbin:/bin python3 /tmp/kill/halting.py"

# What a host has after its power was off: the directory of migros survives.
furnish() {
	local host=$1

	hostexec -t 60 "$host" "mkdir -p /tmp/kill /run/sshd /root/.ssh /var/lib/migros \
			/share/disk-$host
		cp -r /share/kit/migros /tmp/kill/ && cp /share/kit/halting.py /share/kit/halt.so /tmp/kill/
		cp /share/kit/key /root/.ssh/id_ed25519 && chmod 600 /root/.ssh/id_ed25519
		cp /share/kit/key.pub /root/.ssh/authorized_keys
		printf 'StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\n' \
			>/root/.ssh/config
		chown -R root: /root /root/.ssh; chmod 700 /root /root/.ssh
		mount --bind /share/disk-$host /var/lib/migros
		printf 'network-lock nftables\naction-script /tmp/kill/migros/hook\n' \
			>/etc/criu/runc.conf
		echo 600000 >/sys/module/rdma_rxe/parameters/mig_pause_limit_ms
		ssh-keygen -A >/dev/null; /usr/sbin/sshd"
}

# setup RUNTIME
setup() {
	local host dir

	prepare "$1"
	dir=$(mktemp -d)
	"$TOP/scripts/in-chroot" -b "$TOP:/src" -d "$dir" \
		gcc -O2 -g -Wall -Wextra -shared -fPIC -o halt.so /src/tests/kill/halt.c
	hostexec h1 "rm -rf /share/kit; mkdir /share/kit; ssh-keygen -q -t ed25519 -N '' -f /share/kit/key"
	hostcopy "$TOP/tests/kill/halting.py" h1:/share/kit/halting.py
	hostcopy "$dir/halt.so" h1:/share/kit/halt.so
	rm -r "$dir"
	tar -C "$TOP/criu" -c migros | "$TOP/scripts/testbed" exec -i h1 tar -C /share/kit -x
	for host in h1 h2; do
		furnish $host
		hostexec $host "cp /usr/bin/checker /usr/bin/box /share/kit/; mkdir -p /tmp/box/$container"
	done
	# The first time criu runs, it spends long finding out what the kernel can do.
	hostexec h1 "/opt/migros/bin/criu check >/dev/null 2>&1 || true"
}

# power HOST STATE: what its kernel had to say is lost with it.
power() {
	[ "$2" = on ] || hostexec "$1" "! dmesg | grep -E 'BUG|WARNING|Oops|KASAN'"
	"$TOP/scripts/testbed" power "$@"
}

# return_of HOST: it boots, with its disk
return_of() {
	power "$1" on
	hostexec "$1" "cp /share/kit/checker /share/kit/box /usr/bin/"
	box -t 300 "$1" setup checker
	furnish "$1"
	bundle "$1"
}

# bundle HOST: the container's bundle is there; what it writes is on a disk, if it matters.
bundle() {
	hostexec "$1" "mkdir -p $out /share/out
		[ ! -e /share/bundle ] || cp /share/bundle/config.json /tmp/box/$container/
		[ '$victim' != destination ] || mount --bind /share/out $out"
}

# cut, mend: no packet between h1 and h2 but RoCE's
cut() {
	hostexec h2 "nft -f - <<-END
		table inet cut {
			chain in { type filter hook input priority 0; ip6 saddr fd77::1 drop; }
			chain out { type filter hook output priority 0; ip6 daddr fd77::1 drop; }
		}
	END"
}

# lose: for 10 s no packet of RoCE gets from the partner to another host, or to it. Where they
# come in: what is dropped where it goes out fails a QP, as in stock rxe.
lose() {
	local host

	for host in h1 h2 h3; do
		hostexec $host "nft -f - <<-END || exit
			table inet lost {
				chain in {
					type filter hook input priority 0
					$([ $host = h3 ] || echo ip saddr "$(address h3)") udp dport 4791 counter drop
				}
			}
		END
		setsid sh -c 'sleep 10; nft list table inet lost >/tmp/lost; nft delete table inet lost' </dev/null >/dev/null 2>&1 &"
	done
}

# were_lost: packets, in one of the hosts at least
were_lost() {
	local host

	for host in h1 h2 h3; do
		! hostexec $host "cat /tmp/lost; grep 'packets [1-9]' /tmp/lost" || return 0
	done
	echo "no packet was lost"
	return 1
}

mend() { hostexec h2 "nft delete table inet cut 2>/dev/null || true"; }

# small HOST: migros has a small disk there; fill HOST: no room is left on it
small() {
	hostexec "$1" "umount /var/lib/migros
		mount -t tmpfs -o size=400m small /var/lib/migros"
}

fill() { hostexec "$1" "dd if=/dev/zero of=/var/lib/migros/full bs=4k 2>/dev/null || true"; }

# migrate: in the background, as "$command"; its output in h1:/tmp/said; $way, if its address
# does not move along
migrate() {
	# Not in the background: halted() must not see that of an earlier one.
	hostexec h1 "rm -f /tmp/status"
	hostexec -t 400 h1 "$migros migrate --remote '$migros' --timeout ${1:-60} \
		${way:---keep-ip 10.77.0.1} --copy $out $container fd77::2 >/tmp/said 2>&1; echo \$? >/tmp/status" &
	command=$!
}

# halt HOST POINT: migros is to halt there, or criu in a restore by it ("restore:", halt.c)
halt() {
	if [[ "$2" = restore:* ]]; then
		hostexec "$1" "echo ${2#restore:} >/tmp/halt; rm -f /tmp/halted /tmp/halt.count
			echo /tmp/kill/halt.so >/etc/ld.so.preload"
	else
		hostexec "$1" "echo $2 >/tmp/halt-migros; rm -f /tmp/halted-migros"
	fi
}

# halted HOST: until it is where it shall be killed
halted() {
	local i

	for ((i = 0; i < 200; i++)); do
		! hostexec "$1" "test -e /tmp/halted-migros || test -e /tmp/halted" || return 0
		! hostexec h1 "test -e /tmp/status" || break
		sleep 0.3
	done
	echo "migros did not get there"
	hostexec h1 "cat /tmp/said"
	return 1
}

go_on() { hostexec "$1" "rm -f /tmp/halt-migros /tmp/halt /etc/ld.so.preload"; }

# strike VICTIM HOST: HOST is where it has halted
strike() {
	case $1 in
	command | agent) hostexec "$2" "kill -KILL \$(cat /tmp/halted-migros)" ;;
	runtime) hostexec "$2" "pkill -KILL -x $runtime" && sleep 1 && go_on "$2" ;;
	criu) hostexec "$2" "pkill -KILL -x criu" && sleep 1 && go_on "$2" ;;
	both) hostexec "$2" "pkill -KILL -x '$runtime|criu'" && sleep 1 && go_on "$2" ;;
	source | destination) power "$2" off ;;
	partner) power h3 off && go_on "$2" ;;
	network) cut && go_on "$2" ;;
	traffic) lose && go_on "$2" ;;
	signal) hostexec "$2" "kill -TERM \$(cat /tmp/halted-migros)" && go_on "$2" ;;
	source-disk | destination-disk) fill "$2" && go_on "$2" ;;
	esac
}

# alive HOST: how many processes of the container
alive() { hostexec "$1" "pgrep -x checker | wc -l"; }

# at HOST: the container runs there, and nowhere else; both ends come to their end.
at() {
	local other=h1

	[ "$1" = h2 ] || other=h2
	[ "$(alive $other)" = 0 ] || { echo "it is alive at $other"; return 1; }
	[ "$(alive "$1")" = 1 ] || { echo "it is not alive at $1"; return 1; }
	[ "$victim" != partner ] || return 0
	busy "$1"
	hostexec "$1" "echo stop >$out/control"
	ended $container "$1"
}

# recover [OPTION]: it has nothing to do if nothing is left to decide.
recover() { hostexec -t 200 h1 "$migros recover ${1-} --remote '$migros'"; }

nothing() {
	[ "$(alive h1)$(alive h2)" = 00 ] || { echo "alive: $(alive h1) $(alive h2)"; return 1; }
}

# begin: the container in h1, its partner (with options $there), its bundle in h2;
# $device and $server, if they are others than rxe0 and the address of h1; $stall, if nothing
# may happen for more than 300 s
begin() {
	box h1 run $container "checker --server --device ${device:-rxe0} --control /out/control \
		--stall ${stall:-300} --output /out/report"
	listens h1 $container
	hostexec -t 1200 h3 "timeout 1190 checker --client ${server:-$(address h1)} \
		--stall ${stall:-300} ${there-}" &
	# shellcheck disable=SC2034 # ended() waits for it
	partner=$!
	[ "$runtime" != runc ] ||
		hostexec h1 "mkdir -p /share/bundle; cp /tmp/box/$container/config.json /share/bundle/"
	bundle h2
}

one() {
	local victim=$2 host=h1

	[[ "$1" = source:* ]] || host=h2
	begin
	[[ "$victim" != *-disk ]] || small $host
	halt $host "$1"
	busy h1
	migrate "$([ "$victim" != network ] && [ "$victim" != destination ] || echo 8)"
	halted $host
	strike "$victim" $host
	wait $command || true
	[ "$victim" = source ] || hostexec h1 "cat /tmp/said"
	case $victim in
	source) return_of h1 ;;
	destination) return_of h2 ;;
	network) mend ;;
	esac
	go_on $host
	"left_$3"
}

# overdue HOST STAGE: criu, which calls its action script with STAGE there, waits for ever
overdue() {
	local victim=none

	begin
	hostexec "$1" "printf '#!/bin/sh\n[ \$CRTOOLS_SCRIPT_ACTION != $2 ] || exec sleep 1000\n' \
			>/tmp/hang
		chmod +x /tmp/hang; echo 'action-script /tmp/hang' >>/etc/criu/runc.conf"
	busy h1
	migrate 30
	wait $command
	hostexec h1 "cat /tmp/said; [ \$(cat /tmp/status) = 1 ]; grep 'after 30 s' /tmp/said"
	hostexec "$1" "! pgrep -x criu; sed -i /hang/d /etc/criu/runc.conf"
	# A container of the name can come there again.
	[ "$1" = h1 ] || hostexec "$1" "! findmnt -rno TARGET | grep criu-root; [ -z \"\$(ls /run/runc)\" ]"
	left_source
}

left_source() {
	# Not before the lease has gone
	sleep 6
	[ "$(alive h1)" = 1 ] || { echo "it is not alive at h1"; return 1; }
	recover ""
	at h1
}

left_there() {
	sleep 1
	recover ""
	# Else runc, at the end of the container, removes what is mounted there.
	hostexec h2 "! findmnt -rno TARGET | grep criu-root"
	[ "$victim" != traffic ] || were_lost
	at h2
}

left_finish() {
	nothing
	recover ""
	at h2
}

left_believe() {
	nothing
	fails recover ""
	recover --believe-images
	at h2
}

left_lost() {
	nothing
	recover ""
	nothing
}

clean_up() {
	local host

	hostexec h3 "pkill -KILL -x checker || true" || { power h3 on; furnish_partner; }
	mend
	for host in h1 h2; do
		hostexec $host true 2>/dev/null || return_of $host
		go_on $host
		hostexec $host "kill -KILL \$(cat /tmp/supervisor.pid 2>/dev/null) 2>/dev/null; rm -f /tmp/supervisor.*
			sed -i /hang/d /etc/criu/runc.conf
			pkill -KILL -f halting.py; rm -f /tmp/halted-migros /tmp/halted /tmp/said
			findmnt -rno TARGET | grep ^/var/lib/migros/ | sort -r | xargs -r umount -l
			[ \"\$(findmnt -no FSTYPE /var/lib/migros)\" != tmpfs ] || {
				umount -l /var/lib/migros
				mount --bind /share/disk-$host /var/lib/migros; }
			rm -rf /var/lib/migros/*; true"
		box "$host" clean "$container"
	done
	hostexec h1 "rm -rf /share/out"
	hostexec h1 "ip -o address | grep -q ' 10.77.0.1/'" || box h1 arrive 10.77.0.1
	! hostexec h2 "ip -o address | grep -q ' 10.77.0.1/'" || box h2 leave 10.77.0.1
}

furnish_partner() { hostexec h3 "cp /share/kit/checker /share/kit/box /usr/bin/"; }

