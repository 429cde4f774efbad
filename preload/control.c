/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/control.h"
#include "common/fd.h"
#include "common/vendor_msg.h"
#include "preload/config.h"
#include "preload/option.h"
#include "preload/real.h"
#include "preload/tag.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

/* How long a call that may wait does so for room in the vendor's backlog, and
 * one that may not. */
#define PATIENT_MS 10000
#define HURRIED_MS 10
/* The vendor answers BIND and LISTEN within its own, shorter time. */
#define ANSWER_WAIT_S 30

/* connect(2) with SO_SNDTIMEO, through signals: of what they interrupt here
 * the application knows nothing. */
static int connect_through(
	int sock, const struct sockaddr_un *addr, int limit_ms)
{
	struct timespec start, now;
	int rc;

	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		rc = real()->connect(
			sock, (const struct sockaddr *)addr, sizeof(*addr));
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (rc == -1 && errno == EINTR &&
		 (now.tv_sec - start.tv_sec) * 1000 +
				 (now.tv_nsec - start.tv_nsec) / 1000000 <
			 limit_ms);
	return rc;
}

int vendor_socket(bool patient)
{
	int limit_ms = patient ? PATIENT_MS : HURRIED_MS;
	const struct timeval limit = {limit_ms / 1000, limit_ms % 1000 * 1000L};
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	const char *path = config()->vendor_path;
	int sock = real_socket(AF_UNIX, SOCK_SEQPACKET);

	if (sock == -1)
		return -1;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	real()->setsockopt(
		sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect_through(sock, &addr, limit_ms) == -1) {
		closefd(&sock);
		if (errno == EAGAIN || errno == EINTR)
			errno = patient ? ETIMEDOUT : ENOBUFS;
	}
	return sock;
}

bool no_vendor(int err)
{
	return err == ENOENT || err == ENOTDIR || err == ECONNREFUSED ||
	       err == EACCES;
}

static int option_is_set(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return real()->getsockopt(fd, level, name, &value, &len) == 0 && value;
}

static uint8_t bind_flags(int fd, const struct ip_port *dst)
{
	unsigned int flags = 0;

	if (dst->family == AF_INET6 &&
		option_is_set(fd, IPPROTO_IPV6, IPV6_V6ONLY))
		flags |= VENDOR_V6ONLY;
	if (option_is_set(fd, SOL_SOCKET, SO_REUSEPORT))
		flags |= VENDOR_REUSEPORT;
	if (ip_port_is_loopback(dst))
		flags |= VENDOR_LOOPBACK;
	return (uint8_t)flags;
}

static int send_request(int control, const struct vendor_request *req)
{
	return fd_send(control, req, sizeof(*req), -1, 0) == sizeof(*req) ? 0
									  : -1;
}

/*
 * Send a request and read its result; a call of listen() on a listener that
 * already has clients waiting must not take one of them for the answer, so it
 * asks on a control that has not listened yet, or does not ask.
 * Return: 0, or -1 and errno; a vendor that hangs up is ENETDOWN.
 */
static int ask(int control, const struct vendor_request *req,
	struct vendor_result *res)
{
	int stray;
	int nr_fds;
	ssize_t n;

	if (send_request(control, req) == -1)
		return -1;
	do
		n = fd_recv(control, res, sizeof(*res), &stray, &nr_fds, 0);
	while (n == -1 && errno == EINTR);
	closefd_if(&stray);
	if (n <= 0 || vendor_result_check(res, (size_t)n, nr_fds) ||
		res->op != req->op) {
		errno = n == -1 && errno == EAGAIN ? ETIMEDOUT : ENETDOWN;
		return -1;
	}
	errno = res->status;
	return res->status == 0 ? 0 : -1;
}

static void fill_request(struct vendor_request *req, enum vendor_op op,
	const struct record *rec, const struct ip_port *dst)
{
	const char *endpoint = config()->endpoint_text;

	vendor_request_init(req, op);
	req->dst = *dst;
	req->flags = rec->bind_flags;
	req->backlog = rec->backlog;
	req->timeout_ms = config()->wait_ms;
	memcpy(req->key, rec->key, sizeof(req->key));
	memcpy(req->endpoint, endpoint, strlen(endpoint) + 1);
}

static void set_wait(int control, int name, int seconds)
{
	struct timeval tv = {.tv_sec = seconds};

	real()->setsockopt(control, SOL_SOCKET, name, &tv, sizeof(tv));
}

static int without_vendor(void)
{
	static atomic_bool said;

	if (!no_vendor(errno))
		return -1;
	warn_once(&said, "no socket_vendor (start the program with proxify)",
		config()->vendor_path);
	errno = ENETDOWN;
	return -1;
}

int control_bind(int fd, const struct ip_port *dst)
{
	struct vendor_request req;
	struct vendor_result res;
	struct found found;
	int control;

	if (config_refused())
		return -1;
	lookup_options(fd, &found);
	found.rec.family = (uint8_t)dst->family;
	found.rec.bind_flags = bind_flags(fd, dst);
	fill_request(&req, VENDOR_BIND, &found.rec, dst);
	control = vendor_socket(true);
	if (control == -1)
		return without_vendor();
	set_wait(control, SO_RCVTIMEO,
		ANSWER_WAIT_S + (int)(config()->wait_ms / 1000));
	if (ask(control, &req, &res) == -1) {
		closefd(&control);
		return -1;
	}
	set_wait(control, SO_RCVTIMEO, 0);
	found.rec.kind = RECORD_BOUND;
	found.rec.deferred = 0;
	found.rec.local = res.local;
	memcpy(found.rec.key, res.key, sizeof(found.rec.key));
	return replace(fd, found.cookie, &control, &found.rec);
}

/* A new control with what the record says, without waiting for an answer. */
static int open_again(int fd, struct found *found)
{
	struct vendor_request req;
	int control = vendor_socket(false);

	if (control == -1)
		return -1;
	fill_request(&req, VENDOR_REJOIN, &found->rec, &found->rec.local);
	if (send_request(control, &req) == -1) {
		closefd(&control);
		return -1;
	}
	return replace(fd, found->cookie, &control, &found->rec);
}

int control_rejoin(int fd, struct found *found)
{
	if (open_again(fd, found) == -1)
		return -1;
	found->cookie = socket_cookie(fd);
	return 0;
}

int control_listen(int fd, struct found *found, int backlog)
{
	struct vendor_request req;
	struct vendor_result res;
	bool nonblock = real()->fcntl(fd, F_GETFL) & O_NONBLOCK;
	int rc;

	if (found->rec.kind == RECORD_LISTENER)
		return 0; /* a new backlog is not worth a race with accept() */
	found->rec.backlog = backlog;
	fill_request(&req, VENDOR_LISTEN, &found->rec, &found->rec.local);
	if (nonblock)
		fd_set_nonblock(fd, false);
	set_wait(fd, SO_RCVTIMEO, ANSWER_WAIT_S);
	rc = ask(fd, &req, &res);
	set_wait(fd, SO_RCVTIMEO, 0);
	if (nonblock)
		fd_set_nonblock(fd, true);
	if (rc == -1)
		return -1;
	found->rec.kind = RECORD_LISTENER;
	option_replay(fd, &found->rec);
	found->rec.tagged = tag_attach(fd, &found->rec) == 0;
	slot_store(fd, found->cookie, &found->rec);
	return 0;
}
