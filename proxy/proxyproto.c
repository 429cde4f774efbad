/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyproto.h"

#include "common/endpoint.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>

#define V1_MAX      107 /* with "\r\n" */
#define V1_UNKNOWN  "UNKNOWN"
#define V2_SIG_LEN  12
#define V2_HEAD_LEN 16

/* Section 2.2: version in the high, command in the low half of a byte; then
 * family in the high, transport in the low half of the next. */
#define V2_LOCAL  0x20
#define V2_PROXY  0x21
#define V2_UNSPEC 0x00
#define V2_TCP4   0x11
#define V2_TCP6   0x21
#define V2_UNIX   0x31

#define V2_TCP4_LEN 12
#define V2_TCP6_LEN 36
#define V2_UNIX_LEN 216

static const uint8_t v2_sig[V2_SIG_LEN] = {
	'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};
static const uint8_t v1_sig[] = {'P', 'R', 'O', 'X', 'Y', ' '};

/* ---- writing ---- */

/* Both of one family, or both AF_UNSPEC. */
static struct proxyproto_addrs normal(const struct proxyproto_addrs *addrs)
{
	struct proxyproto_addrs out = *addrs;

	ip_port_unmap(&out.src);
	ip_port_unmap(&out.dst);
	if (out.src.family == AF_UNSPEC || out.dst.family == AF_UNSPEC)
		memset(&out, 0, sizeof(out));
	if (out.src.family != out.dst.family) {
		ip_port_map(&out.src);
		ip_port_map(&out.dst);
	}
	return out;
}

static size_t write_v1(uint8_t *buf, const struct proxyproto_addrs *a)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
	/* One more for snprintf()'s NUL, which is not part of it. */
	char line[PROXYPROTO_WRITE_MAX + 1];
	int len;

	if (a->src.family == AF_UNSPEC) {
		len = snprintf(line, sizeof(line), "PROXY " V1_UNKNOWN "\r\n");
	} else {
		inet_ntop(a->src.family, a->src.ip, src, sizeof(src));
		inet_ntop(a->dst.family, a->dst.ip, dst, sizeof(dst));
		len = snprintf(line, sizeof(line), "PROXY %s %s %s %u %u\r\n",
			a->src.family == AF_INET ? "TCP4" : "TCP6", src, dst,
			a->src.port, a->dst.port);
	}
	assert(len > 0 && len <= V1_MAX);
	memcpy(buf, line, (size_t)len);
	return (size_t)len;
}

static uint8_t *put16(uint8_t *p, unsigned int value)
{
	*p++ = (uint8_t)(value >> 8);
	*p++ = (uint8_t)(value & 0xff);
	return p;
}

static size_t write_v2(uint8_t *buf, const struct proxyproto_addrs *a)
{
	size_t ip_len = a->src.family == AF_INET    ? 4
			: a->src.family == AF_INET6 ? 16
						    : 0;
	uint8_t *p = buf;

	memcpy(p, v2_sig, V2_SIG_LEN);
	p += V2_SIG_LEN;
	*p++ = V2_PROXY;
	*p++ = ip_len == 4 ? V2_TCP4 : ip_len == 16 ? V2_TCP6 : V2_UNSPEC;
	if (ip_len == 0)
		return (size_t)(put16(p, 0) - buf);
	p = put16(p, (unsigned int)(2 * ip_len + 4));
	memcpy(p, a->src.ip, ip_len);
	memcpy(p + ip_len, a->dst.ip, ip_len);
	p = put16(p + 2 * ip_len, a->src.port);
	p = put16(p, a->dst.port);
	return (size_t)(p - buf);
}

size_t proxyproto_write(uint8_t *buf, enum proxyproto version,
	const struct proxyproto_addrs *addrs)
{
	struct proxyproto_addrs a = normal(addrs);

	assert(version == PROXYPROTO_V1 || version == PROXYPROTO_V2);
	return version == PROXYPROTO_V1 ? write_v1(buf, &a) : write_v2(buf, &a);
}

/* ---- version 1 ---- */

/*
 * Take the next word of @line, which ends with a space or at @line_end.
 * Return: its length, 0 if there is none. @line is set behind the space.
 */
static size_t next_word(const char **line, const char *end, const char **word)
{
	const char *space = memchr(*line, ' ', (size_t)(end - *line));
	const char *stop = space ? space : end;

	*word = *line;
	*line = space ? space + 1 : end;
	return (size_t)(stop - *word);
}

static bool parse_ip(
	const char *word, size_t len, sa_family_t family, struct ip_port *out)
{
	char text[INET6_ADDRSTRLEN];

	if (len == 0 || len >= sizeof(text))
		return false;
	memcpy(text, word, len);
	text[len] = '\0';
	/* A NUL in the word would cut it short. */
	if (strlen(text) != len || inet_pton(family, text, out->ip) != 1)
		return false;
	out->family = family;
	return true;
}

/* Without sign, blanks or leading zeros. */
static bool parse_port(const char *word, size_t len, struct ip_port *out)
{
	uint64_t port;

	if (parse_uint(word, len, UINT16_MAX, &port) == -1 ||
		(len > 1 && word[0] == '0'))
		return false;
	out->port = (uint16_t)port;
	return true;
}

/* What stands between "PROXY " and "\r\n". Return: is it well-formed? */
static bool parse_v1_line(
	const char *line, size_t len, struct proxyproto_addrs *out)
{
	const char *end = line + len;
	sa_family_t family;
	const char *word;
	size_t n = next_word(&line, end, &word);

	if (n == strlen(V1_UNKNOWN) && memcmp(word, V1_UNKNOWN, n) == 0)
		return true; /* and whatever follows is to be ignored */
	if (n != 4 || memcmp(word, "TCP", 3) != 0 ||
		(word[3] != '4' && word[3] != '6'))
		return false;
	family = word[3] == '4' ? AF_INET : AF_INET6;
	n = next_word(&line, end, &word);
	if (!parse_ip(word, n, family, &out->src))
		return false;
	n = next_word(&line, end, &word);
	if (!parse_ip(word, n, family, &out->dst))
		return false;
	n = next_word(&line, end, &word);
	if (!parse_port(word, n, &out->src))
		return false;
	n = next_word(&line, end, &word);
	return word + n == end && parse_port(word, n, &out->dst);
}

static ssize_t parse_v1(
	const uint8_t *buf, size_t len, struct proxyproto_addrs *out)
{
	size_t seen = len < V1_MAX ? len : V1_MAX;
	const uint8_t *eol = memchr(buf, '\n', seen);
	size_t line_len;

	if (!eol)
		return len < V1_MAX ? 0 : -1;
	line_len = (size_t)(eol - buf);
	if (line_len < sizeof(v1_sig) + 1 || eol[-1] != '\r')
		return -1;
	if (!parse_v1_line((const char *)buf + sizeof(v1_sig),
		    line_len - sizeof(v1_sig) - 1, out))
		return -1;
	return (ssize_t)line_len + 1;
}

/* ---- version 2 ---- */

static unsigned int get16(const uint8_t *p)
{
	return (unsigned int)(p[0] << 8 | p[1]);
}

static void get_addrs(
	const uint8_t *p, sa_family_t family, struct proxyproto_addrs *out)
{
	size_t ip_len = family == AF_INET ? 4 : 16;

	out->src.family = out->dst.family = family;
	memcpy(out->src.ip, p, ip_len);
	memcpy(out->dst.ip, p + ip_len, ip_len);
	out->src.port = (uint16_t)get16(p + 2 * ip_len);
	out->dst.port = (uint16_t)get16(p + 2 * ip_len + 2);
}

/* The bytes that the address part of a family has, or -1. */
static int v2_addr_len(uint8_t family)
{
	switch (family) {
	case V2_UNSPEC: return 0;
	case V2_TCP4: return V2_TCP4_LEN;
	case V2_TCP6: return V2_TCP6_LEN;
	case V2_UNIX: return V2_UNIX_LEN;
	default: return -1;
	}
}

static ssize_t parse_v2(
	const uint8_t *buf, size_t len, struct proxyproto_addrs *out)
{
	const uint8_t *p = buf + V2_HEAD_LEN;
	uint8_t command, family;
	size_t rest;
	int need;

	if (len > V2_SIG_LEN && buf[V2_SIG_LEN] != V2_LOCAL &&
		buf[V2_SIG_LEN] != V2_PROXY)
		return -1;
	if (len < V2_HEAD_LEN)
		return 0;
	command = buf[V2_SIG_LEN];
	family = buf[V2_SIG_LEN + 1];
	rest = get16(buf + V2_SIG_LEN + 2);
	/* With LOCAL the family counts for nothing, only the length does. */
	need = command == V2_LOCAL ? 0 : v2_addr_len(family);
	if (need == -1 || rest < (size_t)need ||
		rest > PROXYPROTO_MAX - V2_HEAD_LEN)
		return -1;
	if (len < V2_HEAD_LEN + rest)
		return 0;
	if (command == V2_PROXY && family == V2_TCP4)
		get_addrs(p, AF_INET, out);
	else if (command == V2_PROXY && family == V2_TCP6)
		get_addrs(p, AF_INET6, out);
	return (ssize_t)(V2_HEAD_LEN + rest);
}

ssize_t proxyproto_parse(
	const uint8_t *buf, size_t len, struct proxyproto_addrs *addrs)
{
	struct proxyproto_addrs parsed = {0};
	ssize_t n;

	if (len == 0)
		return 0;
	if (buf[0] == v1_sig[0]) {
		if (memcmp(buf, v1_sig,
			    len < sizeof(v1_sig) ? len : sizeof(v1_sig)) != 0)
			return -1;
		n = parse_v1(buf, len, &parsed);
	} else {
		if (memcmp(buf, v2_sig, len < V2_SIG_LEN ? len : V2_SIG_LEN) !=
			0)
			return -1;
		n = parse_v2(buf, len, &parsed);
	}
	if (n > 0)
		*addrs = parsed;
	return n;
}
