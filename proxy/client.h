/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_CLIENT_H
#define PROXY_CLIENT_H

/*
 * A client of the SOCKS5 server, from accept() until the relay takes over or
 * the client has been refused. client.c opens with the theory of operation.
 */

#include "common/socks5.h"
#include "proxy/budget.h"
#include "proxy/exports.h"
#include "proxy/list.h"
#include "proxy/nameservers.h"
#include "proxy/relay.h"
#include "proxy/resolve.h"
#include "proxy/rules.h"
#include "proxy/watch.h"

struct client;

/**
 * struct client_move - a client on its way to the thread of the exports
 * @conn: its connection, and the answers not sent yet
 * @req:  its request, a BIND
 */
struct client_move {
	struct member_conn conn;
	struct socks5_request req;
};

/**
 * struct client_env - what the clients of one event loop share
 * @loop, @reaper, @relays, @resolver: of the calling thread
 * @nameservers: what the reserved resolver name stands for
 * @rules:       immutable
 * @budget:      for the fds of connects that try several addresses at once
 * @handshake_timeout: seconds from accept to a whole request
 * @connect_timeout:   seconds from the request to a connection
 * @clients, @nr: those not yet handed to the relay
 * @next_id, @id_step: of connections, for log lines
 * @watches:     for clients that may go to another thread; NULL where BIND is
 *               not served
 * @exports:     of the calling thread, or NULL
 * @move:        hands a client to the thread that has the exports: takes over
 *               the fd, or returns -1 if it cannot; NULL where BIND is not
 *               served
 * @moved:       called when that client is no longer among @clients
 * @gone:        called when a client ended without a relay, with @arg; its fds
 *               are closed
 */
struct client_env {
	struct ev_loop *loop;
	struct reaper *reaper;
	struct relay_group *relays;
	struct resolver *resolver;
	struct nameservers *nameservers;
	const struct rules *rules;
	struct fd_budget *budget;
	double handshake_timeout;
	double connect_timeout;
	struct list clients;
	size_t nr;
	uint64_t next_id;
	uint64_t id_step;
	struct watch_set *watches;
	struct exports *exports;
	int (*move)(void *arg, const struct client_move *move);
	void (*moved)(void *arg);
	void (*gone)(void *arg);
	void *arg;
};

/**
 * client_new() - serve a new client
 * @env:    of the calling thread
 * @fd:     accepted, non-blocking, CLOEXEC; the client's from now on
 * @family: its address family
 *
 * Return: 0, or -1 and errno ENOMEM (@fd stays the caller's).
 */
int client_new(struct client_env *env, int fd, sa_family_t family);

/**
 * client_adopt() - go on with a client of another thread
 * @env:  of the calling thread, which has the exports
 * @move: what the other thread's @move() was given
 *
 * Return: 0, or -1 and errno ENOMEM (the fd stays the caller's).
 */
int client_adopt(struct client_env *env, const struct client_move *move);

/** client_abort_all() - end all clients of @env at once */
void client_abort_all(struct client_env *env);

#endif
