/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/dns_upstream_int.h"
#include "common/fd.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIME_SLACK 0.01 /* seconds; less is no time at all */

/* ---- ids ---- */

/*
 * xorshift64*. Nobody can inject into the TCP connections that ids are used
 * on, so they have to be hard to confuse, not hard to guess; and getrandom(2)
 * may block in a machine that has just started.
 */
static uint16_t random_id(struct dns_upstream *up)
{
	up->random ^= up->random >> 12;
	up->random ^= up->random << 25;
	up->random ^= up->random >> 27;
	return (uint16_t)((up->random * 0x2545f4914f6cdd1dull) >> 48);
}

static uint64_t random_seed(void)
{
	uint64_t seed = 0;
	int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (read(fd, &seed, sizeof(seed)) != (ssize_t)sizeof(seed))
			seed = 0;
		closefd(&fd);
	}
	return seed ^ ((uint64_t)getpid() << 32) ^ 0x9e3779b97f4a7c15ull;
}

static struct leg **id_slot(struct dns_upstream *up, uint16_t id)
{
	struct leg **slot = &up->ids[id % ID_BUCKETS];

	while (*slot && (*slot)->id != id)
		slot = &(*slot)->next_id;
	return slot;
}

/* There are fewer legs than ids (the caller's limit), so this ends soon. */
void leg_begin(struct dns_ask *ask, struct conn *conn)
{
	struct leg **slot;
	struct leg *leg;

	ask->leg = (ask->leg + 1) % DNS_LEGS;
	leg = &ask->legs[ask->leg];
	if (leg->conn)
		leg_drop(leg);
	do {
		leg->id = random_id(ask->up);
		slot = id_slot(ask->up, leg->id);
	} while (*slot);
	leg->next_id = NULL;
	leg->ask = ask;
	leg->conn = conn;
	list_init(&leg->node);
	*slot = leg;
	dns_set_id(ask->msg, leg->id);
}

void leg_drop(struct leg *leg)
{
	struct leg **slot = id_slot(leg->ask->up, leg->id);
	struct conn *conn = leg->conn;

	assert(*slot == leg);
	*slot = leg->next_id;
	list_del(&leg->node);
	leg->conn = NULL;
	if (conn->state == CONN_RETIRED && list_empty(&conn->late))
		conn_end_soon(conn);
}

struct leg *leg_by_id(struct dns_upstream *up, uint16_t id)
{
	return *id_slot(up, id);
}

/* Nobody waits for answers to this ask any more. */
static void drop_legs(struct dns_ask *ask)
{
	unsigned i;

	assert(!ask->conn);
	for (i = 0; i < DNS_LEGS; i++)
		if (ask->legs[i].conn)
			leg_drop(&ask->legs[i]);
}

/* FNV-1a of the name, letters in lower case. */
static uint32_t name_hash(const struct dns_ask *ask)
{
	uint32_t hash = 2166136261u;
	size_t i;

	for (i = DNS_HEADER_LEN; i + 4 < ask->info.question_end; i++) {
		uint8_t c = ask->msg[i];

		if (c >= 'A' && c <= 'Z')
			c = (uint8_t)(c + ('a' - 'A'));
		hash = (hash ^ c) * 16777619u;
	}
	return hash;
}

/* ---- servers ---- */

bool server_is_dead(const struct server *server)
{
	return server->dead_until > ev_now(server->up->loop);
}

void server_dead(struct server *server, const char *why)
{
	struct dns_upstream *up = server->up;

	if (!server_is_dead(server))
		log_warn_ratelimit("DNS server %s: %s", server->text, why);
	server->dead_until = ev_now(up->loop) + up->config.dead_time;
}

void server_alive(struct server *server)
{
	if (server_is_dead(server))
		log_info_ratelimit("DNS server %s: answers", server->text);
	server->dead_until = 0;
	server->silent = false;
	server->dropped = 0;
}

/* Nothing was heard on the connection that @ask was sent on. */
void server_silent(struct server *server, const struct dns_ask *ask)
{
	uint32_t name = name_hash(ask);

	if (server->silent && server->silent_name != name) {
		server_dead(server, "does not answer");
		return;
	}
	server->silent = true;
	server->silent_name = name;
}

/**
 * server_next() - whom to ask now
 * @ask:   @tried is looked at, not changed
 * @share: set to among how many attempts the time left is to be shared
 *
 * Return: the server, or NULL when all have been tried.
 */
static struct server *server_next(const struct dns_ask *ask, unsigned *share)
{
	struct dns_upstream *up = ask->up;
	unsigned nr = up->config.nr_servers;
	struct server *best = NULL;
	unsigned i;

	*share = 0;
	for (i = 0; i < nr; i++) {
		unsigned index = (ask->first + i) % nr;
		struct server *server = &up->servers[index];

		if (ask->tried & 1u << index)
			continue;
		if (!best ||
			(server_is_dead(best) && !server_is_dead(server))) {
			best = server;
			*share = 0;
		}
		if (server_is_dead(server) == server_is_dead(best))
			++*share;
	}
	if (nr == 1 && !ask->second) {
		best = &up->servers[0];
		*share = ask->tried ? 1 : 2;
	}
	return best;
}

/* ---- asks ---- */

static void ask_finish(struct dns_ask *ask, uint8_t *answer, size_t len)
{
	struct dns_upstream *up = ask->up;
	struct dns_outcome outcome = {
		.query = ask->msg,
		.answer = answer,
		.len = len,
		.rcode = ask->rcode,
	};

	assert(!ask->conn && !ask->done);
	ask->done = true;
	ev_timer_stop(up->loop, &ask->timer);
	list_del(&ask->node);
	list_add_tail(&up->done, &ask->node);
	drop_legs(ask);
	if (answer)
		dns_set_id(answer, ask->info.id);
	ask->cb(ask->arg, &outcome);
}

/* The next attempt, from the loop: for callers that must not call back. */
void ask_try_soon(struct dns_ask *ask)
{
	struct ev_loop *loop = ask->up->loop;

	ev_timer_stop(loop, &ask->timer);
	ev_timer_set(&ask->timer, 0., 0.);
	ev_timer_start(loop, &ask->timer);
}

/* Give an ask to a connection to @server; its attempt's end stays. */
void ask_place(struct dns_ask *ask, struct server *server)
{
	struct conn *conn = conn_for(server, ask);

	if (!conn) {
		log_warn_ratelimit("DNS server %s: cannot connect: %s",
			server->text, log_strerror(ENOMEM));
		ask_try_soon(ask);
		return;
	}
	conn_add(conn, ask);
}

/* Begin the next attempt, or give up. */
void ask_try(struct dns_ask *ask)
{
	struct dns_upstream *up = ask->up;
	double left = ask->deadline - ev_now(up->loop);
	unsigned share;
	struct server *server = server_next(ask, &share);

	if (!server || left < TIME_SLACK) {
		ask_finish(ask, NULL, 0);
		return;
	}
	ask->second = ask->tried && up->config.nr_servers == 1;
	ask->tried |= 1u << (server - up->servers);
	ask->asked_at = ev_now(up->loop);
	ask->dropped = 0;
	ask->moves = 0;
	ev_timer_stop(up->loop, &ask->timer);
	ev_timer_set(&ask->timer, left / share, 0.);
	ev_timer_start(up->loop, &ask->timer);
	ask_place(ask, server);
}

void ask_answered(
	struct dns_ask *ask, enum dns_rcode rcode, uint8_t *msg, size_t len)
{
	unsigned share;

	ask->rcode = rcode;
	if (rcode == DNS_SERVFAIL || rcode == DNS_NOTIMP ||
		rcode == DNS_REFUSED) {
		/* The sole server has spoken: no second attempt. */
		ask->second = true;
		if (server_next(ask, &share)) {
			ask_try(ask);
			return;
		}
	}
	ask_finish(ask, msg, msg ? len : 0);
}

/* The end of an attempt. */
static void on_ask_timer(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct dns_ask *ask = timer->data;
	struct conn *conn = ask->conn;

	assert(ask->magic == ASK_MAGIC && !ask->done);
	if (conn) {
		conn_leave(ask);
		conn_unanswered(conn, ask);
	}
	/* Other asks' call-backs may have cancelled this one meanwhile. */
	if (!ask->done)
		ask_try(ask);
}

struct dns_ask *dns_upstream_ask(struct dns_upstream *up, const uint8_t *query,
	size_t len, const struct dns_query *info, unsigned first,
	dns_outcome_cb *cb, void *arg)
{
	struct dns_ask *ask;

	assert(up->magic == UPSTREAM_MAGIC && len <= DNS_MSG_MAX);
	assert(info->question_end > DNS_HEADER_LEN);
	ask = calloc(1, sizeof(*ask) + len);
	if (!ask)
		return NULL;
	ask->magic = ASK_MAGIC;
	ask->up = up;
	ask->deadline = ev_now(up->loop) + up->config.deadline;
	ask->first = first % up->config.nr_servers;
	ask->rcode = DNS_SERVFAIL;
	ask->cb = cb;
	ask->arg = arg;
	ask->info = *info;
	ask->len = len;
	memcpy(ask->msg, query, len);
	ev_init(&ask->timer, on_ask_timer);
	ask->timer.data = ask;
	list_init(&ask->node);
	list_add_tail(&up->placeless, &ask->node);
	/* There is a server and time, so this does not call back. */
	ask_try(ask);
	return ask;
}

void dns_ask_cancel(struct dns_ask *ask)
{
	struct dns_upstream *up = ask->up;

	assert(ask->magic == ASK_MAGIC && !ask->done);
	if (ask->conn) {
		ask->conn->abandoned += ask->conn->state == CONN_OPEN;
		conn_remove(ask);
	}
	ask->done = true;
	ev_timer_stop(up->loop, &ask->timer);
	list_del(&ask->node);
	list_add_tail(&up->done, &ask->node);
	drop_legs(ask);
}

/* ---- life ---- */

static void free_ended(struct dns_upstream *up)
{
	while (!list_empty(&up->done)) {
		struct dns_ask *ask =
			list_entry(list_pop(&up->done), struct dns_ask, node);

		ask->magic = 0;
		free(ask);
	}
	while (!list_empty(&up->ended)) {
		struct conn *conn =
			list_entry(list_pop(&up->ended), struct conn, node);

		conn->magic = 0;
		free(conn);
	}
}

static void on_reap(struct ev_loop *loop, ev_prepare *reap, int revents)
{
	struct dns_upstream *up = reap->data;

	assert(up->magic == UPSTREAM_MAGIC);
	free_ended(up);
}

static void server_init(struct dns_upstream *up, unsigned index)
{
	struct server *server = &up->servers[index];

	server->up = up;
	server->addr = up->config.servers[index];
	dns_server_format(&server->addr, server->text, sizeof(server->text));
	list_init(&server->conns);
	list_init(&server->retired);
}

struct dns_upstream *dns_upstream_new(
	struct ev_loop *loop, const struct dns_upstream_config *config)
{
	struct dns_upstream *up;
	unsigned i;

	if (config->nr_servers == 0 || config->nr_servers > DNS_SERVERS_MAX) {
		errno = EINVAL;
		return NULL;
	}
	up = calloc(1, sizeof(*up));
	if (!up)
		return NULL;
	up->magic = UPSTREAM_MAGIC;
	up->loop = loop;
	up->config = *config;
	up->random = random_seed();
	list_init(&up->placeless);
	list_init(&up->done);
	list_init(&up->ended);
	for (i = 0; i < config->nr_servers; i++)
		server_init(up, i);
	up->config.servers = NULL; /* the caller's; copied */
	ev_prepare_init(&up->reap, on_reap);
	up->reap.data = up;
	ev_prepare_start(loop, &up->reap);
	ev_unref(loop); /* it alone keeps no loop running */
	return up;
}

/* Drop the asks of a list without a word. */
static void drop_asks(struct list *list)
{
	while (!list_empty(list))
		dns_ask_cancel(ask_first(list));
}

void dns_upstream_free(struct dns_upstream *up)
{
	unsigned i;

	assert(up->magic == UPSTREAM_MAGIC);
	drop_asks(&up->placeless);
	for (i = 0; i < up->config.nr_servers; i++) {
		struct server *server = &up->servers[i];

		while (!list_empty(&server->conns)) {
			drop_asks(&conn_first(server)->pending);
			conn_release(conn_first(server));
		}
		while (!list_empty(&server->retired))
			conn_release(list_entry(
				server->retired.next, struct conn, node));
	}
	free_ended(up);
	ev_ref(up->loop);
	ev_prepare_stop(up->loop, &up->reap);
	up->magic = 0;
	free(up);
}
