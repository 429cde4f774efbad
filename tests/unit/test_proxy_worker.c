/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker.h"

#include "common/fd.h"
#include "common/log.h"
#include "common/socks5.h"
#include "proxy/relay.h"
#include "proxy/resolve.h"

#include "suite.h"
#include "test_proxy_net.h"

#include <netinet/tcp.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>

/*
 * Theory of operation
 *
 * Real workers in threads on a listener in a temporary directory; the test is
 * the main thread, the clients and the destination, with blocking sockets that
 * time out.
 */

static char dir[32], log_path[64];
static struct endpoint ep;
static struct listener listener;
static struct fd_budget budget;
static struct worker_config config;
static struct worker *workers[4];
static int origin_fd, log_fd;
static long max_connections;
static struct ip_port origin;

static void setup(void)
{
	char text[64];

	snprintf(dir, sizeof(dir), "/tmp/test-proxy-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(log_path, sizeof(log_path), "%s/log", dir);
	log_fd = open(log_path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	ck_assert_int_ge(log_fd, 0);
	log_init("test", LOG_INFO, log_fd);
	snprintf(text, sizeof(text), "unix:%s/s", dir);
	ck_assert_ptr_null(endpoint_parse(&ep, text));
	ck_assert_int_eq(resolve_library_init(), 0);
	fd_budget_init(&budget, 1000, 0);
	origin_fd = net_listen(AF_INET, 64, &origin);
}

static void start_workers(unsigned int nr)
{
	struct service_config service = {
		.mode = &mode_table[MODE_SOCKS5],
		.listen = ep,
		.handshake_timeout = 20,
		.connect_timeout = 20,
		.max_connections = max_connections,
	};

	memset(&config, 0, sizeof(config));
	config.set = service_set_open(&service, 1, NULL);
	ck_assert_ptr_nonnull(config.set);
	config.nr_workers = nr;
	config.buffer_size = 65536;
	config.resolv_conf = "/nonexistent";
	config.budget = &budget;
	config.event_fd = eventfd(0, EFD_CLOEXEC);
	for (unsigned int i = 0; i < nr; i++) {
		workers[i] = worker_new(&config, i);
		ck_assert_ptr_nonnull(workers[i]);
	}
	for (unsigned int i = 0; i < nr; i++)
		ck_assert_int_eq(worker_start(workers[i]), 0);
}

static void stop_workers(void)
{
	for (unsigned int i = 0; i < config.nr_workers; i++)
		worker_kill(workers[i]);
	for (unsigned int i = 0; i < config.nr_workers; i++)
		worker_free(workers[i]);
	config.nr_workers = 0;
	ck_assert_int_eq(atomic_load(&budget.used), 0);
	ck_assert_int_eq(atomic_load(&config.set->service[0]->entrance->nr), 0);
	ck_assert_int_eq(atomic_load(&config.set->service[0]->refs), 1);
	service_set_retire(config.set, NULL);
	close(config.event_fd);
}

static void teardown(void)
{
	if (config.nr_workers > 0)
		stop_workers();
	resolve_library_cleanup();
	max_connections = 0;
	close(origin_fd);
	close(log_fd);
	unlink(log_path);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* ---- clients ---- */

static int dial(void)
{
	struct timeval patience = {(time_t)WAIT_SECONDS, 0};
	union endpoint_sockaddr addr;
	socklen_t len = endpoint_sockaddr(&ep, &addr);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ck_assert_int_eq(connect(fd, &addr.sa, len), 0);
	return fd;
}

static void ask(int fd)
{
	uint8_t buf[32];
	struct socks5_addr dst;
	size_t len;

	memset(&dst, 0, sizeof(dst));
	dst.addr = origin;
	len = socks5_write_hello(buf, SOCKS5_CONNECT, &dst);
	ck_assert_int_eq(send(fd, buf, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Return: the reply code. */
static int answer(int fd)
{
	uint8_t buf[12];

	ck_assert_int_eq(recv(fd, buf, 12, MSG_WAITALL), 12);
	return buf[3];
}

static int accept_origin(void)
{
	int fd = accept(origin_fd, NULL, NULL);

	ck_assert_int_ge(fd, 0);
	return fd;
}

static void expect_echo(int from, int to, const char *text)
{
	char got[32];
	size_t len = strlen(text);

	ck_assert_int_eq(send(from, text, len, MSG_NOSIGNAL), (ssize_t)len);
	ck_assert_int_eq(recv(to, got, len, MSG_WAITALL), (ssize_t)len);
	ck_assert_mem_eq(got, text, len);
}

/* How often the log has this text. */
static int logged(const char *text)
{
	static char log[65536];
	ssize_t n = pread(log_fd, log, sizeof(log) - 1, 0);
	int count = 0;

	ck_assert_int_ge(n, 0);
	log[n] = '\0';
	for (char *at = log; (at = strstr(at, text)); at++)
		count++;
	return count;
}

/* Wait for workers to come to @state, by their announcements. */
static void wait_state(enum worker_state state)
{
	struct pollfd p = {.fd = config.event_fd, .events = POLLIN};
	double end = net_now() + WAIT_SECONDS;
	uint64_t n;

	for (unsigned int i = 0; i < config.nr_workers; i++) {
		while (worker_state(workers[i]) < state) {
			ck_assert(net_now() < end);
			ck_assert_int_eq(
				poll(&p, 1, (int)(WAIT_SECONDS * 1000)), 1);
			ck_assert_int_eq(
				read(config.event_fd, &n, sizeof(n)), 8);
		}
	}
}

static void drain(void)
{
	for (unsigned int i = 0; i < config.nr_workers; i++)
		worker_drain(workers[i]);
}

/* ---- workers ---- */

START_TEST(serves)
{
	int client[50], remote[50];

	start_workers(4);
	for (int i = 0; i < 50; i++) {
		client[i] = dial();
		ask(client[i]);
		remote[i] = accept_origin();
		ck_assert_int_eq(answer(client[i]), 0);
	}
	for (int i = 0; i < 50; i++) {
		expect_echo(client[i], remote[i], "to origin");
		expect_echo(remote[i], client[i], "to client");
		close(client[i]);
		close(remote[i]);
	}
	drain();
	wait_state(WORKER_DONE);
}
END_TEST

START_TEST(drains)
{
	int client, remote, late;

	start_workers(3);
	client = dial();
	ask(client);
	remote = accept_origin();
	ck_assert_int_eq(answer(client), 0);
	drain();
	wait_state(WORKER_DRAINING);
	/* Nobody accepts any more, but what is open goes on. */
	late = dial();
	ask(late);
	expect_echo(client, remote, "still");
	expect_echo(remote, client, "here");
	for (unsigned int i = 0; i < 3; i++)
		if (worker_state(workers[i]) != WORKER_DONE)
			break;
		else
			ck_assert_uint_lt(i, 2);
	close(client);
	close(remote);
	wait_state(WORKER_DONE);
	close(late);
}
END_TEST

START_TEST(kills)
{
	int client, remote, idle;
	char c;

	start_workers(2);
	client = dial();
	ask(client);
	remote = accept_origin();
	ck_assert_int_eq(answer(client), 0);
	idle = dial();
	drain();
	wait_state(WORKER_DRAINING);
	for (unsigned int i = 0; i < 2; i++)
		worker_kill(workers[i]);
	wait_state(WORKER_DONE);
	/* The stream was cut, and that must not look like its end. */
	ck_assert_int_eq(recv(remote, &c, 1, 0), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	close(client);
	close(remote);
	close(idle);
}
END_TEST

/* ---- running out of fds ---- */

/* Look at the log until it has this text. */
static void wait_logged(const char *text)
{
	double end = net_now() + WAIT_SECONDS;

	while (logged(text) == 0) {
		ck_assert(net_now() < end);
		poll(NULL, 0, 5);
	}
}

static double cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/*
 * More clients than the budget serves: the others wait in the queue, it is
 * said once, nothing spins, and they are served when fds are free again.
 */
START_TEST(short_of_budget)
{
	enum { NR = 8, FIT = 3 };
	int client[NR], remote[NR];
	double cpu, start;

	fd_budget_init(&budget, 2L * FIT, 0);
	start_workers(2);
	for (int i = 0; i < FIT; i++) {
		client[i] = dial();
		ask(client[i]);
		remote[i] = accept_origin();
		ck_assert_int_eq(answer(client[i]), 0);
	}
	for (int i = FIT; i < NR; i++) {
		client[i] = dial();
		ask(client[i]);
	}
	wait_logged("waiting for connections to end");
	cpu = cpu_seconds();
	start = net_now();
	while (net_now() < start + 0.5)
		poll(NULL, 0, 10);
	ck_assert(cpu_seconds() - cpu < 0.25);
	/* Those that are served are not held up. */
	expect_echo(client[0], remote[0], "hello");
	ck_assert_int_eq(logged("waiting for connections to end"), 1);
	ck_assert_int_eq(logged("going on"), 0);
	for (int i = 0; i < NR - FIT; i++) {
		close(client[i]);
		close(remote[i]);
		remote[i + FIT] = accept_origin();
		ck_assert_int_eq(answer(client[i + FIT]), 0);
	}
	for (int i = NR - FIT; i < NR; i++) {
		expect_echo(client[i], remote[i], "late");
		close(client[i]);
		close(remote[i]);
	}
	wait_logged("going on");
	ck_assert_int_eq(logged("waiting for connections to end"), 1);
	ck_assert_int_eq(logged("going on"), 1);
}
END_TEST

/*
 * Short for an instant, as while another loop tries whether somebody waits:
 * nothing to speak of.
 */
START_TEST(short_for_an_instant)
{
	int client, remote;
	double start, took;

	start_workers(2);
	start = net_now();
	fd_budget_charge(&budget, 1000);
	client = dial();
	ask(client);
	while (net_now() < start + 0.02)
		poll(NULL, 0, 1);
	fd_budget_give(&budget, 1000);
	took = net_now() - start;
	remote = accept_origin();
	ck_assert_int_eq(answer(client), 0);
	/* On a busy machine it may have been longer. */
	if (took < 0.08)
		ck_assert_int_eq(logged("accept on"), 0);
	close(client);
	close(remote);
}
END_TEST

/* The same where it is the kernel that has no fd. */
START_TEST(short_of_fds)
{
	union endpoint_sockaddr addr;
	socklen_t len = endpoint_sockaddr(&ep, &addr);
	struct rlimit old, none;
	int client, remote;

	start_workers(2);
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(client, 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 0;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	ck_assert_int_eq(connect(client, &addr.sa, len), 0);
	wait_logged("Too many open files; waiting for connections to end");
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ask(client);
	remote = accept_origin();
	ck_assert_int_eq(answer(client), 0);
	expect_echo(client, remote, "at last");
	wait_logged("going on");
	ck_assert_int_eq(logged("waiting for connections to end"), 1);
	ck_assert_int_eq(logged("going on"), 1);
	close(client);
	close(remote);
}
END_TEST

/* ---- limits ---- */

START_TEST(max_connections_in_all_workers)
{
	int client[3], remote;
	struct pollfd p = {.events = POLLIN};

	max_connections = 2;
	start_workers(2);
	for (int i = 0; i < 3; i++) {
		client[i] = dial();
		ask(client[i]);
	}
	remote = accept_origin();
	p.fd = client[2];
	/* It is said after a second look, and nothing was accepted then. */
	for (double end = net_now() + WAIT_SECONDS; logged("the limit") == 0;
		ck_assert(net_now() < end))
		usleep(1000);
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	close(client[0]);
	close(remote);
	close(accept_origin());
	ck_assert_int_eq(answer(client[2]), 0);
	close(client[1]);
	close(client[2]);
	close(accept_origin());
	ck_assert_int_eq(logged("the limit"), 1);
}
END_TEST

/* ---- another set ---- */

static void wait_set(const struct service_set *set)
{
	struct pollfd p = {.fd = config.event_fd, .events = POLLIN};
	uint64_t n;

	for (unsigned int i = 0; i < config.nr_workers; i++) {
		while (worker_set(workers[i]) != set) {
			ck_assert_int_eq(
				poll(&p, 1, (int)(WAIT_SECONDS * 1000)), 1);
			ck_assert_int_eq(
				read(config.event_fd, &n, sizeof(n)), 8);
		}
	}
}

/* Have the workers change over to what @nr of @config say. */
static void change_set(struct service_config *service, size_t nr)
{
	struct service_set *old = config.set;

	config.set = service_set_open(service, nr, old);
	ck_assert_ptr_nonnull(config.set);
	for (unsigned int i = 0; i < config.nr_workers; i++)
		worker_serve(workers[i], config.set);
	wait_set(config.set);
	service_set_retire(old, config.set);
}

START_TEST(another_set)
{
	struct service_config service[2];
	int client, remote, fd;
	struct stat before, after;
	char second[64];

	start_workers(3);
	client = dial();
	ask(client);
	remote = accept_origin();
	ck_assert_int_eq(answer(client), 0);
	ck_assert_int_eq(stat(ep.text, &before), 0);

	/* The same endpoint with other rules, and a second one. */
	service[0] = config.set->service[0]->config;
	rules_init(&service[0].rules);
	ck_assert_ptr_null(
		rules_add(&service[0].rules, "127.0.0.0/8", RULES_DENY));
	service[1] = config.set->service[0]->config;
	rules_init(&service[1].rules);
	snprintf(second, sizeof(second), "unix:%s/t", dir);
	ck_assert_ptr_null(endpoint_parse(&service[1].listen, second));
	change_set(service, 2);
	ck_assert_int_eq(stat(ep.text, &after), 0);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	/* Who is there stays, who comes meets the new rules. */
	expect_echo(client, remote, "still here");
	fd = dial();
	ask(fd);
	ck_assert_int_eq(answer(fd), SOCKS5_NOT_ALLOWED);
	close(fd);

	/* Without the first. */
	service[0] = config.set->service[1]->config;
	rules_init(&service[0].rules);
	change_set(service, 1);
	ck_assert_int_eq(stat(ep.text, &after), -1);
	expect_echo(remote, client, "and here");
	ep = service[0].listen;
	fd = dial();
	ask(fd);
	close(accept_origin());
	ck_assert_int_eq(answer(fd), 0);
	close(fd);
	close(client);
	close(remote);
	drain();
	wait_state(WORKER_DONE);
}
END_TEST

/* Who comes to a listener that no worker looks at any more is served too. */
START_TEST(last_call)
{
	struct service_set *old;
	struct service_config service;
	int client, remote;

	start_workers(2);
	old = config.set;
	service = old->service[0]->config;
	rules_init(&service.rules);
	ck_assert_ptr_null(endpoint_parse(&service.listen, "tcp:127.0.0.1:0"));
	config.set = service_set_open(&service, 1, old);
	ck_assert_ptr_nonnull(config.set);
	for (unsigned int i = 0; i < config.nr_workers; i++)
		worker_serve(workers[i], config.set);
	wait_set(config.set);
	client = dial();
	worker_last_call(workers[1], old->service[0]);
	service_set_retire(old, config.set);
	ask(client);
	remote = accept_origin();
	ck_assert_int_eq(answer(client), 0);
	expect_echo(client, remote, "just in time");
	close(client);
	close(remote);
	drain();
	wait_state(WORKER_DONE);
}
END_TEST

/* If one listener cannot be opened, none is, and the old ones stay. */
START_TEST(set_refused)
{
	struct service_config service[3];
	char text[64];
	struct stat st;

	start_workers(1);
	for (int i = 0; i < 3; i++) {
		service[i] = config.set->service[0]->config;
		rules_init(&service[i].rules);
	}
	snprintf(text, sizeof(text), "unix:%s/t", dir);
	ck_assert_ptr_null(endpoint_parse(&service[1].listen, text));
	ck_assert_ptr_null(
		endpoint_parse(&service[2].listen, "unix:/nonexistent/s"));
	service[2].mode = &mode_table[MODE_VSOCK_TO_IP];
	strcpy(service[2].where, "f.ini:7");
	ck_assert_ptr_null(service_set_open(service, 3, config.set));
	ck_assert_int_eq(
		logged("f.ini:7: Failed to bind listener to vsock: incorrect "
		       "CID:port: cannot listen on unix:/nonexistent/s: "),
		1);
	ck_assert_int_eq(stat(service[1].listen.text, &st), -1);
	ck_assert_int_eq(stat(ep.text, &st), 0);
	close(dial());
}
END_TEST

/* ---- listeners ---- */

START_TEST(socket_file_goes)
{
	struct stat st;

	ck_assert_int_eq(listener_open(&listener, &ep), 0);
	ck_assert_int_eq(lstat(ep.text, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	listener_close(&listener);
	ck_assert_int_eq(lstat(ep.text, &st), -1);
	ck_assert_int_eq(listener.fd, -1);
	listener_close(&listener);
}
END_TEST

START_TEST(socket_file_stale)
{
	ck_assert_int_eq(listener_open(&listener, &ep), 0);
	/* As a server does that is killed. */
	closefd(&listener.fd);
	ck_assert_int_eq(listener_open(&listener, &ep), 0);
	close(dial());
	listener_close(&listener);
}
END_TEST

START_TEST(socket_file_alive)
{
	struct listener second;

	ck_assert_int_eq(listener_open(&listener, &ep), 0);
	ck_assert_int_eq(listener_open(&second, &ep), -1);
	ck_assert_int_eq(second.fd, -1);
	ck_assert_int_eq(logged("Address already in use"), 1);
	ck_assert_int_eq(logged(ep.text), 1);
	/* Neither harmed nor removed. */
	listener_close(&second);
	close(dial());
	listener_close(&listener);
}
END_TEST

/* What is not a socket is nobody's to replace. */
START_TEST(not_a_socket_file)
{
	int fd = open(ep.text, O_WRONLY | O_CREAT | O_EXCL, 0600);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(listener_open(&listener, &ep), -1);
	ck_assert_int_eq(logged("Address already in use"), 1);
	ck_assert_int_eq(unlink(ep.text), 0);
	ck_assert_int_eq(symlink("/nonexistent", ep.text), 0);
	ck_assert_int_eq(listener_open(&listener, &ep), -1);
	ck_assert_int_eq(unlink(ep.text), 0);
}
END_TEST

/* A file that a successor made is not removed. */
START_TEST(socket_file_of_another)
{
	struct listener second;

	ck_assert_int_eq(listener_open(&listener, &ep), 0);
	ck_assert_int_eq(unlink(ep.text), 0);
	ck_assert_int_eq(listener_open(&second, &ep), 0);
	listener_close(&listener);
	close(dial());
	listener_close(&second);
}
END_TEST

START_TEST(tcp_port_zero)
{
	struct listener other;
	struct endpoint tcp;
	int fd, accepted, nodelay = 0, keepalive = 0;
	socklen_t len = sizeof(nodelay);

	ck_assert_ptr_null(endpoint_parse(&tcp, "tcp:127.0.0.1:0"));
	ck_assert_int_eq(listener_open(&listener, &tcp), 0);
	ck_assert_uint_ne(listener.ep.port, 0);
	ck_assert_ptr_nonnull(strstr(listener.text, "tcp:127.0.0.1:"));
	/* What it accepts has the options of a relayed TCP connection. */
	fd = net_connect(&listener.ep.addr);
	accepted = accept(listener.fd, NULL, NULL);
	ck_assert_int_ge(accepted, 0);
	getsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len);
	getsockopt(accepted, SOL_SOCKET, SO_KEEPALIVE, &keepalive, &len);
	ck_assert_int_ne(nodelay, 0);
	ck_assert_int_ne(keepalive, 0);
	close(accepted);
	close(fd);
	/* In use. */
	ck_assert_int_eq(listener_open(&other, &listener.ep), -1);
	ck_assert_int_eq(logged("Address already in use"), 1);
	listener_close(&listener);
	ck_assert_ptr_null(endpoint_parse(&tcp, "tcp:localhost:0"));
	ck_assert_int_eq(listener_open(&listener, &tcp), 0);
	listener_close(&listener);
}
END_TEST

START_TEST(cannot_listen)
{
	static const char *const texts[] = {
		"unix:/nonexistent/s",
		"tcp:192.0.2.1:1",
		"tcp:name.invalid:1",
	};

	for (size_t i = 0; i < 3; i++) {
		struct endpoint bad;

		ck_assert_ptr_null(endpoint_parse(&bad, texts[i]));
		ck_assert_int_eq(listener_open(&listener, &bad), -1);
		ck_assert_int_eq(listener.fd, -1);
		ck_assert_int_eq(logged(texts[i]), 1);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proxy worker");
	TCase *tc = tcase_create("worker");

	/* For "no route" and a look-up that fails at once; no harm without. */
	net_isolate();
	tcase_set_timeout(tc, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, serves);
	tcase_add_test(tc, drains);
	tcase_add_test(tc, kills);
	tcase_add_test(tc, short_of_budget);
	tcase_add_test(tc, short_for_an_instant);
	tcase_add_test(tc, short_of_fds);
	tcase_add_test(tc, max_connections_in_all_workers);
	tcase_add_test(tc, another_set);
	tcase_add_test(tc, last_call);
	tcase_add_test(tc, set_refused);
	tcase_add_test(tc, socket_file_goes);
	tcase_add_test(tc, socket_file_stale);
	tcase_add_test(tc, socket_file_alive);
	tcase_add_test(tc, not_a_socket_file);
	tcase_add_test(tc, socket_file_of_another);
	tcase_add_test(tc, tcp_port_zero);
	tcase_add_test(tc, cannot_listen);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
