/* SPDX-License-Identifier: Apache-2.0 */
#include "common/sockaddr.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * Addresses are written as text, made with the C library, and compared with
 * what the module makes of them: whole, cut to every length, unaligned,
 * v4-mapped. Prefixes are tried on both sides of every bit.
 */

#define NR(table) (sizeof(table) / sizeof((table)[0]))

static struct ip_port ip(const char *text, uint16_t port)
{
	struct ip_port addr = {.port = port};

	addr.family = strchr(text, ':') ? AF_INET6 : AF_INET;
	ck_assert_int_eq(inet_pton(addr.family, text, addr.ip), 1);
	return addr;
}

static const char *text_of(const struct ip_port *addr)
{
	static char buf[IP_PORT_STRLEN];

	return ip_port_format(addr, buf, sizeof(buf));
}

/* ---- the kernel's form ---- */

START_TEST(sockaddr_round_trip)
{
	static const char *const texts[] = {"0.0.0.0", "127.0.0.1",
		"255.255.255.255", "::", "::1", "2001:db8::1",
		"::ffff:192.0.2.1"};
	static const uint16_t ports[] = {0, 1, 80, 256, 65535};
	union sockaddr_any any;
	struct ip_port out;

	for (size_t i = 0; i < NR(texts); i++) {
		for (size_t j = 0; j < NR(ports); j++) {
			struct ip_port addr = ip(texts[i], ports[j]);
			socklen_t len;

			memset(&any, 0xa5, sizeof(any));
			len = ip_port_to_sockaddr(&addr, &any);
			ck_assert_uint_eq(len, addr.family == AF_INET
						       ? sizeof(any.in)
						       : sizeof(any.in6));
			ck_assert_int_eq(any.sa.sa_family, addr.family);
			memset(&out, 0xa5, sizeof(out));
			ck_assert_int_eq(
				ip_port_from_sockaddr(&out, &any.sa, len), 0);
			ck_assert(ip_port_equal(&out, &addr));
		}
	}
}
END_TEST

START_TEST(sockaddr_byte_order)
{
	struct ip_port addr = ip("1.2.3.4", 0x1234);
	union sockaddr_any any;

	ip_port_to_sockaddr(&addr, &any);
	ck_assert_mem_eq(&any.in.sin_port, "\x12\x34", 2);
	ck_assert_mem_eq(&any.in.sin_addr, "\x01\x02\x03\x04", 4);
	addr = ip("102:304::5", 0x1234);
	addr.scope = 7;
	ip_port_to_sockaddr(&addr, &any);
	ck_assert_mem_eq(&any.in6.sin6_port, "\x12\x34", 2);
	ck_assert_mem_eq(&any.in6.sin6_addr, "\x01\x02\x03\x04", 4);
	ck_assert_uint_eq(any.in6.sin6_scope_id, 7);
	ck_assert_uint_eq(any.in6.sin6_flowinfo, 0);
}
END_TEST

START_TEST(sockaddr_of_none)
{
	struct ip_port addr = {.family = AF_UNSPEC, .port = 80};
	struct sockaddr_in zero = {.sin_family = AF_INET};
	union sockaddr_any any;

	memset(addr.ip, 0xa5, sizeof(addr.ip));
	memset(&any, 0xa5, sizeof(any));
	ck_assert_uint_eq(ip_port_to_sockaddr(&addr, &any), sizeof(any.in));
	ck_assert_mem_eq(&any.in, &zero, sizeof(zero));
}
END_TEST

/* Take the first @len bytes, and not one more, from an odd address. */
static int from_cut(struct ip_port *out, const void *sa, size_t len)
{
	uint8_t *exact = malloc(len + 1);
	int ret;

	ck_assert_ptr_nonnull(exact);
	memcpy(exact + 1, sa, len);
	memset(out, 0xa5, sizeof(*out));
	ret = ip_port_from_sockaddr(out, (void *)(exact + 1), (socklen_t)len);
	free(exact);
	return ret;
}

START_TEST(sockaddr_cut_at_every_byte)
{
	struct ip_port v4 = ip("192.0.2.1", 80), v6 = ip("fe80::1", 443);
	struct ip_port out, no_scope = v6;
	union sockaddr_any any;

	ip_port_to_sockaddr(&v4, &any);
	for (size_t len = 0; len <= sizeof(any); len++) {
		ck_assert_int_eq(from_cut(&out, &any, len),
			len < sizeof(any.in) ? -1 : 0);
		ck_assert_int_eq(
			out.family, len < sizeof(any.in) ? AF_UNSPEC : AF_INET);
		if (len >= sizeof(any.in))
			ck_assert(ip_port_equal(&out, &v4));
	}
	v6.scope = 5;
	ip_port_to_sockaddr(&v6, &any);
	for (size_t len = 0; len <= sizeof(any); len++) {
		ck_assert_int_eq(from_cut(&out, &any, len), len < 24 ? -1 : 0);
		if (len < 24)
			ck_assert_int_eq(out.family, AF_UNSPEC);
		else if (len < sizeof(any.in6))
			ck_assert(ip_port_equal(&out, &no_scope));
		else
			ck_assert(ip_port_equal(&out, &v6));
	}
}
END_TEST

START_TEST(sockaddr_of_other_families)
{
	union sockaddr_any any;
	struct ip_port out;

	for (int family = 0; family < 64; family++) {
		memset(&any, 0xa5, sizeof(any));
		any.sa.sa_family = (sa_family_t)family;
		if (family == AF_INET || family == AF_INET6)
			continue;
		ck_assert_int_eq(
			ip_port_from_sockaddr(&out, &any.sa, sizeof(any)), -1);
		ck_assert_int_eq(out.family, AF_UNSPEC);
	}
	memset(&out, 0xa5, sizeof(out));
	ck_assert_int_eq(ip_port_from_sockaddr(&out, NULL, sizeof(any)), -1);
	ck_assert_int_eq(out.family, AF_UNSPEC);
	ck_assert_int_eq(ip_port_from_sockaddr(&out, NULL, 0), -1);
}
END_TEST

/* sin_zero is not ours to look at; applications leave rubbish there. */
START_TEST(sockaddr_padding_is_ignored)
{
	struct ip_port addr = ip("192.0.2.1", 80), out;
	union sockaddr_any any;

	ip_port_to_sockaddr(&addr, &any);
	memset(any.in.sin_zero, 0xa5, sizeof(any.in.sin_zero));
	ck_assert_int_eq(
		ip_port_from_sockaddr(&out, &any.sa, sizeof(any.in)), 0);
	ck_assert(ip_port_equal(&out, &addr));
}
END_TEST

/* ---- v4-mapped ---- */

START_TEST(map_and_unmap)
{
	struct ip_port v4 = ip("192.0.2.1", 80);
	struct ip_port mapped = ip("::ffff:192.0.2.1", 80);
	struct ip_port addr = v4;

	ip_port_map(&addr);
	ck_assert(ip_port_equal(&addr, &mapped));
	ip_port_map(&addr);
	ck_assert(ip_port_equal(&addr, &mapped));
	ip_port_unmap(&addr);
	ck_assert(ip_port_equal(&addr, &v4));
	ip_port_unmap(&addr);
	ck_assert(ip_port_equal(&addr, &v4));
	/* an IPv4 address has no scope to keep */
	mapped.scope = 3;
	ip_port_unmap(&mapped);
	ck_assert(ip_port_equal(&mapped, &v4));
}
END_TEST

START_TEST(unmap_leaves_others)
{
	static const char *const texts[] = {"::", "::1", "::192.0.2.1",
		"::fffe:192.0.2.1", "::1:ffff:192.0.2.1", "64:ff9b::192.0.2.1",
		"ffff::", "1::ffff:192.0.2.1"};

	for (size_t i = 0; i < NR(texts); i++) {
		struct ip_port addr = ip(texts[i], 80), before = addr;

		ip_port_unmap(&addr);
		ck_assert_msg(ip_port_equal(&addr, &before), "%s", texts[i]);
	}
}
END_TEST

START_TEST(map_leaves_none)
{
	struct ip_port addr = {.port = 80}, before = addr;

	ip_port_map(&addr);
	ck_assert(ip_port_equal(&addr, &before));
	ip_port_unmap(&addr);
	ck_assert(ip_port_equal(&addr, &before));
}
END_TEST

START_TEST(loopback_and_any)
{
	static const struct {
		const char *text;
		bool loopback, any;
	} table[] = {
		{"127.0.0.0", true, false},
		{"127.0.0.1", true, false},
		{"127.255.255.255", true, false},
		{"126.255.255.255", false, false},
		{"128.0.0.0", false, false},
		{"0.0.0.0", false, true},
		{"0.0.0.1", false, false},
		{"1.0.0.0", false, false},
		{"::1", true, false},
		{"::", false, true},
		{"::2", false, false},
		{"1::1", false, false},
		{"::ffff:127.0.0.1", true, false},
		{"::ffff:127.9.9.9", true, false},
		{"::ffff:126.0.0.1", false, false},
		{"::ffff:0.0.0.0", false, true},
		{"::ffff:0.0.0.1", false, false},
		/* "compatible", not mapped: the kernel has no such loopback */
		{"::127.0.0.1", false, false},
		{"7f00::1", false, false},
		{"fe80::1", false, false},
	};
	struct ip_port none = {.port = 80};

	for (size_t i = 0; i < NR(table); i++) {
		struct ip_port addr = ip(table[i].text, 80), before = addr;

		ck_assert_msg(ip_port_is_loopback(&addr) == table[i].loopback,
			"%s", table[i].text);
		ck_assert_msg(ip_port_is_any(&addr) == table[i].any, "%s",
			table[i].text);
		ck_assert(ip_port_equal(&addr, &before));
	}
	ck_assert(!ip_port_is_loopback(&none));
	ck_assert(!ip_port_is_any(&none));
}
END_TEST

START_TEST(equal_looks_at_everything)
{
	struct ip_port a = ip("2001:db8::1", 80);
	struct ip_port b = a;

	ck_assert(ip_port_equal(&a, &b));
	b.port = 81;
	ck_assert(!ip_port_equal(&a, &b));
	b = a;
	b.scope = 1;
	ck_assert(!ip_port_equal(&a, &b));
	b = a;
	b.ip[15] = 2;
	ck_assert(!ip_port_equal(&a, &b));
	b = a;
	b.family = AF_INET;
	ck_assert(!ip_port_equal(&a, &b));
}
END_TEST

/* ---- text ---- */

START_TEST(format_each_family)
{
	struct ip_port addr = ip("192.0.2.1", 80);

	ck_assert_str_eq(text_of(&addr), "192.0.2.1:80");
	addr = ip("255.255.255.255", 65535);
	ck_assert_str_eq(text_of(&addr), "255.255.255.255:65535");
	addr = ip("2001:db8::1", 0);
	ck_assert_str_eq(text_of(&addr), "[2001:db8::1]:0");
	addr = ip("::ffff:192.0.2.1", 1);
	ck_assert_str_eq(text_of(&addr), "[::ffff:192.0.2.1]:1");
	addr = ip("fe80::1", 1);
	addr.scope = 4294967295;
	ck_assert_str_eq(text_of(&addr), "[fe80::1%4294967295]:1");
	addr = (struct ip_port){.port = 80};
	ck_assert_str_eq(text_of(&addr), "-");
}
END_TEST

START_TEST(format_into_any_size)
{
	struct ip_port addr = {
		.family = AF_INET6, .port = 65535, .scope = UINT32_MAX};
	char buf[IP_PORT_STRLEN + 1];

	memset(addr.ip, 0xff, sizeof(addr.ip));
	ck_assert_uint_lt(strlen(text_of(&addr)), IP_PORT_STRLEN - 1);
	for (size_t size = 1; size <= IP_PORT_STRLEN; size++) {
		memset(buf, 0xa5, sizeof(buf));
		ck_assert_ptr_eq(ip_port_format(&addr, buf, size), buf);
		ck_assert_ptr_nonnull(memchr(buf, '\0', size));
		ck_assert_uint_eq((uint8_t)buf[size], 0xa5);
	}
}
END_TEST

/* ---- prefixes ---- */

/* As parsed from an allocation of the text's size, without a NUL. */
static int prefix_of(struct ip_prefix *out, const char *text, size_t len)
{
	char *exact = malloc(len ? len : 1);
	int ret;

	ck_assert_ptr_nonnull(exact);
	memcpy(exact, text, len);
	memset(out, 0xa5, sizeof(*out));
	ret = ip_prefix_parse(out, exact, len);
	free(exact);
	return ret;
}

static struct ip_prefix prefix(const char *text)
{
	struct ip_prefix out;

	ck_assert_msg(prefix_of(&out, text, strlen(text)) == 0, "%s", text);
	return out;
}

static bool matches(const char *block, const char *text)
{
	struct ip_prefix p = prefix(block);
	struct ip_port addr = ip(text, 80);

	return ip_prefix_match(&p, &addr);
}

START_TEST(prefix_valid)
{
	static const struct {
		const char *text;
		int family;
		unsigned int bits;
	} table[] = {
		{"10.0.0.0/8", AF_INET, 8},
		{"10.0.0.0/0", AF_INET, 0},
		{"10.0.0.0/32", AF_INET, 32},
		{"10.0.0.0", AF_INET, 32},
		{"10.1.2.3/8", AF_INET, 8},
		{"10.0.0.0/08", AF_INET, 8},
		{"::/0", AF_INET6, 0},
		{"::1", AF_INET6, 128},
		{"fd00::/8", AF_INET6, 8},
		{"2001:db8::/128", AF_INET6, 128},
	};

	for (size_t i = 0; i < NR(table); i++) {
		struct ip_prefix p = prefix(table[i].text);

		ck_assert_int_eq(p.addr.family, table[i].family);
		ck_assert_uint_eq(p.bits, table[i].bits);
		ck_assert_uint_eq(p.addr.port, 0);
		ck_assert_uint_eq(p.addr.scope, 0);
	}
}
END_TEST

START_TEST(prefix_invalid)
{
	static const char *const table[] = {"", "/", "/8", "10.0.0.0/",
		"10.0.0.0/33", "10.0.0.0/256", "10.0.0.0/264", "10.0.0.0/-1",
		"10.0.0.0/+8", "10.0.0.0/ 8", "10.0.0.0/8 ", "10.0.0.0/8/8",
		"10.0.0.0/255.0.0.0", "10.0.0/8", "10/8", "10.0.0.0.0/8",
		" 10.0.0.0/8", "256.0.0.0/8", "10.0.0.x/8", "::/129", "::/-1",
		"::/", ":/8", ":::/8", "[::1]/128", "fe80::1%lo/64",
		"1:2:3:4:5:6:7:8:9/8", "localhost", "localhost/8", "any",
		"10.0.0.0/99999999999999999999",
		"0000:0000:0000:0000:0000:ffff:255.255.255.2555/8"};
	struct ip_prefix out;

	for (size_t i = 0; i < NR(table); i++)
		ck_assert_msg(prefix_of(&out, table[i], strlen(table[i])) == -1,
			"'%s' was taken", table[i]);
}
END_TEST

/* An item of a list: what follows is not the parser's. */
START_TEST(prefix_in_a_list)
{
	static const char list[] = "10.0.0.0/8,fd00::/8";
	struct ip_prefix out;

	ck_assert_int_eq(ip_prefix_parse(&out, list, 10), 0);
	ck_assert_int_eq(out.addr.family, AF_INET);
	ck_assert_uint_eq(out.bits, 8);
	ck_assert_int_eq(ip_prefix_parse(&out, list + 11, 8), 0);
	ck_assert_int_eq(out.addr.family, AF_INET6);
	ck_assert_int_eq(ip_prefix_parse(&out, list, 9), -1);
	ck_assert_int_eq(ip_prefix_parse(&out, list, 8), 0);
	ck_assert_uint_eq(out.bits, 32);
	ck_assert_int_eq(ip_prefix_parse(&out, list, sizeof(list) - 1), -1);
}
END_TEST

/* A NUL within the length is a byte like any other, not the end. */
START_TEST(prefix_with_nul)
{
	static const char whole[] = "10.0.0.0\0x/8";
	struct ip_prefix out;

	ck_assert_int_eq(prefix_of(&out, whole, sizeof(whole) - 1), -1);
	ck_assert_int_eq(prefix_of(&out, whole, 9), -1);
	ck_assert_int_eq(prefix_of(&out, whole, 8), 0);
	ck_assert_int_eq(prefix_of(&out, "::\0/8", 5), -1);
	ck_assert_int_eq(prefix_of(&out, "10.0.0.0/8\0", 11), -1);
}
END_TEST

/* For every length: a change of the last bit inside is seen, of the first bit
 * outside not. */
static void check_every_bit(struct ip_port addr, unsigned int width)
{
	for (unsigned int bits = 0; bits <= width; bits++) {
		struct ip_prefix p = {.addr = addr, .bits = (uint8_t)bits};

		p.addr.port = 0;
		ck_assert(ip_prefix_match(&p, &addr));
		for (unsigned int bit = 0; bit < width; bit++) {
			struct ip_port other = addr;

			other.ip[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
			ck_assert_msg(
				ip_prefix_match(&p, &other) == (bit >= bits),
				"/%u, bit %u", bits, bit);
		}
	}
}

START_TEST(prefix_every_bit)
{
	check_every_bit(ip("10.0.0.1", 80), 32);
	check_every_bit(ip("255.255.255.255", 80), 32);
	check_every_bit(ip("2001:db8::1", 80), 128);
	check_every_bit(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 80), 128);
}
END_TEST

START_TEST(prefix_boundaries)
{
	ck_assert(matches("10.0.0.0/8", "10.0.0.0"));
	ck_assert(matches("10.0.0.0/8", "10.255.255.255"));
	ck_assert(!matches("10.0.0.0/8", "9.255.255.255"));
	ck_assert(!matches("10.0.0.0/8", "11.0.0.0"));
	ck_assert(matches("172.16.0.0/12", "172.31.255.255"));
	ck_assert(!matches("172.16.0.0/12", "172.32.0.0"));
	ck_assert(!matches("172.16.0.0/12", "172.15.255.255"));
	ck_assert(matches("192.0.2.1", "192.0.2.1"));
	ck_assert(!matches("192.0.2.1", "192.0.2.0"));
	/* host bits are ignored */
	ck_assert(matches("172.31.9.9/12", "172.16.0.0"));
	ck_assert(matches("0.0.0.0/0", "255.255.255.255"));
	ck_assert(matches("fd00::/8", "fdff:ffff::1"));
	ck_assert(!matches("fd00::/8", "fe00::"));
	ck_assert(matches("2001:db8::/33", "2001:db8:7fff::"));
	ck_assert(!matches("2001:db8::/33", "2001:db8:8000::"));
	ck_assert(matches("::/0", "2001:db8::1"));
}
END_TEST

START_TEST(prefix_families)
{
	struct ip_prefix all4 = prefix("0.0.0.0/0"), all6 = prefix("::/0");
	struct ip_port none = {.family = AF_UNSPEC};
	struct ip_port v4 = ip("192.0.2.1", 80), v6 = ip("2001:db8::1", 80);

	ck_assert(!ip_prefix_match(&all4, &none));
	ck_assert(!ip_prefix_match(&all6, &none));
	ck_assert(!ip_prefix_match(&all4, &v6));
	ck_assert(!ip_prefix_match(&all6, &v4));
}
END_TEST

START_TEST(prefix_of_mapped_addresses)
{
	ck_assert(matches("10.0.0.0/8", "::ffff:10.1.2.3"));
	ck_assert(!matches("10.0.0.0/8", "::ffff:11.1.2.3"));
	ck_assert(!matches("10.0.0.0/8", "::10.1.2.3"));
	ck_assert(matches("0.0.0.0/0", "::ffff:10.1.2.3"));
	ck_assert(!matches("0.0.0.0/0", "::1"));
	ck_assert(matches("::ffff:0:0/96", "::ffff:10.1.2.3"));
	ck_assert(matches("::ffff:10.0.0.0/104", "::ffff:10.1.2.3"));
	ck_assert(!matches("::ffff:10.0.0.0/104", "::ffff:11.1.2.3"));
}
END_TEST

/* One address, two ways to write it, one answer: on both sides. */
START_TEST(prefix_sees_mapped_as_ipv4)
{
	ck_assert(matches("::ffff:0:0/96", "10.1.2.3"));
	ck_assert(!matches("::ffff:0:0/96", "2001:db8::1"));
	ck_assert(matches("::ffff:10.0.0.0/104", "10.1.2.3"));
	ck_assert(!matches("::ffff:10.0.0.0/104", "11.1.2.3"));
	ck_assert(matches("::ffff:10.1.2.3", "10.1.2.3"));
	ck_assert(!matches("::ffff:10.1.2.3", "10.1.2.2"));
	/* so a block of IPv6 addresses holds none of IPv4 */
	ck_assert(!matches("::/0", "::ffff:10.1.2.3"));
	ck_assert(!matches("::/0", "10.1.2.3"));
	ck_assert(!matches("::ffff:10.0.0.0/95", "::ffff:10.1.2.3"));
	ck_assert(matches("::ffff:10.0.0.0/95", "::fffe:10.1.2.3"));
}
END_TEST

static TCase *addresses_case(void)
{
	TCase *tc = tcase_create("addresses");

	tcase_add_test(tc, sockaddr_round_trip);
	tcase_add_test(tc, sockaddr_byte_order);
	tcase_add_test(tc, sockaddr_of_none);
	tcase_add_test(tc, sockaddr_cut_at_every_byte);
	tcase_add_test(tc, sockaddr_of_other_families);
	tcase_add_test(tc, sockaddr_padding_is_ignored);
	tcase_add_test(tc, map_and_unmap);
	tcase_add_test(tc, unmap_leaves_others);
	tcase_add_test(tc, map_leaves_none);
	tcase_add_test(tc, loopback_and_any);
	tcase_add_test(tc, equal_looks_at_everything);
	tcase_add_test(tc, format_each_family);
	tcase_add_test(tc, format_into_any_size);
	return tc;
}

static TCase *prefixes_case(void)
{
	TCase *tc = tcase_create("prefixes");

	tcase_add_test(tc, prefix_valid);
	tcase_add_test(tc, prefix_invalid);
	tcase_add_test(tc, prefix_in_a_list);
	tcase_add_test(tc, prefix_with_nul);
	tcase_add_test(tc, prefix_every_bit);
	tcase_add_test(tc, prefix_boundaries);
	tcase_add_test(tc, prefix_families);
	tcase_add_test(tc, prefix_of_mapped_addresses);
	tcase_add_test(tc, prefix_sees_mapped_as_ipv4);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("common/sockaddr");

	suite_add_tcase(suite, addresses_case());
	suite_add_tcase(suite, prefixes_case());
	return suite_run(suite);
}
