/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_HOLD_NAME_H
#define COMMON_HOLD_NAME_H

/*
 * Names that a BIND request carries between our vendor and our host proxy.
 *
 * Theory of operation
 *
 * Plain SOCKS5 BIND (ATYP IPv4, 0.0.0.0 and a port) makes each standby
 * connection an owner of the port: the port lives as long as one of them does.
 * That cannot tell "bound" from "listening", cannot keep a port while the pool
 * is empty for a moment, and lets anybody join a pool. So the vendor sends BIND
 * with a domain name (ATYP 3) that no resolver has:
 *
 *	hold-SCOPE-KEY.proxy.internal	port P, 0 for any
 *		Bind P on the host for the families in SCOPE and keep it while
 *		this connection is open. Answered with the first reply (10
 *		bytes: IPv4 form, address zero, the port). Nothing else is ever
 *		sent on it. The port does not listen yet.
 *
 *	join-KEY.proxy.internal		port P
 *		One standby connection for the port held with KEY: first reply
 *		as above, second reply (22 bytes) when a client has come, then
 *		the client's stream. The first of them makes the port listen.
 *
 *	meet-KEY.proxy.internal		port P
 *		The same, and behind the second reply comes a third one, of the
 *		same form, with the address of the host that the client reached.
 *
 * SCOPE is `4`, `6` or `46`, with an `l` behind it for the host's loopback
 * only. KEY is 32 hexadecimal digits, random: who has it owns the port. A host
 * proxy that does not know these names refuses them (reply 8, 4 or 1) and the
 * vendor falls back to plain BIND.
 *
 * Refusals of a BIND in either form, and what bind() in the enclave reports:
 *
 *	reply  on the host                                      enclave
 *	5      EADDRINUSE: another key, peer or program has     EADDRINUSE
 *	       the port
 *	2      EACCES, EPERM: the operator or the kernel does   EACCES
 *	       not allow the port; join: not held with KEY
 *	4      EADDRNOTAVAIL, EAFNOSUPPORT: the host has no     EADDRNOTAVAIL
 *	       such address
 *	1      anything else: malformed, out of fds, stopping   ENETDOWN
 */

#include "common/socks5.h"

#define HOLD_KEY_LEN 16

enum hold_verb { HOLD_NONE, HOLD_HOLD, HOLD_JOIN, HOLD_MEET };

/**
 * struct hold_name - such a name in parts
 * @verb:     HOLD_NONE if the name is any other name
 * @v4, @v6:  HOLD: which families; at least one
 * @loopback: HOLD: only the host's loopback
 * @key:      who owns the port
 */
struct hold_name {
	enum hold_verb verb;
	bool v4;
	bool v6;
	bool loopback;
	uint8_t key[HOLD_KEY_LEN];
};

/**
 * hold_name_parse() - take such a name apart
 * @out:  filled; @out->verb is HOLD_NONE if @addr is anything else
 * @addr: as received
 *
 * Return: 0, or -1 if the name ends in .proxy.internal and begins with hold-,
 * join- or meet-, but is malformed.
 */
int hold_name_parse(struct hold_name *out, const struct socks5_addr *addr);

/**
 * hold_name_write() - make such a name
 * @name: HOLD, JOIN or MEET
 * @port: of the request
 * @out:  filled
 */
void hold_name_write(
	const struct hold_name *name, uint16_t port, struct socks5_addr *out);

#endif
