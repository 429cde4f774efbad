/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_LOBBY_H
#define PROXY_LOBBY_H

/*
 * The host's side of an exported port: its listening sockets and the clients
 * that have come and wait to be taken.
 *
 * Theory of operation
 *
 * Clients are accepted as they come and wait in a queue; the owner is told of
 * each and takes from the front what it can serve. With policy->queue clients
 * waiting, accepting stops and the kernel's backlog holds more.
 *
 * A client that has reset its connection meanwhile is dropped: it is looked at
 * when it would be taken, and all of them every SWEEP_EVERY seconds so that
 * they do not fill the queue. One that merely ended its stream may still want
 * an answer and stays. There is no watching for either: bytes that a client
 * sent ahead would wake a level-triggered loop for ever.
 *
 * File descriptors. A client that waits has one of its own in the budget, and
 * must get it before it is accepted, except where the owner says that there is
 * somebody to take it at once, who has brought one. All that wait have at most
 * a quarter of the budget: the connections from the enclave that are to take
 * them must find some left. A lobby that runs out stops accepting for
 * ACCEPT_PAUSE seconds or until lobby_env_resume(); others, whose clients are
 * expected, go on. Running out is said once, and once more when a backlog has
 * been emptied.
 *
 * What to wait for is decided in lobby_watch() alone.
 */

#include "proxy/bind_policy.h"
#include "proxy/budget.h"
#include "proxy/host_port.h"
#include "common/list.h"

#include <ev.h>

/**
 * struct lobby_env - what the lobbies of one loop share
 * @nr_waiting, @max_waiting: clients in all of them, and the most there may be
 * @short_of_fds: that has been said
 * @paused: lobbies that do not accept for want of fds
 * @pause:  active while there are any
 */
struct lobby_env {
	uint32_t magic;
	struct ev_loop *loop;
	struct fd_budget *budget;
	unsigned int queue;
	long nr_waiting;
	long max_waiting;
	bool short_of_fds;
	struct list paused;
	ev_timer pause;
};

struct lobby;

/**
 * struct lobby_ops - the owner
 * @expects: will the next client be taken at once?
 * @arrived: a client has come
 */
struct lobby_ops {
	bool (*expects)(const struct lobby *lobby);
	void (*arrived)(struct lobby *lobby);
};

/**
 * struct lobby - see the theory above
 * @host:      the sockets; bound by the owner
 * @link:      on @env->paused, or on none
 * @listening: lobby_listen() has succeeded
 * @watching:  @io is active
 * @waiting, @nr_waiting: clients, longest first
 * @sweep:     active while clients wait
 */
struct lobby {
	uint32_t magic;
	struct lobby_env *env;
	const struct lobby_ops *ops;
	struct list link;
	struct host_port host;
	bool listening;
	bool watching;
	unsigned int nr_waiting;
	struct list waiting;
	ev_timer sweep;
	ev_io io[BIND_ADDRESSES_MAX];
};

/** lobby_env_init() - @policy and @budget outlive it */
void lobby_env_init(struct lobby_env *env, struct ev_loop *loop,
	const struct bind_policy *policy, struct fd_budget *budget);

/** lobby_env_stop() - no lobby is open any more */
void lobby_env_stop(struct lobby_env *env);

/** lobby_env_resume() - there may be fds again: go on if accepting stopped */
void lobby_env_resume(struct lobby_env *env);

/** lobby_init() - nobody is let in yet; @lobby->host has no sockets */
void lobby_init(struct lobby *lobby, struct lobby_env *env,
	const struct lobby_ops *ops);

/** lobby_listen() - let clients in. Return: 0, or an errno, and none is */
int lobby_listen(struct lobby *lobby);

/** lobby_is_empty() - does no client wait? */
bool lobby_is_empty(const struct lobby *lobby);

/**
 * lobby_look() - who has waited longest and is still there?
 * @addr: filled with the client's address
 *
 * Return: its fd, which stays in the lobby, or -1 if nobody waits.
 */
int lobby_look(struct lobby *lobby, struct ip_port *addr);

/**
 * lobby_take() - take away the client that lobby_look() returned
 *
 * It leaves the budget; the fd is the caller's from now on.
 */
void lobby_take(struct lobby *lobby);

/** lobby_close() - close the port, reset all who wait */
void lobby_close(struct lobby *lobby);

#endif
