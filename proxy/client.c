/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/client_impl.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/peer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation: the server side of SOCKS5 (RFC 1928)
 *
 *	GREETING	reading version and methods
 *	REQUEST		the method answer is queued; reading the request
 *	RESOLVING	the destination is a name that is being looked up
 *	CONNECTING	connecting to the destination's addresses
 *	REPLYING	connected; the reply is on its way to the client. Once
 *			it is out the relay takes both fds
 *	BINDING		the request is a BIND: on to the exports
 *	REFUSED		a reply that refuses is on its way; then our end of the
 *			stream, and whatever the client still sends is dropped
 *			until it closes too: closing with bytes unread would
 *			reset the connection and might destroy the reply
 *	GONE		fds closed or handed over, the memory waits for the
 *			reaper
 *
 * Bytes. What the client sends collects in @in, and parsers take whole
 * messages off its front, however they were split or run together. It is as
 * large as the longest greeting and request and some payload that may follow
 * at once: that is handed to the relay with the fds. A full @in is not read
 * any further, the kernel holds the rest. Answers collect in @out, so that a
 * client that sent everything in one piece gets its answers in one piece if
 * the destination answers at once; otherwise they leave at the end of the
 * event that made them.
 *
 * Commands. A request is handed to its command's start(), which ends the
 * client's story by client_refuse() or by client_connected(), at once or from
 * its own events, and to cancel() if the client goes away meanwhile. A further
 * command is a further row in client_request.c.
 *
 * BIND. Exported ports have a thread of their own choice: if that is another
 * one, the connection goes there first, request and pending answers with it,
 * and is a client again. It ends as one when an export takes it over; then it
 * is silent, so bytes behind the request are a fault.
 *
 * A client that leaves while it waits. The socket stays readable while
 * RESOLVING and CONNECTING. An end of stream may be no more than a half-close
 * behind early payload, so a send of no bytes asks whether there is still
 * somebody to answer (only vsock and unix can tell); if not, the attempt is
 * cancelled.
 *
 * Deadlines: one timer, for the handshake, then for the command, then for the
 * client to take a refusal. None once the relay has the connection.
 *
 * Whatever a client may have done wrong, only this client ends.
 */

#define REFUSED_TIMEOUT 2.0 /* seconds to take a refusal */

static const char *const state_names[] = {
	[CLIENT_GREETING] = "GREETING",
	[CLIENT_REQUEST] = "REQUEST",
	[CLIENT_RESOLVING] = "RESOLVING",
	[CLIENT_CONNECTING] = "CONNECTING",
	[CLIENT_REPLYING] = "REPLYING",
	[CLIENT_BINDING] = "BINDING",
	[CLIENT_REFUSED] = "REFUSED",
	[CLIENT_GONE] = "GONE",
};
_Static_assert(sizeof(state_names) / sizeof(state_names[0]) == CLIENT_GONE + 1,
	"a name for each state");

void client_set_state(struct client *c, enum client_state state)
{
	assert(c->state != CLIENT_GONE);
	log_debug("conn %" PRIu64 ": %s -> %s", c->id, state_names[c->state],
		state_names[state]);
	c->state = state;
}

void client_set_deadline(struct client *c, double seconds)
{
	c->deadline.repeat = seconds;
	ev_timer_again(c->env->loop, &c->deadline);
}

/* ---- the end of a client ---- */

static void client_destroy(struct reap *reap)
{
	struct client *c = list_entry(reap, struct client, reap);

	assert(c->magic == CLIENT_MAGIC && c->state == CLIENT_GONE);
	c->magic = 0;
	free(c);
}

void client_unwatch(struct client *c)
{
	ev_io_stop(c->env->loop, &c->io);
	c->mask = 0;
	watch_for(&c->watch, 0);
}

void client_detach(struct client *c)
{
	client_unwatch(c);
	ev_timer_stop(c->env->loop, &c->deadline);
	list_del(&c->link);
	assert(c->env->nr > 0);
	c->env->nr--;
	client_set_state(c, CLIENT_GONE);
	reap_later(c->env->reaper, &c->reap, client_destroy);
}

void client_end(struct client *c)
{
	struct client_env *env = c->env;
	const struct client_command *command = client_command(c);

	if (command && c->state != CLIENT_GREETING)
		command->cancel(c);
	closefd_if(&c->job.fd);
	client_detach(c);
	closefd(&c->fd);
	service_leave(c->service);
	if (env->gone)
		env->gone(env->arg);
}

void client_log_fault(struct client *c, const char *what)
{
	char peer[PEER_STRLEN];

	log_warn_ratelimit("conn %" PRIu64 " (%s): %s", c->id,
		peer_format(c->fd, peer, sizeof(peer)), what);
}

void client_fault(struct client *c, const char *what)
{
	client_log_fault(c, what);
	client_end(c);
}

/* ---- answers ---- */

void client_put_method(struct client *c, uint8_t method)
{
	assert(c->out_len + SOCKS5_METHOD_LEN <= CLIENT_OUT_SIZE);
	c->out_len += socks5_write_method(c->out + c->out_len, method);
}

static void put_reply(
	struct client *c, enum socks5_reply reply, const struct ip_port *bound)
{
	assert(c->out_len + SOCKS5_REPLY_V6_LEN <= CLIENT_OUT_SIZE);
	c->out_len += socks5_write_reply(c->out + c->out_len, reply, bound);
}

void client_hang_up(struct client *c)
{
	client_set_state(c, CLIENT_REFUSED);
	client_set_deadline(c, REFUSED_TIMEOUT);
}

void client_put_failure(struct client *c, enum socks5_reply reply)
{
	static const struct ip_port none;

	put_reply(c, reply, &none);
	client_hang_up(c);
}

void client_refuse(struct client *c, enum socks5_reply reply, const char *why)
{
	char peer[PEER_STRLEN], dst[CLIENT_DST_STRLEN];

	log_info_ratelimit("conn %" PRIu64 " (%s): %s: %s (reply %d)", c->id,
		peer_format(c->fd, peer, sizeof(peer)),
		client_dst_format(&c->req.dst, dst, sizeof(dst)), why,
		(int)reply);
	client_put_failure(c, reply);
}

void client_connected(struct client *c)
{
	put_reply(c, SOCKS5_SUCCEEDED, &c->job.local);
	client_set_state(c, CLIENT_REPLYING);
}

static void on_relay_closed(void *arg)
{
	service_leave(arg);
}

static const struct relay_ops relay_ops = {.closed = on_relay_closed};

static void hand_over(struct client *c)
{
	const struct relay_sock sock[2] = {
		{c->fd, c->family},
		{c->job.fd, (sa_family_t)c->job.local.family},
	};
	struct relay *relay;

	client_unwatch(c);
	relay = relay_new(c->env->relays, sock, c->id, &relay_ops, c->service);
	if (!relay) {
		client_fault(c, log_strerror(ENOMEM));
		return;
	}
	c->fd = c->job.fd = -1;
	relay_set_idle(relay, c->service->config.idle_timeout);
	relay_feed(relay, 0, c->in + c->in_pos, c->in_len - c->in_pos);
	relay_run(relay);
	client_detach(c);
}

/* ---- from state to effects ---- */

/* What to wait for: the only place that decides it. */
static uint8_t wanted(const struct client *c)
{
	uint8_t mask = c->out_len > 0 ? EV_WRITE : 0;

	switch (c->state) {
	case CLIENT_GREETING:
	case CLIENT_REQUEST:
	case CLIENT_RESOLVING:
	case CLIENT_CONNECTING:
		if (!c->eof && c->in_len < CLIENT_IN_SIZE)
			mask |= EV_READ;
		break;
	case CLIENT_REFUSED: mask |= EV_READ; break;
	case CLIENT_REPLYING:
	case CLIENT_BINDING:
	case CLIENT_GONE: break;
	}
	return mask;
}

/* Return: 0, or -1 and errno. */
static int set_watcher(struct client *c)
{
	uint8_t mask = wanted(c);
	/* Until its command is known it may have to go to another thread. */
	bool may_go = c->env->watches && c->state <= CLIENT_REQUEST;

	if (watch_for(&c->watch, may_go ? mask : 0) == -1)
		return -1;
	if (may_go)
		mask = 0;
	if (c->mask == mask)
		return 0;
	ev_io_stop(c->env->loop, &c->io);
	ev_io_modify(&c->io, mask);
	if (mask)
		ev_io_start(c->env->loop, &c->io);
	c->mask = mask;
	return 0;
}

/* Send what is in @out. Return: false if the client is gone. */
static bool flush_out(struct client *c)
{
	ssize_t n;

	if (c->out_len == 0)
		return true;
	n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
	if (n == -1)
		return fd_try_again(errno);
	c->out_len -= (size_t)n;
	memmove(c->out, c->out + n, c->out_len);
	return true;
}

void client_settle(struct client *c)
{
	if (c->state == CLIENT_BINDING)
		client_bind(c);
	if (c->state == CLIENT_GONE)
		return;
	if (!flush_out(c)) {
		client_end(c);
		return;
	}
	if (c->out_len == 0 && c->state == CLIENT_REPLYING) {
		hand_over(c);
		return;
	}
	if (c->out_len == 0 && c->state == CLIENT_REFUSED && !c->fin_sent) {
		c->fin_sent = true;
		if (c->eof || shutdown(c->fd, SHUT_WR) == -1) {
			client_end(c);
			return;
		}
	}
	if (set_watcher(c) == -1)
		client_fault(c, log_strerror(errno));
}

/* ---- events ---- */

/* Is anybody there to take an answer? */
static bool peer_listens(const struct client *c)
{
	return send(c->fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == 0 ||
	       fd_try_again(errno);
}

static void client_eof(struct client *c)
{
	c->eof = true;
	if (c->state == CLIENT_GREETING || c->state == CLIENT_REQUEST ||
		!peer_listens(c)) {
		log_debug("conn %" PRIu64 ": the client left in state %s",
			c->id, state_names[c->state]);
		client_end(c);
	}
}

/* Read once, and act on it. */
static void client_read(struct client *c)
{
	ssize_t n =
		recv(c->fd, c->in + c->in_len, CLIENT_IN_SIZE - c->in_len, 0);

	if (n > 0) {
		c->in_len += (size_t)n;
		client_parse(c);
	} else if (n == 0) {
		client_eof(c);
	} else if (!fd_try_again(errno)) {
		log_debug("conn %" PRIu64 ": read: %s", c->id,
			log_strerror(errno));
		client_end(c);
	}
}

/* Drop what a refused client still sends, until it closes. */
static void client_drain(struct client *c)
{
	struct relay_group *g = c->env->relays;
	ssize_t n = recv(c->fd, g->scratch.buf, g->scratch.size, 0);

	if (n == 0 || (n == -1 && !fd_try_again(errno)))
		client_end(c);
}

static void on_ready(struct client *c, int revents)
{
	assert(c->magic == CLIENT_MAGIC && c->state != CLIENT_GONE);
	if (revents & EV_READ) {
		if (c->state == CLIENT_REFUSED)
			client_drain(c);
		else if (wanted(c) & EV_READ)
			client_read(c);
	}
	client_settle(c);
}

static void on_io(struct ev_loop *loop, ev_io *w, int revents)
{
	on_ready(w->data, revents);
}

static void on_watch(struct watch *w, int revents)
{
	on_ready(list_entry(w, struct client, watch), revents);
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct client *c = w->data;

	assert(c->magic == CLIENT_MAGIC && c->state != CLIENT_GONE);
	switch (c->state) {
	case CLIENT_RESOLVING:
	case CLIENT_CONNECTING: {
		int err = connect_timed_out(&c->job);

		client_command(c)->cancel(c);
		client_refuse(
			c, socks5_reply_from_errno(err), log_strerror(err));
		client_settle(c);
		break;
	}
	case CLIENT_GREETING:
	case CLIENT_REQUEST: client_fault(c, "no whole request in time"); break;
	case CLIENT_REPLYING:
	case CLIENT_BINDING:
	case CLIENT_REFUSED:
	case CLIENT_GONE: client_end(c); break;
	}
}

/* ---- life ---- */

/* Return: NULL without memory. */
static struct client *make(
	struct client_env *env, struct service *service, int fd)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->magic = CLIENT_MAGIC;
	c->env = env;
	c->service = service;
	c->fd = fd;
	c->family = service->entrance->listener.family;
	ev_io_init(&c->io, on_io, fd, 0);
	c->io.data = c;
	watch_init(&c->watch, env->watches, fd, on_watch);
	ev_init(&c->deadline, on_deadline);
	c->deadline.data = c;
	connect_init(&c->job, env->loop, env->budget);
	list_init(&c->link);
	list_add_tail(&env->clients, &c->link);
	env->nr++;
	client_set_deadline(c, service->config.handshake_timeout);
	return c;
}

int client_new(struct client_env *env, struct service *service, int fd)
{
	struct client *c = make(env, service, fd);

	if (!c)
		return -1;
	c->id = env->next_id;
	env->next_id += env->id_step;
	/* The request has often come along with the connection. */
	client_read(c);
	client_settle(c);
	return 0;
}

int client_adopt(struct client_env *env, const struct client_move *move)
{
	const struct member_conn *conn = &move->conn;
	struct client *c = make(env, move->service, conn->fd);

	if (!c)
		return -1;
	assert(env->exports && conn->out_len <= sizeof(c->out));
	c->id = conn->id;
	c->req = move->req;
	c->out_len = conn->out_len;
	memcpy(c->out, conn->out, conn->out_len);
	client_set_state(c, CLIENT_BINDING);
	client_settle(c);
	return 0;
}

void client_abort_all(struct client_env *env)
{
	while (!list_empty(&env->clients))
		client_end(list_entry(env->clients.next, struct client, link));
}
