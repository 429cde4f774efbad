/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload/real.h"
#include "preload/tag.h"
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
#include <unistd.h>

/*
 * Putting another socket behind an fd: what goes along, and what must not
 * change when it fails. The new socket is one end of a unix pair, so that the
 * test can make it ready from the other.
 */

/* One TCP socket, and what shall take its place. */
struct swap {
	int fd;
	int with;
	int remote;
	uint64_t before;
	struct record rec;
};

static void swap_make(struct swap *s, int flags, enum record_kind kind)
{
	int pair[2];

	memset(s, 0, sizeof(*s));
	s->fd = tcp(AF_INET, flags);
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	s->with = pair[0];
	s->remote = pair[1];
	s->before = socket_cookie(s->fd);
	ck_assert_uint_ne(s->before, 0);
	s->rec.kind = (uint8_t)kind;
	s->rec.family = AF_INET;
}

static int swap_do(struct swap *s)
{
	int rc = replace(s->fd, s->before, &s->with, &s->rec);
	int err = errno;

	ck_assert_int_eq(s->with, -1);
	errno = err;
	return rc;
}

static void swap_drop(struct swap *s)
{
	closefd_if(&s->fd);
	closefd_if(&s->with);
	closefd_if(&s->remote);
}

static void expect_moved(const struct swap *s)
{
	struct found found;

	ck_assert(lookup(s->fd, &found));
	ck_assert_int_eq(found.rec.kind, s->rec.kind);
	ck_assert_uint_ne(found.cookie, s->before);
	say(s->remote, "moved");
	hear(s->fd, "moved");
}

/* The TCP socket is still there. */
static void expect_stayed(const struct swap *s)
{
	struct found found;

	ck_assert_uint_eq(socket_cookie(s->fd), s->before);
	ck_assert_int_eq(kernel_tcp_state(s->fd), TCP_CLOSE);
	ck_assert(!lookup(s->fd, &found));
	ck_assert(!slot_may_be_gate(s->fd));
}

/* ---- flags and options ---- */

START_TEST(test_flags)
{
	struct swap s;
	int flags = (_i & 1 ? SOCK_NONBLOCK : 0) | (_i & 2 ? SOCK_CLOEXEC : 0);

	swap_make(&s, flags, RECORD_CARRIER);
	if (_i & 4) {
		expect_ok(fcntl(s.fd, F_SETOWN, getpid()));
		expect_ok(fcntl(s.fd, F_SETSIG, SIGURG));
		expect_ok(fcntl(s.fd, F_SETFL, fcntl(s.fd, F_GETFL) | O_ASYNC));
	}
	expect_ok(swap_do(&s));
	ck_assert_int_eq(fcntl(s.fd, F_GETFL) & (O_NONBLOCK | O_ASYNC),
		(_i & 1 ? O_NONBLOCK : 0) | (_i & 4 ? O_ASYNC : 0));
	ck_assert_int_eq(fcntl(s.fd, F_GETFD), _i & 2 ? FD_CLOEXEC : 0);
	ck_assert_int_eq(fcntl(s.fd, F_GETOWN), _i & 4 ? getpid() : 0);
	ck_assert_int_eq(fcntl(s.fd, F_GETSIG), _i & 4 ? SIGURG : 0);
	/* what exec() leaves open can be recognised there */
	ck_assert_int_eq(s.rec.tagged, _i & 2 ? 0 : 1);
	ck_assert(tag_read(s.fd, &s.rec) == !(_i & 2));
	s.rec.kind = RECORD_CARRIER;
	expect_moved(&s);
	swap_drop(&s);
}
END_TEST

START_TEST(test_options)
{
	struct timeval limit = {.tv_sec = 7}, got = {0, 0};
	socklen_t len = sizeof(got);
	struct found found;
	struct swap s;
	int on = 1;

	swap_make(&s, SOCK_CLOEXEC, RECORD_CARRIER);
	expect_ok(setsockopt(s.fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	expect_ok(setsockopt(
		s.fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	expect_ok(setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	lookup_options(s.fd, &found);
	memcpy(s.rec.options, found.rec.options, sizeof(s.rec.options));
	expect_ok(swap_do(&s));
	ck_assert_int_eq(int_option(s.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(int_option(s.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	expect_ok(getsockopt(s.fd, SOL_SOCKET, SO_RCVTIMEO, &got, &len));
	ck_assert_int_eq(got.tv_sec, 7);
	/* and back */
	expect_ok(lookup(s.fd, &found) ? replace_with_tcp(s.fd, &found) : -1);
	ck_assert_int_eq(kernel_tcp_state(s.fd), TCP_CLOSE);
	ck_assert_int_eq(int_option(s.fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(int_option(s.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	ck_assert_int_eq(fcntl(s.fd, F_GETFD), FD_CLOEXEC);
	swap_drop(&s);
}
END_TEST

/* ---- failures ---- */

/* Closed by another thread, closed and opened again as something else. */
START_TEST(test_gone)
{
	struct found found;
	struct swap s;
	uint64_t now;
	int number;

	swap_make(&s, SOCK_CLOEXEC, RECORD_GATE);
	number = s.fd;
	closefd(&s.fd);
	if (_i == 1)
		s.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	else if (_i == 2)
		s.fd = tcp(AF_INET, SOCK_CLOEXEC);
	ck_assert(_i == 0 || s.fd == number);
	now = socket_cookie(number);
	s.fd = number;
	expect_errno(swap_do(&s), EBADF);
	ck_assert_uint_eq(socket_cookie(number), now);
	ck_assert(!lookup(number, &found));
	ck_assert(!slot_may_be_gate(number));
	if (_i == 0) {
		expect_errno(fcntl(number, F_GETFD), EBADF);
		s.fd = -1;
	}
	swap_drop(&s);
}
END_TEST

static void limit_fds(rlim_t soft)
{
	struct rlimit limit;

	expect_ok(getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = soft;
	expect_ok(setrlimit(RLIMIT_NOFILE, &limit));
}

/* dup3() will not go where open() could not; all is put back. */
START_TEST(test_beyond_limit)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 77}, got;
	int on = 1, epfd = epoll_create1(EPOLL_CLOEXEC);
	struct swap s;

	swap_make(&s, SOCK_CLOEXEC, RECORD_GATE);
	ck_assert_int_eq(dup3(s.fd, 900, O_CLOEXEC), 900);
	closefd(&s.fd);
	s.fd = 900;
	expect_ok(setsockopt(s.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, s.fd, &event));
	limit_fds(500);
	expect_errno(swap_do(&s), EBADF);
	limit_fds(1000);
	expect_stayed(&s);
	ck_assert_int_eq(int_option(s.fd, IPPROTO_TCP, TCP_NODELAY), 1);
	ck_assert_int_eq(epoll_wait(epfd, &got, 1, 0), 1);
	ck_assert_uint_eq(got.data.u64, 77);
	/* the notes are still there too */
	{
		struct found found;

		ck_assert(lookup_options(s.fd, &found));
		ck_assert_int_eq(found.rec.options[0].name, TCP_NODELAY);
	}
	swap_drop(&s);
	closefd(&epfd);
}
END_TEST

/* No memory for the slot: better no gate than one that nobody knows of. */
START_TEST(test_no_memory)
{
	struct rlimit old, none = {0, 0};
	struct swap s;
	int rc, err;

	swap_make(&s, SOCK_CLOEXEC, RECORD_GATE);
	ck_assert_int_eq(getrlimit(RLIMIT_AS, &old), 0);
	none.rlim_max = old.rlim_max;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &none), 0);
	rc = replace(s.fd, s.before, &s.with, &s.rec);
	err = errno;
	ck_assert_int_eq(setrlimit(RLIMIT_AS, &old), 0);
	ck_assert_int_eq(rc, -1);
	ck_assert_int_eq(err, ENOMEM);
	ck_assert_int_eq(s.with, -1);
	expect_stayed(&s);
	swap_drop(&s);
}
END_TEST

/* ---- epoll ---- */

static int next_event(int epfd, struct epoll_event *event, int timeout_ms)
{
	memset(event, 0, sizeof(*event));
	return epoll_wait(epfd, event, 1, timeout_ms);
}

/* Registered before, it works after. */
START_TEST(test_epoll)
{
	static const uint32_t modes[] = {0, EPOLLET, EPOLLONESHOT,
		EPOLLEXCLUSIVE, EPOLLET | EPOLLEXCLUSIVE,
		EPOLLET | EPOLLONESHOT};
	uint32_t mode = modes[_i];
	struct epoll_event event = {
		.events = EPOLLIN | mode, .data.u64 = 0x1122334455667788};
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct swap s;

	swap_make(&s, SOCK_CLOEXEC, RECORD_CARRIER);
	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, s.fd, &event));
	/* an unconnected TCP socket is hung up: that fires a shot */
	ck_assert_int_eq(next_event(epfd, &event, 0), 1);
	ck_assert_uint_eq(event.events & EPOLLHUP, EPOLLHUP);
	expect_ok(swap_do(&s));
	ck_assert_int_eq(next_event(epfd, &event, 0), 0);
	say(s.remote, "x");
	ck_assert_int_eq(next_event(epfd, &event, 0), 1);
	ck_assert_uint_eq(event.events, EPOLLIN);
	ck_assert_uint_eq(event.data.u64, 0x1122334455667788);
	ck_assert_int_eq(next_event(epfd, &event, 0),
		mode & (EPOLLET | EPOLLONESHOT) ? 0 : 1);
	/* it is the kernel's registration, to be taken out as usual */
	expect_errno(epoll_ctl(epfd, EPOLL_CTL_ADD, s.fd, &event), EEXIST);
	expect_ok(epoll_ctl(epfd, EPOLL_CTL_DEL, s.fd, &event));
	ck_assert_int_eq(next_event(epfd, &event, 0), 0);
	swap_drop(&s);
	closefd(&epfd);
}
END_TEST

/* Somebody else keeps the old socket open; its hang-up is nobody's business
 * any more, and could not be silenced either. */
START_TEST(test_epoll_of_duplicate)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
	int copy, epfd = epoll_create1(EPOLL_CLOEXEC);
	struct swap s;

	swap_make(&s, SOCK_CLOEXEC, RECORD_CARRIER);
	copy = fcntl(s.fd, F_DUPFD_CLOEXEC, 0);
	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, s.fd, &event));
	ck_assert_int_eq(next_event(epfd, &event, 0), 1);
	expect_ok(swap_do(&s));
	ck_assert_int_eq(next_event(epfd, &event, 0), 0);
	say(s.remote, "x");
	ck_assert_int_eq(next_event(epfd, &event, 0), 1);
	ck_assert_uint_eq(event.events, EPOLLIN);
	closefd(&copy);
	swap_drop(&s);
	closefd(&epfd);
}
END_TEST

static atomic_int strays;
static atomic_bool stop;

static void *wait_for_strays(void *arg)
{
	struct epoll_event event;

	while (!atomic_load(&stop)) {
		if (epoll_wait(*(int *)arg, &event, 1, 1) == 1)
			atomic_fetch_add(&strays, 1);
	}
	return NULL;
}

/* The note is of a socket that was closed without a word: nothing tells, and
 * its data is a pointer that the application has freed. */
START_TEST(test_epoll_stale)
{
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	pthread_t waiter;

	pthread_create(&waiter, NULL, wait_for_strays, &epfd);
	for (int i = 0; i < 200; i++) {
		struct epoll_event event = {
			.events = EPOLLIN | EPOLLET, .data.u64 = 666};
		int epoll_fd;
		struct swap s;

		swap_make(&s, SOCK_CLOEXEC, RECORD_CARRIER);
		slot_epoll_note(s.fd, epfd, EPOLL_CTL_ADD, &event);
		expect_ok(swap_do(&s));
		ck_assert(!slot_epoll_at(s.fd, 0, &epoll_fd, &event));
		say(s.remote, "x");
		swap_drop(&s);
	}
	atomic_store(&stop, true);
	pthread_join(waiter, NULL);
	ck_assert_int_eq(atomic_load(&strays), 0);
	closefd(&epfd);
}
END_TEST

/* The epoll instance is gone, or its number is something else now. */
START_TEST(test_epoll_closed)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int number = epfd;
	struct swap s;

	swap_make(&s, SOCK_CLOEXEC, RECORD_CARRIER);
	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, s.fd, &event));
	closefd(&epfd);
	if (_i == 1)
		epfd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	else if (_i == 2)
		epfd = epoll_create1(EPOLL_CLOEXEC);
	ck_assert(_i == 0 || epfd == number);
	expect_ok(swap_do(&s));
	say(s.remote, "x");
	if (_i == 2)
		ck_assert_int_eq(next_event(epfd, &event, 0), 0);
	ck_assert(!slot_epoll_at(s.fd, 0, &number, &event));
	swap_drop(&s);
	closefd_if(&epfd);
}
END_TEST

/* ---- recognising ---- */

START_TEST(test_lookup)
{
	struct found found;
	struct record rec = {.kind = RECORD_LISTENER, .family = AF_INET6};
	int pair[2];

	expect_ok(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	errno = E2BIG;
	ck_assert(!lookup(pair[0], &found));
	ck_assert(!lookup(-1, &found));
	ck_assert(!lookup_options(pair[0], &found));
	ck_assert_uint_eq(found.cookie, socket_cookie(pair[0]));
	ck_assert(!slot_known(pair[0]));
	/* by its tag, and then from memory */
	expect_ok(tag_attach(pair[0], &rec));
	ck_assert(lookup(pair[0], &found));
	ck_assert_int_eq(found.rec.kind, RECORD_LISTENER);
	ck_assert(lookup_options(pair[0], &found));
	/* whoever knows a record with options only does not know ours */
	rec.kind = RECORD_NONE;
	slot_store(pair[1], socket_cookie(pair[1]), &rec);
	ck_assert(!lookup(pair[1], &found));
	ck_assert(lookup_options(pair[1], &found));
	ck_assert_int_eq(errno, E2BIG);
	closefd(&pair[0]);
	closefd(&pair[1]);
}
END_TEST

START_TEST(test_beyond_table)
{
	struct found found;

	/* with a million fds and more, only the socket itself knows */
	ck_assert(slot_known((int)SLOT_FDS));
	ck_assert(slot_may_be_gate((int)SLOT_FDS));
	ck_assert(!slot_known((int)SLOT_FDS - 1));
	ck_assert(!slot_may_be_gate((int)SLOT_FDS - 1));
	ck_assert(!lookup((int)SLOT_FDS, &found));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_lookup");
	TCase *tc = stage_case(s, "lookup");

	tcase_add_loop_test(tc, test_flags, 0, 8);
	tcase_add_test(tc, test_options);
	tcase_add_loop_test(tc, test_gone, 0, 3);
	tcase_add_test(tc, test_beyond_limit);
	tcase_add_test(tc, test_no_memory);
	tcase_add_loop_test(tc, test_epoll, 0, 6);
	tcase_add_test(tc, test_epoll_of_duplicate);
	tcase_add_test(tc, test_epoll_stale);
	tcase_add_loop_test(tc, test_epoll_closed, 0, 3);
	tcase_add_test(tc, test_lookup);
	tcase_add_test(tc, test_beyond_table);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
