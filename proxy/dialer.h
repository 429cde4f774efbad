/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_DIALER_H
#define PROXY_DIALER_H

/*
 * Connect to an endpoint of any kind, without blocking. dialer.c opens with
 * the theory of operation.
 */

#include "common/endpoint.h"
#include "proxy/connect.h"
#include "proxy/resolve.h"
#include "proxy/rules.h"

/* "OK 4294967295\n" and what a talkative guest sends right behind it. */
#define DIALER_REST_MAX 256

struct dialer;

/** typedef dialer_cb - a dialer that was running has finished; look at it */
typedef void dialer_cb(struct dialer *dialer, void *arg);

enum dialer_state {
	DIALER_IDLE,       /* not started, or finished */
	DIALER_RESOLVING,  /* tcp: the name is being looked up */
	DIALER_ADDRESSES,  /* tcp: @job is running */
	DIALER_CONNECTING, /* vsock: connect() is under way */
	DIALER_PAUSE,      /* the last try failed for a reason that passes */
	DIALER_MUX_SEND,   /* vsock-mux: the CONNECT line is going out */
	DIALER_MUX_READ,   /* vsock-mux: waiting for the answer */
};

/**
 * struct dialer - embedded in whoever wants a connection
 * @fd:     -1, or connected: non-blocking, CLOEXEC. The owner takes it by
 *          setting this to -1
 * @family: of @fd
 * @err:    0, or the errno to report
 * @why:    text for a log line if there is more to say than @err does, or NULL
 * @never:  NULL, or an IP address (unmapped) that a TCP endpoint must not have,
 *          or it fails with ELOOP. Set by the owner before it starts
 * @rest, @rest_len: bytes that the other end has sent already, beyond its
 *          answer (vsock-mux only)
 * The rest is the module's.
 */
struct dialer {
	uint32_t magic;
	enum dialer_state state;
	int fd;
	sa_family_t family;
	int err;
	const char *why;
	const struct ip_port *never;
	struct ev_loop *loop;
	struct resolver *resolver;
	const struct rules *rules;
	struct endpoint ep;
	struct resolve_query *query;
	struct connect_job job;
	ev_io io;
	ev_timer pause;
	double started;
	dialer_cb *cb;
	void *arg;
	size_t sent;
	size_t rest_len;
	uint8_t rest[DIALER_REST_MAX];
};

/** dialer_init() - make @dialer one that dialer_cancel() may be called on */
void dialer_init(struct dialer *dialer, struct ev_loop *loop,
	struct resolver *resolver, struct fd_budget *budget);

/**
 * dialer_start() - begin
 * @dialer: initialised, idle
 * @ep:     copied
 * @rules:  that the addresses of a TCP endpoint must pass; NULL for all
 * @cb, @arg: whom to tell, unless it finishes at once
 *
 * The caller has accounted for one fd in the budget. There is no deadline
 * here: the owner has one, and calls dialer_timed_out() for what to report.
 *
 * Return: true if it has finished already (@cb is not called), false if it is
 * running.
 */
bool dialer_start(struct dialer *dialer, const struct endpoint *ep,
	const struct rules *rules, dialer_cb *cb, void *arg);

/** dialer_timed_out() - the errno to report when the owner's deadline is up */
int dialer_timed_out(const struct dialer *dialer);

/** dialer_cancel() - close all that is open; @cb is not called any more */
void dialer_cancel(struct dialer *dialer);

#endif
