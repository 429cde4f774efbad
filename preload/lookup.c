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
	out->version = slot_version(fd);
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

bool amend(int fd, struct found *found)
{
	if (slot_amend(fd, found->cookie, &found->rec, found->version))
		return true;
	lookup_options(fd, found);
	return false;
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

static struct ip_port in_family(const struct ip_port *addr, int family)
{
	struct ip_port out = *addr;

	if (family == AF_INET6) {
		ip_port_map(&out);
		return out;
	}
	ip_port_unmap(&out);
	if (out.family == AF_INET6)
		memset(&out, 0, sizeof(out));
	return out;
}

void record_addresses(struct record *rec, const struct ip_port *remote,
	const struct ip_port *local)
{
	rec->remote = in_family(remote, rec->family);
	rec->local = in_family(local, rec->family);
}

static void copy_flags(int from, int to)
{
	int theirs = real()->fcntl(from, F_GETFL);
	int flags = real()->fcntl(to, F_GETFL);
	int wanted = theirs & STATUS_FLAGS;

	if (theirs == -1)
		return; /* closed meanwhile, as will be noticed */
	if (wanted & O_ASYNC) {
		real()->fcntl(to, F_SETOWN, real()->fcntl(from, F_GETOWN));
		real()->fcntl(to, F_SETSIG, real()->fcntl(from, F_GETSIG));
	}
	if ((flags & STATUS_FLAGS) != wanted)
		real()->fcntl(to, F_SETFL, (flags & ~STATUS_FLAGS) | wanted);
}

/*
 * A registration belongs to the socket and its fd number. Where a duplicate or
 * a child process keeps the old socket open, the kernel would keep the
 * registration too, report that socket's state for ever, and let nobody take
 * it out, because the number leads elsewhere by then. So they are taken out
 * first. This tells as well which of the notes are true: adding would tell, but
 * wake somebody with what is noted of a socket long gone.
 */
static void lift_epolls(int fd)
{
	struct epoll_event event;
	int epfd;

	for (int i = 0; i < SLOT_EPOLLS; i++) {
		if (slot_epoll_at(fd, i, &epfd, &event) &&
			real()->epoll_ctl(epfd, EPOLL_CTL_DEL, fd, &event) ==
				-1)
			slot_epoll_forget(fd, i);
	}
}

/* EPOLLONESHOT ones are armed again: at worst an event comes twice, none is
 * lost. */
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

/* An fd that nothing is known of would be an application's socket to the
 * vendor, or one with the wrong names. Return: whether somebody will know. */
static bool remember(int fd, uint64_t before, int with, struct record *rec)
{
	if (slot_succeed(fd, before, socket_cookie(with), rec) ||
		rec->kind == RECORD_NONE)
		return true;
	/* No slot has a gate hint for it, but beyond the slots none is
	 * needed. */
	if (rec->kind == RECORD_GATE && fd < (int)SLOT_FDS)
		return false;
	if (!rec->tagged)
		rec->tagged = tag_attach(with, rec) == 0;
	return rec->tagged;
}

/* dup3() with what goes along; nothing has changed if it fails. */
static int move_in(
	int fd, uint64_t before, int with, struct record *rec, int flags)
{
	struct record old;
	bool known = slot_load(fd, before, &old);
	int rc, err;

	if (!remember(fd, before, with, rec))
		return fail(ENOMEM);
	lift_epolls(fd);
	rc = dup_onto(with, fd, flags);
	err = errno;
	if (rc == -1)
		slot_forget(fd);
	if (rc == -1 && known)
		slot_store(fd, before, &old);
	repeat_epolls(fd);
	errno = err;
	return rc;
}

/* The other numbers that the application has for the same socket. Each is
 * replaced by a call of its own, after which its slot has another cookie. */
static void replace_copies(uint64_t before, int with, const struct record *rec)
{
	uint64_t now = socket_cookie(with);
	struct record copy = *rec;
	int fd = -1;

	while ((fd = slot_find_cookie(before, fd + 1)) != -1) {
		int again = real()->fcntl(with, F_DUPFD_CLOEXEC, 0);

		if (again == -1)
			return;
		copy.has_copies = 0; /* this loop deals with all of them */
		if (replace(fd, before, &again, &copy) == -1)
			continue;
		copy.has_copies = 1;
		slot_store(fd, now, &copy);
	}
}

int replace(int fd, uint64_t before, int *with, struct record *rec)
{
	int fd_flags = real()->fcntl(fd, F_GETFD);
	bool cloexec = fd_flags != -1 && (fd_flags & FD_CLOEXEC);
	int rc = -1;

	copy_flags(fd, *with);
	option_replay(*with, rec);
	rec->tagged =
		must_tag(rec->kind, cloexec) && tag_attach(*with, rec) == 0;
	if (socket_cookie(fd) == before)
		rc = move_in(fd, before, *with, rec, cloexec ? O_CLOEXEC : 0);
	else
		errno = EBADF;
	if (rc == 0 && rec->has_copies)
		replace_copies(before, *with, rec);
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
	found->cookie = socket_cookie(tcp);
	return replace(fd, before, &tcp, &found->rec);
}
