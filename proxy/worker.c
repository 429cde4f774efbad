/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/acceptors.h"
#include "proxy/client.h"
#include "proxy/forward.h"
#include "proxy/mailbox.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * All workers wait on the same listening sockets and whoever comes first
 * accepts. A connection stays with the worker that begins to serve it, so that
 * nothing else is shared between threads than the fd budget, the services and
 * the log: each worker has its own loop, resolver, relay buffers and clients.
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
 * Another set. The main thread leaves it in @next and wakes the loop. The
 * worker lets go of the listeners of the old set, waits on those of the new
 * one, and says so by changing @set: then the main thread may retire the old
 * one. In between other workers still accept for the old set, on sockets that
 * both have; either is right.
 *
 * The end. The main thread wakes the loop (ev_async, the only libev call that
 * may cross threads), having set @killing or not. DRAINING lets go of the
 * listeners; when the last connection has ended, or at once when killed,
 * the worker is DONE and its thread returns, having closed its mailbox: what
 * others would post after that stays with them. Exported ports are closed at
 * once. Each change is announced through config->event_fd.
 */

#define WORKER_MAGIC 0x574f524bu /* "WORK" */

#define RETRY_EVERY 0.1 /* seconds */

/* A worker has clearly fewer connections than another if it has this many
 * fewer, and one part of its own besides. */
#define LOAD_SLACK 2
#define LOAD_PART  8

struct worker {
	uint32_t magic;
	struct worker_config *config;
	unsigned int index;
	struct ev_loop *loop;
	struct reaper reaper;
	struct relay_group relays;
	struct nameservers nameservers;
	struct client_env clients;
	struct mailbox mailbox;
	struct watch_set watches; /* if ports are exported */
	struct exports *exports;  /* worker 0, if ports are exported */
	unsigned int next_relay;  /* worker 0: whose turn it is */
	struct acceptors acceptors;
	atomic_size_t load;     /* connections; written by its thread, a hint */
	unsigned int next_peer; /* whom to compare it with */
	ev_async wake;
	_Atomic(struct service_set *) set;
	_Atomic(struct service_set *) next;
	ev_timer retry; /* active: no memory to change to @next */
	atomic_bool draining;
	atomic_bool killing;
	_Atomic enum worker_state state;
	pthread_t thread;
	bool started;
};

/* Tell the main thread that something about @w has changed. */
static void announce(const struct worker *w)
{
	const uint64_t one = 1;

	if (write(w->config->event_fd, &one, sizeof(one)) == -1)
		log_error("worker %u: eventfd: %s", w->index,
			log_strerror(errno));
}

static void set_state(struct worker *w, enum worker_state state)
{
	assert(state > atomic_load(&w->state));
	atomic_store(&w->state, state);
	announce(w);
}

enum worker_state worker_state(const struct worker *w)
{
	return atomic_load(&w->state);
}

static size_t nr_connections(void *arg)
{
	const struct worker *w = arg;

	return w->clients.nr + w->relays.nr;
}

/* Make known how many connections there are. */
static void publish_load(struct worker *w)
{
	atomic_store_explicit(
		&w->load, nr_connections(w), memory_order_relaxed);
}

/* ---- the end ---- */

static void finish_if_idle(struct worker *w)
{
	if (worker_state(w) != WORKER_DRAINING || w->clients.nr > 0 ||
		w->relays.nr > 0)
		return;
	/* If there is mail, this is called again after it. */
	if (!mailbox_close(&w->mailbox))
		return;
	set_state(w, WORKER_DONE);
	ev_break(w->loop, EVBREAK_ALL);
}

/* A connection has ended and both its fds are closed. */
static void on_connection_end(void *arg)
{
	struct worker *w = arg;

	assert(w->magic == WORKER_MAGIC);
	fd_budget_give(w->config->budget, FDS_PER_CONNECTION);
	publish_load(w);
	acceptors_resume(&w->acceptors);
	if (w->exports)
		exports_resume(w->exports);
	finish_if_idle(w);
}

/* Serve the set that the main thread has left for us, if there is one. */
static void change_set(struct worker *w)
{
	struct service_set *next = atomic_load(&w->next);

	if (!next || next == atomic_load(&w->set) ||
		worker_state(w) != WORKER_ACCEPTING)
		return;
	if (acceptors_use(&w->acceptors, next) == -1) {
		/* The main thread waits for us, and nothing else is lost. */
		log_error_ratelimit("worker %u: new configuration: %s",
			w->index, log_strerror(errno));
		ev_timer_again(w->loop, &w->retry);
		return;
	}
	ev_timer_stop(w->loop, &w->retry);
	atomic_store(&w->set, next);
	announce(w);
}

static void on_retry(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct worker *w = timer->data;

	assert(w->magic == WORKER_MAGIC);
	change_set(w);
}

void worker_serve(struct worker *w, struct service_set *set)
{
	atomic_store(&w->next, set);
	ev_async_send(w->loop, &w->wake);
}

const struct service_set *worker_set(const struct worker *w)
{
	return atomic_load(&w->set);
}

static void on_wake(struct ev_loop *loop, ev_async *async, int revents)
{
	struct worker *w = async->data;

	assert(w->magic == WORKER_MAGIC);
	change_set(w);
	if (atomic_load(&w->draining) && worker_state(w) == WORKER_ACCEPTING) {
		acceptors_stop(&w->acceptors);
		ev_timer_stop(loop, &w->retry);
		atomic_store(&w->set, NULL);
		if (w->exports)
			exports_close(w->exports);
		set_state(w, WORKER_DRAINING);
	}
	if (atomic_load(&w->killing)) {
		client_abort_all(&w->clients);
		forward_abort_all(&w->clients);
		relay_group_abort(&w->relays);
	}
	finish_if_idle(w);
}

void worker_drain(struct worker *w)
{
	atomic_store(&w->draining, true);
	ev_async_send(w->loop, &w->wake);
}

void worker_kill(struct worker *w)
{
	atomic_store(&w->draining, true);
	atomic_store(&w->killing, true);
	ev_async_send(w->loop, &w->wake);
}

/* ---- mail ---- */

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

static int on_move(void *arg, const struct client_move *move)
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

static void on_moved(void *arg)
{
	publish_load(arg);
	finish_if_idle(arg);
}

/* Begin to serve a connection. Return: 0, or -1 without memory. */
static int serve(struct worker *w, struct service *s, int fd)
{
	int rc = s->config.mode->learn == LEARN_SOCKS5
			 ? client_new(&w->clients, s, fd)
			 : forward_new(&w->clients, s, fd);

	publish_load(w);
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
	size_t here = nr_connections(w);
	size_t there = atomic_load_explicit(&other->load, memory_order_relaxed);

	return here > there + there / LOAD_PART + LOAD_SLACK;
}

/* Return: false if there is nobody who has less to do. */
static bool pass_on(struct worker *w, struct service *s, int fd)
{
	unsigned int nr = w->config->nr_workers;
	struct worker *to = w->config->worker[w->next_peer++ % nr];
	struct accept_mail *m;

	if (to == w || !is_lighter(to, w))
		return false;
	m = malloc(sizeof(*m));
	if (!m)
		return false;
	m->mail.deliver = deliver_accepted;
	m->config = w->config;
	m->service = s;
	m->fd = fd;
	/* Until it says so itself, so that it is not given too many. */
	atomic_fetch_add_explicit(&to->load, 1, memory_order_relaxed);
	if (mailbox_post(&to->mailbox, &m->mail))
		return true;
	free(m);
	return false;
}

static int on_accepted(void *arg, struct service *s, int fd)
{
	struct worker *w = arg;

	assert(w->magic == WORKER_MAGIC);
	return pass_on(w, s, fd) ? 0 : serve(w, s, fd);
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
		on_connection_end(w);
		return;
	}
	relay_feed(relay, 1, pair->first, pair->first_len);
	relay_run(relay);
	publish_load(w);
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

static const struct export_ops export_ops = {on_paired, on_connection_end};

static void on_mail_done(void *receiver)
{
	finish_if_idle(receiver);
}

/* ---- life ---- */

static void init_acceptors(struct worker *w)
{
	w->acceptors.loop = w->loop;
	w->acceptors.budget = w->config->budget;
	w->acceptors.short_of_fds = &w->config->short_of_fds;
	w->acceptors.serve = on_accepted;
	w->acceptors.nr_connections = nr_connections;
	w->acceptors.arg = w;
	acceptors_init(&w->acceptors);
}

static void init_clients(struct worker *w)
{
	const struct worker_config *config = w->config;

	w->clients.loop = w->loop;
	w->clients.reaper = &w->reaper;
	w->clients.relays = &w->relays;
	w->clients.nameservers = &w->nameservers;
	w->clients.budget = config->budget;
	list_init(&w->clients.clients);
	list_init(&w->clients.forwards);
	w->clients.next_id = w->index + 1;
	w->clients.id_step = config->nr_workers;
	if (config->bind) {
		w->clients.watches = &w->watches;
		w->clients.exports = w->exports;
		w->clients.move = w->exports ? NULL : on_move;
	}
	w->clients.moved = on_moved;
	w->clients.gone = on_connection_end;
	w->clients.arg = w;
	nameservers_init(&w->nameservers, config->resolv_conf);
}

static int init_exports(struct worker *w)
{
	if (watch_set_init(&w->watches, w->loop) == -1)
		return -1;
	if (w->index != 0)
		return 0;
	w->exports = exports_new(w->loop, &w->watches, &w->reaper,
		w->config->bind, w->config->budget, &export_ops, w);
	return w->exports ? 0 : -1;
}

struct worker *worker_new(struct worker_config *config, unsigned int index)
{
	struct worker *w = calloc(1, sizeof(*w));

	if (!w)
		goto fail;
	w->magic = WORKER_MAGIC;
	w->config = config;
	w->index = index;
	w->loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (!w->loop)
		goto fail;
	reaper_init(&w->reaper, w->loop);
	init_acceptors(w);
	ev_timer_init(&w->retry, on_retry, 0, RETRY_EVERY);
	w->retry.data = w;
	ev_async_init(&w->wake, on_wake);
	w->wake.data = w;
	ev_async_start(w->loop, &w->wake);
	mailbox_init(&w->mailbox, w->loop, w, on_mail_done);
	if (relay_group_init(&w->relays, w->loop, &w->reaper,
		    config->buffer_size, on_connection_end, w) == -1)
		goto fail;
	if (config->bind && init_exports(w) == -1)
		goto fail;
	init_clients(w);
	w->clients.resolver = resolver_new(w->loop, config->resolv_conf);
	if (!w->clients.resolver ||
		acceptors_use(&w->acceptors, config->set) == -1)
		goto fail;
	atomic_store(&w->set, config->set);
	config->worker[index] = w;
	return w;
fail:
	log_error("cannot set up worker %u: %s", index, log_strerror(errno));
	if (w)
		worker_free(w);
	return NULL;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	assert(w->magic == WORKER_MAGIC);
	acceptors_start(&w->acceptors);
	ev_run(w->loop, 0);
	return NULL;
}

int worker_start(struct worker *w)
{
	int err = pthread_create(&w->thread, NULL, worker_main, w);

	if (err) {
		log_error("cannot start worker %u: %s", w->index,
			log_strerror(err));
		return -1;
	}
	w->started = true;
	return 0;
}

void worker_join(struct worker *w)
{
	assert(w->magic == WORKER_MAGIC);
	if (w->started)
		pthread_join(w->thread, NULL);
	w->started = false;
}

void worker_free(struct worker *w)
{
	worker_join(w);
	if (w->clients.resolver)
		resolver_free(w->clients.resolver);
	if (w->exports) {
		exports_close(w->exports);
		exports_free(w->exports);
	}
	if (w->mailbox.magic)
		mailbox_free(&w->mailbox);
	watch_set_stop(&w->watches);
	if (w->relays.scratch.buf) {
		reaper_stop(&w->reaper);
		relay_group_free(&w->relays);
	}
	acceptors_free(&w->acceptors);
	if (w->loop)
		ev_loop_destroy(w->loop);
	w->magic = 0;
	free(w);
}
