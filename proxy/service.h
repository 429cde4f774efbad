/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_SERVICE_H
#define PROXY_SERVICE_H

/*
 * A service: what is done for the connections of one listener.
 *
 * Theory of operation
 *
 * The command line gives one service or several of the same kind, a
 * configuration file any number of any kind. Workers share them: a service
 * does not change once a worker can see it, but for its counters.
 *
 * A changed configuration makes a new set of services. A connection keeps the
 * service that it began with, for its rules, limits and log lines, as long as
 * it lives: a service is counted, and freed with the last that uses it.
 *
 * What outlasts a change is the entrance: the listening socket, on which
 * nobody who waits may be lost, and the number of connections that came
 * through it, by which --max-connections is measured. Services that follow one
 * another on the same endpoint share it. The main thread alone opens and
 * closes the sockets, see set.h; the memory goes with the last service.
 */

#include "common/endpoint.h"
#include "proxy/listener.h"
#include "proxy/mode.h"
#include "proxy/proxyproto.h"
#include "proxy/rules.h"

#include <stdatomic.h>

#define SERVICE_WHERE_MAX 160

/**
 * struct service_config - the settings of one listener
 * @mode:   what it does
 * @where:  for log lines: file, line and name of its section, or empty
 * @listen: passes listener_check()
 * @target: what to connect to; kind ENDPOINT_NONE if @mode learns all of it.
 *          For REACH_PORT the port counts for nothing
 * @rules:  destinations that may be learned
 * @max_connections: at the same time, 0 for no limit
 * @handshake_timeout: seconds from accept to all that is needed to know the
 *          destination
 * @connect_timeout: seconds from there to a connection
 * @idle_timeout: seconds without a byte in either direction, 0 for none
 * @tproxy: redirected by TPROXY and not by REDIRECT
 * @accept_proxyproto: each connection begins with a PROXY header
 * @send_proxyproto: what is sent ahead
 */
struct service_config {
	const struct mode *mode;
	char where[SERVICE_WHERE_MAX];
	struct endpoint listen;
	struct endpoint target;
	struct rules rules;
	long max_connections;
	double handshake_timeout;
	double connect_timeout;
	double idle_timeout;
	bool tproxy;
	bool accept_proxyproto;
	enum proxyproto send_proxyproto;
};

/**
 * struct entrance - see the theory above
 * @refs:  services that use it
 * @nr:    connections
 * @full:  that there are too many was said, and holds; so that it is said once
 * @asked: the endpoint as configured (@listener has the port that was chosen)
 */
struct entrance {
	atomic_long refs;
	atomic_long nr;
	atomic_bool full;
	struct endpoint asked;
	struct listener listener;
};

/** struct service - see the theory above; refs: the set and connections */
struct service {
	uint32_t magic;
	atomic_long refs;
	struct service_config config;
	struct entrance *entrance;
};

/** entrance_new() - not listening yet, used by nobody. Return: NULL: ENOMEM */
struct entrance *entrance_new(const struct endpoint *asked);

/** entrance_free() - of one that no service uses; closes its listener */
void entrance_free(struct entrance *entrance);

/**
 * service_new() - a service with one reference, the caller's
 * @config:   copied; its rules become the service's if this succeeds
 * @entrance: one use of it is added
 *
 * Return: NULL and errno ENOMEM.
 */
struct service *service_new(
	struct service_config *config, struct entrance *entrance);

/** service_unref() - give up a reference; from any thread */
void service_unref(struct service *service);

/**
 * service_enter() - may one more connection come in?
 *
 * Return: true, and the caller has a reference and is counted; false if there
 * are as many as may be.
 */
bool service_enter(struct service *service);

/** service_leave() - undo service_enter(); all fds are closed */
void service_leave(struct service *service);

/** service_is_full() - would service_enter() fail? */
bool service_is_full(const struct service *service);

/**
 * service_text() - an endpoint as log lines of forwards show it
 *
 * As endpoint_format(), but TCP without the scheme, as peers are shown.
 *
 * Return: @buf.
 */
const char *service_text(const struct endpoint *ep, char *buf, size_t size);

#endif
