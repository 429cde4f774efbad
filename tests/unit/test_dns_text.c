/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/servers.h"
#include "suite.h"
#include "test_dns_wire.h"

#include <stdio.h>
#include <stdlib.h>

/* The servers that options and log lines speak of. */

static struct socks5_addr out[3];
static unsigned nr;

START_TEST(good_servers)
{
	static const struct {
		const char *text, *back;
	} good[] = {
		{"10.0.0.2", "10.0.0.2:53"},
		{"10.0.0.2:5353", "10.0.0.2:5353"},
		{"2001:db8::53", "[2001:db8::53]:53"},
		{"[2001:db8::53]", "[2001:db8::53]:53"},
		{"[2001:db8::53]:5353", "[2001:db8::53]:5353"},
		{"ns.example", "ns.example:53"},
		{"ns.example:1", "ns.example:1"},
		{"ns-1_x.example.:65535", "ns-1_x.example.:65535"},
		{DNS_HOST_RESOLVER, "resolver.proxy.internal:53"},
	};
	char text[DNS_SERVER_STRLEN];

	ck_assert_ptr_null(dns_servers_parse(out, 3, &nr, good[_i].text));
	ck_assert_uint_eq(nr, 1);
	dns_server_format(&out[0], text, sizeof(text));
	ck_assert_str_eq(text, good[_i].back);
	ck_assert_ptr_null(dns_servers_parse(out, 3, &nr, text));
	dns_server_format(&out[0], text, sizeof(text));
	ck_assert_str_eq(text, good[_i].back);
}
END_TEST

START_TEST(bad_servers)
{
	static const char *const bad[] = {"", ",", "10.0.0.2,", ",10.0.0.2",
		"10.0.0.2:", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0.2:x",
		"10.0.0.0/8", "10.0.0", "300.1.1.1", "[10.0.0.2]:53",
		"[2001:db8::53", "[2001:db8::53]53", "[ns.example]", "[]",
		"a b", "a..b", ".a", "ns/1", "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4"};

	ck_assert_ptr_nonnull(dns_servers_parse(out, 3, &nr, bad[_i]));
}
END_TEST

START_TEST(several)
{
	ck_assert_ptr_null(
		dns_servers_parse(out, 3, &nr, "10.0.0.2,ns.example:54,::1"));
	ck_assert_uint_eq(nr, 3);
	ck_assert_uint_eq(out[1].addr.port, 54);
	ck_assert_uint_eq(out[1].name_len, 10);
	ck_assert_uint_eq(out[2].addr.family, AF_INET6);
}
END_TEST

START_TEST(listen_addresses)
{
	struct ip_port addrs[2];

	ck_assert_ptr_null(
		dns_listen_parse(addrs, 2, &nr, "127.0.0.1,[::1]:5353"));
	ck_assert_uint_eq(nr, 2);
	ck_assert_uint_eq(addrs[0].port, 53);
	ck_assert_uint_eq(addrs[1].port, 5353);
	ck_assert_ptr_nonnull(dns_listen_parse(addrs, 2, &nr, "localhost"));
	ck_assert_ptr_nonnull(dns_listen_parse(addrs, 2, &nr, "::1,::2,::3"));
}
END_TEST

START_TEST(longest_name)
{
	char text[300];
	char back[DNS_SERVER_STRLEN];

	memset(text, 'a', sizeof(text));
	text[253] = '\0';
	ck_assert_ptr_null(dns_servers_parse(out, 3, &nr, text));
	dns_server_format(&out[0], back, sizeof(back));
	ck_assert_uint_eq(strlen(back), 253 + 3);
	text[253] = 'a';
	text[254] = '\0';
	ck_assert_ptr_nonnull(dns_servers_parse(out, 3, &nr, text));
}
END_TEST

START_TEST(host_resolver)
{
	struct socks5_addr server;

	dns_server_host_resolver(&server);
	ck_assert_str_eq(server.name, DNS_HOST_RESOLVER);
	ck_assert_uint_eq(server.name_len, strlen(DNS_HOST_RESOLVER));
	ck_assert_uint_eq(server.addr.family, AF_UNSPEC);
	ck_assert_uint_eq(server.addr.port, 53);
}
END_TEST

START_TEST(host_resolvers)
{
	static const struct {
		const char *from, *to;
		unsigned max;
	} table[] = {
		{DNS_HOST_RESOLVER,
			DNS_HOST_RESOLVER ":53,2." DNS_HOST_RESOLVER
					  ":53,3." DNS_HOST_RESOLVER ":53",
			8},
		{DNS_HOST_RESOLVER ",10.0.0.2",
			DNS_HOST_RESOLVER ":53,2." DNS_HOST_RESOLVER
					  ":53,10.0.0.2:53",
			3},
		{"10.0.0.2," DNS_HOST_RESOLVER,
			"10.0.0.2:53," DNS_HOST_RESOLVER ":53", 2},
		{DNS_HOST_RESOLVER ":54", DNS_HOST_RESOLVER ":54", 8},
		{"10.0.0.2", "10.0.0.2:53", 8},
	};
	struct socks5_addr servers[8];
	char text[8 * DNS_SERVER_STRLEN] = "";
	char one[DNS_SERVER_STRLEN];

	ck_assert_ptr_null(dns_servers_parse(servers, 8, &nr, table[_i].from));
	nr = dns_servers_spread(servers, table[_i].max, nr);
	ck_assert_uint_le(nr, table[_i].max);
	for (unsigned i = 0; i < nr; i++) {
		ck_assert_uint_eq(servers[i].name_len, strlen(servers[i].name));
		dns_server_format(&servers[i], one, sizeof(one));
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			"%s%s", i ? "," : "", one);
	}
	ck_assert_str_eq(text, table[_i].to);
}
END_TEST

START_TEST(servers_key)
{
	static const char *const texts[] = {"10.0.0.2", "10.0.0.2:54",
		"10.0.0.2,10.0.0.3", "10.0.0.3,10.0.0.2", DNS_HOST_RESOLVER,
		"ns.test", "ns.test,ns.test"};
	static const uint8_t none[DNS_SERVERS_KEY];
	uint8_t keys[7][DNS_SERVERS_KEY], again[DNS_SERVERS_KEY];

	for (int i = 0; i < 7; i++) {
		ck_assert_ptr_null(dns_servers_parse(out, 3, &nr, texts[i]));
		dns_servers_key(keys[i], out, nr);
		dns_servers_key(again, out, nr);
		ck_assert_mem_eq(keys[i], again, sizeof(again));
		ck_assert_mem_ne(keys[i], none, sizeof(none));
		for (int j = 0; j < i; j++)
			ck_assert_mem_ne(keys[i], keys[j], sizeof(again));
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dns_text");
	TCase *tc = tcase_create("dns_text");

	tcase_add_loop_test(tc, good_servers, 0, 9);
	tcase_add_loop_test(tc, bad_servers, 0, 21);
	tcase_add_test(tc, several);
	tcase_add_test(tc, listen_addresses);
	tcase_add_test(tc, longest_name);
	tcase_add_test(tc, host_resolver);
	tcase_add_loop_test(tc, host_resolvers, 0, 5);
	tcase_add_test(tc, servers_key);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
