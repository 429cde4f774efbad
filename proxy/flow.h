/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_FLOW_H
#define PROXY_FLOW_H

/*
 * What remains of a forward (forward.h) once the relay has its sockets: the
 * service that it belongs to, and what the log lines at its end need.
 */

#include "common/endpoint.h"
#include "common/sockaddr.h"
#include "proxy/relay.h"
#include "proxy/service.h"

struct flow;

/** flow_ops - for relay_new(), with the flow as its arg, which it frees */
extern const struct relay_ops flow_ops;

/**
 * flow_new() - note what will be needed
 * @service: service_leave() is called for it at the end
 * @client:  the connected socket of side 0
 * @ep:      what side 1 was connected to
 * @dst:     the original destination, AF_UNSPEC in modes that learn none
 *
 * Return: to be given to a relay, or to be freed with free(), which leaves the
 * service as it is; NULL and errno ENOMEM.
 */
struct flow *flow_new(struct service *service, int client,
	const struct endpoint *ep, const struct ip_port *dst);

#endif
