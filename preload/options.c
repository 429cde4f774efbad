/* SPDX-License-Identifier: Apache-2.0 */

/*
 * getsockopt(), setsockopt() and ioctl(): the real call goes first, and only
 * an answer that a TCP socket would not give is looked at again (option.h).
 */

#include "preload/config.h"
#include "preload/descriptors.h"
#include "preload/gate.h"
#include "preload/option.h"
#include "preload/pointer.h"
#include "preload/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>

/* Memory to look at queued data with, and how often it fits into the window of
 * a carrier, 1 MiB (vendor/dial.c). */
#define PEEK_PIECE  4096
#define PEEK_PIECES 256

static int give_int(int value, void *out, socklen_t *len)
{
	socklen_t n = *len < sizeof(value) ? *len : sizeof(value);

	memcpy(out, &value, n);
	*len = n;
	return 0;
}

/* What SO_PEERCRED says on a socket that is not a unix one. */
static int give_no_cred(void *out, socklen_t *len)
{
	static const struct ucred nobody = {0, (uid_t)-1, (gid_t)-1};
	socklen_t n = *len < sizeof(nobody) ? *len : sizeof(nobody);

	memcpy(out, &nobody, n);
	*len = n;
	return 0;
}

/* An option of TCP's, or of nobody's, that the socket behind the fd has not:
 * unix and vsock sockets refuse whole levels. */
static bool refused_level(int rc, int level)
{
	return rc == -1 && level != SOL_SOCKET &&
	       (errno == EOPNOTSUPP || errno == ENOPROTOOPT);
}

/* SOL_SOCKET options that tell what kind of socket this is, or that only a
 * TCP socket takes (SO_REUSEPORT since 6.12). They are looked at on every fd,
 * all others only where the slot is in use. */
static bool tells_kind(int name)
{
	switch (name) {
	case SO_DOMAIN:
	case SO_PROTOCOL:
	case SO_TYPE:
	case SO_PEERCRED:
	case SO_ACCEPTCONN:
	case SO_REUSEPORT: return true;
	default: return false;
	}
}

/* May the socket behind the fd give another answer than TCP would? */
static bool may_differ(int fd, int level, int name)
{
	if (level != SOL_SOCKET)
		return false;
	if (tells_kind(name))
		return true;
	return slot_known(fd) &&
	       (name == SO_ERROR || option_is_kept(level, name, 1));
}

/* What the vendor needs the socket for, it does not lend to the application. */
static bool only_noted(const struct found *found, int name)
{
	return name == SO_REUSEPORT || found->rec.kind == RECORD_GATE ||
	       found->rec.kind == RECORD_BOUND;
}

/* SO_ERROR of a gate is the errno of the attempt, once; of a control, whose
 * end is not the application's, there is none. */
static int answer_error(
	int fd, const struct found *found, int *value, socklen_t *len)
{
	int err = 0;

	switch (found->rec.kind) {
	case RECORD_GATE:
		switch (gate_settle(fd, GATE_TAKE, &err)) {
		case GATE_PENDING: return give_int(0, value, len);
		case GATE_FAILED: return give_int(err, value, len);
		case GATE_NONE:
		case GATE_OPEN: break;
		}
		return real()->getsockopt(fd, SOL_SOCKET, SO_ERROR, value, len);
	case RECORD_BOUND:
	case RECORD_LISTENER: return give_int(0, value, len);
	default: return 0; /* as the carrier said */
	}
}

/* The real call has answered, so there is room for @len bytes at @value. */
static int answer(int fd, const struct found *found, int name, void *value,
	socklen_t *len)
{
	switch (name) {
	case SO_DOMAIN: return give_int(found->rec.family, value, len);
	case SO_PROTOCOL: return give_int(IPPROTO_TCP, value, len);
	case SO_TYPE: return give_int(SOCK_STREAM, value, len);
	case SO_PEERCRED: return give_no_cred(value, len);
	case SO_ERROR: return answer_error(fd, found, value, len);
	case SO_ACCEPTCONN:
		return give_int(
			found->rec.kind == RECORD_LISTENER && !found->rec.shut,
			value, len);
	case SO_BINDTODEVICE: return 0; /* its length is not known any more */
	default:
		return only_noted(found, name)
			       ? option_oracle_get(
					 found, SOL_SOCKET, name, value, len)
			       : 0;
	}
}

/* A TCP carrier has options of these levels itself, but those that the vendor
 * and the library gave it. Its TCP_INFO is as true as any. */
static bool speaks_for_carrier(int fd, int level, int name)
{
	return config()->endpoint.kind == ENDPOINT_TCP && level != SOL_SOCKET &&
	       !(level == IPPROTO_TCP && name == TCP_INFO) && slot_known(fd);
}

EXPORT int getsockopt(int fd, int level, int name, void *restrict value,
	socklen_t *restrict len)
{
	struct found found;
	int saved = errno;
	int rc = real()->getsockopt(fd, level, name, value, len);

	if (rc == 0 && may_differ(fd, level, name) && lookup(fd, &found))
		return answer(fd, &found, name, value, len);
	if (rc == 0 && speaks_for_carrier(fd, level, name) &&
		lookup(fd, &found))
		return option_oracle_get(&found, level, name, value, len);
	if (!refused_level(rc, level) || !lookup(fd, &found))
		return rc;
	errno = saved;
	return option_oracle_get(&found, level, name, value, len);
}

EXPORT int setsockopt(
	int fd, int level, int name, const void *value, socklen_t len)
{
	struct found found;
	int saved = errno;
	int rc;

	if (level == SOL_SOCKET && option_is_kept(level, name, len) &&
		(tells_kind(name) || slot_known(fd)) && lookup(fd, &found) &&
		only_noted(&found, name))
		return option_oracle_set(fd, &found, level, name, value, len);
	rc = real()->setsockopt(fd, level, name, value, len);
	if (rc == 0 && value)
		option_note(fd, level, name, value, len);
	if (!refused_level(rc, level) || !lookup(fd, &found))
		return rc;
	errno = saved;
	return option_oracle_set(fd, &found, level, name, value, len);
}

/* Return: whether the request was answered. */
static bool ioctl_on_ours(int fd, unsigned long request, void *arg)
{
	int err;

	/* The result waiting in a gate is not the application's data. */
	if (request == FIONREAD && slot_may_be_gate(fd) &&
		gate_settle(fd, GATE_LOOK, &err) > GATE_NONE && err != 0 &&
		real()->ioctl(fd, request, arg) == 0) {
		*(int *)arg = 0;
		return true;
	}
	if (request == FIONCLEX && slot_known(fd))
		tag_for_leaving(fd);
	return false;
}

/* Look at what there is, over and over into the same few bytes of memory.
 * Return: as recv(2). */
static ssize_t peek_all(int fd, size_t pieces)
{
	char scratch[PEEK_PIECE];
	struct iovec iov[PEEK_PIECES];
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = pieces};

	for (size_t i = 0; i < pieces; i++) {
		iov[i].iov_base = scratch;
		iov[i].iov_len = sizeof(scratch);
	}
	return real()->recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
}

/* A vsock learnt to tell how much there is to read with 6.17. Mostly it is
 * little; the most that it can be is the window that the vendor gave it. */
static int count_readable(int fd, int *count)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	ssize_t n = peek_all(fd, 1);

	if (n == PEEK_PIECE)
		n = peek_all(fd, PEEK_PIECES);
	if (!pointer_is_readable(count, sizeof(*count)))
		return fail(EFAULT);
	if (n == -1 && errno == EOPNOTSUPP) /* nor to peek, before 5.5 */
		n = poll(&pfd, 1, 0) == 1;
	*count = n > 0 ? (int)n : 0;
	return 0;
}

static int proxy_ioctl(int fd, unsigned long request, void *arg)
{
	struct found found;
	int rc;

	if (ioctl_on_ours(fd, request, arg))
		return 0;
	rc = real()->ioctl(fd, request, arg);
	if (rc == -1 && request == FIONREAD &&
		(errno == EOPNOTSUPP || errno == ENOTTY) &&
		lookup(fd, &found) && found.rec.kind == RECORD_CARRIER)
		return count_readable(fd, arg);
	return rc;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	int saved = errno;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	return done(proxy_ioctl(fd, request, arg), saved);
}
