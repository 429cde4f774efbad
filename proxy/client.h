/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_CLIENT_H
#define PROXY_CLIENT_H

/*
 * A client of the SOCKS5 server, from accept() until the relay takes over or
 * the client has been refused. client.c opens with the theory of operation.
 */

#include "common/socks5.h"
#include "proxy/budget.h"
#include "proxy/list.h"
#include "proxy/nameservers.h"
#include "proxy/relay.h"
#include "proxy/resolve.h"
#include "proxy/service.h"

struct client;

/**
 * struct client_env - what the clients of one event loop share
 * @loop, @reaper, @relays, @resolver: of the calling thread
 * @nameservers: what the reserved resolver name stands for
 * @budget:      for the fds of connects that try several addresses at once
 * @clients, @forwards, @nr: those not yet handed to the relay (forward.h), and
 *               how many they are together
 * @next_id, @id_step: of connections, for log lines
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

/** client_abort_all() - end all clients of @env at once */
void client_abort_all(struct client_env *env);

#endif
