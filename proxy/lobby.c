/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/lobby.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/accept.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define LOBBY_MAGIC     0x4c4f4242u /* "LOBB" */
#define LOBBY_ENV_MAGIC 0x4c454e56u /* "LENV" */

#define SWEEP_EVERY  1.0 /* seconds */
#define ACCEPT_BATCH 64
#define ACCEPT_PAUSE 0.1 /* seconds */
#define WAITING_PART 4   /* of the budget, for all who wait */

struct waiting {
	struct list link;
	int fd;
	struct ip_port addr;
};

/* ---- watching ---- */

/* Accept, or not: the only place that decides it. */
static void lobby_watch(struct lobby *l)
{
	struct lobby_env *env = l->env;
	bool watch = l->listening && list_empty(&l->link) &&
		     l->nr_waiting < env->queue;

	if (l->watching == watch)
		return;
	l->watching = watch;
	for (size_t i = 0; i < l->host.nr; i++)
		if (watch)
			ev_io_start(env->loop, &l->io[i]);
		else
			ev_io_stop(env->loop, &l->io[i]);
}

static void lobby_pause(struct lobby *l)
{
	struct lobby_env *env = l->env;

	list_add_tail(&env->paused, &l->link);
	if (!ev_is_active(&env->pause))
		ev_timer_again(env->loop, &env->pause);
	lobby_watch(l);
}

/* There is no fd or memory for another client. */
static void run_short(struct lobby *l, int err)
{
	struct lobby_env *env = l->env;

	if (!env->short_of_fds)
		log_warn_ratelimit("port %u: accept: %s; waiting for "
				   "connections to end (%ld clients wait, "
				   "limit is %ld fds)",
			l->host.port, log_strerror(err), env->nr_waiting,
			env->budget->limit);
	env->short_of_fds = true;
	lobby_pause(l);
}

static void caught_up(const struct lobby *l)
{
	if (l->env->short_of_fds)
		log_warn_ratelimit("port %u: accept: going on", l->host.port);
	l->env->short_of_fds = false;
}

void lobby_env_resume(struct lobby_env *env)
{
	assert(env->magic == LOBBY_ENV_MAGIC);
	ev_timer_stop(env->loop, &env->pause);
	while (!list_empty(&env->paused)) {
		struct lobby *l =
			list_entry(env->paused.next, struct lobby, link);

		list_del(&l->link);
		lobby_watch(l);
	}
}

static void on_pause(struct ev_loop *loop, ev_timer *timer, int revents)
{
	lobby_env_resume(timer->data);
}

/* ---- clients ---- */

/* Forget a client, whose fd is closed or somebody else's. */
static void forget(struct lobby *l, struct waiting *w)
{
	list_del(&w->link);
	free(w);
	assert(l->nr_waiting > 0 && l->env->nr_waiting > 0);
	l->nr_waiting--;
	l->env->nr_waiting--;
	if (l->nr_waiting == 0)
		ev_timer_stop(l->env->loop, &l->sweep);
	fd_budget_give(l->env->budget, 1);
	lobby_watch(l);
}

static void reset(struct lobby *l, struct waiting *w)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	setsockopt(w->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	closefd(&w->fd);
	forget(l, w);
}

/* Has the client not reset its connection? A send of no bytes fails then. */
static bool is_alive(const struct waiting *w)
{
	return send(w->fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) == 0 ||
	       fd_try_again(errno);
}

static void on_sweep(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct lobby *l = timer->data;
	struct list *i, *next;

	assert(l->magic == LOBBY_MAGIC);
	for (i = l->waiting.next; i != &l->waiting; i = next) {
		struct waiting *w = list_entry(i, struct waiting, link);

		next = i->next;
		if (!is_alive(w))
			reset(l, w);
	}
}

bool lobby_is_empty(const struct lobby *l)
{
	return list_empty(&l->waiting);
}

int lobby_look(struct lobby *l, struct ip_port *addr)
{
	struct list *i, *next;

	assert(l->magic == LOBBY_MAGIC);
	/* Who looks has an fd for the next one. */
	list_del(&l->link);
	lobby_watch(l);
	for (i = l->waiting.next; i != &l->waiting; i = next) {
		struct waiting *w = list_entry(i, struct waiting, link);

		next = i->next;
		if (is_alive(w)) {
			*addr = w->addr;
			return w->fd;
		}
		reset(l, w);
	}
	return -1;
}

void lobby_take(struct lobby *l)
{
	assert(l->magic == LOBBY_MAGIC && !list_empty(&l->waiting));
	forget(l, list_entry(l->waiting.next, struct waiting, link));
}

/* ---- accepting ---- */

/* accept() failed. Return: whether to try again at once. */
static bool accept_failed(struct lobby *l, int err)
{
	switch (accept_verdict(err)) {
	case ACCEPT_EMPTY: caught_up(l); return false;
	case ACCEPT_SHORT: run_short(l, err); return false;
	case ACCEPT_BROKEN:
		log_error_ratelimit(
			"port %u: accept: %s", l->host.port, log_strerror(err));
		lobby_pause(l);
		return false;
	case ACCEPT_NEXT:
		log_debug(
			"port %u: accept: %s", l->host.port, log_strerror(err));
		return true;
	}
	return false;
}

/* Put a new client at the end of the queue. Return: false without memory. */
static bool enqueue(struct lobby *l, int fd, const struct ip_port *addr)
{
	struct waiting *w = malloc(sizeof(*w));

	if (!w)
		return false;
	w->fd = fd;
	w->addr = *addr;
	list_init(&w->link);
	list_add_tail(&l->waiting, &w->link);
	l->nr_waiting++;
	l->env->nr_waiting++;
	if (l->nr_waiting == 1)
		ev_timer_again(l->env->loop, &l->sweep);
	lobby_watch(l);
	return true;
}

/* Account for the fd of a client. Return: false if there is none for it. */
static bool take_fd(const struct lobby *l)
{
	struct lobby_env *env = l->env;

	if (!l->ops->expects(l))
		return env->nr_waiting < env->max_waiting &&
		       fd_budget_take(env->budget, 1);
	fd_budget_charge(env->budget, 1);
	return true;
}

/* Accept one client. Return: whether to go on. */
static bool accept_one(struct lobby *l, int listener)
{
	struct fd_budget *budget = l->env->budget;
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	struct ip_port addr;
	int fd;

	if (!take_fd(l)) {
		run_short(l, EMFILE);
		return false;
	}
	fd = accept4(listener, &any.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd == -1) {
		int err = errno;

		fd_budget_give(budget, 1);
		return accept_failed(l, err);
	}
	ip_port_from_sockaddr(&addr, &any.sa, len);
	if (!enqueue(l, fd, &addr)) {
		closefd(&fd);
		fd_budget_give(budget, 1);
		run_short(l, ENOMEM);
		return false;
	}
	l->ops->arrived(l);
	return true;
}

static void on_accept(struct ev_loop *loop, ev_io *io, int revents)
{
	struct lobby *l = io->data;

	assert(l->magic == LOBBY_MAGIC);
	/* The owner may close the lobby when a client arrives. */
	for (int i = 0; i < ACCEPT_BATCH && l->watching; i++)
		if (!accept_one(l, io->fd))
			break;
}

int lobby_listen(struct lobby *l)
{
	int err;

	assert(l->magic == LOBBY_MAGIC && !l->listening);
	err = host_port_listen(&l->host);
	if (err)
		return err;
	for (size_t i = 0; i < l->host.nr; i++) {
		ev_io_init(&l->io[i], on_accept, l->host.fd[i], EV_READ);
		l->io[i].data = l;
	}
	l->listening = true;
	lobby_watch(l);
	return 0;
}

/* ---- life ---- */

void lobby_env_init(struct lobby_env *env, struct ev_loop *loop,
	const struct bind_policy *policy, struct fd_budget *budget)
{
	env->magic = LOBBY_ENV_MAGIC;
	env->loop = loop;
	env->budget = budget;
	env->queue = policy->queue;
	env->nr_waiting = 0;
	env->max_waiting = budget->limit / WAITING_PART;
	env->short_of_fds = false;
	list_init(&env->paused);
	ev_timer_init(&env->pause, on_pause, 0, ACCEPT_PAUSE);
	env->pause.data = env;
}

void lobby_env_stop(struct lobby_env *env)
{
	assert(env->magic == LOBBY_ENV_MAGIC && list_empty(&env->paused));
	ev_timer_stop(env->loop, &env->pause);
	env->magic = 0;
}

void lobby_init(
	struct lobby *l, struct lobby_env *env, const struct lobby_ops *ops)
{
	l->magic = LOBBY_MAGIC;
	l->env = env;
	l->ops = ops;
	list_init(&l->link);
	host_port_init(&l->host);
	l->listening = false;
	l->watching = false;
	l->nr_waiting = 0;
	list_init(&l->waiting);
	ev_timer_init(&l->sweep, on_sweep, 0, SWEEP_EVERY);
	l->sweep.data = l;
}

void lobby_close(struct lobby *l)
{
	struct list *i, *next;

	assert(l->magic == LOBBY_MAGIC);
	l->listening = false;
	lobby_watch(l);
	list_del(&l->link);
	host_port_close(&l->host);
	for (i = l->waiting.next; i != &l->waiting; i = next) {
		next = i->next;
		reset(l, list_entry(i, struct waiting, link));
	}
}
