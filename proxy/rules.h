/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_RULES_H
#define PROXY_RULES_H

/*
 * Which destinations clients may connect to.
 *
 * Theory of operation
 *
 * An ordered list of allow and deny rules, each a block of addresses and a
 * range of ports. The first rule that matches decides. If none matches, the
 * destination is denied where any allow rule was given (a list of what is
 * allowed allows nothing else), else allowed.
 *
 * Rules see the address that will be connected to: names are looked up first
 * and each of their addresses is checked. Every spelling of an address meets
 * the same rules: an IPv4 address mapped into IPv6 is that IPv4 address, and
 * the unspecified address, which the kernel connects to itself, is loopback
 * (see rules_canonical()).
 *
 *	CIDR            10.0.0.0/8          fd00::/8        192.0.2.1
 *	CIDR:PORT       10.0.0.0/8:443      [fd00::]/8:443
 *	CIDR:PORT-PORT  10.0.0.0/8:1-1023   [::]/0:1-1023
 */

#include "common/sockaddr.h"

enum rules_verdict {
	RULES_ALLOW = 1,
	RULES_DENY,
	RULES_NO_MATCH, /* from rules_match() only */
};

struct rule {
	struct ip_prefix prefix;
	uint16_t first_port;
	uint16_t last_port;
	enum rules_verdict verdict;
};

struct rules {
	struct rule *rule;
	size_t nr;
	bool any_allow;
};

/** rules_init() - no rules: everything is allowed */
void rules_init(struct rules *rules);

/** rules_free() - forget all rules */
void rules_free(struct rules *rules);

/** rules_copy() - @out becomes a copy. Return: 0, or -1 and errno ENOMEM */
int rules_copy(struct rules *out, const struct rules *rules);

/**
 * rules_add() - append a rule
 * @rules:   to append to
 * @text:    as above
 * @verdict: RULES_ALLOW or RULES_DENY
 *
 * Return: NULL, or what was expected, as a constant string.
 */
const char *rules_add(
	struct rules *rules, const char *text, enum rules_verdict verdict);

/**
 * rules_match() - what the first matching rule says
 * @rules: the rules
 * @dst:   canonical destination with its port
 *
 * Return: RULES_NO_MATCH if no rule does.
 */
enum rules_verdict rules_match(
	const struct rules *rules, const struct ip_port *dst);

/**
 * rules_allow() - may a client connect to @dst?
 *
 * The unspecified address must be allowed both as it is and as the loopback
 * address that it means.
 */
bool rules_allow(const struct rules *rules, const struct ip_port *dst);

/**
 * rules_canonical() - the address that the kernel will in fact connect to
 * @dst: changed in place: v4-mapped to IPv4, unspecified to loopback
 */
void rules_canonical(struct ip_port *dst);

#endif
