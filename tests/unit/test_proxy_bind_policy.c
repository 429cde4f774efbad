/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/bind_policy.h"
#include "suite.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct bind_policy policy;

static void setup(void)
{
	bind_policy_init(&policy);
}

static const struct {
	const char *text;
	bool good;
	uint16_t yes[3], no[3]; /* 0: no more */
} lists[] = {
	{"all", true, {1, 80, 65535}, {0}},
	{"none", true, {0}, {1, 80, 65535}},
	{"80", true, {80}, {79, 81, 65535}},
	{"80,443,8000-8999", true, {443, 8000, 8999}, {7999, 9000, 444}},
	{"1-65535", true, {1, 1024, 65535}, {0}},
	{"65535", true, {65535}, {65534, 1}},
	{"7-7", true, {7}, {6, 8}},
	{"80,80", true, {80}, {81}},
	{"", false, {0}, {0}},
	{"0", false, {0}, {0}},
	{"65536", false, {0}, {0}},
	{"80,", false, {0}, {0}},
	{",80", false, {0}, {0}},
	{"80,,81", false, {0}, {0}},
	{"90-80", false, {0}, {0}},
	{"80-", false, {0}, {0}},
	{"-80", false, {0}, {0}},
	{"0-80", false, {0}, {0}},
	{"80-65536", false, {0}, {0}},
	{"80 ,81", false, {0}, {0}},
	{"+80", false, {0}, {0}},
	{"80,all", false, {0}, {0}},
	{"ALL", false, {0}, {0}},
	{"http", false, {0}, {0}},
	{"1-2-3", false, {0}, {0}},
};

START_TEST(allow)
{
	struct bind_policy before = policy;
	const char *why = bind_policy_add_allow(&policy, lists[_i].text);

	ck_assert_int_eq(!why, lists[_i].good);
	if (why) {
		ck_assert_mem_eq(&policy, &before, sizeof(policy));
		ck_assert(bind_policy_allows(&policy, 80));
		return;
	}
	for (size_t i = 0; i < 3 && lists[_i].yes[i]; i++)
		ck_assert(bind_policy_allows(&policy, lists[_i].yes[i]));
	for (size_t i = 0; i < 3 && lists[_i].no[i]; i++)
		ck_assert(!bind_policy_allows(&policy, lists[_i].no[i]));
}
END_TEST

START_TEST(allow_adds_up)
{
	ck_assert(bind_policy_allows(&policy, 1));
	ck_assert_ptr_null(bind_policy_add_allow(&policy, "none"));
	ck_assert(policy.limited && !bind_policy_allows(&policy, 80));
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 0), 0);
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 77), 0);
	ck_assert_ptr_null(bind_policy_add_allow(&policy, "80"));
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 0), 80);
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 80), 80);
	ck_assert_ptr_null(bind_policy_add_allow(&policy, "90-91,65535"));
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 80), 90);
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 91), 65535);
	ck_assert_uint_eq(bind_policy_next_allowed(&policy, 65535), 80);
	ck_assert(!bind_policy_allows(&policy, 92));
	ck_assert_ptr_null(bind_policy_add_allow(&policy, "all"));
	ck_assert(!policy.limited && bind_policy_allows(&policy, 92));
	ck_assert_ptr_null(bind_policy_add_allow(&policy, "80"));
	ck_assert(!policy.limited);
}
END_TEST

START_TEST(publish)
{
	static const char *const bad[] = {"", ":", "80", "80:", ":80", "0:80",
		"80:0", "80:65536", "80:81:82", "80:81-82", "a:b", " 80:81"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(bind_policy_add_publish(&policy, bad[i]) != NULL,
			"'%s'", bad[i]);
	ck_assert_ptr_null(bind_policy_add_publish(&policy, "8080:80"));
	ck_assert_ptr_null(bind_policy_add_publish(&policy, "80:8080"));
	ck_assert_ptr_nonnull(bind_policy_add_publish(&policy, "8080:81"));
	ck_assert_ptr_nonnull(bind_policy_add_publish(&policy, "81:80"));
	ck_assert_uint_eq(bind_policy_host_port(&policy, 8080), 80);
	ck_assert_uint_eq(bind_policy_host_port(&policy, 80), 8080);
	ck_assert_uint_eq(bind_policy_host_port(&policy, 81), 81);
	ck_assert_uint_eq(bind_policy_host_port(&policy, 0), 0);
	ck_assert(bind_policy_is_published(&policy, 8080));
	ck_assert(!bind_policy_is_published(&policy, 81));
	for (unsigned int i = 2; i < BIND_PUBLISH_MAX; i++) {
		char text[32];

		snprintf(text, sizeof(text), "%u:%u", 1000 + i, 2000 + i);
		ck_assert_ptr_null(bind_policy_add_publish(&policy, text));
	}
	ck_assert_ptr_nonnull(bind_policy_add_publish(&policy, "9:9"));
}
END_TEST

/* The addresses of a scope as text: "192.0.2.1 ::". */
static const char *addresses(bool v4, bool v6, bool loopback)
{
	static char text[BIND_ADDRESSES_MAX * (IP_PORT_STRLEN + 1)];
	const struct bind_scope scope = {v4, v6, loopback};
	struct ip_port addr[BIND_ADDRESSES_MAX];
	size_t nr = bind_policy_addresses(&policy, &scope, addr);

	text[0] = '\0';
	for (size_t i = 0; i < nr; i++) {
		size_t len = strlen(text);

		if (i > 0)
			text[len++] = ' ';
		ip_port_format(&addr[i], text + len, sizeof(text) - len);
	}
	return text;
}

START_TEST(any_address)
{
	ck_assert_str_eq(addresses(true, true, false), "0.0.0.0:0 [::]:0");
	ck_assert_str_eq(addresses(true, false, false), "0.0.0.0:0");
	ck_assert_str_eq(addresses(false, true, false), "[::]:0");
	ck_assert_str_eq(addresses(true, true, true), "127.0.0.1:0 [::1]:0");
	ck_assert_str_eq(addresses(false, true, true), "[::1]:0");
}
END_TEST

START_TEST(some_addresses)
{
	static const char *const bad[] = {
		"", "localhost", "1.2.3", "1.2.3.4:80", "[::1]", "10.0.0.0/8"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_ptr_nonnull(bind_policy_add_address(&policy, bad[i]));
	ck_assert_ptr_null(bind_policy_add_address(&policy, "192.0.2.1"));
	ck_assert_ptr_null(bind_policy_add_address(&policy, "2001:db8::1"));
	ck_assert_ptr_nonnull(
		bind_policy_add_address(&policy, "::ffff:192.0.2.1"));
	ck_assert_str_eq(
		addresses(true, true, false), "192.0.2.1:0 [2001:db8::1]:0");
	ck_assert_str_eq(addresses(true, false, false), "192.0.2.1:0");
	/* Not on the loopback address, which nobody gave. */
	ck_assert_str_eq(addresses(true, true, true), "");
	ck_assert_ptr_null(bind_policy_add_address(&policy, "::1"));
	ck_assert_str_eq(addresses(true, true, true), "[::1]:0");
	ck_assert_ptr_null(bind_policy_add_address(&policy, "0.0.0.0"));
	ck_assert_str_eq(addresses(true, true, true), "127.0.0.1:0 [::1]:0");
	for (int i = 4; i < BIND_ADDRESSES_MAX; i++) {
		char text[32];

		snprintf(text, sizeof(text), "192.0.2.%d", i);
		ck_assert_ptr_null(bind_policy_add_address(&policy, text));
	}
	ck_assert_ptr_nonnull(bind_policy_add_address(&policy, "192.0.2.99"));
}
END_TEST

START_TEST(one_family)
{
	ck_assert_ptr_null(bind_policy_add_address(&policy, "::"));
	ck_assert_str_eq(addresses(true, true, false), "[::]:0");
	ck_assert_str_eq(addresses(true, false, false), "");
	ck_assert_str_eq(addresses(true, false, true), "");
	ck_assert_str_eq(addresses(true, true, true), "[::1]:0");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("proxy_bind_policy");
	TCase *tcase = tcase_create("policy");

	tcase_add_checked_fixture(tcase, setup, NULL);
	tcase_add_loop_test(tcase, allow, 0, sizeof(lists) / sizeof(lists[0]));
	tcase_add_test(tcase, allow_adds_up);
	tcase_add_test(tcase, publish);
	tcase_add_test(tcase, any_address);
	tcase_add_test(tcase, some_addresses);
	tcase_add_test(tcase, one_family);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
