/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

/*
 * A worker: one thread, one event loop, the clients and relays it accepted.
 * worker.c opens with the theory of operation.
 */

#include "proxy/bind_policy.h"
#include "proxy/budget.h"
#include "proxy/set.h"

#include <stdatomic.h>

#define WORKERS_MAX 256

struct worker;

/**
 * struct worker_config - what all workers share
 * @set:        what workers begin to serve, see worker_serve()
 * @nr_workers: how many workers there are
 * @buffer_size: of the relay
 * @resolv_conf: path
 * @bind:        exported ports; NULL to refuse all BIND requests
 * @budget:      fds
 * @short_of_fds: some worker could not accept for want of fds; shared so that
 *               it is said once and not once for each worker
 * @event_fd:    an eventfd that workers add 1 to when state or set change
 * @worker:      filled in by worker_new()
 *
 * Immutable while workers run, but for @budget and @short_of_fds.
 */
struct worker_config {
	struct service_set *set;
	unsigned int nr_workers;
	size_t buffer_size;
	const char *resolv_conf;
	const struct bind_policy *bind;
	struct fd_budget *budget;
	atomic_bool short_of_fds;
	int event_fd;
	struct worker *worker[WORKERS_MAX];
};

/* How far a worker has come; only ever moves forward. */
enum worker_state {
	WORKER_ACCEPTING,
	WORKER_DRAINING, /* has let go of the listeners */
	WORKER_DONE,     /* nothing left to serve; the thread ends */
};

/**
 * worker_new() - set up a worker, without its thread
 * @config: outlives the worker
 * @index:  0 to @config->nr_workers - 1
 *
 * Return: NULL, and an error line has been logged.
 */
struct worker *worker_new(struct worker_config *config, unsigned int index);

/** worker_start() - start the thread. Return: 0, or -1 and it is logged */
int worker_start(struct worker *worker);

/** worker_state() - from any thread */
enum worker_state worker_state(const struct worker *worker);

/**
 * worker_serve() - serve another set from now on
 * @set: outlives the worker's use of it
 *
 * From the main thread. Connections that are there go on as they began.
 */
void worker_serve(struct worker *worker, struct service_set *set);

/** worker_set() - the set that it serves, or none any more; from any thread */
const struct service_set *worker_set(const struct worker *worker);

/**
 * worker_last_call() - serve who still waits at a listener before it is closed
 * @service: no worker accepts for it any more
 *
 * From the main thread. Who finds no room is left in the queue.
 */
void worker_last_call(struct worker *worker, struct service *service);

/**
 * worker_drain() - stop accepting, end when the last connection has
 *
 * From the main thread, at any time; once is enough.
 */
void worker_drain(struct worker *worker);

/** worker_kill() - end all connections at once; from the main thread */
void worker_kill(struct worker *worker);

/**
 * worker_join() - wait for the thread, if it was started
 *
 * Workers post to each other: all are joined before the first is freed.
 */
void worker_join(struct worker *worker);

/** worker_free() - the same, and free all */
void worker_free(struct worker *worker);

#endif
