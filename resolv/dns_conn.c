/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"
#include "resolv/dns_upstream_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define CONN_TX_MAX     ((size_t)1024 * 1024)
#define CONN_WRONG_MAX  8   /* answers with the wrong question */
#define CONN_PATIENCE   0.4 /* seconds before silence means something */
#define SERVER_DROP_MAX 2   /* connections without an answer */

static void conn_end(struct conn *conn, enum conn_end why);

/* Does nothing that we know of hold up the asks on it? */
static bool is_clear(const struct conn *conn)
{
	return conn->nr_slow == 0 && conn->abandoned == 0;
}

/*
 * If the queue is full or there is no memory, this attempt ends at once, from
 * the loop.
 */
static void conn_send(struct conn *conn, struct dns_ask *ask)
{
	if (dns_tcp_send(&conn->tcp, ask->msg, ask->len) == 0)
		return;
	log_warn_ratelimit("DNS server %s: cannot send a query: %s",
		conn->server->text, log_strerror(errno));
	ask_try_soon(ask);
}

/* The timers that run follow from the state and from what is pending. */
static void set_timers(struct conn *conn)
{
	struct dns_upstream *up = conn->server->up;
	bool open = conn->state == CONN_OPEN;

	ev_timer_stop(up->loop, &conn->idle);
	if (open && conn->nr_pending == 0) {
		ev_timer_set(&conn->idle, up->config.idle_time, 0.);
		ev_timer_start(up->loop, &conn->idle);
	}
	if (!open || conn->nr_pending == 0) {
		ev_timer_stop(up->loop, &conn->stall);
	} else if (!ev_is_active(&conn->stall)) {
		ev_timer_set(&conn->stall, DNS_STALL, 0.);
		ev_timer_start(up->loop, &conn->stall);
	}
}

void conn_add(struct conn *conn, struct dns_ask *ask)
{
	assert(!ask->conn && conn->state != CONN_ENDED);
	list_del(&ask->node);
	list_add_tail(&conn->pending, &ask->node);
	conn->nr_pending++;
	conn->nr_slow += ask->slow;
	leg_begin(ask, conn);
	ask->conn = conn;
	ask->sent_at = ev_now(ask->up->loop);
	set_timers(conn);
	if (conn->state == CONN_OPEN)
		conn_send(conn, ask);
}

/* Its leg stays. */
static void detach(struct dns_ask *ask)
{
	struct conn *conn = ask->conn;
	struct dns_upstream *up = ask->up;

	list_del(&ask->node);
	list_add_tail(&up->placeless, &ask->node);
	ask->conn = NULL;
	assert(conn->nr_pending > 0);
	conn->nr_pending--;
	conn->nr_slow -= ask->slow;
	set_timers(conn);
}

void conn_remove(struct dns_ask *ask)
{
	detach(ask);
	leg_drop(&ask->legs[ask->leg]);
}

void conn_leave(struct dns_ask *ask)
{
	struct conn *conn = ask->conn;

	if (conn->state != CONN_OPEN) {
		conn_remove(ask); /* it was not sent */
		return;
	}
	detach(ask);
	list_add_tail(&conn->late, &ask->legs[ask->leg].node);
}

static bool is_failure(enum dns_rcode rcode)
{
	return rcode == DNS_SERVFAIL || rcode == DNS_NOTIMP ||
	       rcode == DNS_REFUSED;
}

/* An answer to an ask that has moved on. */
static void late_answer(
	struct leg *leg, enum dns_rcode rcode, uint8_t *msg, size_t len)
{
	struct conn *conn = leg->conn;
	struct dns_ask *ask = leg->ask;

	if (conn->abandoned > 0)
		conn->abandoned--;
	leg_drop(leg);
	if (is_failure(rcode))
		return; /* whoever is asked now may know more */
	if (ask->conn) {
		ask->conn->abandoned += ask->conn->state == CONN_OPEN;
		conn_remove(ask);
	}
	ask_answered(ask, rcode, msg, len);
}

static void on_message(struct dns_tcp *tcp, uint8_t *msg, size_t len)
{
	struct conn *conn = list_entry(tcp, struct conn, tcp);
	struct dns_upstream *up = conn->server->up;
	uint8_t *msg_or_null = msg;
	enum dns_match match;
	struct dns_ask *ask;
	struct leg *leg;

	assert(conn->magic == CONN_MAGIC);
	assert(conn->state == CONN_OPEN || conn->state == CONN_RETIRED);
	if (!dns_is_answer(msg, len)) {
		conn_end(conn, END_GARBAGE);
		return;
	}
	leg = leg_by_id(up, dns_id(msg));
	if (!leg || leg->conn != conn) {
		/* Nobody waits for it any more, most likely. */
		if (conn->abandoned > 0)
			conn->abandoned--;
		return;
	}
	ask = leg->ask;
	match = dns_answer_match(ask->msg, ask->info.question_end, msg, len);
	if (match != DNS_MATCH && match != DNS_MATCH_BARE) {
		if (++conn->wrong > CONN_WRONG_MAX)
			conn_end(conn, END_GARBAGE);
		return;
	}
	conn->last_rx = conn->server->last_rx = ev_now(up->loop);
	conn->answered++;
	server_alive(conn->server);
	if (match != DNS_MATCH)
		msg_or_null = NULL;
	if (leg_is_late(leg)) {
		late_answer(leg, dns_rcode_of(msg), msg_or_null, len);
		return;
	}
	ev_timer_stop(up->loop, &conn->stall);
	conn_remove(ask); /* and the time to stall begins anew */
	ask_answered(ask, dns_rcode_of(msg), msg_or_null, len);
}

static void on_closed(struct dns_tcp *tcp, int err)
{
	struct conn *conn = list_entry(tcp, struct conn, tcp);

	assert(conn->magic == CONN_MAGIC);
	assert(conn->state == CONN_OPEN || conn->state == CONN_RETIRED);
	if (err != 0)
		log_debug("DNS server %s: %s", conn->server->text,
			log_strerror(err));
	conn_end(conn, conn->nr_pending > 0 ? END_CLOSED : END_IDLE);
}

static const struct dns_tcp_ops conn_ops = {
	.message = on_message,
	.closed = on_closed,
};

void conn_end_soon(struct conn *conn)
{
	struct ev_loop *loop = conn->server->up->loop;

	assert(conn->state == CONN_RETIRED);
	ev_timer_stop(loop, &conn->idle);
	ev_timer_set(&conn->idle, 0., 0.);
	ev_timer_start(loop, &conn->idle);
}

static void on_idle(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct conn *conn = timer->data;

	assert(conn->magic == CONN_MAGIC && list_empty(&conn->pending));
	if (list_empty(&conn->late))
		conn_end(conn, END_IDLE);
	else
		set_timers(conn);
}

/*
 * on_stall() - nothing was heard for a while
 *
 * The oldest ask stays, as the server may be working on it. The others go
 * where nothing holds them up, if there is such a place.
 */
static void on_stall(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct conn *conn = timer->data;
	struct dns_ask *oldest = ask_first(&conn->pending);
	struct list *pos, *tmp;

	assert(conn->magic == CONN_MAGIC && conn->nr_pending > 0);
	conn->nr_slow += !oldest->slow;
	oldest->slow = true;
	list_foreach_safe(pos, tmp, &conn->pending)
	{
		struct dns_ask *ask = list_entry(pos, struct dns_ask, node);
		struct conn *other;

		if (ask == oldest || ask->moves == DNS_MOVES_MAX)
			continue;
		other = conn_for(conn->server, ask);
		if (!other)
			return; /* no memory */
		if (other == conn || !is_clear(other))
			continue;
		ask->moves++;
		conn->abandoned++;
		conn_leave(ask);
		conn_add(other, ask);
	}
}

static void on_dialed(void *arg, int fd, int err)
{
	struct conn *conn = arg;
	struct dns_upstream *up = conn->server->up;
	struct list *pos, *tmp;

	assert(conn->magic == CONN_MAGIC && conn->state == CONN_DIALING);
	conn->dial = NULL;
	if (fd == -1) {
		server_dead(conn->server, log_strerror(err));
		conn_end(conn, END_NO_DIAL);
		return;
	}
	conn->state = CONN_OPEN;
	conn->last_rx = ev_now(up->loop);
	dns_tcp_open(&conn->tcp, up->loop, fd, CONN_TX_MAX, &conn_ops);
	set_timers(conn);
	list_foreach_safe(pos, tmp, &conn->pending)
	{
		struct dns_ask *ask = list_entry(pos, struct dns_ask, node);

		ask->sent_at = conn->last_rx;
		conn_send(conn, ask);
	}
}

/* Return: a connection that is being dialled, or NULL. */
static struct conn *conn_new(struct server *server)
{
	struct dns_upstream *up = server->up;
	const struct dns_dialer *dialer = &up->config.dialer;
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->magic = CONN_MAGIC;
	conn->server = server;
	conn->state = CONN_DIALING;
	list_init(&conn->node);
	conn->last_rx = ev_now(up->loop);
	list_init(&conn->pending);
	list_init(&conn->late);
	dns_tcp_init(&conn->tcp);
	ev_init(&conn->idle, on_idle);
	ev_init(&conn->stall, on_stall);
	conn->idle.data = conn->stall.data = conn;
	conn->dial = dialer->start(dialer->ctx, &server->addr,
		up->config.deadline, on_dialed, conn);
	if (!conn->dial) {
		free(conn);
		return NULL;
	}
	list_add_tail(&server->conns, &conn->node);
	server->nr_conns++;
	return conn;
}

/* The better one of two for an ask that is not slow; @b may be NULL. */
static struct conn *better(struct conn *a, struct conn *b)
{
	if (!b || is_clear(a) != is_clear(b))
		return !b || is_clear(a) ? a : b;
	return a->nr_pending < b->nr_pending ? a : b;
}

/* Is it one that slow asks may have: nobody's, or theirs already? */
static bool is_for_slow(const struct conn *conn, bool shared)
{
	return shared ? conn->nr_slow > 0
		      : is_clear(conn) && conn->nr_pending == 0;
}

struct conn *conn_for(struct server *server, const struct dns_ask *ask)
{
	bool shared = ask->slow && server->nr_conns >= DNS_CONNS_SLOW;
	unsigned max = ask->slow ? DNS_CONNS_SLOW : DNS_CONNS_MAX;
	struct conn *best = NULL;
	struct conn *fresh = NULL;
	struct list *pos, *tmp;

	list_foreach_safe(pos, tmp, &server->conns)
	{
		struct conn *conn = list_entry(pos, struct conn, node);

		if (!ask->slow || is_for_slow(conn, shared))
			best = better(conn, best);
	}
	if (best && (ask->slow || (is_clear(best) &&
					  best->nr_pending < DNS_CONN_BUSY)))
		return best;
	/* A slow ask may find all connections busy with others: then it has
	 * to hold up some of them. */
	if (server->nr_conns < max ||
		(!best && server->nr_conns < DNS_CONNS_MAX))
		fresh = conn_new(server);
	if (!fresh && !best && server->nr_conns > 0)
		best = conn_first(server);
	return fresh ? fresh : best;
}

/* It is freed at the end of the loop's turn. */
void conn_release(struct conn *conn)
{
	struct server *server = conn->server;
	struct dns_upstream *up = server->up;

	if (conn->dial)
		up->config.dialer.cancel(up->config.dialer.ctx, conn->dial);
	conn->dial = NULL;
	dns_tcp_close(&conn->tcp);
	ev_timer_stop(up->loop, &conn->idle);
	ev_timer_stop(up->loop, &conn->stall);
	if (conn->state == CONN_RETIRED)
		server->nr_retired--;
	else
		server->nr_conns--;
	conn->state = CONN_ENDED;
	list_del(&conn->node);
	list_add_tail(&up->ended, &conn->node);
	while (!list_empty(&conn->late))
		leg_drop(list_entry(conn->late.next, struct leg, node));
}

/* May an ask whose connection ended go to the same server again? */
static bool same_server(
	struct dns_ask *ask, const struct conn *conn, enum conn_end why)
{
	switch (why) {
	case END_CLOSED: return conn->answered > 0 || ask->dropped++ == 0;
	case END_IDLE:
	case END_GARBAGE:
	case END_NO_DIAL: break;
	}
	return false;
}

static void conn_end(struct conn *conn, enum conn_end why)
{
	struct server *server = conn->server;

	conn_release(conn);
	if ((why == END_CLOSED && conn->answered == 0) || why == END_GARBAGE)
		if (++server->dropped >= SERVER_DROP_MAX)
			server_dead(server, "closes without an answer");
	/* An outcome's call-back may cancel any other ask: begin anew. */
	while (!list_empty(&conn->pending)) {
		struct dns_ask *ask = ask_first(&conn->pending);

		conn_remove(ask);
		if (same_server(ask, conn, why))
			ask_place(ask, server);
		else
			ask_try(ask);
	}
}

/*
 * conn_retire() - nothing was heard on it for the time of an attempt
 *
 * Its asks begin anew on another connection, and whatever comes on this one
 * all the same still counts.
 */
static void conn_retire(struct conn *conn)
{
	struct server *server = conn->server;

	while (server->nr_retired >= DNS_RETIRED_MAX)
		conn_release(
			list_entry(server->retired.next, struct conn, node));
	server->nr_conns--;
	list_del(&conn->node);
	list_add_tail(&server->retired, &conn->node);
	server->nr_retired++;
	while (!list_empty(&conn->pending)) {
		struct dns_ask *ask = ask_first(&conn->pending);

		conn_leave(ask);
		if (server_is_dead(server))
			ask_try(ask);
		else
			ask_place(ask, server);
	}
	conn->state = CONN_RETIRED;
	set_timers(conn);
	if (list_empty(&conn->late))
		conn_end_soon(conn);
}

void conn_unanswered(struct conn *conn, const struct dns_ask *ask)
{
	double now = ev_now(ask->up->loop);

	/* An ask that came from another connection had less than its time. */
	if (conn->state == CONN_DIALING) {
		if (now - conn->last_rx < CONN_PATIENCE)
			return;
		server_dead(conn->server, log_strerror(ETIMEDOUT));
		conn_end(conn, END_NO_DIAL);
		return;
	}
	conn->abandoned++;
	if (conn->server->last_rx <= ask->asked_at &&
		now - ask->asked_at >= CONN_PATIENCE)
		server_silent(conn->server, ask);
	if (conn->last_rx <= ask->sent_at &&
		now - ask->sent_at >= CONN_PATIENCE)
		conn_retire(conn);
}
