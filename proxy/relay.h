/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_RELAY_H
#define PROXY_RELAY_H

/*
 * The relay: moves bytes between the two sockets of an established connection
 * until both directions have ended. Whoever finds the two ends, by whatever
 * protocol, hands them over here; nothing else in the program moves payload.
 *
 * relay.c opens with the theory of operation.
 */

#include "proxy/held.h"
#include "common/list.h"
#include "proxy/reap.h"

#include <errno.h>
#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define RELAY_BUFFER_DEFAULT ((size_t)256 * 1024)
#define RELAY_BUFFER_MIN     1024
#define RELAY_BUFFER_MAX     ((size_t)16 * 1024 * 1024)

struct relay;

/**
 * struct relay_group - the relays of one event loop, and what they share
 * @scratch: bytes pass through its buffer in one go
 * @steady:  relays that wait for both sides to send
 * @watched: relays with a side that is not waited for, which @sweep looks at
 * @sweep_every, @gone_after: seconds; may be changed before the first relay
 * @nr:      how many relays there are
 * @closed:  called after each relay's fds are closed, with @arg; may be NULL
 */
struct relay_group {
	uint32_t magic;
	struct ev_loop *loop;
	struct reaper *reaper;
	struct scratch scratch;
	struct list steady;
	struct list watched;
	ev_timer sweep;
	double sweep_every;
	double gone_after;
	size_t nr;
	void (*closed)(void *arg);
	void *arg;
};

/**
 * relay_group_init() - prepare an event loop for relays
 * @group:  filled
 * @loop, @reaper: of the calling thread
 * @size:   of the scratch buffer, RELAY_BUFFER_MIN to RELAY_BUFFER_MAX; bounds
 *          what is held for each direction of a connection as well
 * @closed, @arg: see the struct
 *
 * Return: 0, or -1 and errno ENOMEM.
 */
int relay_group_init(struct relay_group *group, struct ev_loop *loop,
	struct reaper *reaper, size_t size, void (*closed)(void *arg),
	void *arg);

/** relay_group_abort() - end every relay at once, with resets */
void relay_group_abort(struct relay_group *group);

/** relay_group_free() - free the buffers; there are no relays any more */
void relay_group_free(struct relay_group *group);

/**
 * struct relay_sock - one of the two sockets
 * @fd:     connected, non-blocking
 * @family: its address family, which decides how a reset is expressed
 */
struct relay_sock {
	int fd;
	sa_family_t family;
};

/* The errno that stands for the relay's own idle timeout, as no socket ever
 * has it (those report ETIMEDOUT, for a peer that does not answer). */
#define RELAY_IDLE ETIME

/**
 * struct relay_ops - what an owner wants to be told; each may be NULL
 * @direction_done: no more bytes come from @side: the end of its stream was
 *         passed on (@err 0), or the direction broke (@err an errno, or
 *         RELAY_IDLE). @bytes were read from it. Called at most once for each
 *         side
 * @closed: the last call; both fds are closed
 */
struct relay_ops {
	void (*direction_done)(void *arg, int side, uint64_t bytes, int err);
	void (*closed)(void *arg);
};

/**
 * relay_new() - take over two sockets
 * @group: of the calling thread
 * @sock:  side 0 and side 1; the relay owns the fds from now on
 * @id:    of the connection, for log lines
 * @ops:   static, or NULL
 * @arg:   for @ops
 *
 * Nothing moves before relay_run().
 *
 * Return: the relay, or NULL and errno ENOMEM (the fds stay the caller's).
 */
struct relay *relay_new(struct relay_group *group,
	const struct relay_sock sock[2], uint64_t id,
	const struct relay_ops *ops, void *arg);

/**
 * relay_feed() - bytes that were received before the relay took over, or that
 *                the other side must see first
 * @relay: before relay_run()
 * @from:  the side they are counted as coming from: they go to the other one
 * @data, @len: copied or sent; at most the scratch size in all
 */
void relay_feed(struct relay *relay, int from, const void *data, size_t len);

/**
 * relay_run() - start relaying
 *
 * The relay may have come to its end when this returns: the handle is not to
 * be used after it, except from @ops before closed() was called.
 */
void relay_run(struct relay *relay);

/**
 * relay_set_idle() - end the relay, with resets, if it is idle for too long
 * @relay:   before relay_run()
 * @seconds: without a byte moved in either direction; 0: never
 */
void relay_set_idle(struct relay *relay, double seconds);

/**
 * relay_arm_reset() - let close() reset the connection, where that can be said
 * @fd: of address family @family
 */
void relay_arm_reset(int fd, sa_family_t family);

/** relay_abort() - end it at once, with resets; closed() is called */
void relay_abort(struct relay *relay);

/** relay_size() - user memory of an idle relay, for the tests */
size_t relay_size(void);

#endif
