/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/client.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/connect.h"
#include "proxy/peer.h"

#include <arpa/inet.h>
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
 * client's story by refuse() or by connected(), at once or from its own
 * events, and to cancel() if the client goes away meanwhile. A further command
 * is a further row in commands[].
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

#define CLIENT_MAGIC 0x434c4e54u /* "CLNT" */

#define IN_SIZE 1024
_Static_assert(IN_SIZE >= SOCKS5_GREETING_MAX + SOCKS5_REQUEST_MAX,
	"a whole handshake fits");
#define OUT_SIZE (SOCKS5_METHOD_LEN + SOCKS5_REPLY_V6_LEN)

#define REFUSED_TIMEOUT 2.0 /* seconds to take a refusal */

#define DST_STRLEN (SOCKS5_NAME_MAX + 8)

enum client_state {
	CLIENT_GREETING = 0,
	CLIENT_REQUEST,
	CLIENT_RESOLVING,
	CLIENT_CONNECTING,
	CLIENT_REPLYING,
	CLIENT_BINDING,
	CLIENT_REFUSED,
	CLIENT_GONE,
};

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

/**
 * struct client - see the theory above
 * @io, @mask: watches @fd for @mask
 * @watch:     watches it in the states before it may go to another thread
 * @in, @in_pos, @in_len: received, taken by parsers, and in all
 * @out, @out_len: to be sent
 * @eof:      the client has ended its stream
 * @fin_sent: we have ended ours (REFUSED)
 * @query:    RESOLVING: the look-up
 * @job:      CONNECTING and after: the connect and its result
 */
struct client {
	uint32_t magic;
	enum client_state state;
	struct client_env *env;
	struct service *service;
	struct list link;
	uint64_t id;
	int fd;
	sa_family_t family;
	uint8_t mask;
	bool eof;
	bool fin_sent;
	ev_io io;
	struct watch watch;
	ev_timer deadline;
	size_t in_pos;
	size_t in_len;
	size_t out_len;
	uint8_t out[OUT_SIZE];
	uint8_t in[IN_SIZE];
	struct socks5_request req;
	struct resolve_query *query;
	struct connect_job job;
	struct reap reap;
};

struct command {
	const char *name;
	void (*start)(struct client *c);
	void (*cancel)(struct client *c);
};

static const struct command *find_command(const struct client *c);

static void set_state(struct client *c, enum client_state state)
{
	assert(c->state != CLIENT_GONE);
	log_debug("conn %" PRIu64 ": %s -> %s", c->id, state_names[c->state],
		state_names[state]);
	c->state = state;
}

static void set_deadline(struct client *c, double seconds)
{
	c->deadline.repeat = seconds;
	ev_timer_again(c->env->loop, &c->deadline);
}

/* For the log; without the keys, which are secrets of those who hold ports. */
static const char *dst_format(
	const struct socks5_addr *dst, char *buf, size_t size)
{
	struct hold_name name;

	if (dst->addr.family != AF_UNSPEC)
		ip_port_format(&dst->addr, buf, size);
	else if (hold_name_parse(&name, dst) == -1 || name.verb != HOLD_NONE)
		snprintf(buf, size, "%.5s*:%u", dst->name, dst->addr.port);
	else
		snprintf(buf, size, "%s:%u", dst->name, dst->addr.port);
	return buf;
}

static bool try_again(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

/* ---- the end of a client ---- */

static void client_destroy(struct reap *reap)
{
	struct client *c = list_of(reap, struct client, reap);

	assert(c->magic == CLIENT_MAGIC && c->state == CLIENT_GONE);
	c->magic = 0;
	free(c);
}

/* Wait for nothing, before the fd goes somewhere else. */
static void unwatch(struct client *c)
{
	ev_io_stop(c->env->loop, &c->io);
	c->mask = 0;
	watch_for(&c->watch, 0);
}

/* Let go of everything but the fds. */
static void detach(struct client *c)
{
	unwatch(c);
	ev_timer_stop(c->env->loop, &c->deadline);
	list_del(&c->link);
	assert(c->env->nr > 0);
	c->env->nr--;
	set_state(c, CLIENT_GONE);
	reap_later(c->env->reaper, &c->reap, client_destroy);
}

/* Close everything. */
static void client_end(struct client *c)
{
	struct client_env *env = c->env;
	const struct command *command = find_command(c);

	if (command && c->state != CLIENT_GREETING)
		command->cancel(c);
	closefd_if(&c->job.fd);
	detach(c);
	closefd(&c->fd);
	service_leave(c->service);
	if (env->gone)
		env->gone(env->arg);
}

/* The same, with a line that says what the client did wrong. */
static void client_fault(struct client *c, const char *what)
{
	char peer[PEER_STRLEN];

	log_warn_ratelimit("conn %" PRIu64 " (%s): %s", c->id,
		peer_format(c->fd, peer, sizeof(peer)), what);
	client_end(c);
}

/* ---- answers ---- */

static void put_method(struct client *c, uint8_t method)
{
	assert(c->out_len + SOCKS5_METHOD_LEN <= OUT_SIZE);
	c->out_len += socks5_write_method(c->out + c->out_len, method);
}

static void put_reply(
	struct client *c, enum socks5_reply reply, const struct ip_port *bound)
{
	assert(c->out_len + SOCKS5_REPLY_V6_LEN <= OUT_SIZE);
	c->out_len += socks5_write_reply(c->out + c->out_len, reply, bound);
}

/* End the stream after what is in @out. */
static void hang_up(struct client *c)
{
	set_state(c, CLIENT_REFUSED);
	set_deadline(c, REFUSED_TIMEOUT);
}

/* Answer the request with a failure. @why: for the log. */
static void refuse(struct client *c, enum socks5_reply reply, const char *why)
{
	static const struct ip_port none;
	char peer[PEER_STRLEN], dst[DST_STRLEN];

	log_info_ratelimit("conn %" PRIu64 " (%s): %s: %s (reply %d)", c->id,
		peer_format(c->fd, peer, sizeof(peer)),
		dst_format(&c->req.dst, dst, sizeof(dst)), why, (int)reply);
	put_reply(c, reply, &none);
	hang_up(c);
}

/* The command has a connection in c->job for the client. */
static void connected(struct client *c)
{
	put_reply(c, SOCKS5_SUCCEEDED, &c->job.local);
	set_state(c, CLIENT_REPLYING);
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

	unwatch(c);
	relay = relay_new(c->env->relays, sock, c->id, &relay_ops, c->service);
	if (!relay) {
		client_fault(c, log_strerror(ENOMEM));
		return;
	}
	c->fd = c->job.fd = -1;
	relay_set_idle(relay, c->service->config.idle_timeout);
	relay_feed(relay, 0, c->in + c->in_pos, c->in_len - c->in_pos);
	relay_run(relay);
	detach(c);
}

/* ---- BIND ---- */

/* Another thread has the exports. */
static void move_away(struct client *c, const struct client_move *move)
{
	struct client_env *env = c->env;

	if (env->move(env->arg, move) == -1) {
		client_end(c);
		return;
	}
	c->fd = -1;
	detach(c);
	env->moved(env->arg);
}

/* Give the connection to an export, or see it refused. */
static void bind_port(struct client *c, const struct client_move *move)
{
	enum socks5_reply reply;
	const char *why;

	reply = exports_request(
		c->env->exports, &c->req.dst, &move->conn, &why);
	if (reply == SOCKS5_SUCCEEDED) {
		/* It is the export's now, which has limits of its own. */
		c->fd = -1;
		service_leave(c->service);
		detach(c);
	} else {
		refuse(c, reply, why);
	}
}

static void start_bind(struct client *c)
{
	if (c->env->exports || c->env->move)
		set_state(c, CLIENT_BINDING);
	else
		refuse(c, SOCKS5_COMMAND_NOT_SUPPORTED, "BIND is not served");
}

static void cancel_bind(struct client *c)
{
}

static void client_bind(struct client *c)
{
	struct client_move move = {
		.conn = {c->fd, c->family, c->id, c->out_len},
		.req = c->req,
		.service = c->service,
	};

	if (c->in_pos < c->in_len) {
		client_fault(c, "bytes behind a BIND request");
		return;
	}
	assert(c->out_len <= sizeof(move.conn.out));
	memcpy(move.conn.out, c->out, c->out_len);
	unwatch(c);
	if (c->env->exports)
		bind_port(c, &move);
	else
		move_away(c, &move);
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
		if (!c->eof && c->in_len < IN_SIZE)
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
		return try_again(errno);
	c->out_len -= (size_t)n;
	memmove(c->out, c->out + n, c->out_len);
	return true;
}

/* Last call of each event: send, conclude, wait. */
static void client_settle(struct client *c)
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

/* ---- CONNECT ---- */

/* The job has finished one way or the other. */
static void connect_done(struct client *c)
{
	if (c->job.fd != -1)
		connected(c);
	else
		refuse(c, socks5_reply_from_errno(c->job.err),
			log_strerror(c->job.err));
}

static void on_connect(struct connect_job *job, void *arg)
{
	struct client *c = arg;

	assert(c->magic == CLIENT_MAGIC && c->state == CLIENT_CONNECTING);
	connect_done(c);
	client_settle(c);
}

static void connect_to(struct client *c, const struct ip_port *addrs, size_t nr)
{
	if (nr == 0) {
		refuse(c, SOCKS5_NOT_ALLOWED, "not allowed by the rules");
		return;
	}
	set_state(c, CLIENT_CONNECTING);
	if (connect_start(&c->job, addrs, nr, on_connect, c))
		connect_done(c);
}

/* Connect to those of @addrs that the rules allow. */
static void connect_allowed(
	struct client *c, const struct ip_port *addrs, size_t nr)
{
	struct ip_port allowed[CONNECT_ADDRS_MAX];
	size_t nr_allowed = 0;

	assert(nr <= CONNECT_ADDRS_MAX);
	for (size_t i = 0; i < nr; i++) {
		if (!rules_allow(&c->service->config.rules, &addrs[i]))
			continue;
		allowed[nr_allowed] = addrs[i];
		rules_canonical(&allowed[nr_allowed++]);
	}
	connect_order(allowed, nr_allowed);
	connect_to(c, allowed, nr_allowed);
}

/* The host's own name servers: the operator's choice, not the client's, so
 * only a rule that denies them by address stands in the way. */
static void connect_nameservers(struct client *c, size_t first)
{
	struct ip_port allowed[NAMESERVERS_MAX];
	const struct ip_port *servers;
	size_t nr = nameservers_get(c->env->nameservers, &servers);
	size_t nr_allowed = 0;

	for (size_t i = 0; i < nr; i++) {
		struct ip_port server = servers[(first + i) % nr];

		rules_canonical(&server);
		if (rules_match(&c->service->config.rules, &server) !=
			RULES_DENY)
			allowed[nr_allowed++] = server;
	}
	connect_to(c, allowed, nr_allowed);
}

static enum socks5_reply reply_of(enum resolve_status status)
{
	switch (status) {
	case RESOLVE_NO_ADDRESS: return SOCKS5_HOST_UNREACHABLE;
	case RESOLVE_TIMED_OUT: return SOCKS5_TTL_EXPIRED;
	case RESOLVE_OK:
	case RESOLVE_FAILED: break;
	}
	return SOCKS5_GENERAL_FAILURE;
}

static void on_resolved(void *arg, enum resolve_status status, const char *why,
	const struct ip_port *addrs, size_t nr)
{
	struct client *c = arg;
	/* May come before resolve_start() has returned the query; then whoever
	 * called it settles. */
	bool in_start = !c->query;

	assert(c->magic == CLIENT_MAGIC && c->state == CLIENT_RESOLVING);
	c->query = NULL;
	if (status == RESOLVE_OK)
		connect_allowed(c, addrs, nr);
	else
		refuse(c, reply_of(status), why);
	if (!in_start)
		client_settle(c);
}

/* Is a name just the text of an address? */
static bool name_is_address(const struct socks5_addr *dst, struct ip_port *out)
{
	memset(out, 0, sizeof(*out));
	out->port = dst->addr.port;
	if (inet_pton(AF_INET, dst->name, out->ip) == 1)
		out->family = AF_INET;
	else if (inet_pton(AF_INET6, dst->name, out->ip) == 1)
		out->family = AF_INET6;
	return out->family != AF_UNSPEC;
}

static void start_connect(struct client *c)
{
	const struct socks5_addr *dst = &c->req.dst;
	struct ip_port addr;
	size_t first;

	set_deadline(c, c->service->config.connect_timeout);
	if (dst->addr.family != AF_UNSPEC) {
		connect_allowed(c, &dst->addr, 1);
	} else if (name_is_address(dst, &addr)) {
		connect_allowed(c, &addr, 1);
	} else if (dst->addr.port == RESOLVER_PORT &&
		   is_resolver_name(dst->name, &first)) {
		connect_nameservers(c, first);
	} else {
		struct resolve_query *query;

		set_state(c, CLIENT_RESOLVING);
		query = resolve_start(c->env->resolver, dst->name,
			dst->addr.port, on_resolved, c);
		if (query)
			c->query = query;
	}
}

static void cancel_connect(struct client *c)
{
	if (c->query)
		resolve_cancel(c->query);
	c->query = NULL;
	connect_cancel(&c->job);
}

/* ---- requests ---- */

static const struct command commands[] = {
	[SOCKS5_CONNECT] = {"CONNECT", start_connect, cancel_connect},
	[SOCKS5_BIND] = {"BIND", start_bind, cancel_bind},
};

static const struct command *find_command(const struct client *c)
{
	if (c->req.command >= sizeof(commands) / sizeof(commands[0]) ||
		!commands[c->req.command].start)
		return NULL;
	return &commands[c->req.command];
}

static void start_command(struct client *c)
{
	const struct command *command = find_command(c);
	char peer[PEER_STRLEN], dst[DST_STRLEN];

	if (log_enabled(LOG_DEBUG))
		log_debug("conn %" PRIu64 " (%s): %s %s", c->id,
			peer_format(c->fd, peer, sizeof(peer)),
			command ? command->name : "unknown command",
			dst_format(&c->req.dst, dst, sizeof(dst)));
	if (command)
		command->start(c);
	else
		refuse(c, SOCKS5_COMMAND_NOT_SUPPORTED, "unknown command");
}

/* Return: bytes taken; 0 to wait for more or because the client has ended. */
static size_t take_greeting(struct client *c, const uint8_t *buf, size_t len)
{
	bool no_auth;
	ssize_t n = socks5_parse_greeting(buf, len, &no_auth);
	char what[64];

	if (n == -1) {
		snprintf(what, sizeof(what),
			"not SOCKS5: version is %u, expected 5", buf[0]);
		client_fault(c, what);
		return 0;
	}
	if (n > 0 && no_auth) {
		put_method(c, SOCKS5_METHOD_OK);
		set_state(c, CLIENT_REQUEST);
	} else if (n > 0) {
		log_warn_ratelimit("conn %" PRIu64 ": the client offers no "
				   "method without authentication",
			c->id);
		put_method(c, SOCKS5_METHOD_NONE);
		hang_up(c);
	}
	return (size_t)n;
}

static size_t take_request(struct client *c, const uint8_t *buf, size_t len)
{
	enum socks5_reply reply;
	ssize_t n = socks5_parse_request(buf, len, &c->req, &reply);

	if (n == -1) {
		memset(&c->req, 0, sizeof(c->req));
		refuse(c, reply,
			reply == SOCKS5_ATYP_NOT_SUPPORTED
				? "malformed request: unknown address type"
				: "malformed request: version, reserved byte "
				  "or name");
		return 0;
	}
	if (n > 0)
		start_command(c);
	return (size_t)n;
}

/* Take whole messages off the front of what was received. */
static void client_parse(struct client *c)
{
	size_t taken;

	do {
		const uint8_t *buf = c->in + c->in_pos;
		size_t len = c->in_len - c->in_pos;

		if (c->state == CLIENT_GREETING)
			taken = take_greeting(c, buf, len);
		else if (c->state == CLIENT_REQUEST)
			taken = take_request(c, buf, len);
		else
			break;
		c->in_pos += taken;
	} while (taken > 0);
	/* Or it would not be read any further. */
	assert(c->in_len < IN_SIZE || c->state > CLIENT_REQUEST);
}

/* ---- events ---- */

/* Is anybody there to take an answer? */
static bool peer_listens(const struct client *c)
{
	return send(c->fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == 0 ||
	       try_again(errno);
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
	ssize_t n = recv(c->fd, c->in + c->in_len, IN_SIZE - c->in_len, 0);

	if (n > 0) {
		c->in_len += (size_t)n;
		client_parse(c);
	} else if (n == 0) {
		client_eof(c);
	} else if (!try_again(errno)) {
		log_debug("conn %" PRIu64 ": read: %s", c->id,
			log_strerror(errno));
		client_end(c);
	}
}

/* Drop what a refused client still sends, until it closes. */
static void client_drain(struct client *c)
{
	struct relay_group *g = c->env->relays;
	ssize_t n = recv(c->fd, g->scratch, g->scratch_size, 0);

	if (n == 0 || (n == -1 && !try_again(errno)))
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
	on_ready(list_of(w, struct client, watch), revents);
}

static void on_deadline(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct client *c = w->data;

	assert(c->magic == CLIENT_MAGIC && c->state != CLIENT_GONE);
	switch (c->state) {
	case CLIENT_RESOLVING:
	case CLIENT_CONNECTING: {
		int err = connect_timed_out(&c->job);

		find_command(c)->cancel(c);
		refuse(c, socks5_reply_from_errno(err), log_strerror(err));
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
	list_add(&env->clients, &c->link);
	env->nr++;
	set_deadline(c, service->config.handshake_timeout);
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
	set_state(c, CLIENT_BINDING);
	client_settle(c);
	return 0;
}

void client_abort_all(struct client_env *env)
{
	while (!list_empty(&env->clients))
		client_end(list_of(env->clients.next, struct client, link));
}
