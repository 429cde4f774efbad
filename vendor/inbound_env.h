/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_INBOUND_ENV_H
#define VENDOR_INBOUND_ENV_H

/*
 * What all inbound ports of a worker share: the loop, limits, and what was
 * let go of lately.
 */

#include "common/endpoint.h"
#include "common/list.h"
#include "vendor/config.h"
#include "vendor/edge.h"
#include "vendor/reap.h"
#include "vendor/turnstile.h"

#include <ev.h>

#define ENV_RELEASES 64 /* ports remembered */

/**
 * struct inbound_env - one for each worker
 * @loop, @poll: where everything runs
 * @reaper:     frees at the end of a turn
 * @dials:      every dial for an inbound port goes through it
 * @exports:    every struct export that is not gone
 * @pool_low, @pool_high: water marks of each pool
 * @mirror:     serve local clients of wildcard ports
 * @standbys:   standby connections of all pools, also those still dialling
 * @standbys_max: limit of that, so that fds are left for everything else
 * @accept_unit: what an unread ACCEPT adds to SIOCOUTQ of a control
 * @started:    loop time
 * @released:   ring of ports that were let go of
 */
struct inbound_env {
	struct ev_loop *loop;
	struct edge_poll *poll;
	struct reaper reaper;
	struct turnstile dials;
	struct list exports;
	unsigned pool_low;
	unsigned pool_high;
	bool mirror;
	size_t standbys;
	size_t standbys_max;
	int accept_unit;
	ev_tstamp started;
	unsigned next_release;
	struct {
		uint16_t port;
		ev_tstamp at;
	} released[ENV_RELEASES];
};

/**
 * env_start() - fill it
 * @env:  zeroed
 * @loop: the event loop
 * @config: pool marks and mirror are taken from it, 0 for the default marks
 *
 * Return: 0, or -1 and errno (EMFILE, ENFILE, ENOMEM) and nothing to stop.
 */
int env_start(struct inbound_env *env, struct ev_loop *loop,
	const struct vendor_config *config);

/** env_stop() - after the last object on it was given up */
void env_stop(struct inbound_env *env);

/** env_note_release() - the host is being told to let this port go */
void env_note_release(struct inbound_env *env, uint16_t port);

/**
 * env_released_lately() - may the host still be busy letting this port go?
 *
 * The host learns of a release and of a new claim on two connections, in
 * either order; and a worker that has just started may have had a predecessor
 * that the host does not know to be dead. A port in use is then worth another
 * look before anybody is told.
 */
bool env_released_lately(const struct inbound_env *env, uint16_t port);

/**
 * env_pause() - how long to pause after a failure
 * @pause: the last pause in seconds, 0 after a success; updated: from 50 ms
 *         it doubles up to 1 s
 *
 * Return: three quarters to all of the new pause, so that what failed together
 * does not come back together.
 */
double env_pause(double *pause);

#endif
