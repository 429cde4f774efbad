/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_BIND_POLICY_H
#define PROXY_BIND_POLICY_H

/*
 * What the operator says about exported ports: on which addresses of the host,
 * which ports, and under which numbers. Filled from the command line, then
 * immutable; pure, without I/O.
 *
 * Theory of operation
 *
 * Two numbers. A program in the enclave binds the *enclave's* port, and that
 * is the number that every request and reply carries. Clients of the host
 * connect to the *host's* port. They are the same unless --publish maps one to
 * the other. The list of allowed ports is about the host's: that is what the
 * operator protects.
 *
 * Addresses. The default is any address of both families. Where addresses are
 * given, an export uses those of its families and no other. An export for the
 * host's loopback only uses 127.0.0.1 and ::1, if an address that was given
 * covers it (is the unspecified one of its family, or that very one): nothing
 * is ever opened where the operator did not say so.
 */

#include "common/sockaddr.h"

#define BIND_ADDRESSES_MAX 8
#define BIND_PUBLISH_MAX   256

#define BIND_QUEUE_DEFAULT 1024
#define BIND_QUEUE_MAX     65535

struct bind_publish {
	uint16_t enclave;
	uint16_t host;
};

/**
 * struct bind_policy - see the theory above
 * @address, @nr_addresses: as given; none means any of both families
 * @limited: only the ports in @allow may be used
 * @allow:   one bit for each port of the host
 * @publish, @nr_publish: each port at most once on each side
 * @queue:   clients of one port that may wait for a standby connection
 */
struct bind_policy {
	struct ip_port address[BIND_ADDRESSES_MAX];
	size_t nr_addresses;
	bool limited;
	uint8_t allow[65536 / 8];
	struct bind_publish publish[BIND_PUBLISH_MAX];
	size_t nr_publish;
	unsigned int queue;
};

/**
 * struct bind_scope - whom a port is for
 * @v4, @v6:  clients of which families; at least one
 * @loopback: only those on the host itself
 */
struct bind_scope {
	bool v4;
	bool v6;
	bool loopback;
};

/** bind_policy_init() - any address, all ports, no maps */
void bind_policy_init(struct bind_policy *policy);

/** bind_policy_equal() - do they say the same? */
bool bind_policy_equal(
	const struct bind_policy *a, const struct bind_policy *b);

/**
 * bind_policy_add_address() - read one --bind-address
 * @text: an IPv4 or IPv6 address
 *
 * Return: NULL, or what was expected, as a constant string.
 */
const char *bind_policy_add_address(
	struct bind_policy *policy, const char *text);

/**
 * bind_policy_add_allow() - read one --allow-bind
 * @text: "all", "none", or ports and ranges: "80,443,8000-8999"; several lists
 *        add up
 *
 * Return: NULL, or what was expected; @policy is then unchanged.
 */
const char *bind_policy_add_allow(struct bind_policy *policy, const char *text);

/**
 * bind_policy_add_publish() - read one --publish
 * @text: "ENCLAVE:HOST", two ports
 *
 * Return: NULL, or what was expected.
 */
const char *bind_policy_add_publish(
	struct bind_policy *policy, const char *text);

/** bind_policy_host_port() - where on the host the enclave's @port is */
uint16_t bind_policy_host_port(const struct bind_policy *policy, uint16_t port);

/** bind_policy_allows() - may the host's @port be used? */
bool bind_policy_allows(const struct bind_policy *policy, uint16_t port);

/**
 * bind_policy_next_allowed() - go through the allowed ports
 * @after: any port, or 0
 *
 * Return: the lowest allowed port above @after, or if there is none the lowest
 * of all, or 0 if no port is allowed.
 */
uint16_t bind_policy_next_allowed(
	const struct bind_policy *policy, uint16_t after);

/** bind_policy_is_published() - is @port on either side of a map? */
bool bind_policy_is_published(const struct bind_policy *policy, uint16_t port);

/**
 * bind_policy_addresses() - the addresses that a scope stands for
 * @scope: of an export
 * @out:   filled, port 0
 *
 * Return: how many; 0 if there is none.
 */
size_t bind_policy_addresses(const struct bind_policy *policy,
	const struct bind_scope *scope, struct ip_port out[BIND_ADDRESSES_MAX]);

#endif
