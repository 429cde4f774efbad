/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What the C library's resolver needs in a machine without a network.
 *
 * Theory of operation
 *
 * Its queries are the DNS stub's matter; what is left is two habits.
 *
 * getaddrinfo() sorts addresses by RFC 6724, for which it asks the kernel for a
 * route to each of them. Where there is none to any of them, IPv6 comes first.
 * But many a host has no IPv6, and many a program tries only the first address
 * that it is given (busybox wget, Node before 20): names with addresses of
 * both families would be out of its reach, though a network without IPv6 would
 * have shown it IPv4 first. So IPv4 goes first here. Where the kernel does have
 * a route to either, the order is left alone.
 *
 * res_init() and res_ninit() read RES_OPTIONS; C libraries that do not know
 * use-vc there, and programs that have taken the variable out of their
 * environment, are given RES_USEVC if the library was started with it. Only
 * glibc before 2.34 heeds it in a way that matters: then its TCP connection
 * comes to connect(). In glibc's headers res_init is a macro.
 */

#include "preload/config.h"
#include "preload/real.h"

#include <resolv.h>
#include <string.h>

/* Connecting a UDP socket sends nothing. */
static bool has_route(const struct addrinfo *ai)
{
	int fd = real_socket(ai->ai_family, SOCK_DGRAM);
	bool routed;

	if (fd == -1)
		return false;
	routed = real()->connect(fd, ai->ai_addr, ai->ai_addrlen) == 0;
	close(fd);
	return routed;
}

static const struct addrinfo *first_of(const struct addrinfo *list, int family)
{
	while (list && list->ai_family != family)
		list = list->ai_next;
	return list;
}

/* Move IPv4 to the front, in the order that it has. */
static void reorder(struct addrinfo **list)
{
	struct addrinfo *old = *list;
	struct addrinfo *others = NULL;
	struct addrinfo **end = list;
	struct addrinfo **others_end = &others;
	struct addrinfo *ai;

	for (ai = old; ai; ai = ai->ai_next) {
		struct addrinfo ***to =
			ai->ai_family == AF_INET ? &end : &others_end;

		**to = ai;
		*to = &ai->ai_next;
	}
	*others_end = NULL;
	*end = others;
	/* The first one has the name. */
	ai = *list;
	if (ai && ai != old && !ai->ai_canonname) {
		ai->ai_canonname = old->ai_canonname;
		old->ai_canonname = NULL;
	}
}

static void prefer_ipv4(struct addrinfo **list)
{
	const struct addrinfo *v4 = first_of(*list, AF_INET);
	const struct addrinfo *v6 = first_of(*list, AF_INET6);
	int saved = errno;

	if (v4 && v6 && v4 != *list && !has_route(v6) && !has_route(v4))
		reorder(list);
	errno = saved;
}

EXPORT int getaddrinfo(const char *restrict node, const char *restrict service,
	const struct addrinfo *restrict hints, struct addrinfo **restrict res)
{
	int rc = real()->getaddrinfo(node, service, hints, res);

	if (rc == 0 && node)
		prefer_ipv4(res);
	return rc;
}

static int use_vc(int rc, struct __res_state *state)
{
	if (rc == 0 && config()->use_vc)
		state->options |= RES_USEVC;
	return rc;
}

EXPORT int __res_init(void)
{
	if (!real()->__res_init)
		return fail(ENOSYS);
	return use_vc(real()->__res_init(), &_res);
}

EXPORT int __res_ninit(struct __res_state *state)
{
	if (!real()->__res_ninit)
		return fail(ENOSYS);
	return use_vc(real()->__res_ninit(state), state);
}
