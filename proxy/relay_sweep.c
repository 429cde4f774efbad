/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/relay_impl.h"

#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

/*
 * Theory of operation
 *
 * What waiting does not show. A side that is not waited for (its stream has
 * ended, or the sink is slow) may break without an event. A relay with such a
 * side is on the group's watched list, and a sweep every few seconds probes
 * those sides with a send of no bytes, which fails on a socket of any family
 * that has lost its peer:
 *	TCP	a failure means a reset or a dead peer: reset, now
 *	others	the peer has closed both directions. If s has nothing more to
 *		give, the other side gets gone_after seconds to end by itself,
 *		as an orphaned TCP socket in FIN_WAIT2 does; then close. If it
 *		has, HELD_PATIENCE times that without a byte moved, which is
 *		about how long TCP probes a closed window for an orphan; then
 *		reset, because what is held is lost
 * A side that takes no more bytes (SINK_GONE) while the other does not take
 * what is held from it is gone as well: after gone_after seconds in which no
 * byte moved both are reset. Half-closed connections whose peers live are never
 * timed out.
 *
 * Idle connections are timed out only where the owner asked for it. Activity
 * is a byte written to either side; the timer is not moved for each, but when
 * it fires looks at when that last was, and is set again for what is left.
 */

/* Of half-closed and braked connections; how soon an unseen reset shows. */
#define SWEEP_EVERY 5.0 /* seconds */
/* Linux' own tcp_fin_timeout, for the same situation. */
#define GONE_AFTER    60.0 /* seconds */
#define HELD_PATIENCE 4

/* ---- the sweep ---- */

/* Why nothing can be sent to @side any more, or 0. */
static int probe(const struct relay_side *s)
{
	if (send(s->fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == -1 &&
		!fd_try_again(errno))
		return errno;
	return 0;
}

/*
 * Look at a side that nothing waits for.
 * Return: true if its peer has gone without a word and leaves nothing behind.
 */
static bool sweep_side(struct relay *r, int side)
{
	const struct relay_side *s = &r->side[side];
	int err;

	if ((r->events & CLOSED) || (relay_wanted(r, side) & EV_READ))
		return false;
	/* What it sent before is held for the other side, which may itself be
	 * stuck in sending to nobody. */
	if (r->events & SINK_GONE(side))
		return true;
	/* What we have shut down ourselves cannot be probed by sending, but
	 * then this direction has ended well, and the other side's reads and
	 * writes decide. */
	if (r->events & FIN_SENT(side))
		return false;
	err = probe(s);
	if (!err)
		return false;
	if (s->family == AF_INET || s->family == AF_INET6) {
		relay_close(r, err);
		return false;
	}
	return true;
}

/* A side is gone for good, and no byte has moved for @seconds: time to end? */
static void end_gone(struct relay *r, double seconds)
{
	bool broken = r->events & (SINK_GONE(0) | SINK_GONE(1));
	bool held = !broken && !(r->events & (FIN_SENT(0) | FIN_SENT(1)));

	if (seconds < r->group->gone_after * (held ? HELD_PATIENCE : 1))
		return;
	relay_close(r, broken ? EPIPE : held ? ETIMEDOUT : 0);
}

static void sweep_relay(struct relay *r, double now)
{
	bool gone = sweep_side(r, 0) || sweep_side(r, 1);

	if (r->events & CLOSED)
		return;
	if (!gone)
		r->gone_since = 0;
	else if (r->gone_since == 0 || r->gone_since < r->moved)
		r->gone_since = now;
	else
		end_gone(r, now - r->gone_since);
}

static void on_sweep(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct relay_group *g = w->data;
	struct list *link, *next;

	assert(g->magic == RELAY_GROUP_MAGIC);
	/* Sweeping a relay takes at most itself off the list. */
	for (link = g->watched.next; link != &g->watched; link = next) {
		next = link->next;
		sweep_relay(list_entry(link, struct relay, link), ev_now(loop));
	}
	if (list_empty(&g->watched))
		ev_timer_stop(loop, w);
}

void relay_watch_over(struct relay *r, bool watched)
{
	struct relay_group *g = r->group;

	if (r->watched == watched)
		return;
	r->watched = watched;
	list_del(&r->link);
	list_add_tail(watched ? &g->watched : &g->steady, &r->link);
	if (watched && !ev_is_active(&g->sweep)) {
		g->sweep.repeat = g->sweep_every;
		ev_timer_again(g->loop, &g->sweep);
	}
}

void relay_sweep_init(struct relay_group *g)
{
	ev_init(&g->sweep, on_sweep);
	g->sweep.data = g;
	g->sweep_every = SWEEP_EVERY;
	g->gone_after = GONE_AFTER;
}

/* ---- idle connections ---- */

static void on_idle(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct relay *r = w->data;
	double left;

	assert(r->magic == RELAY_MAGIC && !(r->events & CLOSED));
	left = r->moved + r->idle_after - ev_now(loop);
	if (left <= 0) {
		log_debug("conn %" PRIu64 ": idle for %g s", r->id,
			r->idle_after);
		relay_close(r, RELAY_IDLE);
		return;
	}
	w->repeat = left;
	ev_timer_again(loop, w);
}

void relay_idle_init(struct relay *r)
{
	ev_init(&r->idle, on_idle);
	r->idle.data = r;
}

void relay_set_idle(struct relay *r, double seconds)
{
	assert(r->magic == RELAY_MAGIC && seconds >= 0);
	if (seconds == 0)
		return;
	r->moved = ev_now(r->group->loop);
	r->idle_after = r->idle.repeat = seconds;
	ev_timer_again(r->group->loop, &r->idle);
}
