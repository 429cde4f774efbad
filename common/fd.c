/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* More than one fd in a message is never right; these many are taken in, so
 * that they can be closed. Any above them the kernel drops (MSG_CTRUNC). */
#define FD_RECV_MAX 8

void closefd(int *fd)
{
	int saved = errno;

	assert(*fd >= 0);
	close(*fd);
	*fd = -1;
	errno = saved;
}

void closefd_if(int *fd)
{
	if (*fd != -1)
		closefd(fd);
}

static int set_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);
	int wanted = on ? flags | flag : flags & ~flag;

	if (flags == -1)
		return -1;
	return wanted == flags ? 0 : fcntl(fd, set, wanted);
}

int fd_set_nonblock(int fd, bool on)
{
	return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int fd_set_cloexec(int fd, bool on)
{
	return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

int fd_fill_standard(void)
{
	int fd;

	/* open() takes the lowest number that is free. */
	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (fd == -1)
			return -1;
	} while (fd <= STDERR_FILENO);
	closefd(&fd);
	return 0;
}

ssize_t fd_send(int sock, const void *buf, size_t len, int pass, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cmsg;

	if (pass != -1) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &pass, sizeof(pass));
	}
	return sendmsg(sock, &msg, flags | MSG_NOSIGNAL);
}

/* Keep the only fd of a message, or close all of them. */
static void collect_fds(struct msghdr *msg, int *pass, int *nr_fds)
{
	struct cmsghdr *cmsg;
	int fd;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t nr;

		if (cmsg->cmsg_level != SOL_SOCKET ||
			cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(fd);
		for (size_t i = 0; i < nr; i++) {
			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd),
				sizeof(fd));
			if ((*nr_fds)++ == 0)
				*pass = fd;
			else
				closefd(&fd);
		}
	}
	if (*nr_fds > 1)
		closefd(pass);
}

ssize_t fd_recv(
	int sock, void *buf, size_t size, int *pass, int *nr_fds, int flags)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FD_RECV_MAX * sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = size};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	ssize_t n;

	*pass = -1;
	*nr_fds = 0;
	n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	if (n != -1)
		collect_fds(&msg, pass, nr_fds);
	return n;
}
