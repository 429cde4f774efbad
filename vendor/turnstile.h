/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_TURNSTILE_H
#define VENDOR_TURNSTILE_H

/*
 * At most so many at a time, the others in the order in which they came.
 *
 * Theory of operation
 *
 * Every dial for an inbound port goes through one turnstile. A thousand ports
 * that come back when the host proxy does would otherwise knock all at once;
 * a vsock listener refuses what exceeds its backlog, and a pool that refills
 * in big steps delays everything else on the one virtqueue.
 *
 * A slot that is given back goes to the first waiter, from within
 * turnstile_leave(). Waiters that give theirs back at once are served one
 * after the other there, not one inside the other.
 */

#include "common/list.h"

struct turnstile {
	unsigned free;
	bool serving;
	struct list queue;
};

/**
 * struct turnstile_wait - one who may have to wait
 * @link: in the queue, or in none
 * @go:   called when its turn has come: a slot is its own now
 */
struct turnstile_wait {
	struct list link;
	void (*go)(struct turnstile_wait *wait);
};

/** turnstile_init() - open, with @slots free ones */
void turnstile_init(struct turnstile *t, unsigned slots);

/** turnstile_wait_init() - not waiting */
void turnstile_wait_init(
	struct turnstile_wait *wait, void (*go)(struct turnstile_wait *wait));

/**
 * turnstile_enter() - take a slot, or queue for one
 *
 * Who is in the queue already keeps its place.
 *
 * Return: true with a slot taken; false, and @wait->go is called later.
 */
bool turnstile_enter(struct turnstile *t, struct turnstile_wait *wait);

/** turnstile_leave() - give a slot back */
void turnstile_leave(struct turnstile *t);

/** turnstile_forget() - wait no more */
void turnstile_forget(struct turnstile_wait *wait);

#endif
