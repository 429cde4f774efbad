/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/forward.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/dialer.h"
#include "proxy/flow.h"
#include "proxy/origdst.h"
#include "proxy/peer.h"
#include "proxy/prefix.h"
#include "proxy/proxyproto.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * The five modes are rows of mode_table: this code asks the row what to learn
 * and what to reach, and never which mode it is.
 *
 *	HEAD      reading what stands ahead of the payload: a PROXY header
 *	          where one is expected, then the original destination in the
 *	          mode whose streams begin with it. Skipped where there is
 *	          neither
 *	DIALLING  connecting to the other end
 *	GONE      handed to the relay or closed; the memory waits for the reaper
 *
 * Bytes. While in HEAD the client's bytes collect in @in, and parsers take
 * whole headers off its front however they were split; what is behind them is
 * payload and goes to the relay with the fds. After HEAD nothing is read: the
 * kernel keeps the payload, and a slow connect costs no memory. What we send
 * ahead of the payload (again a PROXY header, then a destination) is given to
 * the relay first, which knows how to wait for a sink.
 *
 * A client that leaves while we dial. One look at its socket when it becomes
 * readable for the first time: a reset ends the attempt; so does an end of
 * stream where nobody is left to be sent to (a half-close looks the same but
 * for that); anything else, payload above all, is for the relay to find. After
 * that look nobody waits on the socket, or it would be readable all the time.
 *
 * Going round in circles. A redirection that catches too much brings our own
 * connection to a TCP target back to us, as one whose original destination is
 * that target: connecting once more would go on until there are no fds left.
 * So what was redirected is never connected to its own original destination.
 *
 * Refusal. There is no dialogue in which to say no, so it is said as TCP does:
 * the client's connection is reset, where its family can express that.
 *
 * After the hand-over a flow (flow.h) has what is still needed.
 */

#define FORWARD_MAGIC 0x46574452u /* "FWDR" */

#define HEAD_MAX (PROXYPROTO_MAX + PREFIX_MAX)

enum forward_state {
	FORWARD_HEAD,
	FORWARD_DIALLING,
	FORWARD_GONE,
};

/**
 * struct forward - see the theory above
 * @io:     watches @fd while HEAD, and for that one look while DIALLING
 * @in, @in_len, @in_pos: HEAD only, else NULL: received, and taken by parsers
 * @header_seen: the PROXY header, if one is expected, was taken
 * @known:  what that header said
 * @dst:    the original destination, AF_UNSPEC in modes that learn none
 */
struct forward {
	uint32_t magic;
	enum forward_state state;
	struct client_env *env;
	struct service *service;
	struct list link;
	uint64_t id;
	int fd;
	ev_io io;
	ev_timer deadline;
	uint8_t *in;
	size_t in_len;
	size_t in_pos;
	bool header_seen;
	struct proxyproto_addrs known;
	struct ip_port dst;
	struct dialer dialer;
	struct reap reap;
};

static const struct mode *mode_of(const struct forward *f)
{
	return f->service->config.mode;
}

static sa_family_t family_of(const struct forward *f)
{
	return f->service->entrance->listener.family;
}

/* ---- the end ---- */

static void forward_destroy(struct reap *reap)
{
	struct forward *f = list_entry(reap, struct forward, reap);

	assert(f->magic == FORWARD_MAGIC && f->state == FORWARD_GONE);
	f->magic = 0;
	free(f->in);
	free(f);
}

/* Let go of everything but the fds and the service. */
static void detach(struct forward *f)
{
	ev_io_stop(f->env->loop, &f->io);
	ev_timer_stop(f->env->loop, &f->deadline);
	list_del(&f->link);
	assert(f->env->nr > 0);
	f->env->nr--;
	f->state = FORWARD_GONE;
	reap_later(f->env->reaper, &f->reap, forward_destroy);
}

/* Close everything; the client gets a reset. */
static void forward_end(struct forward *f)
{
	struct client_env *env = f->env;

	dialer_cancel(&f->dialer);
	detach(f);
	relay_arm_reset(f->fd, family_of(f));
	closefd(&f->fd);
	service_leave(f->service);
	if (env->gone)
		env->gone(env->arg);
}

/* The same, with a line that says why. */
static void refuse(struct forward *f, const char *what, const char *why)
{
	char peer[PEER_STRLEN];

	log_warn_ratelimit("conn %" PRIu64 " (%s): %s%s%s", f->id,
		peer_format(f->fd, peer, sizeof(peer)), what, why ? ": " : "",
		why ? why : "");
	forward_end(f);
}

/* ---- what is sent ahead ---- */

/* Between which addresses the connection is, as far as that is known. */
static struct proxyproto_addrs addresses(const struct forward *f)
{
	struct proxyproto_addrs addrs = f->known;
	union endpoint_sockaddr any;
	socklen_t len = sizeof(any);

	if (addrs.src.family != AF_UNSPEC)
		return addrs;
	if (getpeername(f->fd, &any.sa, &len) == 0)
		ip_port_from_sockaddr(&addrs.src, &any.sa, len);
	len = sizeof(any);
	if (f->dst.family != AF_UNSPEC)
		addrs.dst = f->dst;
	else if (getsockname(f->fd, &any.sa, &len) == 0)
		ip_port_from_sockaddr(&addrs.dst, &any.sa, len);
	return addrs;
}

static size_t write_head(const struct forward *f, uint8_t *buf)
{
	enum proxyproto version = f->service->config.send_proxyproto;
	size_t len = 0;

	if (version != PROXYPROTO_NONE) {
		struct proxyproto_addrs addrs = addresses(f);

		len = proxyproto_write(buf, version, &addrs);
	}
	if (mode_of(f)->send_prefix)
		len += prefix_write(buf + len, &f->dst);
	return len;
}

static void hand_over(struct forward *f)
{
	const struct relay_sock sock[2] = {
		{f->fd, family_of(f)},
		{f->dialer.fd, f->dialer.family},
	};
	uint8_t head[PROXYPROTO_WRITE_MAX + PREFIX_MAX];
	size_t head_len = write_head(f, head);
	struct flow *flow = flow_new(f->service, f->fd, &f->dialer.ep, &f->dst);
	struct relay *relay = NULL;

	if (flow)
		relay = relay_new(f->env->relays, sock, f->id, &flow_ops, flow);
	if (!relay) {
		free(flow);
		refuse(f, log_strerror(ENOMEM), NULL);
		return;
	}
	f->fd = f->dialer.fd = -1;
	relay_set_idle(relay, f->service->config.idle_timeout);
	relay_feed(relay, 0, head, head_len);
	if (f->in)
		relay_feed(relay, 0, f->in + f->in_pos, f->in_len - f->in_pos);
	relay_feed(relay, 1, f->dialer.rest, f->dialer.rest_len);
	detach(f);
	relay_run(relay);
}

/* ---- dialling ---- */

static void set_deadline(struct forward *f, double seconds)
{
	f->deadline.repeat = seconds;
	ev_timer_again(f->env->loop, &f->deadline);
}

/* Of a name also the address, if one was tried. */
static void dial_failed(struct forward *f, int err, const char *why)
{
	const struct ip_port *tried = &f->dialer.job.tried;
	char to[ENDPOINT_STRLEN], addr[IP_PORT_STRLEN];
	char what[ENDPOINT_STRLEN + IP_PORT_STRLEN + 64];
	bool by_name = f->dialer.ep.kind == ENDPOINT_TCP &&
		       f->dialer.ep.addr.family == AF_UNSPEC &&
		       tried->family != AF_UNSPEC;

	if (by_name)
		ip_port_format(tried, addr, sizeof(addr));
	snprintf(what, sizeof(what), "failed to connect to %s%s%s%s",
		service_text(&f->dialer.ep, to, sizeof(to)),
		by_name ? " (" : "", by_name ? addr : "", by_name ? ")" : "");
	refuse(f, what, why ? why : log_strerror(err));
}

static void dialled(struct forward *f)
{
	if (f->dialer.fd != -1)
		hand_over(f);
	else
		dial_failed(f, f->dialer.err, f->dialer.why);
}

static void on_dialled(struct dialer *dialer, void *arg)
{
	struct forward *f = arg;

	assert(f->magic == FORWARD_MAGIC && f->state == FORWARD_DIALLING);
	dialled(f);
}

/* What the mode's row says is to be reached. */
static void destination(const struct forward *f, struct endpoint *ep)
{
	switch (mode_of(f)->reach) {
	case REACH_TARGET: *ep = f->service->config.target; break;
	case REACH_DESTINATION:
		memset(ep, 0, sizeof(*ep));
		ep->kind = ENDPOINT_TCP;
		ep->addr = f->dst;
		ep->port = f->dst.port;
		break;
	case REACH_PORT:
		*ep = f->service->config.target;
		endpoint_set_port(ep, f->dst.port);
		break;
	}
}

static void start_dialling(struct forward *f)
{
	const struct service_config *config = &f->service->config;
	char text[ENDPOINT_STRLEN];
	struct endpoint ep;

	destination(f, &ep);
	if (mode_is_transparent(config->mode) && log_enabled(LOG_INFO)) {
		log_info("Original destination: %s",
			ip_port_format(&f->dst, text, sizeof(text)));
		log_info("Proxying to: %s",
			service_text(&ep, text, sizeof(text)));
	}
	f->state = FORWARD_DIALLING;
	if (config->mode->learn == LEARN_REDIRECT)
		f->dialer.never = &f->dst;
	if (dialer_start(&f->dialer, &ep,
		    config->mode->learn == LEARN_PREFIX ? &config->rules : NULL,
		    on_dialled, f)) {
		dialled(f);
		return;
	}
	/* Only now: most connects succeed at once. */
	set_deadline(f, config->connect_timeout);
	ev_io_start(f->env->loop, &f->io);
}

/* ---- the head of the stream ---- */

static bool wants_header(const struct forward *f)
{
	return f->service->config.accept_proxyproto && !f->header_seen;
}

static bool wants_prefix(const struct forward *f)
{
	return mode_of(f)->learn == LEARN_PREFIX && f->dst.family == AF_UNSPEC;
}

/* Take one header off the front. Return: as the parsers. */
static ssize_t take_one(struct forward *f)
{
	const uint8_t *buf = f->in + f->in_pos;
	size_t len = f->in_len - f->in_pos;
	ssize_t n;

	if (wants_header(f)) {
		n = proxyproto_parse(buf, len, &f->known);
		f->header_seen = n > 0;
	} else {
		n = prefix_parse(buf, len, &f->dst);
	}
	return n;
}

/* Take what has come. Return: is the head whole? */
static bool take_head(struct forward *f)
{
	while (wants_header(f) || wants_prefix(f)) {
		bool header = wants_header(f);
		ssize_t n = take_one(f);
		char what[64];

		if (n == -1) {
			if (header)
				snprintf(what, sizeof(what),
					"not a PROXY protocol header");
			else
				snprintf(what, sizeof(what),
					"bad original destination: version is "
					"%u, expected 4 or 6",
					f->in[f->in_pos]);
			refuse(f, what, NULL);
		}
		if (n <= 0)
			return false;
		f->in_pos += (size_t)n;
	}
	return true;
}

static void read_head(struct forward *f)
{
	ssize_t n;

	/* The longest heads have been taken, or refused, before it is full. */
	assert(f->in_len < HEAD_MAX);
	n = recv(f->fd, f->in + f->in_len, HEAD_MAX - f->in_len, 0);
	if (n == 0) {
		refuse(f, "ended before its destination was known", NULL);
	} else if (n == -1) {
		if (!fd_try_again(errno))
			refuse(f, "read", log_strerror(errno));
	} else {
		f->in_len += (size_t)n;
		if (take_head(f))
			start_dialling(f);
	}
}

/* ---- events ---- */

/*
 * Has the client gone for good? For the first event while dialling; see the
 * theory.
 */
static bool client_left(const struct forward *f)
{
	char byte;
	ssize_t n = recv(f->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n == 0)
		return send(f->fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == -1 &&
		       !fd_try_again(errno);
	/* vsock before Linux 5.6 cannot peek. */
	return n == -1 && !fd_try_again(errno) && errno != EOPNOTSUPP;
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	struct forward *f = w->data;

	assert(f->magic == FORWARD_MAGIC && f->state != FORWARD_GONE);
	if (f->state == FORWARD_HEAD) {
		read_head(f);
		return;
	}
	ev_io_stop(loop, w);
	if (client_left(f)) {
		log_debug("conn %" PRIu64 ": the client left", f->id);
		forward_end(f);
	}
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct forward *f = w->data;

	assert(f->magic == FORWARD_MAGIC && f->state != FORWARD_GONE);
	if (f->state == FORWARD_HEAD)
		refuse(f, "its destination did not come in time", NULL);
	else
		dial_failed(f, dialer_timed_out(&f->dialer),
			f->dialer.state == DIALER_RESOLVING
				? "its address was not found in time"
				: NULL);
}

/* ---- life ---- */

/* What the kernel knows. Return: false if the connection was refused. */
static bool learn_redirect(struct forward *f)
{
	const struct service *s = f->service;
	int err = origdst_get(f->fd, s->config.tproxy,
		&s->entrance->listener.ep.addr, &f->dst);

	if (err)
		refuse(f,
			"Failed to retrieve original destination from TCP "
			"stream",
			err == ELOOP ? "it was not redirected"
				     : log_strerror(err));
	return err == 0;
}

static void begin(struct forward *f)
{
	if (mode_of(f)->learn == LEARN_REDIRECT && !learn_redirect(f))
		return;
	if (!f->in) {
		start_dialling(f);
		return;
	}
	ev_io_start(f->env->loop, &f->io);
	set_deadline(f, f->service->config.handshake_timeout);
	/* It has often come along with the connection. */
	read_head(f);
}

int forward_new(struct client_env *env, struct service *service, int fd)
{
	struct forward *f = calloc(1, sizeof(*f));

	if (!f)
		return -1;
	f->magic = FORWARD_MAGIC;
	f->state = FORWARD_HEAD;
	f->env = env;
	f->service = service;
	f->fd = fd;
	if (wants_header(f) || wants_prefix(f)) {
		f->in = malloc(HEAD_MAX);
		if (!f->in) {
			free(f);
			return -1;
		}
	}
	f->id = env->next_id;
	env->next_id += env->id_step;
	ev_io_init(&f->io, on_io, fd, EV_READ);
	f->io.data = f;
	ev_init(&f->deadline, on_deadline);
	f->deadline.data = f;
	dialer_init(&f->dialer, env->loop, env->resolver, env->budget);
	list_init(&f->link);
	list_add_tail(&env->forwards, &f->link);
	env->nr++;
	begin(f);
	return 0;
}

void forward_abort_all(struct client_env *env)
{
	while (!list_empty(&env->forwards))
		forward_end(
			list_entry(env->forwards.next, struct forward, link));
}
