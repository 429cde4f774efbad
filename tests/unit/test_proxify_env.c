/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/config.h"
#include "proxify/env.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {"PROXY_LOG", "PROXY_ENDPOINT",
	"PROXY_PARENT_CID", "PROXY_PARENT_PORT", "PROXY_LOOPBACK", "PROXY_WAIT",
	"PROXY_BYPASS", "SOCKET_VENDOR_PATH"};

static struct settings settings;
static struct complaint what;

static void setup(void)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

START_TEST(test_defaults)
{
	ck_assert(env_read(&settings, &what));
	ck_assert_int_eq(settings.endpoint.kind, ENDPOINT_VSOCK);
	ck_assert_uint_eq(settings.endpoint.cid, 3);
	ck_assert_uint_eq(settings.endpoint.port, 8888);
	ck_assert_int_eq(settings.log_level, LOG_WARN);
	if (geteuid() == 0)
		ck_assert_str_eq(
			settings.vendor_path, "/run/proxify/vendor.sock");
}
END_TEST

static const struct {
	const char *name, *value;
} rights[] = {
	{"PROXY_LOG", "error"},
	{"PROXY_LOG", "debug"},
	{"PROXY_ENDPOINT", "vsock:3:1"},
	{"PROXY_ENDPOINT", "unix:/x"},
	{"PROXY_ENDPOINT", "tcp:127.0.0.1:1"},
	{"PROXY_ENDPOINT", "tcp:[::1]:1"},
	{"PROXY_ENDPOINT", "vsock-mux:/x:1"},
	{"PROXY_PARENT_CID", "0"},
	{"PROXY_PARENT_CID", "4294967295"},
	{"PROXY_PARENT_PORT", "1"},
	{"PROXY_PARENT_PORT", "8888-8919"},
	{"PROXY_LOOPBACK", "local"},
	{"PROXY_LOOPBACK", "host"},
	{"PROXY_BYPASS", ""},
	{"PROXY_BYPASS", "10.0.0.0/8"},
	{"PROXY_BYPASS", "10.0.0.0/8,fd00::/8,192.0.2.1"},
	{"PROXY_WAIT", "0"},
	{"PROXY_WAIT", "86400"},
	{"SOCKET_VENDOR_PATH", "/x/y"},
};

START_TEST(test_right)
{
	setenv(rights[_i].name, rights[_i].value, 1);
	ck_assert_msg(env_read(&settings, &what), "%s='%s': %s",
		rights[_i].name, rights[_i].value, what.expected);
}
END_TEST

static const struct {
	const char *name, *value, *expected;
} wrongs[] = {
	{"PROXY_LOG", "", "error, warn, info or debug"},
	{"PROXY_LOG", "WARN", "error, warn, info or debug"},
	{"PROXY_ENDPOINT", "", "expected"},
	{"PROXY_ENDPOINT", "pigeon:1", "expected"},
	{"PROXY_ENDPOINT", "tcp:a.example:1", "numeric"},
	{"PROXY_PARENT_CID", "", "number"},
	{"PROXY_PARENT_CID", "3x", "number"},
	{"PROXY_PARENT_CID", "4294967296", "number"},
	{"PROXY_PARENT_PORT", "-1", "number"},
	{"PROXY_PARENT_PORT", " 1", "number"},
	{"PROXY_PARENT_PORT", "8919-8888", "range"},
	{"PROXY_PARENT_PORT", "8888-8999", "range"},
	{"PROXY_WAIT", "", "seconds"},
	{"PROXY_WAIT", "86401", "seconds"},
	{"PROXY_LOOPBACK", "", "local or host"},
	{"PROXY_LOOPBACK", "both", "local or host"},
	{"PROXY_BYPASS", "10.0.0.0/33", "blocks"},
	{"PROXY_BYPASS", "10.0.0.0/8,", NULL}, /* a last comma does no harm */
	{"PROXY_BYPASS", "10.0.0.0/8,,10.0.0.0/8", "blocks"},
	{"PROXY_BYPASS", "10.0.0.0/8 fd00::/8", "blocks"},
	{"SOCKET_VENDOR_PATH", "", "absolute"},
	{"SOCKET_VENDOR_PATH", "x", "absolute"},
};

START_TEST(test_wrong)
{
	setenv(wrongs[_i].name, wrongs[_i].value, 1);
	if (!wrongs[_i].expected) {
		ck_assert(env_read(&settings, &what));
		return;
	}
	ck_assert(!env_read(&settings, &what));
	ck_assert_str_eq(what.name, wrongs[_i].name);
	ck_assert_str_eq(what.value, wrongs[_i].value);
	ck_assert_ptr_nonnull(strstr(what.expected, wrongs[_i].expected));
}
END_TEST

/* A variable that another one overrides is checked all the same: the day the
 * other is taken away is a bad one to learn of it. */
START_TEST(test_overridden)
{
	setenv("PROXY_ENDPOINT", "unix:/x", 1);
	setenv("PROXY_PARENT_CID", "three", 1);
	ck_assert(!env_read(&settings, &what));
	ck_assert_str_eq(what.name, "PROXY_PARENT_CID");
}
END_TEST

/* As many blocks as the library takes, and not one more. */
START_TEST(test_many_blocks)
{
	static const char block[] = "10.0.0.0,";
	char list[(BYPASS_MAX + 1) * (sizeof(block) - 1) + 1];
	size_t len = 0;

	for (int i = 0; i < BYPASS_MAX; i++)
		len += (size_t)snprintf(
			list + len, sizeof(list) - len, "%s", block);
	setenv("PROXY_BYPASS", list, 1);
	ck_assert(env_read(&settings, &what));
	snprintf(list + len, sizeof(list) - len, "%s", block);
	setenv("PROXY_BYPASS", list, 1);
	ck_assert(!env_read(&settings, &what));
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("proxify_env");
	TCase *tc = tcase_create("env");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, test_defaults);
	tcase_add_loop_test(
		tc, test_right, 0, sizeof(rights) / sizeof(rights[0]));
	tcase_add_loop_test(
		tc, test_wrong, 0, sizeof(wrongs) / sizeof(wrongs[0]));
	tcase_add_test(tc, test_overridden);
	tcase_add_test(tc, test_many_blocks);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
