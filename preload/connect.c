/* SPDX-License-Identifier: Apache-2.0 */

/*
 * connect() and shutdown(), as TCP has them.
 *
 * What connect() returns on each kind of socket behind the fd (the kernel's
 * inet_stream_connect() is the model):
 *
 *	unconnected TCP, destination outside	gate_connect()
 *	other TCP, or destination kept local	the kernel's answer
 *	gate, undecided				EALREADY, or wait if blocking
 *	gate, connected meanwhile		0 the first time
 *	gate, failed				the error; unconnected again
 *	carrier					EISCONN, but 0 the first time
 *						after an EINPROGRESS or EINTR
 *	bound control				the port is let go; as TCP,
 *						but AF_UNSPEC changes nothing
 *	listener				EISCONN
 *	any of ours, AF_UNSPEC			0; unconnected again
 */

#include "preload/connect.h"
#include "preload/address.h"
#include "preload/config.h"
#include "preload/gate.h"
#include "preload/real.h"
#include "preload/tag.h"

#include <errno.h>
#include <netinet/tcp.h>

/* Linux leaves TCP's states to <netinet/tcp.h>'s enum. */
#define STATE_UNCONNECTED TCP_CLOSE

/* A call on a socket that connected in the background: 0 once. */
static int connect_on_carrier(int fd, struct found *found)
{
	if (!found->rec.async)
		return fail(EISCONN);
	found->rec.async = 0;
	slot_store(fd, found->cookie, &found->rec);
	return 0;
}

static int connect_on_gate(int fd)
{
	bool nonblock = real()->fcntl(fd, F_GETFL) & O_NONBLOCK;
	struct found found;
	int err;

	switch (gate_settle(fd, nonblock ? GATE_TAKE : GATE_WAIT_SEND, &err)) {
	case GATE_PENDING: return fail(err == EAGAIN ? EALREADY : err);
	case GATE_FAILED: return fail(err);
	case GATE_OPEN:
	case GATE_NONE: break;
	}
	return lookup(fd, &found) ? connect_on_carrier(fd, &found) : 0;
}

/* Give up the attempt, for every duplicate of the gate, and whoever waits; he
 * may be the faster one to put a fresh socket there. */
static int give_up(int fd, struct found *found)
{
	uint64_t gate = found->cookie;

	real()->shutdown(fd, SHUT_RDWR);
	if (replace_with_tcp(fd, found) == 0 || socket_cookie(fd) != gate)
		return 0;
	return -1;
}

/* connect() with AF_UNSPEC. */
static int disconnect(int fd, struct found *found)
{
	switch (found->rec.kind) {
	case RECORD_GATE: return give_up(fd, found);
	case RECORD_BOUND: return 0;
	default: return replace_with_tcp(fd, found);
	}
}

/* An AF_INET6 socket may reach IPv4 unless it is told not to; every other
 * mismatch of families is the kernel's to refuse. */
static bool family_fits(int fd, int family, const struct ip_port *dst)
{
	struct ip_port plain = *dst;
	int only = 0;
	socklen_t len = sizeof(only);

	if (dst->family != family)
		return false;
	ip_port_unmap(&plain);
	if (plain.family == family)
		return true;
	return real()->getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &len) ==
		       -1 ||
	       !only;
}

static bool is_ours(int fd, const struct ip_port *dst)
{
	return dst->family != AF_UNSPEC && !config_keeps_local(dst) &&
	       kernel_tcp_state(fd) == STATE_UNCONNECTED &&
	       family_fits(fd, socket_int(fd, SO_DOMAIN), dst);
}

bool connect_is_ours(int fd, const struct sockaddr *addr, socklen_t len)
{
	union sockaddr_any any;
	struct ip_port dst;

	len = address_take(&any, addr, len);
	ip_port_from_sockaddr(&dst, &any.sa, len);
	return is_ours(fd, &dst);
}

/* To connect to the wildcard address is to connect to loopback (tcp_v6_connect:
 * "BSD'ism"), and getpeername() says so. */
static void any_is_loopback(struct ip_port *dst)
{
	bool mapped = dst->ip[10] == 0xff;

	if (!ip_port_is_any(dst))
		return;
	if (dst->family == AF_INET) {
		dst->ip[0] = 127;
		dst->ip[3] = 1;
	} else {
		dst->ip[12] = mapped ? 127 : 0;
		dst->ip[15] = 1;
	}
}

/* A port is no use to a client. A destination of another family leaves it, as
 * it leaves a TCP socket. */
static int let_port_go(int fd, struct found *found, const struct ip_port *dst)
{
	if (dst->family != found->rec.family)
		return fail(dst->family == AF_INET ? EINVAL : EAFNOSUPPORT);
	return replace_with_tcp(fd, found);
}

int proxy_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	union sockaddr_any any;
	struct ip_port dst;
	struct found found;
	socklen_t taken = address_take(&any, addr, len);

	if (taken == 0)
		return real()->connect(fd, addr, len);
	ip_port_from_sockaddr(&dst, &any.sa, taken);
	if (any.sa.sa_family == AF_UNSPEC) {
		if (lookup(fd, &found)) /* a carrier may be TCP, too */
			return disconnect(fd, &found);
		gate_interrupt(fd);
		return real()->connect(fd, addr, len);
	}
	if (slot_known(fd) && lookup(fd, &found)) {
		if (found.rec.kind == RECORD_GATE)
			return connect_on_gate(fd);
		if (found.rec.kind != RECORD_BOUND)
			return connect_on_carrier(fd, &found);
		if (let_port_go(fd, &found, &dst) == -1)
			return -1;
	}
	if (is_ours(fd, &dst)) {
		any_is_loopback(&dst);
		return gate_connect(fd, dst.family, &dst);
	}
	if (dst.family != AF_UNSPEC && kernel_tcp_state(fd) == -1 &&
		lookup(fd, &found))
		return connect_on_carrier(fd, &found);
	return real()->connect(fd, addr, len);
}

/* TCP in SYN_SENT gives up the attempt, whatever @how says; a failed one is
 * not connected, and its error stays. Return: as shutdown(), 1 to go on. */
static int shutdown_gate(int fd)
{
	struct found found;
	int err;

	switch (gate_settle(fd, GATE_LOOK, &err)) {
	case GATE_PENDING: return lookup(fd, &found) ? give_up(fd, &found) : 0;
	case GATE_FAILED: return fail(ENOTCONN);
	case GATE_NONE:
	case GATE_OPEN: break;
	}
	return 1;
}

/* A listener that cannot receive stops listening, and whoever waits in
 * accept() gets EINVAL. */
static int shutdown_listener(int fd, struct found *found, int how)
{
	if (how == SHUT_WR)
		return 0;
	found->rec.shut = 1;
	slot_store(fd, found->cookie, &found->rec);
	/* for whoever shares it: a dead vendor looks the same */
	tag_attach(fd, &found->rec);
	return real()->shutdown(fd, SHUT_RDWR);
}

static int proxy_shutdown(int fd, int how)
{
	struct found found;
	int rc;

	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return real()->shutdown(fd, how);
	rc = slot_may_be_gate(fd) ? shutdown_gate(fd) : 1;
	if (rc != 1)
		return rc;
	if (slot_known(fd) && lookup(fd, &found)) {
		if (found.rec.kind == RECORD_LISTENER)
			return shutdown_listener(fd, &found, how);
		if (found.rec.kind == RECORD_BOUND)
			return fail(ENOTCONN);
	}
	rc = real()->shutdown(fd, how);
	/* To the kernel it is not connected; another thread may be at it. */
	return rc == -1 && errno == ENOTCONN && gate_interrupt(fd) ? 0 : rc;
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int saved = errno;

	return done(proxy_connect(fd, addr, len), saved);
}

EXPORT int shutdown(int fd, int how)
{
	int saved = errno;

	return done(proxy_shutdown(fd, how), saved);
}
