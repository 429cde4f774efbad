/* SPDX-License-Identifier: Apache-2.0 */

/*
 * accept() and accept4().
 *
 * The real call goes first: on a control (a connected SEQPACKET socket) it says
 * EINVAL, which no listening TCP socket does. An ACCEPT message is then read
 * from the control, with whatever waiting the fd is set to: O_NONBLOCK,
 * SO_RCVTIMEO, SA_RESTART and another process on the same fd all work on
 * recvmsg() as they do on accept().
 *
 * An ACCEPT whose fd cannot be received is lost to the client, while TCP leaves
 * it in the queue. So the fd is sure before the message is read: a probe takes
 * a number and gives it back.
 */

#include "common/fd.h"
#include "common/vendor_msg.h"
#include "preload/control.h"
#include "preload/option.h"
#include "preload/real.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* How long an accept() pauses when there is no vendor at all, so that an
 * event loop which sees the hang-up again does not spin. */
#define NO_VENDOR_PAUSE_MS 50

static int fd_is_to_be_had(int fd)
{
	int probe = real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (probe == -1)
		return -1;
	closefd(&probe);
	return 0;
}

/* Hand out the client's address as the kernel does. */
static void give_peer(
	const struct ip_port *peer, struct sockaddr *addr, socklen_t *len)
{
	union sockaddr_any any;
	socklen_t whole = ip_port_to_sockaddr(peer, &any);

	if (!addr || !len)
		return;
	memcpy(addr, &any, whole < *len ? whole : *len);
	*len = whole;
}

/* The flags of the new fd, what is known of it, and the options that it has
 * from the listener, as in the kernel. */
static void dress(int conn, const struct found *listener,
	const struct vendor_result *res, int flags)
{
	struct record rec = {
		.kind = RECORD_CARRIER,
		.family = listener->rec.family,
		.remote = res->remote,
		.local = res->local,
	};

	fd_set_nonblock(conn, flags & SOCK_NONBLOCK);
	if (!(flags & SOCK_CLOEXEC))
		fd_set_cloexec(conn, false);
	memcpy(rec.options, listener->rec.options, sizeof(rec.options));
	option_replay(conn, &rec);
	slot_store(conn, socket_cookie(conn), &rec);
}

/* The listener's vendor died. Return: 0 to read again, or -1 and errno. */
static int rejoin(int fd, struct found *found, bool nonblock)
{
	if (control_rejoin(fd, found) == -1) {
		poll(NULL, 0, NO_VENDOR_PAUSE_MS);
		return nonblock ? fail(EAGAIN) : 0;
	}
	return 0;
}

/* Return: the connection and *res, or -1 and errno. */
static int next_client(int fd, struct found *found, struct vendor_result *res)
{
	bool nonblock = real()->fcntl(fd, F_GETFL) & O_NONBLOCK;
	int conn;
	int nr_fds;

	for (;;) {
		ssize_t n = fd_recv(fd, res, sizeof(*res), &conn, &nr_fds, 0);

		if (n == -1 && errno != ECONNRESET)
			return -1;
		if (n > 0 && !vendor_result_check(res, (size_t)n, nr_fds) &&
			res->op == VENDOR_ACCEPT && res->status == 0)
			return conn;
		closefd_if(&conn);
		if (n > 0)
			continue; /* not a client; the vendor is trusted */
		if (!lookup(fd, found) || found->rec.shut)
			return fail(EINVAL);
		if (rejoin(fd, found, nonblock) == -1)
			return -1;
	}
}

static int proxy_accept(
	int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct vendor_result res;
	struct found found;
	int saved = errno;
	int conn;

	if (!lookup(fd, &found) || found.rec.kind != RECORD_LISTENER)
		return fail(EINVAL);
	if (found.rec.shut)
		return fail(EINVAL);
	if (fd_is_to_be_had(fd) == -1)
		return -1;
	conn = next_client(fd, &found, &res);
	if (conn == -1)
		return -1;
	dress(conn, &found, &res, flags);
	give_peer(&res.remote, addr, len);
	errno = saved;
	return conn;
}

EXPORT int accept(
	int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
	int rc = real()->accept(fd, addr, len);

	return rc == -1 && errno == EINVAL ? proxy_accept(fd, addr, len, 0)
					   : rc;
}

EXPORT int accept4(int fd, struct sockaddr *restrict addr,
	socklen_t *restrict len, int flags)
{
	int rc = real()->accept4(fd, addr, len, flags);

	if (rc != -1 || errno != EINVAL ||
		(flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)))
		return rc;
	return proxy_accept(fd, addr, len, flags);
}
