/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_PEER_H
#define PROXY_PEER_H

#include <stddef.h>

#define PEER_STRLEN 80

/**
 * peer_format() - who is at the other end of a socket, for log lines
 * @fd:   a connected socket of any family
 * @buf:  at least PEER_STRLEN bytes for a whole one
 * @size: of @buf
 *
 * "vsock:16:1034", "192.0.2.1:4711", "[2001:db8::1]:80", for a unix socket
 * "unix pid 123 uid 1000"; "-" if the socket has no peer any more. Keeps
 * errno.
 *
 * Return: @buf, always NUL-terminated.
 */
const char *peer_format(int fd, char *buf, size_t size);

#endif
