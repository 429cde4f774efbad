/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_RESOLVE_H
#define PROXY_RESOLVE_H

/*
 * Names to addresses on an event loop, by c-ares.
 *
 * Theory of operation
 *
 * Each worker has one resolver. It asks the hosts file first and then the name
 * servers, for IPv4 and IPv6 at once, as this host's own programs would; the
 * addresses come back in RFC 6724 order.
 *
 * c-ares reads its configuration once and cannot be given a new one while it
 * has questions open. So a resolver has a current channel and possibly retired
 * ones: when resolv.conf has changed (looked at with each question), a new
 * channel takes over, and the old one is destroyed when its last question has
 * been answered.
 *
 * c-ares cannot take back a single question either. resolve_cancel() detaches
 * the asker; the answer is dropped when it comes. RESOLVE_MAX bounds how many
 * questions may be open, answered or not wanted any more.
 */

#include "common/sockaddr.h"

#include <ev.h>

#define RESOLVE_MAX 4096

enum resolve_status {
	RESOLVE_OK,
	RESOLVE_NO_ADDRESS, /* no such name, or a name without addresses */
	RESOLVE_TIMED_OUT,  /* no name server answered in time */
	RESOLVE_FAILED,     /* SERVFAIL, out of memory, too many questions */
};

struct resolver;
struct resolve_query;

/**
 * typedef resolve_cb - the answer
 * @status: how it went
 * @why:    text for a log line, never NULL
 * @addrs, @nr: 1 to CONNECT_ADDRS_MAX if RESOLVE_OK, else none; with the port
 *          asked for; valid during the call
 */
typedef void resolve_cb(void *arg, enum resolve_status status, const char *why,
	const struct ip_port *addrs, size_t nr);

/** resolve_library_init() - once, before threads. Return: 0 or -1 */
int resolve_library_init(void);

/** resolve_library_cleanup() - once, after all resolvers are freed */
void resolve_library_cleanup(void);

/**
 * resolver_new() - a resolver on @loop
 * @resolv_conf: path, stays the caller's
 *
 * Return: NULL if c-ares cannot be set up; it is logged.
 */
struct resolver *resolver_new(struct ev_loop *loop, const char *resolv_conf);

/** resolver_free() - open questions are answered with RESOLVE_FAILED */
void resolver_free(struct resolver *resolver);

/**
 * resolve_start() - ask
 * @resolver: of the calling thread
 * @name:     NUL-terminated
 * @port:     put into each address
 * @cb, @arg: whom to tell; possibly before this returns
 *
 * Return: a handle for resolve_cancel(), or NULL if @cb was called already.
 */
struct resolve_query *resolve_start(struct resolver *resolver, const char *name,
	uint16_t port, resolve_cb *cb, void *arg);

/** resolve_cancel() - @cb will not be called; only before it was */
void resolve_cancel(struct resolve_query *query);

#endif
