/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_REAL_H
#define PRELOAD_REAL_H

/*
 * The functions behind the hooks: what the next library in line, usually the
 * libc, does under the same name.
 */

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <unistd.h>

/* Called by programs built with _FORTIFY_SOURCE; no header declares them. */
ssize_t __read_chk(int fd, void *buf, size_t n, size_t size);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *restrict buf, size_t n, size_t size,
	int flags, struct sockaddr *restrict addr, socklen_t *restrict len);

/* <resolv.h> has them as macros, or not at all. */
struct __res_state;
int __res_init(void);
int __res_ninit(struct __res_state *state);

struct real {
#define HOOK(name)     __typeof__(name) *name;
#define HOOK_OPT(name) __typeof__(name) *name;
#include "preload/symbols.h"
#undef HOOK
#undef HOOK_OPT
};

/**
 * real() - the bound functions
 *
 * Bound once, by the constructor or by the first hook that runs before it.
 * Binding twice at the same time is harmless: both write the same values.
 *
 * Return: never NULL. A HOOK_OPT member is NULL where the libc has none.
 */
const struct real *real(void);

/** real_socket() - a close-on-exec socket(2) of protocol 0 */
static inline int real_socket(int domain, int type)
{
	return socket(domain, type | SOCK_CLOEXEC, 0); /* not hooked */
}

/** fail() - set errno. Return: -1 */
static inline int fail(int err)
{
	errno = err;
	return -1;
}

/** done() - leave errno alone on success. @saved: errno before. Return: @rc */
static inline int done(int rc, int saved)
{
	if (rc != -1)
		errno = saved;
	return rc;
}

/* Marks the functions that the library exports. Nothing else is visible. */
#define EXPORT __attribute__((visibility("default")))

#endif
