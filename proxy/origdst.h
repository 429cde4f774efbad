/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_ORIGDST_H
#define PROXY_ORIGDST_H

/*
 * Where a redirected TCP connection was bound for.
 *
 * Theory of operation
 *
 * REDIRECT and DNAT change the destination; connection tracking remembers the
 * original one and tells it by SO_ORIGINAL_DST: at SOL_IP for IPv4, at
 * SOL_IPV6 (IP6T_SO_ORIGINAL_DST) for IPv6. The family that counts is that of
 * the connection: an IPv4 client of a dual-stack socket is in the IPv4 tables.
 *
 * TPROXY changes nothing: the listener takes connections to foreign addresses
 * (IP_TRANSPARENT), and the socket's local address is the destination.
 *
 * A connection that nobody redirected came to the listener's own address. The
 * destination is then the listener itself, and connecting there once more
 * would go round in circles until the fds run out. So it is refused:
 *	REDIRECT  the original destination is the socket's local address
 *	TPROXY    the local address is the listener's; where that listens on
 *	          any address, its port decides, so a destination that happens
 *	          to have the very port of such a listener is refused too
 */

#include "common/sockaddr.h"

/**
 * origdst_get() - find the original destination of a connection
 * @fd:       accepted
 * @tproxy:   it came by TPROXY
 * @listener: what it was accepted on, for the comparison above
 * @out:      filled on success; v4-mapped comes out as IPv4
 *
 * Return: 0 or an errno: ENOENT or ENOPROTOOPT from the kernel (no connection
 * tracking for it), ELOOP if it was not redirected, EAFNOSUPPORT if it is not
 * a TCP connection.
 */
int origdst_get(int fd, bool tproxy, const struct ip_port *listener,
	struct ip_port *out);

#endif
