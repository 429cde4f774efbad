/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "proxify/vendor_client.h"
#include "suite.h"
#include "tempdir.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* The launcher's questions, asked of a vendor that answers what it is told. */

#define OTHER_UID 12345

static char dir[TEMPDIR_LEN];
static char path[108];
static struct vendor_address vendor = {.path = path};
static pid_t server;

static void setup(void)
{
	tempdir_make(dir);
	ck_assert_int_eq(chmod(dir, 0777), 0);
	snprintf(path, sizeof(path), "%s/vendor.sock", dir);
}

static void teardown(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	tempdir_remove(dir);
}

enum manner {
	SERVES,
	REFUSES,  /* with a result, before it read anything */
	FAILS,    /* ECONNREFUSED, the request unread */
	HANGS_UP, /* without a result */
	TALKS_NONSENSE,
	PASSES_FD,
};

static void answer(int fd, enum manner manner)
{
	struct vendor_request req;
	struct vendor_result res;

	vendor_result_init(&res, VENDOR_CONNECT, EACCES);
	if (manner != REFUSES) {
		if (recv(fd, &req, sizeof(req), MSG_PEEK) != sizeof(req))
			return; /* it did not like whose we are */
		ck_assert_ptr_null(vendor_request_check(&req, sizeof(req)));
		vendor_result_init(
			&res, req.op, manner == FAILS ? ECONNREFUSED : 0);
	}
	if (manner == HANGS_UP)
		return;
	if (manner == TALKS_NONSENSE)
		res.magic = 0;
	fd_send(fd, &res, sizeof(res), manner == PASSES_FD ? STDERR_FILENO : -1,
		0);
	if (manner == SERVES)
		(void)recv(fd, &req, sizeof(req), 0);
}

static void serve(enum manner manner, uid_t uid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int ready[2];
	char byte;
	int s;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
	server = fork();
	ck_assert_int_ge(server, 0);
	if (server > 0) {
		closefd(&ready[1]);
		ck_assert_int_eq(read(ready[0], &byte, 1), 1);
		closefd(&ready[0]);
		return;
	}
	if (uid && setuid(uid) == -1)
		_exit(1);
	s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (bind(s, (struct sockaddr *)&addr, sizeof(addr)) == -1 ||
		chmod(path, 0666) == -1 || listen(s, 8) == -1 ||
		write(ready[1], "", 1) != 1)
		_exit(1);
	for (;;) {
		int fd = accept4(s, NULL, NULL, SOCK_CLOEXEC);

		answer(fd, manner);
		closefd(&fd);
	}
}

static int ask(enum vendor_op op)
{
	int ret = vendor_ask(&vendor, op, "unix:/x", 10, NULL);

	return ret == -1 ? -errno : ret;
}

START_TEST(test_served)
{
	serve(SERVES, 0);
	ck_assert_int_eq(ask(VENDOR_PING), 0);
	ck_assert_int_eq(ask(VENDOR_PROBE), 0);
}
END_TEST

START_TEST(test_failed)
{
	serve(FAILS, 0);
	ck_assert_int_eq(ask(VENDOR_PROBE), ECONNREFUSED);
}
END_TEST

START_TEST(test_refused)
{
	serve(REFUSES, 0);
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(ask(VENDOR_PING), -EACCES);
}
END_TEST

START_TEST(test_nonsense)
{
	static const enum manner manners[] = {
		HANGS_UP, TALKS_NONSENSE, PASSES_FD};
	int ret;

	serve(manners[_i], 0);
	ret = ask(VENDOR_PING);
	ck_assert_msg(ret == -EPROTO || ret == -ECONNRESET, "%d", ret);
}
END_TEST

START_TEST(test_nobody)
{
	ck_assert_int_eq(ask(VENDOR_PING), -ENOENT);
	serve(SERVES, 0);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	server = 0;
	ck_assert_int_eq(ask(VENDOR_PING), -ECONNREFUSED);
}
END_TEST

/* Whoever was first in a folder for all could otherwise have every connection
 * of a user whose default path is known. */
START_TEST(test_foreign_vendor)
{
	if (geteuid() != 0)
		return;
	serve(SERVES, OTHER_UID);
	ck_assert_int_eq(ask(VENDOR_PING), -EPERM);
	vendor.anyone = true;
	ck_assert_int_eq(ask(VENDOR_PING), 0);
}
END_TEST

/* ---- starting it ---- */

static int start(const char *program)
{
	char *argv[] = {(char *)(uintptr_t)program, NULL};

	errno = 0;
	return vendor_start(argv) == 0 ? 0 : -errno;
}

START_TEST(test_start)
{
	ck_assert_int_eq(start("/bin/true"), 0);
	ck_assert_int_eq(start("/bin/false"), -ECHILD);
	ck_assert_int_eq(start("/no/such/program"), -ECHILD);
	/* Our caller may not want to hear of children; we may not either. */
	signal(SIGCHLD, SIG_IGN);
	ck_assert_int_eq(start("/bin/true"), 0);
	ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
	ck_assert_int_eq(errno, ECHILD);
	signal(SIGCHLD, SIG_DFL);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("proxify_vendor");
	TCase *tc = tcase_create("vendor");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_served);
	tcase_add_test(tc, test_failed);
	tcase_add_test(tc, test_refused);
	tcase_add_loop_test(tc, test_nonsense, 0, 3);
	tcase_add_test(tc, test_nobody);
	tcase_add_test(tc, test_foreign_vendor);
	tcase_add_test(tc, test_start);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
