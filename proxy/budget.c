/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/budget.h"

#include <assert.h>
#include <limits.h>
#include <sys/resource.h>

/* With no limit at all; the kernel's own (fs.nr_open) is a million or so. */
#define UNLIMITED 1048576L

long fd_limit_raise(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == -1)
		return 1024;
	if (rl.rlim_cur < rl.rlim_max) {
		rlim_t soft = rl.rlim_cur;

		rl.rlim_cur = rl.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &rl) == -1)
			rl.rlim_cur = soft;
	}
	if (rl.rlim_cur == RLIM_INFINITY || rl.rlim_cur > (rlim_t)LONG_MAX)
		return UNLIMITED;
	return (long)rl.rlim_cur;
}

void fd_budget_init(struct fd_budget *budget, long limit, long reserved)
{
	long left = limit - reserved;

	if (left < limit / 2)
		left = limit / 2;
	if (left < FDS_PER_CONNECTION)
		left = FDS_PER_CONNECTION;
	atomic_init(&budget->used, 0);
	budget->limit = left;
}

bool fd_budget_take(struct fd_budget *budget, long n)
{
	long before = atomic_fetch_add(&budget->used, n);

	if (before + n <= budget->limit)
		return true;
	atomic_fetch_sub(&budget->used, n);
	return false;
}

void fd_budget_charge(struct fd_budget *budget, long n)
{
	atomic_fetch_add(&budget->used, n);
}

void fd_budget_give(struct fd_budget *budget, long n)
{
	long before = atomic_fetch_sub(&budget->used, n);

	assert(before >= n);
	(void)before;
}
