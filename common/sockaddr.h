/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_SOCKADDR_H
#define COMMON_SOCKADDR_H

/*
 * IP addresses with a port, in the two forms that the programs need: the
 * kernel's (sockaddr) and a fixed-size one for messages between processes and
 * for tables. Everything here is pure, without I/O or heap, and all but
 * ip_port_format(), which uses stdio, is async-signal-safe.
 */

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* Big enough for every family, so that no cast reads past an object. */
union sockaddr_any {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_storage storage;
};

/**
 * struct ip_port - an IPv4 or IPv6 address and a port, 24 bytes, no padding
 * @family: AF_INET, AF_INET6, or AF_UNSPEC for "none"
 * @port:   host byte order
 * @scope:  IPv6 scope id, else 0
 * @ip:     the address in network order; IPv4 in the first four bytes, the
 *          rest zero, so that two equal addresses are equal bytes
 */
struct ip_port {
	uint16_t family;
	uint16_t port;
	uint32_t scope;
	uint8_t ip[16];
};

/* "[" IPv6 text "%" scope "]:" port and the NUL. */
#define IP_PORT_STRLEN 72

/**
 * ip_port_from_sockaddr() - take address and port out of a sockaddr
 * @out: filled on success; AF_UNSPEC on failure
 * @sa:  the address; may be unaligned within a larger buffer, may be NULL
 * @len: bytes valid at @sa
 *
 * Return: 0, or -1 if @sa is not a whole AF_INET or AF_INET6 address. Like
 * the kernel, an AF_INET6 address may leave out its scope id (24 bytes,
 * SIN6_LEN_RFC2133).
 */
int ip_port_from_sockaddr(
	struct ip_port *out, const struct sockaddr *sa, socklen_t len);

/**
 * ip_port_to_sockaddr() - the kernel's form of an address
 * @addr: any family; AF_UNSPEC gives a zero AF_INET address
 * @out:  filled
 *
 * Return: the length to pass to the kernel.
 */
socklen_t ip_port_to_sockaddr(
	const struct ip_port *addr, union sockaddr_any *out);

/**
 * ip_port_unmap() - turn ::ffff:a.b.c.d into the IPv4 address a.b.c.d
 * @addr: changed in place; any other address is left alone
 */
void ip_port_unmap(struct ip_port *addr);

/**
 * ip_port_map() - turn an IPv4 address into ::ffff:a.b.c.d
 * @addr: changed in place; an IPv6 address is left alone
 */
void ip_port_map(struct ip_port *addr);

/** ip_port_is_loopback() - 127.0.0.0/8, ::1, or 127.0.0.0/8 v4-mapped? */
bool ip_port_is_loopback(const struct ip_port *addr);

/** ip_port_is_any() - 0.0.0.0, :: or ::ffff:0.0.0.0 (port not looked at)? */
bool ip_port_is_any(const struct ip_port *addr);

/** ip_port_equal() - same family, address, scope and port? */
bool ip_port_equal(const struct ip_port *a, const struct ip_port *b);

/**
 * ip_port_format() - "192.0.2.1:80", "[2001:db8::1]:80", or "-" for none
 * @addr: the address
 * @buf:  at least IP_PORT_STRLEN bytes
 * @size: of @buf
 *
 * Return: @buf, always NUL-terminated.
 */
const char *ip_port_format(const struct ip_port *addr, char *buf, size_t size);

/**
 * struct ip_prefix - a CIDR block
 * @addr: the network's address; port 0
 * @bits: prefix length, 0-32 or 0-128
 */
struct ip_prefix {
	struct ip_port addr;
	uint8_t bits;
};

/**
 * ip_prefix_parse() - read "10.0.0.0/8", "fd00::/8" or a bare address
 * @out:  filled on success
 * @text: not necessarily NUL-terminated
 * @len:  of @text
 *
 * Return: 0, or -1 if @text is not an address with a prefix length its
 * family allows. Host bits that are set are ignored, not refused.
 */
int ip_prefix_parse(struct ip_prefix *out, const char *text, size_t len);

/**
 * ip_prefix_match() - is @addr in the block?
 *
 * v4-mapped is seen as IPv4 on both sides: ::ffff:10.0.0.0/104 is 10.0.0.0/8,
 * and ::/0 holds no IPv4 address however it is written.
 */
bool ip_prefix_match(
	const struct ip_prefix *prefix, const struct ip_port *addr);

#endif
