/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/exports.h"

#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTS_MAGIC 0x45585053u /* "EXPS" */

#define NR_BUCKETS 1024

/**
 * struct exports - all of them
 * @closed: no more are taken
 * @bucket: lists of exports by port of the host
 */
struct exports {
	uint32_t magic;
	bool closed;
	struct export_env env;
	struct list bucket[NR_BUCKETS];
};

static struct list *bucket_of(struct exports *x, uint16_t host_port)
{
	return &x->bucket[host_port % NR_BUCKETS];
}

/* ---- comparing ---- */

/* In constant time: how much of a guessed key is right must not show. */
static bool key_equal(const struct export_key *a, const struct export_key *b)
{
	unsigned int differ = a->held != b->held;

	for (size_t i = 0; i < sizeof(a->bytes); i++)
		differ |= a->bytes[i] ^ b->bytes[i];
	return differ == 0;
}

static bool scope_equal(const struct bind_scope *a, const struct bind_scope *b)
{
	return a->v4 == b->v4 && a->v6 == b->v6 && a->loopback == b->loopback;
}

static bool scope_overlap(
	const struct bind_scope *a, const struct bind_scope *b)
{
	return (a->v4 && b->v4) || (a->v6 && b->v6);
}

/* The export of the enclave's @port that @key owns, or NULL. */
static struct export *find(
	struct exports *x, const struct export_key *key, uint16_t port)
{
	struct list *bucket =
		bucket_of(x, bind_policy_host_port(x->env.policy, port));

	for (struct list *l = bucket->next; l != bucket; l = l->next) {
		struct export *e = list_entry(l, struct export, link);

		if (e->port == port && key_equal(&e->key, key))
			return e;
	}
	return NULL;
}

/* An export that stands in the way of another one, or NULL. */
static struct export *find_rival(
	struct exports *x, const struct bind_scope *scope, uint16_t host_port)
{
	struct list *bucket = bucket_of(x, host_port);

	for (struct list *l = bucket->next; l != bucket; l = l->next) {
		struct export *e = list_entry(l, struct export, link);

		if (e->lobby.host.port == host_port &&
			scope_overlap(&e->scope, scope))
			return e;
	}
	return NULL;
}

/* Is the port of the host one that is not to be chosen for "any port"? */
static bool is_taken(void *env, uint16_t port)
{
	static const struct bind_scope both = {.v4 = true, .v6 = true};
	struct exports *x = list_entry(env, struct exports, env);

	return find_rival(x, &both, port) != NULL;
}

/* ---- requests ---- */

/* Does anybody own the export, now that one looks? */
static bool is_alive(struct export *e)
{
	export_look_at_owners(e);
	return !e->dead;
}

/* Is there a rival that lives? */
static bool is_in_use(
	struct exports *x, const struct bind_scope *scope, uint16_t host_port)
{
	struct export *rival;

	while ((rival = find_rival(x, scope, host_port)))
		if (is_alive(rival))
			return true;
	return false;
}

/*
 * Add an owner to the port that @key has, or bind it.
 * Return: 0 or an errno.
 */
static int own(struct exports *x, const struct export_key *key,
	const struct bind_scope *scope, uint16_t port, enum member_role role,
	const struct member_conn *conn)
{
	uint16_t host_port = bind_policy_host_port(x->env.policy, port);
	struct export *e = port ? find(x, key, port) : NULL;
	int err;

	if (e && scope_equal(&e->scope, scope))
		return export_add(e, role, conn);
	if (port && !bind_policy_allows(x->env.policy, host_port))
		return EPERM;
	/* With the same key, but for other families: which of the two a
	 * standby connection is for could not be told. */
	if (e && is_alive(e))
		return EADDRINUSE;
	if (port && is_in_use(x, scope, host_port))
		return EADDRINUSE;
	e = export_new(&x->env, key, scope, port, conn->fd, &err);
	if (!e)
		return err;
	list_add_tail(bucket_of(x, e->lobby.host.port), &e->link);
	err = export_add(e, role, conn);
	if (err)
		export_end(e);
	return err;
}

static int hold(struct exports *x, const struct hold_name *name, uint16_t port,
	const struct member_conn *conn)
{
	const struct bind_scope scope = {name->v4, name->v6, name->loopback};
	struct export_key key = {.held = true};

	memcpy(key.bytes, name->key, HOLD_KEY_LEN);
	return own(x, &key, &scope, port, MEMBER_HOLD, conn);
}

static int join(struct exports *x, const struct hold_name *name, uint16_t port,
	const struct member_conn *conn, const char **why)
{
	enum member_role role =
		name->verb == HOLD_MEET ? MEMBER_MEET : MEMBER_JOIN;
	struct export_key key = {.held = true};
	struct export *e;

	memcpy(key.bytes, name->key, HOLD_KEY_LEN);
	e = find(x, &key, port);
	if (e)
		return export_add(e, role, conn);
	*why = "no such port is held with that key";
	return EPERM;
}

static int plain(struct exports *x, const struct ip_port *addr,
	const struct member_conn *conn)
{
	const struct bind_scope scope = {
		.v4 = addr->family == AF_INET, .v6 = true};
	struct export_key key = {.held = false};

	if (!peer_identify(conn->fd, &key.peer))
		return ENOTCONN;
	return own(x, &key, &scope, addr->port, MEMBER_PLAIN, conn);
}

/* Return: 0 or an errno. */
static int dispatch(struct exports *x, const struct socks5_addr *dst,
	const struct member_conn *conn, const char **why)
{
	struct ip_port addr = dst->addr;
	struct hold_name name;

	if (x->closed) {
		*why = "the proxy is stopping";
		return ESHUTDOWN;
	}
	if (hold_name_parse(&name, dst) == -1) {
		*why = "malformed name: expected hold-SCOPE-KEY, join-KEY or "
		       "meet-KEY";
		return EINVAL;
	}
	switch (name.verb) {
	case HOLD_HOLD: return hold(x, &name, addr.port, conn);
	case HOLD_JOIN:
	case HOLD_MEET: return join(x, &name, addr.port, conn, why);
	case HOLD_NONE: break;
	}
	ip_port_unmap(&addr);
	if (addr.family == AF_UNSPEC || !ip_port_is_any(&addr)) {
		*why = "expected 0.0.0.0 or :: as the address to bind";
		return EADDRNOTAVAIL;
	}
	return plain(x, &addr, conn);
}

/* As common/hold_name.h has it. */
static enum socks5_reply reply_of(int err)
{
	switch (err) {
	case 0: return SOCKS5_SUCCEEDED;
	case EADDRINUSE: return SOCKS5_REFUSED;
	case EACCES:
	case EPERM: return SOCKS5_NOT_ALLOWED;
	case EADDRNOTAVAIL:
	case EAFNOSUPPORT: return SOCKS5_HOST_UNREACHABLE;
	default: return SOCKS5_GENERAL_FAILURE;
	}
}

enum socks5_reply exports_request(struct exports *x,
	const struct socks5_addr *dst, const struct member_conn *conn,
	const char **why)
{
	int err;

	assert(x->magic == EXPORTS_MAGIC);
	*why = NULL;
	err = dispatch(x, dst, conn, why);
	if (!*why)
		*why = log_strerror(err);
	return reply_of(err);
}

/* ---- life ---- */

struct exports *exports_new(struct ev_loop *loop, struct watch_set *watches,
	struct reaper *reaper, const struct bind_policy *policy,
	struct fd_budget *budget, const struct export_ops *ops, void *arg)
{
	struct exports *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->magic = EXPORTS_MAGIC;
	for (size_t i = 0; i < NR_BUCKETS; i++)
		list_init(&x->bucket[i]);
	export_env_init(&x->env, loop, watches, reaper, policy, budget);
	x->env.taken = is_taken;
	x->env.ops = ops;
	x->env.arg = arg;
	return x;
}

void exports_close(struct exports *x)
{
	assert(x->magic == EXPORTS_MAGIC);
	x->closed = true;
	for (size_t i = 0; i < NR_BUCKETS; i++)
		while (!list_empty(&x->bucket[i]))
			export_end(list_entry(
				x->bucket[i].next, struct export, link));
	assert(x->env.nr == 0);
}

void exports_free(struct exports *x)
{
	assert(x->magic == EXPORTS_MAGIC && x->closed);
	lobby_env_stop(&x->env.lobby);
	x->magic = 0;
	free(x);
}

void exports_resume(struct exports *x)
{
	assert(x->magic == EXPORTS_MAGIC);
	lobby_env_resume(&x->env.lobby);
}

size_t exports_nr(const struct exports *x)
{
	return x->env.nr;
}
