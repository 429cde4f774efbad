/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_ENDPOINT_H
#define COMMON_ENDPOINT_H

/*
 * Endpoints: one grammar for every address that a program or option takes.
 *
 *	vsock:CID:PORT       CID a number, `any`, `host` (2) or `local` (1);
 *	vsock:CID:PORT-PORT  a range of ports
 *	unix:/path           a stream socket in the file system
 *	tcp:HOST:PORT        HOST an IPv4 address, a name, or [IPv6]
 *	vsock-mux:/path:PORT a unix socket that takes a "CONNECT PORT" line
 *	                     (Firecracker, Cloud Hypervisor)
 *
 * Why a range: the kernel keeps the connections between one CID and one port
 * in one list, and walks it for each packet. With 10 000 of them, idle or not,
 * a port accepts a fifth of the connections per second that it does with none.
 * A host proxy that listens on 32 ports has 32 short lists. Both ends are told
 * the same range: the proxy listens on all of it, and whoever connects takes a
 * port of it at random (endpoint_pick()), so that neither needs to know of the
 * other's connections.
 *
 * Pure functions without heap. All but the _format() ones, which use stdio,
 * are async-signal-safe: the preload library parses its environment with them
 * inside connect().
 */

#include "common/sockaddr.h"

#include <linux/vm_sockets.h>
#include <sys/un.h>

enum endpoint_kind {
	ENDPOINT_NONE = 0,
	ENDPOINT_VSOCK,
	ENDPOINT_UNIX,
	ENDPOINT_TCP,
	ENDPOINT_VSOCK_MUX,
};

#define ENDPOINT_NAME_MAX  253 /* a DNS name, RFC 1035 */
#define ENDPOINT_PATH_MAX  107 /* sun_path less its NUL */
#define ENDPOINT_STRLEN    280 /* the longest endpoint as text, and the NUL */
#define ENDPOINT_PORTS_MAX 64  /* in a range */

/**
 * struct endpoint - a parsed endpoint
 * @kind: which of the members below count
 * @cid:  VSOCK: context id, VMADDR_CID_ANY for `any`
 * @port: VSOCK, VSOCK_MUX: 32 bits; TCP: 16 bits; host byte order
 * @more: VSOCK: how many ports of a range come after @port, 0 for one port;
 *        less than ENDPOINT_PORTS_MAX
 * @addr: TCP: the numeric address with its port, or family AF_UNSPEC when
 *        @text is a name that must be looked up
 * @text: UNIX, VSOCK_MUX: the path; TCP: the name when @addr is AF_UNSPEC
 */
struct endpoint {
	enum endpoint_kind kind;
	uint32_t cid;
	uint32_t port;
	uint32_t more;
	struct ip_port addr;
	char text[ENDPOINT_NAME_MAX + 1];
};

/**
 * endpoint_parse() - read an endpoint
 * @out:  filled on success, kind ENDPOINT_NONE on failure
 * @text: NUL-terminated
 *
 * Return: NULL, or what was expected, as a constant string fit to follow
 * "bad endpoint 'TEXT': ".
 */
const char *endpoint_parse(struct endpoint *out, const char *text);

/**
 * endpoint_format() - the endpoint as text that endpoint_parse() takes back
 * @ep:   the endpoint
 * @buf:  at least ENDPOINT_STRLEN bytes for a whole one
 * @size: of @buf
 *
 * Return: @buf, always NUL-terminated.
 */
const char *endpoint_format(const struct endpoint *ep, char *buf, size_t size);

/**
 * endpoint_set_port() - the same place, another port
 * @ep:   vsock, tcp and vsock-mux: gets the port. unix: the path gets "_PORT"
 *        appended, as where a VMM has one socket file for each port; parsed
 *        from a path that leaves room for it (endpoint_has_room())
 * @port: at most 65535 for tcp
 */
void endpoint_set_port(struct endpoint *ep, uint32_t port);

/** endpoint_has_room() - may endpoint_set_port() be called with any port? */
bool endpoint_has_room(const struct endpoint *ep);

/** endpoint_equal() - do both name the same place in the same words? */
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);

/**
 * endpoint_pick() - one port of a range
 * @ep:     becomes an endpoint of one port; without a range it stays as it is
 * @number: which, counted over and over again: any number will do
 */
void endpoint_pick(struct endpoint *ep, uint32_t number);

/* Every family that an endpoint can have. */
union endpoint_sockaddr {
	struct sockaddr sa;
	struct sockaddr_un un;
	struct sockaddr_vm vm;
	union sockaddr_any ip;
};

/**
 * endpoint_sockaddr() - what to pass to socket(2), bind(2) and connect(2)
 * @ep:  the endpoint; a TCP one must be numeric; of a range it is the first
 * @out: filled; its sa_family is the domain for socket(2)
 *
 * Return: the length, or 0 if @ep is a TCP endpoint with a name.
 */
socklen_t endpoint_sockaddr(
	const struct endpoint *ep, union endpoint_sockaddr *out);

/**
 * endpoint_parse_ports() - a vsock port, or a range of them
 * @out:  its @port and @more are set on success
 * @text: PORT or PORT-PORT
 *
 * Return: NULL, or what was expected.
 */
const char *endpoint_parse_ports(struct endpoint *out, const char *text);

/**
 * endpoint_from_env() - the host proxy that the environment names
 * @out: filled on success
 * @bad: on failure, the variable's "NAME=value" is not copied; this is set to
 *       the variable's name
 *
 * PROXY_ENDPOINT wins; else vsock:PROXY_PARENT_CID:PROXY_PARENT_PORT, whose
 * defaults are 3 and 8888. The port may be a range.
 *
 * Return: NULL, or what was expected.
 */
const char *endpoint_from_env(struct endpoint *out, const char **bad);

/**
 * parse_uint() - read an unsigned decimal number and nothing else
 * @text: digits only, not necessarily NUL-terminated
 * @len:  of @text
 * @max:  largest value allowed
 * @out:  set on success
 *
 * Return: 0, or -1 if @text is empty, has another character or is too large.
 */
int parse_uint(const char *text, size_t len, uint64_t max, uint64_t *out);

#endif
