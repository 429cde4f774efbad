/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_MIRROR_H
#define VENDOR_MIRROR_H

/*
 * The enclave's own side of a wildcard port: programs in the enclave reach it
 * over loopback, as they would where the server itself listened.
 */

#include "common/sockaddr.h"

#include <ev.h>

/* Most clients that wait in the kernel or in a control. */
#define MIRROR_BACKLOG_MAX 1024

/**
 * typedef mirror_client_cb - a local client has come
 * @fd:     its connection, non-blocking and CLOEXEC; the callback's
 * @remote: the client, as the kernel has it (v4-mapped for IPv6 with IPv4)
 * @local:  the address that it reached
 * @arg:    as given
 */
typedef void mirror_client_cb(int fd, const struct ip_port *remote,
	const struct ip_port *local, void *arg);

struct mirror;

/**
 * mirror_bind() - reserve a port on the enclave's own addresses
 * @loop:   the event loop
 * @addr:   a wildcard address and the port
 * @v6only: for IPv6, no IPv4 clients
 * @cb, @arg: whom to tell; may stop the watch, must not free the mirror
 *
 * Return: the mirror, or NULL and an errno of socket(2) or bind(2).
 */
struct mirror *mirror_bind(struct ev_loop *loop, const struct ip_port *addr,
	bool v6only, mirror_client_cb *cb, void *arg);

/**
 * mirror_listen() - let local clients come; they wait until mirror_watch()
 * @backlog: how many may wait, 1 to MIRROR_BACKLOG_MAX
 *
 * May be called again for another backlog.
 *
 * Return: 0, or -1 and an errno of listen(2).
 */
int mirror_listen(struct mirror *mirror, int backlog);

/** mirror_watch() - take clients, or leave them with the kernel */
void mirror_watch(struct mirror *mirror, bool on);

/** mirror_free() - let the port go */
void mirror_free(struct mirror *mirror);

#endif
