/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proxy: the host's end. A SOCKS5 server on vsock, unix or TCP sockets, and a
 * forwarder between them.
 *
 * Theory of operation
 *
 * Start: parse the whole command line or configuration file, open every
 * listener, set up every worker, and only then start the threads: what fails,
 * fails before anybody is served. Exit status 2 for the command line and the
 * file, 1 for the rest.
 *
 * Then the main thread only waits for signals, which are blocked in all
 * threads, and for workers to change state:
 *
 *	RUNNING   a first SIGTERM or SIGINT: all workers let go of the
 *		  listeners; when the last has, the listeners are closed
 *		  SIGHUP, with a configuration file: read it, open what it
 *		  adds, and give the workers the new set of services; when
 *		  the last has changed over, the old one is retired. If
 *		  anything is wrong with it, nothing changes
 *	DRAINING  until all workers are done; after the drain time, or at the
 *		  next signal, they are told to end at once
 *
 * Exit status 0 for an end that was asked for, drained or not.
 */

#include "common/fd.h"
#include "common/log.h"
#include "proxy/config_file.h"
#include "proxy/resolve.h"
#include "proxy/worker.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* fds of the process itself: standard streams, signals, hosts and resolv.conf
 * while they are read. */
#define FDS_OF_PROCESS 16
/* Of a worker: epoll, wake-up, c-ares sockets. */
#define FDS_OF_WORKER 24

struct proxy {
	struct options options;
	struct config file; /* `run`: as read last, without services */
	struct service_set *set;
	struct service_set *retiring; /* workers are changing over to @set */
	bool reload_again;            /* SIGHUP while they are */
	struct fd_budget budget;
	struct worker_config config;
	struct worker *workers[WORKERS_MAX];
	unsigned int nr_workers;
	int signal_fd;
	bool draining;
	bool killed;
	double kill_at; /* DRAINING: seconds of the monotonic clock */
};

static double monotonic(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- set-up ---- */

/* From here on these signals arrive through @signal_fd alone. */
static int setup_signals(struct proxy *p)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	/* Without a file to read it ends the process, as ever. */
	if (p->options.config_file)
		sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	p->config.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->signal_fd == -1 || p->config.event_fd == -1) {
		log_error("signalfd or eventfd: %s", log_strerror(errno));
		return -1;
	}
	return 0;
}

/* Whoever can reach the socket can use the proxy: say where that is many. */
static void warn_if_open(const struct service *s)
{
	const struct listener *l = &s->entrance->listener;

	if (l->ep.kind == ENDPOINT_TCP && !ip_port_is_loopback(&l->ep.addr) &&
		s->config.mode->reach == REACH_DESTINATION)
		log_warn("%s: whoever can reach this address can use the "
			 "proxy, there is no authentication",
			l->text);
}

/* Open what the file or command line says. Return: 0, or -1 and logged. */
static int open_set(struct proxy *p)
{
	static struct service_config config[OPTIONS_LISTEN_MAX];
	int nr;

	if (p->options.config_file) {
		p->set = service_set_open(p->file.service, p->file.nr, NULL);
		return p->set ? 0 : -1;
	}
	nr = options_services(&p->options, config);
	if (nr == -1) {
		log_error("cannot serve: %s", log_strerror(errno));
		return -1;
	}
	p->set = service_set_open(config, (size_t)nr, NULL);
	for (int i = 0; i < nr; i++)
		rules_free(&config[i].rules);
	return p->set ? 0 : -1;
}

/* In the words that users of the forwarding modes know. */
static void say_what_is_served(const struct service_set *set)
{
	assert(set);
	for (size_t i = 0; i < set->nr; i++) {
		const struct service *s = set->service[i];
		const struct service_config *config = &s->config;
		const struct listener *l = &s->entrance->listener;
		char text[ENDPOINT_STRLEN];

		warn_if_open(s);
		if (config->mode->learn == LEARN_SOCKS5) {
			log_info("listening on %s", l->text);
			continue;
		}
		log_info("Listening on: %s",
			service_text(&l->ep, text, sizeof(text)));
		if (config->mode->reach == REACH_TARGET)
			log_info(
				"Proxying to: %s", service_text(&config->target,
							   text, sizeof(text)));
	}
}

/* The settings of the process. */
static const struct options *process_options(const struct proxy *p)
{
	return p->options.config_file ? &p->file.process : &p->options;
}

/* May there be a SOCKS5 server, now or after another look at the file? */
static bool serves_bind(const struct proxy *p)
{
	return p->options.config_file || p->options.mode->learn == LEARN_SOCKS5;
}

static void configure(struct proxy *p, long fd_limit)
{
	const struct options *o = process_options(p);

	assert(p->set);
	fd_budget_init(&p->budget, fd_limit,
		FDS_OF_PROCESS + (long)p->set->nr +
			FDS_OF_WORKER * (long)o->workers);
	p->config.set = p->set;
	p->config.nr_workers = o->workers;
	p->config.buffer_size = o->buffer_size;
	p->config.resolv_conf = o->resolv_conf;
	p->config.bind = serves_bind(p) ? &o->bind : NULL;
	p->config.budget = &p->budget;
	atomic_init(&p->config.short_of_fds, false);
}

/* All loops are made before the first thread runs: libev probes the clocks
 * into globals with the first. */
static int setup_workers(struct proxy *p)
{
	for (unsigned int i = 0; i < p->config.nr_workers; i++) {
		p->workers[i] = worker_new(&p->config, i);
		if (!p->workers[i])
			return -1;
		p->nr_workers++;
	}
	return 0;
}

static int start_workers(struct proxy *p)
{
	for (unsigned int i = 0; i < p->nr_workers; i++)
		if (worker_start(p->workers[i]) == -1)
			return -1;
	say_what_is_served(p->set);
	return 0;
}

/* ---- running ---- */

/* Have all workers come at least as far as @state? */
static bool all_workers(const struct proxy *p, enum worker_state state)
{
	for (unsigned int i = 0; i < p->nr_workers; i++)
		if (worker_state(p->workers[i]) < state)
			return false;
	return true;
}

static void drain(struct proxy *p, const char *why)
{
	double seconds = process_options(p)->drain;

	log_info("%s: no new connections, up to %g s for the others", why,
		seconds);
	p->draining = true;
	p->kill_at = monotonic() + seconds;
	for (unsigned int i = 0; i < p->nr_workers; i++)
		worker_drain(p->workers[i]);
}

static void kill_workers(struct proxy *p, const char *why)
{
	if (p->killed)
		return;
	p->killed = true;
	log_info("%s: ending all connections", why);
	for (unsigned int i = 0; i < p->nr_workers; i++)
		worker_kill(p->workers[i]);
}

/* ---- another configuration ---- */

/* What only the next start can change. */
static void warn_of_changes(
	const struct options *old, const struct options *now)
{
	const struct {
		const char *name;
		bool changed;
	} settings[] = {
		{"workers", old->workers != now->workers},
		{"buffer_size", old->buffer_size != now->buffer_size},
		{"log", old->log_level != now->log_level},
		{"resolv-conf",
			strcmp(old->resolv_conf, now->resolv_conf) != 0},
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		if (settings[i].changed)
			log_warn("%s: takes effect at the next start",
				settings[i].name);
}

static void reload(struct proxy *p)
{
	const char *path = p->options.config_file;
	struct service_set *set = NULL;
	char error[CONFIG_ERROR_MAX];
	struct config file;

	if (p->retiring) {
		p->reload_again = true;
		return;
	}
	if (config_file_read(&file, path, error) == -1)
		log_error("%s", error);
	else
		set = service_set_open(file.service, file.nr, p->set);
	if (!set) {
		log_error("SIGHUP: %s is refused, everything stays as it was",
			path);
		config_free(&file);
		return;
	}
	warn_of_changes(&p->file.process, &file.process);
	p->file.process.drain = file.process.drain;
	config_free(&file);
	log_info("SIGHUP: %s is in force", path);
	p->retiring = p->set;
	p->set = set;
	say_what_is_served(set);
	for (unsigned int i = 0; i < p->nr_workers; i++)
		worker_serve(p->workers[i], set);
}

/* Nobody accepts for the old set any more: those of its listeners that will be
 * closed may have clients. */
static void last_call(struct proxy *p)
{
	for (size_t i = 0; i < p->retiring->nr; i++) {
		struct service *s = p->retiring->service[i];

		if (!service_set_has(p->set, s->entrance))
			worker_last_call(p->workers[0], s);
	}
}

/* Have all workers changed over, or let go altogether? */
static void retire_if_unused(struct proxy *p)
{
	if (!p->retiring)
		return;
	for (unsigned int i = 0; i < p->nr_workers; i++) {
		const struct service_set *set = worker_set(p->workers[i]);

		if (set && set != p->set)
			return;
	}
	if (!p->draining)
		last_call(p);
	service_set_retire(p->retiring, p->set);
	p->retiring = NULL;
	if (p->reload_again && !p->draining) {
		p->reload_again = false;
		reload(p);
	}
}

/* ---- events ---- */

static void on_signal(struct proxy *p)
{
	struct signalfd_siginfo info;

	while (read(p->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		const char *name =
			info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT";

		if (info.ssi_signo == SIGHUP) {
			if (!p->draining)
				reload(p);
			continue;
		}
		if (p->draining)
			kill_workers(p, name);
		else
			drain(p, name);
	}
}

static void on_event(struct proxy *p)
{
	uint64_t changes;

	if (read(p->config.event_fd, &changes, sizeof(changes)) == -1)
		return;
	retire_if_unused(p);
	if (all_workers(p, WORKER_DRAINING))
		service_set_close(p->set);
}

/* Until the drain time is over; for ever while there is none. */
static int wait_ms(const struct proxy *p)
{
	double left;

	if (!p->draining || p->killed)
		return -1;
	left = p->kill_at - monotonic();
	return left <= 0 ? 0 : (int)(left * 1000) + 1;
}

static void run(struct proxy *p)
{
	struct pollfd fds[] = {
		{.fd = p->signal_fd, .events = POLLIN},
		{.fd = p->config.event_fd, .events = POLLIN},
	};

	while (!all_workers(p, WORKER_DONE)) {
		if (poll(fds, 2, wait_ms(p)) == -1 && errno != EINTR)
			log_error_ratelimit("poll: %s", log_strerror(errno));
		on_signal(p);
		on_event(p);
		if (p->draining && monotonic() >= p->kill_at)
			kill_workers(p, "drain time is over");
	}
	log_info("done");
}

static void teardown(struct proxy *p)
{
	/* Threads run only if something failed while they were started. */
	for (unsigned int i = 0; i < p->nr_workers; i++)
		worker_kill(p->workers[i]);
	for (unsigned int i = 0; i < p->nr_workers; i++)
		worker_join(p->workers[i]);
	for (unsigned int i = 0; i < p->nr_workers; i++)
		worker_free(p->workers[i]);
	if (p->retiring)
		service_set_retire(p->retiring, p->set);
	if (p->set)
		service_set_retire(p->set, NULL);
	closefd_if(&p->signal_fd);
	closefd_if(&p->config.event_fd);
	resolve_library_cleanup();
}

static int serve(struct proxy *p)
{
	long fd_limit = fd_limit_raise();
	int status = EXIT_FAILURE;

	if (setup_signals(p) == -1 || resolve_library_init() == -1 ||
		open_set(p) == -1)
		goto out;
	configure(p, fd_limit);
	if (setup_workers(p) == -1 || start_workers(p) == -1)
		goto out;
	run(p);
	status = EXIT_SUCCESS;
out:
	teardown(p);
	log_flush();
	return status;
}

/* Read the configuration file, if that is what is served. Return: 0 or -1. */
static int read_file(struct proxy *p)
{
	const char *path = p->options.config_file;
	char error[CONFIG_ERROR_MAX];

	if (!path || config_file_read(&p->file, path, error) == 0)
		return 0;
	fprintf(stderr, "%s: %s\n", p->options.program, error);
	return -1;
}

int main(int argc, char **argv)
{
	/* Static for its size alone. */
	static struct proxy proxy = {
		.signal_fd = -1, .config = {.event_fd = -1}};
	char error[OPTPARSE_ERROR_MAX];
	int status = EXIT_SUCCESS;

	if (fd_fill_standard() == -1)
		return EXIT_FAILURE; /* and nowhere to say so */
	if (options_parse(&proxy.options, argc, argv, error) == -1) {
		fprintf(stderr, "%s: %s\nTry '%s --help'.\n",
			proxy.options.program, error, proxy.options.program);
		status = 2;
	} else if (proxy.options.help) {
		options_help(&proxy.options);
	} else if (proxy.options.version) {
		printf("%s %s\n", proxy.options.program, PROXIFY_VERSION);
	} else if (read_file(&proxy) == -1) {
		status = 2;
	} else {
		log_init("proxy", process_options(&proxy)->log_level,
			STDERR_FILENO);
		status = serve(&proxy);
	}
	config_free(&proxy.file);
	options_free(&proxy.options);
	return status;
}
