/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_GATE_H
#define VENDOR_GATE_H

/*
 * The vendor's end of the gates: one connection for each socket of an
 * application that asks for something. The protocol is common/vendor_msg.h.
 */

#include "vendor/config.h"

#include <ev.h>

struct gates;

/**
 * typedef gates_freed_cb - a gate was closed and its fds are free again
 *
 * Called at the end of a loop turn, once for any number of them.
 */
typedef void gates_freed_cb(void *arg);

/**
 * gates_new() - an empty set of gates
 * @loop:   the event loop
 * @config: must outlive the set
 * @freed, @arg: whom to tell
 *
 * Return: the set, or NULL and errno (ENOMEM, EMFILE, ENFILE).
 */
struct gates *gates_new(struct ev_loop *loop,
	const struct vendor_config *config, gates_freed_cb *freed, void *arg);

/** gates_free() - close every gate and forget the set. Not from a callback */
void gates_free(struct gates *gates);

/** gates_count() - how many are open */
size_t gates_count(const struct gates *gates);

/**
 * gate_open() - serve a front-end that was accepted
 * @gates: the set
 * @fd:    SOCK_SEQPACKET, non-blocking; now the set's, also on failure
 */
void gate_open(struct gates *gates, int fd);

#endif
