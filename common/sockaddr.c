/* SPDX-License-Identifier: Apache-2.0 */
#include "common/sockaddr.h"
#include "common/endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

/* An AF_INET6 address without its scope id, RFC 2133's form, which the kernel
 * takes as well. */
#define SIN6_LEN_RFC2133 24

static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int ip_port_from_sockaddr(
	struct ip_port *out, const struct sockaddr *sa, socklen_t len)
{
	union sockaddr_any any;

	memset(out, 0, sizeof(*out));
	if (!sa || len < (socklen_t)sizeof(sa->sa_family))
		return -1;
	memset(&any, 0, sizeof(any));
	memcpy(&any, sa, len < sizeof(any) ? len : sizeof(any));
	if (any.sa.sa_family == AF_INET && len >= sizeof(any.in)) {
		out->family = AF_INET;
		out->port = ntohs(any.in.sin_port);
		memcpy(out->ip, &any.in.sin_addr, 4);
		return 0;
	}
	if (any.sa.sa_family == AF_INET6 && len >= SIN6_LEN_RFC2133) {
		out->family = AF_INET6;
		out->port = ntohs(any.in6.sin6_port);
		if (len >= sizeof(any.in6))
			out->scope = any.in6.sin6_scope_id;
		memcpy(out->ip, &any.in6.sin6_addr, 16);
		return 0;
	}
	return -1;
}

socklen_t ip_port_to_sockaddr(
	const struct ip_port *addr, union sockaddr_any *out)
{
	memset(out, 0, sizeof(*out));
	if (addr->family == AF_INET6) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = htons(addr->port);
		out->in6.sin6_scope_id = addr->scope;
		memcpy(&out->in6.sin6_addr, addr->ip, 16);
		return sizeof(out->in6);
	}
	out->in.sin_family = AF_INET;
	if (addr->family == AF_INET) {
		out->in.sin_port = htons(addr->port);
		memcpy(&out->in.sin_addr, addr->ip, 4);
	}
	return sizeof(out->in);
}

static bool is_mapped(const struct ip_port *addr)
{
	return addr->family == AF_INET6 &&
	       memcmp(addr->ip, v4_mapped, sizeof(v4_mapped)) == 0;
}

void ip_port_unmap(struct ip_port *addr)
{
	if (!is_mapped(addr))
		return;
	addr->family = AF_INET;
	addr->scope = 0;
	memmove(addr->ip, addr->ip + 12, 4);
	memset(addr->ip + 4, 0, 12);
}

void ip_port_map(struct ip_port *addr)
{
	if (addr->family != AF_INET)
		return;
	addr->family = AF_INET6;
	memmove(addr->ip + 12, addr->ip, 4);
	memcpy(addr->ip, v4_mapped, sizeof(v4_mapped));
}

bool ip_port_is_loopback(const struct ip_port *addr)
{
	static const uint8_t one[16] = {[15] = 1};
	struct ip_port a = *addr;

	ip_port_unmap(&a);
	if (a.family == AF_INET)
		return a.ip[0] == 127;
	return a.family == AF_INET6 && memcmp(a.ip, one, 16) == 0;
}

bool ip_port_is_any(const struct ip_port *addr)
{
	static const uint8_t zero[16];
	struct ip_port a = *addr;

	ip_port_unmap(&a);
	return a.family != AF_UNSPEC && memcmp(a.ip, zero, 16) == 0;
}

bool ip_port_equal(const struct ip_port *a, const struct ip_port *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

const char *ip_port_format(const struct ip_port *addr, char *buf, size_t size)
{
	char ip[INET6_ADDRSTRLEN];

	if (addr->family == AF_INET) {
		inet_ntop(AF_INET, addr->ip, ip, sizeof(ip));
		snprintf(buf, size, "%s:%u", ip, addr->port);
	} else if (addr->family == AF_INET6) {
		inet_ntop(AF_INET6, addr->ip, ip, sizeof(ip));
		if (addr->scope)
			snprintf(buf, size, "[%s%%%u]:%u", ip, addr->scope,
				addr->port);
		else
			snprintf(buf, size, "[%s]:%u", ip, addr->port);
	} else {
		snprintf(buf, size, "-");
	}
	return buf;
}

int ip_prefix_parse(struct ip_prefix *out, const char *text, size_t len)
{
	const char *slash = memchr(text, '/', len);
	size_t ip_len = slash ? (size_t)(slash - text) : len;
	char ip[INET6_ADDRSTRLEN];
	uint64_t bits = 0;

	memset(out, 0, sizeof(*out));
	if (ip_len == 0 || ip_len >= sizeof(ip) || memchr(text, '\0', ip_len))
		return -1;
	memcpy(ip, text, ip_len);
	ip[ip_len] = '\0';
	if (inet_pton(AF_INET, ip, out->addr.ip) == 1)
		out->addr.family = AF_INET;
	else if (inet_pton(AF_INET6, ip, out->addr.ip) == 1)
		out->addr.family = AF_INET6;
	else
		return -1;
	bits = out->addr.family == AF_INET ? 32 : 128;
	if (slash && parse_uint(slash + 1, len - ip_len - 1, bits, &bits) == -1)
		return -1;
	out->bits = (uint8_t)bits;
	return 0;
}

bool ip_prefix_match(const struct ip_prefix *prefix, const struct ip_port *addr)
{
	struct ip_port a = *addr, net = prefix->addr;
	unsigned int bits = prefix->bits;
	size_t whole;
	uint8_t mask;

	/* Both as IPv4 where they are, so that neither way to write a rule or
	 * a destination slips past the other. */
	ip_port_unmap(&a);
	if (is_mapped(&net) && bits >= 96) {
		ip_port_unmap(&net);
		bits -= 96;
	}
	whole = bits / 8;
	if (a.family != net.family || memcmp(a.ip, net.ip, whole) != 0)
		return false;
	if (bits % 8 == 0)
		return true;
	mask = (uint8_t)(0xff << (8 - bits % 8));
	return ((a.ip[whole] ^ net.ip[whole]) & mask) == 0;
}
