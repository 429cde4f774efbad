/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/resolve.h"

#include "common/log.h"
#include "proxy/connect.h"
#include "common/list.h"
#include "proxy/nameservers.h"

#include <ares.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define RESOLVER_MAGIC 0x52534c56u /* "RSLV" */
#define CHANNEL_MAGIC  0x4348414eu /* "CHAN" */
#define QUERY_MAGIC    0x51455259u /* "QERY" */

/* c-ares keeps one UDP and one TCP socket for each server. */
#define SOCKETS_PER_CHANNEL 16

/* One socket of c-ares; fd -1 marks a free slot. */
struct channel_socket {
	ev_io io; /* data: the channel */
	int fd;
};

struct channel {
	uint32_t magic;
	struct resolver *resolver;
	struct list link; /* of the resolver's channels */
	ares_channel ares;
	bool retired;
	unsigned int nr_open; /* questions */
	ev_timer timer;
	struct channel_socket socket[SOCKETS_PER_CHANNEL];
};

struct resolver {
	uint32_t magic;
	struct ev_loop *loop;
	const char *resolv_conf;
	struct file_stamp stamp;
	struct channel *current;
	struct list channels;
	unsigned int nr_open;
};

struct resolve_query {
	uint32_t magic;
	struct channel *channel;
	uint16_t port;
	bool starting; /* still inside resolve_start() */
	bool finished;
	resolve_cb *cb; /* NULL when cancelled */
	void *arg;
};

int resolve_library_init(void)
{
	int err = ares_library_init(ARES_LIB_INIT_ALL);

	if (err != ARES_SUCCESS)
		log_error("c-ares: %s", ares_strerror(err));
	return err == ARES_SUCCESS ? 0 : -1;
}

void resolve_library_cleanup(void)
{
	ares_library_cleanup();
}

/* ---- channels ---- */

/* Sleep until c-ares has a timeout of its own. */
static void arm_timer(struct channel *ch)
{
	struct timeval tv;

	if (!ares_timeout(ch->ares, NULL, &tv)) {
		ev_timer_stop(ch->resolver->loop, &ch->timer);
		return;
	}
	/* At least a millisecond: a time that has come is dealt with in the
	 * next turn, not in this one. */
	ch->timer.repeat = (double)tv.tv_sec + (double)tv.tv_usec / 1e6 + 0.001;
	ev_timer_again(ch->resolver->loop, &ch->timer);
}

static void channel_free(struct channel *ch)
{
	assert(ch->magic == CHANNEL_MAGIC);
	/* Answers all open questions by callbacks. ares_destroy() would too,
	 * but up to 1.17.1 it ends a question once for each address family. */
	ares_cancel(ch->ares);
	ares_destroy(ch->ares); /* closes its sockets, by callbacks too */
	assert(ch->nr_open == 0);
	ev_timer_stop(ch->resolver->loop, &ch->timer);
	list_del(&ch->link);
	ch->magic = 0;
	free(ch);
}

/* What is due after c-ares did something. The last thing that a handler does,
 * as the channel may be gone then. */
static void channel_after(struct channel *ch)
{
	if (ch->retired && ch->nr_open == 0)
		channel_free(ch);
	else
		arm_timer(ch);
}

static void on_socket(struct ev_loop *loop, ev_io *w, int revents)
{
	struct channel *ch = w->data;

	assert(ch->magic == CHANNEL_MAGIC);
	ares_process_fd(ch->ares, (revents & EV_READ) ? w->fd : ARES_SOCKET_BAD,
		(revents & EV_WRITE) ? w->fd : ARES_SOCKET_BAD);
	channel_after(ch);
}

static void on_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct channel *ch = w->data;

	assert(ch->magic == CHANNEL_MAGIC);
	ares_process_fd(ch->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	channel_after(ch);
}

/* The slot that watches @fd, or with -1 a free one; NULL if there is none. */
static struct channel_socket *find_socket(struct channel *ch, int fd)
{
	for (size_t i = 0; i < SOCKETS_PER_CHANNEL; i++)
		if (ch->socket[i].fd == fd)
			return &ch->socket[i];
	return NULL;
}

/* c-ares says what it waits for on a socket; nothing means it closes it. */
static void on_socket_state(void *data, ares_socket_t fd, int rd, int wr)
{
	struct channel *ch = data;
	struct channel_socket *s = find_socket(ch, fd);
	int mask = (rd ? EV_READ : 0) | (wr ? EV_WRITE : 0);

	assert(ch->magic == CHANNEL_MAGIC);
	if (!s) {
		s = mask ? find_socket(ch, -1) : NULL;
		if (!s) {
			if (mask)
				log_warn_ratelimit("c-ares: more than %d "
						   "sockets, one is not heard",
					SOCKETS_PER_CHANNEL);
			return;
		}
		s->fd = fd;
		ev_io_init(&s->io, on_socket, fd, mask);
		s->io.data = ch;
	}
	ev_io_stop(ch->resolver->loop, &s->io);
	ev_io_set(&s->io, fd, mask);
	if (mask)
		ev_io_start(ch->resolver->loop, &s->io);
	else
		s->fd = -1;
}

static struct channel *channel_new(struct resolver *resolver)
{
	/* The hosts file first, whatever nsswitch.conf says: there is no other
	 * order that anybody means. */
	char lookups[] = "fb";
	struct ares_options options = {
		.lookups = lookups,
		.sock_state_cb = on_socket_state,
		.resolvconf_path = (char *)(uintptr_t)resolver->resolv_conf,
	};
	struct channel *ch = calloc(1, sizeof(*ch));
	struct nameservers conf;
	const struct ip_port *servers;
	int err;

	if (!ch)
		return NULL;
	nameservers_init(&conf, resolver->resolv_conf);
	nameservers_get(&conf, &servers);
	options.timeout = (int)conf.timeout * 1000;
	options.tries = (int)conf.attempts;
	options.sock_state_cb_data = ch;
	err = ares_init_options(&ch->ares, &options,
		ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB |
			ARES_OPT_RESOLVCONF | ARES_OPT_TIMEOUTMS |
			ARES_OPT_TRIES);
	if (err != ARES_SUCCESS) {
		log_warn_ratelimit("cannot set up name look-ups from %s: %s",
			resolver->resolv_conf, ares_strerror(err));
		free(ch);
		return NULL;
	}
	ch->magic = CHANNEL_MAGIC;
	ch->resolver = resolver;
	for (size_t i = 0; i < SOCKETS_PER_CHANNEL; i++)
		ch->socket[i].fd = -1;
	ev_init(&ch->timer, on_timer);
	ch->timer.data = ch;
	list_init(&ch->link);
	list_add_tail(&resolver->channels, &ch->link);
	return ch;
}

/* The channel for the next question: a fresh one if resolv.conf changed. */
static struct channel *channel_get(struct resolver *resolver)
{
	struct file_stamp now = file_stamp(resolver->resolv_conf);
	struct channel *old = resolver->current;
	struct channel *fresh;

	if (old && file_stamp_equal(&now, &resolver->stamp))
		return old;
	fresh = channel_new(resolver);
	if (!fresh)
		return old;
	resolver->current = fresh;
	resolver->stamp = now;
	if (old) {
		old->retired = true;
		channel_after(old);
	}
	return fresh;
}

struct resolver *resolver_new(struct ev_loop *loop, const char *resolv_conf)
{
	struct resolver *resolver = calloc(1, sizeof(*resolver));

	if (!resolver)
		return NULL;
	resolver->magic = RESOLVER_MAGIC;
	resolver->loop = loop;
	resolver->resolv_conf = resolv_conf;
	list_init(&resolver->channels);
	if (!channel_get(resolver)) {
		free(resolver);
		return NULL;
	}
	return resolver;
}

void resolver_free(struct resolver *resolver)
{
	assert(resolver->magic == RESOLVER_MAGIC);
	for (struct list *link = resolver->channels.next, *next;
		link != &resolver->channels; link = next) {
		next = link->next;
		channel_free(list_entry(link, struct channel, link));
	}
	assert(resolver->nr_open == 0);
	resolver->magic = 0;
	free(resolver);
}

/* ---- questions ---- */

static enum resolve_status status_of(int ares_status)
{
	switch (ares_status) {
	case ARES_SUCCESS: return RESOLVE_OK;
	case ARES_ENODATA:
	case ARES_ENOTFOUND:
	case ARES_EBADNAME: return RESOLVE_NO_ADDRESS;
	case ARES_ETIMEOUT: return RESOLVE_TIMED_OUT;
	default: return RESOLVE_FAILED;
	}
}

/* Copy the addresses out of c-ares' list. Return: how many. */
static size_t collect(struct ip_port out[CONNECT_ADDRS_MAX], uint16_t port,
	const struct ares_addrinfo *info)
{
	const struct ares_addrinfo_node *node = info ? info->nodes : NULL;
	size_t nr = 0;

	for (; node && nr < CONNECT_ADDRS_MAX; node = node->ai_next) {
		if (ip_port_from_sockaddr(&out[nr], node->ai_addr,
			    (socklen_t)node->ai_addrlen) == -1)
			continue;
		out[nr++].port = port;
	}
	return nr;
}

static void answer(struct resolve_query *q, int ares_status,
	const struct ares_addrinfo *info)
{
	struct ip_port addrs[CONNECT_ADDRS_MAX];
	enum resolve_status status = status_of(ares_status);
	size_t nr = collect(addrs, q->port, info);

	if (status == RESOLVE_OK && nr == 0)
		status = RESOLVE_NO_ADDRESS;
	if (status != RESOLVE_OK)
		nr = 0;
	if (q->cb)
		q->cb(q->arg, status, ares_strerror(ares_status), addrs, nr);
}

static void on_answer(
	void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
	struct resolve_query *q = arg;

	assert(q->magic == QUERY_MAGIC && !q->finished);
	q->finished = true;
	answer(q, status, info);
	if (info)
		ares_freeaddrinfo(info);
	/* Only now: the channel, which is on the stack below, must not count
	 * as idle should the answer lead to another question. */
	q->channel->nr_open--;
	q->channel->resolver->nr_open--;
	if (!q->starting) {
		q->magic = 0;
		free(q);
	}
}

struct resolve_query *resolve_start(struct resolver *resolver, const char *name,
	uint16_t port, resolve_cb *cb, void *arg)
{
	const struct ares_addrinfo_hints hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
	};
	struct channel *ch = channel_get(resolver);
	struct resolve_query *q = NULL;

	assert(resolver->magic == RESOLVER_MAGIC);
	if (ch && resolver->nr_open < RESOLVE_MAX)
		q = calloc(1, sizeof(*q));
	if (!q) {
		log_warn_ratelimit("look-up of %s refused: %u are open", name,
			resolver->nr_open);
		cb(arg, RESOLVE_FAILED, "too many look-ups", NULL, 0);
		return NULL;
	}
	*q = (struct resolve_query){
		.magic = QUERY_MAGIC,
		.channel = ch,
		.port = port,
		.starting = true,
		.cb = cb,
		.arg = arg,
	};
	ch->nr_open++;
	resolver->nr_open++;
	ares_getaddrinfo(ch->ares, name, NULL, &hints, on_answer, q);
	channel_after(ch);
	q->starting = false;
	if (!q->finished)
		return q;
	q->magic = 0;
	free(q);
	return NULL;
}

void resolve_cancel(struct resolve_query *q)
{
	assert(q->magic == QUERY_MAGIC);
	q->cb = NULL;
}
