/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/rules.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- grammar ---- */

static const struct {
	const char *text;
	const char *ip; /* NULL: refused */
	int bits;
	unsigned int first, last;
} grammar[] = {
	{"10.0.0.0/8", "10.0.0.0", 8, 0, 65535},
	{"192.0.2.1", "192.0.2.1", 32, 0, 65535},
	{"0.0.0.0/0:443", "0.0.0.0", 0, 443, 443},
	{"10.0.0.0/8:1-1023", "10.0.0.0", 8, 1, 1023},
	{"10.0.0.1:65535", "10.0.0.1", 32, 65535, 65535},
	{"fd00::/8", "fd00::", 8, 0, 65535},
	{"::1", "::1", 128, 0, 65535},
	{"::/0", "::", 0, 0, 65535},
	{"[fd00::]/8:443", "fd00::", 8, 443, 443},
	{"[::]/0:1-2", "::", 0, 1, 2},
	{"[::1]:80", "::1", 128, 80, 80},
	{"[::1]", "::1", 128, 0, 65535},
	{"[::1]/128", "::1", 128, 0, 65535},
	{"::ffff:127.0.0.0/104", "127.0.0.0", 8, 0, 65535},
	{"[::ffff:10.1.2.3]:5", "10.1.2.3", 32, 5, 5},
	{"::ffff:0:0/95", "::ffff:0.0.0.0", 95, 0, 65535},
	{""},
	{":"},
	{":80"},
	{"/8"},
	{"10.0.0.0/33"},
	{"10.0.0.0/"},
	{"10.0.0.0/8:"},
	{"10.0.0.0/8:0"},
	{"10.0.0.0/8:65536"},
	{"10.0.0.0/8:2-1"},
	{"10.0.0.0/8:1-"},
	{"10.0.0.0/8:-1"},
	{"10.0.0.0/8:1-2-3"},
	{"10.0.0.0/8:http"},
	{"10.0.0.0/8 "},
	{"10.0.0/8"},
	{"example.org"},
	{"[]"},
	{"[]:1"},
	{"[]/0"},
	{"[::1"},
	{"[::1]x"},
	{"[::1]80"},
	{"[::1]/129"},
	{"[::1]/"},
	{"[10.0.0.1]"},
	{"[[::1]]"},
	{"::1/129"},
	{"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
	{"1111111111111111111111111111111111111111111111111111111111111111"},
};

START_TEST(rule_grammar)
{
	struct rules rules;
	const char *why;
	uint8_t ip[16];

	rules_init(&rules);
	why = rules_add(&rules, grammar[_i].text, RULES_ALLOW);
	if (!grammar[_i].ip) {
		ck_assert_msg(why, "%s was taken", grammar[_i].text);
		ck_assert_uint_eq(rules.nr, 0);
		ck_assert(!rules.any_allow);
		return;
	}
	ck_assert_msg(!why, "%s: %s", grammar[_i].text, why);
	ck_assert_uint_eq(rules.nr, 1);
	memset(ip, 0, sizeof(ip));
	if (inet_pton(AF_INET, grammar[_i].ip, ip) == 1)
		ck_assert_int_eq(rules.rule[0].prefix.addr.family, AF_INET);
	else
		ck_assert_int_eq(inet_pton(AF_INET6, grammar[_i].ip, ip), 1);
	ck_assert_mem_eq(rules.rule[0].prefix.addr.ip, ip, 16);
	ck_assert_int_eq(rules.rule[0].prefix.bits, grammar[_i].bits);
	ck_assert_uint_eq(rules.rule[0].first_port, grammar[_i].first);
	ck_assert_uint_eq(rules.rule[0].last_port, grammar[_i].last);
	rules_free(&rules);
	ck_assert_uint_eq(rules.nr, 0);
}
END_TEST

/* ---- meaning ---- */

static struct ip_port dst(const char *ip, uint16_t port)
{
	struct ip_port addr;

	memset(&addr, 0, sizeof(addr));
	addr.port = port;
	addr.family = AF_INET;
	if (inet_pton(AF_INET, ip, addr.ip) != 1) {
		addr.family = AF_INET6;
		ck_assert_int_eq(inet_pton(AF_INET6, ip, addr.ip), 1);
	}
	return addr;
}

/* Rules are given as "+RULE" and "-RULE". */
static const struct {
	const char *rules[4];
	const char *ip;
	uint16_t port;
	bool allowed;
} meaning[] = {
	/* without rules */
	{{NULL}, "192.0.2.1", 80, true},
	{{NULL}, "::1", 80, true},
	/* only deny: the rest is allowed */
	{{"-10.0.0.0/8"}, "10.1.2.3", 80, false},
	{{"-10.0.0.0/8"}, "11.1.2.3", 80, true},
	{{"-10.0.0.0/8"}, "fd00::1", 80, true},
	/* any allow: the rest is denied */
	{{"+10.0.0.0/8:443"}, "10.1.2.3", 443, true},
	{{"+10.0.0.0/8:443"}, "10.1.2.3", 80, false},
	{{"+10.0.0.0/8:443"}, "11.1.2.3", 443, false},
	{{"+10.0.0.0/8:443"}, "::1", 443, false},
	/* the first that matches */
	{{"-10.0.0.1", "+10.0.0.0/8"}, "10.0.0.1", 1, false},
	{{"-10.0.0.1", "+10.0.0.0/8"}, "10.0.0.2", 1, true},
	{{"+10.0.0.1", "-10.0.0.0/8"}, "10.0.0.1", 1, true},
	{{"+10.0.0.1", "-10.0.0.0/8"}, "10.0.0.2", 1, false},
	{{"-[::]/0:1-1023", "+fd00::/8"}, "fd00::1", 1023, false},
	{{"-[::]/0:1-1023", "+fd00::/8"}, "fd00::1", 1024, true},
	/* other spellings of the same address */
	{{"-127.0.0.0/8"}, "::ffff:127.0.0.1", 80, false},
	{{"-::ffff:127.0.0.0/104"}, "127.0.0.1", 80, false},
	{{"-127.0.0.0/8"}, "0.0.0.0", 80, false},
	{{"-0.0.0.0"}, "0.0.0.0", 80, false},
	{{"-0.0.0.0"}, "127.0.0.1", 80, true},
	{{"-::1"}, "::", 80, false},
	{{"-::"}, "::", 80, false},
	{{"-127.0.0.1"}, "::ffff:0.0.0.0", 80, false},
	{{"+127.0.0.1", "+0.0.0.0"}, "0.0.0.0", 80, true},
	{{"+127.0.0.1"}, "0.0.0.0", 80, false},
};

START_TEST(rule_meaning)
{
	struct ip_port addr = dst(meaning[_i].ip, meaning[_i].port);
	struct rules rules;

	rules_init(&rules);
	for (int i = 0; meaning[_i].rules[i]; i++)
		ck_assert_ptr_null(rules_add(&rules, meaning[_i].rules[i] + 1,
			meaning[_i].rules[i][0] == '+' ? RULES_ALLOW
						       : RULES_DENY));
	ck_assert_int_eq(rules_allow(&rules, &addr), meaning[_i].allowed);
	rules_free(&rules);
}
END_TEST

START_TEST(canonical_addresses)
{
	static const char *const pairs[][2] = {
		{"192.0.2.1", "192.0.2.1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{"0.0.0.0", "127.0.0.1"},
		{"::ffff:0.0.0.0", "127.0.0.1"},
		{"::", "::1"},
		{"2001:db8::1", "2001:db8::1"},
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct ip_port a = dst(pairs[i][0], 7);
		struct ip_port want = dst(pairs[i][1], 7);

		rules_canonical(&a);
		ck_assert(ip_port_equal(&a, &want));
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proxy rules");
	TCase *tc = tcase_create("rules");

	tcase_add_loop_test(tc, rule_grammar, 0,
		(int)(sizeof(grammar) / sizeof(grammar[0])));
	tcase_add_loop_test(tc, rule_meaning, 0,
		(int)(sizeof(meaning) / sizeof(meaning[0])));
	tcase_add_test(tc, canonical_addresses);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
