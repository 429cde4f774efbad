/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "vendor/config.h"
#include "suite.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct vendor_config config;

static void setup(void)
{
	static const char *const names[] = {"PROXY_ENDPOINT",
		"PROXY_PARENT_CID", "PROXY_PARENT_PORT", "PROXY_LOG",
		"SOCKET_VENDOR_PATH"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

#define ARGS_MAX 8

/*
 * Read a command line given as one string, words parted by spaces.
 * @said: filled with what goes to stderr meanwhile
 */
static enum config_verdict read_line(const char *line, char *said, size_t size)
{
	char words[512];
	char *rest;
	char *argv[ARGS_MAX + 2] = {(char *)(uintptr_t) "socket_vendor"};
	enum config_verdict verdict;
	int argc = 1, saved, both[2];
	ssize_t n;

	snprintf(words, sizeof(words), "%s", line);
	for (char *w = strtok_r(words, " ", &rest); w;
		w = strtok_r(NULL, " ", &rest))
		argv[argc++] = w;
	ck_assert_int_eq(pipe2(both, O_CLOEXEC), 0);
	saved = dup(STDERR_FILENO);
	dup2(both[1], STDERR_FILENO);
	closefd(&both[1]);
	verdict = config_read(&config, argc, argv);
	dup2(saved, STDERR_FILENO);
	closefd(&saved);
	n = read(both[0], said, size - 1);
	said[n > 0 ? n : 0] = '\0';
	closefd(&both[0]);
	return verdict;
}

static void expect_run(const char *line)
{
	char said[1024];

	ck_assert_msg(read_line(line, said, sizeof(said)) == CONFIG_RUN,
		"'%s': %s", line, said);
	ck_assert_str_eq(said, "");
}

START_TEST(test_defaults)
{
	expect_run("");
	ck_assert_int_eq(config.endpoint.kind, ENDPOINT_VSOCK);
	ck_assert_uint_eq(config.endpoint.cid, 3);
	ck_assert_uint_eq(config.endpoint.port, 8888);
	ck_assert_int_eq(config.log_level, LOG_WARN);
	ck_assert(!config.foreground && !config.allow_any);
	ck_assert_uint_eq(config.max_gates, 65536);
	if (geteuid() == 0) {
		ck_assert_str_eq(config.path, "/run/proxify/vendor.sock");
		ck_assert_str_eq(config.log_file, "/run/proxify/vendor.log");
	}
}
END_TEST

START_TEST(test_environment)
{
	setenv("PROXY_PARENT_CID", "16", 1);
	setenv("PROXY_PARENT_PORT", "9", 1);
	setenv("PROXY_LOG", "debug", 1);
	setenv("SOCKET_VENDOR_PATH", "/x/y.sock", 1);
	expect_run("");
	ck_assert_uint_eq(config.endpoint.cid, 16);
	ck_assert_uint_eq(config.endpoint.port, 9);
	ck_assert_int_eq(config.log_level, LOG_DEBUG);
	ck_assert_str_eq(config.path, "/x/y.sock");
	ck_assert_str_eq(config.log_file, "/x/vendor.log");
	setenv("PROXY_ENDPOINT", "unix:/a", 1);
	expect_run("");
	ck_assert_int_eq(config.endpoint.kind, ENDPOINT_UNIX);
}
END_TEST

START_TEST(test_command_line_wins)
{
	setenv("PROXY_ENDPOINT", "unix:/a", 1);
	setenv("PROXY_LOG", "debug", 1);
	setenv("SOCKET_VENDOR_PATH", "/x/y.sock", 1);
	expect_run("--endpoint tcp:[::1]:1 --log error --path /v.sock "
		   "--log-file /l --foreground");
	ck_assert_int_eq(config.endpoint.kind, ENDPOINT_TCP);
	ck_assert_int_eq(config.log_level, LOG_ERROR);
	ck_assert_str_eq(config.path, "/v.sock");
	ck_assert_str_eq(config.log_file, "/l");
	ck_assert(config.foreground);
}
END_TEST

START_TEST(test_inbound)
{
	expect_run("");
	ck_assert_int_eq(config.pool_low, CONFIG_POOL_LOW);
	ck_assert_int_eq(config.pool_high, CONFIG_POOL_HIGH);
	ck_assert_int_eq(config.max_exports, CONFIG_EXPORTS_DEFAULT);
	ck_assert(!config.no_mirror);
	expect_run("--pool-low 5 --pool-high 5 --max-exports 9 --no-mirror");
	ck_assert_int_eq(config.pool_low, 5);
	ck_assert_int_eq(config.pool_high, 5);
	ck_assert_int_eq(config.max_exports, 9);
	ck_assert(config.no_mirror);
}
END_TEST

START_TEST(test_allow)
{
	expect_run("--allow-uid 1000 --allow-uid=daemon");
	ck_assert(config_allows(&config, 0));
	ck_assert(config_allows(&config, geteuid()));
	ck_assert(config_allows(&config, 1000));
	ck_assert(config_allows(&config, 1)); /* daemon, everywhere */
	ck_assert(!config_allows(&config, 1001));
	ck_assert(!config_allows(&config, (uid_t)-1));
	expect_run("--allow-uid any");
	ck_assert(config_allows(&config, 1001));
}
END_TEST

/* @name=value goes into the environment; the rest is the command line. */
static const struct {
	const char *name, *value, *line, *said;
} wrongs[] = {
	{NULL, NULL, "--endpoint nonsense", "--endpoint='nonsense': expected"},
	{NULL, NULL, "--endpoint vsock:3:x",
		"--endpoint='vsock:3:x': expected"},
	{NULL, NULL, "--endpoint tcp:a.example:1", "numeric address"},
	{NULL, NULL, "--log loud",
		"--log='loud': expected error, warn, info or debug"},
	{NULL, NULL, "--path v.sock",
		"--path='v.sock': expected an absolute path"},
	{NULL, NULL, "--path /a/", "not of a directory"},
	{NULL, NULL, "--log-file log", "--log-file='log': expected"},
	{NULL, NULL, "--allow-uid no-such-user",
		"--allow-uid='no-such-user': expected a uid"},
	{NULL, NULL, "--allow-uid 4294967295", "expected a uid"},
	{NULL, NULL, "--max-gates 0", "--max-gates='0': expected"},
	{NULL, NULL, "--max-gates -1", "expected"},
	{NULL, NULL, "--max-gates", "requires an argument"},
	{NULL, NULL, "--max-exports 0", "--max-exports='0': expected"},
	{NULL, NULL, "--pool-low 0", "--pool-low='0': expected"},
	{NULL, NULL, "--pool-high 4097", "--pool-high='4097': expected"},
	{NULL, NULL, "--pool-low 65",
		"--pool-low=65: expected no more than --pool-high, 64"},
	{NULL, NULL, "--nonsense", "nonsense"},
	{NULL, NULL, "word", "unexpected argument 'word'"},
	{"PROXY_LOG", "x", "", "PROXY_LOG='x': expected error"},
	{"PROXY_ENDPOINT", "x", "", "PROXY_ENDPOINT='x': expected"},
	{"PROXY_ENDPOINT", "", "", "PROXY_ENDPOINT='': expected"},
	{"PROXY_PARENT_CID", "-3", "", "PROXY_PARENT_CID='-3': expected"},
	{"PROXY_PARENT_PORT", "8888x", "", "PROXY_PARENT_PORT='8888x': "},
	{"SOCKET_VENDOR_PATH", "x", "", "SOCKET_VENDOR_PATH='x': expected"},
};

START_TEST(test_wrong)
{
	char said[1024];

	if (wrongs[_i].name)
		setenv(wrongs[_i].name, wrongs[_i].value, 1);
	ck_assert_int_eq(
		read_line(wrongs[_i].line, said, sizeof(said)), CONFIG_WRONG);
	ck_assert_msg(strstr(said, wrongs[_i].said) != NULL,
		"said '%s', not '%s'", said, wrongs[_i].said);
}
END_TEST

START_TEST(test_long_path)
{
	char line[300], said[1024];

	memset(line, 'a', sizeof(line));
	memcpy(line, "--path /", 8);
	line[8 + 107] = '\0'; /* "/" and 107 more */
	ck_assert_int_eq(read_line(line, said, sizeof(said)), CONFIG_WRONG);
	ck_assert_ptr_nonnull(strstr(said, "at most 107 bytes"));
	line[8 + 106] = '\0';
	expect_run(line);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("vendor_config");
	TCase *tc = tcase_create("config");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, test_defaults);
	tcase_add_test(tc, test_environment);
	tcase_add_test(tc, test_command_line_wins);
	tcase_add_test(tc, test_inbound);
	tcase_add_test(tc, test_allow);
	tcase_add_loop_test(
		tc, test_wrong, 0, sizeof(wrongs) / sizeof(wrongs[0]));
	tcase_add_test(tc, test_long_path);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
