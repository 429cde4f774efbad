/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_POINTER_H
#define PRELOAD_POINTER_H

/*
 * Pointers that an application hands to a system call may be bad ones: the
 * kernel then says EFAULT, and a hook that looks itself must not crash instead.
 * Where the real call goes first it has looked already. Elsewhere:
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/** pointer_is_wild() - one that programs use to see EFAULT, in the first or
 * last page. NULL is not, since most calls take it. Costs nothing */
static inline bool pointer_is_wild(const void *p)
{
	uintptr_t at = (uintptr_t)p;

	return p && (at < 4096 || at >= (uintptr_t)-4096);
}

/**
 * pointer_is_readable() - can so many bytes be read? Keeps errno
 * @p:   where
 * @len: 1 to 4096
 *
 * The kernel looks: this system call reads eight bytes before it finds that
 * it is asked for nothing that it knows.
 */
static inline bool pointer_is_readable(const void *p, size_t len)
{
	const uintptr_t ends[] = {(uintptr_t)p, (uintptr_t)p + len - 1};
	int saved = errno;
	bool good = p && !pointer_is_wild(p);

	for (int i = 0; i < 2; i++)
		good = good &&
		       (syscall(SYS_rt_sigprocmask, -1, ends[i] & ~(uintptr_t)7,
				NULL, 8) != -1 ||
			       errno != EFAULT);
	errno = saved;
	return good;
}

#endif
