/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/*
 * bind() and listen(), which wait for the vendor's answer in a thread.
 */

static const char *bind_ip;
static uint16_t bind_port;

static long run_bind(struct job *job)
{
	return tcp_bind(job->fd, bind_ip, bind_port);
}

static long run_listen(struct job *job)
{
	return listen(job->fd, 128);
}

static long run_getsockname(struct job *job)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);

	return getsockname(job->fd, &any.sa, &len);
}

static void start_bind(struct job *job, int fd, const char *ip, uint16_t port)
{
	bind_ip = ip;
	bind_port = port;
	job_start(job, run_bind, fd, NULL);
}

/* A socket that is bound. Return: it, and its vendor's end. */
static int bound(const char *ip, uint16_t port, int flags, int *control)
{
	int fd = tcp(strchr(ip, ':') ? AF_INET6 : AF_INET, flags);
	struct vendor_request req;
	struct job job;

	start_bind(&job, fd, ip, port);
	*control = vendor_binds(&req, 0, 8080);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(job.err, 0);
	return fd;
}

static void expect_kind(int fd, enum record_kind kind)
{
	struct found found;

	ck_assert(lookup(fd, &found));
	ck_assert_int_eq(found.rec.kind, kind);
}

/* ---- bind() ---- */

START_TEST(test_request)
{
	static const struct {
		const char *ip;
		bool v6only, reuseport, loopback;
		uint32_t flags;
	} cases[] = {
		{"0.0.0.0", 0, 0, 0, 0},
		{FAR4, 0, 1, 0, VENDOR_REUSEPORT},
		{"::", 0, 0, 0, 0},
		{"::", 1, 0, 0, VENDOR_V6ONLY},
		{FAR6, 1, 1, 0, VENDOR_V6ONLY | VENDOR_REUSEPORT},
		{"127.0.0.1", 0, 0, 1, VENDOR_LOOPBACK},
		{"::1", 0, 0, 1, VENDOR_LOOPBACK},
	};
	const char *ip = cases[_i].ip;
	int v6 = strchr(ip, ':') != NULL;
	int on = 1, control, fd = tcp(v6 ? AF_INET6 : AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	stage_config()->wait_ms = 4000;
	stage_config()->loopback_is_host = cases[_i].loopback;
	if (cases[_i].v6only)
		expect_ok(setsockopt(
			fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)));
	if (cases[_i].reuseport)
		expect_ok(setsockopt(
			fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)));
	start_bind(&job, fd, ip, 4242);
	control = vendor_binds(&req, 0, 0);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_uint_eq(req.dst.port, 4242);
	ck_assert_int_eq(req.dst.family, v6 ? AF_INET6 : AF_INET);
	ck_assert_uint_eq(req.flags, cases[_i].flags);
	ck_assert_uint_eq(req.timeout_ms, 4000);
	ck_assert_str_eq(req.endpoint, stage_config()->endpoint_text);
	expect_name(getsockname, fd, ip, 4242);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_bound)
{
	int on = 1, flags = _i ? SOCK_NONBLOCK : 0;
	int control, fd = bound("0.0.0.0", 81, flags | SOCK_CLOEXEC, &control);
	union sockaddr_any any;
	socklen_t len = sizeof(any);

	expect_kind(fd, RECORD_BOUND);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, _i ? O_NONBLOCK : 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	expect_name(getsockname, fd, "0.0.0.0", 81);
	expect_errno(getpeername(fd, &any.sa, &len), ENOTCONN);
	expect_errno(tcp_bind(fd, "0.0.0.0", 82), EINVAL);
	expect_errno(tcp_bind(fd, "127.0.0.1", 82), EINVAL);
	expect_errno(accept(fd, NULL, NULL), EINVAL);
	expect_errno(shutdown(fd, SHUT_RDWR), ENOTCONN);
	expect_ok(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	ck_assert_int_eq(int_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_bind_error)
{
	static const int errs[] = {EADDRINUSE, EACCES, EADDRNOTAVAIL};
	int control, fd = tcp(AF_INET, SOCK_CLOEXEC);
	uint64_t cookie = socket_cookie(fd);
	struct vendor_request req;
	struct job job;

	start_bind(&job, fd, "0.0.0.0", 81);
	control = vendor_binds(&req, errs[_i], 0);
	expect_errno(job_join(&job), errs[_i]);
	vendor_gone(&control);
	ck_assert_uint_eq(socket_cookie(fd), cookie);
	expect_name(getsockname, fd, "0.0.0.0", 0);
	/* it may try another port */
	start_bind(&job, fd, "0.0.0.0", 82);
	control = vendor_binds(&req, 0, 0);
	ck_assert_int_eq(job_join(&job), 0);
	expect_name(getsockname, fd, "0.0.0.0", 82);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* A vendor that hangs up, answers something else, or with an fd. */
START_TEST(test_bad_vendor)
{
	static const int errs[] = {ENETDOWN, EPROTO, EPROTO, EPROTO, ENETDOWN};
	int control = -1, fd = tcp(AF_INET, SOCK_CLOEXEC);
	uint64_t cookie = socket_cookie(fd);
	struct vendor_request req;
	struct vendor_result res;
	int before = stage_count_fds();
	struct job job;

	if (_i == 4)
		vendor_close();
	start_bind(&job, fd, "0.0.0.0", 81);
	if (_i < 4) {
		control = vendor_accept();
		vendor_take(control, &req, VENDOR_BIND);
	}
	vendor_result_init(&res, _i == 1 ? VENDOR_LISTEN : VENDOR_BIND, 0);
	if (_i == 2)
		res.magic++;
	if (_i > 0 && _i < 4)
		vendor_send(control, &res, _i == 3 ? fd : -1);
	else if (_i == 0)
		closefd(&control);
	expect_errno(job_join(&job), errs[_i]);
	if (control != -1)
		vendor_gone(&control);
	ck_assert_uint_eq(socket_cookie(fd), cookie);
	ck_assert_int_eq(stage_count_fds(), before - (_i == 4));
	closefd(&fd);
}
END_TEST

static atomic_int signals;

static void on_signal(int number)
{
	atomic_fetch_add(&signals, 1);
}

/* bind() and listen() know no EINTR. */
START_TEST(test_signals)
{
	struct sigaction act = {.sa_handler = on_signal};
	int control, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct vendor_result res;
	struct job job;

	expect_ok(sigaction(SIGUSR1, &act, NULL));
	start_bind(&job, fd, "0.0.0.0", 81);
	control = vendor_accept();
	vendor_take(control, &req, VENDOR_BIND);
	for (int i = 0; i < 5; i++) {
		job_await_sleep(&job);
		pthread_kill(job.thread, SIGUSR1);
	}
	vendor_result_init(&res, VENDOR_BIND, 0);
	res.local = req.dst;
	vendor_send(control, &res, -1);
	ck_assert_int_eq(job_join(&job), 0);
	job_start(&job, run_listen, fd, NULL);
	for (int i = 0; i < 5; i++) {
		job_await_sleep(&job);
		pthread_kill(job.thread, SIGUSR1);
	}
	vendor_listens(control, 0);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_ge(atomic_load(&signals), 5);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* Loopback, and sockets that are not TCP, stay with the kernel. */
START_TEST(test_local)
{
	static const struct {
		int family, type;
		const char *ip;
	} cases[] = {{AF_INET, SOCK_STREAM, "127.0.0.1"},
		{AF_INET6, SOCK_STREAM, "::1"},
		{AF_INET, SOCK_DGRAM, "0.0.0.0"}};
	int conn, client,
		fd = socket(cases[_i].family, cases[_i].type | SOCK_CLOEXEC, 0);
	union sockaddr_any at;
	socklen_t len = sizeof(at);

	expect_ok(tcp_bind(fd, cases[_i].ip, 0));
	if (cases[_i].type == SOCK_STREAM) {
		expect_ok(listen(fd, 5));
		expect_name(getsockname, fd, cases[_i].ip, -1);
		expect_ok(getsockname(fd, &at.sa, &len));
		client = tcp(cases[_i].family, SOCK_CLOEXEC);
		expect_ok(connect(client, &at.sa, len));
		conn = accept4(fd, &at.sa, &len, SOCK_CLOEXEC);
		ck_assert_int_ge(conn, 0);
		expect_name(getsockname, client, cases[_i].ip, -1);
		closefd(&conn);
		closefd(&client);
	}
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

/* What TCP says of a second bind(), whoever has done the first. */
START_TEST(test_bind_again)
{
	static const char *const first[] = {"127.0.0.1", "0.0.0.0"};
	int fd = tcp(AF_INET, SOCK_CLOEXEC);

	expect_ok(tcp_bind(fd, first[_i], 0));
	expect_errno(tcp_bind(fd, "0.0.0.0", 81), EINVAL);
	expect_errno(tcp_bind(fd, "0.0.0.0", 0), EINVAL);
	expect_errno(tcp_bind(fd, "127.0.0.1", 0), EINVAL);
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

START_TEST(test_bad_arguments)
{
	static const socklen_t bad_lens[] = {
		0, 1, 15, 129, 4096, 1u << 31, (socklen_t)-1};
	int fd = tcp(AF_INET, SOCK_CLOEXEC);
	union sockaddr_any any;

	memset(&any, 0, sizeof(any));
	memcpy(&any, addr_of("0.0.0.0", 81), sizeof(any.in));
	for (size_t i = 0; i < sizeof(bad_lens) / sizeof(*bad_lens); i++)
		expect_errno(bind(fd, &any.sa, bad_lens[i]), EINVAL);
	expect_errno(bind(fd, NULL, 16), EFAULT);
	expect_errno(bind(fd, (struct sockaddr *)1, 16), EFAULT);
	expect_errno(bind(fd, (struct sockaddr *)-16, 16), EFAULT);
	expect_errno(tcp_bind(fd, "::", 81), EAFNOSUPPORT);
	expect_errno(tcp_bind(-1, "0.0.0.0", 81), EBADF);
	expect_errno(listen(-1, 1), EBADF);
	closefd(&fd);
	fd = tcp(AF_INET6, SOCK_CLOEXEC);
	expect_errno(tcp_bind(fd, "0.0.0.0", 81), EINVAL);
	ck_assert(vendor_nobody());
	closefd(&fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	expect_errno(tcp_bind(fd, "0.0.0.0", 81), ENOTSOCK);
	expect_errno(listen(fd, 1), ENOTSOCK);
	closefd(&fd);
}
END_TEST

/* ---- any port ---- */

START_TEST(test_deferred)
{
	int control, fd = tcp(_i ? AF_INET6 : AF_INET, SOCK_CLOEXEC);
	const char *any = _i ? "::" : "0.0.0.0";
	struct vendor_request req;
	struct job job;

	expect_ok(tcp_bind(fd, any, 0));
	ck_assert(vendor_nobody());
	/* somebody wants to know */
	job_start(&job, run_getsockname, fd, NULL);
	control = vendor_binds(&req, 0, 8080);
	ck_assert_uint_eq(req.dst.port, 0);
	ck_assert(ip_port_is_any(&req.dst));
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(job.err, 0);
	expect_name(getsockname, fd, any, 8080);
	expect_errno(tcp_bind(fd, any, 0), EINVAL);
	job_start(&job, run_listen, fd, NULL);
	vendor_listens(control, 0);
	ck_assert_int_eq(job_join(&job), 0);
	expect_name(getsockname, fd, any, 8080);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* listen() after bind() to any port, and without any bind(). */
START_TEST(test_deferred_listen)
{
	int control, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	if (_i)
		expect_ok(tcp_bind(fd, "0.0.0.0", 0));
	job_start(&job, run_listen, fd, NULL);
	control = vendor_binds(&req, 0, 8080);
	ck_assert_uint_eq(req.dst.port, 0);
	vendor_listens(control, 0);
	ck_assert_int_eq(job_join(&job), 0);
	expect_name(getsockname, fd, "0.0.0.0", 8080);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_deferred_error)
{
	int control, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	expect_ok(tcp_bind(fd, "0.0.0.0", 0));
	job_start(&job, _i ? run_listen : run_getsockname, fd, NULL);
	control = vendor_binds(&req, EADDRINUSE, 0);
	expect_errno(job_join(&job), EADDRINUSE);
	vendor_gone(&control);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
}
END_TEST

/* A client that only wanted no port of its own choosing takes none. */
START_TEST(test_deferred_connect)
{
	int peer, remote, fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct vendor_request req;

	expect_ok(tcp_bind(fd, "0.0.0.0", 0));
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_name(getsockname, fd, "203.0.113.9", 4000);
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);
	ck_assert(vendor_nobody());
}
END_TEST

/* Connected inside the enclave, it is the kernel's for good. */
START_TEST(test_deferred_connect_local)
{
	int conn, fd = tcp(AF_INET, SOCK_CLOEXEC);
	int server = tcp(AF_INET, SOCK_CLOEXEC);
	union sockaddr_any at;
	socklen_t len = sizeof(at);

	expect_ok(tcp_bind(server, "127.0.0.1", 0));
	expect_ok(listen(server, 5));
	expect_ok(getsockname(server, &at.sa, &len));
	expect_ok(tcp_bind(fd, "0.0.0.0", 0));
	expect_ok(connect(fd, &at.sa, len));
	conn = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	vendor_close(); /* to ask it would be an error at once */
	expect_name(getsockname, fd, "127.0.0.1", -1);
	say(fd, "still there");
	hear(conn, "still there");
	closefd(&conn);
	closefd(&server);
	closefd(&fd);
}
END_TEST

/* ---- listen() ---- */

START_TEST(test_listen)
{
	int on = 1, control;
	int fd = bound("0.0.0.0", 81, SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	struct vendor_request req;
	struct vendor_result res;
	struct tcp_info info;
	socklen_t len = sizeof(info);
	struct job job;

	expect_ok(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	job_start(&job, run_listen, fd, NULL);
	vendor_take(control, &req, VENDOR_LISTEN);
	ck_assert_int_eq(req.backlog, 128);
	ck_assert_mem_eq(req.key, VENDOR_TEST_KEY, VENDOR_KEY_LEN);
	vendor_result_init(&res, VENDOR_LISTEN, 0);
	vendor_send(control, &res, -1);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(job.err, 0);
	expect_kind(fd, RECORD_LISTENER);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	expect_ok(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len));
	ck_assert_int_eq(info.tcpi_state, TCP_LISTEN);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
	expect_errno(tcp_bind(fd, "0.0.0.0", 82), EINVAL);
	/* again: nothing to ask */
	expect_ok(listen(fd, 5));
	ck_assert_int_eq(events(control, 0), POLLOUT);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_listen_error)
{
	int control, fd = bound("0.0.0.0", 81, SOCK_CLOEXEC, &control);
	struct job job;

	job_start(&job, run_listen, fd, NULL);
	vendor_listens(control, EADDRINUSE);
	expect_errno(job_join(&job), EADDRINUSE);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
	expect_errno(accept(fd, NULL, NULL), EINVAL);
	job_start(&job, run_listen, fd, NULL);
	vendor_listens(control, 0);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* The vendor that bound it dies, before listen() or in the middle of it; the
 * next one hears the whole story. */
START_TEST(test_listen_rejoin)
{
	int on = 1, client, conn, control;
	int fd = bound("::", 81, SOCK_CLOEXEC, &control);
	struct vendor_request req;
	struct job job;

	expect_ok(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	if (_i == 0)
		closefd(&control);
	job_start(&job, run_listen, fd, NULL);
	if (_i == 1) {
		job_await_sleep(&job);
		closefd(&control); /* with the request unread */
	} else if (_i == 2) {
		vendor_take(control, &req, VENDOR_LISTEN);
		closefd(&control);
	}
	control = vendor_next(&req, VENDOR_REJOIN);
	vendor_take(control, &req, VENDOR_REJOIN);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_mem_eq(req.key, VENDOR_TEST_KEY, VENDOR_KEY_LEN);
	ck_assert_uint_eq(req.dst.port, 81);
	ck_assert_int_eq(req.dst.family, AF_INET6);
	ck_assert_int_eq(req.backlog, 128);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	client = vendor_client(control, FAR6, "2001:db8::9");
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_listen_no_vendor)
{
	int control, fd = bound("0.0.0.0", 81, SOCK_CLOEXEC, &control);

	closefd(&control);
	vendor_close();
	expect_errno(listen(fd, 5), ENETDOWN);
	expect_kind(fd, RECORD_BOUND);
	closefd(&fd);
}
END_TEST

/* Every process of a server calls listen() on the socket that they share
 * (uvicorn): one asks, none takes a client for the answer. */
START_TEST(test_listen_shared)
{
	enum { NR = 4 };
	int control, conn, clients[NR];
	int fd = bound("0.0.0.0", 81, SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	struct vendor_request req;
	struct vendor_result res;
	pid_t pids[NR];

	for (int i = 0; i < NR; i++) {
		pids[i] = fork();
		ck_assert_int_ne(pids[i], -1);
		if (pids[i] == 0)
			_exit(listen(fd, 5) == 0 && int_option(fd, SOL_SOCKET,
							    SO_ACCEPTCONN) == 1
					? 0
					: 1);
	}
	vendor_take(control, &req, VENDOR_LISTEN);
	vendor_result_init(&res, VENDOR_LISTEN, 0);
	vendor_send(control, &res, -1);
	for (int i = 0; i < NR; i++)
		clients[i] = vendor_client(control, FAR4, FAR4_OTHER);
	for (int i = 0; i < NR; i++)
		ck_assert_int_eq(stage_wait_exit(pids[i]), 0);
	ck_assert_int_eq(events(control, 0), POLLOUT);
	/* the parent has not listened itself, and finds out */
	expect_ok(listen(fd, 5));
	ck_assert_int_eq(events(control, 0), POLLOUT);
	for (int i = 0; i < NR; i++) {
		conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		ck_assert_int_ge(conn, 0);
		closefd(&conn);
		closefd(&clients[i]);
	}
	expect_errno(accept(fd, NULL, NULL), EAGAIN);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* ---- and then connect() ---- */

START_TEST(test_bound_connect)
{
	int control, peer, remote;
	int fd = bound("0.0.0.0", 81, SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};
	struct vendor_request req;

	/* these leave it as it is */
	expect_errno(tcp_connect(fd, FAR6, FAR_PORT), EAFNOSUPPORT);
	expect_errno(connect(fd, NULL, 16), EFAULT);
	expect_errno(connect(fd, addr_of(FAR4, FAR_PORT), 1), EINVAL);
	expect_ok(connect(fd, &unspec, sizeof(unspec)));
	expect_name(getsockname, fd, "0.0.0.0", 81);
	ck_assert_int_eq(events(control, 0), POLLOUT);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	vendor_gone(&control);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	vendor_gone(&peer);
	say(fd, "x");
	hear(remote, "x");
	closefd(&remote);
	closefd(&fd);
}
END_TEST

/* ---- another program ---- */

START_TEST(play)
{
	int conn, fd = stage_int(0);

	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
	expect_name(getsockname, fd, "0.0.0.0", 81);
	if (strcmp(stage_argv[1], "bound") == 0) {
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
		expect_ok(listen(fd, 9));
	}
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	expect_name(getpeername, conn, FAR4, 5555);
	say(conn, "hello");
	closefd(&conn);
}
END_TEST

START_TEST(test_exec)
{
	int control, client;
	int fd = _i ? listener_at("0.0.0.0", 81, 0, &control)
		    : bound("0.0.0.0", 81, 0, &control);
	char number[16];
	pid_t pid;

	snprintf(number, sizeof(number), "%d", fd);
	pid = fork();
	if (pid == 0) {
		execl(stage_program(), "play", "--play", number,
			_i ? "listener" : "bound", (char *)NULL);
		_exit(127);
	}
	ck_assert_int_ne(pid, -1);
	if (_i == 0)
		vendor_listens(control, 0);
	client = vendor_client(control, FAR4, FAR4_OTHER);
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	hear(client, "hello");
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_listen");
	TCase *tc = stage_case(s, "bind");

	tcase_add_loop_test(tc, test_request, 0, 7);
	tcase_add_loop_test(tc, test_bound, 0, 2);
	tcase_add_loop_test(tc, test_bind_error, 0, 3);
	tcase_add_loop_test(tc, test_bad_vendor, 0, 5);
	tcase_add_test(tc, test_signals);
	tcase_add_loop_test(tc, test_local, 0, 3);
	tcase_add_loop_test(tc, test_bind_again, 0, 2);
	tcase_add_test(tc, test_bad_arguments);
	tc = stage_case(s, "any_port");
	tcase_add_loop_test(tc, test_deferred, 0, 2);
	tcase_add_loop_test(tc, test_deferred_listen, 0, 2);
	tcase_add_loop_test(tc, test_deferred_error, 0, 2);
	tcase_add_test(tc, test_deferred_connect);
	tcase_add_test(tc, test_deferred_connect_local);
	tc = stage_case(s, "listen");
	tcase_add_test(tc, test_listen);
	tcase_add_test(tc, test_listen_error);
	tcase_add_loop_test(tc, test_listen_rejoin, 0, 3);
	tcase_add_test(tc, test_listen_no_vendor);
	tcase_add_test(tc, test_listen_shared);
	tcase_add_test(tc, test_bound_connect);
	tcase_add_loop_test(tc, test_exec, 0, 2);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, play);
}
