/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/*
 * accept() with the test as the vendor that lets clients come, and dies.
 */

static atomic_int signals;

static void on_signal(int number)
{
	atomic_fetch_add(&signals, 1);
}

static void catch_signals(int flags)
{
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = flags};

	expect_ok(sigaction(SIGUSR1, &act, NULL));
}

static long run_accept(struct job *job)
{
	return accept4(job->fd, NULL, NULL, SOCK_CLOEXEC);
}

static void expect_talk(int conn, int client)
{
	say(client, "in");
	hear(conn, "in");
	say(conn, "out");
	hear(client, "out");
}

/* A client that comes and is accepted, by a call that need not wait. */
static void expect_service(int fd, int control)
{
	int client = vendor_client(control, FAR4, FAR4_OTHER);
	int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	ck_assert_msg(conn >= 0, "accept4: %s", strerror(errno));
	expect_talk(conn, client);
	closefd(&conn);
	closefd(&client);
}

/* The control of a listener that has lost its vendor: a new one, asked for
 * with all that the old one knew. */
static int expect_rejoin(const char *ip, uint16_t port)
{
	struct vendor_request req;
	int control = vendor_accept();

	vendor_take(control, &req, VENDOR_REJOIN);
	ck_assert_mem_eq(req.key, VENDOR_TEST_KEY, VENDOR_KEY_LEN);
	ck_assert_uint_eq(req.dst.port, port);
	ck_assert_int_eq(req.dst.family, strchr(ip, ':') ? AF_INET6 : AF_INET);
	ck_assert_int_eq(req.backlog, 7);
	ck_assert_str_eq(req.endpoint, stage_config()->endpoint_text);
	return control;
}

/* ---- one client ---- */

START_TEST(test_flags)
{
	int flags = (_i & 1 ? SOCK_NONBLOCK : 0) | (_i & 2 ? SOCK_CLOEXEC : 0);
	/* the listener's own flags are not its connections' */
	int control,
		fd = listener_at("0.0.0.0", 80,
			_i & 4 ? SOCK_NONBLOCK | SOCK_CLOEXEC : 0, &control);
	int client = vendor_client(control, FAR4, FAR4_OTHER);
	union sockaddr_any peer = {0};
	socklen_t len = sizeof(peer);
	int conn;

	errno = E2BIG;
	if (flags)
		conn = accept4(fd, &peer.sa, &len, flags);
	else
		conn = accept(fd, &peer.sa, &len);
	ck_assert_int_ge(conn, 0);
	ck_assert_int_eq(errno, E2BIG);
	ck_assert_uint_eq(len, sizeof(peer.in));
	ck_assert_mem_eq(&peer, addr_of(FAR4, 5555), sizeof(peer.in));
	ck_assert_int_eq(
		fcntl(conn, F_GETFL) & O_NONBLOCK, _i & 1 ? O_NONBLOCK : 0);
	ck_assert_int_eq(fcntl(conn, F_GETFD), _i & 2 ? FD_CLOEXEC : 0);
	expect_name(getpeername, conn, FAR4, 5555);
	expect_name(getsockname, conn, FAR4_OTHER, 80);
	ck_assert_int_eq(int_option(conn, SOL_SOCKET, SO_DOMAIN), AF_INET);
	ck_assert_int_eq(int_option(conn, SOL_SOCKET, SO_ACCEPTCONN), 0);
	expect_errno(tcp_connect(conn, FAR4, FAR_PORT), EISCONN);
	expect_talk(conn, client);
	expect_errno(accept4(fd, NULL, NULL, 0x10), EINVAL);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_families)
{
	static const struct {
		const char *at, *remote, *local, *peer, *name;
	} cases[] = {
		{"0.0.0.0", FAR4, FAR4_OTHER, FAR4, FAR4_OTHER},
		{"::", FAR6, "2001:db8::9", FAR6, "2001:db8::9"},
		{"::", FAR4_MAPPED, "::ffff:1.2.3.4", FAR4_MAPPED,
			"::ffff:1.2.3.4"},
		/* the vendor forgot to map them, or mixed them up */
		{"::", FAR4, "1.2.3.4", FAR4_MAPPED, "::ffff:1.2.3.4"},
		{"0.0.0.0", FAR4_MAPPED, "::ffff:1.2.3.4", FAR4, "1.2.3.4"},
		{"0.0.0.0", FAR6, "2001:db8::9", "0.0.0.0", "0.0.0.0"},
	};
	int control, fd = listener_at(cases[_i].at, 80, SOCK_CLOEXEC, &control);
	int client = vendor_client(control, cases[_i].remote, cases[_i].local);
	union sockaddr_any peer = {0};
	socklen_t len = sizeof(peer);
	int lost = _i == 5, conn = accept4(fd, &peer.sa, &len, SOCK_CLOEXEC);

	ck_assert_int_ge(conn, 0);
	ck_assert_uint_eq(len, ADDR_LEN(cases[_i].peer));
	ck_assert_int_eq(peer.sa.sa_family,
		strchr(cases[_i].peer, ':') ? AF_INET6 : AF_INET);
	expect_name(getpeername, conn, cases[_i].peer, lost ? 0 : 5555);
	expect_name(getsockname, conn, cases[_i].name, lost ? 0 : 80);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* What is set on a listener is set on its connections. */
START_TEST(test_options)
{
	struct timeval limit = {.tv_sec = 5}, got = {0, 0};
	socklen_t len = sizeof(got);
	int on = 1, control, client, conn;
	int fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);

	expect_ok(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	expect_ok(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	expect_ok(
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	client = vendor_client(control, FAR4, FAR4_OTHER);
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	ck_assert_int_eq(int_option(conn, IPPROTO_TCP, TCP_NODELAY), 1);
	ck_assert_int_eq(int_option(conn, SOL_SOCKET, SO_KEEPALIVE), 1);
	expect_ok(getsockopt(conn, SOL_SOCKET, SO_RCVTIMEO, &got, &len));
	ck_assert_int_eq(got.tv_sec, 5);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_arguments)
{
	int control, fd = listener_at("0.0.0.0", 80,
			     SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	int conn, client = vendor_client(control, FAR4, FAR4_OTHER);
	uint8_t room[32];
	socklen_t len = sizeof(room);

	expect_errno(accept(fd, (struct sockaddr *)1, &len), EFAULT);
	if (!STAGE_SANITIZED) /* its accept() looks, and crashes */
		expect_errno(accept(fd, (void *)room, (socklen_t *)1), EFAULT);
	expect_errno(accept(fd, (void *)room, NULL), EFAULT);
	len = (socklen_t)-1;
	expect_errno(accept(fd, (void *)room, &len), EINVAL);
	/* the client has not suffered; its address is cut to the room */
	memset(room, 0x5a, sizeof(room));
	len = 4;
	conn = accept4(fd, (void *)room, &len, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	ck_assert_uint_eq(len, sizeof(struct sockaddr_in));
	ck_assert_uint_eq(room[3], 5555 & 0xff);
	ck_assert_uint_eq(room[4], 0x5a);
	expect_talk(conn, client);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* ---- waiting ---- */

START_TEST(test_nonblocking)
{
	int control, fd = listener_at("0.0.0.0", 80,
			     SOCK_NONBLOCK | SOCK_CLOEXEC, &control);

	expect_errno(accept(fd, NULL, NULL), EAGAIN);
	ck_assert_int_eq(events(fd, 0) & POLLIN, 0);
	expect_service(fd, control);
	expect_errno(accept4(fd, NULL, NULL, 0), EAGAIN);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_blocking)
{
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	int conn, client;
	struct job job;

	job_start(&job, run_accept, fd, NULL);
	job_await_sleep(&job);
	client = vendor_client(control, FAR4, FAR4_OTHER);
	conn = (int)job_join(&job);
	ck_assert_int_ge(conn, 0);
	ck_assert_int_eq(job.err, 0);
	expect_talk(conn, client);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_time_limit)
{
	struct timeval limit = {0, 50000};
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	int64_t start = now_ms();

	expect_ok(
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	expect_errno(accept(fd, NULL, NULL), EAGAIN);
	ck_assert_int_ge(now_ms() - start, 50);
	expect_service(fd, control);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_signal)
{
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	int conn, client;
	struct job job;

	catch_signals(_i ? SA_RESTART : 0);
	job_start(&job, run_accept, fd, NULL);
	if (_i == 0) {
		job_await_sleep(&job);
		job_interrupt(&job, SIGUSR1);
		expect_errno(job_join(&job), EINTR);
	} else {
		for (int i = 0; i < 5; i++) {
			job_await_sleep(&job);
			pthread_kill(job.thread, SIGUSR1);
		}
		client = vendor_client(control, FAR4, FAR4_OTHER);
		conn = (int)job_join(&job);
		ck_assert_int_ge(conn, 0);
		closefd(&conn);
		closefd(&client);
	}
	expect_service(fd, control);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_epoll)
{
	static const uint32_t modes[] = {
		0, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE};
	struct epoll_event event = {
		.events = EPOLLIN | modes[_i % 4], .data.u64 = 99};
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int control, conn, client,
		fd = listener_at(
			"0.0.0.0", 80, SOCK_NONBLOCK | SOCK_CLOEXEC, &control);

	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	if (_i / 4) { /* and over the death of the vendor */
		closefd(&control);
		ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 1);
		expect_errno(accept(fd, NULL, NULL), EAGAIN);
		control = expect_rejoin("0.0.0.0", 80);
	}
	client = vendor_client(control, FAR4, FAR4_OTHER);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, STAGE_PATIENCE_MS), 1);
	ck_assert_uint_eq(event.events, EPOLLIN);
	ck_assert_uint_eq(event.data.u64, 99);
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
	closefd(&epfd);
}
END_TEST

/* Without a free fd number the client stays in the queue. */
START_TEST(test_out_of_fds)
{
	int control, fd = listener_at("0.0.0.0", 80,
			     SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	int conn, client = vendor_client(control, FAR4, FAR4_OTHER);
	struct rlimit old, none;
	int rc[3], errs[3];

	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = (rlim_t)fd; /* every number below is taken */
	for (int i = 0; i < 3; i++) {
		setrlimit(RLIMIT_NOFILE, &none);
		rc[i] = accept(fd, NULL, NULL);
		errs[i] = errno;
		setrlimit(RLIMIT_NOFILE, &old);
	}
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(rc[i], -1);
		ck_assert_int_eq(errs[i], EMFILE);
	}
	ck_assert_int_eq(events(fd, 0) & POLLIN, POLLIN);
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	expect_talk(conn, client);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* What is no client is dropped, with its fds, and the next one served. */
START_TEST(test_nonsense)
{
	int control, fd = listener_at("0.0.0.0", 80,
			     SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	int before = stage_count_fds();
	struct vendor_result res;

	vendor_result_init(&res, VENDOR_ACCEPT, 0);
	vendor_send(control, &res, -1); /* no fd */
	res.magic++;
	vendor_send(control, &res, control);
	vendor_result_init(&res, VENDOR_CONNECT, 0);
	vendor_send(control, &res, control);
	vendor_result_init(&res, VENDOR_LISTEN, 0);
	vendor_send(control, &res, -1);
	vendor_result_init(&res, VENDOR_ACCEPT, ECONNABORTED);
	vendor_send(control, &res, -1);
	ck_assert_int_eq(fd_send(control, &res, 1, control, 0), 1);
	expect_errno(accept(fd, NULL, NULL), EAGAIN);
	ck_assert_int_eq(stage_count_fds(), before);
	expect_service(fd, control);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* ---- several acceptors ---- */

/* Two processes on one listener: each client is served once. */
START_TEST(test_prefork)
{
	enum { CLIENTS = 20, CHILDREN = 2 };
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	int clients[CLIENTS], served = 0;
	pid_t pids[CHILDREN];

	for (int i = 0; i < CHILDREN; i++) {
		pids[i] = fork();
		ck_assert_int_ne(pids[i], -1);
		for (int nr = 0; pids[i] == 0; nr++) {
			char byte;
			int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

			if (conn == -1 || recv(conn, &byte, 1, 0) != 1)
				_exit(200);
			if (byte == 'q')
				_exit(nr);
			send(conn, &byte, 1, 0);
			close(conn);
		}
	}
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = vendor_client(control, FAR4, FAR4_OTHER);
		say(clients[i], "x");
	}
	for (int i = 0; i < CLIENTS; i++) {
		char byte;

		hear(clients[i], "x");
		ck_assert_int_eq(recv(clients[i], &byte, 1, 0), 0);
		closefd(&clients[i]);
	}
	for (int i = 0; i < CHILDREN; i++) {
		clients[i] = vendor_client(control, FAR4, FAR4_OTHER);
		say(clients[i], "q");
	}
	for (int i = 0; i < CHILDREN; i++) {
		int nr = stage_wait_exit(pids[i]);

		ck_assert_int_lt(nr, 128);
		served += nr;
		closefd(&clients[i]);
	}
	ck_assert_int_eq(served, CLIENTS);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* The last owner's close, and nobody else's, ends the control. */
START_TEST(test_last_owner)
{
	int control, copy,
		fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);

	copy = dup(fd);
	closefd(&fd);
	ck_assert_int_eq(events(control, 0), POLLOUT);
	expect_service(copy, control);
	closefd(&copy);
	vendor_gone(&control);
}
END_TEST

/* ---- the vendor dies ---- */

START_TEST(test_rejoin)
{
	const char *ip = _i ? "::" : "0.0.0.0";
	int control, fd = listener_at(
			     ip, 80, SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	int before = stage_count_fds();

	for (int i = 0; i < 3; i++) {
		closefd(&control);
		ck_assert_int_eq(events(fd, 0) & POLLIN, POLLIN);
		expect_errno(accept(fd, NULL, NULL), EAGAIN);
		control = expect_rejoin(ip, 80);
		ck_assert(vendor_nobody());
		ck_assert_int_eq(stage_count_fds(), before);
		expect_name(getsockname, fd, ip, 80);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
		ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
		ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
		expect_service(fd, control);
	}
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* Clients that the vendor has sent before it died are served first. */
START_TEST(test_rejoin_after_clients)
{
	int control, fd = listener_at("0.0.0.0", 80,
			     SOCK_NONBLOCK | SOCK_CLOEXEC, &control);
	int conn, client = vendor_client(control, FAR4, FAR4_OTHER);

	closefd(&control);
	conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(conn, 0);
	expect_talk(conn, client);
	ck_assert(vendor_nobody());
	expect_errno(accept(fd, NULL, NULL), EAGAIN);
	control = expect_rejoin("0.0.0.0", 80);
	closefd(&conn);
	closefd(&client);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* Of two controls of one listener one goes away: which is known only then. */
static void keep_living(int *control, int *other)
{
	struct pollfd pfd[2] = {{.fd = *control}, {.fd = *other}};

	ck_assert_int_eq(poll(pfd, 2, STAGE_PATIENCE_MS), 1);
	if (pfd[0].revents) {
		closefd(control);
		*control = *other;
	} else {
		closefd(other);
	}
}

/* Two threads are in accept(): one new control is enough, and if both make one
 * the second goes away at once. */
START_TEST(test_rejoin_threads)
{
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	struct job jobs[2];
	int other, clients[2];

	for (int i = 0; i < 2; i++)
		job_start(&jobs[i], run_accept, fd, NULL);
	for (int i = 0; i < 2; i++)
		job_await_sleep(&jobs[i]);
	closefd(&control);
	control = expect_rejoin("0.0.0.0", 80);
	for (int i = 0; i < 2; i++)
		job_await_sleep(&jobs[i]);
	if (!vendor_nobody()) {
		other = expect_rejoin("0.0.0.0", 80);
		keep_living(&control, &other);
	}
	ck_assert(vendor_nobody());
	for (int i = 0; i < 2; i++)
		clients[i] = vendor_client(control, FAR4, FAR4_OTHER);
	for (int i = 0; i < 2; i++) {
		int conn = (int)job_join(&jobs[i]);

		ck_assert_int_ge(conn, 0);
		closefd(&conn);
		closefd(&clients[i]);
	}
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* No vendor at all: no spinning, no giving up, and signals are heard. */
START_TEST(test_vendor_away)
{
	struct timeval limit = {0, 1000};
	int control, conn, client,
		fd = listener_at("0.0.0.0", 80,
			(_i == 0 ? SOCK_NONBLOCK : 0) | SOCK_CLOEXEC, &control);
	int64_t start = now_ms();
	struct job job;

	closefd(&control);
	vendor_close();
	catch_signals(0);
	if (_i == 1)
		expect_ok(setsockopt(
			fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	if (_i < 2) {
		expect_errno(accept(fd, NULL, NULL), EAGAIN);
		ck_assert_int_ge(now_ms() - start, 20);
		ck_assert_int_lt(now_ms() - start, 1000);
	} else {
		job_start(&job, run_accept, fd, NULL);
		job_await_sleep(&job);
		job_interrupt(&job, SIGUSR1);
		expect_errno(job_join(&job), EINTR);
		job_start(&job, run_accept, fd, NULL);
		job_await_sleep(&job);
	}
	vendor_reopen();
	if (_i < 2) {
		expect_errno(accept(fd, NULL, NULL), EAGAIN);
		control = expect_rejoin("0.0.0.0", 80);
		expect_service(fd, control);
	} else {
		control = expect_rejoin("0.0.0.0", 80);
		client = vendor_client(control, FAR4, FAR4_OTHER);
		conn = (int)job_join(&job);
		ck_assert_int_ge(conn, 0);
		closefd(&conn);
		closefd(&client);
	}
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

/* ---- data ---- */

static long run_bind(struct job *job)
{
	return tcp_bind(job->fd, "0.0.0.0", 80);
}

static long run_listen(struct job *job)
{
	return listen(job->fd, 5);
}

static void expect_no_data(int fd)
{
	char buf[200];
	struct iovec iov = {.iov_base = buf, .iov_len = sizeof(buf)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	expect_errno(recv(fd, buf, 1, 0), ENOTCONN);
	expect_errno(recv(fd, buf, 1, MSG_PEEK), ENOTCONN);
	expect_errno(read(fd, buf, sizeof(buf)), ENOTCONN);
	expect_errno(recvmsg(fd, &msg, 0), ENOTCONN);
	expect_errno(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
	expect_errno(sendmsg(fd, &msg, MSG_NOSIGNAL), EPIPE);
	atomic_store(&signals, 0);
	expect_errno(write(fd, "x", 1), EPIPE);
	ck_assert_int_eq(atomic_load(&signals), 1);
}

/* No stream: what the vendor sends is not the application's to read, nor has
 * that anything to say to it. Programs do ask: Python's ssl module reads from
 * each socket that it is to wrap, listening ones too. */
START_TEST(test_no_data)
{
	struct vendor_request req;
	struct job job;
	int control, client, copy, fd = tcp(AF_INET, SOCK_CLOEXEC);

	signal(SIGPIPE, on_signal);
	job_start(&job, run_bind, fd, NULL);
	control = vendor_binds(&req, 0, 0);
	expect_ok(job_join(&job));
	expect_no_data(fd);
	job_start(&job, run_listen, fd, NULL);
	vendor_listens(control, 0);
	expect_ok(job_join(&job));
	expect_no_data(fd);
	client = vendor_client(control, FAR4, FAR4_OTHER);
	copy = dup(fd);
	expect_no_data(copy);
	fd_set_nonblock(fd, true);
	expect_no_data(fd);
	closefd(&copy);
	copy = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	expect_talk(copy, client);
	closefd(&copy);
	closefd(&client);
	closefd(&fd);
	/* The number is another socket's now. */
	copy = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	expect_errno(recv(copy, NULL, 0, 0), EAGAIN);
	closefd(&copy);
	vendor_gone(&control);
	signal(SIGPIPE, SIG_DFL);
}
END_TEST

/* ---- shutdown() ---- */

START_TEST(test_shutdown)
{
	static const int hows[] = {SHUT_RD, SHUT_RDWR};
	int control, copy,
		fd = listener_at(
			"0.0.0.0", 80, SOCK_NONBLOCK | SOCK_CLOEXEC, &control);

	expect_errno(shutdown(fd, 3), EINVAL);
	expect_ok(shutdown(fd, SHUT_WR)); /* Linux: no effect */
	expect_service(fd, control);
	copy = dup(fd);
	expect_ok(shutdown(fd, hows[_i]));
	vendor_gone(&control);
	ck_assert_int_eq(events(fd, 0) & POLLHUP, POLLHUP);
	for (int i = 0; i < 2; i++) {
		expect_errno(accept(fd, NULL, NULL), EINVAL);
		expect_errno(accept(copy, NULL, NULL), EINVAL);
	}
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
	ck_assert(vendor_nobody());
	/* it may listen once more */
	expect_ok(listen(fd, 7));
	control = expect_rejoin("0.0.0.0", 80);
	expect_service(fd, control);
	closefd(&copy);
	closefd(&fd);
	vendor_gone(&control);
}
END_TEST

START_TEST(test_shutdown_wakes)
{
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	struct job job;

	job_start(&job, run_accept, fd, NULL);
	job_await_sleep(&job);
	expect_ok(shutdown(fd, SHUT_RDWR));
	expect_errno(job_join(&job), EINVAL);
	vendor_gone(&control);
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

/* To another process it looks like a vendor that died. */
START_TEST(test_shutdown_shared)
{
	int control, fd = listener_at("0.0.0.0", 80, SOCK_CLOEXEC, &control);
	pid_t pid = fork();

	ck_assert_int_ne(pid, -1);
	if (pid == 0)
		_exit(accept(fd, NULL, NULL) == -1 && errno == EINVAL ? 1 : 0);
	expect_ok(shutdown(fd, SHUT_RDWR));
	ck_assert_int_eq(stage_wait_exit(pid), 1);
	vendor_gone(&control);
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_accept");
	TCase *tc = stage_case(s, "accept");

	tcase_add_loop_test(tc, test_flags, 0, 8);
	tcase_add_loop_test(tc, test_families, 0, 6);
	tcase_add_test(tc, test_options);
	tcase_add_test(tc, test_arguments);
	tcase_add_test(tc, test_nonblocking);
	tcase_add_test(tc, test_blocking);
	tcase_add_test(tc, test_time_limit);
	tcase_add_loop_test(tc, test_signal, 0, 2);
	tcase_add_loop_test(tc, test_epoll, 0, 8);
	tcase_add_test(tc, test_out_of_fds);
	tcase_add_test(tc, test_nonsense);
	tcase_add_test(tc, test_prefork);
	tcase_add_test(tc, test_last_owner);
	tcase_add_test(tc, test_no_data);
	tc = stage_case(s, "recovery");
	tcase_add_loop_test(tc, test_rejoin, 0, 2);
	tcase_add_test(tc, test_rejoin_after_clients);
	tcase_add_test(tc, test_rejoin_threads);
	tcase_add_loop_test(tc, test_vendor_away, 0, 3);
	tc = stage_case(s, "shutdown");
	tcase_add_loop_test(tc, test_shutdown, 0, 2);
	tcase_add_test(tc, test_shutdown_wakes);
	tcase_add_test(tc, test_shutdown_shared);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
