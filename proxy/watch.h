/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_WATCH_H
#define PROXY_WATCH_H

/*
 * Waiting for fds that may go to another thread.
 *
 * Theory of operation
 *
 * libev does not take an fd out of its epoll set when its last watcher is
 * stopped: it supposes that the fd is about to be closed, and otherwise waits
 * for an event that nobody wants and deletes the entry then, by the fd's
 * number. For an fd that another thread serves meanwhile that is an event in
 * the wrong thread, and a race with its being closed and its number being used
 * again (which libev gets over by making its set anew, for which it needs an
 * fd, and aborts without).
 *
 * So fds that may change threads are never in libev's set while they may, but
 * in one of our own, which libev waits for. Nothing of them is left in it when
 * they go.
 *
 * Waiting is level-triggered. One turn takes at most WATCH_BATCH events, then
 * others get theirs.
 */

#include <ev.h>
#include <stdint.h>

#define WATCH_BATCH 64

/** struct watch_set - one for each event loop; @fd is the set, or -1 */
struct watch_set {
	uint32_t magic;
	int fd;
	struct ev_loop *loop;
	ev_io io;
};

/**
 * struct watch - one fd
 * @mask: EV_READ and EV_WRITE as last asked for; 0: not in the set
 * @cb:   called with those of @mask that are true; errors count as both. The
 *        object around @watch may be freed at the end of the loop's turn at
 *        the earliest, see reap.h
 */
struct watch {
	struct watch_set *set;
	int fd;
	uint8_t mask;
	void (*cb)(struct watch *watch, int revents);
};

/** watch_set_init() - make a set. Return: 0, or -1 and errno (@set->fd -1) */
int watch_set_init(struct watch_set *set, struct ev_loop *loop);

/** watch_set_stop() - let go of the loop; does nothing if it was not made */
void watch_set_stop(struct watch_set *set);

/** watch_init() - wait for nothing yet */
void watch_init(struct watch *watch, struct watch_set *set, int fd,
	void (*cb)(struct watch *watch, int revents));

/**
 * watch_for() - what to wait for from now on
 * @mask: of EV_READ and EV_WRITE; 0 takes the fd out of the set
 *
 * Return: 0, or -1 and errno ENOMEM or ENOSPC: it is not waited for at all.
 * Never fails with 0.
 */
int watch_for(struct watch *watch, uint8_t mask);

#endif
