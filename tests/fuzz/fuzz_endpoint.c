/* SPDX-License-Identifier: Apache-2.0 */
#include "common/endpoint.h"

#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * The first byte of the input chooses the parser, the rest is its text, copied
 * to an allocation of its exact size so that one byte read too many is seen.
 * Beyond "does not crash" each parser is held to its contract:
 *
 *	endpoint   refused: nothing is left in the output. Taken: formatting it
 *	           and reading that back gives the same endpoint, the text fits
 *	           ENDPOINT_STRLEN, and the kernel's form has its family's
 * length prefix     refused or taken; then it holds its own network address and
 *	           the prefix length is one that its family has
 *	sockaddr   a raw sockaddr that is taken comes back as the same address
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* assert() goes away under NDEBUG; a broken property here never does. */
static void must(bool holds)
{
	if (!holds)
		abort();
}

static void check_sockaddr_of(const struct endpoint *ep)
{
	union endpoint_sockaddr sa;
	socklen_t len = endpoint_sockaddr(ep, &sa);
	bool named = ep->kind == ENDPOINT_TCP && ep->addr.family == AF_UNSPEC;

	must((len == 0) == named);
	must(len <= sizeof(sa));
}

static bool same(const struct endpoint *a, const struct endpoint *b)
{
	return a->kind == b->kind && a->cid == b->cid && a->port == b->port &&
	       ip_port_equal(&a->addr, &b->addr) &&
	       memcmp(a->text, b->text, sizeof(a->text)) == 0;
}

static void fuzz_endpoint(const char *text)
{
	static const struct endpoint none;
	struct endpoint ep, again;
	char buf[ENDPOINT_STRLEN];
	const char *why;

	memset(&ep, 0xa5, sizeof(ep));
	why = endpoint_parse(&ep, text);
	if (why) {
		must(same(&ep, &none));
		return;
	}
	must(ep.kind != ENDPOINT_NONE);
	must(endpoint_format(&ep, buf, sizeof(buf)) == buf);
	must(strlen(buf) + 1 < sizeof(buf));
	must(endpoint_parse(&again, buf) == NULL);
	must(same(&ep, &again));
	check_sockaddr_of(&ep);
}

static void fuzz_prefix(const char *text, size_t len)
{
	struct ip_prefix prefix;
	struct ip_port inside;

	if (ip_prefix_parse(&prefix, text, len) == -1)
		return;
	must(!memchr(text, '\0', len));
	must(prefix.addr.family == AF_INET || prefix.addr.family == AF_INET6);
	must(prefix.bits <= (prefix.addr.family == AF_INET ? 32 : 128));
	inside = prefix.addr;
	inside.port = 80;
	/* an address that is IPv4 after all is not in a wider IPv6 block */
	ip_port_unmap(&inside);
	must(ip_prefix_match(&prefix, &inside) ==
		(inside.family == prefix.addr.family || prefix.bits >= 96));
	if (prefix.addr.family == AF_INET) {
		ip_port_map(&inside);
		must(ip_prefix_match(&prefix, &inside));
	}
}

static void fuzz_sockaddr(const void *data, size_t size)
{
	struct ip_port addr, again;
	union sockaddr_any any;
	char buf[IP_PORT_STRLEN];
	socklen_t len;

	if (ip_port_from_sockaddr(&addr, data, (socklen_t)size) == -1) {
		must(addr.family == AF_UNSPEC);
		return;
	}
	len = ip_port_to_sockaddr(&addr, &any);
	must(ip_port_from_sockaddr(&again, &any.sa, len) == 0);
	must(ip_port_equal(&addr, &again));
	ip_port_format(&addr, buf, sizeof(buf));
	must(strlen(buf) + 1 < sizeof(buf));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size == 0)
		return 0;
	/* One byte more than the text: endpoint_parse() takes a string. */
	text = malloc(data[0] % 3 == 0 ? size : size - 1);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	switch (data[0] % 3) {
	case 0:
		text[size - 1] = '\0';
		fuzz_endpoint(text);
		break;
	case 1: fuzz_prefix(text, size - 1); break;
	default: fuzz_sockaddr(text, size - 1); break;
	}
	free(text);
	return 0;
}
