/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/log.h"
#include "resolv/dns_stub_int.h"

#include <errno.h>
#include <sys/socket.h>

#define UDP_PER_EVENT    64 /* datagrams; then others have their turn */
#define ACCEPT_PER_EVENT 64
#define ACCEPT_PAUSE     0.1 /* seconds */

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

void listener_start(
	struct dns_stub *stub, const struct dns_socket *sock, unsigned first)
{
	struct listener *listener = &stub->listeners[stub->nr_listeners];

	listener->stub = stub;
	listener->addr = sock->addr;
	listener->udp = sock->udp;
	listener->tcp = sock->tcp;
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
