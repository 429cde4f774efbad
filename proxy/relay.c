/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/relay_impl.h"

#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * Goals: what one side sends the other receives, in order, whole and once; an
 * end of stream arrives as an end of stream and a broken connection as a
 * broken one; a slow receiver slows its sender and costs bounded memory; an
 * idle connection costs this struct and two fds.
 *
 * Sides and directions. The sockets are side 0 and side 1, and the opposite of
 * a side is !side. A direction is named by the side its bytes come from. All
 * code below is written once, for "a side".
 *
 * Moving bytes. When a side becomes readable, one recv() takes what is there
 * into the loop's scratch buffer and one send() passes it on, without asking
 * first whether the sink can take it: it nearly always can. One read for each
 * event is what bounds the work of a turn, so that a bulk transfer takes turns
 * with everyone else; the scratch buffer is large, so that it still needs few
 * turns. (Waiting is level-triggered: nothing is assumed about what a short
 * read means, which differs between vsock transports.)
 *
 * Back-pressure. What the sink did not take is "held", see held.h. While a
 * direction holds bytes its source is not read, so it holds at most one scratch
 * buffer. When the sink becomes writable the rest is sent, and the source is
 * read once more in the same turn so that a steady stream against a steady
 * brake needs no epoll_ctl().
 *
 * State is a set of event bits, changed by relay_event() alone:
 *
 *	FIN_RCVD(s)	a read from s returned the end of its stream
 *	FIN_SENT(s)	s was told so: shutdown(s, SHUT_WR)
 *	SINK_GONE(s)	a write to s failed: its peer takes no more bytes
 *	CLOSED		fds are closed, the memory waits for the reaper
 *
 * What to wait for is derived from state in relay_wanted() alone, and what
 * to do about an end in relay_settle() alone:
 *
 *	FIN_RCVD(s)  held from s  SINK_GONE(!s)
 *	     0            0             0	read s
 *	     0            1             0	do not read s; wait to write !s
 *	     1            1             0	wait to write !s
 *	     1            0             0	FIN_SENT(!s), once
 *	     *            -             1	what is held is dropped, s is
 *						not read any more
 *
 *	FIN_SENT(0) and FIN_SENT(1): close, the normal end
 *	read error on s: reset
 *	SINK_GONE(0) and SINK_GONE(1): reset
 *	SINK_GONE(s), FIN_RCVD(s), nothing held from s: reset. Until then what
 *	s sent before it went is still passed on, as TCP does with what arrived
 *	before a reset
 *
 * Resets. "Reset" closes both sockets so that the peers can tell it from an
 * end of stream, as far as the family can:
 *	TCP	SO_LINGER with zero time makes close() send RST
 *	unix	close() with bytes unread in our queue gives the peer
 *		ECONNRESET, so nothing is drained before; with none unread it
 *		is an end of stream
 *	vsock	has no way; the peer reads an end of stream, its writes fail
 * In the other direction, vsock reports a peer's reset as an end of stream.
 * And after a local shutdown() it reports an end of stream as ENOTCONN.
 *
 * What no event shows, and time: relay_sweep.c.
 */

static const char *const event_names[] = {
	"FIN_RCVD(0)",
	"FIN_RCVD(1)",
	"FIN_SENT(0)",
	"FIN_SENT(1)",
	"SINK_GONE(0)",
	"SINK_GONE(1)",
	"CLOSED",
	"DONE_TOLD(0)",
	"DONE_TOLD(1)",
};
_Static_assert(1u << (sizeof(event_names) / sizeof(event_names[0]) - 1) ==
		       DONE_TOLD(1),
	"a name for each event");

size_t relay_size(void)
{
	return sizeof(struct relay);
}

static void relay_event(struct relay *r, uint32_t event)
{
	assert(r->magic == RELAY_MAGIC);
	assert(!(r->events & (event | CLOSED)));
	r->events |= event;
	log_debug("conn %" PRIu64 ": %s", r->id,
		event_names[__builtin_ctz(event)]);
}

/* Let go of what is held from @side. */
static void drop(struct relay *r, int side)
{
	held_drop(&r->side[side].held, &r->group->scratch);
}

/* ---- the end ---- */

static void tell_done(struct relay *r, int side, int err)
{
	if (r->events & DONE_TOLD(side))
		return;
	r->events |= DONE_TOLD(side);
	if (r->ops && r->ops->direction_done)
		r->ops->direction_done(r->arg, side, r->side[side].bytes, err);
}

/* SO_LINGER without time to linger: close() sends RST. */
void relay_arm_reset(int fd, sa_family_t family)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (family == AF_INET || family == AF_INET6)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

static void relay_destroy(struct reap *reap)
{
	struct relay *r = list_entry(reap, struct relay, reap);

	assert(r->magic == RELAY_MAGIC && (r->events & CLOSED));
	r->magic = 0;
	free(r);
}

void relay_close(struct relay *r, int err)
{
	struct relay_group *g = r->group;

	log_debug("conn %" PRIu64 ": closed, %" PRIu64 " bytes out, %" PRIu64
		  " bytes in%s%s",
		r->id, r->side[0].bytes, r->side[1].bytes,
		err ? ", reset: " : "", err ? log_strerror(err) : "");
	for (int side = 0; side < 2; side++) {
		struct relay_side *s = &r->side[side];

		ev_io_stop(g->loop, &s->io);
		drop(r, side);
		if (err)
			relay_arm_reset(s->fd, s->family);
		closefd(&s->fd);
	}
	ev_timer_stop(g->loop, &r->idle);
	tell_done(r, 0, err);
	tell_done(r, 1, err);
	relay_event(r, CLOSED);
	list_del(&r->link);
	assert(g->nr > 0);
	g->nr--;
	if (r->ops && r->ops->closed)
		r->ops->closed(r->arg);
	if (g->closed)
		g->closed(g->arg);
	reap_later(g->reaper, &r->reap, relay_destroy);
}

/* ---- moving bytes ---- */

/*
 * The peer of @side takes no more bytes: whatever was meant for it is dropped.
 */
static void sink_gone(struct relay *r, int side, int err)
{
	if (r->events & SINK_GONE(side))
		return;
	log_debug("conn %" PRIu64 ": write to side %d: %s", r->id, side,
		log_strerror(err));
	relay_event(r, SINK_GONE(side));
	drop(r, !side);
	tell_done(r, !side, err);
}

/*
 * Write to @side what it takes.
 * Return: bytes written, possibly 0, or -1 if it is gone (and marked so).
 */
static ssize_t sink_write(
	struct relay *r, int side, const uint8_t *data, size_t len)
{
	ssize_t n = send(r->side[side].fd, data, len, MSG_NOSIGNAL);

	if (n >= 0) {
		r->moved = ev_now(r->group->loop);
		return n;
	}
	if (fd_try_again(errno))
		return 0;
	sink_gone(r, side, errno);
	return -1;
}

/* Pass on @data that came from @side; hold what is not taken. */
static void deliver(struct relay *r, int side, const uint8_t *data, size_t len)
{
	ssize_t n = sink_write(r, !side, data, len);

	if (n == -1 || (size_t)n == len)
		return;
	if (held_set(&r->side[side].held, &r->group->scratch, data + n,
		    len - (size_t)n) == -1)
		relay_close(r, ENOMEM);
}

/*
 * Read once from @side and pass it on.
 */
static void forward(struct relay *r, int side)
{
	struct relay_side *s = &r->side[side];
	const struct scratch *scratch = &r->group->scratch;
	ssize_t n = recv(s->fd, scratch->buf, scratch->size, 0);

	if (n > 0) {
		s->bytes += (uint64_t)n;
		deliver(r, side, scratch->buf, (size_t)n);
	} else if (n == 0 ||
		   (errno == ENOTCONN && (r->events & FIN_SENT(side)))) {
		relay_event(r, FIN_RCVD(side));
	} else if (!fd_try_again(errno)) {
		relay_close(r, errno);
	}
}

/* Write what is held from @side. */
static void flush_held(struct relay *r, int side)
{
	struct held *h = &r->side[side].held;
	ssize_t n = sink_write(r, !side, h->buf + h->off, h->len);

	if (n != -1)
		held_take(h, &r->group->scratch, (size_t)n);
}

/* ---- from state to effects ---- */

uint8_t relay_wanted(const struct relay *r, int side)
{
	uint8_t mask = 0;

	if (!(r->events & (FIN_RCVD(side) | SINK_GONE(!side))) &&
		r->side[side].held.len == 0)
		mask |= EV_READ;
	if (r->side[!side].held.len > 0)
		mask |= EV_WRITE;
	return mask;
}

/* See that @side is waited for as wanted() says. */
static void watch(struct relay *r, int side)
{
	struct relay_side *s = &r->side[side];
	uint8_t mask = relay_wanted(r, side);

	if (s->mask == mask)
		return;
	ev_io_stop(r->group->loop, &s->io);
	ev_io_modify(&s->io, mask);
	if (mask)
		ev_io_start(r->group->loop, &s->io);
	s->mask = mask;
}

/* Tell !@side that @side's stream has ended, once all of it was passed on. */
static void pass_fin(struct relay *r, int side)
{
	if (!(r->events & FIN_RCVD(side)) || r->side[side].held.len > 0 ||
		(r->events & (FIN_SENT(!side) | SINK_GONE(!side))))
		return;
	/* Where this is the last there is to say, close() says it as well: it
	 * follows at once, and nothing is left unread that it might reset.
	 * A peer that has left altogether cannot be told. Where it had ended
	 * its own stream before, that is no failure: both have ended. */
	if (!(r->events & FIN_SENT(side)) &&
		shutdown(r->side[!side].fd, SHUT_WR) == -1 &&
		!(r->events & FIN_RCVD(!side))) {
		sink_gone(r, !side, errno);
		return;
	}
	relay_event(r, FIN_SENT(!side));
	tell_done(r, side, 0);
}

/* Has @side nothing more to give, and takes nothing more either? */
static bool spent(const struct relay *r, int side)
{
	return (r->events & SINK_GONE(side)) && (r->events & FIN_RCVD(side)) &&
	       r->side[side].held.len == 0;
}

/*
 * Draw the conclusions from the relay's state: pass ends of streams on, close
 * what is finished, wait for what is wanted. Called after anything happened.
 */
static void relay_settle(struct relay *r)
{
	if (r->events & CLOSED)
		return;
	pass_fin(r, 0);
	pass_fin(r, 1);
	if ((r->events & FIN_SENT(0)) && (r->events & FIN_SENT(1))) {
		relay_close(r, 0);
		return;
	}
	if (spent(r, 0) || spent(r, 1) ||
		((r->events & SINK_GONE(0)) && (r->events & SINK_GONE(1)))) {
		relay_close(r, EPIPE);
		return;
	}
	watch(r, 0);
	watch(r, 1);
	relay_watch_over(
		r, !(relay_wanted(r, 0) & relay_wanted(r, 1) & EV_READ));
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct relay *r = w->data;
	int side;

	assert(r->magic == RELAY_MAGIC && !(r->events & CLOSED));
	side = w == &r->side[1].io;
	assert(w == &r->side[side].io);
	if ((revents & EV_WRITE) && r->side[!side].held.len > 0) {
		flush_held(r, !side);
		if (relay_wanted(r, !side) & EV_READ)
			forward(r, !side);
	}
	if ((revents & EV_READ) && !(r->events & CLOSED) &&
		(relay_wanted(r, side) & EV_READ))
		forward(r, side);
	relay_settle(r);
}

/* ---- life ---- */

int relay_group_init(struct relay_group *g, struct ev_loop *loop,
	struct reaper *reaper, size_t size, void (*closed)(void *arg),
	void *arg)
{
	assert(size >= RELAY_BUFFER_MIN && size <= RELAY_BUFFER_MAX);
	memset(g, 0, sizeof(*g));
	if (scratch_init(&g->scratch, size) == -1)
		return -1;
	g->magic = RELAY_GROUP_MAGIC;
	g->loop = loop;
	g->reaper = reaper;
	list_init(&g->steady);
	list_init(&g->watched);
	relay_sweep_init(g);
	g->closed = closed;
	g->arg = arg;
	return 0;
}

void relay_group_abort(struct relay_group *g)
{
	struct list *lists[] = {&g->steady, &g->watched};

	assert(g->magic == RELAY_GROUP_MAGIC);
	for (size_t i = 0; i < 2; i++)
		while (!list_empty(lists[i]))
			relay_abort(
				list_entry(lists[i]->next, struct relay, link));
}

void relay_group_free(struct relay_group *g)
{
	assert(g->magic == RELAY_GROUP_MAGIC);
	assert(g->nr == 0);
	ev_timer_stop(g->loop, &g->sweep);
	scratch_free(&g->scratch);
	g->magic = 0;
}

struct relay *relay_new(struct relay_group *g, const struct relay_sock sock[2],
	uint64_t id, const struct relay_ops *ops, void *arg)
{
	struct relay *r = calloc(1, sizeof(*r));

	assert(g->magic == RELAY_GROUP_MAGIC);
	if (!r)
		return NULL;
	r->magic = RELAY_MAGIC;
	r->group = g;
	r->id = id;
	r->ops = ops;
	r->arg = arg;
	for (int side = 0; side < 2; side++) {
		struct relay_side *s = &r->side[side];

		assert(sock[side].fd >= 0);
		s->fd = sock[side].fd;
		s->family = sock[side].family;
		ev_io_init(&s->io, on_io, s->fd, EV_READ);
		s->io.data = r;
	}
	relay_idle_init(r);
	list_init(&r->link);
	list_add_tail(&g->steady, &r->link);
	g->nr++;
	return r;
}

void relay_feed(struct relay *r, int from, const void *data, size_t len)
{
	struct relay_side *s = &r->side[from];

	assert(r->magic == RELAY_MAGIC);
	if (len == 0 || (r->events & (CLOSED | SINK_GONE(!from))))
		return;
	s->bytes += len;
	if (s->held.len == 0)
		deliver(r, from, data, len);
	else if (held_append(&s->held, data, len) == -1)
		relay_close(r, ENOMEM);
}

void relay_run(struct relay *r)
{
	assert(r->magic == RELAY_MAGIC);
	relay_settle(r);
}

void relay_abort(struct relay *r)
{
	assert(r->magic == RELAY_MAGIC);
	if (!(r->events & CLOSED))
		relay_close(r, ECONNABORTED);
}
