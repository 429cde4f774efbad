/* SPDX-License-Identifier: Apache-2.0 */
#include "test_proxy_net.h"

#include "common/socks5.h"
#include "suite.h"

#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/*
 * Theory of operation
 *
 * The program itself: exit status, what it says and where, and what signals
 * do. It is started with its standard error in a file, which is looked at
 * until it says what is waited for.
 */

static char dir[32], sock[64], out_path[64];
static int out_fd = -1;
static pid_t pid;

static void setup(void)
{
	snprintf(dir, sizeof(dir), "/tmp/test-proxy-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(sock, sizeof(sock), "%s/s", dir);
	snprintf(out_path, sizeof(out_path), "%s/out", dir);
	out_fd = open(out_path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
	ck_assert_int_ge(out_fd, 0);
	pid = -1;
}

static void teardown(void)
{
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	close(out_fd);
	unlink(out_path);
	unlink(sock);
	ck_assert_int_eq(rmdir(dir), 0);
}

/* Start the program with these arguments, split at blanks, and @fd as stdout
 * and stderr; -1: with all three closed. */
static void start_with(const char *args, int fd)
{
	static char copy[256];
	static char name[] = "proxy";
	char *argv[16] = {name};
	int argc = 1;
	char *save;

	snprintf(copy, sizeof(copy), "%s", args);
	for (char *word = strtok_r(copy, " ", &save); word;
		word = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, 15);
		argv[argc++] = word;
	}
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (fd == -1)
			close(STDIN_FILENO);
		for (int std = STDOUT_FILENO; std <= STDERR_FILENO; std++)
			if (fd == -1)
				close(std);
			else
				dup2(fd, std);
		execv(PROXY_EXE, argv);
		_exit(99);
	}
}

static void start(const char *args)
{
	start_with(args, out_fd);
}

static const char *output(void)
{
	static char text[16384];
	ssize_t n = pread(out_fd, text, sizeof(text) - 1, 0);

	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	return text;
}

static void wait_said(const char *text)
{
	double end = net_now() + WAIT_SECONDS;

	while (!strstr(output(), text)) {
		ck_assert_msg(
			net_now() < end, "no '%s' in: %s", text, output());
		poll(NULL, 0, 5);
	}
}

/* Return: the exit status, or -1 if it does not end by itself. */
static int exit_status(void)
{
	double end = net_now() + WAIT_SECONDS;
	int status;
	pid_t rc;

	while ((rc = waitpid(pid, &status, WNOHANG)) == 0) {
		ck_assert_msg(net_now() < end, "still running: %s", output());
		poll(NULL, 0, 5);
	}
	ck_assert_int_eq(rc, pid);
	pid = -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void start_listening(const char *drain)
{
	char args[160];

	snprintf(args, sizeof(args), "--listen unix:%s --drain %s --workers 2",
		sock, drain);
	start(args);
	wait_said("listening on unix:");
}

static int dial(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval patience = {(time_t)WAIT_SECONDS, 0};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(un.sun_path, sock, sizeof(sock));
	ck_assert_int_ge(fd, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Connect through the proxy. */
static void open_stream(int *client, int *remote)
{
	struct socks5_addr dst;
	uint8_t buf[32];
	size_t len;
	int listener;

	memset(&dst, 0, sizeof(dst));
	listener = net_listen(AF_INET, 5, &dst.addr);
	len = socks5_write_hello(buf, SOCKS5_CONNECT, &dst);
	*client = dial();
	ck_assert_int_ge(*client, 0);
	ck_assert_int_eq(send(*client, buf, len, 0), (ssize_t)len);
	*remote = accept(listener, NULL, NULL);
	ck_assert_int_ge(*remote, 0);
	close(listener);
	ck_assert_int_eq(recv(*client, buf, 12, MSG_WAITALL), 12);
	ck_assert_int_eq(buf[3], SOCKS5_SUCCEEDED);
}

/* ---- exit status ---- */

START_TEST(help_and_version)
{
	start("--help");
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_ptr_nonnull(strstr(output(), "--listen ENDPOINT"));
	start("-V");
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_ptr_nonnull(strstr(output(), "proxy " PROXIFY_VERSION));
}
END_TEST

START_TEST(bad_command_line)
{
	start("--listen unix:relative");
	ck_assert_int_eq(exit_status(), 2);
	ck_assert_ptr_nonnull(strstr(output(),
		"proxy: bad value 'unix:relative' for --listen: expected an "
		"absolute path\n"));
}
END_TEST

/* One endpoint that cannot be had: nothing is left of the others. */
START_TEST(cannot_listen)
{
	char args[160];
	struct stat st;

	snprintf(args, sizeof(args),
		"--listen unix:%s --listen unix:/nonexistent/s", sock);
	start(args);
	ck_assert_int_eq(exit_status(), 1);
	ck_assert_ptr_nonnull(strstr(output(),
		"cannot listen on unix:/nonexistent/s: No such file or "
		"directory"));
	ck_assert_int_eq(lstat(sock, &st), -1);
}
END_TEST

/* ---- signals ---- */

START_TEST(stops_when_idle)
{
	int idle;
	struct stat st;

	start_listening("60");
	idle = dial();
	close(idle);
	kill(pid, _i ? SIGINT : SIGTERM);
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_int_eq(lstat(sock, &st), -1);
}
END_TEST

START_TEST(drains_then_stops)
{
	int client, remote, late;
	double end = net_now() + WAIT_SECONDS;
	char c;

	start_listening("60");
	open_stream(&client, &remote);
	kill(pid, SIGTERM);
	wait_said("no new connections");
	/* Refused as soon as all workers have let go of the listener. */
	while ((late = dial()) != -1) {
		close(late);
		ck_assert(net_now() < end);
	}
	ck_assert_int_eq(send(client, "x", 1, MSG_NOSIGNAL), 1);
	ck_assert_int_eq(recv(remote, &c, 1, 0), 1);
	ck_assert_int_eq(send(remote, "y", 1, MSG_NOSIGNAL), 1);
	ck_assert_int_eq(recv(client, &c, 1, 0), 1);
	close(client);
	close(remote);
	ck_assert_int_eq(exit_status(), 0);
}
END_TEST

START_TEST(second_signal)
{
	int client, remote;
	char c;

	start_listening("60");
	open_stream(&client, &remote);
	kill(pid, SIGTERM);
	wait_said("no new connections");
	kill(pid, SIGTERM);
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_ptr_nonnull(strstr(output(), "ending all connections"));
	ck_assert_int_eq(recv(remote, &c, 1, 0), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	close(client);
	close(remote);
}
END_TEST

START_TEST(drain_time_is_over)
{
	int client, remote;

	start_listening("0.2");
	open_stream(&client, &remote);
	kill(pid, SIGTERM);
	ck_assert_int_eq(exit_status(), 0);
	ck_assert_ptr_nonnull(strstr(output(), "drain time is over"));
	close(client);
	close(remote);
}
END_TEST

/* A killed server's socket file does not stop the next one. */
START_TEST(after_a_crash)
{
	struct stat st;

	start_listening("1");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ck_assert_int_eq(lstat(sock, &st), 0);
	ck_assert_int_eq(ftruncate(out_fd, 0), 0);
	start_listening("1");
	close(dial());
	kill(pid, SIGTERM);
	ck_assert_int_eq(exit_status(), 0);
}
END_TEST

/* ---- what it is started with ---- */

/* Wait until it accepts; its log is not to be had. Return: a connection. */
static int dial_patiently(void)
{
	double end = net_now() + WAIT_SECONDS;
	int fd;

	while ((fd = dial()) == -1) {
		ck_assert(net_now() < end);
		poll(NULL, 0, 5);
	}
	return fd;
}

/* No socket may get the number that log lines are written to. */
START_TEST(without_standard_streams)
{
	char args[160], path[64], target[PATH_MAX];

	snprintf(args, sizeof(args), "--listen unix:%s --workers 1", sock);
	start_with(args, -1);
	close(dial_patiently());
	for (int fd = 0; fd <= 2; fd++) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
		n = readlink(path, target, sizeof(target) - 1);
		ck_assert_int_gt(n, 0);
		target[n] = '\0';
		ck_assert_str_eq(target, "/dev/null");
	}
	kill(pid, SIGTERM);
	ck_assert_int_eq(exit_status(), 0);
}
END_TEST

/* Nobody reads its log: it serves all the same, and ends when told to. */
START_TEST(nobody_reads_the_log)
{
	char args[160];
	int log[2], client, remote;

	ck_assert_int_eq(pipe2(log, O_CLOEXEC), 0);
	ck_assert_int_ge(fcntl(log[1], F_SETPIPE_SZ, 4096), 0);
	snprintf(args, sizeof(args),
		"--listen unix:%s --workers 2 --log debug --drain 60", sock);
	start_with(args, log[1]);
	close(log[1]);
	close(dial_patiently());
	for (int i = 0; i < 50; i++) {
		open_stream(&client, &remote);
		close(client);
		close(remote);
	}
	kill(pid, SIGTERM);
	ck_assert_int_eq(exit_status(), 0);
	close(log[0]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proxy program");
	TCase *tc = tcase_create("main");

	tcase_set_timeout(tc, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, help_and_version);
	tcase_add_test(tc, bad_command_line);
	tcase_add_test(tc, cannot_listen);
	tcase_add_loop_test(tc, stops_when_idle, 0, 2);
	tcase_add_test(tc, drains_then_stops);
	tcase_add_test(tc, second_signal);
	tcase_add_test(tc, drain_time_is_over);
	tcase_add_test(tc, after_a_crash);
	tcase_add_test(tc, without_standard_streams);
	tcase_add_test(tc, nobody_reads_the_log);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
