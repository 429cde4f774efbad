/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "suite.h"
#include "tempdir.h"
#include "vendor/logfile.h"
#include "vendor_stage.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * The program as it is run: socket_vendor started, detached, supervised and
 * stopped. The test is made the reaper of what detaches, so that it sees how
 * that ends.
 */

static struct stage stage;

static void setup(void)
{
	stage_open(&stage);
	ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
}

/* Run a turn of @check until it holds. */
static void eventually(bool (*check)(void))
{
	const struct timespec pause = {.tv_nsec = 2000000};

	for (int i = 0; i < STAGE_PATIENCE_MS / 2; i++) {
		if (check())
			return;
		nanosleep(&pause, NULL);
	}
	ck_abort_msg("waited too long");
}

static pid_t spawn_vendor(const char *option)
{
	char endpoint[128];
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid > 0)
		return pid;
	snprintf(endpoint, sizeof(endpoint), "unix:%s", stage.host);
	execl(VENDOR_BIN, "socket_vendor", "--path", stage.config.path,
		"--endpoint", endpoint, "--log", "info", option, NULL);
	_exit(99);
}

/* Processes whose parent is @parent. Return: how many, *last one of them */
static int children_of(pid_t parent, pid_t *last)
{
	DIR *dir = opendir("/proc");
	const struct dirent *entry;
	int nr = 0;

	while ((entry = readdir(dir))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && stage_parent(pid) == parent) {
			*last = pid;
			nr++;
		}
	}
	closedir(dir);
	return nr;
}

static pid_t supervisor(void)
{
	pid_t pid = -1;

	ck_assert_int_eq(children_of(getpid(), &pid), 1);
	return pid;
}

static pid_t worker_of(pid_t parent)
{
	pid_t pid = -1;

	return children_of(parent, &pid) == 1 ? pid : -1;
}

static int ping(void)
{
	struct vendor_request req;
	struct vendor_result res;
	struct pollfd pfd;
	int gate = front_connect(&stage);
	int carrier, nr_fds;
	ssize_t n;

	vendor_request_init(&req, VENDOR_PING);
	fd_send(gate, &req, sizeof(req), -1, 0);
	pfd = (struct pollfd){.fd = gate, .events = POLLIN};
	ck_assert_int_eq(poll(&pfd, 1, STAGE_PATIENCE_MS), 1);
	n = fd_recv(gate, &res, sizeof(res), &carrier, &nr_fds, 0);
	closefd(&gate);
	return n == sizeof(res) ? res.status : -1;
}

static void start(void)
{
	pid_t pid = spawn_vendor(NULL);

	ck_assert_int_eq(stage_wait_exit(pid), 0);
	ck_assert_int_eq(ping(), 0);
}

static void stop(void)
{
	pid_t pid = supervisor();
	struct stat st;

	ck_assert_int_eq(kill(pid, SIGTERM), 0);
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	ck_assert_int_eq(children_of(getpid(), &pid), 0);
	ck_assert_int_eq(lstat(stage.config.path, &st), -1);
}

static void teardown(void)
{
	pid_t pid;

	while (children_of(getpid(), &pid) > 0)
		kill(pid, SIGKILL), waitpid(pid, NULL, 0);
	stage_close(&stage);
}

static void log_path(char path[128], const char *suffix)
{
	snprintf(path, 128, "%s/vendor.log%s", stage.dir, suffix);
}

static bool log_has(const char *text)
{
	char path[128], line[1024];
	bool found = false;
	FILE *f;

	log_path(path, "");
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, text) != NULL;
	if (f)
		fclose(f);
	return found;
}

START_TEST(test_start_stop)
{
	start();
	stop();
	ck_assert(log_has("ending"));
	start();
	stop();
}
END_TEST

/* A second start finds the first, says so at debug and is content. */
START_TEST(test_twice)
{
	pid_t first;

	start();
	first = supervisor();
	start();
	ck_assert_int_eq(supervisor(), first);
	stop();
}
END_TEST

START_TEST(test_many_at_once)
{
	enum { STARTS = 16 };
	pid_t pids[STARTS];

	for (int i = 0; i < STARTS; i++)
		pids[i] = spawn_vendor(NULL);
	for (int i = 0; i < STARTS; i++)
		ck_assert_int_eq(stage_wait_exit(pids[i]), 0);
	ck_assert_int_eq(ping(), 0);
	stop();
}
END_TEST

/* What `x=$(proxify cmd)` rests on: nothing of the caller's stays open. */
START_TEST(test_lets_go)
{
	char path[64], cwd[64];
	struct pollfd pfd;
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	int out[2], high;
	pid_t pid;

	ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(out[1], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		dup2(out[1], STDERR_FILENO);
		high = fcntl(out[1], F_DUPFD, 700);
		sigaction(SIGCHLD, &ignore, NULL);
		sigaction(SIGTERM, &ignore, NULL);
		umask(0);
		execl("/proc/self/exe", "self", "spawn", stage.config.path,
			NULL);
		_exit(high);
	}
	closefd(&out[1]);
	pfd = (struct pollfd){.fd = out[0], .events = POLLIN};
	ck_assert_int_eq(poll(&pfd, 1, STAGE_PATIENCE_MS), 1);
	ck_assert_int_eq(pfd.revents, POLLHUP);
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	closefd(&out[0]);
	pid = supervisor();
	snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
	ck_assert_int_eq(readlink(path, cwd, sizeof(cwd)), 1);
	ck_assert_int_eq(getsid(pid), pid);
	stop();
}
END_TEST

/* ---- supervision ---- */

static pid_t old_worker;

static bool has_new_worker(void)
{
	pid_t pid = worker_of(supervisor());

	return pid != -1 && pid != old_worker;
}

START_TEST(test_worker_killed)
{
	start();
	for (int i = 0; i < 4; i++) {
		old_worker = worker_of(supervisor());
		ck_assert_int_eq(kill(old_worker, i ? SIGKILL : SIGUSR1), 0);
		/* The socket is never closed: this waits for the next one. */
		ck_assert_int_eq(ping(), 0);
		eventually(has_new_worker);
	}
	ck_assert(log_has("worker died of signal 10"));
	ck_assert(log_has("worker died of signal 9"));
	stop();
}
END_TEST

static bool worker_is_gone(void)
{
	return kill(old_worker, 0) == -1 && errno == ESRCH;
}

START_TEST(test_supervisor_killed)
{
	pid_t pid;

	start();
	pid = supervisor();
	old_worker = worker_of(pid);
	kill(pid, SIGKILL);
	stage_wait_exit(pid);
	/* It comes to us when its parent dies, and is dead itself. */
	ck_assert_int_eq(WTERMSIG(stage_wait_exit(old_worker)), SIGKILL);
	eventually(worker_is_gone);
	/* The leftovers are no obstacle. */
	start();
	stop();
}
END_TEST

static bool no_children(void)
{
	pid_t pid;

	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return children_of(getpid(), &pid) == 0;
}

/* A folder that was cleaned away leaves a vendor that nobody can reach; it
 * must not stay for ever. */
START_TEST(test_socket_removed)
{
	start();
	ck_assert_int_eq(unlink(stage.config.path), 0);
	eventually(no_children);
}
END_TEST

START_TEST(test_foreground)
{
	pid_t pid = spawn_vendor("--foreground");
	struct stat st;

	while (lstat(stage.config.path, &st) == -1)
		ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
	eventually(has_new_worker);
	ck_assert_int_eq(kill(pid, SIGINT), 0);
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	ck_assert_int_eq(lstat(stage.config.path, &st), -1);
}
END_TEST

/* ---- the log ---- */

static bool worker_logs_anew(void)
{
	char path[64], target[256], log[128];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/2", worker_of(supervisor()));
	n = readlink(path, target, sizeof(target) - 1);
	log_path(log, "");
	return n > 0 && (target[n] = '\0', strcmp(target, log) == 0);
}

START_TEST(test_log_reopened)
{
	char log[128], aside[128];
	struct stat st;

	start();
	log_path(log, "");
	log_path(aside, ".aside");
	ck_assert_int_eq(rename(log, aside), 0);
	ck_assert_int_eq(kill(supervisor(), SIGHUP), 0);
	eventually(worker_logs_anew);
	ck_assert_int_eq(stat(log, &st), 0);
	ck_assert_int_eq(st.st_mode & 0777, 0640);
	ck_assert_int_eq(ping(), 0);
	stop();
}
END_TEST

START_TEST(test_log_bounded)
{
	char log[128], aside[128];
	struct stat st;

	start();
	log_path(log, "");
	log_path(aside, ".1");
	ck_assert_int_eq(truncate(log, LOGFILE_MAX + 1), 0);
	while (stat(aside, &st) == -1)
		(void)poll(NULL, 0, 10); /* at the next tick */
	ck_assert_int_gt(st.st_size, LOGFILE_MAX);
	eventually(worker_logs_anew);
	stop();
}
END_TEST

/* ---- failures are told to the caller ---- */

START_TEST(test_bad_folder)
{
	pid_t pid;

	ck_assert_int_eq(chmod(stage.dir, 0777), 0);
	pid = spawn_vendor(NULL);
	ck_assert_int_eq(WEXITSTATUS(stage_wait_exit(pid)), 1);
}
END_TEST

START_TEST(test_bad_log_file)
{
	pid_t pid = spawn_vendor("--log-file=/nonexistent/log");
	struct stat st;

	ck_assert_int_eq(WEXITSTATUS(stage_wait_exit(pid)), 1);
	ck_assert_int_eq(lstat(stage.config.path, &st), -1);
}
END_TEST

START_TEST(test_bad_option)
{
	pid_t pid = spawn_vendor("--log=loud");

	ck_assert_int_eq(WEXITSTATUS(stage_wait_exit(pid)), 2);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("vendor_start");
	TCase *tc = tcase_create("start");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_start_stop);
	tcase_add_test(tc, test_twice);
	tcase_add_test(tc, test_many_at_once);
	tcase_add_test(tc, test_lets_go);
	tcase_add_test(tc, test_worker_killed);
	tcase_add_test(tc, test_supervisor_killed);
	tcase_add_test(tc, test_socket_removed);
	tcase_add_test(tc, test_foreground);
	tcase_add_test(tc, test_log_reopened);
	tcase_add_test(tc, test_log_bounded);
	tcase_add_test(tc, test_bad_folder);
	tcase_add_test(tc, test_bad_log_file);
	tcase_add_test(tc, test_bad_option);
	suite_add_tcase(s, tc);
	return s;
}

/* The program in between that test_lets_go needs: with fds that are not
 * CLOEXEC it starts the vendor, waits for it and ends. */
static int spawn(const char *path)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execl(VENDOR_BIN, "socket_vendor", "--path", path, NULL);
		_exit(99);
	}
	/* SIGCHLD is ignored: there is no status to be had. */
	return waitpid(pid, &status, 0) == -1 && errno == ECHILD ? 0 : 1;
}

int main(int argc, char **argv)
{
	char root[TEMPDIR_LEN];
	int status;

	if (argc == 3 && strcmp(argv[1], "spawn") == 0)
		return spawn(argv[2]);
	/* A vendor that a failed test left behind ends with its folder. */
	tempdir_make(root);
	setenv("TEMPDIR_ROOT", root, 1);
	status = suite_run(suite());
	tempdir_remove(root);
	return status;
}
