/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/dialer.h"

#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/*
 * Theory of operation
 *
 * TCP endpoints: a name is looked up, rules are asked about each address, and
 * connect.c tries what they allow.
 *
 * All others have one address, and one connect():
 *	unix       answers at once; EAGAIN means that the listener's backlog is
 *	           full, and nothing tells when it is not
 *	vsock      answers later. A listener whose backlog is full resets at
 *	           once, exactly as a port where nobody listens does
 *	vsock-mux  a unix socket on which "CONNECT port\n" is sent and "OK n\n"
 *	           comes back, n being the port on the host's side; the
 *	           multiplexer just closes if nobody listens in the guest. Then
 *	           it is the guest's stream
 * So a full backlog is met by trying again, on a fresh socket (older kernels
 * cannot use a vsock socket again), after pauses that double from PAUSE_FIRST
 * to PAUSE_LAST: for unix until the owner's deadline, for the reset of a vsock
 * only during RETRY_RESET, because most likely nobody is there.
 *
 * The answer of a multiplexer is read with as few calls as it takes, and what
 * came behind it is kept in @rest for whoever takes over the socket.
 *
 * state is changed in to() and finish() alone; finish() stops every watcher,
 * and calls back unless dialer_start() is still on the stack.
 */

#define DIALER_MAGIC 0x4449414cu /* "DIAL" */

#define RETRY_RESET 0.25  /* seconds */
#define PAUSE_FIRST 0.002 /* seconds */
#define PAUSE_LAST  0.05  /* seconds */

#define MUX_LINE_MAX   32 /* "CONNECT 4294967295\n", "OK 4294967295\n" */
#define MUX_OK         "OK "
#define MUX_NOT_A_PORT "the vsock multiplexer did not answer OK"

#define WOULD_LOOP                                                           \
 "that is the original destination itself, it would come back here; exempt " \
 "it from redirection"

static void to(struct dialer *d, enum dialer_state state)
{
	assert(d->magic == DIALER_MAGIC);
	d->state = state;
}

/* ---- the end ---- */

static void stop(struct dialer *d)
{
	ev_io_stop(d->loop, &d->io);
	ev_timer_stop(d->loop, &d->pause);
	if (d->query)
		resolve_cancel(d->query);
	d->query = NULL;
	connect_cancel(&d->job);
	to(d, DIALER_IDLE);
}

/* It has come to its end: @fd is connected, or @err says why not. */
static bool finish(struct dialer *d, int err)
{
	stop(d);
	d->err = err;
	if (err)
		closefd_if(&d->fd);
	assert((d->fd != -1) == (err == 0));
	return true;
}

/* The same from an event. */
static void conclude(struct dialer *d, bool finished)
{
	if (finished)
		d->cb(d, d->arg);
}

/* ---- TCP ---- */

static bool take_job(struct dialer *d)
{
	int err = d->job.err;

	d->fd = d->job.fd;
	d->family = (sa_family_t)d->job.local.family;
	d->job.fd = -1;
	return finish(d, err);
}

static void on_job(struct connect_job *job, void *arg)
{
	struct dialer *d = arg;

	assert(d->magic == DIALER_MAGIC && d->state == DIALER_ADDRESSES);
	conclude(d, take_job(d));
}

/* Connect to those of @addrs that the rules allow. */
static bool try_addresses(
	struct dialer *d, const struct ip_port *addrs, size_t nr)
{
	struct ip_port allowed[CONNECT_ADDRS_MAX];
	size_t nr_allowed = 0;

	assert(nr <= CONNECT_ADDRS_MAX);
	for (size_t i = 0; i < nr; i++) {
		struct ip_port plain = addrs[i];

		ip_port_unmap(&plain);
		if (d->never && ip_port_equal(&plain, d->never)) {
			d->why = WOULD_LOOP;
			return finish(d, ELOOP);
		}
		if (d->rules && !rules_allow(d->rules, &addrs[i]))
			continue;
		allowed[nr_allowed] = addrs[i];
		rules_canonical(&allowed[nr_allowed++]);
	}
	if (nr_allowed == 0) {
		d->why = "not allowed by the rules";
		return finish(d, EACCES);
	}
	connect_order(allowed, nr_allowed);
	to(d, DIALER_ADDRESSES);
	if (connect_start(&d->job, allowed, nr_allowed, on_job, d))
		return take_job(d);
	return false;
}

static bool resolved(struct dialer *d, enum resolve_status status,
	const char *why, const struct ip_port *addrs, size_t nr)
{
	switch (status) {
	case RESOLVE_OK: return try_addresses(d, addrs, nr);
	case RESOLVE_TIMED_OUT: d->why = why; return finish(d, ETIMEDOUT);
	case RESOLVE_NO_ADDRESS:
	case RESOLVE_FAILED: break;
	}
	d->why = why;
	return finish(d, EHOSTUNREACH);
}

static void on_resolved(void *arg, enum resolve_status status, const char *why,
	const struct ip_port *addrs, size_t nr)
{
	struct dialer *d = arg;
	/* May come before resolve_start() has returned the query; then whoever
	 * called that goes by the state. */
	bool in_start = !d->query;
	bool finished;

	assert(d->magic == DIALER_MAGIC && d->state == DIALER_RESOLVING);
	d->query = NULL;
	finished = resolved(d, status, why, addrs, nr);
	if (!in_start)
		conclude(d, finished);
}

static bool start_tcp(struct dialer *d)
{
	struct resolve_query *query;

	if (d->ep.addr.family != AF_UNSPEC)
		return try_addresses(d, &d->ep.addr, 1);
	to(d, DIALER_RESOLVING);
	query = resolve_start(
		d->resolver, d->ep.text, (uint16_t)d->ep.port, on_resolved, d);
	if (query)
		d->query = query;
	return d->state == DIALER_IDLE;
}

/* ---- vsock, unix, vsock-mux ---- */

static void wait_for(struct dialer *d, int events)
{
	ev_io_stop(d->loop, &d->io);
	ev_io_set(&d->io, d->fd, events);
	ev_io_start(d->loop, &d->io);
}

/* Seconds from the start during which a failed connect() is repeated. */
static double retry_window(const struct dialer *d, int err)
{
	if (err == EAGAIN)
		return 1e9; /* the owner has a deadline */
	if (d->ep.kind == ENDPOINT_VSOCK && err == ECONNRESET)
		return RETRY_RESET;
	return 0;
}

static bool connect_failed(struct dialer *d, int err)
{
	double next = d->pause.repeat * 2;

	d->err = err;
	if (ev_now(d->loop) - d->started >= retry_window(d, err))
		return finish(d, err);
	ev_io_stop(d->loop, &d->io);
	closefd_if(&d->fd);
	to(d, DIALER_PAUSE);
	d->pause.repeat = next > PAUSE_LAST ? PAUSE_LAST : next;
	ev_timer_again(d->loop, &d->pause);
	return false;
}

/*
 * Take what the multiplexer has sent.
 * Return: whether the dialer has finished.
 */
static bool mux_read(struct dialer *d)
{
	ssize_t n = recv(
		d->fd, d->rest + d->rest_len, sizeof(d->rest) - d->rest_len, 0);
	const uint8_t *eol;
	size_t line;

	if (n == -1 && fd_try_again(errno))
		return false;
	if (n <= 0)
		/* That is how it says that nobody listens. */
		return finish(d, n == 0 ? ECONNREFUSED : errno);
	d->rest_len += (size_t)n;
	eol = memchr(d->rest, '\n', d->rest_len);
	line = eol ? (size_t)(eol - d->rest) + 1 : d->rest_len;
	if (!eol && line < MUX_LINE_MAX)
		return false;
	if (!eol || line > MUX_LINE_MAX ||
		memcmp(d->rest, MUX_OK, strlen(MUX_OK)) != 0) {
		d->why = MUX_NOT_A_PORT;
		return finish(d, EPROTO);
	}
	d->rest_len -= line;
	memmove(d->rest, d->rest + line, d->rest_len);
	return finish(d, 0);
}

static bool mux_send(struct dialer *d)
{
	char line[MUX_LINE_MAX];
	int len = snprintf(line, sizeof(line), "CONNECT %u\n", d->ep.port);
	ssize_t n = send(
		d->fd, line + d->sent, (size_t)len - d->sent, MSG_NOSIGNAL);

	if (n == -1 && !fd_try_again(errno))
		return finish(d, errno);
	if (n > 0)
		d->sent += (size_t)n;
	to(d, d->sent == (size_t)len ? DIALER_MUX_READ : DIALER_MUX_SEND);
	wait_for(d, d->state == DIALER_MUX_READ ? EV_READ : EV_WRITE);
	return false;
}

static bool connect_succeeded(struct dialer *d)
{
	if (d->ep.kind == ENDPOINT_VSOCK_MUX)
		return mux_send(d);
	return finish(d, 0);
}

static bool connect_once(struct dialer *d)
{
	union endpoint_sockaddr addr;
	socklen_t len = endpoint_sockaddr(&d->ep, &addr);

	assert(len > 0 && d->fd == -1);
	d->family = addr.sa.sa_family;
	d->fd = socket(
		d->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd == -1)
		return finish(d, errno);
	if (d->ep.kind == ENDPOINT_VSOCK)
		vsock_options(d->fd);
	if (connect(d->fd, &addr.sa, len) == 0)
		return connect_succeeded(d);
	if (errno != EINPROGRESS)
		return connect_failed(d, errno);
	to(d, DIALER_CONNECTING);
	wait_for(d, EV_WRITE);
	return false;
}

static bool connect_answered(struct dialer *d)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(d->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		err = errno;
	if (err)
		return connect_failed(d, err);
	ev_io_stop(d->loop, &d->io);
	return connect_succeeded(d);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct dialer *d = w->data;

	assert(d->magic == DIALER_MAGIC);
	switch (d->state) {
	case DIALER_CONNECTING: conclude(d, connect_answered(d)); break;
	case DIALER_MUX_SEND: conclude(d, mux_send(d)); break;
	case DIALER_MUX_READ: conclude(d, mux_read(d)); break;
	case DIALER_IDLE:
	case DIALER_RESOLVING:
	case DIALER_ADDRESSES:
	case DIALER_PAUSE: assert(!"an event for a state without an fd");
	}
}

static void on_pause(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct dialer *d = w->data;

	assert(d->magic == DIALER_MAGIC && d->state == DIALER_PAUSE);
	ev_timer_stop(loop, w);
	conclude(d, connect_once(d));
}

/* ---- life ---- */

void dialer_init(struct dialer *d, struct ev_loop *loop,
	struct resolver *resolver, struct fd_budget *budget)
{
	d->magic = DIALER_MAGIC;
	d->state = DIALER_IDLE;
	d->fd = -1;
	d->family = AF_UNSPEC;
	d->err = 0;
	d->why = NULL;
	d->never = NULL;
	d->loop = loop;
	d->resolver = resolver;
	d->query = NULL;
	connect_init(&d->job, loop, budget);
	ev_init(&d->io, on_io);
	d->io.data = d;
	ev_timer_init(&d->pause, on_pause, 0, PAUSE_FIRST / 2);
	d->pause.data = d;
	d->sent = d->rest_len = 0;
}

bool dialer_start(struct dialer *d, const struct endpoint *ep,
	const struct rules *rules, dialer_cb *cb, void *arg)
{
	assert(d->magic == DIALER_MAGIC && d->state == DIALER_IDLE);
	d->ep = *ep;
	d->rules = rules;
	d->cb = cb;
	d->arg = arg;
	d->started = ev_now(d->loop);
	return ep->kind == ENDPOINT_TCP ? start_tcp(d) : connect_once(d);
}

int dialer_timed_out(const struct dialer *d)
{
	if (d->state == DIALER_ADDRESSES)
		return connect_timed_out(&d->job);
	return d->state == DIALER_PAUSE && d->err ? d->err : ETIMEDOUT;
}

void dialer_cancel(struct dialer *d)
{
	stop(d);
	closefd_if(&d->fd);
}
