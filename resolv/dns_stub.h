/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_STUB_H
#define RESOLV_DNS_STUB_H

/*
 * The DNS stub: what programs in the enclave find on port 53.
 *
 * Theory of operation
 *
 * Resolvers speak UDP, and the one way out carries streams only. The stub
 * listens on UDP and TCP on loopback (and wherever else it is told), passes
 * each query on to real servers over TCP (dns_upstream.h), and passes the
 * answer back as it came. It is not a resolver: it caches nothing, follows
 * nothing, and knows no name, so search lists, /etc/hosts and "localhost"
 * remain the libc's matter and an unknown name is unknown because a server
 * said so.
 *
 * UDP   An answer larger than the client takes (512 bytes, or what its EDNS
 *       record says) is cut and marked TC; the client asks again over TCP.
 *       An answer that the kernel cannot take now is lost, as on a network.
 * TCP   Any number of queries on a connection, answered in the order in which
 *       the answers come (RFC 7766). A client that half-closes gets all its
 *       answers. One with too much in flight, or that does not read, is not
 *       read from; when answers pile up all the same it is closed.
 *
 * What is not a query is ignored over UDP and ends the connection over TCP; a
 * malformed query is answered FORMERR. When no server answers, the client is
 * told SERVFAIL before the deadline, which is below the 5 s that libcs wait.
 * The same when too much is in flight: saying so at once is better than
 * silence.
 *
 * A query that came in on an address that is itself one of the servers begins
 * with that server: where the stub stands in for the addresses in somebody's
 * resolv.conf, `dig @10.0.0.3` asks 10.0.0.3.
 *
 * The sockets are plain kernel sockets: the process that runs the stub has no
 * preloaded library in it. Everything happens in one event loop; nothing
 * blocks; every queue, table and wait has a limit (below).
 */

#include "common/sockaddr.h"
#include "resolv/dns_socket.h"
#include "resolv/dns_upstream.h"

#define DNS_LISTEN_MAX      16
#define DNS_DEADLINE        4.0  /* seconds for a query */
#define DNS_DEAD_TIME       15.0 /* seconds that a dead server is passed over */
#define DNS_UPSTREAM_IDLE   2.0  /* seconds; RFC 7766 section 6.2.3 */
#define DNS_CLIENT_IDLE     20.0 /* seconds without a query in flight */
#define DNS_MAX_IN_FLIGHT   4096
#define DNS_MAX_QUERY_BYTES ((size_t)4 * 1024 * 1024) /* of those in flight */
#define DNS_MAX_CLIENTS     512
#define DNS_CLIENT_FLIGHT   100
#define DNS_CLIENT_TX_HIGH  ((size_t)64 * 1024)  /* stop reading from it */
#define DNS_CLIENT_TX_MAX   ((size_t)512 * 1024) /* close it */

struct dns_stub;

/**
 * struct dns_stub_config - copied
 * @listen:       addresses, with ports; port 0 takes any that is free for both
 *                UDP and TCP
 * @nr_listen:    1 to DNS_LISTEN_MAX
 * @sockets, @nr_sockets: these instead, open already and the stub's own from
 *                dns_stub_start() on; then @listen is not looked at
 * @servers, @nr_servers, @dialer: see dns_upstream.h
 * @deadline, @dead_time, @upstream_idle, @client_idle: seconds
 * @max_in_flight, @max_clients: limits
 *
 * Zero in the last two lines means the default above.
 */
struct dns_stub_config {
	const struct ip_port *listen;
	unsigned nr_listen;
	const struct dns_socket *sockets;
	unsigned nr_sockets;
	const struct socks5_addr *servers;
	unsigned nr_servers;
	struct dns_dialer dialer;
	double deadline, dead_time, upstream_idle, client_idle;
	unsigned max_in_flight, max_clients;
};

/**
 * dns_stub_start() - listen, and answer from now on
 * @loop:   the event loop
 * @config: may go when this returns
 *
 * An address that cannot be listened on is logged at warn, with its errno, and
 * left out.
 *
 * Return: NULL and errno if there is not one address to listen on (the errno
 * of the last one), or ENOMEM, EINVAL for a bad configuration.
 */
struct dns_stub *dns_stub_start(
	struct ev_loop *loop, const struct dns_stub_config *config);

/** dns_stub_stop() - stop listening, drop all queries, free. NULL is fine */
void dns_stub_stop(struct dns_stub *stub);

/**
 * dns_stub_address() - where the stub listens
 * @index: from 0
 * @out:   set to the address with its true port
 *
 * Return: 0, or -1 if there is no such one.
 */
int dns_stub_address(
	const struct dns_stub *stub, unsigned index, struct ip_port *out);

/** dns_stub_in_flight() - queries that wait for an answer */
unsigned dns_stub_in_flight(const struct dns_stub *stub);

/** dns_stub_clients() - open TCP connections */
unsigned dns_stub_clients(const struct dns_stub *stub);

#endif
