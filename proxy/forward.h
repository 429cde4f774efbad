/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_FORWARD_H
#define PROXY_FORWARD_H

/*
 * A connection in one of the forwarding modes, from accept() until the relay
 * takes over or it has been refused. forward.c opens with the theory of
 * operation.
 */

#include "proxy/client.h"
#include "proxy/service.h"

/**
 * forward_new() - forward a new connection
 * @env:     of the calling thread
 * @service: entered for it; this connection leaves it at its end
 * @fd:      accepted, non-blocking, CLOEXEC; the connection's from now on
 *
 * Return: 0, or -1 and errno ENOMEM (@fd and @service stay the caller's).
 */
int forward_new(struct client_env *env, struct service *service, int fd);

/** forward_abort_all() - end all of @env that no relay has yet */
void forward_abort_all(struct client_env *env);

#endif
