/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_BUDGET_H
#define PROXY_BUDGET_H

/*
 * File descriptors, the one resource that a busy proxy runs out of.
 *
 * Theory of operation
 *
 * A connection needs two fds: the one it was accepted on and the one to its
 * destination. If accepting went on until accept() itself fails, the last
 * connections would be taken in only to be told that there is no fd for their
 * other end. So every fd that serves a connection is accounted for before it
 * is opened: a connection takes FDS_PER_CONNECTION from the budget when it is
 * accepted and gives them back when both are closed, and a connect that tries
 * several addresses at once takes one more for each try beyond the first.
 *
 * What the process needs for itself (listeners, event loops, look-ups, hosts
 * file) stays outside the budget. The kernel may still refuse earlier, with
 * ENFILE when the whole machine runs out; callers handle both the same way.
 *
 * Shared by all worker threads; only the counter changes, atomically.
 */

#include <stdatomic.h>
#include <stdbool.h>

#define FDS_PER_CONNECTION 2

struct fd_budget {
	_Atomic long used;
	long limit; /* immutable once threads run */
};

/**
 * fd_limit_raise() - raise RLIMIT_NOFILE to its hard limit
 *
 * Return: the limit now in force.
 */
long fd_limit_raise(void);

/**
 * fd_budget_init() - what is left of @limit for connections
 * @budget:   nothing used
 * @limit:    of the process, from fd_limit_raise()
 * @reserved: fds that the process needs for itself; if that leaves fewer than
 *            half of @limit, half of it is the budget
 */
void fd_budget_init(struct fd_budget *budget, long limit, long reserved);

/** fd_budget_take() - account for @n fds. Return: false if they are not left */
bool fd_budget_take(struct fd_budget *budget, long n);

/**
 * fd_budget_charge() - account for @n fds that are open in any case
 *
 * May go beyond the limit; nothing is left then until as many are given back.
 */
void fd_budget_charge(struct fd_budget *budget, long n);

/** fd_budget_give() - give back @n fds, which are closed */
void fd_budget_give(struct fd_budget *budget, long n);

#endif
