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
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* How long a call that may wait does so for room in the vendor's backlog, and
 * one that may not. */
#define PATIENT_MS 10000
#define HURRIED_MS 10
/* The vendor answers BIND and LISTEN within its own, shorter time. */
#define ANSWER_MS 30000

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* connect(2) with SO_SNDTIMEO, through signals: of what they interrupt here
 * the application knows nothing. */
static int connect_through(
	int sock, const struct sockaddr_un *addr, int limit_ms)
{
	int64_t deadline = now_ms() + limit_ms;
	int rc;

	do
		rc = real()->connect(
			sock, (const struct sockaddr *)addr, sizeof(*addr));
	while (rc == -1 && errno == EINTR && now_ms() < deadline);
	return rc;
}

/* proxify has looked at the one that it names in the environment. Without it
 * somebody else may have made the default path before our vendor did, and
 * would see where the application wants to go and all that it says there. */
static bool is_trusted(int sock)
{
	static atomic_bool said;
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t len = sizeof(peer);

	if (!config()->vendor_is_default)
		return true;
	if (real()->getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) ==
			0 &&
		(peer.uid == 0 || peer.uid == geteuid()))
		return true;
	warn_once(&said, "this socket_vendor is another user's, not used",
		config()->vendor_path);
	return false;
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
	} else if (!is_trusted(sock)) {
		closefd(&sock);
		errno = ECONNREFUSED;
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

/* poll() for input until @deadline, through signals: bind() and listen() know
 * no EINTR. Return: 0, or -1 and ETIMEDOUT. */
static int wait_answer(int control, int64_t deadline)
{
	struct pollfd pfd = {.fd = control, .events = POLLIN};
	int64_t left;
	int rc;

	do {
		left = deadline - now_ms();
		rc = poll(&pfd, 1, left > 0 ? (int)left : 0);
	} while (rc == -1 && errno == EINTR);
	if (rc == 0)
		errno = ETIMEDOUT;
	return rc > 0 ? 0 : -1;
}

/*
 * Send a request and read its result. The control must not have listened yet:
 * an ACCEPT on it would be taken for the answer, and a client lost.
 * Return: 0, or -1 and errno; a vendor that hangs up is ECONNRESET or EPIPE.
 */
static int ask(int control, const struct vendor_request *req, int limit_ms,
	struct vendor_result *res)
{
	int64_t deadline = now_ms() + limit_ms;
	int stray;
	int nr_fds;
	ssize_t n;

	if (send_request(control, req) == -1)
		return -1;
	do {
		if (wait_answer(control, deadline) == -1)
			return -1;
		n = fd_recv(control, res, sizeof(*res), &stray, &nr_fds,
			MSG_DONTWAIT);
	} while (n == -1 && (errno == EAGAIN || errno == EINTR));
	closefd_if(&stray);
	if (n == -1)
		return -1;
	if (n == 0)
		return fail(ECONNRESET);
	if (vendor_result_check(res, (size_t)n, nr_fds) || res->op != req->op)
		return fail(EPROTO);
	if (res->status == ENETDOWN)
		warn_of_host_proxy();
	return res->status == 0 ? 0 : fail(res->status);
}

/* Is this how ask() says that the vendor is dead? */
static bool hung_up(int err)
{
	return err == ECONNRESET || err == EPIPE || err == ENOTCONN;
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
	if (ask(control, &req, ANSWER_MS + (int)config()->wait_ms, &res) ==
		-1) {
		closefd(&control);
		return hung_up(errno) ? fail(ENETDOWN) : -1;
	}
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

/* Somebody who shares the control may have called listen(): its tag tells. */
static bool adopt_tag(int fd, struct found *found)
{
	struct record tag;

	if (!tag_read(fd, &tag) || tag.kind != RECORD_LISTENER)
		return false;
	found->rec.kind = RECORD_LISTENER;
	found->rec.backlog = tag.backlog;
	found->rec.shut = tag.shut;
	slot_store(fd, found->cookie, &found->rec);
	return true;
}

/* One process at a time asks on a control. The lock goes with its owner. */
static void lock(int fd, short type)
{
	struct flock range = {.l_type = type, .l_whence = SEEK_SET};

	while (real()->fcntl(fd, F_SETLKW, &range) == -1 && errno == EINTR)
		;
}

/* Return: 0, or -1 and errno; with the vendor dead, the control is replaced. */
static int ask_to_listen(int fd, struct found *found)
{
	struct vendor_request req;
	struct vendor_result res;

	fill_request(&req, VENDOR_LISTEN, &found->rec, &found->rec.local);
	found->rec.kind = RECORD_LISTENER;
	if (ask(fd, &req, ANSWER_MS, &res) == -1)
		return hung_up(errno) ? control_rejoin(fd, found) : -1;
	option_replay(fd, &found->rec);
	found->rec.tagged = tag_attach(fd, &found->rec) == 0;
	slot_store(fd, found->cookie, &found->rec);
	return 0;
}

int control_listen(int fd, struct found *found, int backlog)
{
	int rc = 0;

	if (found->rec.kind != RECORD_LISTENER && !adopt_tag(fd, found)) {
		lock(fd, F_WRLCK);
		found->rec.backlog = backlog;
		if (!adopt_tag(fd, found))
			rc = ask_to_listen(fd, found);
		lock(fd, F_UNLCK);
	} else if (found->rec.shut) {
		found->rec.shut = 0;
		rc = control_rejoin(fd, found);
	} /* else a new backlog: not worth a race with accept() */
	if (rc == -1 && no_vendor(errno))
		return without_vendor();
	return rc;
}
