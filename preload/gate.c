/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/gate.h"
#include "common/fd.h"
#include "common/vendor_msg.h"
#include "preload/config.h"
#include "preload/control.h"
#include "preload/direct.h"
#include "preload/option.h"
#include "preload/real.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>

#define ERRNO_MAX 4095 /* the kernel's MAX_ERRNO */

/* As long as the kernel's TCP keeps sending SYNs by default. */
#define DIRECT_TIMEOUT_MS 130000

static int set_int(int fd, int name, int value)
{
	return real()->setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value));
}

static int set_timeout(int fd, int name, const struct timeval *tv)
{
	return real()->setsockopt(fd, SOL_SOCKET, name, tv, sizeof(*tv));
}

static int send_request(int gate, const struct ip_port *dst)
{
	struct vendor_request req;
	const char *endpoint = config()->endpoint_text;

	vendor_request_init(&req, VENDOR_CONNECT);
	req.dst = *dst;
	ip_port_unmap(&req.dst);
	memcpy(req.endpoint, endpoint, strlen(endpoint) + 1);
	return fd_send(gate, &req, sizeof(req), -1, 0) == sizeof(req) ? 0 : -1;
}

/* Return: a socket to the vendor with the request in it, or -1 and the errno
 * of vendor_socket(). */
static int open_gate(const struct ip_port *dst, bool nonblock)
{
	int gate = vendor_socket(!nonblock);

	if (gate == -1)
		return -1;
	/* 0 is rounded up to the minimum, which one request fills. A vendor
	 * that does not serve this user answers and hangs up at once: EPIPE
	 * then, and the answer waits like any other. */
	if (set_int(gate, SO_SNDBUF, 0) == -1 ||
		(send_request(gate, dst) == -1 && errno != EPIPE))
		closefd(&gate);
	return gate;
}

/* Is there a number for one more fd? */
static bool fd_is_to_be_had(int fd)
{
	int probe = real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (probe == -1)
		return false;
	closefd(&probe);
	return true;
}

/* What a message from the vendor amounts to; *carrier is closed unless it is
 * GATE_OPEN. */
static enum gate_state judge(int gate, const struct vendor_result *res,
	ssize_t len, int nr_fds, int *carrier, int *err)
{
	if (!vendor_result_check(res, (size_t)len, nr_fds) &&
		res->op == VENDOR_CONNECT && res->status <= ERRNO_MAX) {
		*err = res->status;
		if (*err == ENETDOWN)
			warn_of_host_proxy();
		return *err ? GATE_FAILED : GATE_OPEN;
	}
	closefd_if(carrier);
	/* The kernel leaves out an fd that it has no number for. */
	*err = nr_fds == 0 && !fd_is_to_be_had(gate) ? EMFILE : EPROTO;
	return GATE_FAILED;
}

/*
 * Look at the result without taking it off: other duplicates of the gate need
 * it as well. The fd inside is a new one each time.
 * Return: GATE_PENDING (*err: EAGAIN, EINTR), GATE_FAILED (*err), or GATE_OPEN
 * with *carrier.
 */
static enum gate_state peek_result(
	int gate, int flags, struct vendor_result *res, int *carrier, int *err)
{
	int nr_fds;
	ssize_t n;

	n = fd_recv(
		gate, res, sizeof(*res), carrier, &nr_fds, MSG_PEEK | flags);
	/* A failed gate was closed with the request unread, which sets this
	 * error once; the result is behind it. */
	if (n == -1 && errno == ECONNRESET)
		n = fd_recv(gate, res, sizeof(*res), carrier, &nr_fds,
			MSG_PEEK | flags);
	if (n == -1 && (errno == EAGAIN || errno == EINTR)) {
		*err = errno;
		return GATE_PENDING;
	}
	if (n <= 0) {
		*err = ECONNRESET; /* the vendor died over it */
		return GATE_FAILED;
	}
	return judge(gate, res, n, nr_fds, carrier, err);
}

/* ---- blocking connect() ---- */

/* Put the undecided gate behind the fd: the attempt goes on without us. */
static int leave_in_background(int fd, struct found *found, int *gate,
	const struct ip_port *dst, int err)
{
	found->rec.kind = RECORD_GATE;
	found->rec.async = 1;
	found->rec.remote = *dst;
	if (replace(fd, found->cookie, gate, &found->rec) == -1)
		return -1;
	/* SO_SNDTIMEO ran out: connect(2) says EINPROGRESS. */
	errno = err == EAGAIN ? EINPROGRESS : err;
	return -1;
}

/* peek_result(), while other threads know what is waited for. */
static enum gate_state peek_openly(
	int fd, int gate, struct vendor_result *res, int *carrier, int *err)
{
	uint64_t cookie = socket_cookie(gate);
	enum gate_state state;

	slot_wait_begin(fd, gate, cookie);
	state = peek_result(gate, 0, res, carrier, err);
	if (!slot_wait_end(fd, cookie))
		return state;
	if (state == GATE_OPEN)
		closefd(carrier);
	*err = ECONNRESET;
	return GATE_FAILED;
}

static int wait_for_carrier(
	int fd, struct found *found, int *gate, const struct ip_port *dst)
{
	struct vendor_result res;
	struct timeval limit = {0};
	socklen_t len = sizeof(limit);
	int carrier;
	int err;

	if (real()->getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &len) == 0)
		set_timeout(*gate, SO_RCVTIMEO, &limit);
	switch (peek_openly(fd, *gate, &res, &carrier, &err)) {
	case GATE_OPEN:
		closefd(gate);
		found->rec.kind = RECORD_CARRIER;
		record_addresses(&found->rec, dst, &res.local);
		return replace(fd, found->cookie, &carrier, &found->rec);
	case GATE_PENDING:
		return leave_in_background(fd, found, gate, dst, err);
	case GATE_NONE:
	case GATE_FAILED: break;
	}
	closefd(gate);
	errno = err;
	return -1;
}

/* Through a number of our own, which nobody closes meanwhile. */
bool gate_interrupt(int fd)
{
	uint64_t cookie;
	int gate = slot_wait_at(fd, &cookie);
	int own = gate == -1 ? -1 : real()->fcntl(gate, F_DUPFD_CLOEXEC, 0);
	bool broken;

	if (own == -1)
		return false;
	broken = socket_cookie(own) == cookie && slot_wait_break(fd, cookie);
	if (broken)
		real()->shutdown(own, SHUT_RDWR);
	closefd(&own);
	return broken;
}

/* SO_SNDTIMEO of the application's socket in milliseconds, DIRECT_TIMEOUT_MS at
 * most. */
static int direct_timeout(int fd)
{
	struct timeval tv = {0};
	socklen_t len = sizeof(tv);
	int64_t ms;

	if (real()->getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, &len) == -1 ||
		tv.tv_sec >= DIRECT_TIMEOUT_MS / 1000)
		return DIRECT_TIMEOUT_MS;
	ms = (int64_t)tv.tv_sec * 1000 + (tv.tv_usec + 999) / 1000;
	return ms > 0 ? (int)ms : DIRECT_TIMEOUT_MS;
}

static int connect_directly(
	int fd, struct found *found, const struct ip_port *dst)
{
	struct ip_port to = *dst;
	struct ip_port local;
	int timeout = direct_timeout(fd);
	int carrier;

	ip_port_unmap(&to);
	carrier = direct_connect(&config()->endpoint, &to, timeout, &local);
	if (carrier == -1 && errno == ETIME) /* as connect(2) has it */
		return fail(
			timeout < DIRECT_TIMEOUT_MS ? EINPROGRESS : ETIMEDOUT);
	if (carrier == -1)
		return -1;
	found->rec.kind = RECORD_CARRIER;
	record_addresses(&found->rec, dst, &local);
	return replace(fd, found->cookie, &carrier, &found->rec);
}

/* ---- connect() ---- */

static int connect_without_gate(
	int fd, struct found *found, const struct ip_port *dst, bool nonblock)
{
	static atomic_bool said;

	if (!no_vendor(errno))
		return -1;
	if (!nonblock)
		return connect_directly(fd, found, dst);
	warn_once(&said, "no socket_vendor (start the program with proxify)",
		config()->vendor_path);
	errno = ENETDOWN;
	return -1;
}

int gate_connect(int fd, int family, const struct ip_port *dst)
{
	bool nonblock = real()->fcntl(fd, F_GETFL) & O_NONBLOCK;
	struct found found;
	int gate;

	if (config_refused())
		return -1;
	lookup_options(fd, &found);
	found.rec.family = (uint8_t)family;
	found.rec.deferred = 0;
	gate = open_gate(dst, nonblock);
	if (gate == -1)
		return connect_without_gate(fd, &found, dst, nonblock);
	if (!nonblock)
		return wait_for_carrier(fd, &found, &gate, dst);
	found.rec.kind = RECORD_GATE;
	found.rec.async = 1;
	found.rec.remote = *dst;
	if (replace(fd, found.cookie, &gate, &found.rec) == 0)
		errno = EINPROGRESS;
	return -1;
}

/* ---- settling ---- */

/* A gate's own SO_RCVTIMEO is ours: the application's are notes (option.h). */
static void limit_wait(int gate, const struct record *rec, enum gate_wish wish)
{
	int name = wish == GATE_WAIT_RECV ? SO_RCVTIMEO : SO_SNDTIMEO;
	const struct option_value *opt = option_noted(rec, SOL_SOCKET, name);
	struct timeval limit = {0, 0};

	if (opt && opt->len >= sizeof(limit))
		memcpy(&limit, opt->value, sizeof(limit));
	set_timeout(gate, SO_RCVTIMEO, &limit);
}

/* The fd is another socket than it was: look again. */
static enum gate_state overtaken(int *err)
{
	*err = 0;
	return GATE_PENDING;
}

/* Of several that wait for one message in recvmsg() the kernel wakes one. The
 * message stays, so let the others see it: other threads, other processes.
 * Through a number of our own, since one of them may have put the carrier
 * behind the fd by now. */
static void wake_others(int fd, uint64_t gate)
{
	int own;

	if (real()->fcntl(fd, F_GETFL) & O_NONBLOCK)
		return; /* nobody waits */
	own = real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own == -1)
		return;
	if (socket_cookie(own) == gate)
		real()->shutdown(own, SHUT_RD);
	closefd(&own);
}

static enum gate_state take_carrier(int fd, struct found *found,
	const struct vendor_result *res, int *carrier, int *err)
{
	const struct ip_port remote = found->rec.remote;

	wake_others(fd, found->cookie);
	found->rec.kind = RECORD_CARRIER;
	record_addresses(&found->rec, &remote, &res->local);
	if (replace(fd, found->cookie, carrier, &found->rec) == 0)
		return GATE_OPEN;
	*err = errno;
	return *err == EBADF && socket_cookie(fd) != found->cookie
		       ? overtaken(err)
		       : GATE_FAILED;
}

/* Wait for the result, through a number of our own: the fd may be another
 * socket's at any moment, and to wait there would be for something else. */
static enum gate_state await_result(int fd, const struct found *found,
	enum gate_wish wish, struct vendor_result *res, int *carrier, int *err)
{
	int own = real()->fcntl(fd, F_DUPFD_CLOEXEC, 0);
	enum gate_state state;

	if (own == -1) {
		*err = EMFILE;
		return GATE_FAILED;
	}
	if (socket_cookie(own) == found->cookie) {
		limit_wait(own, &found->rec, wish);
		state = peek_result(own, 0, res, carrier, err);
	} else {
		state = overtaken(err);
	}
	closefd(&own);
	return state;
}

/* Return: as gate_settle(), or GATE_PENDING with *err 0 where another thread
 * has put another socket behind the fd meanwhile. */
static enum gate_state settle_once(int fd, enum gate_wish wish, int *err)
{
	bool wait = wish == GATE_WAIT_RECV || wish == GATE_WAIT_SEND;
	struct vendor_result res;
	struct found found;
	enum gate_state state = GATE_FAILED;
	int carrier;

	*err = 0;
	if (!lookup(fd, &found) || found.rec.kind != RECORD_GATE) {
		slot_not_gate(fd, found.cookie);
		return GATE_NONE;
	}
	if (wait)
		state = await_result(fd, &found, wish, &res, &carrier, err);
	if (!wait || *err == EMFILE)
		state = peek_result(fd, MSG_DONTWAIT, &res, &carrier, err);
	if (state == GATE_OPEN)
		return take_carrier(fd, &found, &res, &carrier, err);
	/* What it said was perhaps not said by the gate. */
	if (socket_cookie(fd) != found.cookie)
		return overtaken(err);
	if (state == GATE_FAILED && wish != GATE_LOOK && *err != EMFILE)
		replace_with_tcp(fd, &found);
	return state;
}

enum gate_state gate_settle(int fd, enum gate_wish wish, int *err)
{
	enum gate_state state;
	int saved = errno;

	do
		state = settle_once(fd, wish, err);
	while (state == GATE_PENDING && *err == 0);
	errno = saved;
	return state;
}

/* A socket that is bound or listens carries messages of the vendor's, which
 * are not the application's to read or answer. */
static bool is_control(int fd)
{
	struct found found;

	return lookup(fd, &found) && (found.rec.kind == RECORD_BOUND ||
					     found.rec.kind == RECORD_LISTENER);
}

static int refuse_io(int flags, enum gate_wish wait)
{
	if (wait == GATE_WAIT_RECV)
		return fail(ENOTCONN);
	if (!(flags & MSG_NOSIGNAL))
		raise(SIGPIPE);
	return fail(EPIPE);
}

int gate_before_io(int fd, int flags, enum gate_wish wait)
{
	bool now =
		flags & MSG_DONTWAIT || real()->fcntl(fd, F_GETFL) & O_NONBLOCK;
	int err;

	switch (gate_settle(fd, now ? GATE_TAKE : wait, &err)) {
	case GATE_NONE: return is_control(fd) ? refuse_io(flags, wait) : 0;
	case GATE_OPEN: return 0;
	case GATE_PENDING:
	case GATE_FAILED: break;
	}
	errno = err;
	return -1;
}
