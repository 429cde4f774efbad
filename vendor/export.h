/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_EXPORT_H
#define VENDOR_EXPORT_H

/*
 * A port that the host keeps for programs in the enclave: the claim on it, its
 * pool of standby connections, its mirror on the enclave's loopback, and the
 * listeners that its clients are for.
 */

#include "vendor/claim.h"
#include "vendor/mirror.h"
#include "vendor/pool.h"

enum export_state {
	EXPORT_SEEKING, /* the host does not keep the port (yet, or any more) */
	EXPORT_HELD,    /* it does */
	EXPORT_GONE,    /* given up; freed at the end of the turn */
};

/**
 * struct client - one who waits for a control with room
 * @fd:     its stream
 * @remote: never v4-mapped
 * @local:  the address that it reached, never v4-mapped; AF_UNSPEC if only
 *          the host knows. Its port does not count
 */
struct client {
	struct list link;
	int fd;
	struct ip_port remote;
	struct ip_port local;
};

/**
 * struct export - one port
 * @addr:   what the first listener asked to bind, with the port asked for
 * @v6only: of that listener
 * @scope:  whose clients it is for
 * @port:   the port; 0 while the host has yet to choose one
 * @plain:  HELD by plain BIND
 * @family: of the address in that
 * @listening: some listener's control is
 * @starved: clients wait; the controls watch for room
 * @pumping: export_pump() is at work
 * @pinned: stays although its last listener left
 * @backlog: largest of its listeners'
 * @first:  plain: a standby connection on its way to the pool, else -1
 * @tries:  ports that were free on the host only
 * @retry:  SEEKING: the pause before the next attempt
 * @pause:  the last such pause in seconds
 * @nudge:  another try to hand a client over after a shortage
 * @listeners: of struct listener, in the order in which they are served
 * @clients: of struct client
 */
struct export
{
	uint32_t magic;
	enum export_state state;
	struct inbound_env *env;
	struct endpoint ep;
	struct ip_port addr;
	bool v6only;
	struct scope scope;
	uint16_t port;
	bool plain;
	sa_family_t family;
	bool listening;
	bool starved;
	bool pumping;
	bool pinned;
	int backlog;
	int first;
	unsigned tries;
	struct claim claim;
	struct pool pool;
	struct mirror *mirror;
	ev_timer retry;
	double pause;
	ev_timer nudge;
	struct list listeners;
	struct list clients;
	struct list link;
	struct reap reap;
};

struct listener;

/** export_scope() - whose clients a bind() to @addr is for */
struct scope export_scope(
	const struct ip_port *addr, bool v6only, bool loopback);

/**
 * export_new() - begin to seek a port on the host
 * @env:   must outlive it
 * @ep:    the host proxy, copied
 * @addr:  to bind, port 0 for any
 * @v6only, @loopback: as in the request
 *
 * The outcome of each attempt is told to the listeners there are then.
 *
 * Return: an export, which its last listener gives up; or NULL and ENOMEM.
 */
struct export *export_new(struct inbound_env *env, const struct endpoint *ep,
	const struct ip_port *addr, bool v6only, bool loopback);

/** export_release() - let the port go now, with all that waits for it */
void export_release(struct export *e);

/** export_attach() - one more listener for its clients */
void export_attach(struct export *e, struct listener *listener);

/** export_detach() - one less; the last one lets the port go unless pinned */
void export_detach(struct export *e, struct listener *listener);

/**
 * export_listen() - a listener's control is about to listen
 * @backlog: of that control, 1 to MIRROR_BACKLOG_MAX
 *
 * Return: 0, or an errno for listen().
 */
int export_listen(struct export *e, int backlog);

/** export_update() - the state of some listener or control has changed */
void export_update(struct export *e);

/** export_pump() - a control may have room: hand over clients that wait */
void export_pump(struct export *e);

#endif
