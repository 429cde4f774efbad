/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/direct.h"
#include "common/carrier.h"
#include "common/fd.h"
#include "common/socks5.h"
#include "preload/config.h"
#include "preload/real.h"

#include <errno.h>
#include <poll.h>
#include <time.h>

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/**
 * struct talk - one attempt, on one carrier after another
 * @proxy:    the host proxy
 * @dst:      the destination
 * @deadline: of the whole, by now_ms()
 * @silent:   the host proxy has not said a word on this carrier
 * @fd:       the carrier, or -1
 * @answer:   what it said at last
 */
struct talk {
	const struct endpoint *proxy;
	const struct ip_port *dst;
	int64_t deadline;
	bool silent;
	int fd;
	struct socks5_answer answer;
};

/* Wait for @events, by the deadline. Return: 0, ETIME, or EINTR. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd pfd = {.fd = fd, .events = events};
	int64_t left = deadline - now_ms();
	int rc = poll(&pfd, 1, left > 0 ? (int)left : 0);

	if (rc == -1)
		return errno;
	return rc > 0 ? 0 : ETIME;
}

/* ---- one carrier: each returns 0 or an errno ---- */

/* Exactly that many bytes, and none behind them. */
static int read_exactly(struct talk *t, uint8_t *buf, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n = real()->recv(t->fd, buf + have, len - have, 0);
		int err;

		if (n > 0) {
			have += (size_t)n;
			t->silent = false;
			continue;
		}
		if (n == 0)
			return ECONNRESET; /* the proxy hung up on us */
		err = errno == EAGAIN ? wait_for(t->fd, POLLIN, t->deadline)
				      : errno;
		if (err)
			return err;
	}
	return 0;
}

static int read_method(struct talk *t)
{
	uint8_t buf[SOCKS5_METHOD_LEN];
	int err = read_exactly(t, buf, sizeof(buf));

	if (err)
		return err;
	return socks5_parse_method(buf, sizeof(buf)) > 0 ? 0 : EPROTO;
}

static int read_reply(struct talk *t)
{
	uint8_t buf[SOCKS5_REPLY_MAX];
	size_t have = 0;
	size_t need;

	while ((need = socks5_reply_need(buf, have)) > 0) {
		int err = need > sizeof(buf) - have
				  ? EPROTO
				  : read_exactly(t, buf + have, need);

		if (err)
			return err;
		have += need;
	}
	return socks5_parse_reply(buf, have, &t->answer) > 0 ? 0 : EPROTO;
}

static int handshake(struct talk *t)
{
	uint8_t hello[3 + SOCKS5_REQUEST_MAX];
	struct socks5_addr to = {.addr = *t->dst};
	size_t len = socks5_write_hello(hello, SOCKS5_CONNECT, &to);
	ssize_t n = real()->send(t->fd, hello, len, MSG_NOSIGNAL);
	int err;

	/* A few dozen bytes into an empty send buffer: all of them or none. */
	if (n != (ssize_t)len)
		return n == -1 ? errno : EPROTO;
	err = read_method(t);
	return err ? err : read_reply(t);
}

/* Any number, another one each time; who else picks does not matter. */
static uint32_t some_number(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint32_t)((uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15u >> 32);
}

static int await_connected(struct talk *t)
{
	int err = wait_for(t->fd, POLLOUT, t->deadline);
	socklen_t len = sizeof(err);

	if (err)
		return err;
	if (real()->getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		return errno;
	return err;
}

static int dial(struct talk *t)
{
	struct endpoint ep = *t->proxy;
	union endpoint_sockaddr addr;
	socklen_t len;

	endpoint_pick(&ep, some_number());
	len = endpoint_sockaddr(&ep, &addr);
	if (len == 0)
		return EDESTADDRREQ;
	t->silent = true;
	t->fd = real_socket(addr.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK);
	if (t->fd == -1)
		return errno;
	carrier_options(t->fd, ep.kind);
	if (real()->connect(t->fd, &addr.sa, len) == 0)
		return 0;
	return errno == EINPROGRESS ? await_connected(t) : errno;
}

/* ---- the whole ---- */

static int attempt(struct talk *t)
{
	int err = dial(t);

	if (err == 0)
		err = handshake(t);
	if (err)
		closefd_if(&t->fd);
	return err;
}

/* Until the next try, or the deadline. Return: 0, or ETIME, EINTR. */
static int pause_between(const struct talk *t, unsigned *step)
{
	unsigned ms = (carrier_pause_us(step, some_number()) + 999) / 1000;
	int64_t until = now_ms() + ms;

	if (until >= t->deadline)
		until = t->deadline;
	if (wait_for(-1, 0, until) == EINTR)
		return EINTR;
	return now_ms() < t->deadline ? 0 : ETIME;
}

static int try_until_final(struct talk *t)
{
	int64_t start = now_ms();
	unsigned step = 0;
	int err;

	while ((err = attempt(t)) != 0) {
		unsigned window =
			carrier_retry_ms(t->proxy->kind, err, t->silent);
		int stopped;

		if (now_ms() - start >= window)
			break;
		stopped = pause_between(t, &step);
		if (stopped)
			return stopped;
	}
	return err;
}

/* What the application hears of it. */
static int verdict(const struct talk *t, int err)
{
	switch (err) {
	case 0: return socks5_errno(t->answer.reply);
	case EINTR:
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM: return err; /* its own matter */
	case ETIME:
		if (t->silent)
			warn_of_host_proxy();
		return err;
	default: warn_of_host_proxy(); return ENETDOWN;
	}
}

int direct_connect(const struct endpoint *proxy, const struct ip_port *dst,
	int timeout_ms, struct ip_port *local)
{
	struct talk talk = {
		.proxy = proxy,
		.dst = dst,
		.deadline = now_ms() + timeout_ms,
		.fd = -1,
	};
	int err = verdict(&talk, try_until_final(&talk));

	if (err == 0) {
		*local = talk.answer.bound.addr;
		return talk.fd;
	}
	closefd_if(&talk.fd);
	return fail(err);
}
