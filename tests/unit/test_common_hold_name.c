/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hold_name.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define KEY "00112233445566778899aabbccddeeff"

static void address(struct socks5_addr *addr, const char *name)
{
	memset(addr, 0, sizeof(*addr));
	addr->name_len = (uint8_t)strlen(name);
	memcpy(addr->name, name, addr->name_len);
}

static const struct {
	const char *name;
	enum hold_verb verb;
	bool v4, v6, loopback;
} good[] = {
	{"hold-4-" KEY ".proxy.internal", HOLD_HOLD, true, false, false},
	{"hold-6-" KEY ".proxy.internal", HOLD_HOLD, false, true, false},
	{"hold-46-" KEY ".proxy.internal", HOLD_HOLD, true, true, false},
	{"hold-4l-" KEY ".proxy.internal", HOLD_HOLD, true, false, true},
	{"hold-6l-" KEY ".proxy.internal", HOLD_HOLD, false, true, true},
	{"hold-46l-" KEY ".proxy.internal", HOLD_HOLD, true, true, true},
	{"join-" KEY ".proxy.internal", HOLD_JOIN, false, false, false},
	{"meet-" KEY ".proxy.internal", HOLD_MEET, false, false, false},
};

START_TEST(both_ways)
{
	struct socks5_addr addr, written;
	struct hold_name name;

	memset(&written, 0xa5, sizeof(written));
	address(&addr, good[_i].name);
	addr.addr.port = 4711;
	ck_assert_int_eq(hold_name_parse(&name, &addr), 0);
	ck_assert_int_eq(name.verb, good[_i].verb);
	ck_assert_int_eq(name.v4, good[_i].v4);
	ck_assert_int_eq(name.v6, good[_i].v6);
	ck_assert_int_eq(name.loopback, good[_i].loopback);
	ck_assert_mem_eq(name.key,
		"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee"
		"\xff",
		HOLD_KEY_LEN);
	hold_name_write(&name, 4711, &written);
	ck_assert_mem_eq(&written, &addr, sizeof(addr));
}
END_TEST

static const char *const others[] = {
	"x",
	"example.com",
	"hold-4-" KEY,
	"hold-4-" KEY ".proxy.interna",
	"hold-4-" KEY ".proxy.internal.",
	"hold4-" KEY ".proxy.internal",
	"Hold-4-" KEY ".proxy.internal",
	"hole-4-" KEY ".proxy.internal",
	"resolver.proxy.internal",
	".proxy.internal",
};

START_TEST(other_names)
{
	struct socks5_addr addr;
	struct hold_name name;

	address(&addr, others[_i]);
	ck_assert_int_eq(hold_name_parse(&name, &addr), 0);
	ck_assert_int_eq(name.verb, HOLD_NONE);
}
END_TEST

static const char *const bad[] = {
	"hold-.proxy.internal",
	"join-.proxy.internal",
	"meet-.proxy.internal",
	"meet-4-" KEY ".proxy.internal",
	"hold-" KEY ".proxy.internal",
	"hold-5-" KEY ".proxy.internal",
	"hold-64-" KEY ".proxy.internal",
	"hold-l-" KEY ".proxy.internal",
	"hold--" KEY ".proxy.internal",
	"hold-4ll-" KEY ".proxy.internal",
	"hold-4-" KEY "0.proxy.internal",
	"hold-4-0" KEY ".proxy.internal",
	"hold-4-0112233445566778899aabbccddeeff.proxy.internal",
	"hold-4-00112233445566778899AABBCCDDEEFF.proxy.internal",
	"hold-4-g0112233445566778899aabbccddeeff.proxy.internal",
	"join-4-" KEY ".proxy.internal",
	"join-" KEY KEY ".proxy.internal",
};

START_TEST(bad_names)
{
	struct socks5_addr addr;
	struct hold_name name;

	address(&addr, bad[_i]);
	ck_assert_int_eq(hold_name_parse(&name, &addr), -1);
}
END_TEST

/* An address has no name, whatever is where the name would be. */
START_TEST(not_a_name)
{
	struct socks5_addr addr;
	struct hold_name name;

	address(&addr, good[0].name);
	addr.addr.family = AF_INET;
	ck_assert_int_eq(hold_name_parse(&name, &addr), 0);
	ck_assert_int_eq(name.verb, HOLD_NONE);
}
END_TEST

#define NR(table) (sizeof(table) / sizeof((table)[0]))

int main(void)
{
	Suite *suite = suite_create("common_hold_name");
	TCase *tcase = tcase_create("hold_name");

	tcase_add_loop_test(tcase, both_ways, 0, NR(good));
	tcase_add_loop_test(tcase, other_names, 0, NR(others));
	tcase_add_loop_test(tcase, bad_names, 0, NR(bad));
	tcase_add_test(tcase, not_a_name);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
