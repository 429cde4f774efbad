/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload_stage.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/*
 * A non-blocking connect(), step by step, with the test as the vendor.
 */

/* What TCP shows for a connect() that failed. */
#define FAILED (POLLIN | POLLOUT | POLLERR | POLLHUP)

/* A pending attempt. Return: the socket, and the vendor's end in *peer. */
static int pending(int family, const char *ip, int *peer)
{
	struct vendor_request req;
	int fd = tcp(family, SOCK_NONBLOCK | SOCK_CLOEXEC);

	expect_errno(tcp_connect(fd, ip, FAR_PORT), EINPROGRESS);
	*peer = vendor_next(&req, VENDOR_CONNECT);
	return fd;
}

static void expect_plain_tcp(int fd)
{
	struct found found;

	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	ck_assert(!lookup(fd, &found));
	expect_errno(getpeername(fd, (struct sockaddr *)&found,
			     &(socklen_t){sizeof(found)}),
		ENOTCONN);
}

/* Both ends of a connection that is settled. */
static void expect_talk(int fd, int remote)
{
	say(fd, "out");
	hear(remote, "out");
	say(remote, "in");
	hear(fd, "in");
}

/* ---- success ---- */

START_TEST(test_request)
{
	struct vendor_request req;
	struct ip_port wanted;
	static const char *const ips[] = {FAR4, FAR6, FAR4_MAPPED};
	const char *ip = ips[_i];
	int peer, fd = tcp(strchr(ip, ':') ? AF_INET6 : AF_INET,
			  SOCK_NONBLOCK | SOCK_CLOEXEC);

	expect_errno(tcp_connect(fd, ip, 65535), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	ip_port_from_sockaddr(&wanted, addr_of(ip, 65535), ADDR_LEN(ip));
	ip_port_unmap(&wanted);
	ck_assert(ip_port_equal(&req.dst, &wanted));
	ck_assert_int_eq(req.source.family, AF_UNSPEC);
	ck_assert_str_eq(req.endpoint, stage_config()->endpoint_text);
	ck_assert_str_eq(req.name, "");
	closefd(&fd);
	vendor_gone(&peer);
}
END_TEST

/* Not writable before the vendor has consumed the request, by any means. */
START_TEST(test_not_before)
{
	struct vendor_request req;
	struct vendor_result res;
	struct epoll_event event = {.events = EPOLLOUT};
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int pair[2], peer, fd = pending(AF_INET, FAR4, &peer);
	fd_set writable;
	struct timeval now = {0, 0};

	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
	ck_assert_int_eq(events(fd, 0), 0);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	FD_ZERO(&writable);
	FD_SET(fd, &writable);
	ck_assert_int_eq(select(fd + 1, NULL, &writable, NULL, &now), 0);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EALREADY);
	/* the result alone does not open it */
	vendor_result_init(&res, VENDOR_CONNECT, 0);
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	vendor_send(peer, &res, pair[0]);
	ck_assert_int_eq(events(fd, 0) & POLLOUT, 0);
	vendor_take(peer, &req, VENDOR_CONNECT);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, STAGE_PATIENCE_MS), 1);
	ck_assert_uint_eq(event.events, EPOLLOUT);
	ck_assert_int_eq(events(fd, 0) & POLLOUT, POLLOUT);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	/* the registration has come along to the carrier */
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 1);
	vendor_gone(&peer);
	closefd(&pair[0]);
	closefd(&fd);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	closefd(&pair[1]);
	closefd(&epfd);
}
END_TEST

/* Each call that may be the first one after it has connected. */
static void learn(int fd, int how)
{
	char byte;

	switch (how) {
	case 0:
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
		break;
	case 1: expect_name(getpeername, fd, FAR4, FAR_PORT); break;
	case 2: expect_name(getsockname, fd, "203.0.113.9", 4000); break;
	case 3: ck_assert_int_eq(send(fd, "", 0, 0), 0); break;
	case 4: expect_errno(recv(fd, &byte, 1, 0), EAGAIN); break;
	default: break;
	}
}

START_TEST(test_success)
{
	int peer, remote, fd = pending(AF_INET, FAR4, &peer);

	remote = vendor_connects(peer);
	await_events(fd, POLLOUT);
	errno = E2BIG;
	learn(fd, _i);
	/* connect() succeeds once, however it was learnt */
	errno = E2BIG;
	expect_ok(tcp_connect(fd, FAR4, FAR_PORT));
	ck_assert_int_eq(errno, E2BIG);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EISCONN);
	expect_errno(tcp_connect(fd, FAR4_OTHER, FAR_PORT), EISCONN);
	expect_name(getpeername, fd, FAR4, FAR_PORT);
	expect_name(getsockname, fd, "203.0.113.9", 4000);
	ck_assert_int_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	vendor_gone(&peer);
	expect_talk(fd, remote);
	/* nobody looks at it as a gate any more */
	ck_assert(!slot_may_be_gate(fd));
	closefd(&remote);
	closefd(&fd);
}
END_TEST

START_TEST(test_names)
{
	static const struct {
		int family;
		const char *ip, *local;
	} cases[] = {{AF_INET, FAR4, "203.0.113.9"},
		{AF_INET6, FAR6, "2001:db8::9"},
		{AF_INET6, FAR4_MAPPED, "::ffff:203.0.113.9"}};
	int family = cases[_i].family;
	int peer, remote, fd = pending(family, cases[_i].ip, &peer);
	struct sockaddr_storage room;
	socklen_t len = sizeof(room);

	expect_errno(getpeername(fd, (struct sockaddr *)&room, &len), ENOTCONN);
	expect_name(getsockname, fd, family == AF_INET6 ? "::" : "0.0.0.0", 0);
	remote = vendor_connects(peer);
	expect_name(getpeername, fd, cases[_i].ip, FAR_PORT);
	expect_name(getsockname, fd, cases[_i].local, 4000);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_DOMAIN), family);
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);
}
END_TEST

/* An AF_INET socket has no IPv6 address, whatever the vendor says. */
START_TEST(test_odd_local)
{
	struct vendor_request req;
	struct vendor_result res;
	int pair[2], peer, fd = pending(AF_INET, FAR4, &peer);

	vendor_result_init(&res, VENDOR_CONNECT, 0);
	ip_port_from_sockaddr(&res.local,
		addr_of(_i ? "::ffff:203.0.113.9" : FAR6, 4000),
		ADDR_LEN(FAR6));
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	vendor_send(peer, &res, pair[0]);
	vendor_take(peer, &req, VENDOR_CONNECT);
	expect_name(
		getsockname, fd, _i ? "203.0.113.9" : "0.0.0.0", _i ? 4000 : 0);
	expect_name(getpeername, fd, FAR4, FAR_PORT);
	vendor_gone(&peer);
	closefd(&pair[0]);
	closefd(&pair[1]);
	closefd(&fd);
}
END_TEST

/* ---- failure ---- */

static void expect_failure(int fd, int err, int how)
{
	char byte = 'x';

	switch (how) {
	case 0:
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), err);
		break;
	case 1: expect_errno(tcp_connect(fd, FAR4, FAR_PORT), err); break;
	case 2: expect_errno(send(fd, "x", 1, MSG_NOSIGNAL), err); break;
	case 3: expect_errno(recv(fd, &byte, 1, 0), err); break;
	default: break;
	}
}

/* Return: a socket whose attempt has failed so; nobody knows yet. */
static int failed(int err)
{
	int peer, fd = pending(AF_INET, FAR4, &peer);

	vendor_fails(&peer, err);
	await_events(fd, POLLHUP);
	return fd;
}

START_TEST(test_failure)
{
	static const int errs[] = {ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH,
		ENETUNREACH, EACCES, 4095};
	struct sockaddr_storage room;
	socklen_t len = sizeof(room);
	int remote, peer, err = errs[_i / 4];
	struct vendor_request req;
	int fd = failed(err);

	ck_assert_int_eq(events(fd, 0) & FAILED, FAILED);
	/* looking at it does not take the error */
	expect_errno(getpeername(fd, (struct sockaddr *)&room, &len), ENOTCONN);
	expect_errno(shutdown(fd, SHUT_RDWR), ENOTCONN);
	expect_failure(fd, err, _i % 4);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_plain_tcp(fd);
	/* the same fd may try again */
	expect_errno(tcp_connect(fd, FAR4_OTHER, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_name(getpeername, fd, FAR4_OTHER, FAR_PORT);
	vendor_gone(&peer);
	expect_talk(fd, remote);
	closefd(&remote);
	closefd(&fd);
}
END_TEST

START_TEST(test_vendor_dies)
{
	int peer, fd = pending(AF_INET, FAR4, &peer);

	closefd(&peer);
	await_events(fd, POLLOUT | POLLHUP);
	expect_failure(fd, ECONNRESET, _i);
	expect_plain_tcp(fd);
	closefd(&fd);
}
END_TEST

/* Closed or given up before the result: the vendor hears of it. */
START_TEST(test_cancel)
{
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};
	int peer, fd = pending(AF_INET, FAR4, &peer);

	if (_i == 0) {
		closefd(&fd);
	} else if (_i == 1) {
		expect_ok(shutdown(fd, SHUT_RDWR));
		expect_plain_tcp(fd);
	} else if (_i == 2) {
		expect_ok(shutdown(fd, SHUT_WR));
		expect_plain_tcp(fd);
	} else {
		expect_ok(connect(fd, &unspec, sizeof(unspec)));
		expect_plain_tcp(fd);
	}
	vendor_gone(&peer);
	closefd_if(&fd);
}
END_TEST

START_TEST(test_bad_shutdown)
{
	int peer, fd = pending(AF_INET, FAR4, &peer);

	expect_errno(shutdown(fd, 3), EINVAL);
	expect_errno(shutdown(fd, -1), EINVAL);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EALREADY);
	closefd(&fd);
	vendor_gone(&peer);
}
END_TEST

/* connect() with AF_UNSPEC on what is connected makes it a fresh socket. */
START_TEST(test_disconnect)
{
	struct sockaddr unspec = {.sa_family = AF_UNSPEC};
	char byte;
	int peer, remote, fd = pending(AF_INET, FAR4, &peer);

	remote = vendor_connects(peer);
	await_events(fd, POLLOUT);
	if (_i)
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_ok(connect(fd, &unspec, sizeof(unspec)));
	expect_plain_tcp(fd);
	closefd(&peer);
	ck_assert_int_eq(recv(remote, &byte, 1, 0), 0);
	closefd(&remote);
	closefd(&fd);
}
END_TEST

/* ---- nonsense from the vendor ---- */

static void send_nonsense(int peer, int what, int pass)
{
	struct vendor_result res;
	char huge[sizeof(res) + 1] = "";
	int two[2] = {pass, pass};
	struct iovec iov = {&res, sizeof(res)};
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(two))];
	} control = {.head = {.cmsg_len = CMSG_LEN(sizeof(two)),
			     .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control)};

	vendor_result_init(&res, VENDOR_CONNECT, 0);
	switch (what) {
	case 0: vendor_send(peer, &res, -1); return; /* no fd */
	case 1: res.magic++; break;
	case 2: res.version++; break;
	case 3: res.size++; break;
	case 4: res.op = 99; break;
	case 5: res.op = VENDOR_ACCEPT; break;
	case 6:
		res.op = VENDOR_PING;
		vendor_send(peer, &res, -1);
		return;
	case 7: res.status = -1; break;
	case 8:
		res.status = 4096;
		vendor_send(peer, &res, -1);
		return;
	case 9: res.status = ECONNREFUSED; break; /* with an fd */
	case 10: res.local.family = AF_UNIX; break;
	case 11:
		ck_assert_int_eq(fd_send(peer, &res, sizeof(res) - 1, pass, 0),
			sizeof(res) - 1);
		return;
	case 12:
		ck_assert_int_eq(fd_send(peer, huge, sizeof(huge), pass, 0),
			sizeof(huge));
		return;
	case 13:
		memcpy(CMSG_DATA(&control.head), two, sizeof(two));
		ck_assert_int_eq(sendmsg(peer, &msg, 0), sizeof(res));
		return;
	default: return;
	}
	vendor_send(peer, &res, pass);
}

#define NR_NONSENSE 14

/* It is a failure, and above all not a connection: what the application
 * writes must not end up with the vendor. */
START_TEST(test_nonsense)
{
	struct vendor_request req;
	int before, pair[2], peer, fd = pending(AF_INET, FAR4, &peer);

	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	send_nonsense(peer, _i / 4, pair[0]);
	vendor_take(peer, &req, VENDOR_CONNECT);
	await_events(fd, POLLOUT);
	before = stage_count_fds();
	expect_failure(fd, EPROTO, _i % 4);
	ck_assert_int_eq(stage_count_fds(), before);
	expect_plain_tcp(fd);
	vendor_gone(&peer);
	closefd(&pair[0]);
	closefd(&pair[1]);
	closefd(&fd);
}
END_TEST

/* ---- out of fds ---- */

static rlim_t limit_fds(rlim_t soft)
{
	struct rlimit limit;
	rlim_t old;

	getrlimit(RLIMIT_NOFILE, &limit);
	old = limit.rlim_cur;
	limit.rlim_cur = soft;
	setrlimit(RLIMIT_NOFILE, &limit);
	return old;
}

/* The carrier has no number to come under: an error, and no data into the
 * gate; the connection is still there when numbers are. */
START_TEST(test_out_of_fds)
{
	int err = 0, got_err, peer, remote, fd = pending(AF_INET, FAR4, &peer);
	socklen_t len = sizeof(err);
	ssize_t sent;
	rlim_t old;

	remote = vendor_connects(peer);
	await_events(fd, POLLOUT);
	old = limit_fds(0);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	sent = send(fd, "lost?", 5, MSG_NOSIGNAL);
	got_err = errno;
	limit_fds(old);
	ck_assert_int_eq(err, EMFILE);
	ck_assert_int_eq(sent, -1);
	ck_assert_int_eq(got_err, EMFILE);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_talk(fd, remote);
	vendor_gone(&peer);
	closefd(&remote);
	closefd(&fd);
}
END_TEST

/* And nothing begins without them. */
START_TEST(test_no_fd_for_gate)
{
	int rc, err, fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	rlim_t old = limit_fds(0);

	rc = tcp_connect(fd, FAR4, FAR_PORT);
	err = errno;
	limit_fds(old);
	ck_assert_int_eq(rc, -1);
	ck_assert_int_eq(err, EMFILE);
	expect_plain_tcp(fd);
	ck_assert(vendor_nobody());
	closefd(&fd);
}
END_TEST

/* ---- epoll ---- */

/* Registered before connect(), in every mode; failing and succeeding. */
START_TEST(test_epoll_before)
{
	static const uint32_t modes[] = {
		0, EPOLLET, EPOLLONESHOT, EPOLLEXCLUSIVE};
	struct epoll_event event = {
		.events = EPOLLOUT | modes[_i / 2], .data.u64 = 42};
	struct vendor_request req;
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int peer, remote = -1, fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);

	expect_ok(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 1); /* hung up */
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	if (_i % 2)
		vendor_fails(&peer, ECONNREFUSED);
	else
		remote = vendor_connects(peer);
	memset(&event, 0, sizeof(event));
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, STAGE_PATIENCE_MS), 1);
	ck_assert_uint_eq(event.data.u64, 42);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR),
		_i % 2 ? ECONNREFUSED : 0);
	if (_i % 2 == 0) {
		vendor_gone(&peer);
		event.events = EPOLLIN;
		if (modes[_i / 2] == EPOLLEXCLUSIVE)
			expect_errno(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event),
				EINVAL);
		else
			expect_ok(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event));
		expect_talk(fd, remote);
		closefd(&remote);
	}
	closefd(&fd);
	ck_assert_int_eq(epoll_wait(epfd, &event, 1, 0), 0);
	closefd(&epfd);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_gate");
	TCase *tc = stage_case(s, "gate");

	tcase_add_loop_test(tc, test_request, 0, 3);
	tcase_add_test(tc, test_not_before);
	tcase_add_loop_test(tc, test_success, 0, 6);
	tcase_add_loop_test(tc, test_names, 0, 3);
	tcase_add_loop_test(tc, test_odd_local, 0, 2);
	tcase_add_loop_test(tc, test_failure, 0, 6 * 4);
	tcase_add_loop_test(tc, test_vendor_dies, 0, 4);
	tcase_add_loop_test(tc, test_cancel, 0, 4);
	tcase_add_test(tc, test_bad_shutdown);
	tcase_add_loop_test(tc, test_disconnect, 0, 2);
	tcase_add_loop_test(tc, test_nonsense, 0, 4 * NR_NONSENSE);
	tcase_add_test(tc, test_out_of_fds);
	tcase_add_test(tc, test_no_fd_for_gate);
	tcase_add_loop_test(tc, test_epoll_before, 0, 8);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
