/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/lookup.h"
#include "common/fd.h"
#include "preload/config.h"
#include "preload/option.h"
#include "preload/real.h"
#include "preload/tag.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

/* Whatever fcntl(F_SETFL) can change and a socket heeds. */
#define STATUS_FLAGS (O_NONBLOCK | O_ASYNC)

bool lookup_options(int fd, struct found *out)
{
	memset(out, 0, sizeof(*out));
	out->cookie = socket_cookie(fd);
	return out->cookie != 0 && slot_load(fd, out->cookie, &out->rec);
}

bool lookup(int fd, struct found *out)
{
	if (lookup_options(fd, out))
		return out->rec.kind != RECORD_NONE;
	if (out->cookie == 0 || !tag_read(fd, &out->rec))
		return false;
	slot_store(fd, out->cookie, &out->rec);
	return true;
}

int kernel_tcp_state(int fd)
{
	uint8_t state = 0; /* tcpi_state is the first byte of tcp_info */
	socklen_t len = sizeof(state);
	int saved = errno;
	int rc;

	rc = real()->getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &len);
	errno = saved;
	return rc == -1 ? -1 : state;
}

int socket_int(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);
	int saved = errno;

	if (real()->getsockopt(fd, SOL_SOCKET, name, &value, &len) == -1)
		value = -1;
	errno = saved;
	return value;
}

static void copy_flags(int from, int to)
{
	int wanted = real()->fcntl(from, F_GETFL) & STATUS_FLAGS;
	int flags = real()->fcntl(to, F_GETFL);

	if (wanted & O_ASYNC)
		real()->fcntl(to, F_SETOWN, real()->fcntl(from, F_GETOWN));
	if ((flags & STATUS_FLAGS) != wanted)
		real()->fcntl(to, F_SETFL, (flags & ~STATUS_FLAGS) | wanted);
}

/* Adding once more tells whether the kernel has a registration, and unlike
 * EPOLL_CTL_MOD it does not re-arm it and takes EPOLLEXCLUSIVE. */
static void verify_epolls(int fd)
{
	struct epoll_event event;
	int epfd;

	for (int i = 0; i < SLOT_EPOLLS; i++) {
		if (!slot_epoll_at(fd, i, &epfd, &event))
			continue;
		if (real()->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0)
			real()->epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &event);
		else if (errno == EEXIST)
			continue;
		slot_epoll_forget(fd, i);
	}
}

/* A registration belongs to the socket, so a new one has none. EPOLLONESHOT
 * ones are armed again: at worst an event comes twice, none is lost. */
static void repeat_epolls(int fd)
{
	struct epoll_event event;
	int epfd;

	for (int i = 0; i < SLOT_EPOLLS; i++) {
		if (slot_epoll_at(fd, i, &epfd, &event))
			real()->epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
	}
}

/* dup3(2): EBUSY is a race with another thread's open() of that number. */
static int dup_onto(int from, int to, int flags)
{
	int rc;

	do
		rc = real()->dup3(from, to, flags);
	while (rc == -1 && (errno == EBUSY || errno == EINTR));
	return rc == -1 ? -1 : 0;
}

/* tag.h says when. */
static bool must_tag(uint8_t kind, bool cloexec)
{
	return kind == RECORD_BOUND || kind == RECORD_LISTENER ||
	       (kind == RECORD_CARRIER && !cloexec);
}

int replace(int fd, uint64_t before, int *with, struct record *rec)
{
	int fd_flags = real()->fcntl(fd, F_GETFD);
	bool cloexec = fd_flags != -1 && (fd_flags & FD_CLOEXEC);
	int rc = -1;

	copy_flags(fd, *with);
	option_replay(*with, rec);
	verify_epolls(fd);
	if (must_tag(rec->kind, cloexec))
		rec->tagged = tag_attach(*with, rec) == 0;
	if (socket_cookie(fd) != before) {
		errno = EBADF;
		goto out;
	}
	slot_store(fd, socket_cookie(*with), rec);
	rc = dup_onto(*with, fd, cloexec ? O_CLOEXEC : 0);
	if (rc == 0)
		repeat_epolls(fd);
	else
		slot_not_gate(fd);
out:
	closefd(with);
	return rc;
}

int replace_with_tcp(int fd, struct found *found)
{
	uint64_t before = found->cookie;
	int tcp = real_socket(found->rec.family, SOCK_STREAM);

	if (tcp == -1)
		return -1;
	found->rec.kind = RECORD_NONE;
	found->rec.async = 0;
	found->rec.tagged = 0;
	found->cookie = socket_cookie(tcp);
	return replace(fd, before, &tcp, &found->rec);
}
