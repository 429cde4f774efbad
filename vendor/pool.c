/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/pool.h"
#include "common/fd.h"
#include "common/log.h"
#include "vendor/pairing.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

/*
 * Theory of operation
 *
 * A standby connection goes through these states, always forward:
 *
 *	DIALLING  at the turnstile's expense, until the first reply
 *	IDLE      waits at the host proxy
 *	PAIRING   a part of the second reply came. Ends after PAIRING_TIMEOUT
 *	GONE      handed out, or closed; freed at the end of the turn
 *
 * The second reply says who the client is (vendor/pairing.h). One that is
 * malformed or no success, or an end before it is whole, costs that one
 * connection.
 *
 * How many are wanted, @target, is between the water marks and is no matter of
 * the listen() backlog:
 *
 *	the last idle one is taken	it doubles, up to @high
 *	for QUIET seconds half of it	it halves, down to @low
 *	  or more was never needed
 *	for QUIET seconds no client	what is idle above it is closed, oldest
 *					first (vsock looks these up slowest);
 *					else clients use it up
 *
 * Between the last look at an idle connection and its close the host proxy
 * may pair it; that client is lost. It is why nothing is closed while clients
 * come.
 *
 * Missing ones are dialled POOL_DIALS at a time. After any failure (a dial,
 * or a standby connection that died) there is a pause, from 50 ms to 1 s, so
 * that a host proxy that takes connections and drops them is not hammered; a
 * client that comes, or FORGIVE seconds without failure, end that sequence.
 *
 * A pool that is held back keeps what it has, as soon as it is settled: the
 * first standby connection makes the host listen. One by plain BIND still wants
 * one idle connection then, since connections are all that owns its port.
 */

#define POOL_MAGIC    0x706f6f6cu
#define STANDBY_MAGIC 0x7374626bu

#define POOL_DIALS      16
#define DIAL_TIMEOUT    5.0  /* seconds, to the first reply */
#define PAIRING_TIMEOUT 10.0 /* seconds */
#define QUIET           2.0  /* seconds */
#define FORGIVE         5.0  /* seconds */

enum standby_state {
	STANDBY_DIALLING,
	STANDBY_IDLE,
	STANDBY_PAIRING,
	STANDBY_GONE,
};

/**
 * struct standby - one connection
 * @fd:     IDLE and PAIRING, else -1
 * @limit:  PAIRING: the deadline
 */
struct standby {
	uint32_t magic;
	enum standby_state state;
	struct pool *pool;
	struct list link;
	struct dial *dial;
	int fd;
	struct edge edge;
	ev_timer limit;
	struct pairing pairing;
	struct reap reap;
};

static void refill(struct pool *p);

/* ---- states ---- */

static unsigned *counter(struct pool *p, enum standby_state state)
{
	switch (state) {
	case STANDBY_DIALLING: return &p->dialling;
	case STANDBY_IDLE: return &p->idle;
	case STANDBY_PAIRING: return &p->pairing;
	case STANDBY_GONE: break;
	}
	return NULL;
}

/* The last idle one is taken: the next burst finds twice as many. */
static void note_demand(struct pool *p)
{
	p->busy = true;
	p->pause = 0;
	if (p->idle > 0 || !p->open)
		return;
	p->target = p->target * 2 < p->high ? p->target * 2 : p->high;
	if (p->target > p->low && !ev_is_active(&p->quiet)) {
		p->least = 0;
		ev_timer_set(&p->quiet, QUIET, QUIET);
		ev_timer_start(p->env->loop, &p->quiet);
	}
}

static void set_state(struct standby *s, enum standby_state state)
{
	struct pool *p = s->pool;
	unsigned *to = counter(p, state);

	assert(state > s->state);
	--*counter(p, s->state);
	if (p->idle < p->least)
		p->least = p->idle;
	if (to)
		++*to;
	else
		p->env->standbys--;
	if (s->state == STANDBY_IDLE && state == STANDBY_PAIRING)
		note_demand(p);
	s->state = state;
}

static void standby_free(struct reap *reap)
{
	struct standby *s = list_entry(reap, struct standby, reap);

	s->magic = 0;
	free(s);
}

static void standby_end(struct standby *s)
{
	struct pool *p = s->pool;

	if (s->state == STANDBY_GONE)
		return;
	set_state(s, STANDBY_GONE);
	ev_timer_stop(p->env->loop, &s->limit);
	if (s->edge.poll)
		edge_drop(&s->edge);
	closefd_if(&s->fd);
	list_del(&s->link);
	reap_later(&p->env->reaper, &s->reap, standby_free);
	if (s->dial) {
		dial_cancel(s->dial);
		s->dial = NULL;
		turnstile_leave(&p->env->dials);
	}
}

/* ---- failures ---- */

static void pause_refill(struct pool *p)
{
	ev_tstamp now = ev_now(p->env->loop);

	if (!p->open || ev_is_active(&p->retry))
		return;
	if (now - p->failed > FORGIVE)
		p->pause = 0;
	p->failed = now;
	ev_timer_set(&p->retry, env_pause(&p->pause), 0);
	ev_timer_start(p->env->loop, &p->retry);
}

static void on_retry(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct pool *p = timer->data;

	assert(p->magic == POOL_MAGIC && p->open);
	refill(p);
}

static void standby_failed(struct standby *s, const char *what)
{
	struct pool *p = s->pool;

	log_info_ratelimit(
		"port %u: a standby connection: %s", p->port.port, what);
	standby_end(s);
	pause_refill(p);
	refill(p);
}

/* ---- the second reply ---- */

/* Read what is there of it. *why is set upon PAIRING_FAILED. */
static enum pairing_state read_reply(struct standby *s, const char **why)
{
	enum pairing_state state = pairing_read(&s->pairing, s->fd, why);

	if (s->state == STANDBY_IDLE && pairing_has_begun(&s->pairing))
		set_state(s, STANDBY_PAIRING);
	return state;
}

/* Hand the client out. The last thing that an event does. */
static void pair(struct standby *s)
{
	struct pool *p = s->pool;
	struct ip_port remote = s->pairing.remote;
	struct ip_port local = s->pairing.local;
	int fd = s->fd;

	if (s->edge.poll)
		edge_del(&s->edge);
	s->fd = -1;
	standby_end(s);
	refill(p);
	p->cb(fd, &remote, &local, p->arg);
}

static void on_standby(struct edge *edge, uint32_t events)
{
	struct standby *s = list_entry(edge, struct standby, edge);
	const char *why = NULL;

	assert(s->magic == STANDBY_MAGIC && s->fd >= 0);
	switch (read_reply(s, &why)) {
	case PAIRING_WHOLE: pair(s); break;
	case PAIRING_FAILED: standby_failed(s, why); break;
	case PAIRING_PART:
		if (s->state == STANDBY_PAIRING && !ev_is_active(&s->limit))
			ev_timer_start(s->pool->env->loop, &s->limit);
		break;
	}
}

static void on_limit(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct standby *s = timer->data;

	assert(s->magic == STANDBY_MAGIC && s->state == STANDBY_PAIRING);
	standby_failed(s, "the second reply does not end");
}

/* ---- new ones ---- */

static struct standby *standby_new(struct pool *p)
{
	struct standby *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->magic = STANDBY_MAGIC;
	s->state = STANDBY_DIALLING;
	s->pool = p;
	s->fd = -1;
	s->pairing.plain = p->port.plain;
	ev_timer_init(&s->limit, on_limit, PAIRING_TIMEOUT, 0);
	s->limit.data = s;
	list_add_tail(&p->standbys, &s->link);
	p->dialling++;
	p->env->standbys++;
	return s;
}

static void settle(struct standby *s, int fd)
{
	s->fd = fd;
	set_state(s, STANDBY_IDLE);
	if (edge_add(s->pool->env->poll, &s->edge, fd, EPOLLIN | EPOLLRDHUP,
		    on_standby) == -1)
		standby_failed(s, log_strerror(errno));
}

static void tell_settled(struct pool *p)
{
	if (!p->open || p->settled)
		return;
	p->settled = true;
	p->settled_cb(p->arg);
}

static void on_dialled(const struct dial_result *r, void *arg)
{
	struct standby *s = arg;
	struct pool *p = s->pool;
	int err = r->proxy_err ? r->proxy_err : r->err;

	assert(s->magic == STANDBY_MAGIC && s->state == STANDBY_DIALLING);
	s->dial = NULL;
	turnstile_leave(&p->env->dials);
	if (err == 0) {
		settle(s, r->fd);
		refill(p);
	} else {
		standby_failed(s, log_strerror(err));
	}
	tell_settled(p);
}

/* With a slot of the turnstile. */
static void dial_one(struct pool *p)
{
	struct standby *s = standby_new(p);
	struct socks5_addr dst;

	pairing_ask(&p->port, &dst);
	if (s)
		s->dial = dial_start(p->env->loop, p->ep, SOCKS5_BIND, &dst,
			DIAL_TIMEOUT, on_dialled, s);
	if (s && s->dial)
		return;
	if (s)
		standby_end(s);
	pause_refill(p);
	turnstile_leave(&p->env->dials);
}

/* How many are to be dialled: the one place that decides it. */
static unsigned wanted(struct pool *p)
{
	unsigned have = p->idle + p->dialling;
	bool held_back = p->held_back && p->settled;
	unsigned goal = held_back ? p->port.plain : p->target;

	if (!p->open || ev_is_active(&p->retry) || have >= goal ||
		p->dialling >= POOL_DIALS)
		return 0;
	if (p->env->standbys >= p->env->standbys_max) {
		log_warn_ratelimit("port %u: %zu standby connections are as "
				   "many as the limit of open files allows",
			p->port.port, p->env->standbys);
		pause_refill(p);
		return 0;
	}
	return goal - have;
}

static void refill(struct pool *p)
{
	while (wanted(p) > 0 && turnstile_enter(&p->env->dials, &p->turn))
		dial_one(p);
}

static void on_turn(struct turnstile_wait *turn)
{
	struct pool *p = list_entry(turn, struct pool, turn);

	assert(p->magic == POOL_MAGIC && p->open);
	if (wanted(p) > 0)
		dial_one(p);
	else
		turnstile_leave(&p->env->dials);
	refill(p);
	if (ev_is_active(&p->retry))
		tell_settled(p);
}

/* ---- shrinking ---- */

static bool has_input(const struct standby *s)
{
	struct pollfd pfd = {.fd = s->fd, .events = POLLIN};

	return poll(&pfd, 1, 0) > 0;
}

static struct standby *oldest_idle(struct pool *p)
{
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &p->standbys)
	{
		struct standby *s = list_entry(l, struct standby, link);

		if (s->state == STANDBY_IDLE)
			return s;
	}
	return NULL;
}

static void trim(struct pool *p)
{
	struct standby *s;

	while (p->idle > p->target && (s = oldest_idle(p))) {
		if (has_input(s))
			break; /* not that quiet; its event follows */
		standby_end(s);
	}
}

static void on_quiet(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct pool *p = timer->data;

	assert(p->magic == POOL_MAGIC && p->open);
	if (!p->held_back && p->least >= p->target / 2)
		p->target = p->target / 2 > p->low ? p->target / 2 : p->low;
	if (!p->held_back && !p->busy)
		trim(p);
	p->busy = false;
	p->least = p->idle;
	if (p->target == p->low && p->idle <= p->target)
		ev_timer_stop(loop, timer);
}

/* ---- the pool ---- */

void pool_init(struct pool *p, struct inbound_env *env,
	const struct endpoint *ep, pool_client_cb *cb,
	pool_settled_cb *settled_cb, void *arg)
{
	p->magic = POOL_MAGIC;
	p->env = env;
	p->ep = ep;
	p->cb = cb;
	p->settled_cb = settled_cb;
	p->arg = arg;
	list_init(&p->standbys);
	turnstile_wait_init(&p->turn, on_turn);
	ev_timer_init(&p->retry, on_retry, 0, 0);
	ev_timer_init(&p->quiet, on_quiet, QUIET, QUIET);
	p->retry.data = p->quiet.data = p;
}

static void adopt(struct pool *p, int fd)
{
	struct standby *s = standby_new(p);

	if (s)
		settle(s, fd);
	else
		closefd(&fd);
}

void pool_open(struct pool *p, const struct pool_port *port, unsigned low,
	unsigned high, int first)
{
	assert(p->magic == POOL_MAGIC && !p->open && list_empty(&p->standbys));
	p->port = *port;
	p->open = true;
	p->settled = false;
	p->busy = false;
	p->pause = 0;
	p->target = 0;
	if (first != -1)
		adopt(p, first);
	pool_resize(p, low, high);
	if (p->idle > 0 || ev_is_active(&p->retry))
		tell_settled(p);
}

void pool_resize(struct pool *p, unsigned low, unsigned high)
{
	assert(p->open && 1 <= low && low <= high);
	p->low = low;
	p->high = high;
	if (p->target < low)
		p->target = low;
	if (p->target > high)
		p->target = high;
	refill(p);
}

void pool_hold_back(struct pool *p, bool held_back)
{
	p->held_back = held_back;
	refill(p);
}

void pool_close(struct pool *p, bool drain)
{
	struct list *l, *tmp;
	struct list ready;
	const char *why;

	if (!p->open)
		return;
	p->open = p->settled = false;
	turnstile_forget(&p->turn);
	ev_timer_stop(p->env->loop, &p->retry);
	ev_timer_stop(p->env->loop, &p->quiet);
	list_init(&ready);
	list_foreach_safe(l, tmp, &p->standbys)
	{
		struct standby *s = list_entry(l, struct standby, link);

		if (drain && s->fd != -1 &&
			read_reply(s, &why) == PAIRING_WHOLE) {
			list_del(l);
			list_add_tail(&ready, l);
		} else {
			standby_end(s);
		}
	}
	while (!list_empty(&ready))
		pair(list_entry(ready.next, struct standby, link));
}
