/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_RELAY_IMPL_H
#define PROXY_RELAY_IMPL_H

/*
 * The inside of a relay: relay.c moves bytes and passes ends of streams on,
 * relay_sweep.c sees to what no event shows.
 */

#include "proxy/relay.h"

#define RELAY_MAGIC       0x52454c59u /* "RELY" */
#define RELAY_GROUP_MAGIC 0x52475250u /* "RGRP" */

#define FIN_RCVD(side)  (1u << (side))
#define FIN_SENT(side)  (1u << (2 + (side)))
#define SINK_GONE(side) (1u << (4 + (side)))
#define CLOSED          (1u << 6)
/* Not states of the stream, but said once: */
#define DONE_TOLD(side) (1u << (7 + (side)))

/**
 * struct relay_side - one socket and the direction that comes from it
 * @io:       watches @fd for @mask; its data is the relay
 * @held:     bytes from this side that the other did not take yet
 * @mask:     EV_READ and EV_WRITE as last set
 * @family:   of the socket
 * @fd:       -1 once closed
 * @bytes:    read from this side so far
 */
struct relay_side {
	ev_io io;
	struct held held;
	uint64_t bytes;
	int fd;
	sa_family_t family;
	uint8_t mask;
};

/**
 * struct relay - see the theory in relay.c
 * @link:  on the group's watched list if @watched, else on the steady one
 * @gone_since: when a sweep found a side gone for good, the first since a byte
 *             moved; 0 if none is
 * @events: the bits above
 * @idle:   active only if there is an idle timeout, @idle_after seconds
 * @moved:  loop time at which bytes were last written
 */
struct relay {
	uint32_t magic;
	uint32_t events;
	struct relay_group *group;
	struct list link;
	bool watched;
	struct relay_side side[2];
	double gone_since;
	ev_timer idle;
	double idle_after;
	double moved;
	uint64_t id;
	const struct relay_ops *ops;
	void *arg;
	struct reap reap;
};

/* What to wait for on @side: the only place that decides it. */
uint8_t relay_wanted(const struct relay *relay, int side);

/*
 * relay_close() - close both sides
 * @err: 0 for the normal end, else a reset with the errno that caused it
 */
void relay_close(struct relay *relay, int err);

/* relay_sweep_init() - the sweep of a group; relay_idle_init() - a relay's idle
 * timeout, off */
void relay_sweep_init(struct relay_group *group);
void relay_idle_init(struct relay *relay);

/* relay_watch_over() - whether the sweep is to look at a relay */
void relay_watch_over(struct relay *relay, bool watched);

#endif
