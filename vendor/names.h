/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_NAMES_H
#define VENDOR_NAMES_H

/*
 * The DNS stub (resolv/dns_stub.h) as a service of the worker: it reaches its
 * servers as programs reach theirs, by CONNECT through the host proxy.
 */

#include "vendor/config.h"

#include <ev.h>

struct names;

/**
 * names_start() - begin to answer, if --dns-listen asks for it
 * @loop:   the worker's
 * @config: stays as it is while the stub runs
 *
 * An address that cannot be listened on is logged at warn and left out: a
 * vendor without names is worth more than none.
 *
 * Return: a handle, or NULL if there is nothing to run or nothing that could
 * be.
 */
struct names *names_start(
	struct ev_loop *loop, const struct vendor_config *config);

/** names_stop() - end it; NULL is fine */
void names_stop(struct names *names);

#endif
