/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "proxify/siblings.h"
#include "suite.h"
#include "tempdir.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHER_UID 12345

static char root[TEMPDIR_LEN];
static char path[PATH_MAX];
static char tried[4 * PATH_MAX];

static void setup(void)
{
	tempdir_make(root);
}

static void teardown(void)
{
	tempdir_remove(root);
}

/* Make a file below the root and the folders above it. */
static const char *make(const char *name)
{
	static char file[PATH_MAX];
	int fd;

	snprintf(file, sizeof(file), "%s/%s", root, name);
	for (char *at = file + strlen(root) + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		(void)mkdir(file, 0755);
		*at = '/';
	}
	fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	ck_assert_int_ge(fd, 0);
	closefd(&fd);
	return file;
}

static int find(const char *launcher, enum sibling which)
{
	char self[PATH_MAX];

	snprintf(self, sizeof(self), "%s/%s", root, launcher);
	return sibling_find(self, which, path, tried, sizeof(tried));
}

static void expect_found(
	const char *launcher, enum sibling which, const char *where)
{
	char want[PATH_MAX];

	ck_assert_msg(find(launcher, which) == 0, "tried %s", tried);
	snprintf(want, sizeof(want), "%s/%s", root, where);
	ck_assert_str_eq(path, want);
}

START_TEST(test_beside)
{
	make("x/proxify");
	make("x/libproxy_preload.so");
	make("x/socket_vendor");
	expect_found("x/proxify", SIBLING_LIBRARY, "x/libproxy_preload.so");
	expect_found("x/proxify", SIBLING_VENDOR, "x/socket_vendor");
}
END_TEST

START_TEST(test_build_tree)
{
	make("b/proxify/proxify");
	make("b/preload/libproxy_preload.so");
	make("b/vendor/socket_vendor");
	expect_found("b/proxify/proxify", SIBLING_LIBRARY,
		"b/preload/libproxy_preload.so");
	expect_found(
		"b/proxify/proxify", SIBLING_VENDOR, "b/vendor/socket_vendor");
}
END_TEST

/* A folder beside one's own is looked into in a build tree only. */
START_TEST(test_no_build_tree)
{
	make("b/bin/proxify");
	make("b/preload/libproxy_preload.so");
	ck_assert_int_eq(find("b/bin/proxify", SIBLING_LIBRARY), -1);
}
END_TEST

START_TEST(test_installed)
{
	static const char *const libs[] = {
		"usr/lib/proxify/libproxy_preload.so",
		"usr/lib64/proxify/libproxy_preload.so",
	};

	make("usr/bin/proxify");
	make("usr/bin/socket_vendor");
	make(libs[_i]);
	expect_found("usr/bin/proxify", SIBLING_LIBRARY, libs[_i]);
	expect_found(
		"usr/bin/proxify", SIBLING_VENDOR, "usr/bin/socket_vendor");
}
END_TEST

START_TEST(test_nearest_wins)
{
	make("usr/bin/proxify");
	make("usr/bin/libproxy_preload.so");
	make("usr/lib/proxify/libproxy_preload.so");
	expect_found("usr/bin/proxify", SIBLING_LIBRARY,
		"usr/bin/libproxy_preload.so");
}
END_TEST

START_TEST(test_missing)
{
	char want[PATH_MAX];

	make("x/proxify");
	ck_assert_int_eq(find("x/proxify", SIBLING_LIBRARY), -1);
	snprintf(want, sizeof(want), "%s/x/./libproxy_preload.so", root);
	ck_assert_ptr_nonnull(strstr(tried, want));
	ck_assert_ptr_nonnull(strstr(tried, "lib/proxify"));
	ck_assert_int_eq(find("x/proxify", SIBLING_VENDOR), -1);
	ck_assert_ptr_nonnull(strstr(tried, "socket_vendor"));
}
END_TEST

/* Neither a folder of that name nor a file of somebody else's. */
START_TEST(test_not_trusted)
{
	char dir[PATH_MAX];

	make("x/proxify");
	snprintf(dir, sizeof(dir), "%s/x/socket_vendor", root);
	ck_assert_int_eq(mkdir(dir, 0755), 0);
	ck_assert_int_eq(find("x/proxify", SIBLING_VENDOR), -1);
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chown(make("x/libproxy_preload.so"), OTHER_UID, 0), 0);
	ck_assert_int_eq(find("x/proxify", SIBLING_LIBRARY), -1);
	/* A whole copy of somebody's is his to choose. */
	ck_assert_int_eq(chown(make("x/proxify"), OTHER_UID, 0), 0);
	expect_found("x/proxify", SIBLING_LIBRARY, "x/libproxy_preload.so");
}
END_TEST

/* Paths that are too long are places where it is not. */
START_TEST(test_long)
{
	char self[PATH_MAX];

	memset(self, 'x', sizeof(self));
	self[0] = '/';
	self[sizeof(self) - 1] = '\0';
	ck_assert_int_eq(
		sibling_find(self, SIBLING_LIBRARY, path, tried, sizeof(tried)),
		-1);
	ck_assert_int_eq(find("none", SIBLING_LIBRARY), -1);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("proxify_siblings");
	TCase *tc = tcase_create("siblings");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_beside);
	tcase_add_test(tc, test_build_tree);
	tcase_add_test(tc, test_no_build_tree);
	tcase_add_loop_test(tc, test_installed, 0, 2);
	tcase_add_test(tc, test_nearest_wins);
	tcase_add_test(tc, test_missing);
	tcase_add_test(tc, test_not_trusted);
	tcase_add_test(tc, test_long);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
