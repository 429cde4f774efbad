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
#include "common/list.h"
#include "proxy/nameservers.h"
#include "proxy/relay.h"
#include "proxy/resolve.h"
#include "proxy/service.h"
#include "proxy/watch.h"

struct client;

/**
 * struct client_move - a client on its way to the thread of the exports
 * @conn: its connection, and the answers not sent yet
 * @req:  its request, a BIND
 * @service: entered for it
 */
struct client_move {
	struct member_conn conn;
	struct socks5_request req;
	struct service *service;
};

/**
 * struct client_env - what the clients of one event loop share
 * @loop, @reaper, @relays, @resolver: of the calling thread
 * @nameservers: what the reserved resolver name stands for
 * @budget:      for the fds of connects that try several addresses at once
 * @clients, @forwards, @nr: those not yet handed to the relay (forward.h), and
 *               how many they are together
 * @next_id, @id_step: of connections, for log lines
 * @watches:     for clients that may go to another thread; NULL where BIND is
 *               not served
 * @exports:     of the calling thread, or NULL
 * @move:        hands a client to the thread that has the exports: takes over
 *               fd and service, or returns -1 if it cannot; NULL where BIND is
 * not served
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
	struct fd_budget *budget;
	struct list clients;
	struct list forwards;
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
 * @env:     of the calling thread
 * @service: entered for it; the client leaves it at its end
 * @fd:      accepted, non-blocking, CLOEXEC; the client's from now on
 *
 * Return: 0, or -1 and errno ENOMEM (@fd and @service stay the caller's).
 */
int client_new(struct client_env *env, struct service *service, int fd);

/**
 * client_adopt() - go on with a client of another thread
 * @env:  of the calling thread, which has the exports
 * @move: what the other thread's @move() was given
 *
 * Return: 0, or -1 and errno ENOMEM (fd and service stay the caller's).
 */
int client_adopt(struct client_env *env, const struct client_move *move);

/** client_abort_all() - end all clients of @env at once */
void client_abort_all(struct client_env *env);

#endif
