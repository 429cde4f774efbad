/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/log.h"
#include "vendor/export_impl.h"
#include "vendor/listener.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/*
 * Theory of operation
 *
 * Clients come from the pool and the mirror, and are offered at once to the
 * listeners in turn (round robin), of each to the control with the least
 * unread. When all are full they wait here, oldest first; as the pool is then
 * held back, no more than were paired already, and the rest stay with the host
 * and the kernel.
 *
 * A client of a family that the port is not for is turned away: it would be
 * the wrong listener's. Only plain BIND knows no families, there it goes to
 * the other port of the same number, if there is one for its family.
 */

#define NUDGE_PAUSE 0.02 /* seconds */

static void client_free(struct client *c)
{
	list_del(&c->link);
	closefd_if(&c->fd);
	free(c);
}

void export_drop_clients(struct export *e)
{
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &e->clients)
		client_free(list_entry(l, struct client, link));
}

/* Offer a client to each listener in turn. */
static enum offer offer(struct export *e, const struct client *c)
{
	enum offer best = OFFER_NONE;
	struct list *l, *tmp;

	list_foreach_safe(l, tmp, &e->listeners)
	{
		enum offer offer = listener_offer(
			list_entry(l, struct listener, export_link), c);

		if (offer == OFFER_TAKEN) {
			list_del(l);
			list_add_tail(&e->listeners, l);
			return OFFER_TAKEN;
		}
		if (offer < best)
			best = offer;
	}
	return best;
}

static void nudge_later(struct export *e)
{
	if (ev_is_active(&e->nudge))
		return;
	ev_timer_set(&e->nudge, NUDGE_PAUSE, 0);
	ev_timer_start(e->env->loop, &e->nudge);
}

void export_pump(struct export *e)
{
	struct list *l, *tmp;

	if (e->pumping || e->state == EXPORT_GONE)
		return;
	e->pumping = true;
	list_foreach_safe(l, tmp, &e->clients)
	{
		struct client *c = list_entry(l, struct client, link);
		enum offer how = offer(e, c);

		if (how == OFFER_SHORT)
			nudge_later(e);
		if (how == OFFER_FULL || how == OFFER_SHORT)
			break;
		client_free(c);
	}
	e->pumping = false;
	export_update(e);
}

void export_nudge(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct export *e = timer->data;

	assert(e->magic == EXPORT_MAGIC);
	export_pump(e);
}

static bool serves(const struct export *e, const struct ip_port *remote)
{
	return remote->family == AF_INET ? e->scope.v4 : e->scope.v6;
}

/* Plain BIND: the port of the same number for the client's family. */
static struct export *find_server(
	struct export *e, const struct ip_port *remote)
{
	struct list *l, *tmp;

	if (serves(e, remote))
		return e;
	if (!e->plain)
		return NULL;
	list_foreach_safe(l, tmp, &e->env->exports)
	{
		struct export *other = list_entry(l, struct export, link);

		if (other->plain && other->state == EXPORT_HELD &&
			other->port == e->port && serves(other, remote) &&
			endpoint_equal(&other->ep, &e->ep))
			return other;
	}
	return NULL;
}

static struct client *client_new(
	int fd, const struct ip_port *remote, const struct ip_port *local)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->remote = *remote;
	if (local)
		c->local = *local;
	list_init(&c->link);
	ip_port_unmap(&c->remote);
	ip_port_unmap(&c->local);
	return c;
}

static void take_client(struct export *e, struct client *c)
{
	if (e->state == EXPORT_GONE || !e->listening) {
		client_free(c); /* as TCP: nobody listens */
		return;
	}
	list_add_tail(&e->clients, &c->link);
	export_pump(e);
}

void export_host_client(int fd, const struct ip_port *remote,
	const struct ip_port *local, void *arg)
{
	struct export *e = arg;
	struct export *server = find_server(e, remote);
	char who[IP_PORT_STRLEN], what[IP_PORT_STRLEN];
	struct client *c = server ? client_new(fd, remote, local) : NULL;

	assert(e->magic == EXPORT_MAGIC);
	if (c) {
		take_client(server, c);
		return;
	}
	log_warn_ratelimit("port %s: client %s turned away: %s",
		export_name(e, what, sizeof(what)),
		ip_port_format(remote, who, sizeof(who)),
		server ? log_strerror(ENOMEM) : "not of the port's family");
	closefd(&fd);
}

void export_local_client(int fd, const struct ip_port *remote,
	const struct ip_port *local, void *arg)
{
	struct export *e = arg;
	struct client *c = client_new(fd, remote, local);

	assert(e->magic == EXPORT_MAGIC);
	if (c)
		take_client(e, c);
	else
		closefd(&fd);
}
