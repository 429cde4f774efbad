/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_SET_H
#define PROXY_SET_H

/*
 * All that is served at one time: a set of services with their listeners open.
 * Made and retired by the main thread alone; immutable in between, so that
 * workers need no lock to read it.
 *
 * Theory of operation
 *
 * A new set takes the listeners over whose endpoints, as configured, are in the
 * old one too, whatever else about them has changed: the sockets stay open, and
 * nobody who waits in their queues notices. (Not a unix socket whose file has
 * been removed, or replaced: nobody can reach it.) The others are opened. If
 * one cannot be, what was opened is closed again, and it is as if nothing had
 * happened.
 *
 * The old listeners are open until all workers have changed over. So that a
 * new one can follow an old one on an address that contains it, or that it
 * contains, both have SO_REUSEPORT while the new one is bound: only for an old
 * one that is about to be closed, and on TCP only.
 *
 * When no worker looks at the old set any more it is retired: the listeners
 * that the new one has not are closed (after a last call, see worker.h).
 */

#include "proxy/service.h"

#include <stddef.h>

#define SET_MAX 1024 /* services */

struct service_set {
	size_t nr;
	struct service *service[];
};

/**
 * service_set_open() - make a set
 * @config: the services; their rules are the set's if this succeeds
 * @nr:     1 to SET_MAX
 * @old:    the set that this one shall follow, or NULL
 *
 * Return: NULL, and what is wrong has been logged.
 */
struct service_set *service_set_open(struct service_config *config, size_t nr,
	const struct service_set *old);

/** service_set_has() - is @entrance that of a service of @set? */
bool service_set_has(
	const struct service_set *set, const struct entrance *entrance);

/**
 * service_set_retire() - let go of a set that no worker uses
 * @set:  freed; its services live on for their connections
 * @next: the set that followed it, or NULL
 */
void service_set_retire(
	struct service_set *set, const struct service_set *next);

/**
 * service_set_close() - close the listeners
 *
 * No worker accepts any more; the set is still to be retired.
 */
void service_set_close(struct service_set *set);

#endif
