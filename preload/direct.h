/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_DIRECT_H
#define PRELOAD_DIRECT_H

/*
 * The SOCKS5 handshake inside a blocking connect(), for processes that have
 * the library but no vendor to ask.
 *
 * Greeting and request go out in one piece; both replies are read to the last
 * byte and not one byte further, because the socket is the application's
 * afterwards. One deadline covers everything. A signal ends the attempt with
 * EINTR, whether SA_RESTART is set or not, and a new connect() starts afresh.
 *
 * A carrier that fails for a reason that passes is followed by a fresh one
 * after a short pause (common/carrier.h), as TCP repeats its SYN without a
 * word. A host proxy that is not there is still known at once, on vsock after a
 * quarter of a second.
 */

#include "common/endpoint.h"

/**
 * direct_connect() - a connected carrier
 * @proxy:      the host proxy; vsock, unix or numeric tcp
 * @dst:        the destination
 * @timeout_ms: for the whole, > 0
 * @local:      set to the local address of the host's connection
 *
 * Return: the carrier (non-blocking, close-on-exec, the caller's), or -1 and
 * the errno for the application: ENETDOWN if the host proxy cannot be reached
 * or does not speak SOCKS5, EINTR, EMFILE and the like, or what the reply code
 * stands for; ETIME, which is the caller's to translate, if time is up.
 */
int direct_connect(const struct endpoint *proxy, const struct ip_port *dst,
	int timeout_ms, struct ip_port *local);

#endif
