/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/direct.h"
#include "common/fd.h"
#include "common/socks5.h"
#include "preload/config.h"
#include "preload/real.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait for @events until @deadline. Return: 0, or -1 and EINTR, ETIMEDOUT. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};
	int64_t left = deadline - now_ms();
	int rc = poll(&pfd, 1, left > 0 ? (int)left : 0);

	if (rc == 0)
		errno = ETIMEDOUT;
	return rc > 0 ? 0 : -1;
}

/* Read until @parse takes a message: exactly it, and nothing behind. */
static int read_exactly(int fd, uint8_t *buf, size_t len, int64_t deadline)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = real()->recv(fd, buf + have, len - have, 0);

		if (n > 0) {
			have += (size_t)n;
			continue;
		}
		if (n == 0)
			errno = ENETDOWN; /* the proxy hung up on us */
		if (n == 0 || errno != EAGAIN ||
			wait_for(fd, POLLIN, deadline) == -1)
			return -1;
	}
	return 0;
}

static int read_reply(int fd, struct socks5_answer *answer, int64_t deadline)
{
	uint8_t buf[SOCKS5_REPLY_MAX];
	size_t have = 0;
	size_t need;

	while ((need = socks5_reply_need(buf, have)) > 0) {
		if (need > sizeof(buf) - have ||
			read_exactly(fd, buf + have, need, deadline) == -1)
			return -1;
		have += need;
	}
	if (socks5_parse_reply(buf, have, answer) > 0)
		return 0;
	errno = ENETDOWN;
	return -1;
}

/*
 * Return: 0, or -1 with the errno for the application.
 */
static int handshake(int fd, const struct ip_port *dst, int64_t deadline,
	struct ip_port *local)
{
	uint8_t hello[3 + SOCKS5_REQUEST_MAX];
	uint8_t method[SOCKS5_METHOD_LEN];
	struct socks5_addr to = {.addr = *dst};
	struct socks5_answer answer;
	size_t len = socks5_write_hello(hello, SOCKS5_CONNECT, &to);

	/* A few dozen bytes into an empty send buffer: all of them or none. */
	if (real()->send(fd, hello, len, MSG_NOSIGNAL) != (ssize_t)len ||
		read_exactly(fd, method, sizeof(method), deadline) == -1 ||
		socks5_parse_method(method, sizeof(method)) <= 0 ||
		read_reply(fd, &answer, deadline) == -1) {
		if (errno != EINTR && errno != ETIMEDOUT) {
			warn_of_host_proxy();
			errno = ENETDOWN;
		}
		return -1;
	}
	*local = answer.bound.addr;
	errno = socks5_errno(answer.reply);
	return errno == 0 ? 0 : -1;
}

/* Any number, another one each time; who else picks does not matter. */
static uint32_t some_number(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint32_t)((uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u >> 32);
}

static int dial(const struct endpoint *proxy, int64_t deadline)
{
	struct endpoint ep = *proxy;
	union endpoint_sockaddr addr;
	socklen_t len;
	int fd;
	int err = 0;
	socklen_t err_len = sizeof(err);

	endpoint_pick(&ep, some_number());
	len = endpoint_sockaddr(&ep, &addr);
	fd = len ? real_socket(addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK)
		 : -1;
	if (fd == -1)
		return -1;
	if (real()->connect(fd, &addr.sa, len) == 0)
		return fd;
	if (errno != EINPROGRESS || wait_for(fd, POLLOUT, deadline) == -1)
		goto fail;
	if (real()->getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_len) == 0 &&
		err == 0)
		return fd;
	errno = err;
fail:
	closefd(&fd);
	return -1;
}

int direct_connect(const struct endpoint *proxy, const struct ip_port *dst,
	int timeout_ms, struct ip_port *local)
{
	int64_t deadline = now_ms() + timeout_ms;
	int fd = dial(proxy, deadline);

	if (fd == -1) {
		if (errno == EINTR)
			return -1;
		warn_of_host_proxy();
		errno = ENETDOWN;
		return -1;
	}
	if (handshake(fd, dst, deadline, local) == -1)
		closefd(&fd);
	return fd;
}
