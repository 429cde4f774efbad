/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_ACCEPTORS_H
#define PROXY_ACCEPTORS_H

/*
 * Accepting, for one event loop, on the listeners of a set of services.
 *
 * Theory of operation
 *
 * Several loops wait on the same sockets and whoever comes first accepts.
 * Accepting goes on until there is nothing left, but for ACCEPT_BATCH at a
 * time, so that those already connected get their turn. A vsock connection
 * that does not fit into the listen queue is reset on the spot, so the queue
 * is emptied with priority over elegance.
 *
 * Running out of fds (or of kernel memory for them) must not spin on a socket
 * that stays readable. Nothing is waited for during ACCEPT_PAUSE, or until a
 * connection of this loop ends. That is logged once, by the first loop that
 * meets it, and once more when a loop has emptied the queue again. The budget
 * may be short for an instant only, while another loop takes from it to find
 * that nobody waits, or accepts the very client that woke this one too: so it
 * counts only if it is still short after a pause, and somebody still waits.
 *
 * A service that has as many connections as it may have is not waited for
 * either, until one of them ends. That may happen on another loop: so this one
 * looks again every ACCEPT_PAUSE.
 *
 *	     acceptors_start()		 short of fds
 *	off -----------------> waiting <--------------> paused
 *	    <-------------------------------------------'
 *	      acceptors_stop()		 pause, or a connection ended
 */

#include "proxy/budget.h"
#include "proxy/set.h"

#include <ev.h>

struct acceptor;

/**
 * struct acceptors - embedded in the owner of the loop
 * @budget:  each connection takes FDS_PER_CONNECTION
 * @short_of_fds: shared by all loops, so that it is said once
 * @serve:   takes over an accepted fd and the service, entered for it, with the
 *           fds in the budget; or returns -1 without memory for it
 * @nr_connections: of this loop, for a log line
 * The rest is the module's.
 */
struct acceptors {
	uint32_t magic;
	struct ev_loop *loop;
	struct fd_budget *budget;
	atomic_bool *short_of_fds;
	int (*serve)(void *arg, struct service *service, int fd);
	size_t (*nr_connections)(void *arg);
	void *arg;
	struct acceptor *acceptor;
	size_t nr;
	bool on;
	bool held;      /* the budget was short before the last pause */
	ev_timer pause; /* active: not waiting for want of fds */
	ev_timer full;  /* active: some service is full */
};

/** acceptors_init() - of no service; the public members are set already */
void acceptors_init(struct acceptors *as);

/**
 * acceptors_use() - accept for this set from now on, instead of what was before
 *
 * Return: 0, or -1 and errno ENOMEM: nothing has changed.
 */
int acceptors_use(struct acceptors *as, const struct service_set *set);

/** acceptors_start() - begin to accept */
void acceptors_start(struct acceptors *as);

/** acceptors_stop() - let go of all listeners */
void acceptors_stop(struct acceptors *as);

/** acceptors_resume() - a connection of this loop has ended, both fds closed */
void acceptors_resume(struct acceptors *as);

/** acceptors_free() - after acceptors_stop() */
void acceptors_free(struct acceptors *as);

#endif
