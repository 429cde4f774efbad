/* SPDX-License-Identifier: Apache-2.0 */

/*
 * bind() and listen().
 *
 * Theory of operation
 *
 * A bind() to a wildcard or outside address reserves the port on the host at
 * once, so that EADDRINUSE and EACCES are known when TCP would tell them. A
 * bind() to loopback stays with the kernel.
 *
 * Any port (port 0) on a wildcard address is the one case that waits: most who
 * ask for it are clients that choose no port at all and connect() next, and a
 * host port for each of them would be waste. The kernel binds the socket, and
 * the host's port is reserved by the first call that shows or uses it,
 * getsockname() or listen(). The kernel's port number is never seen.
 *
 *	fd			bind()		listen()	connect()
 *	TCP, unbound		TCP or control	control, any	gate
 *	TCP, deferred		EINVAL		control		gate
 *	control, bound		EINVAL		listener	gate; port let
 * go control, listening	EINVAL		stays		EISCONN
 */

#include "preload/listen.h"
#include "preload/address.h"
#include "preload/config.h"
#include "preload/control.h"
#include "preload/real.h"

#include <errno.h>
#include <netinet/tcp.h>

static void note_deferred(int fd)
{
	struct found found;
	int saved = errno;

	lookup_options(fd, &found);
	found.rec.deferred = 1;
	slot_store(fd, found.cookie, &found.rec);
	errno = saved;
}

/* Where the kernel has bound an unconnected TCP socket; an unbound one is at
 * the wildcard address, port 0. */
static int kernel_address(int fd, struct ip_port *out)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);

	if (real()->getsockname(fd, &any.sa, &len) == -1)
		return -1;
	return ip_port_from_sockaddr(out, &any.sa, len);
}

static int proxy_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	union sockaddr_any any;
	struct ip_port dst, at;
	struct found found;
	socklen_t taken = address_take(&any, addr, len);
	int rc;

	if (taken == 0 || ip_port_from_sockaddr(&dst, &any.sa, taken) == -1)
		return real()->bind(fd, addr, len);
	if (kernel_tcp_state(fd) != TCP_CLOSE)
		return lookup(fd, &found) ? fail(EINVAL)
					  : real()->bind(fd, addr, len);
	if (!config_exports(&dst) || kernel_address(fd, &at) == -1 ||
		at.family != dst.family || at.port != 0)
		return real()->bind(fd, addr, len);
	if (dst.port != 0 || !ip_port_is_any(&dst))
		return control_bind(fd, &dst);
	rc = real()->bind(fd, addr, len);
	if (rc == 0)
		note_deferred(fd);
	return rc;
}

int reserve_deferred(int fd)
{
	struct ip_port at;
	struct found found;

	/* It may have connected, to what stays with the kernel, since. */
	if (!slot_known(fd) || !lookup_options(fd, &found) ||
		!found.rec.deferred || kernel_tcp_state(fd) != TCP_CLOSE ||
		kernel_address(fd, &at) == -1)
		return 0;
	at.port = 0;
	return control_bind(fd, &at);
}

/* listen() on a TCP socket of the kernel's: bound by us in a deferred way, by
 * nobody, or by a program without this library. */
static int listen_on_tcp(int fd, int backlog)
{
	struct ip_port at;
	struct found found;

	if (kernel_address(fd, &at) == -1 || !config_exports(&at))
		return real()->listen(fd, backlog);
	if (lookup_options(fd, &found) && found.rec.deferred)
		at.port = 0;
	if (control_bind(fd, &at) == -1)
		return -1;
	return lookup(fd, &found) ? control_listen(fd, &found, backlog)
				  : fail(EBADF);
}

static int proxy_listen(int fd, int backlog)
{
	struct found found;
	int state = kernel_tcp_state(fd);

	if (state == TCP_CLOSE)
		return listen_on_tcp(fd, backlog);
	if (state != -1 || !lookup(fd, &found))
		return real()->listen(fd, backlog);
	if (found.rec.kind == RECORD_BOUND || found.rec.kind == RECORD_LISTENER)
		return control_listen(fd, &found, backlog);
	return fail(EINVAL);
}

EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int saved = errno;

	return done(proxy_bind(fd, addr, len), saved);
}

EXPORT int listen(int fd, int backlog)
{
	int saved = errno;

	return done(proxy_listen(fd, backlog), saved);
}
