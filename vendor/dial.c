/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/dial.h"
#include "common/fd.h"
#include "vendor/edge.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * A dial runs through its states in order and holds at most one carrier:
 *
 *	CONNECTING   connect() is under way (vsock, tcp; unix answers at once)
 *	MUX_SEND     vsock-mux only: "CONNECT port\n" goes out
 *	MUX_READ     ... and "OK port\n" comes back
 *	HELLO        greeting and request go out in one segment
 *	REPLY        method answer and reply are read
 *	BACKOFF      no carrier: the last one failed for a reason that passes
 *	DONE         the result waits for its callback
 *
 * step_*() do the work of one state and say whether to go on with the next,
 * to wait for the fd, or that the dial left the sequence. drive() calls them
 * in turn, so that a unix carrier has its hello sent before dial_start()
 * returns.
 *
 * The fd belongs to the application once the reply is whole, and what follows
 * the reply is the application's data. So a read never asks for more bytes
 * than surely belong to the replies, and the fd leaves the epoll set before it
 * is handed out.
 *
 * Some failures of the carrier pass by themselves and are tried again on a
 * fresh socket (a vsock socket that failed once cannot be used again on older
 * kernels), after a short pause with jitter, until a deadline of their own
 * that depends on how likely they are to pass:
 *
 *	EAGAIN       unix: the proxy's backlog is full       RETRY_BUSY
 *	EMFILE ...   this process is short of something      RETRY_BUSY
 *	ECONNRESET   vsock: backlog full or nobody listens   RETRY_RESET
 *	             (the two look the same, so that a proxy which is not there
 *	             costs this much); any family: closed before it said a word,
 *	             as a proxy that is being restarted does
 *	ETIMEDOUT    vsock: a lost packet or a host just up  RETRY_TIMEOUT
 *
 * Everything else is final at once. What the application gets when the host
 * proxy is at fault is ENETDOWN: its own network is down. The deadline of the
 * whole ends in ETIMEDOUT wherever the dial stands, as a SYN without answer.
 *
 * The callback runs from an event fed to the loop, never from within
 * dial_start() or an fd's event, and the dial is freed there or in
 * dial_cancel() and nowhere else.
 */

#define DIAL_MAGIC 0x6469616cu

/* Seconds since dial_start() during which a failure is worth another try. */
#define RETRY_BUSY    2.0
#define RETRY_RESET   0.25
#define RETRY_TIMEOUT 6.0

/* First and longest pause between two tries, in seconds. */
#define PAUSE_FIRST 0.002
#define PAUSE_LAST  0.050

/* The kernel's own limit for one vsock connect is 2 s, too short for a host
 * under load. */
#define VSOCK_CONNECT_TIMEOUT 5 /* seconds */

/* What the other end may have under way: the kernel's 256 KiB are too few for
 * bulk data, and recent ones even reset a connection when many small packets
 * fill them. Memory is taken only for what is queued. */
#define VSOCK_WINDOW (1024ULL * 1024) /* bytes */

#define MUX_LINE_MAX 32 /* "CONNECT 4294967295\n", "OK 4294967295\n" */
#define MUX_OK_MIN   5  /* "OK 1\n": the fewest bytes that are an answer */

enum dial_state {
	DIAL_CONNECTING,
	DIAL_MUX_SEND,
	DIAL_MUX_READ,
	DIAL_HELLO,
	DIAL_REPLY,
	DIAL_BACKOFF,
	DIAL_DONE,
};

enum step {
	STEP_NEXT,  /* this state is done */
	STEP_AGAIN, /* wait for the fd */
	STEP_LEFT,  /* the dial is in BACKOFF or DONE */
};

/**
 * struct dial - one dial
 * @fd:      the carrier, or -1
 * @later:   BACKOFF: the pause; DONE: fed to have the callback called
 * @started: loop time of dial_start(), in seconds
 * @pause:   the next pause, in seconds
 * @last_err: why the last carrier failed
 * @probe:   greeting only
 * @sent:    bytes of the current message that went out
 * @got:     bytes in @in
 * @out:     greeting and request
 * @in:      method answer and reply; before them the mux's line
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
	double pause;
	int last_err;
	bool probe;
	size_t out_len;
	size_t sent;
	size_t got;
	struct dial_result result;
	dial_cb *cb;
	void *arg;
	uint8_t out[3 + SOCKS5_REQUEST_MAX];
	uint8_t in[SOCKS5_METHOD_LEN + SOCKS5_REPLY_MAX];
};

static void drive(struct dial *d);

/* ---- endings ---- */

static void drop_carrier(struct dial *d)
{
	if (d->edge.poll)
		edge_drop(&d->edge);
	closefd_if(&d->fd);
}

/* The result stands; have the callback called on the next occasion. */
static enum step finish(struct dial *d, int err, int proxy_err)
{
	assert(d->state != DIAL_DONE);
	ev_timer_stop(d->loop, &d->deadline);
	ev_timer_stop(d->loop, &d->later);
	if (err != 0 || d->probe)
		drop_carrier(d);
	else if (d->edge.poll)
		edge_del(&d->edge);
	d->state = DIAL_DONE;
	d->result.err = err;
	d->result.proxy_err = proxy_err;
	d->result.fd = d->fd;
	ev_feed_event(d->loop, &d->later, EV_CUSTOM);
	return STEP_LEFT;
}

static double retry_window(const struct dial *d, int err)
{
	switch (err) {
	case EAGAIN:
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM: return RETRY_BUSY;
	case EPIPE:
	case ECONNRESET: return d->got == 0 ? RETRY_RESET : 0;
	case ETIMEDOUT: return d->ep.kind == ENDPOINT_VSOCK ? RETRY_TIMEOUT : 0;
	default: return 0;
	}
}

/* Any number below 2^24, of its own for each dial and moment. */
static uint32_t some_number(const struct dial *d)
{
	uint64_t x = (uintptr_t)d ^ (uint64_t)(ev_time() * 1e6);

	return (uint32_t)(x * 0x9e3779b97f4a7c15u >> 40);
}

/* A pause of half to all of @d->pause, which doubles. Tries that failed
 * together must not come back together. */
static double next_pause(struct dial *d)
{
	double pause = d->pause;

	d->pause = pause * 2 < PAUSE_LAST ? pause * 2 : PAUSE_LAST;
	return pause * (0.5 + (double)some_number(d) / (double)(1u << 25));
}

/* The carrier, or the way to one, failed: try again or give up. */
static enum step carrier_failed(struct dial *d, int err)
{
	double left = d->started + retry_window(d, err) - ev_now(d->loop);

	drop_carrier(d);
	d->last_err = err;
	if (left <= 0)
		return finish(d, ENETDOWN, err);
	d->state = DIAL_BACKOFF;
	ev_timer_set(&d->later, next_pause(d), 0);
	ev_timer_start(d->loop, &d->later);
	return STEP_LEFT;
}

/* ---- the steps ---- */

static enum step io_failed(struct dial *d, ssize_t n)
{
	if (n == 0)
		return carrier_failed(d, ECONNRESET);
	if (errno == EAGAIN || errno == EINTR)
		return STEP_AGAIN;
	return carrier_failed(d, errno);
}

static enum step send_all(struct dial *d, const void *buf, size_t len)
{
	while (d->sent < len) {
		ssize_t n = send(d->fd, (const char *)buf + d->sent,
			len - d->sent, MSG_NOSIGNAL);

		if (n == -1)
			return io_failed(d, n);
		d->sent += (size_t)n;
	}
	d->sent = 0;
	return STEP_NEXT;
}

/* Read up to @want more bytes into @in. */
static enum step read_some(struct dial *d, size_t want)
{
	ssize_t n;

	assert(want > 0 && d->got + want <= sizeof(d->in));
	n = recv(d->fd, d->in + d->got, want, 0);
	if (n <= 0)
		return io_failed(d, n);
	d->got += (size_t)n;
	return STEP_NEXT;
}

static enum step step_connecting(struct dial *d)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		err = errno;
	return err ? carrier_failed(d, err) : STEP_NEXT;
}

static enum step step_mux_send(struct dial *d)
{
	char line[MUX_LINE_MAX];
	int len = snprintf(line, sizeof(line), "CONNECT %u\n", d->ep.port);

	return send_all(d, line, (size_t)len);
}

/* Where the mux's line ends, or 0 if it has not come yet. */
static size_t mux_line_len(const struct dial *d)
{
	const uint8_t *end = memchr(d->in, '\n', d->got);

	return end ? (size_t)(end - d->in) + 1 : 0;
}

static enum step step_mux_read(struct dial *d)
{
	size_t len;

	/* The multiplexer closes instead of answering when nobody listens on
	 * the port; behind its line nothing may be taken away. */
	while ((len = mux_line_len(d)) == 0 && d->got < MUX_LINE_MAX) {
		size_t want = d->got < MUX_OK_MIN ? MUX_OK_MIN - d->got : 1;
		enum step step = read_some(d, want);

		if (step != STEP_NEXT)
			return step;
	}
	if (len != d->got || len < MUX_OK_MIN || memcmp(d->in, "OK ", 3) != 0)
		return finish(d, ENETDOWN, EPROTO);
	d->got = 0;
	return STEP_NEXT;
}

static enum step step_hello(struct dial *d)
{
	return send_all(d, d->out, d->out_len);
}

/* How many more bytes surely belong to the replies; 0: they are whole. */
static size_t reply_want(const struct dial *d)
{
	const uint8_t *reply = d->in + SOCKS5_METHOD_LEN;

	if (d->got < SOCKS5_METHOD_LEN)
		return SOCKS5_METHOD_LEN - d->got +
		       (d->probe ? 0 : socks5_reply_need(reply, 0));
	if (d->probe)
		return 0;
	return socks5_reply_need(reply, d->got - SOCKS5_METHOD_LEN);
}

static bool reply_is_sane(const struct dial *d, struct socks5_answer *answer)
{
	if (socks5_parse_method(d->in, d->got) == -1)
		return false;
	if (d->probe || d->got <= SOCKS5_METHOD_LEN)
		return true;
	return socks5_parse_reply(d->in + SOCKS5_METHOD_LEN,
		       d->got - SOCKS5_METHOD_LEN, answer) != -1;
}

static enum step step_reply(struct dial *d)
{
	struct socks5_answer answer = {0};
	size_t want;

	while ((want = reply_want(d)) > 0) {
		enum step step = read_some(d, want);

		if (step != STEP_NEXT)
			return step;
		if (!reply_is_sane(d, &answer))
			return finish(d, ENETDOWN, EPROTO);
	}
	if (answer.reply == SOCKS5_SUCCEEDED)
		d->result.local = answer.bound.addr;
	d->result.reply = answer.reply;
	return finish(d, socks5_errno(answer.reply), 0);
}

static enum step (*const steps[])(struct dial *) = {
	[DIAL_CONNECTING] = step_connecting,
	[DIAL_MUX_SEND] = step_mux_send,
	[DIAL_MUX_READ] = step_mux_read,
	[DIAL_HELLO] = step_hello,
	[DIAL_REPLY] = step_reply,
};

static enum dial_state state_after(const struct dial *d)
{
	if (d->state == DIAL_CONNECTING && d->ep.kind != ENDPOINT_VSOCK_MUX)
		return DIAL_HELLO;
	return d->state + 1;
}

/* What to wait for: the one place that decides it. */
static uint32_t mask_of(const struct dial *d)
{
	switch (d->state) {
	case DIAL_CONNECTING:
	case DIAL_MUX_SEND:
	case DIAL_HELLO: return EPOLLIN | EPOLLOUT | EPOLLRDHUP;
	case DIAL_MUX_READ:
	case DIAL_REPLY: return EPOLLIN | EPOLLRDHUP;
	case DIAL_BACKOFF:
	case DIAL_DONE: break;
	}
	return 0;
}

static void on_carrier(struct edge *edge, uint32_t events)
{
	struct dial *d = edge_owner(edge, struct dial, edge);

	assert(d->magic == DIAL_MAGIC && d->fd >= 0);
	/* Until it is writable or broken, connect() is still under way. */
	if (d->state == DIAL_CONNECTING &&
		!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		return;
	drive(d);
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

/* Go on until there is something to wait for. */
static void drive(struct dial *d)
{
	enum step step;

	do {
		assert(d->state < DIAL_BACKOFF);
		step = steps[d->state](d);
		if (step == STEP_NEXT)
			d->state = state_after(d);
	} while (step == STEP_NEXT);
	if (step == STEP_AGAIN && arm(d) == -1)
		carrier_failed(d, errno);
}

/* ---- the carrier ---- */

static void set_option(const struct dial *d, int level, int name,
	const void *value, size_t len)
{
	/* All of them only improve matters; a kernel without them works. */
	(void)setsockopt(d->fd, level, name, value, (socklen_t)len);
}

static void set_options(const struct dial *d)
{
	const struct timeval tv = {.tv_sec = VSOCK_CONNECT_TIMEOUT};
	const unsigned long long window = VSOCK_WINDOW;
	const int on = 1;

	if (d->ep.kind == ENDPOINT_VSOCK) {
		set_option(d, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &tv,
			sizeof(tv));
		set_option(d, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &window,
			sizeof(window));
		set_option(d, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &window,
			sizeof(window));
	} else if (d->ep.kind == ENDPOINT_TCP) {
		set_option(d, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
}

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
	set_options(d);
	d->state = DIAL_CONNECTING;
	if (connect(d->fd, &addr.sa, len) == 0)
		d->state = state_after(d);
	else if (errno != EINPROGRESS)
		return errno;
	return 0;
}

static void attempt(struct dial *d)
{
	int err;

	d->sent = 0;
	d->got = 0;
	err = connect_carrier(d);
	if (err)
		carrier_failed(d, err);
	else if (d->state != DIAL_CONNECTING)
		drive(d);
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
	else if (d->state != DIAL_REPLY || d->got < SOCKS5_METHOD_LEN)
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
	d->pause = PAUSE_FIRST;
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
	d->out_len = socks5_write_hello(d->out, command, dst);
	return start(d, loop, ep, timeout);
}

struct dial *dial_probe(struct ev_loop *loop, const struct endpoint *ep,
	double timeout, dial_cb *cb, void *arg)
{
	static const uint8_t greeting[] = {SOCKS5_VERSION, 1, SOCKS5_METHOD_OK};
	struct dial *d = calloc(1, sizeof(*d));

	assert(timeout > 0);
	if (!d)
		return NULL;
	d->cb = cb;
	d->arg = arg;
	d->probe = true;
	d->out_len = sizeof(greeting);
	memcpy(d->out, greeting, sizeof(greeting));
	return start(d, loop, ep, timeout);
}

void dial_cancel(struct dial *d)
{
	assert(d->magic == DIAL_MAGIC);
	drop_carrier(d);
	destroy(d);
}
