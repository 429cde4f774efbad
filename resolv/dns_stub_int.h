/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_STUB_INT_H
#define RESOLV_DNS_STUB_INT_H

/*
 * Shared by dns_stub.c (queries and life), dns_client.c (TCP clients) and
 * dns_listen.c (sockets), and by nobody else. How it works is told in
 * dns_stub.h.
 */

#include "resolv/dns_stub.h"
#include "resolv/dns_tcp.h"
#include "common/list.h"

#define STUB_MAGIC   0x5a11d011u
#define CLIENT_MAGIC 0x5a11d012u
#define QUERY_MAGIC  0x5a11d013u

/**
 * struct listener - one address
 * @first: index of the server to begin with
 * @udp, @tcp: -1 if that one could not be bound
 */
struct listener {
	struct dns_stub *stub;
	struct ip_port addr;
	unsigned first;
	int udp;
	int tcp;
	ev_io udp_io;
	ev_io tcp_io;
	ev_timer pause;
};

/**
 * struct client - a TCP connection
 * @node:      in the stub's clients, or in its ended ones
 * @queries:   in flight
 * @in_flight: how many
 * @active:    loop time of the last query or answer
 */
struct client {
	unsigned magic;
	struct dns_stub *stub;
	struct listener *listener;
	struct list node;
	struct dns_tcp tcp;
	struct list queries;
	unsigned in_flight;
	double active;
};

/**
 * struct query - a query in flight
 * @node:   in the client's queries, or in the stub's UDP ones
 * @client: where it came from, NULL for UDP
 * @peer:   where it came from if @client is NULL
 * @len:    of the query, for the byte limit
 */
struct query {
	unsigned magic;
	struct list node;
	struct listener *listener;
	struct client *client;
	union sockaddr_any peer;
	socklen_t peer_len;
	struct dns_query info;
	size_t len;
	struct dns_ask *ask;
};

struct dns_stub {
	unsigned magic;
	struct ev_loop *loop;
	struct dns_stub_config config;
	struct dns_upstream *upstream;
	struct listener listeners[DNS_LISTEN_MAX];
	unsigned nr_listeners;
	struct list udp_queries;
	struct list clients;
	struct list ended;
	unsigned nr_clients;
	unsigned in_flight;
	size_t query_bytes;
	ev_timer sweep;
	ev_prepare reap;
	uint8_t in[DNS_MSG_MAX + 1]; /* one datagram; no call keeps it */
	uint8_t out[DNS_MSG_MAX + 1];
};

/* ---- dns_stub.c ---- */

/**
 * stub_take_query() - a message from a client
 * @client: over TCP, or NULL
 * @peer:   over UDP, or NULL
 *
 * Answers it, now or later, unless it is no query.
 *
 * Return: false if it was not a query at all.
 */
bool stub_take_query(struct listener *listener, struct client *client,
	const union sockaddr_any *peer, socklen_t peer_len, const uint8_t *msg,
	size_t len);

/** stub_drop_queries() - nobody is there any more to answer them to */
void stub_drop_queries(struct list *queries);

/* ---- dns_client.c ---- */

/** client_start() - serve a connection; @fd is owned */
void client_start(struct listener *listener, int fd);

/** client_send() - an answer; the client may be ended when this returns */
void client_send(struct client *client, const uint8_t *msg, size_t len);

/** client_update() - after each answer: read on, wait, or end */
void client_update(struct client *client);

/** client_end() - close it; it is freed at the end of the loop's turn */
void client_end(struct client *client);

/**
 * client_make_room() - may one more connection be accepted?
 *
 * If all places are taken the client that has been idle the longest is ended,
 * so that programs that keep connections open for nothing do not lock others
 * out. One with queries in flight is not idle.
 */
bool client_make_room(struct dns_stub *stub);

/** client_sweep() - call-back of the stub's timer: end idle clients */
void client_sweep(struct ev_loop *loop, ev_timer *timer, int revents);

/* ---- dns_listen.c ---- */

/** listener_start() - serve these sockets, which are owned from now on, and
 * begin with server @first */
void listener_start(
	struct dns_stub *stub, const struct dns_socket *sock, unsigned first);

void listener_stop(struct listener *listener);

#endif
