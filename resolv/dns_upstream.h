/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_UPSTREAM_H
#define RESOLV_DNS_UPSTREAM_H

/*
 * Questions to DNS servers over TCP (RFC 7766): which server, which
 * connection, how long to wait, when to ask again.
 *
 * Theory of operation
 *
 * An *ask* is one query on its way. It gets one outcome, never from within the
 * call that started it, and not later than the deadline: an answer, or none.
 *
 * Servers are tried in the order given, starting at the one that the caller
 * prefers. The time that is left is shared out equally among the servers left
 * to try; a sole server is tried twice, the second time over a new connection.
 * A server that says SERVFAIL, NOTIMP or REFUSED has not answered: the next
 * one is asked, and if there is none, that is the outcome.
 *
 * A *dead* server is tried only after the others. It is dead for a while
 *	- when it cannot be connected to (in the time of one attempt),
 *	- when it accepted and closed connections without any answer, twice,
 *	- when it was silent about two different names and answered nothing in
 *	  between. One name is not enough: a resolver whose own upstream is
 *	  down is silent about that name and well about all others.
 * Any answer brings it back to life at once. When all servers are dead they
 * are tried all the same, so nothing has to expire before names work again.
 *
 * Connections carry many asks at once and answers come in any order. But many
 * servers work on one query per connection at a time, and then one that takes
 * seconds (a zone whose servers are down) holds up all those behind it. So
 * when a connection has been silent for DNS_STALL seconds its oldest ask is
 * called *slow*, and the others move to another connection to the same server,
 * DNS_MOVES_MAX times at most. A connection with a slow ask, or with one that
 * was given up, gets no other asks while there is another way; a slow ask that
 * is sent again gets a connection of its own. There are up to DNS_CONNS_MAX for
 * each server, of which slow asks leave two to the others.
 *
 * Each sending of an ask is a *leg*: a connection and an id. Ids are unique
 * among all legs, random, and new for each. An answer counts only if it came
 * over the leg's connection, with its id and the ask's question. An ask that
 * is sent elsewhere keeps its earlier legs, DNS_LEGS in all, because a resolver
 * that has to find out first may well take longer than one attempt: whoever
 * answers first, now or late, has answered, and only a late SERVFAIL, NOTIMP or
 * REFUSED changes nothing. Answers to nothing are ignored; what is not an
 * answer at all, or too many answers with the wrong question, ends the
 * connection.
 *
 * How a connection ends decides where its asks go:
 *	idle, no asks         nothing to do
 *	closed by the server  same server, new connection: without limit if the
 *	                      connection had brought an answer (servers close
 *	                      after so many queries or seconds), else once
 *	silent                same server, new connection; the silent one is
 *	                      *retired*: it stays open for late answers while
 *	                      somebody waits for them
 *	garbage               next server
 *	not connected         next server
 *
 * Nothing is freed before the loop's turn ends.
 */

#include "common/socks5.h"
#include "resolv/dns_msg.h"

#include <ev.h>

#define DNS_SERVERS_MAX 8
#define DNS_CONNS_MAX   8   /* to each server */
#define DNS_CONNS_SLOW  6   /* of these, before slow asks share */
#define DNS_CONN_BUSY   64  /* asks on each connection, then one more */
#define DNS_STALL       0.3 /* seconds */
#define DNS_MOVES_MAX   4
#define DNS_LEGS        6 /* of an ask; then the oldest is forgotten */
#define DNS_RETIRED_MAX 4 /* connections to each server; likewise */

struct dns_upstream;
struct dns_ask;

/**
 * typedef dns_dialed_cb - how a connection attempt ended
 * @arg: as given to start()
 * @fd:  connected, non-blocking, now the callee's; or -1
 * @err: why not, a positive errno
 */
typedef void dns_dialed_cb(void *arg, int fd, int err);

/**
 * struct dns_dialer - how to connect to a server
 * @start:  begin; calls @cb once from the loop, never from start().
 *          Return: a handle, or NULL and errno (then @cb is not called)
 * @cancel: give up before @cb was called; it is not called then
 * @ctx:    passed to both
 */
struct dns_dialer {
	void *(*start)(void *ctx, const struct socks5_addr *server,
		double timeout, dns_dialed_cb *cb, void *arg);
	void (*cancel)(void *ctx, void *handle);
	void *ctx;
};

/**
 * struct dns_upstream_config - copied
 * @servers:    to ask, in order, with ports
 * @nr_servers: 1 to DNS_SERVERS_MAX
 * @deadline:   seconds for an ask as a whole
 * @dead_time:  seconds that a dead server is remembered
 * @idle_time:  seconds after which an unused connection is closed
 */
struct dns_upstream_config {
	struct dns_dialer dialer;
	const struct socks5_addr *servers;
	unsigned nr_servers;
	double deadline;
	double dead_time;
	double idle_time;
};

/**
 * struct dns_outcome - valid during the call
 * @query:  as given, with another id
 * @answer: the answer, with the client's id, writable; NULL if there is none
 * @len:    its length
 * @rcode:  what to tell the client when there is none
 */
struct dns_outcome {
	const uint8_t *query;
	uint8_t *answer;
	size_t len;
	enum dns_rcode rcode;
};

/** typedef dns_outcome_cb - the ask is gone when this returns */
typedef void dns_outcome_cb(void *arg, const struct dns_outcome *outcome);

/**
 * dns_upstream_new() - nothing is connected before the first ask
 *
 * Return: NULL and ENOMEM, or EINVAL for a bad number of servers.
 */
struct dns_upstream *dns_upstream_new(
	struct ev_loop *loop, const struct dns_upstream_config *config);

/** dns_upstream_free() - end all asks and connections without call-backs */
void dns_upstream_free(struct dns_upstream *up);

/**
 * dns_upstream_ask() - ask the servers
 * @query: a query that dns_query_parse() said to forward; copied
 * @len:   its length
 * @info:  of dns_query_parse(); copied
 * @first: index of the server to begin with
 * @cb, @arg: whom to tell
 *
 * Return: a handle for dns_ask_cancel(), or NULL and ENOMEM.
 */
struct dns_ask *dns_upstream_ask(struct dns_upstream *up, const uint8_t *query,
	size_t len, const struct dns_query *info, unsigned first,
	dns_outcome_cb *cb, void *arg);

/** dns_ask_cancel() - nobody wants the outcome any more; not from its cb */
void dns_ask_cancel(struct dns_ask *ask);

#endif
