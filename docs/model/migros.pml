/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Model of docs/protocol.md: one RC connection, side A (hosts 0-2) and side B
 * (hosts 3-4), address 5 is an attacker's; ADDR says which hosts are one.
 * README.md explains the configurations; Makefile lists them.
 *
 * SAFE: the network is a set of packets; each is delivered any number of
 * times, in any order, at any later time, or lost; every timer may fire at
 * any time.  LIVE: a bounded number of losses, duplicates and late packets;
 * timers fire together when the network is empty; the connection must be whole
 * again within RMAX such rounds.
 */
#ifndef NA
#define NA 2			/* messages A sends */
#endif
#ifndef NB
#define NB 1			/* messages B sends */
#endif
#ifndef STOPSA
#define STOPSA 1		/* times A is stopped */
#endif
#ifndef STOPSB
#define STOPSB 0
#endif
#ifndef ATTACK
#define ATTACK 0		/* packets an attacker may inject */
#endif
#ifndef ASK
#define ASK 0			/* times A asks, Running [CAP-6] */
#endif
#ifndef LOSS
#define LOSS 0			/* LIVE only */
#endif
#ifndef DUP
#define DUP 0
#endif
#ifndef LATE
#define LATE 0
#endif
#ifndef CANCELS
#define CANCELS 0
#endif
#ifndef LIMITS
#define LIMITS 0		/* RESUME_LIMIT expiries */
#endif
#ifndef PLIMITS
#define PLIMITS 0		/* PAUSE_LIMIT expiries */
#endif
#ifdef LOST			/* A may be lost for good */
#define LOSTA 1
#else
#define LOSTA 0
#endif
#ifndef K
#ifdef LIVE
#define K 10
#else
#define K 3
#endif
#endif
#ifndef RMAX
#define RMAX 6
#endif
#ifdef SAME			/* address move: hosts of a side share it */
#define ADDR(x) (3 * ((x) >= 3))
#elif defined(MEET)		/* equal QPNs; A moves to where B was, B to MEET */
#define ADDR(x) ((x) == 1 -> 3 : ((x) == 4 -> MEET : (x)))
#elif defined(TOGETHER)		/* B starts at TOGETHER, both come to host 1 */
#define ADDR(x) ((x) == 3 -> TOGETHER : ((x) == 4 -> 1 : (x)))
#else
#define ADDR(x) (x)
#endif
#ifdef MEET
#define MEETS(x) (av[x] == ADDR(x))	/* what it sends comes back to it */
#define PLACE(x) ADDR(x)	/* whose tombstone is where x is restored */
#define ORIGIN(x) (x)		/* ghost in data packets: who sent it */
#else
#define MEETS(x) 0
#define PLACE(x) (x)
#define ORIGIN(x) 0
#endif
#ifdef TOGETHER			/* the address does not tell which QPN is meant */
#define QPN(x, o) (16 * (SIDE(x) == ((o) == SELF)))
#else
#define QPN(x, o) 0
#endif
#define FIRSTHOST (cur[0] == 0 && ps[3])	/* a value of CRASH */
#ifdef STOCK			/* B lacks the extension */
#define STOCKB 1
#else
#define STOCKB 0
#endif
#ifdef BACK			/* A's second move goes back to host 0 */
#define NEXTA(x) (1 - (x))
#else
#define NEXTA(x) ((x) + 1)
#endif

/* packets */
#define REQ	1
#define ACK	2
#define RSP	3
#define NAKS	4
#define PAUSE	5
#define PROBE	6
#define RUNNING	7
#define RESUME	8
#define RACK	9
#define MOVED	10
#define SELF	11
#define PK(o,s,d,e,n,c,q,g,f) (((o)<<24)|((s)<<21)|((d)<<18)|((e)<<16)|((n)<<12)|((c)<<8)|((q)<<5)|((g)<<2)|(f))

/* instance states */
#define NONE	0
#define RUN	1
#define RES	2
#define STOP	3
#define TOMB	4
#define ERR	5		/* its work failed; it drops everything */

#define NOADDR	7
#define EVIL	5
#define BAD	15		/* a nonce made up by an attacker */
#define SECRET(s, e) ((e) + 2 * (s))	/* 1 and 2 are A's, 3 and 4 B's */
#define CHAL0(s) (5 + 5 * (s))	/* challenges count from here */
#define IMG(s)	(5 + (s))	/* slots 5 and 6 hold the snapshots */
#define SIDE(x)	((x) >= 3)
#define READ(q)	((q) & 1)	/* odd messages are READs, even ones SENDs */
#define NMSG(s)	(NA + (s) * (NB - NA))
#define LIVEI(x) (st[x] == RUN || st[x] == RES)
#define FROZEN(x) (st[x] == STOP || st[x] == TOMB)

byte st[7], ep[7], sec[7], chal[7], pe[7], psec[7], pchal[7];
byte av[7], fwd[7], sfwd[7], old[7], una[7], nxt[7], xp[7];
bit pend[7], ps[7], cap[7], nakp[7], ann[7], lim[7];

int net[K];
#if LATE > 0
int held;
#endif

byte cur[2];			/* host of the newest instance, 7 in transit */
byte nexth[2];			/* host it will be restored at */
byte home[2];			/* SAME: host that has the address */
bit comm[2], image[2];
byte stops[2];
byte attacks = ATTACK, losses = LOSS, dups = DUP, lates = LATE;
byte cancels = CANCELS, limits = LIMITS;
#if ASK > 0
byte asks = ASK;
#endif
#if PLIMITS > 0
byte plimits = PLIMITS;
#endif
#if PLIMITS > 0 || LOSTA
bit gone[2];			/* failed, or lost for good */
#define GONE(s) gone[s]
#else
#define GONE(s) 0
#endif
byte rounds, hops;

/* ghosts: what an all-seeing observer knows */
byte gx[2];			/* messages executed by the side */
byte gc[2];			/* messages completed by the side */
byte gep[2];			/* true epoch */
byte gres[2];			/* newest epoch whose RESUME the partner accepted */
byte gloc[8];			/* [side * 4 + epoch]: where that epoch lives */

byte i, h;
hidden int p;
hidden byte j, k, op, src, dst, e, non, ech, psn, gid, f, sd, inst;
hidden byte fresh, ver;

/* ---- network ---- */

inline put(pv)
{
	p2 = pv; j = 0;
	do
	:: j < K && net[j] > p2 -> j++
	:: else -> break
	od;
	if
	:: j == K -> overflow()
#ifndef LIVE
	:: j < K && net[j] == p2 -> skip
#endif
	:: else ->
		if
		:: net[K-1] != 0 -> overflow()
		:: else ->
			k = K - 1;
			do
			:: k > j -> net[k] = net[k-1]; k--
			:: else -> break
			od;
			net[j] = p2
		fi
	fi;
	k = 0; j = 0
}
hidden int p2;

inline overflow()
{
#ifdef LIVE
	assert(false)		/* K is too small */
#else
	skip			/* lost */
#endif
}

inline del(di)
{
	j = di;
	do
	:: j < K - 1 -> net[j] = net[j+1]; j++
	:: else -> break
	od;
	net[K-1] = 0; j = 0
}

/* [AUTH-3] no nonce of ours goes to a stranger */
inline send(sx, so, sdst, se, sn, sc, sq, sg, sf)
{
	if
	:: (sdst) == NOADDR -> skip
	:: else ->
		assert(!((sdst) == EVIL && ((so) >= PAUSE && (so) <= RACK)));
		put(PK((so) + QPN(sx, so), ADDR(sx), sdst, se, sn, sc, sq, sg, sf))
	fi
}

inline sendpause(ax, ac)
{
	send(ax, PAUSE, av[ax], ep[ax], sec[ax], ac, 0, 0, 0)
}

inline sendprobe(bx, bc)
{
#ifndef MUTANT_NO_PROBE
	send(bx, PROBE, av[bx], 0, chal[bx], bc, 0, 0, (ps[bx] || nakp[bx]));
	if
	:: fwd[bx] != av[bx] -> send(bx, PROBE, fwd[bx], 0, chal[bx], bc, 0, 0, (ps[bx] || nakp[bx]))
	:: else -> skip
	fi
#else
	skip
#endif
}

inline sendresume(cx, cc)
{
	send(cx, RESUME, av[cx], ep[cx], sec[cx], cc, 0, ADDR(cx), 0);
	if
	:: fwd[cx] != av[cx] -> send(cx, RESUME, fwd[cx], ep[cx], sec[cx], cc, 0, ADDR(cx), 0)
	:: else -> skip
	fi
}

/* answer an unverified PAUSE or RESUME: ask who we believe in */
inline askback(yc)
{
#ifndef MUTANT_NO_PROBE
	if
	:: src == av[h] || src == fwd[h] -> send(h, PROBE, src, 0, chal[h], yc, 0, 0, (ps[h] || nakp[h]))
	:: else -> sendprobe(h, yc)
	fi
#else
	skip
#endif
}

/* ---- data ---- */

inline complete(mx)
{
	assert(gc[SIDE(mx)] == una[mx]);			/* once, in order */
	assert(gx[1 - SIDE(mx)] > una[mx]);		/* only what was executed */
	gc[SIDE(mx)]++;
	una[mx]++;
	if
	:: nxt[mx] < una[mx] -> nxt[mx] = una[mx]
	:: else -> skip
	fi
}

inline request()
{
	if
	:: src != av[h] -> skip
	:: src == av[h] && LIVEI(h) ->
		if
		:: psn == xp[h] ->
			assert(gx[sd] == psn);		/* exactly once, in order */
#ifdef MEET
			assert(SIDE(non) != sd);	/* and only the partner's */
#endif
			gx[sd]++;
			xp[h]++;
			if
			:: READ(psn) -> send(h, RSP, src, 0, ORIGIN(h), 0, psn, 0, 0)
			:: else -> send(h, ACK, src, 0, ORIGIN(h), 0, psn, 0, 0)
			fi
		:: psn < xp[h] && READ(psn) -> send(h, RSP, src, 0, ORIGIN(h), 0, psn, 0, 0)
		:: psn < xp[h] && !READ(psn) -> send(h, ACK, src, 0, ORIGIN(h), 0, xp[h] - 1, 0, 0)
		:: else -> skip
		fi
#ifdef MUTANT_STOPPED_EXECUTES
	:: src == av[h] && st[h] == STOP && psn == xp[h] ->
		assert(gx[sd] == psn);
		gx[sd]++;
		xp[h]++;
		send(h, ACK, src, 0, 0, 0, psn, 0, 0)
#endif
	:: src == av[h] && FROZEN(h) && psn <= xp[h] && cap[h] && pchal[h] != 0 ->
		assert(!(STOCKB && sd == 0));		/* [CAP-3] it would die */
		send(h, NAKS, src, 0, pchal[h], 0, psn, 0, 0)
	:: else -> skip
	fi
}

inline response()
{
	if
	:: LIVEI(h) && src == av[h] && op == ACK ->
		do
		:: una[h] <= psn && una[h] < NMSG(sd) && (!READ(una[h]) || f == 1) ->
			assert(!READ(una[h]));		/* a READ without its data */
			complete(h)
		:: else -> break
		od
	:: LIVEI(h) && src == av[h] && op == RSP ->
		do
		:: una[h] < psn && !READ(una[h]) -> complete(h)
		:: else -> break
		od;
		if
		:: una[h] == psn -> complete(h)
		:: else -> skip
		fi
	:: else -> skip
	fi
}

/* ---- protocol ---- */

#ifdef MUTANT_NO_EPOCH
#define FRESH 1
#else
#define FRESH (e > pe[h] || (e == pe[h] && ps[h]))
#endif
#ifdef MUTANT_SOURCE
#define TRUSTED (src == av[h])
#else
#define TRUSTED 1
#endif

inline rxpause()
{
	if
	:: !LIVEI(h) || !FRESH -> skip
#ifdef MUTANT_NO_CHALLENGE
	:: else ->
#else
	:: LIVEI(h) && FRESH && (ech == 0 || ech != chal[h] || !TRUSTED) -> askback(non)
	:: else ->
#endif
		assert(non != BAD && e <= gep[1-sd] && e > gres[1-sd]);
		pe[h] = e; psec[h] = non; ps[h] = 1; nakp[h] = 0; cap[h] = 1;
		askback(non)
	fi
}

inline rxnak()
{
	if
	:: !LIVEI(h) || src != av[h] || psn < una[h] -> skip
	:: else ->
		if
#ifdef MUTANT_NO_CHALLENGE
		:: 1 ->
#else
		:: non == chal[h] ->
#endif
			/* the partner has a Stop that we have not resumed from */
			assert(gep[1-sd] > gres[1-sd]);
			if
			:: !ps[h] -> nakp[h] = 1
			:: else -> skip
			fi
#ifndef MUTANT_NO_CHALLENGE
		:: else -> sendprobe(h, ps[h] * psec[h])
#endif
		fi
	fi
}

inline rxprobe()
{
	if
	:: FROZEN(h) ->
#ifdef MUTANT_CAPABILITY
		cap[h] = 1; pchal[h] = non;
#endif
		if
		:: ech == sec[h] ->
			cap[h] = 1; pchal[h] = non;
			if
			:: f == 1 -> ann[h] = 1
			:: else -> skip
			fi
		:: else -> skip
		fi;
		if
		:: sfwd[h] != NOADDR ->
#ifdef MUTANT_MOVED_TO_AV
			send(h, MOVED, av[h], ep[h], 0, non, 0, sfwd[h], 0)
#else
			send(h, MOVED, src, ep[h], 0, non, 0, sfwd[h], 0)
#endif
		:: else ->
			if
#ifdef MUTANT_PAUSE_TO_SOURCE
			:: 1 -> send(h, PAUSE, src, ep[h], sec[h], non, 0, 0, 0)
#endif
#ifdef MUTANT_PINGPONG
			:: src == av[h] -> sendpause(h, non)
#else
			:: (src == av[h] || src == fwd[h]) && !(f == 1 && ech == sec[h]) ->
				send(h, PAUSE, src, ep[h], sec[h], non, 0, 0, 0)
#endif
			:: else -> skip
			fi
		fi
	:: LIVEI(h) && pend[h] ->
#ifdef MUTANT_RUNNING
		if
		:: st[h] == RUN -> send(h, RUNNING, av[h], ep[h], chal[h], non, 0, 0, 0)
		:: else -> send(h, RESUME, src, ep[h], sec[h], non, 0, ADDR(h), 0)
		fi
#else
		if
		:: src == av[h] || src == fwd[h] -> send(h, RESUME, src, ep[h], sec[h], non, 0, ADDR(h), 0)
		:: else -> skip
		fi
#endif
#ifdef MUTANT_RUNNING_TO_SOURCE
	:: LIVEI(h) && !pend[h] ->
#else
	:: LIVEI(h) && !pend[h] && src == av[h] ->
#endif
		send(h, RUNNING, src, ep[h], chal[h], non, 0, 0, 0)
	:: else -> skip
	fi
}

inline rxrunning()
{
	if
	:: LIVEI(h) && ech == chal[h] ->
		nakp[h] = 0; cap[h] = 1;
		if
		:: pchal[h] == 0 -> pchal[h] = non
		:: else -> skip
		fi;
#ifdef MUTANT_RUNNING
		if
		:: ps[h] -> ps[h] = 0
		:: else -> skip
		fi
#endif
	:: else -> skip
	fi
}

inline rxresume()
{
	if
#ifdef MUTANT_STOPPED_ACKS
	:: LIVEI(h) || st[h] == STOP ->
#else
	:: LIVEI(h) ->
#endif
		fresh = FRESH;
		ver = (ps[h] && non == psec[h]) || (ech != 0 && ech == chal[h] && TRUSTED);
#ifdef MUTANT_RESUME_ANY
		ver = 1;
#endif
		if
		:: !fresh ->
			if
			:: e == pe[h] && non == psec[h] && src == av[h] ->
				send(h, RACK, src, e, chal[h], non, 0, 0, 0)
			:: else -> skip
			fi
		:: fresh && (!ver || gid != src) -> askback(non)
		:: else ->
			/* the AV changes only to where that epoch truly lives */
			assert(e <= gep[1-sd] && e > gres[1-sd] && src == gloc[(1-sd)*4+e]);
			if
			:: LIVEI(h) -> gres[1-sd] = e
			:: else -> skip
			fi;
			av[h] = src; fwd[h] = NOADDR;
			pe[h] = e; psec[h] = non; ps[h] = 0; nakp[h] = 0; cap[h] = 1;
			nxt[h] = una[h];
			chal[h]++;
			assert(chal[h] < CHAL0(sd + 1));
#ifdef MUTANT_PLAIN_ACK
			if
			:: xp[h] > 0 -> send(h, ACK, src, 0, 0, 0, xp[h] - 1, 0, 1)
			:: else -> skip
			fi;
#endif
			send(h, RACK, src, e, chal[h], non, 0, 0, 0);
			if
			:: pend[h] && LIVEI(h) ->
#ifdef MUTANT_LIMIT_ENDS	/* it ran while the partner was Stopped */
				st[h] = RUN; lim[h] = 1
#else
				st[h] = RES; lim[h] = 0;
				send(h, RESUME, src, ep[h], sec[h], pchal[h], 0, ADDR(h), 0)
#endif
			:: else -> skip
			fi
		fi
	:: FROZEN(h) && sfwd[h] != NOADDR ->
#ifdef MUTANT_MOVED_TO_AV
		send(h, MOVED, av[h], ep[h], 0, non, 0, sfwd[h], 0)
#else
		send(h, MOVED, src, ep[h], 0, non, 0, sfwd[h], 0)
#endif
	:: FROZEN(h) && sfwd[h] == NOADDR && src == av[h] -> sendpause(h, pchal[h])
	:: else -> skip
	fi
}

inline rxrack()
{
	if
	:: LIVEI(h) && pend[h] && e == ep[h] && ech == sec[h] ->
		cap[h] = 1; pchal[h] = non;
		if
#if defined(MUTANT_ACK_ANY) || defined(MUTANT_ACK_MOVES)
		:: 1 ->
#else
		:: src == av[h] ->
#endif
#ifdef MUTANT_ACK_MOVES
			fwd[h] = NOADDR; av[h] = src;
#endif
			pend[h] = 0; lim[h] = 0; st[h] = RUN; nxt[h] = una[h]
		:: else -> skip
		fi
	:: else -> skip
	fi
}

#ifdef MUTANT_OLD_MOVED
#define MFRESH 1
#else
#define MFRESH FRESH
#endif

inline rxmoved()
{
	if
#ifdef MUTANT_OWN_ADDRESS
	:: gid == ADDR(h) -> skip
#endif
	:: LIVEI(h) && MFRESH && TRUSTED && gid != fwd[h] && ech == chal[h] ->
		assert(gid != EVIL);
		fwd[h] = gid;
#ifndef MUTANT_NO_PROBE
		send(h, PROBE, gid, 0, chal[h], ps[h] * psec[h], 0, 0, (ps[h] || nakp[h]))
#endif
	:: LIVEI(h) && MFRESH && TRUSTED && gid != fwd[h] && ech != chal[h] && pend[h] && ech == sec[h] ->
		assert(gid != EVIL);
		fwd[h] = gid;
		send(h, RESUME, gid, ep[h], sec[h], pchal[h], 0, ADDR(h), 0)
	:: else -> skip
	fi
}

inline rxself()
{
	if
	:: FROZEN(h) && non == sec[h] && e >= ep[h] ->
		sfwd[h] = src
	:: else -> skip
	fi
}

inline handle()
{
	op = (p >> 24) & 15; src = (p >> 21) & 7; e = (p >> 16) & 3;
	non = (p >> 12) & 15; ech = (p >> 8) & 15; psn = (p >> 5) & 7;
	gid = (p >> 2) & 7; f = p & 3; sd = SIDE(h);
	printf("%d->%d op%d epoch %d nonce %d echo %d psn %d gid %d f %d\n", src, h, op, e, non, ech, psn, gid, f);
	if
	:: st[h] == NONE -> skip
	:: st[h] != NONE && op == REQ -> request()
	:: st[h] != NONE && (op == ACK || op == RSP) -> response()
	:: else ->
		if
		:: STOCKB && sd == 1 -> assert(op != NAKS)
		:: else ->
			if
			:: op == NAKS -> rxnak()
			:: op == PAUSE -> rxpause()
			:: op == PROBE -> rxprobe()
			:: op == RUNNING -> rxrunning()
			:: op == RESUME -> rxresume()
			:: op == RACK -> rxrack()
			:: op == MOVED -> rxmoved()
			:: op == SELF -> rxself()
			:: else -> assert(false)
			fi
		fi
	fi
}

/* ---- life of an instance ---- */

inline copy(fx, fy)
{
	ep[fy] = ep[fx]; sec[fy] = sec[fx]; chal[fy] = chal[fx]; pe[fy] = pe[fx];
	psec[fy] = psec[fx]; pchal[fy] = pchal[fx]; av[fy] = av[fx];
	una[fy] = una[fx]; xp[fy] = xp[fx]; ps[fy] = ps[fx]; cap[fy] = cap[fx]
}

inline clear(kx)
{
	st[kx] = NONE; ep[kx] = 0; sec[kx] = 0; chal[kx] = 0; pe[kx] = 0;
	psec[kx] = 0; pchal[kx] = 0; av[kx] = NOADDR; fwd[kx] = NOADDR;
	sfwd[kx] = NOADDR; old[kx] = NOADDR; una[kx] = 0; nxt[kx] = 0; xp[kx] = 0;
	pend[kx] = 0; ps[kx] = 0; cap[kx] = 0; nakp[kx] = 0; ann[kx] = 0; lim[kx] = 0
}

inline dostop(so1)
{
	inst = cur[so1]; printf("stop %d\n", inst);
	stops[so1]--;
	ep[inst]++; gep[so1]++;
	assert(gep[so1] == ep[inst]);
	if
#ifndef MUTANT_NEW_SECRET
	:: pend[inst] -> skip				/* [AUTH-1] */
	:: else -> sec[inst] = SECRET(so1, ep[inst])
#else
	:: 1 -> sec[inst] = SECRET(so1, ep[inst])
#endif
	fi;
	st[inst] = STOP; pend[inst] = 0; lim[inst] = 0; nakp[inst] = 0; nxt[inst] = una[inst]; old[inst] = NOADDR;
	sfwd[inst] = NOADDR; ann[inst] = 0;
	gloc[so1*4+ep[inst]] = ADDR(inst);
	copy(inst, IMG(so1));
	old[IMG(so1)] = ADDR(inst);
	image[so1] = 1; comm[so1] = 0;
	quiet()
}

inline docancel(so2)
{
	inst = cur[so2];
	st[inst] = RES; pend[inst] = 1; image[so2] = 0;
	clear(IMG(so2));
	onelive();
	quiet()
}

/* a device has one tombstone with a QPN [TOMB-3] */
inline endstone(ux)
{
	if
	:: PLACE(ux) != ux -> clear(PLACE(ux))
	:: else -> skip
	fi
}

inline dotomb(so3, fin)
{
	inst = cur[so3]; printf("destroy %d\n", inst);
	st[inst] = fin;
	if
	:: fin == NONE -> clear(inst)
	:: else ->	/* what a tombstone keeps */
		endstone(inst);
		una[inst] = 0; nxt[inst] = 0; chal[inst] = 0; psec[inst] = 0; pe[inst] = 0; ps[inst] = 0; ann[inst] = 0
	fi;
	quiet()
}

inline dorestore(so4)
{
	inst = nexth[so4]; printf("restore %d\n", inst);
	clear(inst);
	copy(IMG(so4), inst);
	nxt[inst] = una[inst]; pend[inst] = 1;
	if
#ifndef MUTANT_TOMBSTONE_OF_PARTNER
	:: MEETS(inst) -> skip
#endif
	:: else -> endstone(inst)
	fi;
	if
	:: ADDR(inst) != old[IMG(so4)] -> old[inst] = old[IMG(so4)]
	:: else -> skip
	fi;
	if
	:: ADDR(inst) == old[IMG(so4)] && !cap[inst] -> st[inst] = RUN	/* RESUME-2 */
	:: else -> st[inst] = RES
	fi;
	gloc[so4*4+ep[inst]] = ADDR(inst);
	clear(IMG(so4));
	cur[so4] = inst; home[so4] = inst; image[so4] = 0;
	if
	:: so4 == 0 -> nexth[so4] = NEXTA(inst)
	:: else -> nexth[so4] = inst + 1
	fi;
	onelive();
	quiet()
}

/* [PAUSE-10], or the retries of RC are used up: what was posted fails */
inline dofail(ex1)
{
	printf("error %d\n", ex1);
	st[ex1] = ERR; pend[ex1] = 0; ps[ex1] = 0; nakp[ex1] = 0; lim[ex1] = 0;
	nxt[ex1] = una[ex1]; stops[SIDE(ex1)] = 0; gone[SIDE(ex1)] = 1;
	quiet()
}

/* Nobody will restore it: its host died, or its snapshot was thrown away */
inline dolose(ls1)
{
	printf("lost %d\n", cur[ls1]);
	if
	:: st[cur[ls1]] == TOMB -> skip
	:: else -> clear(cur[ls1])
	fi;
	clear(IMG(ls1));
	image[ls1] = 0; comm[ls1] = 0; stops[ls1] = 0; gone[ls1] = 1;
	quiet()
}

inline onelive()
{
	assert((LIVEI(0)) + (LIVEI(1)) + (LIVEI(2)) <= 1);
	assert((LIVEI(3)) + (LIVEI(4)) <= 1)
}

inline quiet()
{
	rounds = 0; hops = 0; inst = 0
}

#define oldh(s) (3 * (s) + (1 - (s)) * (1 - (cur[0] & 1)))

#if defined(PATIENT) && defined(MEET)	/* no second Stop while it meets itself */
#define MAYSTOP(s) (!MEETS(cur[s]))
#elif defined(PATIENT)	/* ... before the first old host knows */
#define MAYSTOP(s) (!(pend[cur[s]] && old[cur[s]] != NOADDR && sfwd[oldh(s)] == NOADDR))
#else
#define MAYSTOP(s) 1
#endif

inline life(ls)
{
	if
	:: atomic { stops[ls] > 0 && LIVEI(cur[ls]) && MAYSTOP(ls) -> d_step { dostop(ls) } }
	:: atomic { cancels > 0 && st[cur[ls]] == STOP && image[ls] && sfwd[cur[ls]] == NOADDR &&
		!comm[ls] -> d_step { cancels--; docancel(ls) } }
	:: atomic { image[ls] && !comm[ls] -> comm[ls] = 1 }
#ifdef MUTANT_NO_COMMIT
	/* the lease of the old instance ends although the image was used */
	:: atomic { ls == 0 && st[0] == STOP && cur[0] == 1 -> d_step { st[0] = RES; pend[0] = 1; onelive() } }
#endif
#ifndef NOTOMB
	:: atomic { comm[ls] && image[ls] && st[cur[ls]] == STOP -> d_step { dotomb(ls, TOMB) } }
	/* the old process may outlive the restore */
	:: atomic { comm[ls] && !image[ls] && st[oldh(ls)] == STOP && oldh(ls) != cur[ls] ->
		d_step { una[oldh(ls)] = 0; nxt[oldh(ls)] = 0; st[oldh(ls)] = TOMB; endstone(oldh(ls)); quiet() } }
#endif
#ifdef CRASH
	/* the old host dies after the dump, without a tombstone */
	:: atomic { comm[ls] && image[ls] && st[cur[ls]] == STOP && (CRASH) -> d_step { dotomb(ls, NONE) } }
#endif
#ifdef LOST
	:: atomic { ls == 0 && !GONE(0) && (LIVEI(cur[0]) || image[0]) -> d_step { dolose(0) } }
#endif
	:: atomic { comm[ls] && image[ls] && nexth[ls] != cur[ls] && (st[PLACE(nexth[ls])] == NONE || st[PLACE(nexth[ls])] == TOMB) -> d_step { dorestore(ls) } }
	fi
}

/* ---- attacker: knows addresses, numbers and all nonces that were retired ---- */

inline evil(vo, ve, vn, vc, vg, vf)
{
	if
	:: s0 == 0 -> d_step { put(PK(vo, av[cur[0]], ADDR(cur[0]), ve, vn, vc, 0, vg, vf)) }
	:: s0 == 0 -> d_step { put(PK(vo, EVIL, ADDR(cur[0]), ve, vn, vc, 0, vg, vf)) }
	:: s0 == 1 -> d_step { put(PK(vo, av[cur[1]], ADDR(cur[1]), ve, vn, vc, 0, vg, vf)) }
	:: s0 == 1 -> d_step { put(PK(vo, EVIL, ADDR(cur[1]), ve, vn, vc, 0, vg, vf)) }
	fi
}

inline attack()
{
	atomic {
		attacks > 0 && st[cur[0]] != NONE && st[cur[1]] != NONE && net[K-1] == 0 ->
		attacks--;
		if
		:: s0 = 0
		:: s0 = 1
		fi;
		if
		:: evil(PAUSE, 3, BAD, BAD, 0, 0)
		:: evil(PAUSE, 3, BAD, 0, 0, 0)
		:: evil(PROBE, 0, BAD, 0, 0, 1)
		:: evil(PROBE, 0, BAD, BAD, 0, 0)
		:: evil(RUNNING, 3, 0, BAD, 0, 0)
		:: !STOCKB -> evil(NAKS, 0, BAD, 0, 0, 0)	/* kills stock, with or without us */
		:: evil(RESUME, 3, BAD, BAD, EVIL, 0)
		:: evil(SELF, 3, BAD, 0, EVIL, 0)
		:: evil(RACK, 1, BAD, BAD, 0, 0)
		:: evil(MOVED, 3, 0, BAD, EVIL, 0)
		/* replays, from any address, of what is already used up */
		:: gres[1-s0] >= 1 && (gep[1-s0] == gres[1-s0]) -> evil(RESUME, 1, SECRET(1-s0, 1), CHAL0(s0), EVIL, 0)
		:: gres[1-s0] >= 1 && (gep[1-s0] == gres[1-s0]) -> evil(PAUSE, 1, SECRET(1-s0, 1), CHAL0(s0), 0, 0)
		:: gres[1-s0] >= 1 && (gep[1-s0] == gres[1-s0]) -> evil(MOVED, 1, 0, CHAL0(s0), EVIL, 0)
		:: gres[1-s0] >= 1 && (gep[1-s0] == gres[1-s0]) && !STOCKB -> evil(NAKS, 0, CHAL0(s0), 0, 0, 0)
		fi;
		s0 = 0
	}
}
byte s0;

/* ---- timers ---- */

#define HELD(x) (ps[x] || nakp[x])
#ifdef MUTANT_SERVES_ITSELF
#define MAYRUN(x) 1
#else
#define MAYRUN(x) (!MEETS(x))	/* after RESUME_LIMIT [RESUME-9] */
#endif
#define MAYSEND(x) (st[x] == RUN && !HELD(x) && nxt[x] < NMSG(SIDE(x)))

inline senddata(ex)
{
	send(ex, REQ, av[ex], 0, ORIGIN(ex), 0, nxt[ex], 0, 0);
	nxt[ex]++
}

#ifdef LIVE
#define WHOLE(x) (st[x] == RUN && !HELD(x) && (STOCKB || lim[x] || !pend[x]) && una[x] == NMSG(SIDE(x)) && xp[x] == NMSG(1-SIDE(x)))
/* Where one is gone the other has no work that waits. */
#define SETTLED(s) (GONE(s) || (LIVEI(cur[s]) && una[cur[s]] == NMSG(s)))
#define DONE ((LIVEI(cur[0]) && LIVEI(cur[1]) && WHOLE(cur[0]) && WHOLE(cur[1]) && \
	av[cur[0]] == ADDR(cur[1]) && av[cur[1]] == ADDR(cur[0])) || \
	((GONE(0) || GONE(1)) && SETTLED(0) && SETTLED(1)))
#define UP(s) (LIVEI(cur[s]) || GONE(s))
#if LATE > 0
#define IDLE (net[0] == 0 && held == 0)
#else
#define IDLE (net[0] == 0)
#endif

inline tickhost(tx)
{
	if
	:: st[tx] == STOP && !ann[tx] -> sendpause(tx, pchal[tx])
	:: LIVEI(tx) && !(STOCKB && SIDE(tx) == 1) ->
		if
		:: pend[tx] && !lim[tx] ->
			sendresume(tx, pchal[tx]);
			send(tx, SELF, old[tx], ep[tx], sec[tx], 0, 0, 0, 0)
		:: else -> skip
		fi;
		if
		:: HELD(tx) -> sendprobe(tx, ps[tx] * psec[tx])
		:: else -> skip
		fi
	:: else -> skip
	fi;
	if
	:: LIVEI(tx) -> nxt[tx] = una[tx]
	:: else -> skip
	fi;
#if PLIMITS > 0 || LOSTA
	if
	:: LIVEI(tx) && GONE(1 - SIDE(tx)) && una[tx] < NMSG(SIDE(tx)) && rounds > 2 ->
		if
#ifndef MUTANT_NO_PAUSE_LIMIT
		:: HELD(tx) -> dofail(tx)
#endif
#ifndef MUTANT_NO_RESUME_LIMIT
		:: !HELD(tx) && st[tx] == RES -> st[tx] = RUN; lim[tx] = 1
#endif
		:: !HELD(tx) && st[tx] == RUN -> dofail(tx)	/* the retries of RC */
		:: else -> skip
		fi
	:: else -> skip
	fi
#endif
}

/* the sides take turns */
bit turn;

inline tick()
{
	if
	:: turn == 0 ->
		tickhost(0); tickhost(1);
#if STOPSA > 1
		tickhost(2)
#else
		skip
#endif
	:: else ->
		tickhost(3);
#if STOPSB > 0
		tickhost(4)
#else
		skip
#endif
	fi;
	if
	:: UP(0) && UP(1) -> rounds = rounds + turn
	:: else -> rounds = 0
	fi;
	assert(rounds <= RMAX);		/* heals in RMAX rounds of timers */
	turn = 1 - turn; hops = 0
}
#endif

byte dsta;
#ifdef LIVE
#define TARGETS(x) ((dsta == 0 && x == home[0]) || (dsta == 3 && x == home[1]))
#else
#define TARGETS(x) (ADDR(x) == dsta && st[x] != NONE)
#endif

/* choose a packet and a host that has its address */
inline choose()
{
	i = 0;
	do
	:: i < K - 1 && net[i+1] != 0 -> i++
	:: break
	od;
	dsta = (net[i] >> 18) & 7;
	h = NOADDR;
#ifdef SAME
	if
	:: TARGETS(0) -> h = 0
	:: TARGETS(1) -> h = 1
	:: TARGETS(2) -> h = 2
	:: TARGETS(3) -> h = 3
	:: TARGETS(4) -> h = 4
	:: else -> skip
	fi
#else
	if
	:: dsta < 5 -> h = dsta
	:: else -> skip
	fi
#endif
}

#if defined(MEET) || defined(TOGETHER)
#define HERE(x) (ADDR(x) == dsta && st[x] != NONE && QPN(x, SELF) == ((p >> 24) & 16))
/* [TOMB-2] the QP that is there, else the tombstone */
inline find()
{
	op = (p >> 24) & 15; src = (p >> 21) & 7;
	h = NOADDR; inst = NOADDR; j = 0;
	do
	:: j < 5 ->
		if
		:: HERE(j) && st[j] != TOMB -> h = j
		:: HERE(j) && st[j] == TOMB -> inst = j
		:: else -> skip
		fi;
		j++
	:: else -> break
	od;
	if
	:: h == NOADDR -> h = inst
#ifndef MUTANT_SELF_TO_LIVE
	:: h != NOADDR && op == SELF && st[h] != STOP -> h = inst
#endif
#ifndef MUTANT_ASKS_ITSELF
	:: h != NOADDR && (op == PROBE || op == RESUME) && MEETS(h) && src == av[h] -> h = inst
#endif
	:: else -> skip
	fi;
#if defined(MEET) && !defined(OLDDATA)
	/* no data packet of its own lives as long as the moves of both [TIME-3] */
	non = (p >> 12) & 15;
	if
	:: h != NOADDR && op <= RSP && non != h && SIDE(non) == SIDE(h) -> h = NOADDR
	:: else -> skip
	fi;
#endif
	inst = 0; j = 0
}
#endif

inline deliver()
{
#if defined(MEET) || defined(TOGETHER)
	find();
#endif
	if
	:: h != NOADDR -> handle()
	:: else -> skip
	fi;
	i = 0; h = 0; dsta = 0
}

init {
	d_step {
		h = 0;
		do
		:: h < 7 -> clear(h); h++
		:: else -> break
		od;
		st[0] = RUN; av[0] = ADDR(3); chal[0] = CHAL0(0);
		st[3] = RUN; av[3] = ADDR(0); chal[3] = CHAL0(1);
		cur[0] = 0; cur[1] = 3; nexth[0] = 1; nexth[1] = 4;
		home[0] = 0; home[1] = 3;
		stops[0] = STOPSA; stops[1] = STOPSB;
		gloc[0] = ADDR(0); gloc[4] = ADDR(3);
#ifdef ASKED	/* A has asked before its Stop */
		cap[0] = 1; pchal[0] = chal[3];
#endif
		h = 0
	}
	do
#ifdef LIVE
	:: atomic { net[0] != 0 -> choose(); d_step {
		p = net[i]; del(i); hops++; assert(hops < 60); deliver() } }
	:: atomic { net[0] != 0 && dups > 0 -> choose(); d_step {
		dups--; rounds = 0; p = net[i]; hops = 0; deliver() } }
	:: atomic { net[0] != 0 && losses > 0 -> choose(); d_step {
		losses--; rounds = 0; hops = 0; del(i); i = 0; h = 0; dsta = 0 } }
#if LATE > 0
	:: atomic { net[0] != 0 && lates > 0 && held == 0 -> choose(); d_step {
		lates--; rounds = 0; hops = 0; held = net[i]; del(i); i = 0; h = 0; dsta = 0 } }
	:: d_step { held != 0 -> rounds = 0; hops = 0; put(held); held = 0 }
#endif
	:: d_step { net[0] == 0 && !MAYSEND(cur[0]) && !MAYSEND(cur[1]) && !DONE -> tick() }
	:: IDLE && DONE && stops[0] == 0 && stops[1] == 0 -> break
#else
	:: atomic { net[0] != 0 -> choose(); d_step { p = net[i]; deliver() } }
	:: atomic { net[0] != 0 -> choose(); d_step { del(i); i = 0; h = 0; dsta = 0 } }
	/* timers */
	:: atomic { net[K-1] == 0 -> if
		:: h = 0
		:: h = 1
#if STOPSA > 1
		:: h = 2
#endif
		:: h = 3
#if STOPSB > 0
		:: h = 4
#endif
		fi;
		if
		:: st[h] == STOP -> d_step { sendpause(h, pchal[h]) }
		:: LIVEI(h) && pend[h] -> d_step { sendresume(h, pchal[h]) }
		:: LIVEI(h) && pend[h] && old[h] != NOADDR -> d_step { send(h, SELF, old[h], ep[h], sec[h], 0, 0, 0, 0) }
		:: LIVEI(h) && HELD(h) && !(STOCKB && SIDE(h) == 1) -> d_step { sendprobe(h, ps[h] * psec[h]) }
		:: LIVEI(h) && nxt[h] > una[h] -> nxt[h] = una[h]
		:: else -> skip
		fi;
		h = 0 }
#endif
#if ASK > 0
	/* before the first Stop, or at any time after [CAP-6] */
	:: d_step { asks > 0 && st[cur[0]] == RUN && !HELD(cur[0]) && net[K-1] == 0 ->
		asks--; sendprobe(cur[0], 0); quiet() }
#endif
	/* RESUME_LIMIT; the partner is Paused and the tombstone knows us */
	:: d_step { limits > 0 && st[cur[0]] == RES && MAYRUN(cur[0]) && HELD(cur[1]) && sfwd[oldh(0)] != NOADDR ->
		limits--; st[cur[0]] = RUN; lim[cur[0]] = 1; quiet() }
#if PLIMITS > 0
	/* PAUSE_LIMIT, with work outstanding */
	:: d_step { plimits > 0 && LIVEI(cur[0]) && HELD(cur[0]) && una[cur[0]] < NMSG(0) ->
		plimits--; dofail(cur[0]) }
	:: d_step { plimits > 0 && LIVEI(cur[1]) && HELD(cur[1]) && una[cur[1]] < NMSG(1) ->
		plimits--; dofail(cur[1]) }
#endif
	:: d_step { MAYSEND(cur[0]) && net[K-1] == 0 -> senddata(cur[0]) }
	:: d_step { MAYSEND(cur[1]) && net[K-1] == 0 -> senddata(cur[1]) }
#if defined(COVER) && (PLIMITS > 0 || LOSTA)
	:: d_step { GONE(1) && (LOSTA || (LIVEI(cur[0]) && lim[cur[0]])) -> assert(false) }
#elif defined(COVER)	/* must fail: everything this configuration is about can happen */
	:: d_step { gres[0] == STOPSA && gres[1] == STOPSB && gc[0] == NA && gc[1] == NB && LIVEI(cur[0]) && LIVEI(cur[1]) && !pend[cur[0]] && !pend[cur[1]] -> assert(false) }
#endif
	:: life(0)
#if STOPSB > 0
	:: life(1)
#endif
#if ATTACK > 0
	:: attack()
#endif
	od
}
