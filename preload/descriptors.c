/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Duplicates, close-on-exec, and epoll registrations: what must be noted when
 * it happens because the kernel does not tell later. The real call goes first.
 *
 * A duplicate is the same socket under another number: its slot gets a copy of
 * the record. One that survives exec() takes its addresses along (tag.h).
 */

#include "preload/descriptors.h"
#include "preload/gate.h"
#include "preload/pointer.h"
#include "preload/real.h"
#include "preload/tag.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>

/* A gate whose result is there becomes a carrier first: the program that
 * inherits the fd may not have this library's memory of it. */
static void settle_before_leaving(int fd)
{
	int err;

	if (slot_may_be_gate(fd))
		gate_settle(fd, GATE_LOOK, &err);
}

static bool survives_exec(int fd)
{
	int flags = real()->fcntl(fd, F_GETFD);

	return flags != -1 && !(flags & FD_CLOEXEC);
}

static void tag_once(int fd, struct found *found)
{
	if (found->rec.kind != RECORD_CARRIER || found->rec.tagged)
		return;
	found->rec.tagged = tag_attach(fd, &found->rec) == 0;
	amend(fd, found); /* else somebody will tag it again */
}

void tag_for_leaving(int fd)
{
	struct found found;
	int saved = errno;

	settle_before_leaving(fd);
	if (lookup(fd, &found))
		tag_once(fd, &found);
	errno = saved;
}

static void tag_fds(const uint8_t *fds, size_t nr)
{
	int fd;

	for (size_t i = 0; i < nr; i++) {
		memcpy(&fd, fds + i * sizeof(fd), sizeof(fd));
		if (slot_known(fd))
			tag_for_leaving(fd);
	}
}

void tag_passed_fds(const struct msghdr *msg)
{
	struct msghdr *m = (struct msghdr *)(uintptr_t)msg; /* CMSG_NXTHDR */
	const uint8_t *end;
	struct cmsghdr *cmsg;

	if (!msg->msg_control || pointer_is_wild(msg->msg_control))
		return;
	end = (const uint8_t *)msg->msg_control + msg->msg_controllen;
	for (cmsg = CMSG_FIRSTHDR(m); cmsg; cmsg = CMSG_NXTHDR(m, cmsg)) {
		const uint8_t *fds = CMSG_DATA(cmsg);

		/* The kernel will find fault with one that is too long. */
		if (cmsg->cmsg_len < CMSG_LEN(0) ||
			cmsg->cmsg_len - CMSG_LEN(0) > (size_t)(end - fds))
			return;
		if (cmsg->cmsg_level == SOL_SOCKET &&
			cmsg->cmsg_type == SCM_RIGHTS)
			tag_fds(fds,
				(cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	}
}

/* A socket of ours, or a TCP socket that may become one: then the duplicate
 * must become the same. */
static bool worth_noting(int fd, struct found *found)
{
	if (lookup_options(fd, found) || lookup(fd, found))
		return true;
	return found->cookie != 0 && kernel_tcp_state(fd) == TCP_CLOSE;
}

static int note_duplicate(int fd, int copy)
{
	struct found found;
	int saved = errno;

	if (copy == -1 || copy == fd)
		return copy;
	settle_before_leaving(copy);
	if (worth_noting(fd, &found)) {
		do
			found.rec.has_copies = 1;
		while (!amend(fd, &found) && found.cookie != 0);
		slot_store(copy, found.cookie, &found.rec);
		if (survives_exec(copy))
			tag_once(copy, &found);
	}
	errno = saved;
	return copy;
}

EXPORT int dup(int fd)
{
	settle_before_leaving(fd);
	return note_duplicate(fd, real()->dup(fd));
}

EXPORT int dup2(int fd, int to)
{
	settle_before_leaving(fd);
	return note_duplicate(fd, real()->dup2(fd, to));
}

EXPORT int dup3(int fd, int to, int flags)
{
	settle_before_leaving(fd);
	return note_duplicate(fd, real()->dup3(fd, to, flags));
}

static int note_fcntl(int fd, int cmd, long arg, int rc)
{
	switch (cmd) {
	case F_DUPFD:
	case F_DUPFD_CLOEXEC: return note_duplicate(fd, rc);
	case F_SETFD:
		if (rc != -1 && !(arg & FD_CLOEXEC) && slot_known(fd))
			tag_for_leaving(fd);
		return rc;
	default: return rc;
	}
}

/* Every command's argument is an int or a pointer; both fit a long. */
EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return note_fcntl(fd, cmd, arg, real()->fcntl(fd, cmd, arg));
}

EXPORT int fcntl64(int fd, int cmd, ...)
{
	__typeof__(fcntl) *call =
		real()->fcntl64 ? real()->fcntl64 : real()->fcntl;
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	return note_fcntl(fd, cmd, arg, call(fd, cmd, arg));
}

EXPORT int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	int rc = real()->epoll_ctl(epfd, op, fd, event);

	if (rc == 0)
		slot_epoll_note(fd, epfd, op, event);
	return rc;
}
