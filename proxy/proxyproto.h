/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_PROXYPROTO_H
#define PROXY_PROXYPROTO_H

/*
 * The PROXY protocol, versions 1 and 2, both roles: a header ahead of the
 * stream that says between which addresses the connection really is, so that
 * a server behind forwarders knows its client. Pure functions over buffers.
 * (https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt)
 *
 * What is read is held to the letter of the specification: the one who sends
 * it is trusted to say who the client is, and something that is only nearly a
 * header is not from such a sender. Of version 2's commands LOCAL, and of its
 * families UNSPEC and AF_UNIX, are taken and carry no address for us; its
 * datagram protocols cannot be meant on a stream. TLVs are skipped unread;
 * their checksum (PP2_TYPE_CRC32C) protects nothing that TCP does not.
 */

#include "common/sockaddr.h"

#include <sys/types.h>

enum proxyproto {
	PROXYPROTO_NONE,
	PROXYPROTO_V1,
	PROXYPROTO_V2,
};

/* The longest header that is taken. The format of version 2 allows for 64 KiB
 * of TLVs; real ones (TLS client names) take some hundred bytes. */
#define PROXYPROTO_MAX 4096
/* The longest that is written: version 1 with IPv6 addresses. */
#define PROXYPROTO_WRITE_MAX 107

/**
 * struct proxyproto_addrs - what a header says
 * @src, @dst: the connection's client, and the address it connected to; same
 *             family, or both AF_UNSPEC: not known
 */
struct proxyproto_addrs {
	struct ip_port src;
	struct ip_port dst;
};

/**
 * proxyproto_write() - encode a header
 * @buf:     at least PROXYPROTO_WRITE_MAX bytes
 * @version: PROXYPROTO_V1 or _V2
 * @addrs:   if one of the two is AF_UNSPEC, the header says that the
 *           connection is not known. v4-mapped is written as IPv4; families
 *           that differ, as IPv6
 *
 * Return: bytes written.
 */
size_t proxyproto_write(uint8_t *buf, enum proxyproto version,
	const struct proxyproto_addrs *addrs);

/**
 * proxyproto_parse() - take a header of either version off the front
 * @buf, @len: bytes received so far
 * @addrs:     filled when one is whole
 *
 * Return: > 0 that many bytes are the header; 0 not whole yet; -1 this cannot
 * become a header, or is longer than PROXYPROTO_MAX.
 */
ssize_t proxyproto_parse(
	const uint8_t *buf, size_t len, struct proxyproto_addrs *addrs);

#endif
