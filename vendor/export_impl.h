/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_EXPORT_IMPL_H
#define VENDOR_EXPORT_IMPL_H

/*
 * The inside of an export, for its two files: export.c has the states and what
 * runs in them, export_clients.c the clients and where they go.
 */

#include "vendor/export.h"

#define EXPORT_MAGIC 0x6578706fu

/** export_name() - the port as log lines have it. Return: @buf */
const char *export_name(const struct export *e, char *buf, size_t size);

/** export_host_client() - one of the pool's, see pool_client_cb; @arg is the
 * export */
void export_host_client(int fd, const struct ip_port *remote,
	const struct ip_port *local, void *arg);

/** export_local_client() - one of the mirror's, see mirror_client_cb */
void export_local_client(int fd, const struct ip_port *remote,
	const struct ip_port *local, void *arg);

/** export_drop_clients() - close those that wait */
void export_drop_clients(struct export *e);

/** export_nudge() - its timer: a shortage may have passed */
void export_nudge(struct ev_loop *loop, ev_timer *timer, int revents);

#endif
