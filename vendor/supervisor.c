/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/supervisor.h"
#include "common/fd.h"
#include "vendor/logfile.h"
#include "vendor/worker.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * The supervisor does next to nothing, so that nothing makes it fail. It holds
 * the listening socket and the lock, and one child, the worker, that does the
 * work. When the worker dies, whoever was connected to it loses that
 * connection, but the socket goes on listening: who connects meanwhile waits
 * in its backlog for the next worker. It opens and holds the DNS stub's
 * sockets too, for the same reason, and because a worker might find the port
 * taken, or not have the right to it any more.
 *
 * A worker that dies is followed by another at once. If that dies young too,
 * the next one waits, twice as long each time, up to DELAY_LAST; one that lived
 * for WORKER_MATURE puts the delay back to nothing.
 *
 * All signals of interest are blocked and taken one at a time with
 * sigtimedwait(), so there are no handlers and no races:
 *
 *	SIGTERM, SIGINT  end the worker, remove socket and lock, return
 *	SIGHUP           open the log file anew
 *	SIGCHLD          reap (every child: as PID 1 orphans come here as well)
 *	none for TICK    look after the log file, and whether the socket file
 *	                 is still ours: without it nobody can reach us, and the
 *	                 next start makes a vendor of its own
 *
 * A worker never outlives its supervisor: the kernel kills it
 * (PR_SET_PDEATHSIG), because it would keep the next one's programs from
 * being served by the one that holds the lock.
 */

#define TICK_MS       5000
#define WORKER_MATURE 1000 /* ms */
#define DELAY_FIRST   10   /* ms */
#define DELAY_LAST    1000 /* ms */
#define STOP_PATIENCE 2000 /* ms for a worker to end upon SIGTERM */

/**
 * struct supervisor - its state
 * @worker:   the child, or -1
 * @started:  when it was, in ms
 * @due:      when to start the next one, in ms
 * @delay:    what to add to that when it dies young, in ms
 */
struct supervisor {
	const struct vendor_config *config;
	struct place *place;
	sigset_t signals;
	pid_t worker;
	int64_t started;
	int64_t due;
	int64_t delay;
	bool stop;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void schedule(struct supervisor *s, int64_t lived)
{
	if (lived >= WORKER_MATURE)
		s->delay = 0;
	s->due = now_ms() + s->delay;
	if (s->delay == 0)
		s->delay = DELAY_FIRST;
	else if (s->delay * 2 <= DELAY_LAST)
		s->delay *= 2;
	else
		s->delay = DELAY_LAST;
}

/* Return: 0 in the worker, else 1. */
static int start_worker(struct supervisor *s)
{
	pid_t self = getpid();
	pid_t pid = fork();

	if (pid == -1) {
		log_error("worker: fork: %s", log_strerror(errno));
		schedule(s, 0);
		return 1;
	}
	if (pid > 0) {
		s->worker = pid;
		s->started = now_ms();
		log_info("worker %d started", pid);
		return 1;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != self)
		_exit(EXIT_FAILURE); /* it died before that took effect */
	sigprocmask(SIG_UNBLOCK, &s->signals, NULL);
	closefd(&s->place->lock);
	return 0;
}

static void worker_died(struct supervisor *s, int status)
{
	int64_t lived = now_ms() - s->started;

	s->worker = -1;
	if (s->stop)
		return;
	schedule(s, lived);
	if (WIFSIGNALED(status))
		log_error("worker died of signal %d (%s) after %lld ms, "
			  "the next one follows",
			WTERMSIG(status), strsignal(WTERMSIG(status)),
			(long long)lived);
	else
		log_error("worker ended with status %d after %lld ms, "
			  "the next one follows",
			WEXITSTATUS(status), (long long)lived);
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == s->worker)
			worker_died(s, status);
	}
}

/* Take one signal. Return: it, or 0 if none came within @ms. */
static int next_signal(const struct supervisor *s, int64_t ms)
{
	const struct timespec wait = {
		.tv_sec = ms / 1000,
		.tv_nsec = ms % 1000 * 1000000,
	};
	int sig = sigtimedwait(&s->signals, NULL, &wait);

	return sig > 0 ? sig : 0;
}

static void reopen_log(struct supervisor *s)
{
	const struct vendor_config *config = s->config;

	if (!config->foreground && logfile_reopen(config->log_file) == -1)
		log_error("log file %s: %s", config->log_file,
			log_strerror(errno));
	if (s->worker != -1)
		kill(s->worker, SIGHUP);
}

static void tick(struct supervisor *s)
{
	const struct vendor_config *config = s->config;

	if (!config->foreground && logfile_rotate(config->log_file) &&
		s->worker != -1)
		kill(s->worker, SIGHUP);
	if (!place_is_ours(s->place)) {
		log_error("socket %s was removed or replaced, nobody can reach "
			  "this vendor: ending",
			config->path);
		s->stop = true;
	}
}

static void handle(struct supervisor *s, int sig)
{
	switch (sig) {
	case SIGTERM:
	case SIGINT: s->stop = true; break;
	case SIGHUP: reopen_log(s); break;
	case SIGCHLD: reap(s); break;
	default: tick(s); break;
	}
}

static void stop_worker(struct supervisor *s)
{
	int64_t end = now_ms() + STOP_PATIENCE;
	int64_t left;

	if (s->worker == -1)
		return;
	kill(s->worker, SIGTERM);
	while (s->worker != -1 && (left = end - now_ms()) > 0) {
		if (next_signal(s, left) == SIGCHLD)
			reap(s);
	}
	if (s->worker == -1)
		return;
	log_warn("worker %d does not end, killed", s->worker);
	kill(s->worker, SIGKILL);
	waitpid(s->worker, NULL, 0);
	s->worker = -1;
}

/* How long nothing needs to be done but to wait for signals. */
static int64_t patience(const struct supervisor *s)
{
	int64_t left = s->due - now_ms();

	if (s->worker != -1)
		return TICK_MS;
	return left > 0 ? left : 0;
}

/* Those that cannot be had are logged, and left out. */
static void open_dns_sockets(struct vendor_config *config)
{
	for (unsigned i = 0; i < config->nr_dns_listen; i++) {
		struct dns_socket *next =
			&config->dns_sockets[config->nr_dns_sockets];

		if (dns_socket_open(next, &config->dns_listen[i]) == 0)
			config->nr_dns_sockets++;
	}
	/* Then no worker shall try. */
	if (config->nr_dns_sockets == 0)
		config->nr_dns_listen = 0;
}

static void close_dns_sockets(struct vendor_config *config)
{
	while (config->nr_dns_sockets > 0)
		dns_socket_close(
			&config->dns_sockets[--config->nr_dns_sockets]);
}

int supervisor_run(struct vendor_config *config, struct place *place)
{
	struct supervisor s = {
		.config = config,
		.place = place,
		.worker = -1,
	};

	sigemptyset(&s.signals);
	sigaddset(&s.signals, SIGTERM);
	sigaddset(&s.signals, SIGINT);
	sigaddset(&s.signals, SIGHUP);
	sigaddset(&s.signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &s.signals, NULL);
	open_dns_sockets(config);
	schedule(&s, WORKER_MATURE);
	while (!s.stop) {
		if (s.worker == -1 && now_ms() >= s.due && !start_worker(&s))
			return worker_run(place->listener, config);
		handle(&s, next_signal(&s, patience(&s)));
	}
	log_info("ending");
	stop_worker(&s);
	close_dns_sockets(config);
	place_leave(place);
	return EXIT_SUCCESS;
}
