/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_PEER_H
#define PROXY_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/**
 * struct peer_id - which machine or user is at the other end, 24 bytes without
 *                  padding: equal peers are equal bytes
 * @family: AF_VSOCK, AF_UNIX, AF_INET, AF_INET6
 * @number: vsock: context id; unix: user id
 * @ip:     TCP: the address
 */
struct peer_id {
	uint32_t family;
	uint32_t number;
	uint8_t ip[16];
};

/**
 * peer_identify() - fill in @out from a connected socket
 *
 * The port is no part of it: all connections of one enclave are one peer.
 *
 * Return: false if the socket has no peer any more.
 */
bool peer_identify(int fd, struct peer_id *out);

#endif
