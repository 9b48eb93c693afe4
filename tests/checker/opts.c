// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/* Command line. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "chk.h"

static const char usage[] =
"usage: checker --server [options]            wait for the client\n"
"       checker --client HOST [options]\n"
"       checker --server|--client - --rendezvous DIR [options]\n"
"       checker --loopback [options]          both ends on this host\n"
"\n"
"Traffic (the server's choice holds for both ends):\n"
"  --qps N            connections (8)\n"
"  --ops N            operations per connection and direction (no limit)\n"
"  --seed N           of the schedule (1)\n"
"  --types LIST       send,send_imm,send_inv,write,write_imm,write_mw,read,\n"
"                     cmp_swp,fetch_add,flush,atomic_write (all there are)\n"
"  --max-msg N        bytes (8192)\n"
"  --min-msg N        bytes (0)\n"
"  --window N         operations ahead of the peer's verification (32)\n"
"  --mtu N            path MTU (the port's)\n"
"  --extra-ops N      operations on a connection made after a move (100)\n"
"Queues:\n"
"  --depth N          send WRs in flight per connection (16)\n"
"  --groups N         sets of PD and CQs (2)\n"
"  --srq none|half|all  connections with a shared receive queue (half)\n"
"  --inline N         bytes of inline data to ask for (256)\n"
"  --events           wait for completion events instead of polling\n"
"  --rnr              few receives, posted late: provokes RNR waits\n"
"  --lone-bind        bind windows only while nothing else is in flight\n"
"  --shared           buffers in shared instead of private memory\n"
"Connections:\n"
"  --device NAME      (the first one)     --port N     (1)\n"
"  --gid-index N      (IPv4 if there is)  --tcp-port N (18515)\n"
"  --timeout N (20)   --retry-cnt N (6)   --rnr-retry N (7)\n"
"  --min-rnr-timer N (12)                 --rd-atomic N (8)\n"
"  --rendezvous DIR   exchange files there instead of TCP messages\n"
"Run:\n"
"  --seconds N        of running time; time while stopped does not count\n"
"  --control FILE     a line \"moved\", \"cycle\", \"stop\" or \"report\" there\n"
"                     is obeyed, and the file removed\n"
"  --output FILE      append the report there, too\n"
"  --log FILE         progress and details there instead of stderr\n"
"  --interval N       seconds between progress lines (5)\n"
"  --stall N          seconds without any completion to give up after (300)\n"
"  --cycles N         dump, destroy and restore the own context N times, then\n"
"                     end (checker-cycle only)\n"
"  --cycle-interval MS  of running time between cycles (500)\n"
"  --cycle-gap MS     nobody has the context for so long (0)\n"
"  --cycle-faults     as the seed has it, a cycle is cancelled, its dump fails, or\n"
"                     who has dumped the context dies\n"
"  --plant FAULT[@N]  misbehave once, from operation N on; \"list\" lists them\n"
"SIGUSR1 means \"moved\", SIGTERM and SIGINT mean \"stop\".\n";

enum {
	O_SERVER = 256, O_CLIENT, O_LOOPBACK, O_QPS, O_OPS, O_SEED, O_TYPES,
	O_MAX_MSG, O_MIN_MSG, O_WINDOW, O_MTU, O_EXTRA_OPS, O_DEPTH, O_GROUPS,
	O_SRQ, O_INLINE, O_EVENTS, O_RNR, O_LONE_BIND, O_SHARED, O_DEVICE, O_PORT,
	O_GID_INDEX, O_TCP_PORT, O_TIMEOUT, O_RETRY_CNT, O_RNR_RETRY,
	O_MIN_RNR_TIMER, O_RD_ATOMIC, O_RENDEZVOUS, O_SECONDS, O_CONTROL,
	O_OUTPUT, O_LOG, O_INTERVAL, O_STALL, O_PLANT,
	O_CYCLES, O_CYCLE_INTERVAL, O_CYCLE_GAP, O_CYCLE_FAULTS, O_HELP,
};

static const struct option longopts[] = {
	{ "server", 0, NULL, O_SERVER },
	{ "client", 1, NULL, O_CLIENT },
	{ "loopback", 0, NULL, O_LOOPBACK },
	{ "qps", 1, NULL, O_QPS },
	{ "ops", 1, NULL, O_OPS },
	{ "seed", 1, NULL, O_SEED },
	{ "types", 1, NULL, O_TYPES },
	{ "max-msg", 1, NULL, O_MAX_MSG },
	{ "min-msg", 1, NULL, O_MIN_MSG },
	{ "window", 1, NULL, O_WINDOW },
	{ "mtu", 1, NULL, O_MTU },
	{ "extra-ops", 1, NULL, O_EXTRA_OPS },
	{ "depth", 1, NULL, O_DEPTH },
	{ "groups", 1, NULL, O_GROUPS },
	{ "srq", 1, NULL, O_SRQ },
	{ "inline", 1, NULL, O_INLINE },
	{ "events", 0, NULL, O_EVENTS },
	{ "rnr", 0, NULL, O_RNR },
	{ "lone-bind", 0, NULL, O_LONE_BIND },
	{ "shared", 0, NULL, O_SHARED },
	{ "device", 1, NULL, O_DEVICE },
	{ "port", 1, NULL, O_PORT },
	{ "gid-index", 1, NULL, O_GID_INDEX },
	{ "tcp-port", 1, NULL, O_TCP_PORT },
	{ "timeout", 1, NULL, O_TIMEOUT },
	{ "retry-cnt", 1, NULL, O_RETRY_CNT },
	{ "rnr-retry", 1, NULL, O_RNR_RETRY },
	{ "min-rnr-timer", 1, NULL, O_MIN_RNR_TIMER },
	{ "rd-atomic", 1, NULL, O_RD_ATOMIC },
	{ "rendezvous", 1, NULL, O_RENDEZVOUS },
	{ "seconds", 1, NULL, O_SECONDS },
	{ "control", 1, NULL, O_CONTROL },
	{ "output", 1, NULL, O_OUTPUT },
	{ "log", 1, NULL, O_LOG },
	{ "interval", 1, NULL, O_INTERVAL },
	{ "stall", 1, NULL, O_STALL },
	{ "plant", 1, NULL, O_PLANT },
	{ "cycles", 1, NULL, O_CYCLES },
	{ "cycle-interval", 1, NULL, O_CYCLE_INTERVAL },
	{ "cycle-gap", 1, NULL, O_CYCLE_GAP },
	{ "cycle-faults", 0, NULL, O_CYCLE_FAULTS },
	{ "help", 0, NULL, O_HELP },
	{ }
};

static void __attribute__((noreturn, format(printf, 1, 2)))
bad(const char *fmt, ...)
{
	va_list ap;

	fputs("checker: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" (--help for help)\n", stderr);
	exit(2);
}

static uint64_t number(const char *name, uint64_t min, uint64_t max)
{
	uint64_t v;
	char *end;

	v = strtoull(optarg, &end, 0);
	if (*end || !*optarg || v < min || v > max)
		bad("--%s %s: not a number from %llu to %llu", name, optarg,
		    (unsigned long long)min, (unsigned long long)max);
	return v;
}

static uint32_t types(char *list)
{
	uint32_t mask = OP_BIT(OP_SEND);	/* the run ends with one */
	char *name;
	int i;

	for (name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		for (i = 0; i < OP_NR && strcmp(name, op_name[i]); i++)
			;
		if (i == OP_NR)
			bad("--types: no operation \"%s\"", name);
		mask |= OP_BIT(i);
	}
	return mask;
}

static enum srq_mode srq(void)
{
	if (!strcmp(optarg, "none"))
		return SRQ_NONE;
	if (!strcmp(optarg, "half"))
		return SRQ_HALF;
	if (strcmp(optarg, "all"))
		bad("--srq %s: none, half or all", optarg);
	return SRQ_ALL;
}

static void defaults(struct opts *o)
{
	*o = (struct opts) {
		.p = { .seed = 1, .qps = 8, .window = 32, .max_msg = 8192,
		       .types = (1U << OP_NR) - 1, .extra_ops = 100 },
		.tcp_port = "18515",
		.port = 1,
		.gid_index = -1,
		.depth = 16,
		.groups = 2,
		.interval = 5,
		.stall = 300,
		.cycle_interval = 500,
		.srq = SRQ_HALF,
		.max_inline = 256,
		.rd_atomic = 8,
		.timeout = 20,
		/* not 7: some devices take that for no limit */
		.retry_cnt = 6,
		.rnr_retry = 7,
		.min_rnr_timer = 12,
	};
}

static void check(const struct opts *o, bool client)
{
	if (o->server + o->loopback + client != 1)
		bad("one of --server, --client and --loopback");
	/* see tx_work(): slots are used again after two windows */
	if (o->depth > o->p.window)
		bad("--depth must not exceed --window");
	if (o->p.cycles && !cycle_possible)
		bad("--cycles: this program was built without it");
	if (o->p.min_msg > o->p.max_msg)
		bad("--min-msg exceeds --max-msg");
}

void opts_parse(int argc, char **argv)
{
	struct opts *o = &chk.o;
	bool client = false;
	int c, i = 0;

	defaults(o);
	while ((c = getopt_long(argc, argv, "", longopts, &i)) != -1) {
		const char *name = longopts[i].name;

		switch (c) {
		case O_SERVER:
			o->server = true;
			break;
		case O_CLIENT:
			client = true;
			o->host = optarg;
			break;
		case O_LOOPBACK:
			o->loopback = true;
			break;
		case O_QPS:
			o->p.qps = number(name, 1, CONN_MAX / 2);
			break;
		case O_OPS:
			o->p.ops = number(name, 1, UINT64_MAX);
			break;
		case O_SEED:
			o->p.seed = number(name, 0, UINT64_MAX);
			break;
		case O_TYPES:
			o->p.types = types(optarg);
			break;
		case O_MAX_MSG:
			o->p.max_msg = number(name, 64, 1 << 24);
			break;
		case O_MIN_MSG:
			o->p.min_msg = number(name, 0, 1 << 24);
			break;
		case O_WINDOW:
			o->p.window = number(name, 32, 256);
			break;
		case O_MTU:
			o->p.mtu = number(name, 256, 4096);
			break;
		case O_EXTRA_OPS:
			o->p.extra_ops = number(name, 1, UINT32_MAX);
			break;
		case O_DEPTH:
			o->depth = number(name, 4, 256);
			break;
		case O_GROUPS:
			o->groups = number(name, 1, 64);
			break;
		case O_SRQ:
			o->srq = srq();
			break;
		case O_INLINE:
			o->max_inline = number(name, 0, 4096);
			break;
		case O_EVENTS:
			o->events = true;
			break;
		case O_RNR:
			o->rnr = true;
			break;
		case O_LONE_BIND:
			o->lone_bind = true;
			break;
		case O_SHARED:
			o->shared = true;
			break;
		case O_DEVICE:
			o->device = optarg;
			break;
		case O_PORT:
			o->port = number(name, 1, 255);
			break;
		case O_GID_INDEX:
			o->gid_index = number(name, 0, 65535);
			break;
		case O_TCP_PORT:
			o->tcp_port = optarg;
			break;
		case O_TIMEOUT:
			o->timeout = number(name, 0, 31);
			break;
		case O_RETRY_CNT:
			o->retry_cnt = number(name, 0, 7);
			break;
		case O_RNR_RETRY:
			o->rnr_retry = number(name, 0, 7);
			break;
		case O_MIN_RNR_TIMER:
			o->min_rnr_timer = number(name, 0, 31);
			break;
		case O_RD_ATOMIC:
			o->rd_atomic = number(name, 1, 255);
			break;
		case O_RENDEZVOUS:
			o->rendezvous = optarg;
			break;
		case O_SECONDS:
			o->seconds = number(name, 1, UINT32_MAX);
			break;
		case O_CONTROL:
			o->control = optarg;
			break;
		case O_OUTPUT:
			o->output = optarg;
			break;
		case O_LOG:
			o->log = optarg;
			break;
		case O_INTERVAL:
			o->interval = number(name, 1, UINT32_MAX);
			break;
		case O_STALL:
			o->stall = number(name, 1, UINT32_MAX);
			break;
		case O_PLANT:
			if (!strcmp(optarg, "list")) {
				plant_list();
				exit(0);
			}
			if (plant_parse(optarg))
				bad("--plant %s: see --plant list", optarg);
			break;
		case O_CYCLES:
			o->p.cycles = number(name, 1, UINT32_MAX);
			break;
		case O_CYCLE_INTERVAL:
			o->cycle_interval = number(name, 0, UINT32_MAX);
			break;
		case O_CYCLE_GAP:
			o->cycle_gap = number(name, 0, UINT32_MAX);
			break;
		case O_CYCLE_FAULTS:
			o->cycle_faults = true;
			break;
		case O_HELP:
			fputs(usage, stdout);
			exit(0);
		default:
			exit(2);
		}
	}
	if (optind < argc)
		bad("unexpected \"%s\"", argv[optind]);
	check(o, client);
}
