/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_DIAL_H
#define VENDOR_DIAL_H

/*
 * One outbound connection through the host proxy: connect the carrier, do the
 * SOCKS5 handshake, hand the connected fd to whoever asked. All on libev, no
 * call blocks. Used by the connect service and by the DNS stub.
 *
 * A loop on which something is dialled keeps its user data (ev_set_userdata)
 * for vendor/edge.h.
 */

#include "common/endpoint.h"
#include "common/socks5.h"

#include <ev.h>

struct dial;

/**
 * struct dial_result - how it ended
 * @err:   0, or a positive errno that a TCP connect() would report
 * @fd:    the connected carrier, non-blocking and CLOEXEC, nothing of the
 *         payload read; the callback owns it. -1 unless @err is 0
 * @local: the local address of the host's connection; for BIND the port
 * @reply: the host proxy's reply code, 0 if none came or it was a success
 * @proxy_err: nonzero when the host proxy itself could not be reached or did
 *         not speak SOCKS5: the errno of that, for a log line
 * @ep:    the host proxy that was asked
 */
struct dial_result {
	int err;
	int fd;
	struct ip_port local;
	uint8_t reply;
	int proxy_err;
	const struct endpoint *ep;
};

/**
 * typedef dial_cb - called once, from the loop, never from dial_start()
 * @result: valid during the call
 * @arg:    as given; the dial is gone when this returns
 */
typedef void dial_cb(const struct dial_result *result, void *arg);

/**
 * dial_start() - begin
 * @loop:    the event loop
 * @ep:      the host proxy, copied
 * @command: SOCKS5_CONNECT, or SOCKS5_BIND, which ends with the first reply
 * @dst:     the destination, copied
 * @timeout: seconds for the whole, > 0
 * @cb, @arg: whom to tell
 *
 * Return: a handle for dial_cancel(), or NULL and errno (ENOMEM only: every
 * other failure arrives through @cb).
 */
struct dial *dial_start(struct ev_loop *loop, const struct endpoint *ep,
	enum socks5_command command, const struct socks5_addr *dst,
	double timeout, dial_cb *cb, void *arg);

/**
 * dial_probe() - does the host proxy answer?
 * @loop, @ep, @timeout, @cb, @arg: as for dial_start()
 *
 * Connects and greets, asks for nothing, and closes again: the result's fd is
 * -1 in each case.
 *
 * Return: as dial_start().
 */
struct dial *dial_probe(struct ev_loop *loop, const struct endpoint *ep,
	double timeout, dial_cb *cb, void *arg);

/** dial_cancel() - give up; @cb is not called. Only before it was called */
void dial_cancel(struct dial *dial);

#endif
