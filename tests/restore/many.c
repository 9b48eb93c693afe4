// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Many objects, while others come and go.
 */
#include <pthread.h>

#include "suite.h"

#define MANY 10000
#define CHURN_IOVA 0x40000000000ULL

static volatile bool churn_stop;
static struct ibv_pd *churn_pd;
static volatile unsigned long churned;
static bool eio_is_bad;

/* While a context is looked at, its other calls fail like this for now */
static bool again(bool failed_call)
{
	if (!failed_call || errno != EIO || eio_is_bad)
		return false;
	usleep(1000);
	return true;
}

#define repeat(call)                                                           \
	do {                                                                   \
		while (again((errno = (call))))                                \
			;                                                      \
		if (errno)                                                     \
			die("%s:%d: %s: %s", __FILE__, __LINE__, #call,        \
			    err_name(errno));                                  \
	} while (0)

#define repeat_ptr(ptr, call)                                                  \
	do {                                                                   \
		while (again(!((ptr) = (call))))                               \
			;                                                      \
		if (!(ptr))                                                    \
			die("%s:%d: %s: %s", __FILE__, __LINE__, #call,        \
			    err_name(errno));                                  \
	} while (0)

/* At any moment there are one or two of these MRs, and two are neighbours */
static void *churn_mrs(void *arg)
{
	struct ibv_mr *old = NULL, *new;

	(void)arg;
	while (!churn_stop) {
		repeat_ptr(new, ibv_reg_mr_iova(churn_pd, BUF, 4096,
						CHURN_IOVA + churned * 4096,
						REMOTE));
		if (old)
			repeat(ibv_dereg_mr(old));
		old = new;
		churned++;
	}
	return NULL;
}

/* Families of objects: none without its parents */
static void *churn_families(void *arg)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 1, .max_recv_wr = 1,
			 .max_send_sge = 1, .max_recv_sge = 1 },
	};
	struct ibv_pd *pd;
	struct ibv_mr *mr;
	struct ibv_cq *cq;
	struct ibv_qp *qp;

	(void)arg;
	while (!churn_stop) {
		repeat_ptr(pd, ibv_alloc_pd(o.ctx));
		repeat_ptr(mr, ibv_reg_mr(pd, BUF, 4096, 0));
		repeat_ptr(cq, ibv_create_cq(o.ctx, 1, NULL, NULL, 0));
		init.send_cq = init.recv_cq = cq;
		repeat_ptr(qp, ibv_create_qp(pd, &init));
		repeat(ibv_destroy_qp(qp));
		repeat(ibv_destroy_cq(cq));
		repeat(ibv_dereg_mr(mr));
		repeat(ibv_dealloc_pd(pd));
	}
	return NULL;
}

static uint8_t *type_of;	/* by handle */
static uint32_t max_handles;

static void parent(const struct rxe_mig_rec *rec, uint32_t handle,
		   uint32_t type)
{
	if (handle >= max_handles || type_of[handle] != type)
		bad("type %u handle %u refers to handle %u, which is no %s",
		    rec->type, rec->handle, handle, type_names[type]);
}

static void check_parents(const struct rxe_mig_rec *rec)
{
	const struct rxe_mig_qp_rec *qp = (void *)rec;

	switch (rec->type) {
	case RXE_MIG_REC_MR:
		parent(rec, ((struct rxe_mig_mr *)rec)->pd, RXE_MIG_REC_PD);
		break;
	case RXE_MIG_REC_SRQ:
		parent(rec, ((struct rxe_mig_srq *)rec)->pd, RXE_MIG_REC_PD);
		break;
	case RXE_MIG_REC_AH:
		parent(rec, ((struct rxe_mig_ah *)rec)->pd, RXE_MIG_REC_PD);
		break;
	case RXE_MIG_REC_MW:
		parent(rec, ((struct rxe_mig_mw *)rec)->pd, RXE_MIG_REC_PD);
		break;
	case RXE_MIG_REC_QP:
		parent(rec, qp->pd, RXE_MIG_REC_PD);
		parent(rec, qp->send_cq, RXE_MIG_REC_CQ);
		parent(rec, qp->recv_cq, RXE_MIG_REC_CQ);
		if (qp->srq != RXE_MIG_NONE)
			parent(rec, qp->srq, RXE_MIG_REC_SRQ);
		break;
	}
}

/* Returns the number of records that are not of the threads above */
static int check_snapshot(void)
{
	struct rxe_mig_context *context = (void *)first_of(0);
	uint64_t low = ~0ULL, high = 0, iova;
	int num = 0, moving = 0;
	struct rxe_mig_rec *rec;

	max_handles = context->max_handle + 1;
	type_of = calloc(max_handles, 1);
	check(type_of, "memory");
	for_each_rec(0, rec) {
		num++;
		if (rec->type < RXE_MIG_REC_PD)
			continue;
		if (rec->handle >= max_handles) {
			bad("handle %u above the highest", rec->handle);
			continue;
		}
		if (type_of[rec->handle])
			bad("handle %u twice", rec->handle);
		check_parents(rec);
		type_of[rec->handle] = rec->type;
		if (rec->type != RXE_MIG_REC_MR)
			continue;
		iova = ((struct rxe_mig_mr *)rec)->iova;
		if (iova < CHURN_IOVA || iova >= (uintptr_t)BUF)
			continue;
		moving++;
		low = iova < low ? iova : low;
		high = iova > high ? iova : high;
	}
	if (moving < 1 || moving > 2 || high - low != (moving - 1) * 4096ULL)
		bad("%d MRs, %llu and %llu, were never there together", moving,
		    (unsigned long long)(low - CHURN_IOVA) / 4096,
		    (unsigned long long)(high - CHURN_IOVA) / 4096);
	free(type_of);
	return num;
}

static void make_many(void)
{
	int i;

	for (i = 0; i != MANY; i += 20) {
		make_pd();
		make_cq(1, NULL);
		make_cq(1, NULL);
		make_srq(1);
		make_qp(IBV_QPT_RC, NULL);
		make_qp(IBV_QPT_UD, o.srq);
		make_mw(IBV_MW_TYPE_1);
		make_mw(IBV_MW_TYPE_2);
		make_ah(true);
		check(o.mr = ibv_reg_mr(o.pd, BUF, 4096, REMOTE), "reg_mr");
		for (int j = 0; j != 10; j++)
			check(ibv_reg_mr(o.pd, BUF + j * 4096, 64, 0),
			      "reg_mr");
	}
}

static void c_many(void)
{
	pthread_t threads[2];
	int i, num, before;

	o.ctx = open_device(device);
	churn_pd = make_pd();
	make_many();
	dump(o.ctx, 0);
	check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
	before = hdr_of(0)->count;
	if (before < MANY)
		bad("%d objects", before);
	check0(pthread_create(&threads[0], NULL, churn_mrs, NULL));
	check0(pthread_create(&threads[1], NULL, churn_families, NULL));
	while (churned < 3)
		usleep(1000);
	for (i = 0; i != 5; i++) {
		unsigned long since = churned;

		dump(o.ctx, 0);
		num = check_snapshot();
		/* One or two MRs, and at most one of each of a family */
		if (num < before + 1 || num > before + 6)
			bad("%d records, were %d", num, before);
		check0(context_cmd(o.ctx, IBV_RESTORE_CANCEL));
		for (int j = 0; j != 5000 && churned < since + 3; j++)
			usleep(1000);
	}
	churn_stop = true;
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	printf("# %d records of %llu bytes, %lu MRs came and went\n", num,
	       hdr_of(0)->total_len, churned);
}

/* ibv_dump_context(3): without a buffer it only checks */
static void c_check_disturbs(void)
{
	pthread_t thread;
	int i;

	o.ctx = open_device(device);
	churn_pd = make_pd();
	for (i = 0; i != 500; i++)
		make_mr(REMOTE);
	eio_is_bad = true;
	check0(pthread_create(&thread, NULL, churn_mrs, NULL));
	for (i = 0; i != 200; i++) {
		expect(0, ibv_dump_context(o.ctx, NULL, NULL, 0), "check");
		usleep(1000);
	}
	churn_stop = true;
	pthread_join(thread, NULL);
}

static void c_many_restored(void)
{
	round_trip(make_many, true);
}

const struct test many_tests[] = {
	{ "many: one snapshot, while objects come and go", c_many },
	{ "many: equal", c_many_restored },
	{ "no effect: checks while objects come and go", c_check_disturbs },
	{}
};
