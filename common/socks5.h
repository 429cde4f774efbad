/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_SOCKS5_H
#define COMMON_SOCKS5_H

/*
 * SOCKS protocol version 5 (RFC 1928) without authentication, both roles, as
 * pure functions over buffers: no I/O, no heap, async-signal-safe.
 *
 * Theory of operation
 *
 * A parser looks at the bytes received so far and either takes one whole
 * message off the front, asks for more, or refuses. It never looks behind the
 * message: what follows is the next message or payload. A caller that must not
 * read one byte too many (the client, whose socket is handed on afterwards)
 * asks socks5_reply_need() how many bytes are certainly still part of it.
 *
 * Every parser returns
 *	> 0	that many bytes are the message, the output is filled
 *	0	not whole yet: call again with more bytes after the same ones
 *	-1	cannot become a valid message, whatever follows
 */

#include "common/sockaddr.h"

#include <sys/types.h>

#define SOCKS5_VERSION     5
#define SOCKS5_NAME_MAX    255
#define SOCKS5_METHOD_OK   0x00 /* no authentication required */
#define SOCKS5_METHOD_NONE 0xff /* no acceptable methods */

#define SOCKS5_GREETING_MAX 257 /* 2 + 255 methods */
#define SOCKS5_METHOD_LEN   2
#define SOCKS5_REQUEST_MAX  (4 + 1 + SOCKS5_NAME_MAX + 2)
#define SOCKS5_REPLY_MAX    SOCKS5_REQUEST_MAX
#define SOCKS5_REPLY_V4_LEN 10
#define SOCKS5_REPLY_V6_LEN 22

enum socks5_command {
	SOCKS5_CONNECT = 1,
	SOCKS5_BIND = 2,
	SOCKS5_UDP_ASSOCIATE = 3,
};

enum socks5_atyp {
	SOCKS5_IPV4 = 1,
	SOCKS5_NAME = 3,
	SOCKS5_IPV6 = 4,
};

/* RFC 1928 section 6 */
enum socks5_reply {
	SOCKS5_SUCCEEDED = 0,
	SOCKS5_GENERAL_FAILURE = 1,
	SOCKS5_NOT_ALLOWED = 2,
	SOCKS5_NETWORK_UNREACHABLE = 3,
	SOCKS5_HOST_UNREACHABLE = 4,
	SOCKS5_REFUSED = 5,
	SOCKS5_TTL_EXPIRED = 6, /* sent for a connect that timed out */
	SOCKS5_COMMAND_NOT_SUPPORTED = 7,
	SOCKS5_ATYP_NOT_SUPPORTED = 8,
};

/**
 * struct socks5_addr - a destination: an address, or a name with a port
 * @addr:     family AF_INET or AF_INET6, or AF_UNSPEC when @name counts; the
 *            port is valid in each case
 * @name:     NUL-terminated and printable, without spaces; in a request not
 *            empty when @addr is AF_UNSPEC
 * @name_len: without the NUL
 */
struct socks5_addr {
	struct ip_port addr;
	uint8_t name_len;
	char name[SOCKS5_NAME_MAX + 1];
};

struct socks5_request {
	uint8_t command; /* as received; not necessarily an enum value */
	struct socks5_addr dst;
};

struct socks5_answer {
	uint8_t reply; /* enum socks5_reply as received */
	struct socks5_addr bound;
};

/* ---- server role ---- */

/**
 * socks5_parse_greeting() - version, number of methods, methods
 * @buf, @len: bytes received so far
 * @no_auth:   set to whether METHOD_OK is among the methods
 *
 * Return: as above; -1 for a version other than 5.
 */
ssize_t socks5_parse_greeting(const uint8_t *buf, size_t len, bool *no_auth);

/**
 * socks5_parse_request() - one request, RFC 1928 section 4
 * @buf, @len: bytes received so far
 * @out:       filled when whole
 * @reply:     on -1, the reply code to refuse with (GENERAL_FAILURE for a bad
 *             version, reserved byte or name, ATYP_NOT_SUPPORTED)
 *
 * Any command is let through: whether it is supported is the caller's matter.
 * A name must be non-empty and hold no NUL, space or control character.
 */
ssize_t socks5_parse_request(const uint8_t *buf, size_t len,
	struct socks5_request *out, enum socks5_reply *reply);

/**
 * socks5_write_method() - the two-byte answer to a greeting
 * @buf:    at least SOCKS5_METHOD_LEN bytes
 * @method: SOCKS5_METHOD_OK or SOCKS5_METHOD_NONE
 *
 * Return: SOCKS5_METHOD_LEN.
 */
size_t socks5_write_method(uint8_t *buf, uint8_t method);

/**
 * socks5_write_reply() - a reply with an address
 * @buf:   at least SOCKS5_REPLY_V6_LEN bytes
 * @reply: the code
 * @bound: address and port; AF_UNSPEC is written as IPv4 0.0.0.0 with its port
 *
 * Return: the bytes written, SOCKS5_REPLY_V4_LEN or SOCKS5_REPLY_V6_LEN.
 */
size_t socks5_write_reply(
	uint8_t *buf, enum socks5_reply reply, const struct ip_port *bound);

/* ---- client role ---- */

/**
 * socks5_write_hello() - greeting and request in one piece
 * @buf:     at least 3 + SOCKS5_REQUEST_MAX bytes
 * @command: what to ask for
 * @dst:     destination, or for BIND the address and port wanted
 *
 * Return: the bytes written.
 */
size_t socks5_write_hello(uint8_t *buf, enum socks5_command command,
	const struct socks5_addr *dst);

/**
 * socks5_parse_method() - the server's answer to the greeting
 *
 * Return: as above; -1 unless it is version 5 and "no authentication".
 */
ssize_t socks5_parse_method(const uint8_t *buf, size_t len);

/**
 * socks5_parse_reply() - one reply, RFC 1928 section 6
 * @buf, @len: bytes received so far
 * @out:       filled when whole
 *
 * Return: as above; -1 for a version other than 5, an unknown address type,
 * or a name with a NUL, space or control character. The reserved byte may be
 * anything and a name may be empty: nothing depends on either.
 */
ssize_t socks5_parse_reply(
	const uint8_t *buf, size_t len, struct socks5_answer *out);

/**
 * socks5_reply_need() - how many more bytes surely belong to this reply
 * @buf, @len: bytes of the reply received so far, none of the method answer
 *
 * Return: at least 1 while socks5_parse_reply() would ask for more, else 0.
 * Reading that many never takes a byte of the payload.
 */
size_t socks5_reply_need(const uint8_t *buf, size_t len);

/* ---- errors ---- */

/** socks5_errno() - what a TCP connect() reports for a reply code */
int socks5_errno(uint8_t reply);

/** socks5_reply_from_errno() - the reply code that tells of a connect() error
 */
enum socks5_reply socks5_reply_from_errno(int err);

#endif
