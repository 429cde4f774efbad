/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker_impl.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/forward.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * Which worker serves what, and how it gets there.
 *
 * Who accepts is not who has the time. The thread that runs already is always
 * first, and would end up with nearly all connections of a burst. So each
 * worker makes known how many it has, and one that accepts compares itself
 * with one other, each in turn: if that has clearly fewer, the connection is
 * posted to it before anything is read from it. Numbers that are a little old
 * do no harm.
 *
 * But exported ports (see exports.h) all live with worker 0. A client of
 * another worker that asks for one is posted there, and what comes of it, a
 * client of the port and its way to the server, is posted to the workers in
 * turn, so that their bytes keep all of them busy. A connection that is posted
 * keeps its place in the fd budget.
 *
 * A listener that is to be closed may have clients in its queue, who came when
 * the last worker had turned away from it. They would be reset: the main thread
 * accepts them (the last call) and posts them.
 */

/* A worker has clearly fewer connections than another if it has this many
 * fewer, and one part of its own besides. */
#define LOAD_SLACK 2
#define LOAD_PART  8

struct client_mail {
	struct mail mail;
	struct worker_config *config;
	struct client_move move;
};

struct accept_mail {
	struct mail mail;
	struct worker_config *config;
	struct service *service;
	int fd;
};

struct relay_mail {
	struct mail mail;
	struct worker_config *config;
	struct export_pair pair;
};

/* Close a connection for which there is nobody any more. */
static void drop(struct worker_config *config, int *fd)
{
	closefd(fd);
	fd_budget_give(config->budget, FDS_PER_CONNECTION);
}

/* To worker 0: a client that asks for a port. */
static void deliver_client(struct mail *mail, void *receiver)
{
	struct client_mail *m = list_entry(mail, struct client_mail, mail);
	struct worker *w = receiver;

	if (!w || atomic_load(&w->killing) ||
		client_adopt(&w->clients, &m->move) == -1) {
		drop(m->config, &m->move.conn.fd);
		service_leave(m->move.service);
	}
	free(m);
}

int worker_move(void *arg, const struct client_move *move)
{
	struct worker *w = arg;
	struct client_mail *m = malloc(sizeof(*m));

	assert(w->magic == WORKER_MAGIC && w->index != 0);
	if (!m)
		return -1;
	m->mail.deliver = deliver_client;
	m->config = w->config;
	m->move = *move;
	if (mailbox_post(&w->config->worker[0]->mailbox, &m->mail))
		return 0;
	free(m);
	return -1;
}

void worker_moved(void *arg)
{
	worker_publish_load(arg);
	worker_finish_if_idle(arg);
}

/* Begin to serve a connection. Return: 0, or -1 without memory. */
static int serve(struct worker *w, struct service *s, int fd)
{
	int rc = s->config.mode->learn == LEARN_SOCKS5
			 ? client_new(&w->clients, s, fd)
			 : forward_new(&w->clients, s, fd);

	worker_publish_load(w);
	return rc;
}

/* To a worker that has less to do: a connection that was just accepted. */
static void deliver_accepted(struct mail *mail, void *receiver)
{
	struct accept_mail *m = list_entry(mail, struct accept_mail, mail);
	struct worker *w = receiver;

	if (!w || atomic_load(&w->killing) ||
		serve(w, m->service, m->fd) == -1) {
		drop(m->config, &m->fd);
		service_leave(m->service);
	}
	free(m);
}

/* Has @other clearly fewer connections than @w? */
static bool is_lighter(struct worker *other, struct worker *w)
{
	size_t here = worker_nr_connections(w);
	size_t there = atomic_load_explicit(&other->load, memory_order_relaxed);

	return here > there + there / LOAD_PART + LOAD_SLACK;
}

/* Return: false without memory, or if @to takes nothing any more. */
static bool post_accepted(struct worker *to, struct service *s, int fd)
{
	struct accept_mail *m = malloc(sizeof(*m));

	if (!m)
		return false;
	m->mail.deliver = deliver_accepted;
	m->config = to->config;
	m->service = s;
	m->fd = fd;
	/* Until it says so itself, so that it is not given too many. */
	atomic_fetch_add_explicit(&to->load, 1, memory_order_relaxed);
	if (mailbox_post(&to->mailbox, &m->mail))
		return true;
	free(m);
	return false;
}

/* Return: false if there is nobody who has less to do. */
static bool pass_on(struct worker *w, struct service *s, int fd)
{
	unsigned int nr = w->config->nr_workers;
	struct worker *to = w->config->worker[w->next_peer++ % nr];

	return to != w && is_lighter(to, w) && post_accepted(to, s, fd);
}

int worker_accepted(void *arg, struct service *s, int fd)
{
	struct worker *w = arg;

	assert(w->magic == WORKER_MAGIC);
	return pass_on(w, s, fd) ? 0 : serve(w, s, fd);
}

/* Return: whether another one may wait. */
static bool last_call_one(struct worker *w, struct service *s)
{
	struct fd_budget *budget = w->config->budget;
	int fd;

	if (!service_enter(s))
		return false;
	if (!fd_budget_take(budget, FDS_PER_CONNECTION))
		goto leave;
	fd = accept4(s->entrance->listener.fd, NULL, NULL,
		SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd != -1 && post_accepted(w, s, fd))
		return true;
	closefd_if(&fd);
	fd_budget_give(budget, FDS_PER_CONNECTION);
leave:
	service_leave(s);
	return false;
}

void worker_last_call(struct worker *w, struct service *s)
{
	assert(w->magic == WORKER_MAGIC);
	while (last_call_one(w, s))
		;
}

static void start_relay(struct worker *w, const struct export_pair *pair)
{
	struct relay *relay =
		relay_new(&w->relays, pair->sock, pair->id, NULL, NULL);

	if (!relay) {
		log_warn_ratelimit(
			"conn %" PRIu64 ": %s", pair->id, log_strerror(ENOMEM));
		close(pair->sock[0].fd);
		close(pair->sock[1].fd);
		worker_connection_end(w);
		return;
	}
	relay_feed(relay, 1, pair->first, pair->first_len);
	relay_run(relay);
	worker_publish_load(w);
}

static void deliver_relay(struct mail *mail, void *receiver)
{
	struct relay_mail *m = list_entry(mail, struct relay_mail, mail);
	struct worker *w = receiver;

	if (!w || atomic_load(&w->killing)) {
		closefd(&m->pair.sock[1].fd);
		drop(m->config, &m->pair.sock[0].fd);
	} else {
		start_relay(w, &m->pair);
	}
	free(m);
}

/* An exported port has a client: see that somebody moves the bytes. */
static void on_paired(void *arg, const struct export_pair *pair)
{
	struct worker *w = arg;
	struct worker *to;
	struct relay_mail *m;

	assert(w->magic == WORKER_MAGIC && w->index == 0);
	to = w->config->worker[w->next_relay++ % w->config->nr_workers];
	m = to == w ? NULL : malloc(sizeof(*m));
	if (m) {
		m->mail.deliver = deliver_relay;
		m->config = w->config;
		m->pair = *pair;
		if (mailbox_post(&to->mailbox, &m->mail))
			return;
		free(m);
	}
	start_relay(w, pair);
}

const struct export_ops worker_export_ops = {on_paired, worker_connection_end};

void worker_mail_done(void *receiver)
{
	worker_finish_if_idle(receiver);
}
