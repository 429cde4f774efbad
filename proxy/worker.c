/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker_impl.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/forward.h"

#include <assert.h>
#include <errno.h>
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
 * Who has the time may be another: worker_mail.c.
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

#define RETRY_EVERY 0.1 /* seconds */

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

size_t worker_nr_connections(void *arg)
{
	const struct worker *w = arg;

	return w->clients.nr + w->relays.nr;
}

void worker_publish_load(struct worker *w)
{
	atomic_store_explicit(
		&w->load, worker_nr_connections(w), memory_order_relaxed);
}

/* ---- the end ---- */

void worker_finish_if_idle(struct worker *w)
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
void worker_connection_end(void *arg)
{
	struct worker *w = arg;

	assert(w->magic == WORKER_MAGIC);
	fd_budget_give(w->config->budget, FDS_PER_CONNECTION);
	worker_publish_load(w);
	acceptors_resume(&w->acceptors);
	if (w->exports)
		exports_resume(w->exports);
	worker_finish_if_idle(w);
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
	worker_finish_if_idle(w);
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

/* ---- life ---- */

static void init_acceptors(struct worker *w)
{
	w->acceptors.loop = w->loop;
	w->acceptors.budget = w->config->budget;
	w->acceptors.short_of_fds = &w->config->short_of_fds;
	w->acceptors.serve = worker_accepted;
	w->acceptors.nr_connections = worker_nr_connections;
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
		w->clients.move = w->exports ? NULL : worker_move;
	}
	w->clients.moved = worker_moved;
	w->clients.gone = worker_connection_end;
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
		w->config->bind, w->config->budget, &worker_export_ops, w);
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
	mailbox_init(&w->mailbox, w->loop, w, worker_mail_done);
	if (relay_group_init(&w->relays, w->loop, &w->reaper,
		    config->buffer_size, worker_connection_end, w) == -1)
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
