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
 * it in the queue. The real call sees to that: it looks for a free number
 * before anything else, and says EMFILE.
 */

#include "common/fd.h"
#include "common/vendor_msg.h"
#include "preload/address.h"
#include "preload/control.h"
#include "preload/option.h"
#include "preload/pointer.h"
#include "preload/real.h"
#include "preload/tag.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/time.h>

/* How long an accept() pauses when there is no vendor at all, so that an
 * event loop which sees the hang-up again does not spin. */
#define NO_VENDOR_PAUSE_MS 50

/* TCP finds fault with these when it has a client, which is lost then. */
static int check_arguments(const struct sockaddr *addr, const socklen_t *len)
{
	if (!addr)
		return 0;
	if (!len || pointer_is_wild(len) || pointer_is_wild(addr))
		return fail(EFAULT);
	return *len > INT32_MAX ? fail(EINVAL) : 0;
}

/* The flags of the new fd, what is known of it, and the options that it has
 * from the listener, as in the kernel. */
static void dress(int conn, const struct found *listener,
	const struct vendor_result *res, struct record *rec, int flags)
{
	*rec = (struct record){
		.kind = RECORD_CARRIER,
		.family = listener->rec.family,
	};
	record_addresses(rec, &res->remote, &res->local);
	fd_set_nonblock(conn, flags & SOCK_NONBLOCK);
	if (!(flags & SOCK_CLOEXEC))
		fd_set_cloexec(conn, false);
	memcpy(rec->options, listener->rec.options, sizeof(rec->options));
	option_replay(conn, rec);
	slot_store(conn, socket_cookie(conn), rec);
}

/* May this accept() wait for as long as it takes? */
static bool waits(int fd, const struct found *found)
{
	const struct option_value *opt =
		option_noted(&found->rec, SOL_SOCKET, SO_RCVTIMEO);
	struct timeval limit = {0, 0};

	if (opt && opt->len >= sizeof(limit))
		memcpy(&limit, opt->value, sizeof(limit));
	return !(real()->fcntl(fd, F_GETFL) & O_NONBLOCK) &&
	       limit.tv_sec == 0 && limit.tv_usec == 0;
}

/* The listener's vendor died. Return: 0 to read again, or -1 and errno. */
static int rejoin(int fd, struct found *found)
{
	uint64_t dead = found->cookie;

	if (control_rejoin(fd, found) == 0 || socket_cookie(fd) != dead)
		return 0; /* perhaps another thread was faster */
	if (poll(NULL, 0, NO_VENDOR_PAUSE_MS) == -1)
		return -1; /* EINTR */
	return waits(fd, found) ? 0 : fail(EAGAIN);
}

/* Has this process or another one called shutdown()? */
static bool is_shut(int fd, const struct found *found)
{
	struct record tag;

	return found->rec.shut || (tag_read(fd, &tag) && tag.shut);
}

static bool is_client(const struct vendor_result *res, ssize_t len, int nr_fds)
{
	return len > 0 && !vendor_result_check(res, (size_t)len, nr_fds) &&
	       res->op == VENDOR_ACCEPT && res->status == 0;
}

/* Return: the connection and *res, or -1 and errno. */
static int next_client(int fd, struct found *found, struct vendor_result *res)
{
	for (;;) {
		uint64_t asked = found->cookie;
		int conn, nr_fds;
		ssize_t n = fd_recv(fd, res, sizeof(*res), &conn, &nr_fds, 0);

		if (n == -1 && errno != ECONNRESET)
			return -1;
		if (is_client(res, n, nr_fds))
			return conn;
		closefd_if(&conn);
		if (n > 0)
			continue; /* not a client; the vendor is trusted */
		if (!lookup(fd, found) || found->rec.kind != RECORD_LISTENER ||
			is_shut(fd, found))
			return fail(EINVAL);
		/* Another thread may have been faster. */
		if (found->cookie == asked && rejoin(fd, found) == -1)
			return -1;
	}
}

static int proxy_accept(
	int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct vendor_result res;
	struct record rec;
	struct found found;
	int conn;

	if (!lookup(fd, &found) || found.rec.kind != RECORD_LISTENER ||
		found.rec.shut)
		return fail(EINVAL);
	if (check_arguments(addr, len) == -1)
		return -1;
	conn = next_client(fd, &found, &res);
	if (conn == -1)
		return -1;
	dress(conn, &found, &res, &rec, flags);
	if (addr)
		address_give(&rec.remote, rec.family, addr, len);
	return conn;
}

EXPORT int accept(
	int fd, struct sockaddr *restrict addr, socklen_t *restrict len)
{
	int saved = errno;
	int rc = real()->accept(fd, addr, len);

	if (rc != -1 || errno != EINVAL)
		return rc;
	return done(proxy_accept(fd, addr, len, 0), saved);
}

EXPORT int accept4(int fd, struct sockaddr *restrict addr,
	socklen_t *restrict len, int flags)
{
	int saved = errno;
	int rc = real()->accept4(fd, addr, len, flags);

	if (rc != -1 || errno != EINVAL ||
		(flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)))
		return rc;
	return done(proxy_accept(fd, addr, len, flags), saved);
}
