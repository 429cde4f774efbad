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
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * A blocking connect() where there is no vendor: the library does it itself.
 * The host proxy is the test; what its carrier's connect() says in place of the
 * kernel, which has no vsock here, can be ordered with refuse().
 */

#define FOREVER 1000000

static const char success[] = "\5\0\5\0\0\1\313\0\161\11\17\240";
#define SUCCESS_LEN (sizeof(success) - 1)

static int host;

static void open_host(void)
{
	stage_open();
	host = stage_unix(stage_config()->endpoint.text);
	vendor_close();
}

static void close_host(void)
{
	closefd_if(&host);
	unlink(stage_config()->endpoint.text);
	stage_close();
}

static long run_connect(struct job *job)
{
	return tcp_connect(job->fd, FAR4, FAR_PORT);
}

/* ---- connect() of the carrier, as ordered ---- */

static int (*real_connect)(int, const struct sockaddr *, socklen_t);
static int refusal;        /* errno */
static atomic_int to_come; /* that many more */
static atomic_int tries;
static uint64_t cookies[64];

static int connect_as_ordered(
	int fd, const struct sockaddr *addr, socklen_t len)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)addr;
	int nr;

	if (addr->sa_family != AF_UNIX ||
		strcmp(un->sun_path, stage_config()->endpoint.text) != 0)
		return real_connect(fd, addr, len);
	nr = atomic_fetch_add(&tries, 1);
	if (nr < 64)
		cookies[nr] = socket_cookie(fd);
	if (atomic_fetch_sub(&to_come, 1) <= 0)
		return real_connect(fd, addr, len);
	errno = refusal;
	return -1;
}

static void refuse(int err, int times)
{
	struct real *calls = (struct real *)(uintptr_t)real();

	if (!real_connect)
		real_connect = calls->connect;
	refusal = err;
	atomic_store(&to_come, times);
	atomic_store(&tries, 0);
	calls->connect = connect_as_ordered;
}

/* ---- the host proxy's side ---- */

static int host_accept(void)
{
	struct timeval limit = {.tv_sec = STAGE_PATIENCE_MS / 1000};
	int peer;

	await_events(host, POLLIN);
	peer = accept4(host, NULL, NULL, SOCK_CLOEXEC);
	ck_assert_int_ge(peer, 0);
	setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return peer;
}

/* Greeting and request came together: 05 01 00, 05 01 00 01 a.b.c.d port. */
static void take_hello(int peer)
{
	static const uint8_t wanted[] = {
		5, 1, 0, 5, 1, 0, 1, 192, 0, 2, 1, 0, FAR_PORT};
	uint8_t hello[sizeof(wanted)];

	ck_assert_int_eq(
		recv(peer, hello, sizeof(hello), MSG_WAITALL), sizeof(hello));
	ck_assert_mem_eq(hello, wanted, sizeof(wanted));
}

/* Serve whoever connects on @fd, to the end. */
static void serve(struct job *job, int *fd)
{
	int peer = host_accept();

	take_hello(peer);
	ck_assert_int_eq(
		send(peer, success, SUCCESS_LEN, 0), (ssize_t)SUCCESS_LEN);
	ck_assert_int_eq(job_join(job), 0);
	ck_assert_int_eq(fcntl(*fd, F_GETFL) & O_NONBLOCK, 0);
	expect_name(getpeername, *fd, FAR4, FAR_PORT);
	expect_name(getsockname, *fd, "203.0.113.9", 4000);
	say(*fd, "out");
	hear(peer, "out");
	say(peer, "in");
	hear(*fd, "in");
	closefd(&peer);
	closefd(fd);
}

static void connect_and_serve(int *fd)
{
	struct job job;

	job_start(&job, run_connect, *fd, NULL);
	serve(&job, fd);
}

/* ---- what it answers ---- */

START_TEST(test_success)
{
	int fd = tcp(AF_INET, SOCK_CLOEXEC);

	connect_and_serve(&fd);
}
END_TEST

/* Once it has said a word there is no other try. */
START_TEST(test_answers)
{
	static const struct {
		const char *answer;
		size_t len;
		int err;
	} cases[] = {
		{"\5\0\5\5\0\1\0\0\0\0\0\0", 12, ECONNREFUSED},
		{"\5\0\5\6\0\1\0\0\0\0\0\0", 12, ETIMEDOUT},
		{"\5\377", 2, ENETDOWN},
		{"HTTP/1.1 400", 12, ENETDOWN},
		{"\5\0\5\0\0\1\313", 7, ENETDOWN},
		{"\5", 1, ENETDOWN},
	};
	int peer, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	refuse(0, 0);
	job_start(&job, run_connect, fd, NULL);
	peer = host_accept();
	take_hello(peer);
	ck_assert_int_eq(send(peer, cases[_i].answer, cases[_i].len, 0),
		(ssize_t)cases[_i].len);
	closefd(&peer);
	expect_errno(job_join(&job), cases[_i].err);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	ck_assert_int_eq(tries, 1);
	closefd(&fd);
}
END_TEST

/* ---- another try ---- */

/* A proxy that closes before it said a word is being restarted, perhaps. */
START_TEST(test_restarted)
{
	int peer, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	job_start(&job, run_connect, fd, NULL);
	peer = host_accept();
	take_hello(peer);
	closefd(&peer);
	serve(&job, &fd);
}
END_TEST

static const int passing[] = {ECONNRESET, EAGAIN};

/* As often as it takes, each time with a fresh socket. */
START_TEST(test_again)
{
	int fd = tcp(AF_INET, SOCK_CLOEXEC);

	refuse(passing[_i], 4);
	connect_and_serve(&fd);
	ck_assert_int_eq(tries, 5);
	for (int i = 0; i < 5; i++) {
		for (int k = 0; k < i; k++)
			ck_assert_uint_ne(cookies[i], cookies[k]);
	}
}
END_TEST

/* A full backlog, as unix sockets have it. */
START_TEST(test_full_backlog)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int filler, full, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	memcpy(addr.sun_path, stage_config()->endpoint.text,
		sizeof(addr.sun_path));
	expect_ok(listen(host, 0));
	filler = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	expect_ok(connect(filler, (struct sockaddr *)&addr, sizeof(addr)));
	full = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	expect_errno(
		connect(full, (struct sockaddr *)&addr, sizeof(addr)), EAGAIN);
	refuse(0, 0);
	job_start(&job, run_connect, fd, NULL);
	while (atomic_load(&tries) < 2)
		poll(NULL, 0, 1);
	closefd(&full);
	full = host_accept(); /* the filler's: now there is room */
	serve(&job, &fd);
	closefd(&full);
	closefd(&filler);
}
END_TEST

/* What looks like a full backlog may be nobody at all: not for long. */
START_TEST(test_resets)
{
	int fd = tcp(AF_INET, SOCK_CLOEXEC);
	int64_t start = now_ms();

	refuse(ECONNRESET, FOREVER);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENETDOWN);
	ck_assert_int_ge(now_ms() - start, 200);
	ck_assert_int_lt(now_ms() - start, 2000);
	ck_assert_int_ge(tries, 4);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
}
END_TEST

START_TEST(test_missing)
{
	int fd = tcp(AF_INET, SOCK_CLOEXEC);

	refuse(ENOENT, FOREVER);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENETDOWN);
	ck_assert_int_eq(tries, 1);
	closefd(&fd);
}
END_TEST

/* ---- what ends it ---- */

static void limit_to(int fd, int ms)
{
	struct timeval tv = {.tv_usec = (long)ms * 1000};

	expect_ok(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)));
}

/* In a pause (@_i 0), or while the host proxy says nothing. */
START_TEST(test_time_limit)
{
	int peer = -1, fd = tcp(AF_INET, SOCK_CLOEXEC);
	int64_t start = now_ms();
	struct job job;

	limit_to(fd, 60);
	refuse(EAGAIN, _i == 0 ? FOREVER : 0);
	job_start(&job, run_connect, fd, NULL);
	if (_i)
		peer = host_accept();
	expect_errno(job_join(&job), EINPROGRESS);
	ck_assert_int_ge(now_ms() - start, 60);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd_if(&peer);
	/* another one starts afresh */
	limit_to(fd, 0);
	refuse(0, 0);
	connect_and_serve(&fd);
}
END_TEST

static void on_signal(int number)
{
}

START_TEST(test_eintr)
{
	struct sigaction act = {.sa_handler = on_signal};
	int peer = -1, fd = tcp(AF_INET, SOCK_CLOEXEC);
	struct job job;

	expect_ok(sigaction(SIGUSR1, &act, NULL));
	refuse(EAGAIN, _i == 0 ? FOREVER : 0);
	job_start(&job, run_connect, fd, NULL);
	if (_i)
		peer = host_accept();
	job_interrupt(&job, SIGUSR1);
	expect_errno(job_join(&job), EINTR);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd_if(&peer);
	refuse(0, 0);
	connect_and_serve(&fd);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_direct");
	TCase *tc = tcase_create("direct");

	suite_add_tcase(s, tc);
	tcase_set_timeout(tc, STAGE_TIMEOUT);
	tcase_add_checked_fixture(tc, open_host, close_host);
	tcase_add_test(tc, test_success);
	tcase_add_loop_test(tc, test_answers, 0, 6);
	tcase_add_test(tc, test_restarted);
	tcase_add_loop_test(tc, test_again, 0, 2);
	tcase_add_test(tc, test_full_backlog);
	tcase_add_test(tc, test_resets);
	tcase_add_test(tc, test_missing);
	tcase_add_loop_test(tc, test_time_limit, 0, 2);
	tcase_add_loop_test(tc, test_eintr, 0, 2);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
