/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * glibc moved dlsym() to libc and gave it a new version in 2.34. The old one
 * is still there, and asking for it lets one build run on every glibc since
 * 2.17 (x86-64: the base version 2.2.5).
 */
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver dlsym, dlsym@GLIBC_2.17");
#endif

/* Written by bind_all() only; read-only once `bound` is set. */
static struct real table;
static atomic_bool bound;

/* A function pointer from what dlsym() returns, without the cast that ISO C
 * does not have. */
static void bind_one(void *slot, const char *name, void *hook)
{
	void *found = dlsym(RTLD_NEXT, name);

	/* Loaded twice, under two names, the next function may be a hook of
	 * the same kind; only its very self would recurse for ever. */
	if (found == hook)
		found = NULL;
	__atomic_store((void **)slot, &found, __ATOMIC_RELAXED);
}

static void bind_all(void)
{
	int saved = errno;

#define HOOK(name)     bind_one(&table.name, #name, (void *)(uintptr_t)name);
#define HOOK_OPT(name) bind_one(&table.name, #name, (void *)(uintptr_t)name);
#include "preload/symbols.h"
#undef HOOK
#undef HOOK_OPT
	atomic_store_explicit(&bound, true, memory_order_release);
	errno = saved;
}

const struct real *real(void)
{
	if (!atomic_load_explicit(&bound, memory_order_acquire))
		bind_all();
	return &table;
}

/*
 * What the modules shared with the daemons call here (common/meson.build
 * renames the calls): the plain functions would be our own hooks.
 */
ssize_t guest_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t guest_recvmsg(int fd, struct msghdr *msg, int flags);
int guest_fcntl(int fd, int cmd, ...);
int guest_setsockopt(
	int fd, int level, int name, const void *value, socklen_t len);

ssize_t guest_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return real()->sendmsg(fd, msg, flags);
}

ssize_t guest_recvmsg(int fd, struct msghdr *msg, int flags)
{
	return real()->recvmsg(fd, msg, flags);
}

int guest_fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return real()->fcntl(fd, cmd, arg);
}

int guest_setsockopt(
	int fd, int level, int name, const void *value, socklen_t len)
{
	return real()->setsockopt(fd, level, name, value, len);
}

__attribute__((constructor)) static void bind_at_start(void)
{
	real();
}
