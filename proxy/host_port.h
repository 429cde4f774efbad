/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_HOST_PORT_H
#define PROXY_HOST_PORT_H

/*
 * The sockets of one port of the host: one for each address of its scope, all
 * with the same number. host_port.c opens with the theory of operation.
 */

#include "proxy/bind_policy.h"

/**
 * struct host_port - bound sockets, non-blocking, CLOEXEC
 * @port: of the host
 * @nr, @fd, @family: of the sockets; @fd is -1 from @nr on
 */
struct host_port {
	uint16_t port;
	size_t nr;
	int fd[BIND_ADDRESSES_MAX];
	sa_family_t family[BIND_ADDRESSES_MAX];
};

/** host_port_init() - no sockets */
void host_port_init(struct host_port *hp);

/**
 * host_port_open() - bind, without listening
 * @hp:     filled; no sockets on failure
 * @policy: which addresses, and which ports may be chosen
 * @scope:  what to bind
 * @port:   which port, allowed; 0 to choose an allowed one that is free for
 *          all addresses, that @taken does not claim and that is not published
 * @taken, @arg: is a port of the host in use by somebody that the kernel does
 *          not know of?
 *
 * Return: 0 or an errno: EADDRINUSE, EACCES, EPERM (not allowed, or
 * privileged), EADDRNOTAVAIL (this host has no address for that scope), or
 * what socket(2) and bind(2) say.
 */
int host_port_open(struct host_port *hp, const struct bind_policy *policy,
	const struct bind_scope *scope, uint16_t port,
	bool (*taken)(void *arg, uint16_t port), void *arg);

/**
 * host_port_listen() - listen on all sockets, or on none
 *
 * Return: 0 or an errno, EADDRINUSE if another program was faster.
 */
int host_port_listen(struct host_port *hp);

/** host_port_close() - let go of the port; connections in the backlog break */
void host_port_close(struct host_port *hp);

#endif
