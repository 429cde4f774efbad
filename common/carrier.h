/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_CARRIER_H
#define COMMON_CARRIER_H

/*
 * What whoever connects a carrier from inside the enclave has to know, the
 * vendor and the preload library alike: which options its socket needs, and
 * which failures are worth another try. (The proxy, which listens to it or
 * connects with other patience, shares the window.)
 *
 * Theory of operation
 *
 * TCP repeats its SYN when a listener's backlog is full, and nobody notices.
 * Other carriers fail at once, so whoever connects has to try again: on a fresh
 * socket (a vsock socket that failed once cannot be used again on older
 * kernels), after a short pause with jitter, until a deadline that depends on
 * how likely the failure is to pass:
 *
 *	EAGAIN       the backlog of a unix socket is full    2 s
 *	ECONNRESET   vsock: backlog full or nobody listens   250 ms
 *	             (the two look the same, so that a proxy which is not there
 *	             costs this much); any family: closed before it said a word,
 *	             as a proxy that is being restarted does (which a
 *	             sender may hear of as EPIPE)
 *	ETIMEDOUT    vsock: a lost packet or a host just up  6 s
 *
 * Everything else is final at once. A shortage of the caller's own (EMFILE,
 * ENOMEM) is the caller's own matter.
 *
 * No heap; async-signal-safe.
 */

#include "common/endpoint.h"

/**
 * carrier_retry_ms() - for how long a failure is worth another try
 * @kind:   of the host proxy's endpoint
 * @err:    an errno: of connect(), or of the first words; ECONNRESET also for
 *          an end of the stream
 * @silent: has the other side not said a word yet?
 *
 * Return: milliseconds since the first try began, 0: it is final.
 */
unsigned carrier_retry_ms(enum endpoint_kind kind, int err, bool silent);

/**
 * carrier_pause_us() - how long to wait before the next try
 * @step:   of these tries, 0 to begin with; doubles up to a limit
 * @number: any, another one each time: tries that failed together must not come
 *          back together
 *
 * Return: microseconds, half to all of the step.
 */
unsigned carrier_pause_us(unsigned *step, uint32_t number);

/**
 * carrier_window() - what a vsock peer may send ahead of being read
 * @fd: a vsock socket before connect() or listen(), from which accepted ones
 *      inherit it
 */
void carrier_window(int fd);

/**
 * carrier_options() - options for a socket that is about to be connected
 *
 * All of them only improve matters; a kernel without them works.
 */
void carrier_options(int fd, enum endpoint_kind kind);

#endif
