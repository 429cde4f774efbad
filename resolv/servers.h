/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_SERVERS_H
#define RESOLV_SERVERS_H

/*
 * Lists of DNS servers and of addresses to listen on, as options and log
 * lines have them. Pure functions.
 *
 *	SERVER: 10.0.0.2, 10.0.0.2:5353, 2001:db8::53, [2001:db8::53]:5353,
 *	        ns.example, ns.example:5353
 *
 * The port is 53 when left out.
 */

#include "common/socks5.h"

#define DNS_SERVER_STRLEN                           \
 (SOCKS5_NAME_MAX + 8) /* name ":" port and the NUL \
			*/

/* Connected by the host proxy to the servers in the host's resolv.conf. */
#define DNS_HOST_RESOLVER  "resolver.proxy.internal"
#define DNS_HOST_RESOLVERS 3

/**
 * dns_servers_parse() - read SERVER[,SERVER...]
 * @out:  filled on success
 * @max:  servers that fit, at least 1
 * @nr:   set to how many there are
 * @text: NUL-terminated
 *
 * Return: NULL, or what was expected, as a constant string fit to follow
 * "bad server 'TEXT': ".
 */
const char *dns_servers_parse(
	struct socks5_addr *out, unsigned max, unsigned *nr, const char *text);

/**
 * dns_listen_parse() - read ADDRESS[:PORT][,...], numeric addresses only
 * @out, @max, @nr, @text: as above
 *
 * Return: as above.
 */
const char *dns_listen_parse(
	struct ip_port *out, unsigned max, unsigned *nr, const char *text);

/**
 * dns_server_format() - a server as text that dns_servers_parse() takes back
 * @server: an address or a name
 * @buf:    at least DNS_SERVER_STRLEN bytes for a whole one
 * @size:   of @buf
 *
 * Return: @buf, always NUL-terminated.
 */
const char *dns_server_format(
	const struct socks5_addr *server, char *buf, size_t size);

/** dns_server_host_resolver() - the reserved name, port 53 */
void dns_server_host_resolver(struct socks5_addr *out);

#define DNS_SERVERS_KEY 16

/**
 * dns_servers_key() - tells one list of servers from another
 * @key: filled; never all zero
 *
 * Not for telling friend from foe.
 */
void dns_servers_key(uint8_t key[DNS_SERVERS_KEY],
	const struct socks5_addr *servers, unsigned nr);

/**
 * dns_servers_spread() - name the host's servers one by one
 * @servers: in it, the reserved name is followed by "2." and it, and so on to
 *           DNS_HOST_RESOLVERS, as far as there is room: with these the host
 *           proxy begins with its second server, and so on, for when the first
 *           takes connections and does not answer
 * @max:     how many fit
 * @nr:      how many there are
 *
 * Return: how many there are then.
 */
unsigned dns_servers_spread(
	struct socks5_addr *servers, unsigned max, unsigned nr);

#endif
