/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_GATE_IMPL_H
#define VENDOR_GATE_IMPL_H

/*
 * The inside of a gate, for its two files: gate.c has the states, the messages
 * and the set, gate_request.c what is done for a request. The theory of
 * operation is in gate.c.
 */

#include "common/log.h"
#include "common/vendor_msg.h"
#include "vendor/dial.h"
#include "vendor/edge.h"
#include "vendor/gate.h"
#include "vendor/inbound.h"

#define GATE_MAGIC  0x67617465u
#define GATES_MAGIC 0x67617473u

enum gate_state {
	GATE_WAITING,
	GATE_WORKING,
	GATE_SENDING,
	GATE_SERVED,
	GATE_PARKED,
	GATE_CLOSED,
};

/**
 * struct gate - one front-end
 * @id:      for log lines
 * @carrier: SENDING: the fd to pass, else -1
 * @timer:   WAITING and PARKED: the deadline; SENDING: the pause
 * @tries:   SENDING: that many are left
 * @result:  what was or will be sent; @result.remote from the request
 * @next, @prev: among the open ones, or @next among those to free
 */
struct gate {
	uint32_t magic;
	enum gate_state state;
	struct gates *gates;
	uint64_t id;
	uid_t uid;
	int fd;
	int carrier;
	unsigned tries;
	struct edge edge;
	struct dial *dial;
	ev_timer timer;
	struct vendor_result result;
	struct gate *next;
	struct gate *prev;
};

/**
 * struct gates - the set
 * @inbound: takes those that bind
 * @open:  every gate that is not CLOSED
 * @dead:  CLOSED ones, freed by @reap
 * @reap:  runs before the loop waits
 */
struct gates {
	uint32_t magic;
	struct ev_loop *loop;
	const struct vendor_config *config;
	struct edge_poll *poll;
	struct inbound *inbound;
	struct gate *open;
	struct gate *dead;
	size_t count;
	uint64_t last_id;
	ev_prepare reap;
	gates_freed_cb *freed;
	void *arg;
};

/** gate_set_state() - the one place where the state changes; only forward */
void gate_set_state(struct gate *g, enum gate_state state);

/** gate_close() - close its fd and give up its dial; freed at the end of the
 * turn. Nothing to do if it is CLOSED */
void gate_close(struct gate *g);

/** gate_consume() - take the request out of the queue. Return: 0, or -1 */
int gate_consume(struct gate *g);

/**
 * gate_answer() - send the result and open the gate, or close it
 * @status: 0, or an errno for the application
 *
 * Sent later if there is no room for it now.
 */
void gate_answer(struct gate *g, int status);

/** gate_begin() - WAITING: do what the request asks, which is as it should be
 */
void gate_begin(struct gate *g, const struct vendor_request *req);

#endif
