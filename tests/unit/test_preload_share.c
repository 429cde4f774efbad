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
#include <sys/wait.h>
#include <unistd.h>

/*
 * One socket in several hands: duplicates, processes and threads. On TCP all of
 * them see one and the same connection; a gate is many, and must look alike.
 */

static int pending(int *peer)
{
	struct vendor_request req;
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);

	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	*peer = vendor_next(&req, VENDOR_CONNECT);
	return fd;
}

/* By one call and then by data. */
static void expect_connected(int fd, int remote)
{
	await_events(fd, POLLOUT);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	expect_name(getpeername, fd, FAR4, FAR_PORT);
	expect_name(getsockname, fd, "203.0.113.9", 4000);
	say(fd, "out");
	hear(remote, "out");
	say(remote, "in");
	hear(fd, "in");
}

static int make_copy(int fd, int way)
{
	switch (way) {
	case 0: return dup(fd);
	case 1: return dup2(fd, 300);
	case 2: return dup3(fd, 301, O_CLOEXEC);
	case 3: return fcntl(fd, F_DUPFD, 302);
	default: return fcntl(fd, F_DUPFD_CLOEXEC, 303);
	}
}

/* ---- duplicates ---- */

START_TEST(test_dup_before)
{
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int copy = make_copy(fd, _i % 5);
	struct vendor_request req;
	int peer, remote;

	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	ck_assert(vendor_nobody());
	expect_errno(tcp_connect(copy, FAR4, FAR_PORT), EALREADY);
	ck_assert_int_eq(events(copy, 0), 0);
	if (_i / 5 == 0) {
		remote = vendor_connects(peer);
		expect_connected(copy, remote);
		expect_connected(fd, remote);
		vendor_gone(&peer);
		closefd(&fd);
		expect_connected(copy, remote);
		closefd(&remote);
	} else {
		vendor_fails(&peer, ECONNREFUSED);
		await_events(copy, POLLHUP);
		ck_assert_int_eq(
			int_option(copy, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
		ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
		ck_assert_uint_eq(socket_cookie(fd), socket_cookie(copy));
		closefd(&fd);
	}
	closefd(&copy);
	ck_assert(vendor_nobody());
}
END_TEST

/* The copy is gone, and its number somebody else's. */
START_TEST(test_dup_closed)
{
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int null, peer, remote, copy = dup(fd), number = copy;
	struct vendor_request req;

	closefd(&copy);
	if (_i) {
		null = open("/dev/null", O_RDONLY | O_CLOEXEC);
		ck_assert_int_eq(null, number);
	}
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	remote = vendor_connects(peer);
	expect_connected(fd, remote);
	vendor_gone(&peer);
	if (_i) {
		char byte;

		ck_assert_int_eq(read(null, &byte, 1), 0);
		closefd(&null);
	} else {
		expect_errno(fcntl(number, F_GETFD), EBADF);
	}
	closefd(&remote);
	closefd(&fd);
}
END_TEST

START_TEST(test_dup_pending)
{
	int peer, remote, fd = pending(&peer), copy = make_copy(fd, _i % 5);

	remote = vendor_connects(peer);
	if (_i / 5)
		expect_connected(fd, remote);
	expect_connected(copy, remote);
	expect_connected(fd, remote);
	vendor_gone(&peer);
	closefd(&fd);
	expect_connected(copy, remote);
	closefd(&copy);
	closefd(&remote);
}
END_TEST

/* ---- processes ---- */

static pid_t child_of(void)
{
	pid_t pid = fork();

	ck_assert_int_ne(pid, -1);
	return pid;
}

/* What expect_connected() does, without a runner. Return: exit status. */
static int is_connected(int fd, int remote)
{
	struct pollfd pfd = {.fd = fd, .events = POLLOUT};
	char buf[5] = "";

	if (poll(&pfd, 1, STAGE_PATIENCE_MS) != 1 ||
		int_option(fd, SOL_SOCKET, SO_ERROR) != 0)
		return 1;
	if (send(fd, "child", 5, MSG_NOSIGNAL) != 5)
		return 2;
	return recv(remote, buf, 5, MSG_WAITALL) == 5 &&
			       memcmp(buf, "child", 5) == 0
		       ? 0
		       : 3;
}

/* The child first, or the parent, or the child with the parent gone. */
START_TEST(test_fork)
{
	int peer, remote, fd = pending(&peer);
	pid_t pid;

	remote = vendor_connects(peer);
	pid = child_of();
	if (pid == 0)
		_exit(is_connected(fd, remote));
	if (_i == 0)
		ck_assert_int_eq(stage_wait_exit(pid), 0);
	if (_i == 2) {
		closefd(&fd);
	} else {
		await_events(fd, POLLOUT);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
		expect_name(getpeername, fd, FAR4, FAR_PORT);
	}
	if (_i)
		ck_assert_int_eq(stage_wait_exit(pid), 0);
	if (_i != 2)
		expect_connected(fd, remote);
	vendor_gone(&peer);
	closefd_if(&fd);
	closefd(&remote);
}
END_TEST

/* Forked while it was pending; the result comes later, and both want it. */
START_TEST(test_fork_waiting)
{
	int peer, remote = -1, fd = pending(&peer);
	pid_t pid = child_of();

	if (pid == 0) {
		struct pollfd pfd = {.fd = fd, .events = POLLOUT};

		close(peer);
		poll(&pfd, 1, STAGE_PATIENCE_MS);
		_exit(int_option(fd, SOL_SOCKET, SO_ERROR));
	}
	if (_i)
		vendor_fails(&peer, ECONNREFUSED);
	else
		remote = vendor_connects(peer);
	ck_assert_int_eq(stage_wait_exit(pid), _i ? ECONNREFUSED : 0);
	if (_i) {
		await_events(fd, POLLHUP);
		ck_assert_int_eq(
			int_option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
	} else {
		expect_connected(fd, remote);
		vendor_gone(&peer);
		closefd(&remote);
	}
	closefd(&fd);
}
END_TEST

/* The child gives up: on TCP that is the parent's connection as well. */
START_TEST(test_fork_given_up)
{
	int peer, fd = pending(&peer);
	pid_t pid = child_of();

	if (pid == 0)
		_exit(shutdown(fd, SHUT_RDWR));
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	await_events(fd, POLLHUP);
	ck_assert_int_ne(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	vendor_gone(&peer);
	closefd(&fd);
}
END_TEST

START_TEST(play)
{
	int fd = stage_int(0);

	expect_name(getpeername, fd, FAR4, FAR_PORT);
	expect_name(getsockname, fd, "203.0.113.9", 4000);
	ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
	say(fd, "exec");
}
END_TEST

/* A vfork() child has our memory and its own fds: what it makes of its copy of
 * a gate must not change what we know of ours. */
START_TEST(test_vfork)
{
	int peer, remote, fd = pending(&peer);
	pid_t pid;

	remote = vendor_connects(peer);
	await_events(fd, POLLOUT);
	if (_i == 2) /* the parent is first */
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
	pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
	if (pid == 0) {
		if (dup2(fd, 333) != 333) /* NOLINT */
			_exit(126);
		close(fd); /* NOLINT(clang-analyzer-unix.Vfork) */
		if (_i == 1)
			_exit(0);
		execl(stage_program(), "play", "--play", "333", (char *)NULL);
		_exit(127);
	}
	ck_assert_int_ne(pid, -1);
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	if (_i != 1)
		hear(remote, "exec");
	expect_connected(fd, remote);
	vendor_gone(&peer);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* The child has a copy of a pending gate, and is soon gone. */
START_TEST(test_vfork_pending)
{
	int peer, remote, fd = pending(&peer);
	pid_t pid =
		vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork)
			  */

	if (pid == 0) {
		dup2(fd, 333); /* NOLINT(clang-analyzer-unix.Vfork) */
		close(fd);     /* NOLINT(clang-analyzer-unix.Vfork) */
		_exit(0);
	}
	ck_assert_int_ne(pid, -1);
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EALREADY);
	expect_errno(send(fd, "x", 1, 0), EAGAIN);
	remote = vendor_connects(peer);
	expect_connected(fd, remote);
	vendor_gone(&peer);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* Passed in a message: a gate that has its result is a carrier by then. */
START_TEST(test_passed)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)),
			     .cmsg_level = SOL_SOCKET,
			     .cmsg_type = SCM_RIGHTS}};
	char byte = 'b';
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control)};
	int got, nr_fds, pair[2], peer, remote, fd = pending(&peer);

	remote = vendor_connects(peer);
	await_events(fd, POLLOUT);
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
	if (_i) {
		struct mmsghdr vec = {.msg_hdr = msg};

		ck_assert_int_eq(sendmmsg(pair[0], &vec, 1, 0), 1);
	} else {
		ck_assert_int_eq(sendmsg(pair[0], &msg, 0), 1);
	}
	closefd(&fd);
	vendor_gone(&peer);
	ck_assert_int_eq(fd_recv(pair[1], &byte, 1, &got, &nr_fds, 0), 1);
	ck_assert_int_ge(got, 0);
	slot_forget(got);
	expect_connected(got, remote);
	closefd(&got);
	closefd(&pair[0]);
	closefd(&pair[1]);
	closefd(&remote);
}
END_TEST

/* ---- threads ---- */

static long run_send(struct job *job)
{
	return send(job->fd, "s", 1, MSG_NOSIGNAL);
}

static long run_recv(struct job *job)
{
	char byte;

	return recv(job->fd, &byte, 1, 0);
}

static long run_connect(struct job *job)
{
	return tcp_connect(job->fd, FAR4, FAR_PORT);
}

static long (*const waiters[])(struct job *job) = {
	run_send, run_recv, run_send, run_recv, run_connect};
#define WAITERS (int)(sizeof(waiters) / sizeof(*waiters))

/* A reader, a writer and more, all waiting in a gate: all go on. */
START_TEST(test_waiters)
{
	struct job jobs[WAITERS];
	int peer, remote, fd = pending(&peer);

	expect_ok(fcntl(fd, F_SETFL, 0));
	for (int i = 0; i < WAITERS; i++)
		job_start(&jobs[i], waiters[i], fd, NULL);
	for (int i = 0; i < WAITERS; i++)
		job_await_sleep(&jobs[i]);
	remote = vendor_connects(peer);
	say(remote, "rr");
	for (int i = 0; i < WAITERS; i++) {
		long rc = job_join(&jobs[i]);

		ck_assert_msg(rc == (waiters[i] == run_connect ? 0 : 1),
			"waiter %d: %ld %s", i, rc, strerror(errno));
	}
	hear(remote, "ss");
	vendor_gone(&peer);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

/* The same where it fails: TCP gives the error to one, and the rest find a
 * socket that is not connected. */
START_TEST(test_waiters_fail)
{
	struct job jobs[WAITERS];
	int refused = 0, peer, fd = pending(&peer);

	signal(SIGPIPE, SIG_IGN);
	expect_ok(fcntl(fd, F_SETFL, 0));
	for (int i = 0; i < WAITERS - 1; i++)
		job_start(&jobs[i], waiters[i], fd, NULL);
	for (int i = 0; i < WAITERS - 1; i++)
		job_await_sleep(&jobs[i]);
	vendor_fails(&peer, ECONNREFUSED);
	for (int i = 0; i < WAITERS - 1; i++) {
		ck_assert_int_eq(job_join(&jobs[i]), -1);
		refused += jobs[i].err == ECONNREFUSED;
		ck_assert_msg(jobs[i].err == ECONNREFUSED ||
				      jobs[i].err == EPIPE ||
				      jobs[i].err == ENOTCONN,
			"waiter %d: %s", i, strerror(jobs[i].err));
	}
	ck_assert_int_ge(refused, 1);
	ck_assert_int_eq(kernel_tcp_state(fd), TCP_CLOSE);
	closefd(&fd);
}
END_TEST

static atomic_bool go;

static long run_send_soon(struct job *job)
{
	while (!atomic_load(&go))
		;
	return send(job->fd, "s", 1, MSG_NOSIGNAL);
}

static long run_so_error_soon(struct job *job)
{
	while (!atomic_load(&go))
		;
	return int_option(job->fd, SOL_SOCKET, SO_ERROR);
}

static long run_set_option_soon(struct job *job)
{
	int on = 1;

	while (!atomic_load(&go))
		;
	return setsockopt(job->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* One thread takes the result while others write and set options: nothing
 * goes to the vendor, and the connection is known afterwards. */
START_TEST(test_settling_race)
{
	for (int round = 0; round < 150; round++) {
		struct job jobs[3];
		int peer, remote, fd = pending(&peer);

		atomic_store(&go, false);
		remote = vendor_connects(peer);
		await_events(fd, POLLOUT);
		job_start(&jobs[0], run_so_error_soon, fd, NULL);
		job_start(&jobs[1], run_send_soon, fd, NULL);
		job_start(&jobs[2], run_set_option_soon, fd, NULL);
		atomic_store(&go, true);
		ck_assert_int_eq(job_join(&jobs[0]), 0);
		ck_assert_int_eq(job_join(&jobs[1]), 1);
		ck_assert_int_eq(job_join(&jobs[2]), 0);
		hear(remote, "s");
		vendor_gone(&peer);
		expect_name(getpeername, fd, FAR4, FAR_PORT);
		expect_name(getsockname, fd, "203.0.113.9", 4000);
		closefd(&fd);
		closefd(&remote);
	}
}
END_TEST

/* Options set while another thread connects: the gate stays known. */
START_TEST(test_connecting_race)
{
	for (int round = 0; round < 150; round++) {
		int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
		struct job jobs[2];
		struct vendor_request req;
		int peer, remote;

		atomic_store(&go, false);
		job_start(&jobs[0], run_set_option_soon, fd, NULL);
		job_start(&jobs[1], run_so_error_soon, fd, NULL);
		atomic_store(&go, true);
		expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINPROGRESS);
		ck_assert_int_eq(job_join(&jobs[0]), 0);
		ck_assert_int_eq(job_join(&jobs[1]), 0);
		peer = vendor_next(&req, VENDOR_CONNECT);
		expect_errno(send(fd, "x", 1, 0), EAGAIN);
		remote = vendor_connects(peer);
		await_events(fd, POLLOUT);
		ck_assert_int_eq(int_option(fd, SOL_SOCKET, SO_ERROR), 0);
		say(fd, "s");
		hear(remote, "s");
		vendor_gone(&peer);
		closefd(&fd);
		closefd(&remote);
	}
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_share");
	TCase *tc = stage_case(s, "duplicates");

	tcase_add_loop_test(tc, test_dup_before, 0, 10);
	tcase_add_loop_test(tc, test_dup_closed, 0, 2);
	tcase_add_loop_test(tc, test_dup_pending, 0, 10);
	tc = stage_case(s, "processes");
	tcase_add_loop_test(tc, test_fork, 0, 3);
	tcase_add_loop_test(tc, test_fork_waiting, 0, 2);
	tcase_add_test(tc, test_fork_given_up);
	tcase_add_loop_test(tc, test_vfork, 0, 3);
	tcase_add_test(tc, test_vfork_pending);
	tcase_add_loop_test(tc, test_passed, 0, 2);
	tc = stage_case(s, "threads");
	tcase_add_test(tc, test_waiters);
	tcase_add_test(tc, test_waiters_fail);
	tcase_add_test(tc, test_settling_race);
	tcase_add_test(tc, test_connecting_race);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, play);
}
