/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/acceptors.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/accept.h"
#include "common/list.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define ACCEPTORS_MAGIC 0x41434350u /* "ACCP" */

#define ACCEPT_BATCH 64
#define ACCEPT_PAUSE 0.1 /* seconds */

/** struct acceptor - one service; @full: not waited for, it has all it may */
struct acceptor {
	ev_io io; /* data: the acceptors */
	struct service *service;
	bool full;
};

/* ---- waiting ---- */

static bool waiting(const struct acceptors *as)
{
	return as->on && !ev_is_active(&as->pause);
}

static void wait_for_all(struct acceptors *as)
{
	for (size_t i = 0; waiting(as) && i < as->nr; i++)
		if (!as->acceptor[i].full)
			ev_io_start(as->loop, &as->acceptor[i].io);
}

static void wait_for_none(struct acceptors *as)
{
	for (size_t i = 0; i < as->nr; i++)
		ev_io_stop(as->loop, &as->acceptor[i].io);
}

/* ---- services that are full ---- */

/* For some time now: between two loops it may be over in an instant. */
static void say_full(const struct service *s)
{
	if (!atomic_exchange(&s->entrance->full, true))
		log_warn_ratelimit("accept on %s: %ld connections, the limit; "
				   "others wait",
			s->entrance->listener.text, s->config.max_connections);
}

static void became_full(struct acceptors *as, struct acceptor *a)
{
	a->full = true;
	ev_io_stop(as->loop, &a->io);
	ev_timer_again(as->loop, &as->full);
}

/* Services that were full may have room again. */
static void refresh(struct acceptors *as)
{
	bool any = false;

	if (!ev_is_active(&as->full))
		return;
	for (size_t i = 0; i < as->nr; i++) {
		struct acceptor *a = &as->acceptor[i];

		a->full = a->full && service_is_full(a->service);
		any |= a->full;
		if (a->full)
			say_full(a->service);
	}
	wait_for_all(as);
	if (!any)
		ev_timer_stop(as->loop, &as->full);
}

static void on_full(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct acceptors *as = timer->data;

	assert(as->magic == ACCEPTORS_MAGIC);
	refresh(as);
}

/* ---- running out of fds ---- */

static void pause_quietly(struct acceptors *as)
{
	wait_for_none(as);
	ev_timer_again(as->loop, &as->pause);
}

/* There is no fd for another connection, or no memory: wait a little. */
static void pause_all(struct acceptors *as, const struct listener *l, int err)
{
	if (!atomic_exchange(as->short_of_fds, true))
		log_warn_ratelimit("accept on %s: %s; waiting for connections "
				   "to end (%zu here, limit is %ld fds)",
			l->text, log_strerror(err), as->nr_connections(as->arg),
			as->budget->limit);
	pause_quietly(as);
}

static bool somebody_waits(const struct listener *l)
{
	struct pollfd p = {.fd = l->fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* The budget has nothing left for another connection. */
static void budget_is_short(struct acceptors *as, const struct listener *l)
{
	bool again = as->held;

	as->held = true;
	if (atomic_load(as->short_of_fds) || (again && somebody_waits(l)))
		pause_all(as, l, EMFILE);
	else if (!again)
		pause_quietly(as);
	else
		as->held = false;
}

/* There may be fds again. Accepting is tried whether or not anybody waits, to
 * find out that nobody does any more. */
static void end_pause(struct acceptors *as)
{
	if (!ev_is_active(&as->pause))
		return;
	ev_timer_stop(as->loop, &as->pause);
	wait_for_all(as);
	for (size_t i = 0; as->on && i < as->nr; i++)
		if (!as->acceptor[i].full)
			ev_feed_event(as->loop, &as->acceptor[i].io, EV_READ);
}

static void on_pause(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct acceptors *as = timer->data;

	assert(as->magic == ACCEPTORS_MAGIC);
	end_pause(as);
}

/* ---- accepting ---- */

/* Nobody waits in the listen queue. */
static void caught_up(struct acceptors *as, struct entrance *e)
{
	if (atomic_load(&e->full))
		atomic_store(&e->full, false);
	if (atomic_load(as->short_of_fds) &&
		atomic_exchange(as->short_of_fds, false))
		log_warn_ratelimit("accept on %s: going on", e->listener.text);
}

/* accept() failed. Return: whether to try again at once. */
static bool accept_failed(struct acceptors *as, struct entrance *e, int err)
{
	const struct listener *l = &e->listener;

	switch (accept_verdict(err)) {
	case ACCEPT_EMPTY: caught_up(as, e); return false;
	case ACCEPT_SHORT: pause_all(as, l, err); return false;
	case ACCEPT_BROKEN:
		log_error_ratelimit(
			"accept on %s: %s", l->text, log_strerror(err));
		pause_quietly(as);
		return false;
	case ACCEPT_NEXT:
		log_debug("accept on %s: %s", l->text, log_strerror(err));
		return true;
	}
	return false;
}

/*
 * Accept one connection.
 * @first: of this event, so that somebody waits for it
 * Return: whether to go on.
 */
static bool accept_one(struct acceptors *as, struct acceptor *a, bool first)
{
	struct service *s = a->service;
	struct entrance *e = s->entrance;
	bool go_on = false;
	int fd;

	if (!service_enter(s)) {
		if (first)
			became_full(as, a);
		return false;
	}
	if (!fd_budget_take(as->budget, FDS_PER_CONNECTION)) {
		/* While it was said that fds are short, somebody has to find
		 * out when they no longer are. */
		if (first || atomic_load(as->short_of_fds))
			budget_is_short(as, &e->listener);
		goto leave;
	}
	as->held = false;
	fd = accept4(e->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd == -1) {
		go_on = accept_failed(as, e, errno);
		goto give;
	}
	if (as->serve(as->arg, s, fd) == 0)
		return true;
	closefd(&fd);
	pause_all(as, &e->listener, ENOMEM);
give:
	fd_budget_give(as->budget, FDS_PER_CONNECTION);
leave:
	service_leave(s);
	return go_on;
}

static void on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	struct acceptors *as = io->data;
	struct acceptor *a = list_entry(io, struct acceptor, io);

	assert(as->magic == ACCEPTORS_MAGIC);
	for (int i = 0; i < ACCEPT_BATCH; i++)
		if (!accept_one(as, a, i == 0))
			break;
}

/* ---- life ---- */

void acceptors_init(struct acceptors *as)
{
	as->magic = ACCEPTORS_MAGIC;
	as->acceptor = NULL;
	as->nr = 0;
	as->on = false;
	as->held = false;
	ev_timer_init(&as->pause, on_pause, 0, ACCEPT_PAUSE);
	as->pause.data = as;
	ev_timer_init(&as->full, on_full, 0, ACCEPT_PAUSE);
	as->full.data = as;
}

int acceptors_use(struct acceptors *as, const struct service_set *set)
{
	struct acceptor *fresh = calloc(set->nr, sizeof(*fresh));

	assert(as->magic == ACCEPTORS_MAGIC);
	if (!fresh)
		return -1;
	wait_for_none(as);
	free(as->acceptor);
	as->acceptor = fresh;
	as->nr = set->nr;
	for (size_t i = 0; i < set->nr; i++) {
		struct acceptor *a = &fresh[i];

		a->service = set->service[i];
		ev_io_init(&a->io, on_accept, a->service->entrance->listener.fd,
			EV_READ);
		a->io.data = as;
	}
	wait_for_all(as);
	return 0;
}

void acceptors_start(struct acceptors *as)
{
	assert(as->magic == ACCEPTORS_MAGIC);
	as->on = true;
	wait_for_all(as);
}

void acceptors_stop(struct acceptors *as)
{
	assert(as->magic == ACCEPTORS_MAGIC);
	as->on = false;
	wait_for_none(as);
	ev_timer_stop(as->loop, &as->pause);
	ev_timer_stop(as->loop, &as->full);
}

void acceptors_resume(struct acceptors *as)
{
	assert(as->magic == ACCEPTORS_MAGIC);
	end_pause(as);
	refresh(as);
}

void acceptors_free(struct acceptors *as)
{
	free(as->acceptor);
	as->acceptor = NULL;
	as->magic = 0;
}
