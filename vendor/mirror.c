/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/mirror.h"
#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/*
 * Theory of operation
 *
 *	OFF      bound, perhaps listening; clients stay in the kernel's backlog
 *	ON       clients are taken, ACCEPT_BATCH a turn
 *	PAUSING  as OFF for ACCEPT_PAUSE: the process is short of something
 *
 * It binds the wildcard address and not 127.0.0.1, so that 127.0.1.1 (what
 * many an /etc/hosts has for the machine's own name) is reached too. Whoever
 * comes over any other address of the enclave is turned away with a reset, as
 * if nobody listened: what leaves or enters the enclave does so through the
 * host proxy only.
 *
 * SO_REUSEADDR is set, or a restarted server would wait for the TIME_WAIT of
 * its predecessor's connections.
 */

#define MIRROR_MAGIC 0x6d697272u
#define ACCEPT_BATCH 16
#define ACCEPT_PAUSE 0.1 /* seconds */

enum mirror_state { MIRROR_OFF, MIRROR_ON, MIRROR_PAUSING };

struct mirror {
	uint32_t magic;
	enum mirror_state state;
	struct ev_loop *loop;
	int fd;
	uint16_t port;
	ev_io accept;
	ev_timer pause;
	mirror_client_cb *cb;
	void *arg;
};

/* The watchers follow from the state, here and nowhere else. */
static void set_state(struct mirror *m, enum mirror_state state)
{
	if (m->state == state)
		return;
	m->state = state;
	if (state == MIRROR_ON)
		ev_io_start(m->loop, &m->accept);
	else
		ev_io_stop(m->loop, &m->accept);
	if (state == MIRROR_PAUSING) {
		ev_timer_set(&m->pause, ACCEPT_PAUSE, 0);
		ev_timer_start(m->loop, &m->pause);
	} else {
		ev_timer_stop(m->loop, &m->pause);
	}
}

static void turn_away(int fd)
{
	const struct linger reset = {.l_onoff = 1};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	closefd(&fd);
}

static void welcome(struct mirror *m, int fd, const union sockaddr_any *peer,
	socklen_t peer_len)
{
	union sockaddr_any own;
	socklen_t own_len = sizeof(own);
	struct ip_port remote, local;

	if (getsockname(fd, &own.sa, &own_len) == -1 ||
		ip_port_from_sockaddr(&local, &own.sa, own_len) == -1 ||
		ip_port_from_sockaddr(&remote, &peer->sa, peer_len) == -1 ||
		!ip_port_is_loopback(&local)) {
		turn_away(fd);
		return;
	}
	m->cb(fd, &remote, &local, m->arg);
}

/* Return: is there perhaps another one? */
static bool accept_one(struct mirror *m)
{
	union sockaddr_any peer;
	socklen_t len = sizeof(peer);
	int fd = accept4(m->fd, &peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0) {
		welcome(m, fd, &peer, len);
		return m->state == MIRROR_ON;
	}
	if (errno == EINTR || errno == ECONNABORTED)
		return true;
	if (errno != EAGAIN) {
		log_warn_ratelimit("local clients of port %u: accept: %s",
			m->port, log_strerror(errno));
		set_state(m, MIRROR_PAUSING);
	}
	return false;
}

static void on_accept(struct ev_loop *loop, ev_io *watcher, int revents)
{
	struct mirror *m = watcher->data;

	assert(m->magic == MIRROR_MAGIC && m->state == MIRROR_ON);
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		if (!accept_one(m))
			break;
	}
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct mirror *m = timer->data;

	assert(m->magic == MIRROR_MAGIC && m->state == MIRROR_PAUSING);
	set_state(m, MIRROR_ON);
}

static int bound_socket(const struct ip_port *addr, bool v6only)
{
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(addr, &any);
	const int on = 1;
	const int only = v6only;
	int fd = socket(any.sa.sa_family,
		SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == -1 ||
		(any.sa.sa_family == AF_INET6 &&
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only,
				sizeof(only)) == -1) ||
		bind(fd, &any.sa, len) == -1)
		closefd(&fd);
	return fd;
}

struct mirror *mirror_bind(struct ev_loop *loop, const struct ip_port *addr,
	bool v6only, mirror_client_cb *cb, void *arg)
{
	struct mirror *m = calloc(1, sizeof(*m));

	assert(ip_port_is_any(addr) && addr->port != 0);
	if (!m)
		return NULL;
	m->fd = bound_socket(addr, v6only);
	if (m->fd == -1) {
		free(m);
		return NULL;
	}
	m->magic = MIRROR_MAGIC;
	m->loop = loop;
	m->port = addr->port;
	m->cb = cb;
	m->arg = arg;
	ev_io_init(&m->accept, on_accept, m->fd, EV_READ);
	ev_timer_init(&m->pause, on_pause_over, ACCEPT_PAUSE, 0);
	m->accept.data = m->pause.data = m;
	return m;
}

int mirror_listen(struct mirror *m, int backlog)
{
	assert(m->magic == MIRROR_MAGIC);
	assert(1 <= backlog && backlog <= MIRROR_BACKLOG_MAX);
	return listen(m->fd, backlog);
}

void mirror_watch(struct mirror *m, bool on)
{
	assert(m->magic == MIRROR_MAGIC);
	if (on && m->state == MIRROR_PAUSING)
		return;
	set_state(m, on ? MIRROR_ON : MIRROR_OFF);
}

void mirror_free(struct mirror *m)
{
	assert(m->magic == MIRROR_MAGIC);
	set_state(m, MIRROR_OFF);
	closefd(&m->fd);
	m->magic = 0;
	free(m);
}
