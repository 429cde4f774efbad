/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload/real.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

/*
 * A blocking connect(), which runs in a thread of its own, and the arguments of
 * every connect().
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

static long run_connect(struct job *job)
{
	return tcp_connect(job->fd, FAR4, FAR_PORT);
}

/* A connect() that waits for the vendor. */
static int blocked(struct job *job, int fd)
{
	struct vendor_request req;
	int peer;

	job_start(job, run_connect, fd, NULL);
	peer = vendor_next(&req, VENDOR_CONNECT);
	job_await_sleep(job);
	return peer;
}

static void expect_connected(int fd, int remote)
{
	expect_name(getpeername, fd, FAR4, FAR_PORT);
	expect_name(getsockname, fd, "203.0.113.9", 4000);
	say(fd, "out");
	hear(remote, "out");
	say(remote, "in");
	hear(fd, "in");
}

/* ---- the ends of it ---- */

START_TEST(test_success)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 4};
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int peer, remote, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
	peer = blocked(&job, fd);
	remote = vendor_connects(peer);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(job.err, 0);
	vendor_gone(&peer);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	say(remote, "x");
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, STAGE_PATIENCE_MS), 1);
	ck_assert_uint_eq(event.data.u64, 4);
	hear(fd, "x");
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
	closefd(&epfd);
}
END_TEST

START_TEST(test_failure)
{
	static const int errs[] = {ECONNREFUSED, ETIMEDOUT, EACCES};
	int peer, remote, fd = tcp(AF_INET, SOCK_CLOEXEC);
	uint64_t cookie = socket_cookie(fd);
	struct job job;

	peer = blocked(&job, fd);
	vendor_fails(&peer, errs[_i]);
	expect_errno(job_join(&job), errs[_i]);
	/* it is the very socket that it was, and good for another try */
	ck_assert_uint_eq(socket_cookie(fd), cookie);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	ck_assert(!slot_may_be_gate(fd));
	peer = blocked(&job, fd);
	remote = vendor_connects(peer);
	ck_assert_int_eq(job_join(&job), 0);
	vendor_gone(&peer);
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

START_TEST(test_bad_vendor)
{
	struct vendor_result res;
	int peer, fd = tcp(AF_INET, SOCK_CLOEXEC);
	uint64_t cookie = socket_cookie(fd);
	struct job job;

	peer = blocked(&job, fd);
	if (_i == 1) {
		vendor_result_init(&res, VENDOR_CONNECT, 0);
		vendor_send(peer, &res, -1); /* no fd with it */
	} else if (_i == 2) {
		vendor_result_init(&res, VENDOR_PING, 0);
		vendor_send(peer, &res, -1);
	}
	closefd(&peer);
	expect_errno(job_join(&job), _i ? EPROTO : ECONNRESET);
	ck_assert_uint_eq(socket_cookie(fd), cookie);
	closefd(&fd);
}
END_TEST

/* Another thread closes the fd, and its number becomes another file. */
START_TEST(test_closed)
{
	int peer, remote, null, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;
	char byte;

	peer = blocked(&job, fd);
	expect_ok(close(fd));
	null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(null, fd);
	remote = vendor_connects(peer);
	expect_errno(job_join(&job), EBADF);
	ck_assert_int_eq(write(null, "x", 1), 1);
	expect_errno(send(null, "x", 1, 0), ENOTSOCK);
	ck_assert_int_eq(recv(remote, &byte, 1, 0), 0);
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&null);
}
END_TEST

/* ---- signals and time limits ---- */

/* How a program goes on after EINTR. */
static void go_on(int fd, int peer, int how, int *remote)
{
	struct job job;

	switch (how) {
	case 0:
		*remote = vendor_connects(peer);
		await_events(fd, POLLOUT);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
		break;
	case 1: /* connect() again, which waits */
		job_start(&job, run_connect, fd, NULL);
		job_await_sleep(&job);
		*remote = vendor_connects(peer);
		ck_assert_int_eq(job_join(&job), 0);
		expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
		return;
	case 2: /* connect() again, interrupted again */
		job_start(&job, run_connect, fd, NULL);
		job_interrupt(&job, SIGUSR1);
		expect_errno(job_join(&job), EINTR);
		*remote = vendor_connects(peer);
		break;
	default: break;
	}
	expect_ok(tcp_connect(fd, FAR4, FAR_PORT));
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
}

START_TEST(test_eintr)
{
	int peer, remote = -1, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	catch_signals(0);
	peer = blocked(&job, fd);
	job_interrupt(&job, SIGUSR1);
	expect_errno(job_join(&job), EINTR);
	/* the same attempt goes on, there is no second one */
	ck_assert_int_eq(events(fd, 0), 0);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	go_on(fd, peer, _i, &remote);
	vendor_gone(&peer);
	ck_assert(vendor_nobody());
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

START_TEST(test_eintr_failure)
{
	int peer, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	catch_signals(0);
	peer = blocked(&job, fd);
	job_interrupt(&job, SIGUSR1);
	expect_errno(job_join(&job), EINTR);
	if (_i == 0) {
		vendor_fails(&peer, ECONNREFUSED);
		await_events(fd, POLLHUP);
		ck_assert_int_eq(
			int_option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	} else {
		job_start(&job, run_connect, fd, NULL);
		job_await_sleep(&job);
		vendor_fails(&peer, ECONNREFUSED);
		expect_errno(job_join(&job), ECONNREFUSED);
	}
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
}
END_TEST

START_TEST(test_restart)
{
	int peer, remote, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	catch_signals(SA_RESTART);
	peer = blocked(&job, fd);
	for (int i = 1; i <= 5; i++) {
		int64_t deadline = now_ms() + STAGE_PATIENCE_MS;

		pthread_kill(job.thread, SIGUSR1);
		while (atomic_load(&signals) < i && now_ms() < deadline)
			poll(NULL, 0, 1);
		job_await_sleep(&job);
	}
	ck_assert_int_eq(atomic_load(&signals), 5);
	remote = vendor_connects(peer);
	ck_assert_int_eq(job_join(&job), 0);
	ck_assert_int_eq(job.err, 0);
	vendor_gone(&peer);
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

START_TEST(test_time_limit)
{
	struct timeval limit = {0, 50000};
	struct vendor_request req;
	int64_t start = now_ms();
	int peer, remote, fd = tcp(AF_INET, SOCK_CLOEXEC);

	expect_ok(
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	ck_assert_int_ge(now_ms() - start, 50);
	peer = vendor_next(&req, VENDOR_CONNECT);
	ck_assert_int_eq(events(fd, 0), 0);
	/* once more, with the same limit */
	start = now_ms();
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EALREADY);
	ck_assert_int_ge(now_ms() - start, 50);
	/* and with another, set on the gate */
	limit.tv_usec = 100000;
	expect_ok(
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
	start = now_ms();
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EALREADY);
	ck_assert_int_ge(now_ms() - start, 100);
	remote = vendor_connects(peer);
	if (_i) {
		await_events(fd, POLLOUT);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	}
	expect_ok(tcp_connect(fd, FAR4, FAR_PORT));
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
	vendor_gone(&peer);
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* Given up by another thread while one waits. */
START_TEST(test_given_up)
{
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};
	int peer, fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	expect_ok(fcntl(fd, F_SETFL, 0));
	job_start(&job, run_connect, fd, NULL);
	job_await_sleep(&job);
	if (_i)
		expect_ok(connect(fd, &unspec, sizeof(unspec)));
	else
		expect_ok(shutdown(fd, SHUT_RDWR));
	vendor_gone(&peer);
	/* it looks again, and finds a fresh socket: whatever it says, it does
	 * not hang */
	job_join(&job);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
}
END_TEST

/* The same where the socket is still TCP, and the gate nowhere to be seen. */
START_TEST(test_broken_off)
{
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};
	int remote, peer, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	peer = blocked(&job, fd);
	if (_i == 3)
		expect_ok(connect(fd, &unspec, sizeof(unspec)));
	else
		expect_ok(shutdown(fd, _i));
	expect_errno(job_join(&job), ECONNRESET);
	vendor_gone(&peer);
	expect_errno(shutdown(fd, SHUT_RDWR), ENOTCONN);
	/* and may be used again */
	job_start(&job, run_connect, fd, NULL);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	ck_assert_int_eq(job_join(&job), 0);
	vendor_gone(&peer);
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* ---- no vendor, or a busy one ---- */

START_TEST(test_nobody)
{
	int fd = tcp(AF_INET, (_i ? SOCK_NONBLOCK : 0) | SOCK_CLOEXEC);

	vendor_close();
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENETDOWN);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
}
END_TEST

static struct real before;
static uid_t vendor_uid;

/* There is only one user in this namespace. */
static int getsockopt_of_another(
	int fd, int level, int name, void *value, socklen_t *len)
{
	int rc = before.getsockopt(fd, level, name, value, len);

	if (rc == 0 && level == SOL_SOCKET && name == SO_PEERCRED)
		((struct ucred *)value)->uid = vendor_uid;
	return rc;
}

/* At a path that was chosen, any user's vendor will do; at the one that
 * everybody knows, root's or our own. */
START_TEST(test_whose_vendor)
{
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct real *calls = (struct real *)(uintptr_t)real();

	before = *calls;
	vendor_uid = _i == 0 ? 0 : 65533;
	calls->getsockopt = getsockopt_of_another;
	stage_config()->vendor_is_default = _i != 2;
	if (_i == 1) {
		expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENETDOWN);
		expect_errno(tcp_bind(fd, "0.0.0.0", FAR_PORT), ENETDOWN);
	} else {
		expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	}
	closefd(&fd);
}
END_TEST

/* Fill the backlog. Return: who fills it. */
static int occupy_vendor(void)
{
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);

	vendor_backlog(0);
	expect_errno(tcp_connect(fd, FAR4_OTHER, FAR_PORT), EINPROGRESS);
	return fd;
}

START_TEST(test_busy_nonblocking)
{
	int first = occupy_vendor();
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int64_t start = now_ms();

	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENOBUFS);
	/* an event loop must go on */
	ck_assert_int_lt(now_ms() - start, 1000);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
	closefd(&first);
}
END_TEST

/* A blocking call waits for room, and signals do not turn that into an EINTR
 * of which nothing would follow. */
START_TEST(test_busy_blocking)
{
	int first = occupy_vendor();
	int peer, remote, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct vendor_request req;
	struct job job;

	catch_signals(_i ? SA_RESTART : 0);
	job_start(&job, run_connect, fd, NULL);
	job_await_sleep(&job);
	for (int i = 0; i < 5; i++) {
		pthread_kill(job.thread, SIGUSR1);
		job_await_sleep(&job);
	}
	peer = vendor_next(&req, VENDOR_CONNECT);
	closefd(&first);
	vendor_gone(&peer);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	ck_assert_int_eq(job_join(&job), 0);
	vendor_gone(&peer);
	expect_connected(fd, remote);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

START_TEST(test_bad_setting)
{
	int fd = tcp(AF_INET, (_i ? SOCK_NONBLOCK : 0) | SOCK_CLOEXEC);

	stage_config()->bad = "PROXY_ENDPOINT";
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINVAL);
	expect_errno(tcp_bind(fd, "0.0.0.0", FAR_PORT), EINVAL);
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

/* ---- arguments ---- */

/* On a fresh socket, a gate and a carrier: what TCP says of bad arguments. */
static int in_state(int state, int *peer, int *remote)
{
	struct vendor_request req;
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);

	*peer = *remote = -1;
	if (state == 0)
		return fd;
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	*peer = vendor_next(&req, VENDOR_CONNECT);
	if (state == 1)
		return fd;
	*remote = vendor_connects(*peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_ok(tcp_connect(fd, FAR4, FAR_PORT));
	return fd;
}

START_TEST(test_arguments)
{
	static const int known[] = {0, EALREADY, EISCONN};
	static const socklen_t bad_lens[] = {
		0, 1, 129, 4096, 1u << 31, (socklen_t)-1};
	union sockaddr_any to;
	int peer, remote, fd = in_state(_i, &peer, &remote);

	memset(&to, 0, sizeof(to));
	memcpy(&to, addr_of(FAR4, FAR_PORT), sizeof(to.in));
	for (size_t i = 0; i < sizeof(bad_lens) / sizeof(*bad_lens); i++)
		expect_errno(connect(fd, &to.sa, bad_lens[i]), EINVAL);
	expect_errno(connect(fd, NULL, 16), EFAULT);
	expect_errno(connect(fd, (struct sockaddr *)1, 16), EFAULT);
	expect_errno(connect(fd, (struct sockaddr *)-1, 16), EFAULT);
	expect_errno(connect(fd, (struct sockaddr *)-16, 16), EFAULT);
	expect_errno(connect(fd, &to.sa, 15), _i ? known[_i] : EINVAL);
	to.sa.sa_family = AF_UNIX;
	expect_errno(connect(fd, &to.sa, 16), _i ? known[_i] : EAFNOSUPPORT);
	expect_errno(
		tcp_connect(fd, FAR6, FAR_PORT), _i ? known[_i] : EAFNOSUPPORT);
	closefd(&fd);
	if (_i)
		vendor_gone(&peer);
	closefd_if(&remote);
	ck_assert(vendor_nobody());
}
END_TEST

/* Right up to the end of what can be read, and one byte further. */
START_TEST(test_end_of_memory)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sockaddr_in *end =
		(struct sockaddr_in *)(void *)(map + page - sizeof(*end));
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct vendor_request req;
	int peer;

	ck_assert_ptr_ne(map, MAP_FAILED);
	expect_ok(mprotect(map + page, page, PROT_NONE));
	memcpy(end, addr_of(FAR4, FAR_PORT), sizeof(*end));
	expect_errno(
		connect(fd, (struct sockaddr *)end, sizeof(*end) + 1), EFAULT);
	expect_errno(
		bind(fd, (struct sockaddr *)end, sizeof(*end) + 1), EFAULT);
	expect_errno(
		connect(fd, (struct sockaddr *)end, sizeof(*end)), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	closefd(&fd);
	vendor_gone(&peer);
	munmap(map, 2 * page);
}
END_TEST

/* A longer length than needed is no error. */
START_TEST(test_long)
{
	struct sockaddr_storage room = {0};
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct vendor_request req;
	int peer;

	memcpy(&room, addr_of(FAR4, FAR_PORT), sizeof(struct sockaddr_in));
	expect_errno(connect(fd, (struct sockaddr *)&room, sizeof(room)),
		EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	ck_assert_uint_eq(req.dst.port, FAR_PORT);
	closefd(&fd);
	vendor_gone(&peer);
}
END_TEST

/* What is not ours the kernel answers: there is no route here. */
START_TEST(test_kept)
{
	static const struct {
		int family, type;
		const char *ip;
		int err;
	} cases[] = {
		{AF_INET, SOCK_DGRAM, FAR4, ENETUNREACH},
		{AF_INET, SOCK_STREAM, "127.0.0.1", ECONNREFUSED},
		{AF_INET, SOCK_STREAM, "127.9.9.9", ECONNREFUSED},
		{AF_INET, SOCK_STREAM, "0.0.0.0", ECONNREFUSED},
		{AF_INET6, SOCK_STREAM, "::1", ECONNREFUSED},
		{AF_INET6, SOCK_STREAM, "::", ECONNREFUSED},
		{AF_INET6, SOCK_STREAM, "::ffff:127.0.0.1", ECONNREFUSED},
		{AF_INET, SOCK_STREAM, "224.0.0.1", ENETUNREACH},
		{AF_INET, SOCK_STREAM, "255.255.255.255", ENETUNREACH},
	};
	int fd = socket(cases[_i].family, cases[_i].type | SOCK_CLOEXEC, 0);

	expect_errno(tcp_connect(fd, cases[_i].ip, 1), cases[_i].err);
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

START_TEST(test_families)
{
	int on = 1, fd = tcp(AF_INET6, SOCK_CLOEXEC);

	expect_ok(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)));
	expect_errno(tcp_connect(fd, FAR4_MAPPED, FAR_PORT), ENETUNREACH);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINVAL);
	expect_errno(tcp_connect(-1, FAR4, FAR_PORT), EBADF);
	closefd(&fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENOTSOCK);
	closefd(&fd);
	ck_assert(vendor_nobody());
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_connect");
	TCase *tc = stage_case(s, "blocking");

	tcase_add_test(tc, test_success);
	tcase_add_loop_test(tc, test_failure, 0, 3);
	tcase_add_loop_test(tc, test_bad_vendor, 0, 3);
	tcase_add_test(tc, test_closed);
	tcase_add_loop_test(tc, test_eintr, 0, 3);
	tcase_add_loop_test(tc, test_eintr_failure, 0, 2);
	if (!STAGE_TSAN)
		tcase_add_test(tc, test_restart);
	tcase_add_loop_test(tc, test_time_limit, 0, 2);
	tcase_add_loop_test(tc, test_given_up, 0, 2);
	tcase_add_loop_test(tc, test_broken_off, 0, 4);
	tc = stage_case(s, "vendor");
	tcase_add_loop_test(tc, test_nobody, 0, 2);
	tcase_add_loop_test(tc, test_whose_vendor, 0, 3);
	tcase_add_test(tc, test_busy_nonblocking);
	tcase_add_loop_test(tc, test_busy_blocking, 0, 2);
	tcase_add_loop_test(tc, test_bad_setting, 0, 2);
	tc = stage_case(s, "arguments");
	tcase_add_loop_test(tc, test_arguments, 0, 3);
	tcase_add_test(tc, test_end_of_memory);
	tcase_add_test(tc, test_long);
	tcase_add_loop_test(tc, test_kept, 0, 9);
	tcase_add_test(tc, test_families);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
