/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/host_port.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/connect.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

/*
 * Theory of operation
 *
 * A port is bound when a program in the enclave binds it and listened on when
 * that program listens; in between a client must be refused and nobody else
 * may have the port.
 *
 * SO_REUSEADDR, so that a port can be bound although connections of its
 * previous life linger in TIME_WAIT. But among sockets that all have it, and
 * do not listen, the kernel lets several bind the same port, and the first to
 * listen wins. So it is on while binding and off while the port is held: then
 * another program's bind() (or, with older kernels, its listen()) fails. It is
 * on again for listen(), which repeats the check against what lingers. Two
 * exports of our own never meet in the kernel: their owner compares them
 * before it comes here.
 *
 * SO_REUSEPORT is never set: it would let another process of the same user
 * share the port, and take clients.
 *
 * IPv6 sockets are V6ONLY: each family has its own, and a client's family is
 * that of the socket it came to.
 *
 * Addresses that the host does not have (no IPv6, say) are left out as long as
 * one of the scope is there: that is what a dual-stack server meets on such a
 * host. None at all is EADDRNOTAVAIL.
 *
 * Any port: the kernel chooses for the first address, and the others must take
 * that number, or all is given back and tried again. Where the operator limits
 * the ports, the allowed ones are tried in turn, from a random one on. Both a
 * bounded number of times.
 */

#define TRIES 128

static void set_option(int fd, int level, int name, int value)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)) == -1)
		log_warn_ratelimit("setsockopt: %s", log_strerror(errno));
}

static void reuse(int fd, bool on)
{
	set_option(fd, SOL_SOCKET, SO_REUSEADDR, on);
}

void host_port_init(struct host_port *hp)
{
	memset(hp, 0, sizeof(*hp));
	for (size_t i = 0; i < BIND_ADDRESSES_MAX; i++)
		hp->fd[i] = -1;
}

void host_port_close(struct host_port *hp)
{
	while (hp->nr > 0)
		closefd(&hp->fd[--hp->nr]);
	hp->port = 0;
}

/* Make a socket bound to @addr. Return: an fd, or -1 and errno. */
static int open_one(const struct ip_port *addr)
{
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(addr, &any);
	int fd = socket(
		addr->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	if (addr->family == AF_INET6)
		set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	tcp_options(fd); /* connections inherit them */
	/* Not for port 0: what the kernel chooses is to be nobody else's. */
	reuse(fd, addr->port != 0);
	if (bind(fd, &any.sa, len) == -1)
		closefd(&fd);
	else
		reuse(fd, false);
	return fd;
}

/* The port that the kernel has chosen. Return: 0 or an errno. */
static int chosen_port(int fd, uint16_t *port)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	struct ip_port addr;

	if (getsockname(fd, &any.sa, &len) == -1)
		return errno;
	if (ip_port_from_sockaddr(&addr, &any.sa, len) == -1)
		return EINVAL;
	*port = addr.port;
	return 0;
}

static bool is_missing(int err)
{
	return err == EADDRNOTAVAIL || err == EAFNOSUPPORT;
}

/* Bind one more address, to the port of the ones before. */
static int add_one(struct host_port *hp, struct ip_port addr)
{
	int fd;

	addr.port = hp->port;
	fd = open_one(&addr);
	if (fd == -1)
		return errno;
	hp->fd[hp->nr] = fd;
	hp->family[hp->nr++] = (sa_family_t)addr.family;
	return hp->port == 0 ? chosen_port(fd, &hp->port) : 0;
}

/* Bind all of @addr that this host has to @port. */
static int open_all(struct host_port *hp, const struct ip_port *addr, size_t nr,
	uint16_t port)
{
	char text[IP_PORT_STRLEN];
	int err = 0;

	hp->port = port;
	for (size_t i = 0; i < nr && !err; i++) {
		err = add_one(hp, addr[i]);
		if (!is_missing(err))
			continue;
		if (!ip_port_is_any(&addr[i]))
			log_warn_ratelimit("no port on %s: %s",
				ip_port_format(&addr[i], text, sizeof(text)),
				log_strerror(err));
		err = 0;
	}
	if (!err && hp->nr == 0)
		err = EADDRNOTAVAIL;
	if (err)
		host_port_close(hp);
	return err;
}

/* A port to start from. Not for secrecy: so that not all try the same. */
static uint16_t random_port(void)
{
	uint16_t port = 0;

	if (getrandom(&port, sizeof(port), GRND_NONBLOCK) != sizeof(port))
		port = 0;
	return port;
}

/*
 * Let the kernel choose a port.
 */
static int open_chosen(struct host_port *hp, const struct bind_policy *policy,
	const struct ip_port *addr, size_t nr,
	bool (*taken)(void *arg, uint16_t port), void *arg)
{
	for (int i = 0; i < TRIES; i++) {
		int err = open_all(hp, addr, nr, 0);

		if (err && err != EADDRINUSE)
			return err;
		if (!err && !taken(arg, hp->port) &&
			!bind_policy_is_published(policy, hp->port))
			return 0;
		host_port_close(hp);
	}
	return EADDRINUSE;
}

/* Find one among the allowed ports; some of them may be privileged. */
static int open_allowed(struct host_port *hp, const struct bind_policy *policy,
	const struct ip_port *addr, size_t nr,
	bool (*taken)(void *arg, uint16_t port), void *arg)
{
	uint16_t first = bind_policy_next_allowed(policy, random_port());
	uint16_t port = first;
	int err = first ? EADDRINUSE : EACCES;

	for (int i = 0; i < TRIES && port != 0; i++) {
		if (!taken(arg, port) &&
			!bind_policy_is_published(policy, port)) {
			err = open_all(hp, addr, nr, port);
			if (err != EADDRINUSE && err != EACCES && err != EPERM)
				return err;
		}
		port = bind_policy_next_allowed(policy, port);
		if (port == first)
			break;
	}
	return err;
}

int host_port_open(struct host_port *hp, const struct bind_policy *policy,
	const struct bind_scope *scope, uint16_t port,
	bool (*taken)(void *arg, uint16_t port), void *arg)
{
	struct ip_port addr[BIND_ADDRESSES_MAX];
	size_t nr = bind_policy_addresses(policy, scope, addr);

	assert(hp->nr == 0);
	if (nr == 0)
		return EADDRNOTAVAIL;
	if (port != 0)
		return open_all(hp, addr, nr, port);
	if (policy->limited)
		return open_allowed(hp, policy, addr, nr, taken, arg);
	return open_chosen(hp, policy, addr, nr, taken, arg);
}

int host_port_listen(struct host_port *hp)
{
	size_t i;
	int err = 0;

	for (i = 0; i < hp->nr && !err; i++) {
		reuse(hp->fd[i], true);
		if (listen(hp->fd[i], SOMAXCONN) == -1)
			err = errno;
	}
	if (!err)
		return 0;
	/* Back to what they were: on Linux this ends listening, and the port
	 * stays bound. */
	while (i-- > 0) {
		shutdown(hp->fd[i], SHUT_RDWR);
		reuse(hp->fd[i], false);
	}
	return err;
}
