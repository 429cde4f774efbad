/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/connect.h"

#include "common/carrier.h"
#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MAGIC 0x434f4e4eu /* "CONN" */

/* The kernel's own limit for a vsock connect is 2 s, too short for a host
 * under load. */
#define VSOCK_CONNECT_TIMEOUT 60 /* seconds */

void tcp_options(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

void vsock_options(int fd)
{
	const struct timeval tv = {.tv_sec = VSOCK_CONNECT_TIMEOUT};

	carrier_window(fd);
	setsockopt(
		fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &tv, sizeof(tv));
}

/* How far an attempt that ended with @err came: the larger, the further. */
static int error_rank(int err)
{
	switch (err) {
	case 0: return 0;
	case ECONNREFUSED: /* the host answered */
	case ECONNRESET: return 6;
	case ETIMEDOUT: return 5; /* packets went out */
	case EHOSTUNREACH:
	case EHOSTDOWN: return 4; /* a router answered */
	case EACCES:
	case EPERM: return 3; /* this host's policy */
	case ENETUNREACH:
	case EADDRNOTAVAIL:
	case EAFNOSUPPORT: return 1; /* nothing left this host */
	default: return 2;
	}
}

static void note_error(
	struct connect_job *job, int err, const struct ip_port *dst)
{
	if (error_rank(err) < error_rank(job->err))
		return;
	job->err = err;
	job->tried = *dst;
}

void connect_order(struct ip_port *addrs, size_t nr)
{
	/* Place i gets the next address of the family whose turn it is; what
	 * lies between moves up one, which keeps each family's order. */
	for (size_t i = 1; i < nr; i++) {
		size_t j = i;
		struct ip_port moved;

		while (j < nr && addrs[j].family == addrs[i - 1].family)
			j++;
		if (j == nr)
			return;
		moved = addrs[j];
		memmove(addrs + i + 1, addrs + i, (j - i) * sizeof(*addrs));
		addrs[i] = moved;
	}
}

/* ---- one attempt ---- */

/* Forget attempt number @i; the last one takes its place. */
static void attempt_remove(struct connect_job *job, unsigned int i)
{
	struct connect_attempt *a = &job->attempt[i];
	struct connect_attempt *last = &job->attempt[job->nr_attempts - 1];

	ev_io_stop(job->loop, &a->io);
	closefd_if(&a->fd);
	/* The first fd is the owner's account, the others are ours. */
	if (--job->nr_attempts > 0)
		fd_budget_give(job->budget, 1);
	if (a != last) {
		/* A watcher may be moved while it is stopped. */
		ev_io_stop(job->loop, &last->io);
		*a = *last;
		ev_io_start(job->loop, &a->io);
	}
}

static void release(struct connect_job *job)
{
	ev_timer_stop(job->loop, &job->stagger);
	while (job->nr_attempts > 0)
		attempt_remove(job, job->nr_attempts - 1);
	if (job->addrs != &job->one)
		free(job->addrs);
	job->addrs = NULL;
	job->nr_addrs = job->next = 0;
}

/*
 * A socket that reports itself connected: make sure of it.
 *
 * Connecting to a free port of this machine's ephemeral range can hit upon a
 * socket that connects to itself. It is the same as nobody listening.
 *
 * Return: 0, or an errno.
 */
static int confirm(struct connect_job *job, int fd, const struct ip_port *dst)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);

	if (getsockname(fd, &any.sa, &len) == -1 ||
		ip_port_from_sockaddr(&job->local, &any.sa, len) == -1)
		return errno ? errno : EIO;
	if (ip_port_equal(&job->local, dst))
		return ECONNREFUSED;
	return 0;
}

/* Open and connect a socket to @dst. Return: 0, EINPROGRESS or an errno. */
static int dial_address(const struct ip_port *dst, int *fd)
{
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(dst, &any);

	*fd = socket(any.sa.sa_family,
		SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (*fd == -1)
		return errno;
	tcp_options(*fd);
	if (connect(*fd, &any.sa, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	/* On this machine the answer is there before connect() returns, and
	 * asking again costs less than a turn of the loop. */
	if (connect(*fd, &any.sa, len) == 0)
		return 0;
	return errno == EALREADY || errno == EINPROGRESS ? EINPROGRESS : errno;
}

static void on_attempt(struct ev_loop *loop, ev_io *w, int revents);

/*
 * Start the next address. Return: 0 connected (job->fd), EINPROGRESS, or the
 * errno of the failure.
 */
static int attempt_next(struct connect_job *job)
{
	const struct ip_port *dst = &job->addrs[job->next];
	struct connect_attempt *a = &job->attempt[job->nr_attempts];
	int fd, err;

	assert(job->next < job->nr_addrs);
	assert(job->nr_attempts < CONNECT_PARALLEL);
	if (!job->err)
		job->tried = *dst;
	err = dial_address(dst, &fd);
	if (err == 0)
		err = confirm(job, fd, dst);
	if (err == 0) {
		job->fd = fd;
	} else if (err == EINPROGRESS) {
		a->fd = fd;
		a->index = job->next;
		a->started = ev_now(job->loop);
		ev_io_init(&a->io, on_attempt, fd, EV_WRITE);
		a->io.data = job;
		ev_io_start(job->loop, &a->io);
		job->nr_attempts++;
	} else {
		closefd_if(&fd);
	}
	job->next++;
	return err;
}

/* ---- the job ---- */

/* May one more attempt run now? Takes its fd from the budget. */
static bool may_add(struct connect_job *job)
{
	if (job->nr_attempts == 0)
		return true;
	return job->nr_attempts < CONNECT_PARALLEL &&
	       fd_budget_take(job->budget, 1);
}

/*
 * Start addresses until one is on its way or has connected.
 * Return: true if the job has finished.
 */
static bool advance(struct connect_job *job)
{
	while (job->next < job->nr_addrs && may_add(job)) {
		bool extra = job->nr_attempts > 0;
		int err = attempt_next(job);

		if (err == EINPROGRESS)
			break;
		if (extra)
			fd_budget_give(job->budget, 1);
		if (err == 0) {
			job->err = 0;
			release(job);
			return true;
		}
		note_error(job, err, &job->addrs[job->next - 1]);
	}
	if (job->nr_attempts == 0) {
		assert(job->err);
		release(job);
		return true;
	}
	if (job->next == job->nr_addrs)
		ev_timer_stop(job->loop, &job->stagger);
	else
		ev_timer_again(job->loop, &job->stagger);
	return false;
}

static void on_attempt(struct ev_loop *loop, ev_io *w, int revents)
{
	struct connect_job *job = w->data;
	struct connect_attempt *a = (struct connect_attempt *)(void
			*)((char *)w - offsetof(struct connect_attempt, io));
	struct ip_port dst;
	int err = 0;
	socklen_t len = sizeof(err);

	assert(job->magic == CONNECT_MAGIC);
	assert(a >= job->attempt && a < job->attempt + job->nr_attempts);
	dst = job->addrs[a->index];
	if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &err, &len) == -1)
		err = errno;
	if (!err)
		err = confirm(job, a->fd, &dst);
	if (!err) {
		ev_io_stop(loop, w);
		job->fd = a->fd;
		a->fd = -1;
		job->err = 0;
		release(job);
		job->cb(job, job->arg);
		return;
	}
	note_error(job, err, &dst);
	attempt_remove(job, (unsigned int)(a - job->attempt));
	if (advance(job))
		job->cb(job, job->arg);
}

/* The oldest attempt gives way if it had its time and blocks the next. */
static void displace_oldest(struct connect_job *job)
{
	unsigned int oldest = 0;

	for (unsigned int i = 1; i < job->nr_attempts; i++)
		if (job->attempt[i].started < job->attempt[oldest].started)
			oldest = i;
	if (ev_now(job->loop) - job->attempt[oldest].started < job->patience)
		return;
	note_error(job, ETIMEDOUT, &job->addrs[job->attempt[oldest].index]);
	attempt_remove(job, oldest);
}

static void on_stagger(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct connect_job *job = w->data;

	assert(job->magic == CONNECT_MAGIC && job->next < job->nr_addrs);
	if (job->nr_attempts == CONNECT_PARALLEL ||
		(job->nr_attempts > 0 && !fd_budget_take(job->budget, 1)))
		displace_oldest(job);
	else if (job->nr_attempts > 0)
		fd_budget_give(job->budget, 1);
	if (advance(job))
		job->cb(job, job->arg);
}

void connect_init(
	struct connect_job *job, struct ev_loop *loop, struct fd_budget *budget)
{
	job->magic = CONNECT_MAGIC;
	job->fd = -1;
	job->err = 0;
	memset(&job->local, 0, sizeof(job->local));
	memset(&job->tried, 0, sizeof(job->tried));
	job->addrs = NULL;
	job->nr_addrs = job->next = 0;
	job->loop = loop;
	job->budget = budget;
	ev_timer_init(&job->stagger, on_stagger, 0, CONNECT_STAGGER);
	job->stagger.data = job;
	job->patience = CONNECT_PATIENCE;
	job->nr_attempts = 0;
}

bool connect_start(struct connect_job *job, const struct ip_port *addrs,
	size_t nr, connect_cb *cb, void *arg)
{
	assert(job->magic == CONNECT_MAGIC && job->nr_attempts == 0);
	assert(nr >= 1 && nr <= CONNECT_ADDRS_MAX);
	job->cb = cb;
	job->arg = arg;
	job->err = 0;
	job->addrs = nr == 1 ? &job->one : malloc(nr * sizeof(*addrs));
	if (!job->addrs) {
		job->err = ENOMEM;
		return true;
	}
	memcpy(job->addrs, addrs, nr * sizeof(*addrs));
	job->nr_addrs = nr;
	job->next = 0;
	return advance(job);
}

int connect_timed_out(const struct connect_job *job)
{
	/* Something was still on its way, and nothing beats that but an
	 * answer. */
	if (error_rank(job->err) > error_rank(ETIMEDOUT))
		return job->err;
	return ETIMEDOUT;
}

void connect_cancel(struct connect_job *job)
{
	assert(job->magic == CONNECT_MAGIC);
	if (job->addrs)
		release(job);
	closefd_if(&job->fd);
}
