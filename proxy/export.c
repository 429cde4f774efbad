/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/export.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/peer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * An export is a port of this host, the connections from an enclave that
 * belong to it (its members), and the clients that wait in its lobby. There
 * are two kinds, and their members' roles:
 *
 *	HELD	Who has its key may add members. MEMBER_HOLD connections own
 *		the port: with the last of them it goes, at once and with
 *		everything. MEMBER_JOIN and MEMBER_MEET connections are standby
 *		connections; the first makes the port listen, and for a time
 *		there may be none.
 *	PLAIN	RFC 1928: each MEMBER_PLAIN connection is standby connection
 *		and owner, so the port listens from the start. When clients
 *		have taken the last one the peer is about to send more: the
 *		port stays for EXPORT_GRACE seconds, as it does while clients
 *		wait. When its peer closed the last one, it goes at once.
 *
 * Pairing. As long as a client waits and a standby connection is idle, those
 * that have waited longest are brought together: the standby connection is
 * sent the second reply with the client's address, and both are given away
 * (ops->paired) to whatever is to move their bytes. Both are looked at before.
 * A client that has gone is dropped; a standby connection that has gone is
 * dropped and the client gets the next one. So a client is never lost to a
 * dead connection, and never moves to another export.
 *
 * When an export ends, its waiting clients are reset, as the kernel does with
 * the backlog of a listener that is closed.
 *
 * File descriptors. A member comes with FDS_PER_CONNECTION of the budget: its
 * own and its client's. The listening sockets are accounted for here.
 *
 * Whether an export goes on to be is decided in export_check() alone.
 */

#define EXPORT_MAGIC 0x4558504fu /* "EXPO" */

/* ---- log ---- */

/* Opening and closing a port is worth a line each time, but an enclave can do
 * it at will: the lines of every NR_SITES-th port are limited together. */
#define NR_SITES 64

static struct log_site *site_of(const struct export *e)
{
	static struct log_site sites[NR_SITES];

	return &sites[e->lobby.host.port % NR_SITES];
}

static const char *scope_text(const struct bind_scope *scope)
{
	static const char *const text[2][2][2] = {
		{{"", ""}, {"IPv6", "IPv6 loopback"}},
		{{"IPv4", "IPv4 loopback"},
			{"IPv4 and IPv6", "IPv4 and IPv6 loopback"}},
	};

	return text[scope->v4][scope->v6][scope->loopback];
}

/* ---- the end ---- */

static void export_destroy(struct reap *reap)
{
	struct export *e = list_entry(reap, struct export, reap);

	assert(e->magic == EXPORT_MAGIC && e->dead);
	e->magic = 0;
	free(e);
}

void export_end(struct export *e)
{
	struct export_env *env = e->env;

	assert(e->magic == EXPORT_MAGIC && !e->dead);
	if (log_enabled(LOG_INFO))
		log_write(LOG_INFO, site_of(e), "port %u: closed",
			e->lobby.host.port);
	e->dead = true;
	list_del(&e->link);
	env->nr--;
	ev_timer_stop(env->lobby.loop, &e->grace);
	fd_budget_give(env->lobby.budget, (long)e->lobby.host.nr);
	lobby_close(&e->lobby);
	while (!list_empty(&e->members))
		member_end(list_entry(e->members.next, struct member, link));
	reap_later(env->member.reaper, &e->reap, export_destroy);
}

/* Does the export still have a reason to be? Whenever its owners changed. */
static void export_check(struct export *e)
{
	struct ev_loop *loop = e->env->lobby.loop;

	if (e->dead)
		return;
	if (e->nr_owners > 0)
		ev_timer_stop(loop, &e->grace);
	else if (e->key.held || (!e->consumed && lobby_is_empty(&e->lobby)))
		export_end(e);
	else if (!ev_is_active(&e->grace))
		ev_timer_again(loop, &e->grace);
}

static void on_grace(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct export *e = timer->data;

	assert(e->magic == EXPORT_MAGIC && !e->dead && e->nr_owners == 0);
	export_end(e);
}

/* ---- pairing ---- */

/* Return: the bytes written, of a success in IPv6 form. */
static size_t write_address(uint8_t *buf, struct ip_port addr)
{
	size_t len;

	ip_port_map(&addr);
	len = socks5_write_reply(buf, SOCKS5_SUCCEEDED, &addr);
	assert(len == SOCKS5_REPLY_V6_LEN);
	return len;
}

/* The address that a client from @remote has reached. */
static struct ip_port reached(int client, const struct ip_port *remote)
{
	struct ip_port addr;
	union sockaddr_any any;
	socklen_t len = sizeof(any);

	if (getsockname(client, &any.sa, &len) == -1 ||
		ip_port_from_sockaddr(&addr, &any.sa, len) == -1)
		addr = (struct ip_port){.family = remote->family};
	return addr;
}

/*
 * Tell a standby connection who has come.
 * @addr: of @client
 * @pair: gets what could not be sent at once
 * Return: false if the connection is gone.
 */
static bool send_second(struct member *m, int client,
	const struct ip_port *addr, struct export_pair *pair)
{
	uint8_t buf[sizeof(pair->first)];
	size_t len = write_address(buf, *addr);
	ssize_t n;

	if (m->role == MEMBER_MEET)
		len += write_address(buf + len, reached(client, addr));
	n = send(m->conn.fd, buf, len, MSG_NOSIGNAL);
	if (n == -1 && !fd_try_again(errno))
		return false;
	if (n == -1)
		n = 0;
	pair->first_len = len - (size_t)n;
	memcpy(pair->first, buf + n, pair->first_len);
	return true;
}

/* Take @m, whose client is in @pair already, out of the export. */
static void release(
	struct export *e, struct member *m, struct export_pair *pair)
{
	list_del(&m->link);
	list_del(&m->idle_link);
	if (m->role == MEMBER_PLAIN) {
		e->nr_owners--;
		e->consumed = true;
	}
	pair->id = m->conn.id;
	pair->sock[0].family = m->conn.family;
	pair->sock[0].fd = member_release(m);
}

/*
 * Bring the first client and the first standby connection together, or drop
 * the connection if it turns out to be gone.
 */
static void pair_one(struct export *e, int client, const struct ip_port *addr)
{
	struct member *m = list_entry(e->idle.next, struct member, idle_link);
	struct export_pair pair = {
		.sock[1] = {client, (sa_family_t)addr->family}};

	if (!member_alive(m))
		return;
	if (!send_second(m, client, addr, &pair)) {
		member_end(m);
		return;
	}
	release(e, m, &pair);
	lobby_take(&e->lobby);
	export_check(e);
	e->env->ops->paired(e->env->arg, &pair);
}

static void pair_all(struct export *e)
{
	struct ip_port addr;
	int client;

	while (!e->dead && !list_empty(&e->idle)) {
		client = lobby_look(&e->lobby, &addr);
		if (client == -1)
			break;
		pair_one(e, client, &addr);
	}
}

static bool on_expects(const struct lobby *lobby)
{
	const struct export *e = list_entry(lobby, struct export, lobby);

	return !list_empty(&e->idle);
}

static void on_arrived(struct lobby *lobby)
{
	struct export *e = list_entry(lobby, struct export, lobby);

	assert(e->magic == EXPORT_MAGIC && !e->dead);
	pair_all(e);
}

static const struct lobby_ops lobby_ops = {on_expects, on_arrived};

/* ---- members ---- */

static bool is_owner(const struct member *m)
{
	return m->role == MEMBER_HOLD || m->role == MEMBER_PLAIN;
}

static void on_ready(struct member *m)
{
	struct export *e = m->owner;

	assert(e->magic == EXPORT_MAGIC && !e->dead);
	if (m->role == MEMBER_HOLD)
		return;
	list_add_tail(&e->idle, &m->idle_link);
	pair_all(e);
}

static void on_gone(struct member *m)
{
	struct export *e = m->owner;

	assert(e->magic == EXPORT_MAGIC);
	list_del(&m->link);
	list_del(&m->idle_link);
	if (is_owner(m)) {
		assert(e->nr_owners > 0);
		e->nr_owners--;
		e->consumed = false;
	}
	e->env->ops->gone(e->env->arg);
	export_check(e);
}

int export_add(
	struct export *e, enum member_role role, const struct member_conn *conn)
{
	const struct ip_port bound = {.family = AF_UNSPEC, .port = e->port};
	struct member_conn mine = *conn;
	struct member *m;
	int err = 0;

	assert(e->magic == EXPORT_MAGIC && !e->dead);
	assert(mine.out_len + SOCKS5_REPLY_V4_LEN <= sizeof(mine.out));
	if (role != MEMBER_HOLD && !e->lobby.listening)
		err = lobby_listen(&e->lobby);
	if (err)
		return err;
	m = member_new(&e->env->member, role, e);
	if (!m)
		return ENOMEM;
	mine.out_len += socks5_write_reply(
		mine.out + mine.out_len, SOCKS5_SUCCEEDED, &bound);
	list_add_tail(&e->members, &m->link);
	if (is_owner(m))
		e->nr_owners++;
	export_check(e);
	member_start(m, &mine);
	return 0;
}

void export_look_at_owners(struct export *e)
{
	struct list *l, *next;

	for (l = e->members.next; !e->dead && l != &e->members; l = next) {
		struct member *m = list_entry(l, struct member, link);

		next = l->next;
		if (is_owner(m))
			member_alive(m);
	}
}

/* ---- life ---- */

void export_env_init(struct export_env *env, struct ev_loop *loop,
	struct watch_set *watches, struct reaper *reaper,
	const struct bind_policy *policy, struct fd_budget *budget)
{
	env->policy = policy;
	env->nr = 0;
	lobby_env_init(&env->lobby, loop, policy, budget);
	env->member.watches = watches;
	env->member.reaper = reaper;
	env->member.ready = on_ready;
	env->member.gone = on_gone;
}

/* Bind the port. Return: 0 or an errno. */
static int open_port(struct export *e, uint16_t host_port)
{
	struct host_port *host = &e->lobby.host;
	int err = host_port_open(host, e->env->policy, &e->scope, host_port,
		e->env->taken, e->env);

	if (err)
		return err;
	if (!fd_budget_take(e->env->lobby.budget, (long)host->nr)) {
		host_port_close(host);
		return EMFILE;
	}
	/* A port that was chosen is not a published one. */
	if (e->port == 0)
		e->port = host->port;
	return 0;
}

static void log_opened(const struct export *e, int fd)
{
	char peer[PEER_STRLEN];

	if (!log_enabled(LOG_INFO))
		return;
	log_write(LOG_INFO, site_of(e), "port %u: open to %s for port %u of %s",
		e->lobby.host.port, scope_text(&e->scope), e->port,
		peer_format(fd, peer, sizeof(peer)));
}

struct export *export_new(struct export_env *env, const struct export_key *key,
	const struct bind_scope *scope, uint16_t port, int fd, int *err)
{
	struct export *e = calloc(1, sizeof(*e));

	*err = ENOMEM;
	if (!e)
		return NULL;
	e->magic = EXPORT_MAGIC;
	e->env = env;
	e->key = *key;
	e->scope = *scope;
	e->port = port;
	list_init(&e->link);
	list_init(&e->members);
	list_init(&e->idle);
	ev_timer_init(&e->grace, on_grace, 0, EXPORT_GRACE);
	e->grace.data = e;
	lobby_init(&e->lobby, &env->lobby, &lobby_ops);
	*err = open_port(e, bind_policy_host_port(env->policy, port));
	if (*err) {
		free(e);
		return NULL;
	}
	env->nr++;
	log_opened(e, fd);
	return e;
}
