/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/servers.h"
#include "common/endpoint.h"
#include "resolv/dns_msg.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char expected_server[] =
	"expected ADDRESS, ADDRESS:PORT, [IPv6]:PORT, NAME or NAME:PORT, "
	"separated by commas";
static const char expected_listen[] =
	"expected numeric addresses with or without a port, separated by "
	"commas";
static const char expected_fewer[] = "too many addresses";

/* Return: 0, or -1 if @text is not a whole numeric address. */
static int parse_address(struct ip_port *out, const char *text, size_t len)
{
	struct ip_prefix prefix;

	if (memchr(text, '/', len) || ip_prefix_parse(&prefix, text, len) == -1)
		return -1;
	*out = prefix.addr;
	return 0;
}

/*
 * Letters, digits, hyphen, underscore and dots between labels that exist. The
 * last label has something else than digits: "10.0.0" is a mistyped address.
 */
static bool is_name(const char *text, size_t len)
{
	bool digits = true;
	size_t i;

	if (len == 0 || len > ENDPOINT_NAME_MAX || text[0] == '.')
		return false;
	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '.' && i > 0 && text[i - 1] == '.')
			return false;
		if (!isalnum(c) && c != '-' && c != '_' && c != '.')
			return false;
		if (c == '.' && i + 1 < len)
			digits = true;
		else if (!isdigit(c) && c != '.')
			digits = false;
	}
	return !digits;
}

/*
 * split_port() - take ":PORT" off the end
 * @len: of @text; on return that of the host alone
 *
 * A bare IPv6 address has several colons and no port.
 */
static int split_port(const char **text, size_t *len, uint16_t *port)
{
	const char *host = *text;
	const char *colon;
	uint64_t value;
	size_t hlen;

	*port = DNS_PORT;
	if (*len > 0 && host[0] == '[') {
		const char *close = memchr(host, ']', *len);

		if (!close)
			return -1;
		hlen = (size_t)(close - host) + 1;
		*text = host + 1;
		colon = hlen < *len ? close + 1 : NULL;
		if (colon && *colon != ':')
			return -1;
	} else {
		colon = memchr(host, ':', *len);
		if (!colon || memchr(colon + 1, ':',
				      *len - (size_t)(colon + 1 - host)))
			return 0;
		hlen = (size_t)(colon - host);
	}
	if (colon) {
		if (parse_uint(colon + 1, *len - hlen - 1, UINT16_MAX,
			    &value) == -1 ||
			value == 0)
			return -1;
		*port = (uint16_t)value;
	}
	*len = host[0] == '[' ? hlen - 2 : hlen;
	return 0;
}

static int parse_one(struct socks5_addr *out, const char *text, size_t len)
{
	bool bracket = len > 0 && text[0] == '[';
	uint16_t port;

	memset(out, 0, sizeof(*out));
	if (split_port(&text, &len, &port) == -1)
		return -1;
	if (parse_address(&out->addr, text, len) == 0) {
		if (bracket && out->addr.family != AF_INET6)
			return -1;
	} else {
		if (bracket || !is_name(text, len))
			return -1;
		memcpy(out->name, text, len);
		out->name_len = (uint8_t)len;
	}
	out->addr.port = port;
	return 0;
}

const char *dns_servers_parse(
	struct socks5_addr *out, unsigned max, unsigned *nr, const char *text)
{
	*nr = 0;
	for (;;) {
		size_t len = strcspn(text, ",");

		if (*nr == max)
			return expected_fewer;
		if (parse_one(&out[*nr], text, len) == -1)
			return expected_server;
		(*nr)++;
		if (text[len] == '\0')
			return NULL;
		text += len + 1;
	}
}

const char *dns_listen_parse(
	struct ip_port *out, unsigned max, unsigned *nr, const char *text)
{
	*nr = 0;
	for (;;) {
		size_t len = strcspn(text, ",");
		struct socks5_addr one;

		if (*nr == max)
			return expected_fewer;
		if (parse_one(&one, text, len) == -1 || one.name_len > 0)
			return expected_listen;
		out[(*nr)++] = one.addr;
		if (text[len] == '\0')
			return NULL;
		text += len + 1;
	}
}

const char *dns_server_format(
	const struct socks5_addr *server, char *buf, size_t size)
{
	if (server->addr.family == AF_UNSPEC)
		snprintf(buf, size, "%s:%u", server->name,
			(unsigned)server->addr.port);
	else
		ip_port_format(&server->addr, buf, size);
	return buf;
}

void dns_server_host_resolver(struct socks5_addr *out)
{
	static const char name[] = DNS_HOST_RESOLVER;

	memset(out, 0, sizeof(*out));
	memcpy(out->name, name, sizeof(name));
	out->name_len = sizeof(name) - 1;
	out->addr.port = DNS_PORT;
}

static bool is_host_resolver(const struct socks5_addr *server)
{
	return server->addr.family == AF_UNSPEC &&
	       server->addr.port == DNS_PORT &&
	       strcasecmp(server->name, DNS_HOST_RESOLVER) == 0;
}

unsigned dns_servers_spread(
	struct socks5_addr *servers, unsigned max, unsigned nr)
{
	unsigned i = 0;
	unsigned turn;

	while (i < nr && !is_host_resolver(&servers[i]))
		i++;
	if (i == nr)
		return nr;
	for (turn = 2; turn <= DNS_HOST_RESOLVERS && nr < max; turn++, nr++) {
		struct socks5_addr *next = &servers[++i];

		memmove(next + 1, next, (nr - i) * sizeof(*next));
		dns_server_host_resolver(next);
		next->name_len = (uint8_t)snprintf(next->name,
			sizeof(next->name), "%u." DNS_HOST_RESOLVER, turn);
	}
	return nr;
}

/* FNV-1a, 64 bits, of the servers as text. */
void dns_servers_key(uint8_t key[DNS_SERVERS_KEY],
	const struct socks5_addr *servers, unsigned nr)
{
	uint64_t hash = 0xcbf29ce484222325u;
	char text[DNS_SERVER_STRLEN];
	unsigned i;
	size_t at;

	for (i = 0; i < nr; i++) {
		dns_server_format(&servers[i], text, sizeof(text));
		/* with the NUL, which keeps them apart */
		for (at = 0; at <= strlen(text); at++)
			hash = (hash ^ (uint8_t)text[at]) * 0x100000001b3u;
	}
	memset(key, 0, DNS_SERVERS_KEY);
	memcpy(key, &hash, sizeof(hash));
	key[sizeof(hash)] = (uint8_t)(nr + 1);
}
