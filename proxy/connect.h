/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_CONNECT_H
#define PROXY_CONNECT_H

/*
 * Connect to the first of several addresses that answers.
 *
 * Theory of operation (RFC 8305, "happy eyeballs")
 *
 * The addresses are tried in order. The next one is started when the one
 * before has failed, or has not answered for CONNECT_STAGGER seconds; those
 * before it go on. The first that connects wins and the others are closed.
 * connect_order() makes the order: families take turns, beginning with the
 * family of the first address, each family in the order of the look-up.
 *
 * At most CONNECT_PARALLEL attempts run at once, and each beyond the first
 * takes an fd from the budget. Where no more may run, the oldest gives way to
 * the next address once it had CONNECT_PATIENCE seconds, so that every address
 * gets its turn whatever the others do.
 *
 * If all fail, the error reported is that of the attempt that came furthest
 * (see error_rank()): "refused" says more than "no route for that family".
 *
 * There is no deadline here: the owner has one for the whole, and calls
 * connect_timed_out() for the error to report then.
 */

#include "common/sockaddr.h"
#include "proxy/budget.h"

#include <ev.h>

#define CONNECT_STAGGER   0.25 /* seconds, RFC 8305 section 8 */
#define CONNECT_PATIENCE  5.0  /* seconds */
#define CONNECT_PARALLEL  8
#define CONNECT_ADDRS_MAX 64 /* of one name; more are not looked at */

struct connect_job;

/**
 * typedef connect_cb - a job that was running has finished
 * @job: @fd is connected, or -1 and @err says why
 * @arg: as given
 */
typedef void connect_cb(struct connect_job *job, void *arg);

struct connect_attempt {
	ev_io io; /* data: the job */
	int fd;
	size_t index; /* into addrs */
	double started;
};

/**
 * struct connect_job - embedded in whoever wants to connect
 * @fd:    -1, or the connected socket: non-blocking, CLOEXEC, TCP_NODELAY,
 *         SO_KEEPALIVE. The owner takes it by setting this to -1
 * @err:   0, or the errno to report
 * @local: the local address of @fd
 * @tried: what @err is about; as long as there is no error, the address that
 *         was tried last
 * @addrs, @nr_addrs, @next: what to try, and the first not yet tried
 * @patience: seconds, CONNECT_PATIENCE unless changed before it starts
 * The rest is the module's.
 */
struct connect_job {
	uint32_t magic;
	int fd;
	int err;
	struct ip_port local;
	struct ip_port tried;
	struct ip_port one;
	struct ip_port *addrs;
	size_t nr_addrs;
	size_t next;
	struct ev_loop *loop;
	struct fd_budget *budget;
	ev_timer stagger;
	double patience;
	struct connect_attempt attempt[CONNECT_PARALLEL];
	unsigned int nr_attempts;
	connect_cb *cb;
	void *arg;
};

/** connect_init() - make @job one that connect_cancel() may be called on */
void connect_init(struct connect_job *job, struct ev_loop *loop,
	struct fd_budget *budget);

/**
 * connect_start() - begin
 * @job:   initialised, not running
 * @addrs: copied
 * @nr:    1 to CONNECT_ADDRS_MAX
 * @cb, @arg: whom to tell, unless it finishes at once
 *
 * The caller has accounted for one fd in the budget: that of the result.
 *
 * Return: true if the job has finished already (look at @job; @cb is not
 * called), false if it is running.
 */
bool connect_start(struct connect_job *job, const struct ip_port *addrs,
	size_t nr, connect_cb *cb, void *arg);

/** connect_timed_out() - the errno to report when the owner's deadline is up */
int connect_timed_out(const struct connect_job *job);

/** connect_cancel() - close all that is open; @cb is not called any more */
void connect_cancel(struct connect_job *job);

/** connect_order() - let address families take turns, in place (stable) */
void connect_order(struct ip_port *addrs, size_t nr);

/**
 * tcp_options() - what every TCP side of a relayed connection has
 * @fd: a TCP socket, or a listening one whose connections inherit them.
 *      Failures are of no consequence and ignored
 */
void tcp_options(int fd);

/**
 * vsock_options() - what every vsock socket has, to be set before connect()
 *                   or listen(); connections inherit it
 * @fd: a vsock socket; failures are of no consequence and ignored
 */
void vsock_options(int fd);

#endif
