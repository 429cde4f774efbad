/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/inbound.h"
#include "common/fd.h"
#include "common/log.h"
#include "vendor/export.h"
#include "vendor/listener.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/*
 * Theory of operation
 *
 * A listener (what one bind() made) has an export (a port that the host keeps)
 * and usually it alone does. Whether a new one gets the port that it asks for
 * is decided here, as far as this vendor knows; the host and the mirror have
 * their say afterwards.
 *
 *	exports of that port whose families
 *	overlap, and the listeners there	the new listener
 *	none					new export
 *	some, all of whose front-ends have
 *	  hung up				takes over the export if it is
 *						the same in all, else the old
 *						one is released and a new one
 *						made
 *	some alive, all with SO_REUSEPORT, of
 *	  the same user, the same in all, as
 *	  the new one is			shares the export
 *	some alive otherwise			EADDRINUSE
 *
 * That a front-end has hung up is asked of its socket then and there: a server
 * that is restarted binds before the loop has seen the end of the one before.
 *
 * A REJOIN is answered by nothing but clients, so what is refused to a BIND is
 * tried again for it, for ever and with pauses. Its key is the right to it: it
 * may come from other processes than the one that bound, and of other users.
 */

#define INBOUND_MAGIC 0x696e626fu

/* Its control, claim, mirror and two standby connections. */
#define FDS_PER_LISTENER 5

/* On average: processes that share one join it with one each. */
#define CONTROLS_PER_LISTENER 4

#define KNOWN_FLAGS (VENDOR_V6ONLY | VENDOR_REUSEPORT | VENDOR_LOOPBACK)

struct inbound {
	uint32_t magic;
	size_t max_listeners;
	struct inbound_env env;
	struct listeners set;
};

/* ---- who may have a port ---- */

static bool overlaps(const struct export *e, const struct listener *l,
	const struct scope *scope)
{
	return e->port != 0 && e->port == l->addr.port &&
	       endpoint_equal(&e->ep, &l->ep) &&
	       ((e->scope.v4 && scope->v4) || (e->scope.v6 && scope->v6));
}

/* Would it be the same claim on the host and the same mirror? */
static bool same_port(const struct export *e, const struct listener *l,
	const struct scope *scope)
{
	return e->scope.v4 == scope->v4 && e->scope.v6 == scope->v6 &&
	       e->scope.loopback == scope->loopback &&
	       ip_port_is_any(&e->addr) == ip_port_is_any(&l->addr);
}

static bool may_share(const struct export *e, const struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &e->listeners)
	{
		const struct listener *other =
			list_entry(i, struct listener, export_link);

		if (!l->reuseport || !other->reuseport || l->uid != other->uid)
			return false;
	}
	return true;
}

static void sweep(struct export *e)
{
	struct list *i, *tmp;

	e->pinned = true;
	list_foreach_safe(i, tmp, &e->listeners)
		listener_sweep(list_entry(i, struct listener, export_link));
	e->pinned = false;
}

/*
 * Look at the exports that are in the way.
 * Return: 0 and *out the one to share or take over, or NULL; or EADDRINUSE.
 */
static int find_export(
	struct inbound_env *env, const struct listener *l, struct export **out)
{
	struct scope scope = export_scope(&l->addr, l->v6only, l->loopback);
	struct list *i, *tmp;
	int err = 0;

	*out = NULL;
	list_foreach_safe(i, tmp, &env->exports)
	{
		struct export *e = list_entry(i, struct export, link);
		bool same = same_port(e, l, &scope);
		bool deserted;

		if (!overlaps(e, l, &scope))
			continue;
		sweep(e);
		deserted = list_empty(&e->listeners);
		if (deserted && (!same || e->state != EXPORT_HELD || e->plain))
			export_release(e);
		else if (same && may_share(e, l))
			*out = e;
		else
			err = EADDRINUSE;
	}
	if (err && *out && list_empty(&(*out)->listeners))
		export_release(*out);
	return err;
}

static int attach(struct listener *l)
{
	struct inbound_env *env = l->set->env;
	struct export *e;
	int err = find_export(env, l, &e);

	if (err)
		return err;
	if (!e)
		e = export_new(env, &l->ep, &l->addr, l->v6only, l->loopback);
	if (!e)
		return ENOBUFS;
	export_attach(e, l);
	return 0;
}

/* ---- requests ---- */

static const char *check_request(const struct vendor_request *req)
{
	if (req->flags & ~(uint32_t)KNOWN_FLAGS)
		return "expected no other flags than V6ONLY, REUSEPORT and "
		       "LOOPBACK";
	/* Never open to the world what was meant for loopback. */
	if (ip_port_is_loopback(&req->dst) != !!(req->flags & VENDOR_LOOPBACK))
		return "expected the LOOPBACK flag with a loopback address and "
		       "no other";
	if (req->op == VENDOR_REJOIN && req->dst.port == 0)
		return "expected the port that was bound";
	return NULL;
}

static struct listener *find_key(struct inbound *in, const uint8_t *key)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &in->set.all)
	{
		struct listener *l = list_entry(i, struct listener, link);

		if (memcmp(l->key, key, sizeof(l->key)) == 0)
			return l;
	}
	return NULL;
}

/* A listener that has no control yet is given one, or given up. */
static int add_control(
	struct listener *l, int *fd, const struct vendor_request *req)
{
	int err = control_new(l, fd, req);

	if (err && list_empty(&l->controls))
		listener_end(l);
	return err;
}

static int take_new(struct inbound *in, int *fd, uid_t uid,
	const struct endpoint *ep, const struct vendor_request *req)
{
	struct listener *l;
	int err;

	if (in->set.nr_listeners >= in->max_listeners) {
		log_warn_ratelimit("uid %u: port %u refused: %zu are bound, "
				   "see --max-exports and the limit of open "
				   "files",
			uid, req->dst.port, in->set.nr_listeners);
		return ENOBUFS;
	}
	l = listener_new(&in->set, req, ep, uid);
	if (!l)
		return ENOBUFS;
	err = attach(l);
	if (err && req->op == VENDOR_REJOIN) {
		listener_wait(l);
		err = 0;
	}
	if (err) {
		listener_end(l);
		return err;
	}
	return add_control(l, fd, req);
}

int inbound_take(struct inbound *in, int *fd, uid_t uid,
	const struct endpoint *ep, const struct vendor_request *req)
{
	const char *why = check_request(req);
	struct listener *l = NULL;
	char addr[IP_PORT_STRLEN];

	assert(in->magic == INBOUND_MAGIC);
	if (!why && req->op == VENDOR_REJOIN)
		l = find_key(in, req->key);
	if (l && !ip_port_equal(&l->addr, &req->dst))
		why = "expected the address that was bound with this key";
	if (why) {
		log_warn_ratelimit("uid %u: %s of %s, flags %#x, refused: %s",
			uid, req->op == VENDOR_BIND ? "bind" : "rejoin",
			ip_port_format(&req->dst, addr, sizeof(addr)),
			req->flags, why);
		return EINVAL;
	}
	return l ? add_control(l, fd, req) : take_new(in, fd, uid, ep, req);
}

/* ---- the service ---- */

/* Half of the fds, however many are asked for: the rest is for connections. */
static size_t limit_listeners(size_t wanted)
{
	struct rlimit limit;
	size_t room;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1 ||
		limit.rlim_cur == RLIM_INFINITY)
		return wanted;
	room = limit.rlim_cur / 2 / FDS_PER_LISTENER;
	return wanted < room ? wanted : room;
}

struct inbound *inbound_new(
	struct ev_loop *loop, const struct vendor_config *config)
{
	struct inbound *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	if (env_start(&in->env, loop, config) == -1) {
		free(in);
		return NULL;
	}
	in->magic = INBOUND_MAGIC;
	in->max_listeners =
		limit_listeners(config->max_exports ? config->max_exports
						    : CONFIG_EXPORTS_DEFAULT);
	in->set.max_controls = in->max_listeners * CONTROLS_PER_LISTENER;
	in->set.env = &in->env;
	in->set.attach = attach;
	list_init(&in->set.all);
	return in;
}

void inbound_free(struct inbound *in)
{
	assert(in->magic == INBOUND_MAGIC);
	while (!list_empty(&in->set.all))
		listener_end(
			list_entry(in->set.all.next, struct listener, link));
	assert(in->set.nr_listeners == 0 && in->set.nr_controls == 0);
	env_stop(&in->env);
	assert(in->env.standbys == 0);
	in->magic = 0;
	free(in);
}

size_t inbound_count(const struct inbound *in)
{
	return in->set.nr_listeners;
}
