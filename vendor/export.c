/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/log.h"
#include "vendor/export_impl.h"
#include "vendor/listener.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 *	state	event			then
 *	SEEKING	-			mirror bound, claim under way or pausing
 *		the host keeps the port	HELD
 *		refused or no answer	listeners told, pause of 50 ms to 1 s
 *	HELD	the claim is lost	SEEKING, the same port
 *	any	last listener leaves	GONE
 *
 * Whether a failure is final is the listeners' matter: a control that waits
 * for its BIND is answered and closed, one that listened before (recovery,
 * REJOIN) keeps the export seeking for ever.
 *
 * What runs follows from three facts, in export_update() and nowhere else:
 *
 *			pool			mirror
 *	not HELD	closed			as below
 *	HELD, no LISTEN	closed			not watched
 *	  by plain BIND	open with one: it owns the port
 *	HELD, LISTEN	open between the marks	watched
 *	clients wait	held back		not watched
 *
 * Where clients go is told in vendor/export_clients.c.
 *
 * A LISTEN is answered when the pool is settled, since it is the first standby
 * connection that makes the host listen; or at once when the host keeps no
 * port, which is then sought again. That, too, is seen to in export_update().
 *
 * The port that the host chose (port 0) may be taken in the enclave, as the
 * mirror tells. The claim is then dropped and the host asked for another.
 *
 * When the host says that the port is in use, but this vendor let it go a
 * moment ago, the host may just not be done with that: see
 * env_released_lately().
 */

#define PORT_TRIES 8    /* ports taken in the enclave, before giving up */
#define USE_PAUSE  0.01 /* seconds, for the host to be done with a release */

static void on_retry(struct ev_loop *loop, ev_timer *timer, int revents);

struct scope export_scope(
	const struct ip_port *addr, bool v6only, bool loopback)
{
	struct ip_port plain = *addr;
	struct scope scope = {.loopback = loopback};

	ip_port_unmap(&plain);
	scope.v4 =
		plain.family == AF_INET || (ip_port_is_any(&plain) && !v6only);
	scope.v6 = plain.family == AF_INET6;
	return scope;
}

const char *export_name(const struct export *e, char *buf, size_t size)
{
	struct ip_port addr = e->addr;

	addr.port = e->port;
	return ip_port_format(&addr, buf, size);
}

static void seek_after(struct export *e, double pause)
{
	ev_timer_stop(e->env->loop, &e->retry);
	ev_timer_set(&e->retry, pause, 0);
	ev_timer_start(e->env->loop, &e->retry);
}

/* ---- what runs ---- */

static bool any_listens(const struct export *e)
{
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &e->listeners)
	{
		if (listener_is_listening(
			    list_entry(l, struct listener, export_link)))
			return true;
	}
	return false;
}

static void update_pool(struct export *e)
{
	const struct inbound_env *env = e->env;
	struct pool_port port = {
		.port = e->port,
		.plain = e->plain,
		.family = e->family,
	};
	unsigned low = e->listening ? env->pool_low : 1;
	unsigned high = e->listening ? env->pool_high : 1;
	int first = e->first;

	if (e->state != EXPORT_HELD || (!e->listening && !e->plain)) {
		pool_close(&e->pool, e->listening);
		return;
	}
	memcpy(port.key, e->claim.key, sizeof(port.key));
	if (!e->pool.open) {
		e->first = -1;
		pool_open(&e->pool, &port, low, high, first);
	} else if (e->pool.low != low || e->pool.high != high) {
		pool_resize(&e->pool, low, high);
	}
	if (e->pool.held_back != e->starved)
		pool_hold_back(&e->pool, e->starved);
}

static void update_controls(struct export *e)
{
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &e->listeners)
		listener_arm(list_entry(l, struct listener, export_link));
}

/* Answer a LISTEN that waits. Return: whether there was one. */
static bool open_one(struct export *e)
{
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &e->listeners)
	{
		if (listener_opened(
			    list_entry(l, struct listener, export_link)))
			return true;
	}
	return false;
}

/* One at a time, from the start: an answer that cannot be sent ends a control,
 * and maybe its listener and the export. */
static void answer_listens(struct export *e)
{
	while (e->state == EXPORT_SEEKING ||
		(e->state == EXPORT_HELD && e->pool.settled)) {
		if (!open_one(e))
			break;
	}
}

static void on_settled(void *arg)
{
	struct export *e = arg;

	assert(e->magic == EXPORT_MAGIC);
	export_update(e);
}

void export_update(struct export *e)
{
	bool starved;

	assert(e->magic == EXPORT_MAGIC);
	if (e->state == EXPORT_GONE || e->pumping)
		return;
	e->listening = any_listens(e);
	if (!e->listening)
		export_drop_clients(e);
	starved = !list_empty(&e->clients);
	if (starved != e->starved) {
		e->starved = starved;
		update_controls(e);
	}
	if (!starved)
		ev_timer_stop(e->env->loop, &e->nudge);
	if (e->mirror)
		mirror_watch(e->mirror, e->listening && !starved);
	update_pool(e);
	answer_listens(e);
}

/* ---- seeking ---- */

/* Local clients are for wildcard addresses of the enclave's own. */
static bool wants_mirror(const struct export *e)
{
	return e->env->mirror && !e->scope.loopback && ip_port_is_any(&e->addr);
}

/* Return: 0, or an errno for bind(). */
static int need_mirror(struct export *e)
{
	struct ip_port addr = e->addr;

	if (e->mirror || e->port == 0 || !wants_mirror(e))
		return 0;
	ip_port_unmap(&addr);
	addr.port = e->port;
	e->mirror = mirror_bind(
		e->env->loop, &addr, e->v6only, export_local_client, e);
	if (!e->mirror)
		return errno == EMFILE || errno == ENFILE ? ENOBUFS : errno;
	if (!e->listening || mirror_listen(e->mirror, e->backlog) == 0)
		return 0;
	mirror_free(e->mirror);
	e->mirror = NULL;
	return EADDRINUSE;
}

static void tell(struct export *e, int err, bool away)
{
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &e->listeners)
		listener_outcome(list_entry(l, struct listener, export_link),
			e->port, err, away);
}

static void failed(struct export *e, int err, bool away)
{
	char name[IP_PORT_STRLEN];

	log_info_ratelimit("port %s: not to be had: %s",
		export_name(e, name, sizeof(name)), log_strerror(err));
	tell(e, err, away);
	if (e->state == EXPORT_SEEKING)
		seek_after(e, env_pause(&e->pause));
}

/* The host chose a port that somebody in the enclave has. */
static void choose_again(struct export *e, int err)
{
	claim_drop(&e->claim);
	e->port = 0;
	if (err == EADDRINUSE && ++e->tries < PORT_TRIES)
		seek_after(e, 0);
	else
		failed(e, err, false);
}

static void held(struct export *e, const struct claim_result *result)
{
	char name[IP_PORT_STRLEN];

	e->state = EXPORT_HELD;
	e->plain = result->plain;
	e->family = result->family;
	e->pause = 0;
	log_info_ratelimit("port %s: kept by the host%s",
		export_name(e, name, sizeof(name)),
		e->plain ? " by plain BIND" : "");
	e->first = result->fd;
	export_update(e);
	assert(e->first == -1);
	tell(e, 0, false);
}

static void on_claimed(struct claim *claim, const struct claim_result *result)
{
	struct export *e = list_entry(claim, struct export, claim);
	bool chosen = e->port == 0;
	int fd = result->fd;
	int err;

	assert(e->magic == EXPORT_MAGIC && e->state == EXPORT_SEEKING);
	if (result->err == EADDRINUSE && env_released_lately(e->env, e->port)) {
		seek_after(e, USE_PAUSE);
		return;
	}
	if (result->err) {
		failed(e, result->err, result->away);
		return;
	}
	e->port = result->port;
	err = chosen ? need_mirror(e) : 0;
	if (err) {
		closefd_if(&fd);
		choose_again(e, err);
	} else {
		held(e, result);
	}
}

static void on_lost(struct claim *claim)
{
	struct export *e = list_entry(claim, struct export, claim);
	char name[IP_PORT_STRLEN];

	assert(e->magic == EXPORT_MAGIC && e->state == EXPORT_HELD);
	log_warn_ratelimit("port %s: the host proxy let it go, asking again",
		export_name(e, name, sizeof(name)));
	e->state = EXPORT_SEEKING;
	seek_after(e, env_pause(&e->pause));
	export_update(e);
}

static void on_retry(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct export *e = timer->data;
	int err;

	assert(e->magic == EXPORT_MAGIC && e->state == EXPORT_SEEKING);
	err = need_mirror(e);
	if (err)
		failed(e, err, false);
	else
		claim_start(&e->claim, e->port);
}

/* ---- life ---- */

struct export *export_new(struct inbound_env *env, const struct endpoint *ep,
	const struct ip_port *addr, bool v6only, bool loopback)
{
	struct export *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->magic = EXPORT_MAGIC;
	e->state = EXPORT_SEEKING;
	e->env = env;
	e->ep = *ep;
	e->addr = *addr;
	e->v6only = v6only;
	e->scope = export_scope(addr, v6only, loopback);
	e->port = addr->port;
	e->backlog = 1;
	e->first = -1;
	claim_init(&e->claim, env, &e->ep, &e->scope, on_claimed, on_lost);
	pool_init(&e->pool, env, &e->ep, export_host_client, on_settled, e);
	ev_timer_init(&e->retry, on_retry, 0, 0);
	ev_timer_init(&e->nudge, export_nudge, 0, 0);
	e->retry.data = e->nudge.data = e;
	list_init(&e->listeners);
	list_init(&e->clients);
	list_add_tail(&env->exports, &e->link);
	seek_after(e, 0);
	return e;
}

static void export_free(struct reap *reap)
{
	struct export *e = list_entry(reap, struct export, reap);

	e->magic = 0;
	free(e);
}

void export_release(struct export *e)
{
	assert(e->magic == EXPORT_MAGIC && list_empty(&e->listeners));
	if (e->state == EXPORT_GONE)
		return;
	/* A claim that is under way may succeed on the host all the same. */
	if (e->port && (e->state == EXPORT_HELD || e->claim.dial))
		env_note_release(e->env, e->port);
	e->state = EXPORT_GONE;
	list_del(&e->link);
	ev_timer_stop(e->env->loop, &e->retry);
	ev_timer_stop(e->env->loop, &e->nudge);
	if (e->mirror)
		mirror_free(e->mirror);
	e->mirror = NULL;
	claim_drop(&e->claim);
	pool_close(&e->pool, false);
	export_drop_clients(e);
	reap_later(&e->env->reaper, &e->reap, export_free);
}

void export_attach(struct export *e, struct listener *listener)
{
	assert(e->magic == EXPORT_MAGIC && e->state != EXPORT_GONE);
	assert(!listener->export);
	listener->export = e;
	list_add_tail(&e->listeners, &listener->export_link);
}

void export_detach(struct export *e, struct listener *listener)
{
	assert(e->magic == EXPORT_MAGIC && listener->export == e);
	listener->export = NULL;
	list_del(&listener->export_link);
	if (list_empty(&e->listeners) && !e->pinned)
		export_release(e);
	else
		export_update(e);
}

int export_listen(struct export *e, int backlog)
{
	assert(e->magic == EXPORT_MAGIC);
	if (backlog > e->backlog)
		e->backlog = backlog;
	if (e->mirror && mirror_listen(e->mirror, e->backlog) == -1)
		return errno;
	return 0;
}
