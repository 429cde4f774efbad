/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/rules.h"

#include "common/endpoint.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define EXPECTED                                                        \
 "expected CIDR, CIDR:PORT or CIDR:PORT-PORT, with IPv6 before a port " \
 "written as [ADDRESS]/LENGTH:PORT"

void rules_init(struct rules *rules)
{
	memset(rules, 0, sizeof(*rules));
}

void rules_free(struct rules *rules)
{
	free(rules->rule);
	rules_init(rules);
}

int rules_copy(struct rules *out, const struct rules *rules)
{
	rules_init(out);
	if (rules->nr > 0) {
		out->rule = malloc(rules->nr * sizeof(*out->rule));
		if (!out->rule)
			return -1;
		memcpy(out->rule, rules->rule, rules->nr * sizeof(*out->rule));
	}
	out->nr = rules->nr;
	out->any_allow = rules->any_allow;
	return 0;
}

/* "443" or "1-1023"; ports start at 1. Return: 0 or -1. */
static int parse_ports(struct rule *rule, const char *text)
{
	const char *dash = strchr(text, '-');
	size_t len = dash ? (size_t)(dash - text) : strlen(text);
	uint64_t first, last;

	if (parse_uint(text, len, UINT16_MAX, &first) == -1)
		return -1;
	last = first;
	if (dash && parse_uint(dash + 1, strlen(dash + 1), UINT16_MAX, &last))
		return -1;
	if (first == 0 || last < first)
		return -1;
	rule->first_port = (uint16_t)first;
	rule->last_port = (uint16_t)last;
	return 0;
}

/*
 * Take the brackets of "[v6]/n" out, so that what is left is a CIDR.
 * Return: its length in @cidr, or 0 if it is not of that form.
 */
static size_t unbracket(char *cidr, size_t size, const char *text, size_t len)
{
	const char *close = memchr(text, ']', len);
	size_t ip, rest;

	if (!close || len >= size)
		return 0;
	ip = (size_t)(close - text) - 1;
	rest = len - ip - 2;
	if ((rest > 0 && close[1] != '/') || !memchr(text + 1, ':', ip))
		return 0;
	memcpy(cidr, text + 1, ip);
	memcpy(cidr + ip, close + 1, rest);
	return ip + rest;
}

static int parse_rule(struct rule *rule, const char *text)
{
	char cidr[INET6_ADDRSTRLEN + 8];
	const char *colon = strchr(text, ':');
	size_t len;

	if (text[0] == '[') {
		colon = strchr(text, ']');
		colon = colon ? strchr(colon, ':') : NULL;
	} else if (colon && strchr(colon + 1, ':')) {
		colon = NULL; /* IPv6 without a port */
	}
	len = colon ? (size_t)(colon - text) : strlen(text);
	rule->first_port = 0;
	rule->last_port = UINT16_MAX;
	if (colon && parse_ports(rule, colon + 1) == -1)
		return -1;
	if (text[0] == '[') {
		len = unbracket(cidr, sizeof(cidr), text, len);
		text = cidr;
	}
	return len == 0 ? -1 : ip_prefix_parse(&rule->prefix, text, len);
}

/* Destinations are compared as IPv4 where they are; so are rules. */
static void unmap_prefix(struct ip_prefix *prefix)
{
	ip_port_unmap(&prefix->addr);
	if (prefix->addr.family == AF_INET)
		prefix->bits = (uint8_t)(prefix->bits - 96);
}

const char *rules_add(
	struct rules *rules, const char *text, enum rules_verdict verdict)
{
	struct rule rule = {.verdict = verdict};
	struct rule *more;

	assert(verdict == RULES_ALLOW || verdict == RULES_DENY);
	if (parse_rule(&rule, text) == -1)
		return EXPECTED;
	if (rule.prefix.addr.family == AF_INET6 && rule.prefix.bits >= 96)
		unmap_prefix(&rule.prefix);
	more = realloc(rules->rule, (rules->nr + 1) * sizeof(*more));
	if (!more)
		return "out of memory";
	more[rules->nr++] = rule;
	rules->rule = more;
	rules->any_allow |= verdict == RULES_ALLOW;
	return NULL;
}

enum rules_verdict rules_match(
	const struct rules *rules, const struct ip_port *dst)
{
	for (size_t i = 0; i < rules->nr; i++) {
		const struct rule *rule = &rules->rule[i];

		if (dst->port >= rule->first_port &&
			dst->port <= rule->last_port &&
			ip_prefix_match(&rule->prefix, dst))
			return rule->verdict;
	}
	return RULES_NO_MATCH;
}

static bool allow_one(const struct rules *rules, const struct ip_port *dst)
{
	enum rules_verdict verdict = rules_match(rules, dst);

	if (verdict == RULES_NO_MATCH)
		return !rules->any_allow;
	return verdict == RULES_ALLOW;
}

bool rules_allow(const struct rules *rules, const struct ip_port *dst)
{
	struct ip_port as_written = *dst, canonical = *dst;

	ip_port_unmap(&as_written);
	rules_canonical(&canonical);
	return allow_one(rules, &canonical) && allow_one(rules, &as_written);
}

void rules_canonical(struct ip_port *dst)
{
	static const uint8_t loopback4[4] = {127, 0, 0, 1};

	ip_port_unmap(dst);
	if (!ip_port_is_any(dst))
		return;
	if (dst->family == AF_INET)
		memcpy(dst->ip, loopback4, sizeof(loopback4));
	else
		dst->ip[15] = 1;
}
