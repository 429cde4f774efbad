/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/listener.h"
#include "common/fd.h"
#include "vendor/control.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/*
 * Theory of operation
 *
 * A listener lives as long as it has a control. It has an export, except when
 * its first control came by REJOIN and the port is somebody else's: then it
 * looks again, after pauses from 50 ms to 1 s, for ever.
 *
 * A client goes to the listening control with the least unread, if that is
 * less than its backlog. Nothing is closed while a client is being offered: a
 * control that cannot be written to is left out until its hang-up, which is on
 * its way, is handled.
 */

#define LISTENER_MAGIC 0x6c73746eu

/* ---- life of a listener ---- */

static void listener_free(struct reap *reap)
{
	struct listener *l = list_entry(reap, struct listener, reap);

	l->magic = 0;
	free(l);
}

static void on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct listener *l = timer->data;

	assert(l->magic == LISTENER_MAGIC && !l->export);
	if (l->set->attach(l) != 0) {
		listener_wait(l);
		return;
	}
	export_listen(l->export, l->backlog);
	export_pump(l->export);
}

struct listener *listener_new(struct listeners *set,
	const struct vendor_request *req, const struct endpoint *ep, uid_t uid)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->magic = LISTENER_MAGIC;
	l->set = set;
	l->addr = req->dst;
	l->v6only = req->flags & VENDOR_V6ONLY;
	l->loopback = req->flags & VENDOR_LOOPBACK;
	l->reuseport = req->flags & VENDOR_REUSEPORT;
	l->uid = uid;
	l->backlog = 1;
	l->ep = *ep;
	if (req->op == VENDOR_REJOIN)
		memcpy(l->key, req->key, sizeof(l->key));
	else if (getrandom(l->key, sizeof(l->key), 0) !=
		 (ssize_t)sizeof(l->key)) {
		free(l);
		return NULL;
	}
	list_init(&l->controls);
	list_init(&l->export_link);
	list_add_tail(&set->all, &l->link);
	set->nr_listeners++;
	ev_timer_init(&l->again, on_again, 0, 0);
	l->again.data = l;
	return l;
}

void listener_leave(struct listener *l)
{
	assert(l->magic == LISTENER_MAGIC && list_empty(&l->controls));
	ev_timer_stop(l->set->env->loop, &l->again);
	list_del(&l->link);
	l->set->nr_listeners--;
	if (l->export)
		export_detach(l->export, l);
	reap_later(&l->set->env->reaper, &l->reap, listener_free);
}

void listener_wait(struct listener *l)
{
	assert(!l->export);
	ev_timer_set(&l->again, env_pause(&l->pause), 0);
	ev_timer_start(l->set->env->loop, &l->again);
}

/* ---- all of its controls ---- */

void listener_outcome(struct listener *l, uint16_t port, int err, bool away)
{
	struct list *i, *tmp;

	assert(l->magic == LISTENER_MAGIC);
	if (!err)
		l->addr.port = port;
	list_foreach_safe(i, tmp, &l->controls)
		control_outcome(list_entry(i, struct control, link), err, away);
}

void listener_end(struct listener *l)
{
	struct list *i, *tmp;

	assert(l->magic == LISTENER_MAGIC);
	if (list_empty(&l->controls)) {
		listener_leave(l);
		return;
	}
	list_foreach_safe(i, tmp, &l->controls)
		control_close(list_entry(i, struct control, link));
}

void listener_sweep(struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &l->controls)
		control_sweep(list_entry(i, struct control, link));
}

/* ---- clients ---- */

bool listener_is_listening(const struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &l->controls)
	{
		enum control_state state =
			list_entry(i, struct control, link)->state;

		if (state == CONTROL_OPENING || state == CONTROL_LISTENING)
			return true;
	}
	return false;
}

/* The one with the least unread, or NULL; *listening: is there any at all? */
static struct control *choose(const struct listener *l, bool *listening)
{
	struct control *best = NULL;
	int least = 0;
	struct list *i, *tmp;

	*listening = false;
	list_foreach_safe(i, tmp, &l->controls)
	{
		struct control *c = list_entry(i, struct control, link);
		int n;

		if (c->broken)
			continue;
		if (c->state == CONTROL_OPENING)
			*listening = true; /* but its answer comes first */
		if (c->state != CONTROL_LISTENING)
			continue;
		*listening = true;
		n = control_unread(c);
		if (n < c->backlog && (!best || n < least)) {
			best = c;
			least = n;
		}
	}
	return best;
}

/* What the application sees: addresses of its socket's family, and its own
 * port, whatever the host's is. What it bound stays the local address, if it is
 * one; else it is the one that the client reached, where that was told. */
static void fill_accept(const struct listener *l, const struct client *client,
	struct vendor_result *res)
{
	vendor_result_init(res, VENDOR_ACCEPT, 0);
	res->remote = client->remote;
	res->local = client->local;
	res->local.port = l->addr.port;
	if (res->local.family == AF_UNSPEC || !ip_port_is_any(&l->addr)) {
		res->local = l->addr;
		ip_port_unmap(&res->local);
		if (client->remote.family == AF_INET &&
			ip_port_is_any(&res->local))
			res->local.family = AF_INET;
	}
	if (l->addr.family == AF_INET6) {
		ip_port_map(&res->remote);
		ip_port_map(&res->local);
	}
}

static enum offer why_not_sent(struct control *c)
{
	switch (errno) {
	case EAGAIN: return OFFER_FULL;
	case ENOMEM:
	case ENOBUFS:
	case ETOOMANYREFS: return OFFER_SHORT;
	default: c->broken = true; return OFFER_NONE;
	}
}

enum offer listener_offer(struct listener *l, const struct client *client)
{
	struct vendor_result res;
	struct control *c;
	bool listening;

	assert(l->magic == LISTENER_MAGIC);
	fill_accept(l, client, &res);
	while ((c = choose(l, &listening))) {
		enum offer offer;

		if (fd_send(c->fd, &res, sizeof(res), client->fd, 0) ==
			(ssize_t)sizeof(res))
			return OFFER_TAKEN;
		offer = why_not_sent(c);
		if (offer != OFFER_NONE)
			return offer;
	}
	return listening ? OFFER_FULL : OFFER_NONE;
}

bool listener_opened(struct listener *l)
{
	struct list *i, *tmp;

	assert(l->magic == LISTENER_MAGIC);
	list_foreach_safe(i, tmp, &l->controls)
	{
		struct control *c = list_entry(i, struct control, link);

		if (c->state == CONTROL_OPENING) {
			control_opened(c);
			return true;
		}
	}
	return false;
}

void listener_arm(struct listener *l)
{
	struct list *i, *tmp;

	list_foreach_safe(i, tmp, &l->controls)
		control_arm(list_entry(i, struct control, link));
}
