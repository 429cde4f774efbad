/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_REAP_H
#define PROXY_REAP_H

/*
 * Deferred frees.
 *
 * Theory of operation
 *
 * An object is often found to be finished deep inside its own event handler,
 * with callers up the stack that will still look at it. So nothing is freed
 * there: its watchers are stopped and its fds closed at once, its memory is
 * handed to the loop's reaper, which frees it just before the loop waits for
 * events again (an ev_prepare watcher), when no handler is on the stack.
 */

#include <ev.h>
#include <stdint.h>

/**
 * struct reap - what an object embeds
 * @next: next one to free
 * @destroy: frees the object around it
 */
struct reap {
	struct reap *next;
	void (*destroy)(struct reap *reap);
};

struct reaper {
	uint32_t magic;
	struct ev_loop *loop;
	struct reap *dead;
	ev_prepare prepare;
};

/** reaper_init() - begin to serve @loop; does not keep it running */
void reaper_init(struct reaper *reaper, struct ev_loop *loop);

/** reaper_stop() - free what is left and let go of the loop */
void reaper_stop(struct reaper *reaper);

/**
 * reap_later() - free an object at the end of this turn of the loop
 * @reaper:  the loop's
 * @reap:    embedded in the object; not yet handed over
 * @destroy: frees the object
 */
void reap_later(struct reaper *reaper, struct reap *reap,
	void (*destroy)(struct reap *reap));

#endif
