/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_UPSTREAM_INT_H
#define RESOLV_DNS_UPSTREAM_INT_H

/*
 * Shared by dns_upstream.c (servers and asks) and dns_conn.c (connections),
 * and by nobody else. How it works is told in dns_upstream.h.
 */

#include "resolv/dns_tcp.h"
#include "resolv/dns_upstream.h"
#include "common/list.h"
#include "resolv/servers.h"

#define UPSTREAM_MAGIC 0x5a11d001u
#define CONN_MAGIC     0x5a11d002u
#define ASK_MAGIC      0x5a11d003u

#define ID_BUCKETS 4096

/* Why a connection ended; the table is in dns_upstream.h. */
enum conn_end {
	END_IDLE,
	END_CLOSED,
	END_GARBAGE,
	END_NO_DIAL,
};

enum conn_state {
	CONN_DIALING, /* asks wait to be sent; @dial is set */
	CONN_OPEN,    /* asks have been sent; @tcp is open */
	CONN_RETIRED, /* gets no asks; @tcp is open; ends soon without @late */
	CONN_ENDED,   /* holds nothing, waits to be freed */
};

/**
 * struct server - one of the configured servers
 * @conns:	 its connections, dialling or open
 * @retired:	 its retired ones, oldest first
 * @dead_until:	 loop time; in the past or 0 when alive
 * @last_rx:	 loop time of the last answer on any connection
 * @silent:	 nothing was heard about the name with hash @silent_name
 * @dropped:	 connections in a row that ended without an answer
 */
struct server {
	struct dns_upstream *up;
	struct socks5_addr addr;
	char text[DNS_SERVER_STRLEN];
	struct list conns;
	unsigned nr_conns;
	struct list retired;
	unsigned nr_retired;
	double dead_until;
	double last_rx;
	bool silent;
	uint32_t silent_name;
	unsigned dropped;
};

/**
 * struct conn - a connection to a server
 * @node:      in one of the server's lists, or the upstream's of the ended
 * @pending:   asks on it, oldest first
 * @late:      legs of asks that have moved on
 * @nr_pending: how many
 * @nr_slow:   of these, slow ones
 * @abandoned: asks that left it unanswered: the server may still be busy
 * @answered:  asks that it answered
 * @wrong:     answers with the wrong question
 * @last_rx:   loop time of the last answer; before, when it opened; before,
 *             when it was dialled
 */
struct conn {
	unsigned magic;
	enum conn_state state;
	struct server *server;
	struct list node;
	void *dial;
	struct dns_tcp tcp;
	struct list pending;
	struct list late;
	unsigned nr_pending;
	unsigned nr_slow;
	unsigned abandoned;
	unsigned answered;
	unsigned wrong;
	double last_rx;
	ev_timer idle;
	ev_timer stall;
};

/**
 * struct leg - one sending of an ask
 * @next_id: next in the hash chain; in the table exactly while @conn is set
 * @conn:    where an answer may come from; NULL: unused
 * @node:    in @conn's list of the late, unless it is the ask's present leg
 */
struct leg {
	struct leg *next_id;
	struct dns_ask *ask;
	struct conn *conn;
	struct list node;
	uint16_t id;
};

/**
 * struct dns_ask - a query on its way
 * @node:     in the connection's list, else in the upstream's list of the
 *            placeless (about to try the next server) or of the done
 * @conn:     where it is; NULL when placeless or done
 * @legs:     its sendings; @leg is the index of the present or last one
 * @timer:    end of this attempt
 * @asked_at: loop time when it began
 * @sent_at:  loop time when it was last given to a connection, or sent when
 *            that had opened
 * @tried:    bit for each server that was tried
 * @first:    server to begin with
 * @dropped:  connections to this server that ended under it without answers
 * @moves:    from connections to this server that were stalled
 * @slow:     a connection stalled with it as its oldest
 * @second:   the sole server's second attempt has begun
 * @rcode:    what to say if nobody answers
 */
struct dns_ask {
	unsigned magic;
	struct dns_upstream *up;
	struct list node;
	struct conn *conn;
	struct leg legs[DNS_LEGS];
	unsigned leg;
	ev_timer timer;
	double deadline;
	double asked_at;
	double sent_at;
	uint32_t tried;
	unsigned first;
	unsigned dropped;
	unsigned moves;
	bool slow;
	bool second;
	bool done;
	enum dns_rcode rcode;
	dns_outcome_cb *cb;
	void *arg;
	struct dns_query info;
	size_t len;
	uint8_t msg[];
};

struct dns_upstream {
	unsigned magic;
	struct ev_loop *loop;
	struct dns_upstream_config config;
	struct server servers[DNS_SERVERS_MAX];
	struct leg *ids[ID_BUCKETS];
	struct list placeless;
	struct list done;
	struct list ended;
	ev_prepare reap;
	uint64_t random;
};

/* ---- dns_upstream.c ---- */

/** leg_begin() - a new leg for an ask over @conn, with an id of its own */
void leg_begin(struct dns_ask *ask, struct conn *conn);

/** leg_drop() - forget one; a retired connection ends with its last one */
void leg_drop(struct leg *leg);

/** leg_by_id() - the leg with that id, or NULL */
struct leg *leg_by_id(struct dns_upstream *up, uint16_t id);

/** leg_is_late() - has its ask moved on? */
static inline bool leg_is_late(const struct leg *leg)
{
	const struct dns_ask *ask = leg->ask;

	return !ask->conn || leg != &ask->legs[ask->leg];
}

/** ask_place() - give an ask to a connection to @server, as it is */
void ask_place(struct dns_ask *ask, struct server *server);

/** ask_try() - begin the next attempt of an ask without one, or give up */
void ask_try(struct dns_ask *ask);

/** ask_try_soon() - the same from the loop, for who must not call back */
void ask_try_soon(struct dns_ask *ask);

/**
 * ask_answered() - the server said something
 * @rcode: its verdict
 * @msg:   the answer, or NULL if it was an error without a question
 * @len:   of the answer
 */
void ask_answered(
	struct dns_ask *ask, enum dns_rcode rcode, uint8_t *msg, size_t len);

bool server_is_dead(const struct server *server);

/** server_dead() - ask it after the others for a while; @why for the log */
void server_dead(struct server *server, const char *why);

/** server_alive() - it answered */
void server_alive(struct server *server);

/** server_silent() - it said nothing about @ask, nor anything else */
void server_silent(struct server *server, const struct dns_ask *ask);

/* ---- dns_conn.c ---- */

/**
 * conn_for() - the connection to @server that gets an ask
 * @ask: it is looked at, not changed
 *
 * Return: the one with the fewest asks that nothing holds up; a new one if
 * there is none, or that one is busy, or @ask is slow and would hold up
 * others; NULL if there is no memory.
 */
struct conn *conn_for(struct server *server, const struct dns_ask *ask);

/** conn_add() - put an ask on a connection, and send it as soon as possible */
void conn_add(struct conn *conn, struct dns_ask *ask);

/** conn_remove() - take an ask off its connection, which goes on */
void conn_remove(struct dns_ask *ask);

/** conn_leave() - the same, but an answer that comes later still counts */
void conn_leave(struct dns_ask *ask);

/**
 * conn_unanswered() - an ask's attempt ended without an answer
 * @conn: the connection that it was on, and has just left
 * @ask:  it
 *
 * Retires the connection if nothing has been heard on it, and judges the
 * server.
 */
void conn_unanswered(struct conn *conn, const struct dns_ask *ask);

/** conn_end_soon() - end a retired one that nobody waits for, from the loop:
 * the message that its last leg was dropped for lies in its buffer */
void conn_end_soon(struct conn *conn);

/** conn_release() - end a connection without asks; forgets its late legs */
void conn_release(struct conn *conn);

static inline struct dns_ask *ask_first(const struct list *list)
{
	return list_entry(list->next, struct dns_ask, node);
}

static inline struct conn *conn_first(const struct server *server)
{
	return list_entry(server->conns.next, struct conn, node);
}

#endif
