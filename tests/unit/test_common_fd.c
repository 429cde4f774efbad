/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * Each test runs between two counts of /proc/self/fd: whatever a call got
 * handed, nothing may stay open behind it. A pipe is what is passed around, so
 * that fstat() can tell that the right thing arrived.
 */

#define MANY_FDS 12 /* more than fd_recv() has room for */

static int fds_before;
static int pair[2] = {-1, -1};
static int pipefd[2] = {-1, -1};

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

static void setup(void)
{
	fds_before = count_fds();
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(pipe2(pipefd, O_CLOEXEC), 0);
}

static void teardown(void)
{
	closefd_if(&pair[0]);
	closefd_if(&pair[1]);
	closefd_if(&pipefd[0]);
	closefd_if(&pipefd[1]);
	ck_assert_int_eq(count_fds(), fds_before);
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	ck_assert_int_eq(fstat(a, &sa), 0);
	ck_assert_int_eq(fstat(b, &sb), 0);
	return sa.st_ino == sb.st_ino && sa.st_dev == sb.st_dev;
}

/* As a hostile peer would: @nr fds in one message. */
static void send_fds(int sock, int fd, size_t nr)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MANY_FDS * sizeof(int))];
	} control;
	char byte = 'm';
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_SPACE(nr * sizeof(int)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	memset(&control, 0, sizeof(control));
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
	for (size_t i = 0; i < nr; i++)
		memcpy(CMSG_DATA(cmsg) + i * sizeof(fd), &fd, sizeof(fd));
	ck_assert_int_eq(sendmsg(sock, &msg, MSG_NOSIGNAL), 1);
}

/* ---- closing ---- */

START_TEST(close_forgets_and_keeps_errno)
{
	int fd = dup(pipefd[0]), number = fd;

	errno = ENOENT;
	closefd(&fd);
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(fcntl(number, F_GETFD), -1);
	/* even when close(2) fails */
	fd = number;
	errno = ENOENT;
	closefd(&fd);
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_int_eq(fd, -1);
}
END_TEST

START_TEST(close_if_open)
{
	int fd = -1;

	errno = ENOENT;
	closefd_if(&fd);
	ck_assert_int_eq(fd, -1);
	fd = dup(pipefd[0]);
	closefd_if(&fd);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

/* 0 is an fd like any other, to close and to receive. */
START_TEST(fd_zero_is_an_fd)
{
	int saved = fcntl(0, F_DUPFD_CLOEXEC, 3), zero = 0;
	int got, nr;
	char buf[8];

	if (saved == -1) {
		ck_assert_int_eq(errno, EBADF);
		return; /* started without a standard input */
	}
	ck_assert_int_eq(fd_send(pair[0], "m", 1, pipefd[0], 0), 1);
	closefd_if(&zero);
	ck_assert_int_eq(zero, -1);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 1);
	ck_assert_int_eq(nr, 1);
	ck_assert_int_eq(got, 0);
	ck_assert(same_file(got, pipefd[0]));
	closefd(&got);
	ck_assert_int_eq(dup2(saved, 0), 0);
	closefd(&saved);
}
END_TEST

#ifndef NDEBUG
START_TEST(close_of_nothing_is_a_bug)
{
	struct rlimit no_core = {0, 0};
	int fd = -1;

	setrlimit(RLIMIT_CORE, &no_core);
	closefd(&fd);
}
END_TEST
#endif

/* ---- flags ---- */

START_TEST(nonblock_on_and_off)
{
	int before = fcntl(pipefd[0], F_GETFL);

	errno = ENOENT;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fd_set_nonblock(pipefd[0], true), 0);
		ck_assert_int_eq(
			fcntl(pipefd[0], F_GETFL), before | O_NONBLOCK);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fd_set_nonblock(pipefd[0], false), 0);
		ck_assert_int_eq(fcntl(pipefd[0], F_GETFL), before);
	}
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

/* The other flags of the file stay as they were. */
START_TEST(nonblock_keeps_other_flags)
{
	ck_assert_int_eq(fcntl(pipefd[1], F_SETFL, O_APPEND), 0);
	ck_assert_int_eq(fd_set_nonblock(pipefd[1], true), 0);
	ck_assert_int_ne(fcntl(pipefd[1], F_GETFL) & O_APPEND, 0);
	ck_assert_int_eq(fd_set_nonblock(pipefd[1], false), 0);
	ck_assert_int_ne(fcntl(pipefd[1], F_GETFL) & O_APPEND, 0);
}
END_TEST

START_TEST(cloexec_on_and_off)
{
	errno = ENOENT;
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fd_set_cloexec(pipefd[0], false), 0);
		ck_assert_int_eq(fcntl(pipefd[0], F_GETFD), 0);
	}
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(fd_set_cloexec(pipefd[0], true), 0);
		ck_assert_int_eq(fcntl(pipefd[0], F_GETFD), FD_CLOEXEC);
	}
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(flags_of_a_closed_fd)
{
	errno = 0;
	ck_assert_int_eq(fd_set_nonblock(-1, true), -1);
	ck_assert_int_eq(errno, EBADF);
	errno = 0;
	ck_assert_int_eq(fd_set_cloexec(-1, false), -1);
	ck_assert_int_eq(errno, EBADF);
}
END_TEST

/* ---- messages ---- */

START_TEST(message_without_fd)
{
	char buf[8];
	int got = 42, nr = 42;

	errno = ENOENT;
	ck_assert_int_eq(fd_send(pair[0], "hello", 5, -1, 0), 5);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 5);
	ck_assert_mem_eq(buf, "hello", 5);
	ck_assert_int_eq(got, -1);
	ck_assert_int_eq(nr, 0);
	ck_assert_int_eq(errno, ENOENT);
}
END_TEST

START_TEST(message_with_one_fd)
{
	char buf[8];
	int got, nr;

	errno = ENOENT;
	ck_assert_int_eq(fd_send(pair[0], "hello", 5, pipefd[0], 0), 5);
	/* it stays the sender's */
	ck_assert_int_ge(fcntl(pipefd[0], F_GETFD), 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 5);
	ck_assert_int_eq(nr, 1);
	ck_assert_int_ge(got, 0);
	ck_assert_int_ne(got, pipefd[0]);
	ck_assert(same_file(got, pipefd[0]));
	ck_assert_int_eq(fcntl(got, F_GETFD), FD_CLOEXEC);
	ck_assert_int_eq(errno, ENOENT);
	closefd(&got);
}
END_TEST

START_TEST(message_with_stray_fds)
{
	static const size_t many[] = {2, 3, 7, 8, 9, MANY_FDS};
	char buf[8];
	int got, nr, open_now = count_fds();

	for (size_t i = 0; i < sizeof(many) / sizeof(many[0]); i++) {
		send_fds(pair[0], pipefd[0], many[i]);
		errno = ENOENT;
		ck_assert_int_eq(
			fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 1);
		ck_assert_int_eq(errno, ENOENT);
		ck_assert_int_eq(got, -1);
		ck_assert_int_gt(nr, 1);
		if (many[i] <= 8)
			ck_assert_int_eq(nr, (int)many[i]);
		ck_assert_int_eq(count_fds(), open_now);
	}
}
END_TEST

/* Each peek is handed an fd of its own, and the message stays. */
START_TEST(message_peeked)
{
	char buf[8];
	int got, nr, open_now = count_fds();

	fd_send(pair[0], "hello", 5, pipefd[0], 0);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(
			fd_recv(pair[1], buf, sizeof(buf), &got, &nr, MSG_PEEK),
			5);
		ck_assert_int_eq(nr, 1);
		ck_assert(same_file(got, pipefd[0]));
		ck_assert_int_eq(count_fds(), open_now + 1);
		closefd(&got);
	}
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 5);
	ck_assert_int_eq(nr, 1);
	closefd(&got);
}
END_TEST

START_TEST(message_longer_than_the_buffer)
{
	char big[100] = "0123456789", buf[4];
	int got, nr;

	fd_send(pair[0], big, sizeof(big), pipefd[0], 0);
	ck_assert_int_eq(
		fd_recv(pair[1], buf, sizeof(buf), &got, &nr, MSG_TRUNC), 100);
	ck_assert_mem_eq(buf, "0123", 4);
	ck_assert_int_eq(nr, 1);
	closefd(&got);
	fd_send(pair[0], big, sizeof(big), -1, 0);
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 4);
}
END_TEST

START_TEST(receive_fails)
{
	int got = 42, nr = 42;
	char buf[8];

	errno = 0;
	ck_assert_int_eq(
		fd_recv(pair[1], buf, sizeof(buf), &got, &nr, MSG_DONTWAIT),
		-1);
	ck_assert_int_eq(errno, EAGAIN);
	ck_assert_int_eq(got, -1);
	ck_assert_int_eq(nr, 0);
	closefd(&pair[0]);
	got = nr = 42;
	ck_assert_int_eq(fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0), 0);
	ck_assert_int_eq(got, -1);
	ck_assert_int_eq(nr, 0);
	got = nr = 42;
	ck_assert_int_eq(fd_recv(-1, buf, sizeof(buf), &got, &nr, 0), -1);
	ck_assert_int_eq(errno, EBADF);
	ck_assert_int_eq(got, -1);
	ck_assert_int_eq(nr, 0);
}
END_TEST

/* No signal for a peer that is gone, only an error. */
START_TEST(send_to_a_closed_peer)
{
	closefd(&pair[1]);
	errno = 0;
	ck_assert_int_eq(fd_send(pair[0], "m", 1, pipefd[0], 0), -1);
	ck_assert_int_eq(errno, EPIPE);
	ck_assert_int_ge(fcntl(pipefd[0], F_GETFD), 0);
}
END_TEST

START_TEST(send_never_blocks_when_asked)
{
	char buf[1024] = "";
	ssize_t n = 0;

	for (int i = 0; i < 100000 && n != -1; i++)
		n = fd_send(pair[0], buf, sizeof(buf), -1, MSG_DONTWAIT);
	ck_assert_int_eq(n, -1);
	ck_assert_int_eq(errno, EAGAIN);
}
END_TEST

/* Out of fds: the message comes, its fd cannot; nothing is made up. */
START_TEST(receive_without_room_for_fds)
{
	struct rlimit old, none;
	int got = 42, nr = 42;
	char buf[8];
	ssize_t n;

	fd_send(pair[0], "hello", 5, pipefd[0], 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 3; /* below those open: no new one */
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	n = fd_recv(pair[1], buf, sizeof(buf), &got, &nr, 0);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(n, 5);
	ck_assert_int_eq(got, -1);
	ck_assert_int_eq(nr, 0);
}
END_TEST

static TCase *flags_case(void)
{
	TCase *tc = tcase_create("close and flags");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, close_forgets_and_keeps_errno);
	tcase_add_test(tc, close_if_open);
	tcase_add_test(tc, nonblock_on_and_off);
	tcase_add_test(tc, nonblock_keeps_other_flags);
	tcase_add_test(tc, cloexec_on_and_off);
	tcase_add_test(tc, flags_of_a_closed_fd);
	return tc;
}

static TCase *messages_case(void)
{
	TCase *tc = tcase_create("messages");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, fd_zero_is_an_fd);
	tcase_add_test(tc, message_without_fd);
	tcase_add_test(tc, message_with_one_fd);
	tcase_add_test(tc, message_with_stray_fds);
	tcase_add_test(tc, message_peeked);
	tcase_add_test(tc, message_longer_than_the_buffer);
	tcase_add_test(tc, receive_fails);
	tcase_add_test(tc, send_to_a_closed_peer);
	tcase_add_test(tc, send_never_blocks_when_asked);
	tcase_add_test(tc, receive_without_room_for_fds);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("common/fd");
	SRunner *runner = srunner_create(suite);
	int failed;

	suite_add_tcase(suite, flags_case());
	suite_add_tcase(suite, messages_case());
#ifndef NDEBUG
	if (srunner_fork_status(runner) == CK_FORK) {
		TCase *tc = tcase_create("assertions");

		tcase_add_test_raise_signal(
			tc, close_of_nothing_is_a_bug, SIGABRT);
		suite_add_tcase(suite, tc);
	}
#endif
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
