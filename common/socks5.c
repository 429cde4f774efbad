/* SPDX-License-Identifier: Apache-2.0 */
#include "common/socks5.h"

#include <errno.h>
#include <string.h>

/* VER, CMD or REP, RSV, ATYP: what a request and a reply begin with. */
#define HEAD_LEN 4

ssize_t socks5_parse_greeting(const uint8_t *buf, size_t len, bool *no_auth)
{
	size_t nr;

	*no_auth = false;
	if (len >= 1 && buf[0] != SOCKS5_VERSION)
		return -1;
	if (len < 2)
		return 0;
	nr = buf[1];
	if (len < 2 + nr)
		return 0;
	*no_auth = nr > 0 && memchr(buf + 2, SOCKS5_METHOD_OK, nr);
	return (ssize_t)(2 + nr);
}

/* Length of the address field, its length byte included, without the port;
 * 0 when @len does not reach to know it, -1 for an unknown type. */
static ssize_t address_len(uint8_t atyp, const uint8_t *field, size_t len)
{
	switch (atyp) {
	case SOCKS5_IPV4: return 4;
	case SOCKS5_IPV6: return 16;
	case SOCKS5_NAME: return len >= 1 ? 1 + (ssize_t)field[0] : 0;
	default: return -1;
	}
}

/*
 * Take ATYP, address and port.
 * Return: bytes from @buf up to and with the port, 0 or -1 as the parsers.
 */
static ssize_t parse_address(
	const uint8_t *buf, size_t len, struct socks5_addr *out)
{
	const uint8_t *field;
	ssize_t n;

	if (len < HEAD_LEN)
		return 0;
	field = buf + HEAD_LEN;
	n = address_len(buf[3], field, len - HEAD_LEN);
	if (n == -1)
		return -1;
	if (n == 0 || len < HEAD_LEN + (size_t)n + 2)
		return 0;
	memset(out, 0, sizeof(*out));
	out->addr.port = (uint16_t)(field[n] << 8 | field[n + 1]);
	if (buf[3] == SOCKS5_NAME) {
		out->name_len = field[0];
		memcpy(out->name, field + 1, field[0]);
	} else {
		out->addr.family = buf[3] == SOCKS5_IPV4 ? AF_INET : AF_INET6;
		memcpy(out->addr.ip, field, (size_t)n);
	}
	return HEAD_LEN + n + 2;
}

/* What ends up in look-ups and log lines holds nothing unprintable; nor a NUL,
 * behind which it would hide. */
static bool name_is_sane(const struct socks5_addr *addr)
{
	for (size_t i = 0; i < addr->name_len; i++) {
		uint8_t c = (uint8_t)addr->name[i];

		if (c <= ' ' || c >= 0x7f)
			return false;
	}
	return true;
}

ssize_t socks5_parse_request(const uint8_t *buf, size_t len,
	struct socks5_request *out, enum socks5_reply *reply)
{
	ssize_t n;

	*reply = SOCKS5_GENERAL_FAILURE;
	if ((len >= 1 && buf[0] != SOCKS5_VERSION) || (len >= 3 && buf[2] != 0))
		return -1;
	n = parse_address(buf, len, &out->dst);
	if (n == -1)
		*reply = SOCKS5_ATYP_NOT_SUPPORTED;
	if (n <= 0)
		return n;
	out->command = buf[1];
	if (out->dst.addr.family == AF_UNSPEC && out->dst.name_len == 0)
		return -1;
	return name_is_sane(&out->dst) ? n : -1;
}

size_t socks5_write_method(uint8_t *buf, uint8_t method)
{
	buf[0] = SOCKS5_VERSION;
	buf[1] = method;
	return SOCKS5_METHOD_LEN;
}

static size_t write_port(uint8_t *buf, uint16_t port)
{
	buf[0] = (uint8_t)(port >> 8);
	buf[1] = (uint8_t)port;
	return 2;
}

/* ATYP, address, port of an address; AF_UNSPEC as IPv4 zero. */
static size_t write_address(uint8_t *buf, const struct ip_port *addr)
{
	size_t n = addr->family == AF_INET6 ? 16 : 4;

	buf[0] = n == 16 ? SOCKS5_IPV6 : SOCKS5_IPV4;
	memset(buf + 1, 0, n);
	if (addr->family != AF_UNSPEC)
		memcpy(buf + 1, addr->ip, n);
	return 1 + n + write_port(buf + 1 + n, addr->port);
}

size_t socks5_write_reply(
	uint8_t *buf, enum socks5_reply reply, const struct ip_port *bound)
{
	buf[0] = SOCKS5_VERSION;
	buf[1] = (uint8_t)reply;
	buf[2] = 0;
	return 3 + write_address(buf + 3, bound);
}

size_t socks5_write_hello(uint8_t *buf, enum socks5_command command,
	const struct socks5_addr *dst)
{
	uint8_t *at = buf;

	*at++ = SOCKS5_VERSION;
	*at++ = 1;
	*at++ = SOCKS5_METHOD_OK;
	*at++ = SOCKS5_VERSION;
	*at++ = (uint8_t)command;
	*at++ = 0;
	if (dst->addr.family != AF_UNSPEC || dst->name_len == 0)
		return (size_t)(at - buf) + write_address(at, &dst->addr);
	*at++ = SOCKS5_NAME;
	*at++ = dst->name_len;
	memcpy(at, dst->name, dst->name_len);
	at += dst->name_len;
	return (size_t)(at - buf) + write_port(at, dst->addr.port);
}

ssize_t socks5_parse_method(const uint8_t *buf, size_t len)
{
	if (len >= 1 && buf[0] != SOCKS5_VERSION)
		return -1;
	if (len < SOCKS5_METHOD_LEN)
		return 0;
	return buf[1] == SOCKS5_METHOD_OK ? SOCKS5_METHOD_LEN : -1;
}

ssize_t socks5_parse_reply(
	const uint8_t *buf, size_t len, struct socks5_answer *out)
{
	ssize_t n;

	/* RSV is not looked at: servers are known to leave rubbish there. */
	if (len >= 1 && buf[0] != SOCKS5_VERSION)
		return -1;
	n = parse_address(buf, len, &out->bound);
	if (n <= 0)
		return n;
	out->reply = buf[1];
	return name_is_sane(&out->bound) ? n : -1;
}

size_t socks5_reply_need(const uint8_t *buf, size_t len)
{
	ssize_t n;
	size_t whole;

	if (len >= 1 && buf[0] != SOCKS5_VERSION)
		return 0;
	/* ATYP and the first byte behind it tell the length; the shortest
	 * address is longer than that byte. */
	if (len < HEAD_LEN)
		return HEAD_LEN + 1 - len;
	n = address_len(buf[3], buf + HEAD_LEN, len - HEAD_LEN);
	if (n == -1)
		return 0;
	if (n == 0)
		return 1;
	whole = HEAD_LEN + (size_t)n + 2;
	return len < whole ? whole - len : 0;
}

int socks5_errno(uint8_t reply)
{
	switch (reply) {
	case SOCKS5_SUCCEEDED: return 0;
	case SOCKS5_NOT_ALLOWED:
		/* What a `prohibit` route or a local firewall gives. */
		return EACCES;
	case SOCKS5_NETWORK_UNREACHABLE: return ENETUNREACH;
	case SOCKS5_HOST_UNREACHABLE: return EHOSTUNREACH;
	case SOCKS5_REFUSED: return ECONNREFUSED;
	case SOCKS5_TTL_EXPIRED: return ETIMEDOUT;
	case SOCKS5_COMMAND_NOT_SUPPORTED: return EOPNOTSUPP;
	case SOCKS5_ATYP_NOT_SUPPORTED: return EAFNOSUPPORT;
	default: return ECONNABORTED;
	}
}

enum socks5_reply socks5_reply_from_errno(int err)
{
	switch (err) {
	case 0: return SOCKS5_SUCCEEDED;
	case EACCES:
	case EPERM: return SOCKS5_NOT_ALLOWED;
	case ENETUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL: /* no address of the destination's family */
		return SOCKS5_NETWORK_UNREACHABLE;
	case EHOSTUNREACH:
	case EHOSTDOWN: return SOCKS5_HOST_UNREACHABLE;
	case ECONNREFUSED:
	case ECONNRESET: return SOCKS5_REFUSED;
	case ETIMEDOUT: return SOCKS5_TTL_EXPIRED;
	case EAFNOSUPPORT: return SOCKS5_ATYP_NOT_SUPPORTED;
	default: return SOCKS5_GENERAL_FAILURE;
	}
}
