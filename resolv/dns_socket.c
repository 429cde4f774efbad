/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/dns_socket.h"
#include "common/fd.h"
#include "common/log.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG SOMAXCONN
#define UDP_RCVBUF     (1024 * 1024) /* bytes; the kernel may give less */
#define PORT_TRIES     16 /* to find one that is free for UDP and TCP */

/**
 * bind_one() - a socket on an address
 * @addr: its port is set if it was 0
 * @type: SOCK_STREAM or SOCK_DGRAM
 *
 * Return: the socket, or -1 and errno.
 */
static int bind_one(struct ip_port *addr, int type)
{
	const int on = 1;
	union sockaddr_any sa;
	socklen_t len = ip_port_to_sockaddr(addr, &sa);
	int fd = socket(addr->family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	/* Connections of a stub that is gone must not keep the next one out.
	 * Not for UDP, where it would let two share the port. */
	if (type == SOCK_STREAM &&
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1)
		goto fail;
	if (addr->family == AF_INET6 &&
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)))
		goto fail;
	if (type == SOCK_DGRAM) {
		const int size = UDP_RCVBUF;

		(void)setsockopt(
			fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	}
	if (bind(fd, &sa.sa, len) == -1)
		goto fail;
	if (type == SOCK_STREAM && listen(fd, LISTEN_BACKLOG) == -1)
		goto fail;
	len = sizeof(sa);
	if (getsockname(fd, &sa.sa, &len) == -1 ||
		ip_port_from_sockaddr(addr, &sa.sa, len) == -1)
		goto fail;
	return fd;
fail:
	closefd(&fd);
	return -1;
}

/*
 * bind_both() - UDP and TCP on one port
 *
 * One of them is better than none; but which port is meant by 0 must be the
 * same for both.
 *
 * Return: 0, or -1 and errno if neither could be bound.
 */
static int bind_both(struct dns_socket *sock)
{
	bool any_port = sock->addr.port == 0;
	int err = 0;
	int tries;

	for (tries = 0; tries < PORT_TRIES; tries++) {
		if (any_port)
			sock->addr.port = 0;
		sock->udp = bind_one(&sock->addr, SOCK_DGRAM);
		if (sock->udp == -1)
			err = errno;
		sock->tcp = bind_one(&sock->addr, SOCK_STREAM);
		if (sock->tcp == -1)
			err = errno;
		if (err != EADDRINUSE || !any_port)
			break;
		closefd_if(&sock->udp);
		closefd_if(&sock->tcp);
		err = tries + 1 < PORT_TRIES ? 0 : EADDRINUSE;
	}
	errno = err;
	return sock->udp == -1 && sock->tcp == -1 ? -1 : 0;
}

static void warn_unbound(const struct dns_socket *sock, int err)
{
	const char *what = "UDP and TCP";
	char text[IP_PORT_STRLEN];

	if (sock->udp >= 0)
		what = "TCP";
	else if (sock->tcp >= 0)
		what = "UDP";
	log_warn("DNS stub: cannot listen on %s (%s): %s",
		ip_port_format(&sock->addr, text, sizeof(text)), what,
		log_strerror(err));
}

int dns_socket_open(struct dns_socket *sock, const struct ip_port *addr)
{
	int err;

	sock->addr = *addr;
	if (bind_both(sock) == 0) {
		if (sock->udp == -1 || sock->tcp == -1)
			warn_unbound(sock, errno);
		return 0;
	}
	err = errno;
	warn_unbound(sock, err);
	errno = err;
	return -1;
}

void dns_socket_close(struct dns_socket *sock)
{
	closefd_if(&sock->udp);
	closefd_if(&sock->tcp);
}
