/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "vendor/worker.h"
#include "suite.h"
#include "vendor_stage.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * A real worker in a process of its own, with the test as the front-end on one
 * side and the host proxy on the other. The worker ends upon SIGTERM with
 * status 0, under a sanitizer only if it leaked nothing.
 */

#define OTHER_UID 12345

static struct stage stage;
static pid_t worker;
static int idle_fds;

static int vendor_listen(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(
		AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", stage.config.path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ck_assert_int_eq(chmod(addr.sun_path, 0666), 0);
	ck_assert_int_eq(listen(fd, SOMAXCONN), 0);
	return fd;
}

/* A question that is answered says that all before it is done. */
static void settle(void)
{
	struct vendor_request req;
	struct vendor_result res;
	int gate = front_connect(&stage);
	int carrier;

	vendor_request_init(&req, VENDOR_PING);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	front_result(gate, &res, &carrier, 0);
	ck_assert_int_eq(res.op, VENDOR_PING);
	ck_assert_int_eq(res.status, 0);
	closefd(&gate);
}

static void start_worker(void)
{
	int listener = vendor_listen();

	worker = fork();
	ck_assert_int_ge(worker, 0);
	if (worker == 0) {
		log_init("worker", stage.config.log_level, STDERR_FILENO);
		exit(worker_run(listener, &stage.config));
	}
	closefd(&listener);
	settle();
	idle_fds = stage_count_fds(worker);
}

/* Wait until the worker holds as many fds as when it was idle. */
static void expect_idle(void)
{
	const struct timespec pause = {.tv_nsec = 1000000};

	for (int i = 0; i < STAGE_PATIENCE_MS; i++) {
		settle();
		/* The settling gate itself may not be gone yet. */
		if (stage_count_fds(worker) <= idle_fds)
			return;
		nanosleep(&pause, NULL);
	}
	ck_abort_msg("the worker holds %d fds, not %d", stage_count_fds(worker),
		idle_fds);
}

static void setup(void)
{
	stage_open(&stage);
}

static void teardown(void)
{
	if (worker > 0) {
		expect_idle();
		ck_assert_int_eq(kill(worker, SIGTERM), 0);
		ck_assert_int_eq(stage_wait_exit(worker), 0);
	}
	stage_close(&stage);
}

/* What TCP shows for a connect() that failed. */
#define FAILED (POLLIN | POLLOUT | POLLERR | POLLHUP)

/* The result is there a moment before the end is. */
static void await_end(int gate)
{
	struct pollfd pfd = {.fd = gate}; /* POLLHUP comes unasked */

	ck_assert_int_eq(poll(&pfd, 1, STAGE_PATIENCE_MS), 1);
}

static void expect_status(int gate, int status)
{
	struct vendor_result res;
	int carrier;

	front_result(gate, &res, &carrier, MSG_PEEK);
	ck_assert_int_eq(res.status, status);
	ck_assert_int_eq(carrier, -1);
}

static void expect_failed(int gate, int status)
{
	socklen_t len = sizeof(int);
	int err = 0;

	await_end(gate);
	ck_assert_int_eq(front_poll(gate, 0) & FAILED, FAILED);
	ck_assert_int_eq(getsockopt(gate, SOL_SOCKET, SO_ERROR, &err, &len), 0);
	ck_assert_int_eq(err, ECONNRESET);
	expect_status(gate, status);
}

/* ---- the protocol ---- */

START_TEST(test_success)
{
	struct socks5_request request;
	struct vendor_result res;
	char text[IP_PORT_STRLEN];
	int gate, peer, carrier, again;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_ask(&stage);
	peer = host_accept(&stage);
	host_take_hello(peer, &request);
	/* The host proxy has the request: now it is TCP in SYN_SENT. */
	ck_assert_int_eq(front_poll(gate, 0), 0);
	host_answer(peer, SOCKS5_SUCCEEDED);
	host_send(peer, "hello", 5);
	front_result(gate, &res, &carrier, MSG_PEEK);
	ck_assert_int_eq(res.status, 0);
	ck_assert_str_eq(ip_port_format(&res.remote, text, sizeof(text)),
		"198.51.100.1:80");
	ck_assert_str_eq(ip_port_format(&res.local, text, sizeof(text)),
		"192.0.2.7:4242");
	settle();
	ck_assert_int_eq(front_poll(gate, 0), POLLIN | POLLOUT);
	/* Another holder of the gate gets an fd of its own. */
	front_result(gate, &res, &again, MSG_PEEK);
	ck_assert_int_ne(again, carrier);
	closefd(&again);
	ck_assert_int_eq(recv(carrier, text, sizeof(text), 0), 5);
	closefd(&gate);
	expect_idle();
	/* The vendor has let go; the connection has not. */
	ck_assert_int_eq(send(carrier, "x", 1, MSG_NOSIGNAL), 1);
	closefd(&carrier);
	ck_assert_int_eq(recv(peer, text, 1, 0), 1);
	host_expect_eof(peer);
	closefd(&peer);
}
END_TEST

/* Nothing in between the two: POLLOUT comes with the result or after it. */
START_TEST(test_epoll)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
	struct vendor_result res;
	int ep = epoll_create1(EPOLL_CLOEXEC);
	int gate, peer, carrier;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_ask(&stage);
	ck_assert_int_eq(epoll_ctl(ep, EPOLL_CTL_ADD, gate, &event), 0);
	peer = host_accept(&stage);
	ck_assert_int_eq(epoll_wait(ep, &event, 1, 0), 0);
	host_answer(peer, SOCKS5_SUCCEEDED);
	do
		ck_assert_int_eq(
			epoll_wait(ep, &event, 1, STAGE_PATIENCE_MS), 1);
	while (!(event.events & EPOLLOUT));
	front_result(gate, &res, &carrier, MSG_DONTWAIT);
	ck_assert_int_eq(res.status, 0);
	closefd(&carrier);
	closefd(&gate);
	closefd(&peer);
	closefd(&ep);
}
END_TEST

START_TEST(test_refused)
{
	int gate, peer;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_ask(&stage);
	peer = host_serve(&stage, SOCKS5_REFUSED);
	expect_failed(gate, ECONNREFUSED);
	closefd(&gate);
	closefd(&peer);
}
END_TEST

START_TEST(test_no_proxy)
{
	int gate;

	start_worker();
	gate = front_ask(&stage);
	expect_failed(gate, ENETDOWN);
	closefd(&gate);
}
END_TEST

START_TEST(test_timeout)
{
	struct vendor_request req;
	int gate, peer;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_connect(&stage);
	front_request(&req);
	req.timeout_ms = 50;
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	peer = host_accept(&stage);
	expect_failed(gate, ETIMEDOUT);
	closefd(&gate);
	closefd(&peer);
}
END_TEST

/* Closing the socket before it is connected ends the attempt. */
START_TEST(test_cancel)
{
	struct socks5_request request;
	int gate, copy, peer;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_ask(&stage);
	copy = dup(gate);
	peer = host_accept(&stage);
	host_take_hello(peer, &request);
	closefd(&gate);
	settle();
	ck_assert_int_eq(recv(peer, &request, 1, MSG_DONTWAIT), -1);
	ck_assert_int_eq(errno, EAGAIN);
	closefd(&copy);
	host_expect_eof(peer);
	closefd(&peer);
}
END_TEST

START_TEST(test_probe)
{
	struct vendor_request req;
	struct vendor_result res;
	int gate, peer, carrier;
	char buf[8];

	start_worker();
	vendor_request_init(&req, VENDOR_PROBE);
	gate = front_connect(&stage);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	expect_failed(gate, ENOENT);
	closefd(&gate);
	stage_listen(&stage, 8);
	gate = front_connect(&stage);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	peer = host_accept(&stage);
	ck_assert_int_eq(recv(peer, buf, sizeof(buf), 0), 3);
	host_send(peer, "\5\0", 2);
	front_result(gate, &res, &carrier, 0);
	ck_assert_int_eq(res.status, 0);
	closefd(&gate);
	closefd(&peer);
}
END_TEST

START_TEST(test_own_endpoint)
{
	struct vendor_request req;
	struct vendor_result res;
	int gate, peer, carrier;

	/* The vendor's own is nowhere; the request names the right one. */
	stage_listen(&stage, 8);
	snprintf(stage.config.endpoint.text, sizeof(stage.config.endpoint.text),
		"%s/nowhere", stage.dir);
	start_worker();
	front_request(&req);
	snprintf(req.endpoint, sizeof(req.endpoint), "unix:%s", stage.host);
	gate = front_connect(&stage);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	peer = host_serve(&stage, SOCKS5_SUCCEEDED);
	front_result(gate, &res, &carrier, 0);
	ck_assert_int_eq(res.status, 0);
	closefd(&carrier);
	closefd(&gate);
	closefd(&peer);
	snprintf(req.endpoint, sizeof(req.endpoint), "unix:nonsense");
	gate = front_connect(&stage);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	expect_failed(gate, EINVAL);
	closefd(&gate);
}
END_TEST

/* ---- bad input ---- */

START_TEST(test_wrong_size)
{
	static const size_t sizes[] = {1, 64, 1023, 1025, 2048};
	char message[2048] = {0};
	int gate;

	start_worker();
	front_request((struct vendor_request *)message);
	gate = front_connect(&stage);
	ck_assert_int_eq(fd_send(gate, message, sizes[_i], -1, 0), sizes[_i]);
	expect_failed(gate, EPROTO);
	closefd(&gate);
}
END_TEST

/* Nothing unread is left of an empty message, so there is no POLLERR. */
START_TEST(test_empty)
{
	int gate;

	start_worker();
	gate = front_connect(&stage);
	ck_assert_int_eq(fd_send(gate, "", 0, -1, 0), 0);
	await_end(gate);
	expect_status(gate, EPROTO);
	closefd(&gate);
}
END_TEST

/* Every byte that matters, turned over. */
START_TEST(test_mangled)
{
	struct vendor_request req;
	int gate;

	start_worker();
	for (size_t i = 0; i < 12; i++) {
		front_request(&req);
		((uint8_t *)&req)[i] ^= 0xff;
		gate = front_connect(&stage);
		ck_assert_int_eq(
			fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
		expect_failed(gate, EPROTO);
		closefd(&gate);
	}
}
END_TEST

START_TEST(test_stray_fd)
{
	struct vendor_request req;
	int gate;

	start_worker();
	front_request(&req);
	for (int i = 0; i < 20; i++) {
		gate = front_connect(&stage);
		ck_assert_int_eq(
			fd_send(gate, &req, sizeof(req), STDERR_FILENO, 0),
			sizeof(req));
		expect_failed(gate, EPROTO);
		closefd(&gate);
	}
}
END_TEST

START_TEST(test_silent)
{
	int gate;

	stage.config.request_timeout = 0.05;
	start_worker();
	gate = front_connect(&stage);
	await_end(gate);
	closefd(&gate);
}
END_TEST

START_TEST(test_late_request)
{
	struct vendor_request req;
	struct vendor_result res;
	int gate, carrier;

	start_worker();
	gate = front_connect(&stage);
	settle(); /* the worker waits for it by now */
	vendor_request_init(&req, VENDOR_PING);
	ck_assert_int_eq(fd_send(gate, &req, sizeof(req), -1, 0), sizeof(req));
	front_result(gate, &res, &carrier, 0);
	ck_assert_int_eq(res.status, 0);
	closefd(&gate);
}
END_TEST

/* What is written past the library must not vanish silently. */
START_TEST(test_data_after_result)
{
	struct vendor_result res;
	int gate, peer, carrier;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_ask(&stage);
	peer = host_serve(&stage, SOCKS5_SUCCEEDED);
	front_result(gate, &res, &carrier, 0);
	settle();
	ck_assert_int_eq(send(gate, "GET /", 5, MSG_NOSIGNAL), 5);
	await_end(gate);
	closefd(&carrier);
	closefd(&gate);
	closefd(&peer);
}
END_TEST

/* ---- who may ---- */

/* Run @as_other in a child of another uid. */
static void as_other(void (*what)(void))
{
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		ck_assert_int_eq(setuid(OTHER_UID), 0);
		what();
		_exit(0);
	}
	ck_assert_int_eq(stage_wait_exit(pid), 0);
}

static void expect_not_served(void)
{
	struct vendor_result res;
	int gate = front_connect(&stage);
	int carrier;

	front_result(gate, &res, &carrier, 0);
	if (res.status != EACCES)
		_exit(1);
}

static void expect_own_endpoint_only(void)
{
	struct vendor_request req;
	struct vendor_result res;
	int gate, carrier;

	front_request(&req);
	snprintf(req.endpoint, sizeof(req.endpoint), "unix:/run/other.sock");
	gate = front_connect(&stage);
	fd_send(gate, &req, sizeof(req), -1, 0);
	front_result(gate, &res, &carrier, 0);
	if (res.status != EACCES)
		_exit(1);
	closefd(&gate);
	snprintf(req.endpoint, sizeof(req.endpoint), "unix:%s", stage.host);
	gate = front_connect(&stage);
	fd_send(gate, &req, sizeof(req), -1, 0);
	front_result(gate, &res, &carrier, 0);
	if (res.status != ENETDOWN) /* nobody is there, but it was tried */
		_exit(2);
}

START_TEST(test_other_uid)
{
	if (geteuid() != 0)
		return;
	start_worker();
	as_other(expect_not_served);
	settle();
}
END_TEST

START_TEST(test_allowed_uid)
{
	if (geteuid() != 0)
		return;
	if (_i == 0)
		stage.config.allow_any = true;
	else
		stage.config.allow[stage.config.nr_allow++] = OTHER_UID;
	start_worker();
	as_other(expect_own_endpoint_only);
}
END_TEST

/* ---- limits ---- */

START_TEST(test_max_gates)
{
	struct vendor_result res;
	int gates[4], peer, carrier;

	stage_listen(&stage, 8);
	stage.config.max_gates = 3;
	start_worker();
	for (int i = 0; i < 4; i++)
		gates[i] = front_ask(&stage);
	for (int i = 0; i < 3; i++) {
		peer = host_serve(&stage, SOCKS5_SUCCEEDED);
		closefd(&peer);
	}
	/* The fourth one waits, and is served when another one ends. */
	ck_assert_int_eq(front_poll(gates[3], 20), 0);
	closefd(&gates[0]);
	peer = host_serve(&stage, SOCKS5_SUCCEEDED);
	front_result(gates[3], &res, &carrier, 0);
	ck_assert_int_eq(res.status, 0);
	closefd(&carrier);
	closefd(&peer);
	for (int i = 1; i < 4; i++)
		closefd(&gates[i]);
}
END_TEST

START_TEST(test_out_of_fds)
{
	struct rlimit plenty, limit;
	struct vendor_result res;
	int gates[60], carrier;
	long before;

	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &plenty), 0);
	limit = plenty;
	limit.rlim_cur = 40;
	start_worker();
	/* Behind its back, so that its own limit does not help it. */
	ck_assert_int_eq(prlimit(worker, RLIMIT_NOFILE, &limit, NULL), 0);
	for (int i = 0; i < 60; i++)
		gates[i] = front_connect(&stage);
	before = stage_cpu_ticks(worker);
	ck_assert_int_eq(front_poll(gates[59], 500), POLLOUT);
	/* A half second of spinning would be about 50 of them. */
	(void)poll(NULL, 0, 500);
	ck_assert_int_lt(stage_cpu_ticks(worker) - before, 20);
	for (int i = 0; i < 59; i++)
		closefd(&gates[i]);
	/* The last one, which was not even accepted, is served now. */
	{
		struct vendor_request req;

		vendor_request_init(&req, VENDOR_PING);
		fd_send(gates[59], &req, sizeof(req), -1, 0);
		front_result(gates[59], &res, &carrier, 0);
		ck_assert_int_eq(res.status, 0);
		closefd(&gates[59]);
	}
	ck_assert_int_eq(prlimit(worker, RLIMIT_NOFILE, &plenty, NULL), 0);
}
END_TEST

/* Many at a time, answered in the other order. */
START_TEST(test_many)
{
	enum { MANY = 400 };
	struct socks5_request request;
	struct vendor_result res;
	int gates[MANY], peers[MANY];
	int carrier;

	stage_listen(&stage, MANY);
	start_worker();
	for (int i = 0; i < MANY; i++)
		gates[i] = front_ask(&stage);
	for (int i = 0; i < MANY; i++)
		peers[i] = host_accept(&stage);
	for (int i = MANY - 1; i >= 0; i--) {
		host_take_hello(peers[i], &request);
		host_answer(
			peers[i], i % 2 ? SOCKS5_SUCCEEDED : SOCKS5_REFUSED);
	}
	for (int i = 0, good = 0; i < MANY; i++) {
		front_result(gates[i], &res, &carrier, 0);
		good += res.status == 0;
		ck_assert(res.status == 0 || res.status == ECONNREFUSED);
		closefd_if(&carrier);
		closefd(&gates[i]);
		closefd(&peers[i]);
		if (i == MANY - 1)
			ck_assert_int_eq(good, MANY / 2);
	}
}
END_TEST

/* The worker dies with gates open: their holders see an end, not a wait. */
START_TEST(test_killed)
{
	int gate, peer;

	stage_listen(&stage, 8);
	start_worker();
	gate = front_ask(&stage);
	peer = host_accept(&stage);
	kill(worker, SIGKILL);
	stage_wait_exit(worker);
	worker = 0;
	await_end(gate);
	ck_assert_int_eq(front_poll(gate, 0) & FAILED, FAILED);
	closefd(&gate);
	closefd(&peer);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("vendor_gate");
	TCase *tc = tcase_create("gate");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_success);
	tcase_add_test(tc, test_epoll);
	tcase_add_test(tc, test_refused);
	tcase_add_test(tc, test_no_proxy);
	tcase_add_test(tc, test_timeout);
	tcase_add_test(tc, test_cancel);
	tcase_add_test(tc, test_probe);
	tcase_add_test(tc, test_own_endpoint);
	tcase_add_loop_test(tc, test_wrong_size, 0, 5);
	tcase_add_test(tc, test_empty);
	tcase_add_test(tc, test_mangled);
	tcase_add_test(tc, test_stray_fd);
	tcase_add_test(tc, test_silent);
	tcase_add_test(tc, test_late_request);
	tcase_add_test(tc, test_data_after_result);
	tcase_add_test(tc, test_other_uid);
	tcase_add_loop_test(tc, test_allowed_uid, 0, 2);
	tcase_add_test(tc, test_max_gates);
	tcase_add_test(tc, test_out_of_fds);
	tcase_add_test(tc, test_many);
	tcase_add_test(tc, test_killed);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
