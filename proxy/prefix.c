/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/prefix.h"

#include <assert.h>
#include <string.h>

static void reverse(uint8_t *out, const uint8_t *in, size_t len)
{
	for (size_t i = 0; i < len; i++)
		out[i] = in[len - 1 - i];
}

size_t prefix_write(uint8_t *buf, const struct ip_port *dst)
{
	struct ip_port addr = *dst;
	size_t ip_len;

	ip_port_unmap(&addr);
	assert(addr.family == AF_INET || addr.family == AF_INET6);
	ip_len = addr.family == AF_INET ? 4 : 16;
	buf[0] = addr.family == AF_INET ? 4 : 6;
	reverse(buf + 1, addr.ip, ip_len);
	buf[1 + ip_len] = (uint8_t)(addr.port & 0xff);
	buf[2 + ip_len] = (uint8_t)(addr.port >> 8);
	return 1 + ip_len + 2;
}

ssize_t prefix_parse(const uint8_t *buf, size_t len, struct ip_port *dst)
{
	size_t ip_len;

	if (len == 0)
		return 0;
	if (buf[0] != 4 && buf[0] != 6)
		return -1;
	ip_len = buf[0] == 4 ? 4 : 16;
	if (len < 1 + ip_len + 2)
		return 0;
	memset(dst, 0, sizeof(*dst));
	dst->family = buf[0] == 4 ? AF_INET : AF_INET6;
	reverse(dst->ip, buf + 1, ip_len);
	dst->port = (uint16_t)(buf[1 + ip_len] | buf[2 + ip_len] << 8);
	return (ssize_t)(1 + ip_len + 2);
}
