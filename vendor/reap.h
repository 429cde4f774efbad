/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_REAP_H
#define VENDOR_REAP_H

/*
 * Frees that wait for the end of the loop turn.
 *
 * Theory of operation
 *
 * That an object is finished mostly shows deep inside its own event, with
 * callers up the stack that look at it again. So its watchers are stopped and
 * its fds closed at once, and its memory is freed just before the loop waits,
 * when no event is being handled.
 */

#include <ev.h>
#include <stdint.h>

/**
 * struct reap - to be embedded in the object
 * @next:    the next one to free
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

/** reaper_start() - begin to serve @loop */
void reaper_start(struct reaper *reaper, struct ev_loop *loop);

/** reaper_stop() - free what is left and let go of the loop */
void reaper_stop(struct reaper *reaper);

/**
 * reap_later() - free an object at the end of this turn of the loop
 * @reaper:  the loop's
 * @reap:    embedded in the object, not handed over before
 * @destroy: frees the object
 */
void reap_later(struct reaper *reaper, struct reap *reap,
	void (*destroy)(struct reap *reap));

#endif
