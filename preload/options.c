/* SPDX-License-Identifier: Apache-2.0 */

/*
 * getsockopt(), setsockopt() and ioctl(): the real call goes first, and only
 * an answer that a TCP socket would not give is looked at again (option.h).
 */

#include "preload/config.h"
#include "preload/descriptors.h"
#include "preload/gate.h"
#include "preload/option.h"
#include "preload/real.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <string.h>

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

/* Levels that unix and vsock sockets refuse altogether. */
static bool is_inet_level(int level)
{
	return level == IPPROTO_TCP || level == IPPROTO_IP ||
	       level == IPPROTO_IPV6;
}

static bool refused_level(int rc, int level)
{
	return rc == -1 && is_inet_level(level) &&
	       (errno == EOPNOTSUPP || errno == ENOPROTOOPT);
}

/* SOL_SOCKET options that tell what kind of socket this is, or that only a
 * TCP socket takes (SO_REUSEPORT since 6.12), or that the gate uses itself. */
static bool tells_kind(int level, int name)
{
	if (level != SOL_SOCKET)
		return false;
	switch (name) {
	case SO_DOMAIN:
	case SO_PROTOCOL:
	case SO_TYPE:
	case SO_PEERCRED:
	case SO_REUSEPORT:
	case SO_SNDBUF: return true;
	default: return false;
	}
}

static int answer_kind(
	const struct found *found, int name, void *value, socklen_t *len)
{
	switch (name) {
	case SO_DOMAIN: return give_int(found->rec.family, value, len);
	case SO_PROTOCOL: return give_int(IPPROTO_TCP, value, len);
	case SO_TYPE: return give_int(SOCK_STREAM, value, len);
	case SO_PEERCRED: return give_no_cred(value, len);
	default: return option_oracle_get(found, SOL_SOCKET, name, value, len);
	}
}

/* SO_ERROR of a gate is the errno of the attempt, once. */
static bool gate_error(int fd, void *value, socklen_t *len)
{
	int err;

	switch (gate_settle(fd, GATE_TAKE, &err)) {
	case GATE_PENDING: err = 0; break;
	case GATE_FAILED: break;
	case GATE_NONE:
	case GATE_OPEN: return false;
	}
	give_int(err, value, len);
	return true;
}

EXPORT int getsockopt(int fd, int level, int name, void *restrict value,
	socklen_t *restrict len)
{
	socklen_t room = len ? *len : 0;
	struct found found;
	int saved = errno;
	int rc;

	if (level == SOL_SOCKET && name == SO_ERROR && slot_may_be_gate(fd) &&
		value && len && gate_error(fd, value, len))
		return 0;
	rc = real()->getsockopt(fd, level, name, value, len);
	if (!value || !len ||
		!(refused_level(rc, level) ||
			(rc == 0 && tells_kind(level, name))) ||
		!lookup(fd, &found))
		return rc;
	if (name == SO_SNDBUF && level == SOL_SOCKET &&
		found.rec.kind != RECORD_GATE)
		return rc; /* the carrier's own is the true one */
	*len = room;
	errno = saved;
	if (level == SOL_SOCKET)
		return answer_kind(&found, name, value, len);
	return option_oracle_get(&found, level, name, value, len);
}

/* Options that must not reach the socket behind the fd. */
static bool only_noted(const struct found *found, int level, int name)
{
	if (level != SOL_SOCKET)
		return false;
	return name == SO_REUSEPORT ||
	       (found->rec.kind == RECORD_GATE &&
		       (name == SO_SNDBUF || name == SO_RCVBUF));
}

EXPORT int setsockopt(
	int fd, int level, int name, const void *value, socklen_t len)
{
	struct found found;
	int saved = errno;
	int rc;

	if (tells_kind(level, name) && lookup(fd, &found) &&
		only_noted(&found, level, name))
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
		gate_settle(fd, GATE_LOOK, &err) > GATE_NONE && err != 0) {
		*(int *)arg = 0;
		return true;
	}
	if (request == FIONCLEX && slot_known(fd))
		tag_for_leaving(fd);
	return false;
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (ioctl_on_ours(fd, request, arg))
		return 0;
	return real()->ioctl(fd, request, arg);
}
