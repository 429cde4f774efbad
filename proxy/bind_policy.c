/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/bind_policy.h"

#include "common/endpoint.h"

#include <arpa/inet.h>
#include <string.h>

static const struct ip_port any[] = {
	{.family = AF_INET},
	{.family = AF_INET6},
};

static const struct ip_port loopback[] = {
	{.family = AF_INET, .ip = {127, 0, 0, 1}},
	{.family = AF_INET6, .ip = {[15] = 1}},
};

void bind_policy_init(struct bind_policy *policy)
{
	memset(policy, 0, sizeof(*policy));
	policy->queue = BIND_QUEUE_DEFAULT;
}

bool bind_policy_equal(const struct bind_policy *a, const struct bind_policy *b)
{
	if (a->nr_addresses != b->nr_addresses || a->limited != b->limited ||
		a->nr_publish != b->nr_publish || a->queue != b->queue)
		return false;
	for (size_t i = 0; i < a->nr_addresses; i++)
		if (!ip_port_equal(&a->address[i], &b->address[i]))
			return false;
	for (size_t i = 0; i < a->nr_publish; i++)
		if (a->publish[i].enclave != b->publish[i].enclave ||
			a->publish[i].host != b->publish[i].host)
			return false;
	return memcmp(a->allow, b->allow, sizeof(a->allow)) == 0;
}

/* ---- reading ---- */

const char *bind_policy_add_address(
	struct bind_policy *policy, const char *text)
{
	struct ip_port addr;

	memset(&addr, 0, sizeof(addr));
	if (inet_pton(AF_INET, text, addr.ip) == 1)
		addr.family = AF_INET;
	else if (inet_pton(AF_INET6, text, addr.ip) == 1)
		addr.family = AF_INET6;
	else
		return "expected an IPv4 or IPv6 address";
	ip_port_unmap(&addr);
	for (size_t i = 0; i < policy->nr_addresses; i++)
		if (ip_port_equal(&policy->address[i], &addr))
			return "this address was given before";
	if (policy->nr_addresses == BIND_ADDRESSES_MAX)
		return "expected at most 8 addresses";
	policy->address[policy->nr_addresses++] = addr;
	return NULL;
}

/* A port number, 1 to 65535. Return: 0 or -1. */
static int parse_port(const char *text, size_t len, uint16_t *out)
{
	uint64_t port;

	if (parse_uint(text, len, UINT16_MAX, &port) == -1 || port == 0)
		return -1;
	*out = (uint16_t)port;
	return 0;
}

/* "80" or "8000-8999". Return: 0 or -1. */
static int parse_range(
	const char *text, size_t len, uint16_t *first, uint16_t *last)
{
	const char *dash = memchr(text, '-', len);

	if (!dash) {
		if (parse_port(text, len, first) == -1)
			return -1;
		*last = *first;
		return 0;
	}
	if (parse_port(text, (size_t)(dash - text), first) == -1 ||
		parse_port(dash + 1, (size_t)(text + len - dash - 1), last) ==
			-1)
		return -1;
	return *first <= *last ? 0 : -1;
}

/* Set the bits of all ports in @text. Return: 0 or -1. */
static int parse_ports(const char *text, uint8_t *bits)
{
	for (;;) {
		size_t len = strcspn(text, ",");
		uint16_t first, last;

		if (parse_range(text, len, &first, &last) == -1)
			return -1;
		for (unsigned int p = first; p <= last; p++)
			bits[p / 8] |= (uint8_t)(1u << p % 8);
		if (text[len] == '\0')
			return 0;
		text += len + 1;
	}
}

static bool all_set(const uint8_t bits[65536 / 8])
{
	bool all = (bits[0] | 1) == 0xff;

	for (size_t i = 1; i < 65536 / 8; i++)
		all = all && bits[i] == 0xff;
	return all;
}

const char *bind_policy_add_allow(struct bind_policy *policy, const char *text)
{
	uint8_t bits[sizeof(policy->allow)];

	memcpy(bits, policy->allow, sizeof(bits));
	if (strcmp(text, "all") == 0)
		memset(bits, 0xff, sizeof(bits));
	else if (strcmp(text, "none") != 0 && parse_ports(text, bits) == -1)
		return "expected all, none, or ports: 80,443,8000-8999";
	bits[0] &= 0xfe; /* 0 is no port */
	memcpy(policy->allow, bits, sizeof(bits));
	policy->limited = !all_set(bits);
	return NULL;
}

const char *bind_policy_add_publish(
	struct bind_policy *policy, const char *text)
{
	const char *colon = strchr(text, ':');
	struct bind_publish map;

	if (!colon ||
		parse_port(text, (size_t)(colon - text), &map.enclave) == -1 ||
		parse_port(colon + 1, strlen(colon + 1), &map.host) == -1)
		return "expected ENCLAVE:HOST, two port numbers";
	for (size_t i = 0; i < policy->nr_publish; i++)
		if (policy->publish[i].enclave == map.enclave ||
			policy->publish[i].host == map.host)
			return "one of the ports was published before";
	if (policy->nr_publish == BIND_PUBLISH_MAX)
		return "expected at most 256 published ports";
	policy->publish[policy->nr_publish++] = map;
	return NULL;
}

/* ---- asking ---- */

uint16_t bind_policy_host_port(const struct bind_policy *policy, uint16_t port)
{
	for (size_t i = 0; i < policy->nr_publish; i++)
		if (policy->publish[i].enclave == port)
			return policy->publish[i].host;
	return port;
}

bool bind_policy_allows(const struct bind_policy *policy, uint16_t port)
{
	return !policy->limited || (policy->allow[port / 8] >> port % 8 & 1);
}

uint16_t bind_policy_next_allowed(
	const struct bind_policy *policy, uint16_t after)
{
	uint16_t port = after;

	do {
		port++;
		if (port != 0 && bind_policy_allows(policy, port))
			return port;
	} while (port != after);
	return 0;
}

bool bind_policy_is_published(const struct bind_policy *policy, uint16_t port)
{
	for (size_t i = 0; i < policy->nr_publish; i++)
		if (policy->publish[i].enclave == port ||
			policy->publish[i].host == port)
			return true;
	return false;
}

static bool wants(const struct bind_scope *scope, const struct ip_port *addr)
{
	return addr->family == AF_INET ? scope->v4 : scope->v6;
}

/* Is @addr one of the addresses that the operator gave? */
static bool covered(
	const struct bind_policy *policy, const struct ip_port *addr)
{
	for (size_t i = 0; i < policy->nr_addresses; i++) {
		const struct ip_port *given = &policy->address[i];

		if (given->family == addr->family &&
			(ip_port_is_any(given) || ip_port_equal(given, addr)))
			return true;
	}
	return policy->nr_addresses == 0;
}

size_t bind_policy_addresses(const struct bind_policy *policy,
	const struct bind_scope *scope, struct ip_port out[BIND_ADDRESSES_MAX])
{
	const struct ip_port *from = policy->address;
	size_t nr_from = policy->nr_addresses;
	size_t nr = 0;

	if (scope->loopback) {
		from = loopback;
		nr_from = 2;
	} else if (nr_from == 0) {
		from = any;
		nr_from = 2;
	}
	for (size_t i = 0; i < nr_from; i++)
		if (wants(scope, &from[i]) && covered(policy, &from[i]))
			out[nr++] = from[i];
	return nr;
}
