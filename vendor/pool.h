/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_POOL_H
#define VENDOR_POOL_H

/*
 * Standby connections for one port: each waits at the host proxy for one
 * client, and is that client's stream from then on.
 */

#include "vendor/dial.h"
#include "vendor/inbound_env.h"
#include "vendor/pairing.h"

/**
 * typedef pool_client_cb - a client has come
 * @fd:     its stream, non-blocking and CLOEXEC, nothing of it read; the
 *          callback's
 * @remote: the client, never v4-mapped
 * @local:  the host's address that it reached, likewise; AF_UNSPEC where a
 *          host proxy that knows only plain BIND does not tell
 * @arg:    as given
 */
typedef void pool_client_cb(int fd, const struct ip_port *remote,
	const struct ip_port *local, void *arg);

/**
 * typedef pool_settled_cb - the first dial of an open pool has ended, well or
 * badly
 */
typedef void pool_settled_cb(void *arg);

/**
 * struct pool - to be embedded in its owner, who frees it by the reaper only
 * @open:     has a port to fill
 * @settled:  open, and a standby connection is there or could not be had
 * @held_back: nobody takes clients for now: no new connections
 * @busy:     a client came since the last look of @quiet
 * @low, @high: bounds of @target
 * @least:  fewest that were idle since then
 * @target:   so many idle ones are wanted
 * @dialling, @idle, @pairing: how many standbys are in which state
 * @standbys: all of them
 * @retry:    runs while no dial is to be started after a failure
 * @pause:    the last such pause in seconds
 * @failed:   loop time of the last failure
 * @quiet:    looks whether demand has ended, while @target is above @low
 */
struct pool {
	uint32_t magic;
	struct inbound_env *env;
	const struct endpoint *ep;
	struct pool_port port;
	bool open;
	bool settled;
	bool held_back;
	bool busy;
	unsigned low;
	unsigned high;
	unsigned target;
	unsigned least;
	unsigned dialling;
	unsigned idle;
	unsigned pairing;
	struct list standbys;
	struct turnstile_wait turn;
	ev_timer retry;
	double pause;
	ev_tstamp failed;
	ev_timer quiet;
	pool_client_cb *cb;
	pool_settled_cb *settled_cb;
	void *arg;
};

/**
 * pool_init() - a closed pool
 * @pool: zeroed
 * @env, @ep: must outlive it
 * @cb, @settled_cb, @arg: whom to tell; called last of all in an event or in
 *        pool_open(), so that it may close the pool
 */
void pool_init(struct pool *pool, struct inbound_env *env,
	const struct endpoint *ep, pool_client_cb *cb,
	pool_settled_cb *settled_cb, void *arg);

/**
 * pool_open() - begin to fill a closed pool
 * @port: copied
 * @low, @high: water marks, 1 <= @low <= @high
 * @first: a standby connection that is there already, behind its first reply
 *        and now the pool's, or -1
 */
void pool_open(struct pool *pool, const struct pool_port *port, unsigned low,
	unsigned high, int first);

/** pool_resize() - other water marks for an open pool */
void pool_resize(struct pool *pool, unsigned low, unsigned high);

/** pool_hold_back() - start no new connections, or go on starting them */
void pool_hold_back(struct pool *pool, bool held_back);

/**
 * pool_close() - give up all connections; nothing to do if it is closed
 * @drain: first hand out those whose client has come already
 */
void pool_close(struct pool *pool, bool drain);

#endif
