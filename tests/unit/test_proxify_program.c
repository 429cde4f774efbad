/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "proxify/program.h"
#include "suite.h"
#include "tempdir.h"

#include <check.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/*
 * Programs are copies of /bin/true in a folder of the test, or of the test
 * itself with what matters in their headers changed.
 */

#define OTHER_UID 12345

static char dir[TEMPDIR_LEN];
static char why[2 * PATH_MAX];

static void setup(void)
{
	tempdir_make(dir);
	ck_assert_int_eq(chdir(dir), 0);
	setenv("PATH", "/usr/bin:/bin", 1);
}

static void teardown(void)
{
	ck_assert_int_eq(chdir("/"), 0);
	tempdir_remove(dir);
}

static void write_file(const char *name, const void *bytes, size_t len)
{
	int fd = open(name, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0755);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	ck_assert_int_eq(fchmod(fd, 0755), 0);
	closefd(&fd);
}

__attribute__((format(printf, 2, 3))) static void script(
	const char *name, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	write_file(name, text, strlen(text));
}

/* A program to be covered, then changed by the test. */
static char image[1 << 20];
static size_t image_len;

static void load_true(void)
{
	int fd = open("/bin/true", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	ck_assert_int_ge(fd, 0);
	n = read(fd, image, sizeof(image));
	ck_assert_int_gt(n, 0);
	image_len = (size_t)n;
	closefd(&fd);
}

static Elf64_Phdr *segment(uint32_t type)
{
	Elf64_Ehdr *head = (Elf64_Ehdr *)(void *)image;
	Elf64_Phdr *at = (Elf64_Phdr *)(void *)(image + head->e_phoff);

	for (int i = 0; i < head->e_phnum; i++) {
		if (at[i].p_type == type)
			return &at[i];
	}
	ck_abort_msg("no such segment");
	return NULL;
}

static void make_static(const char *name)
{
	load_true();
	segment(PT_INTERP)->p_type = PT_NULL;
	write_file(name, image, image_len);
}

static void expect_covered(const char *path)
{
	ck_assert_msg(program_refusal(path, why, sizeof(why)) == 0, "%s", why);
}

static void expect_refused(const char *path, const char *reason)
{
	ck_assert_int_eq(program_refusal(path, why, sizeof(why)), -1);
	ck_assert_msg(strstr(why, reason) != NULL, "said '%s', not '%s'", why,
		reason);
}

/* ---- finding it ---- */

static void expect_found(const char *name, const char *want)
{
	char path[PATH_MAX];

	ck_assert_msg(program_find(name, path) == 0, "%s", strerror(errno));
	ck_assert_str_eq(path, want);
}

static void expect_not_found(const char *name, int err)
{
	char path[PATH_MAX];

	ck_assert_int_eq(program_find(name, path), -1);
	ck_assert_int_eq(errno, err);
}

START_TEST(test_find)
{
	expect_found("sh", "/usr/bin/sh");
	expect_found("/bin/sh", "/bin/sh");
	expect_not_found("no-such-program", ENOENT);
	expect_not_found("./no-such-program", ENOENT);
	expect_not_found("", ENOENT);
	expect_not_found("/", EACCES);
	unsetenv("PATH");
	expect_found("sh", "/bin/sh");
}
END_TEST

START_TEST(test_find_order)
{
	char path[PATH_MAX], want[PATH_MAX];

	ck_assert_int_eq(mkdir("a", 0755), 0);
	ck_assert_int_eq(mkdir("b", 0755), 0);
	ck_assert_int_eq(mkdir("a/tool", 0755), 0);
	script("b/tool", "#!/bin/sh\n");
	snprintf(path, sizeof(path), "%s/none:%s/a:%s/b", dir, dir, dir);
	setenv("PATH", path, 1);
	/* A folder of that name is passed over, as execvp() does. */
	snprintf(want, sizeof(want), "%s/b/tool", dir);
	expect_found("tool", want);
	ck_assert_int_eq(chmod("b/tool", 0644), 0);
	expect_not_found("tool", EACCES);
}
END_TEST

START_TEST(test_find_here)
{
	static const char *const paths[] = {"", ":/bin", "/bin:", "/bin::/x"};

	script("tool", "#!/bin/sh\n");
	setenv("PATH", paths[_i], 1);
	expect_found("tool", "./tool");
}
END_TEST

START_TEST(test_find_long)
{
	char name[PATH_MAX + 8];

	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	expect_not_found(name, ENOENT);
	name[0] = '/';
	expect_not_found(name, ENAMETOOLONG);
}
END_TEST

/* ---- programs ---- */

START_TEST(test_plain)
{
	expect_covered("/bin/true");
	load_true();
	write_file("copy", image, image_len);
	expect_covered("copy");
	/* What cannot be judged is left to exec. */
	expect_covered("no-such-file");
	expect_covered("/");
}
END_TEST

START_TEST(test_static)
{
	make_static("static");
	expect_refused("static", "statically linked (no PT_INTERP)");
}
END_TEST

START_TEST(test_foreign)
{
	load_true();
	((Elf64_Ehdr *)(void *)image)->e_machine = EM_S390;
	write_file("foreign", image, image_len);
	expect_refused("foreign", "another kind of machine");
}
END_TEST

START_TEST(test_musl)
{
	static const char musl[] = "/lib/ld-musl-t.so.1";

	load_true();
	memcpy(image + segment(PT_INTERP)->p_offset, musl, sizeof(musl));
	write_file("musl", image, image_len);
	expect_refused("musl", "musl");
}
END_TEST

START_TEST(test_go)
{
	static const struct {
		Elf64_Nhdr head;
		char name[4], desc[4];
	} note = {{4, 4, 4}, "Go", "id"};

	load_true();
	memcpy(image + segment(PT_NOTE)->p_offset, &note, sizeof(note));
	write_file("go", image, image_len);
	expect_refused("go", "Go program");
}
END_TEST

START_TEST(test_damaged)
{
	load_true();
	write_file("damaged", image, 100);
	expect_refused("damaged", "damaged");
}
END_TEST

/* ---- privileges ---- */

START_TEST(test_set_id)
{
	load_true();
	write_file("set", image, image_len);
	ck_assert_int_eq(chmod("set", 06755), 0);
	/* Of one's own it changes nothing, so the library gets in. */
	expect_covered("set");
	if (geteuid() != 0)
		return;
	ck_assert_int_eq(chown("set", OTHER_UID, 0), 0);
	ck_assert_int_eq(chmod("set", 04755), 0);
	expect_refused("set", "set-uid (owner 12345)");
	ck_assert_int_eq(chown("set", 0, OTHER_UID), 0);
	ck_assert_int_eq(chmod("set", 02755), 0);
	expect_refused("set", "set-gid (group 12345)");
	/* Without x for the group it is another thing (locking). */
	ck_assert_int_eq(chmod("set", 02745), 0);
	expect_covered("set");
	ck_assert_int_eq(chmod("set", 02755), 0);
	ck_assert_int_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	expect_covered("set");
}
END_TEST

START_TEST(test_capabilities)
{
	const struct vfs_cap_data caps = {
		.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
		.data[0].permitted = 1u << CAP_NET_RAW,
	};
	pid_t pid;
	int status;

	if (geteuid() != 0)
		return;
	load_true();
	write_file("caps", image, image_len);
	if (setxattr("caps", "security.capability", &caps, XATTR_CAPS_SZ_2,
		    0) == -1)
		return; /* not on this file system, or not for us */
	/* Root has them anyway. */
	expect_covered("caps");
	pid = fork();
	if (pid == 0) {
		if (setuid(OTHER_UID) == -1)
			_exit(2);
		status = program_refusal("caps", why, sizeof(why));
		_exit(status == -1 && strstr(why, "capabilities") ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

/* ---- scripts ---- */

START_TEST(test_script)
{
	script("good", "#!/bin/sh\nexit 0\n");
	expect_covered("good");
	script("blanks", "#! \t /bin/sh \t -e\n");
	expect_covered("blanks");
	make_static("static");
	script("bad", "#!%s/static\n", dir);
	expect_refused("bad", "static is statically linked");
	script("arg", "#!%s/static -x\n", dir);
	expect_refused("arg", "static is statically linked");
	script("no-end", "#!%s/static", dir);
	expect_refused("no-end", "static is statically linked");
	script("empty", "#!\n");
	expect_covered("empty");
	script("none", "#!/no/such/interpreter\n");
	expect_covered("none");
}
END_TEST

START_TEST(test_env)
{
	static const char *const lines[] = {
		"#!/usr/bin/env static",
		"#!/usr/bin/env static -x",
		"#!/usr/bin/env -S static -x",
		"#!/usr/bin/env -Sstatic -x",
		"#!/usr/bin/env --split-string=static -x",
		"#!/usr/bin/env -S A=b C=d static",
		"#!  /no/such/place/env\tstatic",
	};
	char path[PATH_MAX];

	make_static("static");
	snprintf(path, sizeof(path), "%s:/usr/bin:/bin", dir);
	setenv("PATH", path, 1);
	script("script", "%s\n", lines[_i]);
	expect_refused("script", "static is statically linked");
}
END_TEST

START_TEST(test_env_open)
{
	static const char *const lines[] = {
		"#!/usr/bin/env sh",
		"#!/usr/bin/env -S sh -e",
		"#!/usr/bin/env no-such-program",
		"#!/usr/bin/env",
		"#!/usr/bin/env -i",
		"#!/usr/bin/env -S A=b",
	};

	script("script", "%s\n", lines[_i]);
	expect_covered("script");
}
END_TEST

/* A script's interpreter may be a script: five of them, as in the kernel. */
START_TEST(test_chain)
{
	make_static("static");
	script("s0", "#!%s/static\n", dir);
	for (int i = 1; i < 6; i++) {
		char name[8];

		snprintf(name, sizeof(name), "s%d", i);
		script(name, "#!%s/s%d\n", dir, i - 1);
	}
	expect_refused("s4", "static is statically linked");
	expect_refused("s5", "more than 5 scripts");
	script("loop", "#!%s/loop\n", dir);
	expect_refused("loop", "more than 5 scripts");
}
END_TEST

/* A line that is longer than the kernel reads. */
START_TEST(test_long_line)
{
	char line[600];

	memset(line, 'x', sizeof(line));
	line[0] = '#';
	line[1] = '!';
	line[2] = '/';
	write_file("long", line, sizeof(line));
	expect_covered("long");
	memset(line + 2, ' ', sizeof(line) - 2);
	write_file("long", line, sizeof(line));
	expect_covered("long");
}
END_TEST

START_TEST(test_no_format)
{
	script("plain", "exit 0\n");
	expect_covered("plain"); /* by /bin/sh, which is dynamic here */
	script("void", "%s", "");
	expect_covered("void");
}
END_TEST

/* ---- becoming it ---- */

static int exec_status(const char *path, char **argv)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(100 + program_exec(path, argv));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WEXITSTATUS(status);
}

START_TEST(test_exec)
{
	char *argv[] = {(char *)(uintptr_t) "name", (char *)(uintptr_t) "7",
		(char *)(uintptr_t) "8", NULL};

	script("args", "#!/bin/sh\n[ $# = 2 ] && exit $1\n");
	ck_assert_int_eq(exec_status("./args", argv), 7);
	/* No format that the kernel knows: the shell's, as with execvp(). */
	script("args", "[ $# = 2 ] && exit $2\n");
	ck_assert_int_eq(exec_status("./args", argv), 8);
	ck_assert_int_eq(exec_status("./none", argv), 100 + ENOENT);
	ck_assert_int_eq(chmod("args", 0644), 0);
	ck_assert_int_eq(exec_status("./args", argv), 100 + EACCES);
}
END_TEST

/* exec says ENOENT of the script, which is there. */
START_TEST(test_missing)
{
	char missing[PATH_MAX];

	script("first", "#!/no/such/interpreter -x\n");
	ck_assert_int_eq(program_missing("first", missing), 0);
	ck_assert_str_eq(missing, "/no/such/interpreter");
	script("second", "#! first\n");
	ck_assert_int_eq(program_missing("second", missing), 0);
	ck_assert_str_eq(missing, "/no/such/interpreter");
	script("fine", "#!/bin/sh\n");
	ck_assert_int_eq(program_missing("fine", missing), -1);
	ck_assert_int_eq(program_missing("/bin/sh", missing), -1);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("proxify_program");
	TCase *tc = tcase_create("program");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_find);
	tcase_add_test(tc, test_find_order);
	tcase_add_loop_test(tc, test_find_here, 0, 4);
	tcase_add_test(tc, test_find_long);
	tcase_add_test(tc, test_plain);
	tcase_add_test(tc, test_static);
	tcase_add_test(tc, test_foreign);
	tcase_add_test(tc, test_musl);
	tcase_add_test(tc, test_go);
	tcase_add_test(tc, test_damaged);
	tcase_add_test(tc, test_set_id);
	tcase_add_test(tc, test_capabilities);
	tcase_add_test(tc, test_script);
	tcase_add_loop_test(tc, test_env, 0, 7);
	tcase_add_loop_test(tc, test_env_open, 0, 6);
	tcase_add_test(tc, test_chain);
	tcase_add_test(tc, test_long_line);
	tcase_add_test(tc, test_no_format);
	tcase_add_test(tc, test_exec);
	tcase_add_test(tc, test_missing);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
