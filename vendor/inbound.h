/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_INBOUND_H
#define VENDOR_INBOUND_H

/*
 * The inbound service: ports of the host for servers in the enclave.
 */

#include "common/endpoint.h"
#include "common/vendor_msg.h"
#include "vendor/config.h"

#include <ev.h>

struct inbound;

/**
 * inbound_new() - nothing bound
 * @loop:   the event loop
 * @config: must outlive it; marks and limits that are 0 are the defaults
 *
 * Return: the service, or NULL and errno (ENOMEM, EMFILE, ENFILE).
 */
struct inbound *inbound_new(
	struct ev_loop *loop, const struct vendor_config *config);

/** inbound_free() - let all ports go. Not from a callback */
void inbound_free(struct inbound *in);

/** inbound_count() - how many listeners there are */
size_t inbound_count(const struct inbound *in);

/**
 * inbound_take() - a front-end asks to bind or to rejoin
 * @in:  the service
 * @fd:  its socket, the request consumed; *fd is -1 if the service has taken
 *       it, which will then answer a BIND itself
 * @uid: of the peer
 * @ep:  the host proxy, one that this uid may use
 * @req: BIND or REJOIN, as vendor_request_check() lets it pass
 *
 * Return: 0, or the status to answer with: EINVAL (flags and address do not
 * fit), EADDRINUSE, ENOBUFS (too many).
 */
int inbound_take(struct inbound *in, int *fd, uid_t uid,
	const struct endpoint *ep, const struct vendor_request *req);

#endif
