/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_CLAIM_H
#define VENDOR_CLAIM_H

/*
 * The claim on a port of the host: the connection to the host proxy that owns
 * it, and how it is made (common/hold_name.h).
 */

#include "vendor/dial.h"
#include "vendor/inbound_env.h"

/**
 * struct scope - which clients a port on the host is for
 * @v4, @v6:  families; at least one
 * @loopback: only those on the host's own loopback
 */
struct scope {
	bool v4;
	bool v6;
	bool loopback;
};

struct claim;

/**
 * struct claim_result - how an attempt ended
 * @err:   0, or a positive errno that bind() shall report
 * @away:  the host proxy was not reached or did not answer: it is not the
 *         port's fault, and the same attempt may succeed later
 * @plain: the host proxy knows only plain BIND; it owns no port for us but
 *         for standby connections
 * @family: @plain: AF_INET or AF_INET6, of the address in that BIND
 * @fd:    @plain: the first standby connection, now the callback's, else -1
 * @port:  the port, never 0 unless @err
 */
struct claim_result {
	int err;
	bool away;
	bool plain;
	sa_family_t family;
	int fd;
	uint16_t port;
};

/** Called once for each claim_start(), from the loop */
typedef void claim_done_cb(
	struct claim *claim, const struct claim_result *result);

/** The host proxy hung up on a claim that was held; a new one may be started */
typedef void claim_lost_cb(struct claim *claim);

enum claim_state {
	CLAIM_IDLE,
	CLAIM_QUEUED,
	CLAIM_NAMED,
	CLAIM_PLAIN,
	CLAIM_HELD,
};

/**
 * struct claim - to be embedded in its owner
 * @state: see claim.c
 * @key:   of this attempt; standby connections join the port with it
 * @port:  asked for
 * @refused: the reply to the attempt by name, if it was refused
 * @plain_family: then, of the address in the plain BIND
 * @fd:    HELD: the owner's connection, else -1
 */
struct claim {
	uint32_t magic;
	enum claim_state state;
	struct inbound_env *env;
	const struct endpoint *ep;
	struct scope scope;
	uint8_t key[16];
	uint16_t port;
	uint8_t refused;
	sa_family_t plain_family;
	int fd;
	struct edge edge;
	struct dial *dial;
	struct turnstile_wait turn;
	claim_done_cb *done;
	claim_lost_cb *lost;
};

/**
 * claim_init() - nothing claimed
 * @claim: zeroed
 * @env:   must outlive it
 * @ep:    the host proxy; must outlive it
 * @scope: copied
 * @done, @lost: whom to tell
 */
void claim_init(struct claim *claim, struct inbound_env *env,
	const struct endpoint *ep, const struct scope *scope,
	claim_done_cb *done, claim_lost_cb *lost);

/** claim_start() - ask for a port, 0 for any. Only while nothing is claimed */
void claim_start(struct claim *claim, uint16_t port);

/** claim_drop() - give it up, whatever state it is in */
void claim_drop(struct claim *claim);

#endif
