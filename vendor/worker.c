/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/worker.h"
#include "common/fd.h"
#include "vendor/gate.h"
#include "vendor/logfile.h"
#include "vendor/names.h"

#include <assert.h>
#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

/*
 * Theory of operation
 *
 * The worker accepts front-ends and hands each to the gates (gate.c). It is
 * either accepting or pausing:
 *
 *	ACCEPTING  the listener is watched
 *	PAUSING    it is not: as many gates as allowed are open, or accept()
 *	           found the process short of fds or memory. Ends when a gate
 *	           was freed, or after ACCEPT_PAUSE
 *
 * While it pauses, front-ends wait in the listener's backlog. That a shortage
 * began is said once, and once that it is over.
 *
 * The services that live here besides (names.c; inbound.c, by way of the
 * gates) have their own watchers on the same loop. They are started before the
 * first front-end is served: whoever got an answer from the worker finds them
 * there.
 */

#define WORKER_MAGIC 0x776f726bu

#define ACCEPT_BATCH 64  /* front-ends a turn, so that dials get theirs */
#define ACCEPT_PAUSE 0.1 /* seconds */
#define FDS_RESERVED 32  /* the loop's, the log's, the services' */
#define FDS_NAMES    128 /* servers and clients of the DNS stub */
#define FDS_PER_GATE 2   /* itself and its carrier */

enum accept_state { ACCEPTING, PAUSING };

struct worker {
	uint32_t magic;
	struct ev_loop *loop;
	const struct vendor_config *config;
	int listener;
	enum accept_state state;
	bool short_said;
	size_t max_gates;
	struct gates *gates;
	ev_io accept;
	ev_timer pause;
	ev_signal term;
	ev_signal hup;
};

static void set_state(struct worker *w, enum accept_state state)
{
	if (w->state == state)
		return;
	w->state = state;
	if (state == ACCEPTING) {
		ev_timer_stop(w->loop, &w->pause);
		ev_io_start(w->loop, &w->accept);
	} else {
		ev_io_stop(w->loop, &w->accept);
		ev_timer_set(&w->pause, ACCEPT_PAUSE, 0);
		ev_timer_start(w->loop, &w->pause);
	}
}

static void run_short(struct worker *w, const char *what)
{
	if (!w->short_said)
		log_warn("accept on %s: %s, with %zu connections open; "
			 "waiting for some to end",
			w->config->path, what, gates_count(w->gates));
	w->short_said = true;
	set_state(w, PAUSING);
}

/* Return: is there perhaps another one? */
static bool accept_one(struct worker *w)
{
	int fd;

	if (gates_count(w->gates) >= w->max_gates) {
		run_short(w, "as many as allowed");
		return false;
	}
	fd = accept4(w->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0) {
		gate_open(w->gates, fd);
		return true;
	}
	switch (errno) {
	case EAGAIN: break;
	case EINTR:
	case ECONNABORTED: return true;
	default: run_short(w, log_strerror(errno)); return false;
	}
	if (w->short_said)
		log_warn("accept on %s: going on", w->config->path);
	w->short_said = false;
	return false;
}

static void on_accept(struct ev_loop *loop, ev_io *watcher, int revents)
{
	struct worker *w = watcher->data;

	assert(w->magic == WORKER_MAGIC && w->state == ACCEPTING);
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		if (!accept_one(w))
			break;
	}
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct worker *w = timer->data;

	assert(w->magic == WORKER_MAGIC);
	set_state(w, ACCEPTING);
}

static void on_freed(void *arg)
{
	struct worker *w = arg;

	assert(w->magic == WORKER_MAGIC);
	if (w->gates) /* not while the set itself is being freed */
		set_state(w, ACCEPTING);
}

static void on_term(struct ev_loop *loop, ev_signal *watcher, int revents)
{
	ev_break(loop, EVBREAK_ALL);
}

static void on_hup(struct ev_loop *loop, ev_signal *watcher, int revents)
{
	struct worker *w = watcher->data;

	assert(w->magic == WORKER_MAGIC);
	if (!w->config->foreground)
		logfile_reopen(w->config->log_file);
}

/* Each gate may need a carrier; no limit of open files shall hit in between. */
static size_t limit_gates(const struct vendor_config *config)
{
	size_t reserved =
		FDS_RESERVED + (config->nr_dns_listen > 0 ? FDS_NAMES : 0);
	size_t wanted = config->max_gates;
	struct rlimit limit;
	size_t room;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1 ||
		limit.rlim_cur == RLIM_INFINITY)
		return wanted;
	if (limit.rlim_cur < reserved + FDS_PER_GATE)
		return 1;
	room = (limit.rlim_cur - reserved) / FDS_PER_GATE;
	return wanted < room ? wanted : room;
}

static void start_watchers(struct worker *w)
{
	ev_io_init(&w->accept, on_accept, w->listener, EV_READ);
	ev_timer_init(&w->pause, on_pause_over, ACCEPT_PAUSE, 0);
	ev_signal_init(&w->term, on_term, SIGTERM);
	ev_signal_init(&w->hup, on_hup, SIGHUP);
	w->accept.data = w->pause.data = w;
	w->term.data = w->hup.data = w;
	ev_io_start(w->loop, &w->accept);
	ev_signal_start(w->loop, &w->term);
	ev_signal_start(w->loop, &w->hup);
}

static void stop_watchers(struct worker *w)
{
	ev_io_stop(w->loop, &w->accept);
	ev_timer_stop(w->loop, &w->pause);
	ev_signal_stop(w->loop, &w->term);
	ev_signal_stop(w->loop, &w->hup);
}

static int serve(struct worker *w)
{
	struct gates *gates = gates_new(w->loop, w->config, on_freed, w);
	struct names *names;

	if (!gates) {
		log_error("worker: %s", log_strerror(errno));
		return EXIT_FAILURE;
	}
	w->gates = gates;
	names = names_start(w->loop, w->config);
	start_watchers(w);
	log_info("worker: serving %s, at most %zu connections", w->config->path,
		w->max_gates);
	ev_run(w->loop, 0);
	stop_watchers(w);
	w->gates = NULL;
	names_stop(names);
	gates_free(gates);
	return EXIT_SUCCESS;
}

int worker_run(int listener, const struct vendor_config *config)
{
	struct worker w = {
		.magic = WORKER_MAGIC,
		.config = config,
		.listener = listener,
		.state = ACCEPTING,
		.max_gates = limit_gates(config),
	};
	int status;

	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	w.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (!w.loop) {
		log_error("worker: no event loop: %s", log_strerror(errno));
		return EXIT_FAILURE;
	}
	status = serve(&w);
	ev_loop_destroy(w.loop);
	return status;
}
