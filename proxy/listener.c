/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/listener.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/connect.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define NO_CAPABILITY "TPROXY needs CAP_NET_ADMIN: Operation not permitted"

const char *listener_check(const struct endpoint *ep)
{
	switch (ep->kind) {
	case ENDPOINT_VSOCK:
	case ENDPOINT_UNIX:
	case ENDPOINT_TCP: return NULL;
	case ENDPOINT_VSOCK_MUX:
		return "expected vsock, unix or tcp: connections that a guest "
		       "makes to PORT arrive on the socket unix:/path_PORT";
	case ENDPOINT_NONE: break;
	}
	return "expected an endpoint";
}

/* Look a TCP endpoint's name up. Return: NULL, or why not. */
static const char *resolve_name(struct listener *l)
{
	const struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE,
	};
	struct addrinfo *list;
	int err;

	if (l->ep.kind != ENDPOINT_TCP || l->ep.addr.family != AF_UNSPEC)
		return NULL;
	err = getaddrinfo(l->ep.text, NULL, &hints, &list);
	if (err)
		return err == EAI_SYSTEM ? log_strerror(errno)
					 : gai_strerror(err);
	ip_port_from_sockaddr(
		&l->ep.addr, list->ai_addr, (socklen_t)list->ai_addrlen);
	l->ep.addr.port = (uint16_t)l->ep.port;
	freeaddrinfo(list);
	return NULL;
}

int listener_transparent(const struct listener *l)
{
	int on = 1;

	if (l->family == AF_INET6 &&
		setsockopt(l->fd, SOL_IPV6, IPV6_TRANSPARENT, &on,
			sizeof(on)) == -1)
		return errno;
	/* Both for the IPv4 clients of a dual-stack socket. */
	if (setsockopt(l->fd, SOL_IP, IP_TRANSPARENT, &on, sizeof(on)) == -1)
		return errno;
	return 0;
}

void listener_share(const struct listener *l, bool on)
{
	int value = on;

	setsockopt(l->fd, SOL_SOCKET, SO_REUSEPORT, &value, sizeof(value));
}

static void set_options(const struct listener *l)
{
	int on = 1;

	if (l->ep.kind == ENDPOINT_TCP) {
		setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		tcp_options(l->fd); /* connections inherit them */
	}
	if (l->ep.kind == ENDPOINT_VSOCK)
		vsock_options(l->fd);
}

/* Does somebody listen on a unix socket? Where that cannot be told, assume
 * so: replacing a live socket is worse than refusing a dead one. */
static bool is_alive(const union endpoint_sockaddr *addr, socklen_t len)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool refused;

	if (fd == -1)
		return true;
	refused = connect(fd, &addr->sa, len) == -1 && errno == ECONNREFUSED;
	closefd(&fd);
	return !refused;
}

/*
 * bind() to a unix socket file, replacing a stale one.
 * Return: 0, or -1 and errno.
 */
static int bind_unix(int fd, const union endpoint_sockaddr *addr, socklen_t len)
{
	const char *path = addr->un.sun_path;
	struct stat st;

	if (bind(fd, &addr->sa, len) == 0)
		return 0;
	if (errno != EADDRINUSE || lstat(path, &st) == -1)
		return -1;
	errno = EADDRINUSE;
	if (!S_ISSOCK(st.st_mode) || is_alive(addr, len)) {
		errno = EADDRINUSE;
		return -1;
	}
	log_info("replacing %s, which nobody listens on", path);
	if (unlink(path) == -1)
		return -1;
	return bind(fd, &addr->sa, len);
}

/* Lock the directory of @path against others that do the same. A file system
 * without locks is not a reason to fail. Return: an fd to close, or -1. */
static int lock_directory(const char *path)
{
	char dir[ENDPOINT_NAME_MAX + 1]; /* as in struct endpoint */
	char *slash;
	int fd;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	assert(slash);
	slash[slash == dir ? 1 : 0] = '\0';
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd != -1)
		flock(fd, LOCK_EX);
	return fd;
}

static void note_file(struct listener *l)
{
	struct stat st;

	if (lstat(l->ep.text, &st) == 0) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
}

static int bind_and_listen(
	struct listener *l, const union endpoint_sockaddr *addr, socklen_t len)
{
	int lock = -1;
	int rc;

	if (l->ep.kind == ENDPOINT_UNIX) {
		lock = lock_directory(l->ep.text);
		rc = bind_unix(l->fd, addr, len);
	} else {
		rc = bind(l->fd, &addr->sa, len);
	}
	if (rc == 0)
		rc = listen(l->fd, SOMAXCONN);
	if (rc == 0 && l->ep.kind == ENDPOINT_UNIX)
		note_file(l);
	closefd_if(&lock);
	return rc;
}

/* Take over the port that the kernel chose for port 0 (TCP), or for
 * VMADDR_PORT_ANY. */
static void note_port(struct listener *l)
{
	union endpoint_sockaddr any;
	socklen_t len = sizeof(any);

	memset(&any, 0, sizeof(any));
	if (l->ep.kind == ENDPOINT_UNIX ||
		getsockname(l->fd, &any.sa, &len) == -1)
		return;
	if (l->ep.kind == ENDPOINT_VSOCK)
		l->ep.port = any.vm.svm_port;
	else if (ip_port_from_sockaddr(&l->ep.addr, &any.sa, len) == 0)
		l->ep.port = l->ep.addr.port;
	endpoint_format(&l->ep, l->text, sizeof(l->text));
}

const char *listener_try(struct listener *l, const struct endpoint *ep,
	const struct listener_options *options)
{
	union endpoint_sockaddr addr;
	const char *why;
	socklen_t len;
	int err;

	memset(l, 0, sizeof(*l));
	l->fd = -1;
	l->ep = *ep;
	endpoint_format(ep, l->text, sizeof(l->text));
	assert(!listener_check(ep));
	why = resolve_name(l);
	if (why)
		return why;
	len = endpoint_sockaddr(&l->ep, &addr);
	assert(len > 0);
	l->family = addr.sa.sa_family;
	l->fd = socket(
		l->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd == -1)
		goto fail;
	set_options(l);
	if (options->share)
		listener_share(l, true);
	errno = options->transparent ? listener_transparent(l) : 0;
	if (errno == EPERM)
		why = NO_CAPABILITY;
	if (errno || bind_and_listen(l, &addr, len) == -1)
		goto fail;
	note_port(l);
	return NULL;
fail:
	err = errno;
	closefd_if(&l->fd);
	return why ? why : log_strerror(err);
}

int listener_open(struct listener *l, const struct endpoint *ep)
{
	const struct listener_options options = {0};
	const char *why = listener_try(l, ep, &options);

	if (why)
		log_error("cannot listen on %s: %s", l->text, why);
	return why ? -1 : 0;
}

bool listener_is_reached(const struct listener *l)
{
	struct stat st;

	if (l->ep.kind != ENDPOINT_UNIX)
		return true;
	return l->ino != 0 && lstat(l->ep.text, &st) == 0 &&
	       st.st_dev == l->dev && st.st_ino == l->ino;
}

void listener_close(struct listener *l)
{
	if (l->fd == -1)
		return;
	/* First the file, so that nobody connects to a socket that is about
	 * to go, where a successor may be waiting behind it. */
	if (l->ep.kind == ENDPOINT_UNIX && listener_is_reached(l))
		unlink(l->ep.text);
	closefd(&l->fd);
}
