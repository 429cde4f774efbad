/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_FD_H
#define COMMON_FD_H

/*
 * Small helpers around file descriptors. An fd variable holds -1 when it owns
 * nothing; 0 is an fd like any other. None of these changes errno on success,
 * and closefd() never does.
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/**
 * closefd() - close an fd that is open and forget it
 * @fd: *fd must be >= 0 (asserted); set to -1
 *
 * Keeps errno. EINTR is not retried: Linux has closed it all the same.
 */
void closefd(int *fd);

/** closefd_if() - closefd() unless *fd is already -1 */
void closefd_if(int *fd);

/** fd_try_again() - is this errno of a read or write no failure at all? */
static inline bool fd_try_again(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/** fd_set_nonblock() - set or clear O_NONBLOCK. Return: 0, or -1 and errno */
int fd_set_nonblock(int fd, bool on);

/** fd_set_cloexec() - set or clear FD_CLOEXEC. Return: 0, or -1 and errno */
int fd_set_cloexec(int fd, bool on);

/**
 * fd_fill_standard() - make sure that 0, 1 and 2 are open
 *
 * A program may be started with them closed. The next fd would be one of them
 * then, and what is meant for stderr would go to a peer. /dev/null is put
 * where nothing is.
 *
 * Return: 0, or -1 and errno.
 */
int fd_fill_standard(void);

/**
 * fd_send() - send one message with at most one fd
 * @sock:    a unix socket
 * @buf, @len: the message
 * @pass:    an fd to pass, or -1; stays the caller's
 * @flags:   of sendmsg(2); MSG_NOSIGNAL is added
 *
 * Return: as sendmsg(2).
 */
ssize_t fd_send(int sock, const void *buf, size_t len, int pass, int flags);

/**
 * fd_recv() - receive one message with at most one fd
 * @sock:    a unix socket
 * @buf, @size: where to put the message
 * @pass:    set to the fd received (CLOEXEC, now the caller's) or -1. Where
 *           more than one came, all are closed and it is -1
 * @nr_fds:  how many came with the message
 * @flags:   of recvmsg(2)
 *
 * Return: as recvmsg(2); with MSG_TRUNC in @flags the whole message's length.
 */
ssize_t fd_recv(
	int sock, void *buf, size_t size, int *pass, int *nr_fds, int flags);

#endif
