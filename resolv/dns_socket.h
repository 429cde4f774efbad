/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_SOCKET_H
#define RESOLV_DNS_SOCKET_H

/*
 * The sockets that the DNS stub listens on, apart from it: whoever opens them
 * and lends them to one stub after the other, each in a process of its own,
 * loses no query that comes while there is none.
 */

#include "common/sockaddr.h"

/**
 * struct dns_socket - one address
 * @addr: with the true port
 * @udp, @tcp: non-blocking; -1 if that one could not be bound
 */
struct dns_socket {
	struct ip_port addr;
	int udp;
	int tcp;
};

/**
 * dns_socket_open() - listen on an address
 * @sock: filled
 * @addr: port 0 takes any that is free for both UDP and TCP
 *
 * If only one of them can be had, that is logged at warn.
 *
 * Return: 0, or -1 and errno (logged too) if neither can, and nothing is open.
 */
int dns_socket_open(struct dns_socket *sock, const struct ip_port *addr);

/** dns_socket_close() - close what is open; again does nothing */
void dns_socket_close(struct dns_socket *sock);

#endif
