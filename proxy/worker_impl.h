/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_WORKER_IMPL_H
#define PROXY_WORKER_IMPL_H

/*
 * The inside of a worker: worker.c has its life, worker_mail.c which of them
 * serves what.
 */

#include "proxy/acceptors.h"
#include "proxy/client.h"
#include "proxy/exports.h"
#include "proxy/mailbox.h"
#include "proxy/worker.h"

#include <pthread.h>

#define WORKER_MAGIC 0x574f524bu /* "WORK" */

struct worker {
	uint32_t magic;
	struct worker_config *config;
	unsigned int index;
	struct ev_loop *loop;
	struct reaper reaper;
	struct relay_group relays;
	struct nameservers nameservers;
	struct client_env clients;
	struct mailbox mailbox;
	struct watch_set watches; /* if ports are exported */
	struct exports *exports;  /* worker 0, if ports are exported */
	unsigned int next_relay;  /* worker 0: whose turn it is */
	struct acceptors acceptors;
	atomic_size_t load;     /* connections; written by its thread, a hint */
	unsigned int next_peer; /* whom to compare it with */
	ev_async wake;
	_Atomic(struct service_set *) set;
	_Atomic(struct service_set *) next;
	ev_timer retry; /* active: no memory to change to @next */
	atomic_bool draining;
	atomic_bool killing;
	_Atomic enum worker_state state;
	pthread_t thread;
	bool started;
};

/* ---- worker.c ---- */

/* @arg: the worker, of the calling thread */
size_t worker_nr_connections(void *arg);

/* Make known how many connections there are. */
void worker_publish_load(struct worker *w);

/* A connection has ended and both its fds are closed. @arg: the worker */
void worker_connection_end(void *arg);

/* Draining is over when nothing is left. */
void worker_finish_if_idle(struct worker *w);

/* ---- worker_mail.c: callbacks, all with the worker as their arg ---- */

/* Of acceptors: serve a connection here or elsewhere. Return: 0, or -1 */
int worker_accepted(void *arg, struct service *s, int fd);

/* Of clients that ask for a port: move them to worker 0. Return: 0, or -1 */
int worker_move(void *arg, const struct client_move *move);

/* ... and they have gone. */
void worker_moved(void *arg);

/* Of the mailbox: what had come was delivered. */
void worker_mail_done(void *receiver);

extern const struct export_ops worker_export_ops;

#endif
