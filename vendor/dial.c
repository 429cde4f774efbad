/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/dial.h"
#include "common/carrier.h"
#include "common/fd.h"
#include "vendor/edge.h"
#include "vendor/handshake.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * A dial runs through its states in order and holds at most one carrier:
 *
 *	CONNECTING   connect() is under way (vsock, tcp; unix answers at once)
 *	TALKING      the handshake is (vendor/handshake.h)
 *	BACKOFF      no carrier: the last one failed for a reason that passes
 *	DONE         the result waits for its callback
 *
 * A unix carrier has its hello sent before dial_start() returns. The fd belongs
 * to the application once the reply is whole, so it leaves the epoll set before
 * it is handed out.
 *
 * Some failures of the carrier pass by themselves and are tried again
 * (common/carrier.h); so is a shortage of this process, for RETRY_SHORTAGE. All
 * others are final at once. What the application gets when the host proxy is at
 * fault is ENETDOWN: its own network is down. The deadline of the whole ends in
 * ETIMEDOUT wherever the dial stands, as a SYN without answer.
 *
 * The callback runs from an event fed to the loop, never from within
 * dial_start() or an fd's event, and the dial is freed there or in
 * dial_cancel() and nowhere else.
 */

#define DIAL_MAGIC 0x6469616cu

/* Seconds since dial_start() during which being short of something is worth
 * another try. */
#define RETRY_SHORTAGE 2.0

enum dial_state {
	DIAL_CONNECTING,
	DIAL_TALKING,
	DIAL_BACKOFF,
	DIAL_DONE,
};

/**
 * struct dial - one dial
 * @fd:      the carrier, or -1
 * @later:   BACKOFF: the pause; DONE: fed to have the callback called
 * @started: loop time of dial_start(), in seconds
 * @pause:   of carrier_pause_us()
 * @last_err: why the last carrier failed
 */
struct dial {
	uint32_t magic;
	enum dial_state state;
	struct ev_loop *loop;
	struct edge_poll *poll;
	struct edge edge;
	int fd;
	struct endpoint ep;
	ev_timer deadline;
	ev_timer later;
	ev_tstamp started;
	unsigned pause;
	int last_err;
	struct handshake handshake;
	struct dial_result result;
	dial_cb *cb;
	void *arg;
};

/* ---- endings ---- */

static void drop_carrier(struct dial *d)
{
	if (d->edge.poll)
		edge_drop(&d->edge);
	closefd_if(&d->fd);
}

/* The result stands; have the callback called on the next occasion. */
static void finish(struct dial *d, int err, int proxy_err)
{
	assert(d->state != DIAL_DONE);
	ev_timer_stop(d->loop, &d->deadline);
	ev_timer_stop(d->loop, &d->later);
	if (err != 0 || d->handshake.probe)
		drop_carrier(d);
	else if (d->edge.poll)
		edge_del(&d->edge);
	d->state = DIAL_DONE;
	d->result.err = err;
	d->result.proxy_err = proxy_err;
	d->result.fd = d->fd;
	ev_feed_event(d->loop, &d->later, EV_CUSTOM);
}

/* Seconds since dial_start() during which a failure is worth another try. */
static double retry_window(const struct dial *d, int err)
{
	switch (err) {
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM: return RETRY_SHORTAGE;
	default:
		return carrier_retry_ms(d->ep.kind, err,
			       handshake_is_silent(&d->handshake)) /
		       1000.0;
	}
}

/* Any number below 2^24, of its own for each dial and moment. */
static uint32_t some_number(const struct dial *d)
{
	uint64_t x = (uintptr_t)d ^ (uint64_t)(ev_time() * 1e6);

	return (uint32_t)(x * 0x9e3779b97f4a7c15u >> 40);
}

/* The carrier, or the way to one, failed: try again or give up. */
static void carrier_failed(struct dial *d, int err)
{
	double left = d->started + retry_window(d, err) - ev_now(d->loop);

	drop_carrier(d);
	d->last_err = err;
	if (left <= 0) {
		finish(d, ENETDOWN, err);
		return;
	}
	d->state = DIAL_BACKOFF;
	ev_timer_set(&d->later,
		carrier_pause_us(&d->pause, some_number(d)) / 1e6, 0);
	ev_timer_start(d->loop, &d->later);
}

/* ---- the conversation ---- */

static void on_carrier(struct edge *edge, uint32_t events);

/* What to wait for: the one place that decides it. */
static uint32_t mask_of(const struct dial *d)
{
	if (d->state == DIAL_CONNECTING || handshake_sends(&d->handshake))
		return EPOLLIN | EPOLLOUT | EPOLLRDHUP;
	return EPOLLIN | EPOLLRDHUP;
}

static int arm(struct dial *d)
{
	uint32_t mask = mask_of(d);

	if (!d->edge.poll)
		return edge_add(d->poll, &d->edge, d->fd, mask, on_carrier);
	/* Wanting less is no reason for a system call. */
	if (mask & ~d->edge.mask)
		return edge_mod(&d->edge, mask);
	return 0;
}

static void answered(struct dial *d)
{
	const struct socks5_answer *answer = &d->handshake.answer;

	if (answer->reply == SOCKS5_SUCCEEDED)
		d->result.local = answer->bound.addr;
	d->result.reply = answer->reply;
	finish(d, socks5_errno(answer->reply), 0);
}

/* On a connected carrier: go on until there is something to wait for. */
static void talk(struct dial *d)
{
	assert(d->state < DIAL_BACKOFF);
	d->state = DIAL_TALKING;
	switch (handshake_go(&d->handshake, d->fd)) {
	case HANDSHAKE_DONE: answered(d); break;
	case HANDSHAKE_FAILED: carrier_failed(d, d->handshake.err); break;
	case HANDSHAKE_AGAIN:
		if (arm(d) == -1)
			carrier_failed(d, errno);
		break;
	}
}

static int socket_error(int fd)
{
	socklen_t len = sizeof(int);
	int err = 0;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1 ? errno
								      : err;
}

static void on_carrier(struct edge *edge, uint32_t events)
{
	struct dial *d = edge_owner(edge, struct dial, edge);
	int err;

	assert(d->magic == DIAL_MAGIC && d->fd >= 0);
	/* Until it is writable or broken, connect() is still under way. */
	if (d->state == DIAL_CONNECTING &&
		!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		return;
	err = d->state == DIAL_CONNECTING ? socket_error(d->fd) : 0;
	if (err)
		carrier_failed(d, err);
	else
		talk(d);
}

/* ---- the carrier ---- */

/* Return: 0 connected or under way (@d->state says which), or an errno. */
static int connect_carrier(struct dial *d)
{
	struct endpoint ep = d->ep;
	union endpoint_sockaddr addr;
	socklen_t len;

	endpoint_pick(&ep, some_number(d));
	len = endpoint_sockaddr(&ep, &addr);
	if (len == 0)
		return EDESTADDRREQ;
	d->fd = socket(addr.sa.sa_family,
		SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd == -1)
		return errno;
	carrier_options(d->fd, ep.kind);
	d->state = DIAL_CONNECTING;
	if (connect(d->fd, &addr.sa, len) == 0)
		d->state = DIAL_TALKING;
	else if (errno != EINPROGRESS)
		return errno;
	return 0;
}

static void attempt(struct dial *d)
{
	int err;

	handshake_begin(&d->handshake, &d->ep);
	err = connect_carrier(d);
	if (err)
		carrier_failed(d, err);
	else if (d->state != DIAL_CONNECTING)
		talk(d);
	else if (arm(d) == -1)
		carrier_failed(d, errno);
}

/* ---- life ---- */

static void destroy(struct dial *d)
{
	ev_timer_stop(d->loop, &d->deadline);
	ev_timer_stop(d->loop, &d->later);
	ev_clear_pending(d->loop, &d->later);
	if (d->poll)
		edge_poll_unref(d->poll);
	d->magic = 0;
	free(d);
}

/* Last of all, and from no other watcher's event: see the theory. */
static void deliver(struct dial *d)
{
	d->result.ep = &d->ep;
	d->cb(&d->result, d->arg);
	destroy(d);
}

static void on_later(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct dial *d = timer->data;

	assert(d->magic == DIAL_MAGIC);
	if (d->state == DIAL_DONE)
		deliver(d);
	else
		attempt(d);
}

static void on_deadline(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct dial *d = timer->data;
	int proxy_err = 0;

	assert(d->magic == DIAL_MAGIC);
	/* A proxy that took the greeting waits for the remote, as we do. */
	if (d->state == DIAL_BACKOFF)
		proxy_err = d->last_err;
	else if (!handshake_is_greeted(&d->handshake))
		proxy_err = ETIMEDOUT;
	finish(d, ETIMEDOUT, proxy_err);
}

static struct dial *start(struct dial *d, struct ev_loop *loop,
	const struct endpoint *ep, double timeout)
{
	d->magic = DIAL_MAGIC;
	d->loop = loop;
	d->fd = -1;
	d->ep = *ep;
	d->started = ev_now(loop);
	ev_timer_init(&d->deadline, on_deadline, timeout, 0);
	d->deadline.data = d;
	ev_timer_init(&d->later, on_later, 0, 0);
	d->later.data = d;
	d->state = DIAL_CONNECTING;
	d->poll = edge_poll_ref(loop);
	if (!d->poll) {
		finish(d, ENOBUFS, 0);
		return d;
	}
	ev_timer_start(loop, &d->deadline);
	attempt(d);
	return d;
}

struct dial *dial_start(struct ev_loop *loop, const struct endpoint *ep,
	enum socks5_command command, const struct socks5_addr *dst,
	double timeout, dial_cb *cb, void *arg)
{
	struct dial *d = calloc(1, sizeof(*d));

	assert(timeout > 0);
	if (!d)
		return NULL;
	d->cb = cb;
	d->arg = arg;
	handshake_ask(&d->handshake, command, dst);
	return start(d, loop, ep, timeout);
}

struct dial *dial_probe(struct ev_loop *loop, const struct endpoint *ep,
	double timeout, dial_cb *cb, void *arg)
{
	struct dial *d = calloc(1, sizeof(*d));

	assert(timeout > 0);
	if (!d)
		return NULL;
	d->cb = cb;
	d->arg = arg;
	handshake_greet(&d->handshake);
	return start(d, loop, ep, timeout);
}

void dial_cancel(struct dial *d)
{
	assert(d->magic == DIAL_MAGIC);
	drop_carrier(d);
	destroy(d);
}
