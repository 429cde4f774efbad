/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_PREFIX_H
#define PROXY_PREFIX_H

/*
 * The original destination at the head of a stream: what
 * ip-to-vsock-transparent sends and vsock-to-ip-transparent reads. Pure
 * functions over buffers.
 *
 *	1 byte	version: 4 or 6
 *	4 / 16	the address as a little-endian integer: its bytes reversed
 *	2	the port, little-endian
 *
 * 93.184.216.34:80 is 04 22 d8 b8 5d 50 00. A v4-mapped address is written as
 * the IPv4 address that it is. There is no room for an IPv6 scope id: a
 * link-local address means nothing on another machine anyway.
 */

#include "common/sockaddr.h"

#include <sys/types.h>

#define PREFIX_MAX    19 /* 1 + 16 + 2 */
#define PREFIX_V4_LEN 7
#define PREFIX_V6_LEN 19

/**
 * prefix_write() - encode a destination
 * @buf: at least PREFIX_MAX bytes
 * @dst: AF_INET or AF_INET6
 *
 * Return: bytes written.
 */
size_t prefix_write(uint8_t *buf, const struct ip_port *dst);

/**
 * prefix_parse() - take a destination off the front of what was received
 * @buf, @len: bytes received so far
 * @dst:       filled when one is whole
 *
 * Looks at nothing behind the prefix: that is payload.
 *
 * Return: > 0 that many bytes are the prefix; 0 not whole yet; -1 the version
 * is neither 4 nor 6.
 */
ssize_t prefix_parse(const uint8_t *buf, size_t len, struct ip_port *dst);

#endif
