/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/log.h"
#include "resolv/dns_stub_int.h"

#include <errno.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG   SOMAXCONN
#define UDP_RCVBUF       (1024 * 1024) /* bytes; the kernel may give less */
#define UDP_PER_EVENT    64 /* datagrams; then others have their turn */
#define ACCEPT_PER_EVENT 64
#define ACCEPT_PAUSE     0.1 /* seconds */
#define PORT_TRIES       16  /* to find one that is free for UDP and TCP */

static void on_udp(struct ev_loop *loop, ev_io *io, int revents)
{
	struct listener *listener = io->data;
	struct dns_stub *stub = listener->stub;
	int i;

	for (i = 0; i < UDP_PER_EVENT; i++) {
		union sockaddr_any peer;
		socklen_t peer_len = sizeof(peer);
		ssize_t n = recvfrom(listener->udp, stub->in, sizeof(stub->in),
			MSG_DONTWAIT, &peer.sa, &peer_len);

		if (n == -1 && errno != EINTR && errno != EAGAIN)
			log_warn_ratelimit(
				"DNS stub: UDP: %s", log_strerror(errno));
		if (n == -1)
			return;
		if (n <= DNS_MSG_MAX)
			stub_take_query(listener, NULL, &peer, peer_len,
				stub->in, (size_t)n);
	}
}

/*
 * Out of descriptors, memory or clients: let some be freed first, without
 * spinning. Whoever wants to connect waits in the backlog.
 */
static void accept_pause(struct listener *listener, const char *why)
{
	struct ev_loop *loop = listener->stub->loop;

	log_warn_ratelimit("DNS stub: accept: %s", why);
	ev_io_stop(loop, &listener->tcp_io);
	ev_timer_set(&listener->pause, ACCEPT_PAUSE, 0.);
	ev_timer_start(loop, &listener->pause);
}

static void on_pause(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct listener *listener = timer->data;

	ev_io_start(loop, &listener->tcp_io);
}

static void on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	struct listener *listener = io->data;
	struct dns_stub *stub = listener->stub;
	int i;

	for (i = 0; i < ACCEPT_PER_EVENT; i++) {
		int fd;

		if (stub->nr_clients >= stub->config.max_clients && i > 0)
			return; /* nobody may be waiting: end no one for that */
		if (!client_make_room(stub)) {
			accept_pause(listener, "all clients busy");
			return;
		}
		fd = accept4(listener->tcp, NULL, NULL,
			SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			client_start(listener, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			errno == ENOMEM) {
			accept_pause(listener, log_strerror(errno));
			return;
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

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
static int bind_both(struct listener *listener)
{
	bool any_port = listener->addr.port == 0;
	int err = 0;
	int tries;

	for (tries = 0; tries < PORT_TRIES; tries++) {
		if (any_port)
			listener->addr.port = 0;
		listener->udp = bind_one(&listener->addr, SOCK_DGRAM);
		if (listener->udp == -1)
			err = errno;
		listener->tcp = bind_one(&listener->addr, SOCK_STREAM);
		if (listener->tcp == -1)
			err = errno;
		if (err != EADDRINUSE || !any_port)
			break;
		closefd_if(&listener->udp);
		closefd_if(&listener->tcp);
		err = tries + 1 < PORT_TRIES ? 0 : EADDRINUSE;
	}
	errno = err;
	return listener->udp == -1 && listener->tcp == -1 ? -1 : 0;
}

static void warn_unbound(const struct listener *listener, int err)
{
	const char *what = "UDP and TCP";
	char text[IP_PORT_STRLEN];

	if (listener->udp >= 0)
		what = "TCP";
	else if (listener->tcp >= 0)
		what = "UDP";
	log_warn("DNS stub: cannot listen on %s (%s): %s",
		ip_port_format(&listener->addr, text, sizeof(text)), what,
		log_strerror(err));
}

int listener_start(
	struct dns_stub *stub, const struct ip_port *addr, unsigned first)
{
	struct listener *listener = &stub->listeners[stub->nr_listeners];

	listener->stub = stub;
	listener->addr = *addr;
	if (bind_both(listener) == -1) {
		int err = errno;

		warn_unbound(listener, err);
		errno = err;
		return -1;
	}
	if (listener->udp == -1 || listener->tcp == -1)
		warn_unbound(listener, errno);
	listener->first = first;
	ev_io_init(&listener->udp_io, on_udp, listener->udp, EV_READ);
	ev_io_init(&listener->tcp_io, on_accept, listener->tcp, EV_READ);
	ev_init(&listener->pause, on_pause);
	listener->udp_io.data = listener;
	listener->tcp_io.data = listener;
	listener->pause.data = listener;
	if (listener->udp >= 0)
		ev_io_start(stub->loop, &listener->udp_io);
	if (listener->tcp >= 0)
		ev_io_start(stub->loop, &listener->tcp_io);
	stub->nr_listeners++;
	return 0;
}

void listener_stop(struct listener *listener)
{
	struct ev_loop *loop = listener->stub->loop;

	ev_io_stop(loop, &listener->udp_io);
	ev_io_stop(loop, &listener->tcp_io);
	ev_timer_stop(loop, &listener->pause);
	closefd_if(&listener->udp);
	closefd_if(&listener->tcp);
}
