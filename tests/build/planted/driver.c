/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Faults that scripts/coccinelle puts behind each of the driver's files, to see that
 * it finds them. Where it has to say something, there is a comment.
 */

static int planted_pointer(struct planted *p)
{
	if (!p)
		return p->length;	/* found */
	return 0;
}

static void planted_free(struct planted *p)
{
	kfree(p);
	p->length = 0;	/* found */
}

static struct planted *planted_error(struct planted *p)
{
	if (IS_ERR(p))
		return ERR_PTR(PTR_ERR(p));	/* found */
	return p;
}

static int planted_sign(void)
{
	u32 length = planted_length();

	if (length < 0)	/* found */
		return -EINVAL;
	return 0;
}

static void planted_semicolon(struct planted *p)
{
	switch (p->length) {
	case 0:
		p->length = 1;
	};	/* found */
}

static int planted_lock(struct planted *p)
{
	mutex_lock(&p->lock);
	if (p->length)
		return -EBUSY;	/* found */
	mutex_unlock(&p->lock);
	return 0;
}
