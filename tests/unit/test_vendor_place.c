/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "vendor/place.h"
#include "suite.h"
#include "vendor_stage.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define OTHER_UID 12345

static struct stage stage;
static struct place place;

static void setup(void)
{
	stage_open(&stage);
	/* What is refused is said in the log, which is not looked at here. */
	log_init("test", LOG_ERROR, open("/dev/null", O_WRONLY | O_CLOEXEC));
}

static void teardown(void)
{
	stage_close(&stage);
}

static bool exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

static void expect_ours(void)
{
	struct stat st;

	ck_assert_int_eq(place_take(&place, stage.config.path), PLACE_OURS);
	ck_assert_int_eq(stat(stage.config.path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	ck_assert_int_eq(st.st_mode & 0777, 0666);
	ck_assert(place_is_ours(&place));
}

static void expect_left(void)
{
	place_leave(&place);
	ck_assert_int_eq(place.listener, -1);
	ck_assert_int_eq(place.lock, -1);
	ck_assert(!exists(stage.config.path));
	ck_assert(!exists(place.lock_path));
}

START_TEST(test_take_and_leave)
{
	int before = stage_count_fds(0);

	expect_ours();
	ck_assert_int_eq(stage_count_fds(0), before + 2);
	expect_left();
	ck_assert_int_eq(stage_count_fds(0), before);
}
END_TEST

START_TEST(test_makes_folders)
{
	struct stat st;
	char dir[128];

	snprintf(stage.config.path, sizeof(stage.config.path),
		"%s/a/b/vendor.sock", stage.dir);
	snprintf(dir, sizeof(dir), "%s/a/b", stage.dir);
	umask(022);
	expect_ours();
	ck_assert_int_eq(stat(dir, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0755);
	expect_left();
}
END_TEST

/* Another vendor's socket that outlived it, or a file that is in the way. */
START_TEST(test_leftover)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", stage.config.path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	closefd(&fd);
	expect_ours();
	expect_left();
}
END_TEST

START_TEST(test_taken)
{
	struct place second;
	pid_t pid;

	expect_ours();
	/* In a child: a lock is no obstacle to who holds it. */
	pid = fork();
	if (pid == 0) {
		closefd(&place.listener);
		closefd(&place.lock);
		_exit(place_take(&second, stage.config.path));
	}
	ck_assert_int_eq(WEXITSTATUS(stage_wait_exit(pid)), PLACE_TAKEN);
	ck_assert(place_is_ours(&place));
	expect_left();
}
END_TEST

START_TEST(test_replaced)
{
	char other[128];
	int fd;

	expect_ours();
	snprintf(other, sizeof(other), "%s/other", stage.dir);
	fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	closefd(&fd);
	ck_assert_int_eq(rename(other, stage.config.path), 0);
	ck_assert(!place_is_ours(&place));
	/* What is not ours is not removed. */
	place_leave(&place);
	ck_assert(exists(stage.config.path));
}
END_TEST

/* Many at once: one listens, all others find it. */
START_TEST(test_race)
{
	enum { RACERS = 12 };
	pid_t pids[RACERS];
	int go[2], done[2];
	int ours = 0, taken = 0;
	struct place mine;
	char byte;

	ck_assert_int_eq(pipe2(go, O_CLOEXEC), 0);
	ck_assert_int_eq(pipe2(done, O_CLOEXEC), 0);
	for (int i = 0; i < RACERS; i++) {
		pids[i] = fork();
		if (pids[i] > 0)
			continue;
		closefd(&go[1]);
		closefd(&done[1]);
		(void)!read(go[0], &byte, 1);
		byte = (char)place_take(&mine, stage.config.path);
		/* Who has it keeps it until all the others are through. */
		if (byte == PLACE_OURS)
			(void)!read(done[0], &byte, 1), byte = PLACE_OURS;
		_exit(byte);
	}
	closefd(&go[1]);
	for (int i = 0; i < RACERS - 1; i++) {
		int status;

		ck_assert_int_gt(wait(&status), 0);
		ours += WEXITSTATUS(status) == PLACE_OURS;
		taken += WEXITSTATUS(status) == PLACE_TAKEN;
	}
	closefd(&done[1]);
	ck_assert_int_eq(taken, RACERS - 1);
	ck_assert_int_eq(ours, 0);
	for (int i = 0; i < RACERS; i++) {
		int status;

		if (waitpid(pids[i], &status, 0) == pids[i])
			ck_assert_int_eq(WEXITSTATUS(status), PLACE_OURS);
	}
	closefd(&go[0]);
	closefd(&done[0]);
}
END_TEST

/* One after the other takes it, leaves it, and removes the lock file that the
 * next one may have open. */
START_TEST(test_lock_removed)
{
	enum { RUNNERS = 4, LAPS = 30 };
	pid_t pids[RUNNERS];

	for (int i = 0; i < RUNNERS; i++) {
		pids[i] = fork();
		if (pids[i] > 0)
			continue;
		for (int lap = 0; lap < LAPS; lap++) {
			struct place mine;

			switch (place_take(&mine, stage.config.path)) {
			case PLACE_TAKEN: break;
			case PLACE_WRONG: _exit(1);
			case PLACE_OURS:
				if (!place_is_ours(&mine))
					_exit(2);
				place_leave(&mine);
				break;
			}
		}
		_exit(0);
	}
	for (int i = 0; i < RUNNERS; i++)
		ck_assert_int_eq(WEXITSTATUS(stage_wait_exit(pids[i])), 0);
}
END_TEST

/* ---- folders that are refused ---- */

static void expect_refused(void)
{
	int before = stage_count_fds(0);

	ck_assert_int_eq(place_take(&place, stage.config.path), PLACE_WRONG);
	ck_assert(!exists(stage.config.path));
	ck_assert_int_eq(stage_count_fds(0), before);
}

START_TEST(test_writable_by_others)
{
	static const mode_t modes[] = {0775, 0757, 0777, 01777};

	ck_assert_int_eq(chmod(stage.dir, modes[_i]), 0);
	expect_refused();
}
END_TEST

START_TEST(test_foreign_folder)
{
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chown(stage.dir, OTHER_UID, 0), 0);
	expect_refused();
	ck_assert_int_eq(chown(stage.dir, 0, 0), 0);
}
END_TEST

START_TEST(test_link_to_folder)
{
	char link[128], real[128];

	snprintf(real, sizeof(real), "%s/real", stage.dir);
	snprintf(link, sizeof(link), "%s/link", stage.dir);
	ck_assert_int_eq(mkdir(real, 0755), 0);
	ck_assert_int_eq(symlink(real, link), 0);
	snprintf(stage.config.path, sizeof(stage.config.path),
		"%s/link/vendor.sock", stage.dir);
	expect_refused();
}
END_TEST

START_TEST(test_file_for_folder)
{
	char file[128];
	int fd;

	snprintf(file, sizeof(file), "%s/file", stage.dir);
	fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	closefd(&fd);
	snprintf(stage.config.path, sizeof(stage.config.path),
		"%s/file/vendor.sock", stage.dir);
	expect_refused();
}
END_TEST

START_TEST(test_link_for_lock)
{
	char lock[128], target[128];

	snprintf(lock, sizeof(lock), "%s.lock", stage.config.path);
	snprintf(target, sizeof(target), "%s/target", stage.dir);
	ck_assert_int_eq(symlink(target, lock), 0);
	expect_refused();
	ck_assert(!exists(target));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("vendor_place");
	TCase *tc = tcase_create("place");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_test(tc, test_take_and_leave);
	tcase_add_test(tc, test_makes_folders);
	tcase_add_test(tc, test_leftover);
	tcase_add_test(tc, test_taken);
	tcase_add_test(tc, test_replaced);
	tcase_add_test(tc, test_race);
	tcase_add_test(tc, test_lock_removed);
	tcase_add_loop_test(tc, test_writable_by_others, 0, 4);
	tcase_add_test(tc, test_foreign_folder);
	tcase_add_test(tc, test_link_to_folder);
	tcase_add_test(tc, test_file_for_folder);
	tcase_add_test(tc, test_link_for_lock);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
