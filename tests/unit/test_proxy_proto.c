/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyproto.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * As with SOCKS5: each valid header is parsed in every prefix, each in an
 * allocation of its exact size, and with payload behind it. Each invalid one
 * carries the length from which on it must be refused; one byte less still
 * could have become a header.
 */

#define SIG "\r\n\r\n\0\r\nQUIT\n"

static const struct proxyproto_addrs none;

static struct ip_port address(const char *ip, uint16_t port)
{
	struct ip_port addr;

	memset(&addr, 0, sizeof(addr));
	if (!ip)
		return addr;
	addr.family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	addr.port = port;
	ck_assert_int_eq(inet_pton(addr.family, ip, addr.ip), 1);
	return addr;
}

static ssize_t parse(
	const uint8_t *buf, size_t len, struct proxyproto_addrs *out)
{
	uint8_t *exact = malloc(len ? len : 1);
	ssize_t n;

	ck_assert_ptr_nonnull(exact);
	memcpy(exact, buf, len);
	n = proxyproto_parse(exact, len, out);
	free(exact);
	return n;
}

static void expect_addrs(
	const struct proxyproto_addrs *got, const struct proxyproto_addrs *want)
{
	ck_assert(ip_port_equal(&got->src, &want->src));
	ck_assert(ip_port_equal(&got->dst, &want->dst));
}

/* @len bytes at @buf are a header and say @want. */
static void check_valid(
	const uint8_t *buf, size_t len, const struct proxyproto_addrs *want)
{
	struct proxyproto_addrs got = none;
	uint8_t *more = malloc(len + 64);

	ck_assert_ptr_nonnull(more);
	for (size_t part = 0; part < len; part++) {
		ck_assert_msg(parse(buf, part, &got) == 0, "after %zu", part);
		expect_addrs(&got, &none);
	}
	ck_assert_int_eq(parse(buf, len, &got), (ssize_t)len);
	expect_addrs(&got, want);
	memcpy(more, buf, len);
	memset(more + len, '\n', 64);
	ck_assert_int_eq(parse(more, len + 64, &got), (ssize_t)len);
	expect_addrs(&got, want);
	free(more);
}

/* ---- what is written, and read back ---- */

static const struct {
	const char *src, *dst; /* NULL: not known */
	const char *v1;
	int v2_len;
	const char *v2; /* behind the signature */
} headers[] = {
	{"192.0.2.1", "198.51.100.2",
		"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", 16,
		"\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01"
		"\xbb"},
	{"2001:db8::1", "::1", "PROXY TCP6 2001:db8::1 ::1 56324 443\r\n", 40,
		"\x21\x21\x00\x24"
		"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"
		"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xdc\x04\x01\xbb"},
	{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 56324 443\r\n",
		0, NULL},
	{NULL, NULL, "PROXY UNKNOWN\r\n", 4, "\x21\x00\x00\x00"},
};
#define NR_HEADERS ((int)(sizeof(headers) / sizeof(headers[0])))

START_TEST(both_ways)
{
	struct proxyproto_addrs addrs = {
		address(headers[_i].src, 56324), address(headers[_i].dst, 443)};
	uint8_t buf[PROXYPROTO_WRITE_MAX];
	size_t len = proxyproto_write(buf, PROXYPROTO_V1, &addrs);

	ck_assert_uint_eq(len, strlen(headers[_i].v1));
	ck_assert_mem_eq(buf, headers[_i].v1, len);
	check_valid(buf, len, &addrs);
	len = proxyproto_write(buf, PROXYPROTO_V2, &addrs);
	ck_assert_mem_eq(buf, SIG, 12);
	if (headers[_i].v2) {
		ck_assert_uint_eq(len, 12 + (size_t)headers[_i].v2_len);
		ck_assert_mem_eq(buf + 12, headers[_i].v2, len - 12);
	}
	check_valid(buf, len, &addrs);
}
END_TEST

/* v4-mapped is IPv4, and families that differ meet in IPv6. */
START_TEST(families)
{
	struct proxyproto_addrs addrs = {
		address("::ffff:192.0.2.1", 1), address("192.0.2.2", 2)};
	static const char v4[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
	static const char v6[] =
		"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n";
	uint8_t buf[PROXYPROTO_WRITE_MAX];

	ck_assert_uint_eq(
		proxyproto_write(buf, PROXYPROTO_V1, &addrs), strlen(v4));
	ck_assert_mem_eq(buf, v4, strlen(v4));
	addrs.dst = address("2001:db8::2", 2);
	ck_assert_uint_eq(
		proxyproto_write(buf, PROXYPROTO_V1, &addrs), strlen(v6));
	ck_assert_mem_eq(buf, v6, strlen(v6));
	addrs.dst = address(NULL, 0);
	ck_assert_uint_eq(proxyproto_write(buf, PROXYPROTO_V1, &addrs), 15);
	ck_assert_uint_eq(proxyproto_write(buf, PROXYPROTO_V2, &addrs), 16);
}
END_TEST

/* ---- what others write ---- */

START_TEST(v1_unknown_with_anything)
{
	static const char line[] =
		"PROXY UNKNOWN ffff:f::1 whatever 65535 x\r\n";

	check_valid((const uint8_t *)line, strlen(line), &none);
}
END_TEST

/* Family, length, and whether there are addresses in it for us. */
START_TEST(v2_families)
{
	static const struct {
		uint8_t command, family;
		uint16_t len;
		bool known;
	} cases[] = {
		{0x20, 0x00, 0, false},   /* LOCAL */
		{0x20, 0x11, 12, false},  /* LOCAL, addresses do not count */
		{0x20, 0x77, 5, false},   /* LOCAL, nor does the family */
		{0x21, 0x00, 0, false},   /* UNSPEC */
		{0x21, 0x00, 99, false},  /* UNSPEC with whatever */
		{0x21, 0x11, 12, true},   /* TCP4 */
		{0x21, 0x11, 500, true},  /* TCP4 and TLVs */
		{0x21, 0x21, 36, true},   /* TCP6 */
		{0x21, 0x21, 4080, true}, /* as long as it may be */
		{0x21, 0x31, 216, false}, /* unix */
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		static uint8_t buf[PROXYPROTO_MAX];
		struct proxyproto_addrs want = none;

		memcpy(buf, SIG, 12);
		buf[12] = cases[i].command;
		buf[13] = cases[i].family;
		buf[14] = (uint8_t)(cases[i].len >> 8);
		buf[15] = (uint8_t)(cases[i].len & 0xff);
		memset(buf + 16, 1, cases[i].len);
		if (cases[i].known) {
			want.src = address(cases[i].family == 0x11
						   ? "1.1.1.1"
						   : "101:101:101:101:101:101:"
						     "101:101",
				0x101);
			want.dst = want.src;
		}
		check_valid(buf, 16u + cases[i].len, &want);
	}
}
END_TEST

/* ---- hostile input ---- */

/* How many bytes it takes to know that it is none; -1: the whole. */
static const struct {
	int from;
	const char *text;
} bad_v1[] = {
	{1, "GET / HTTP/1.1\r\n"},
	{1, "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n"},
	{3, "PRI * HTTP/2.0\r\n"},
	{6, "PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n"},
	{-1, "PROXY \r\n"},
	{-1, "PROXY \n"},
	{-1, "PROXY TCP4\r\n"},
	{-1, "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n"},
	{-1, "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n"},
	{-1, "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n"},
	{-1, "PROXY TCP4 1.2.3.4 1.2.3.4 1 -2\r\n"},
	{-1, "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n"},
	{-1, "PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n"},
	{-1, "PROXY TCP4 ::1 ::1 1 2\r\n"},
	{-1, "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n"},
	{-1, "PROXY TCP6 ::1%lo ::1 1 2\r\n"},
	{-1, "PROXY UNKNOWNX\r\n"},
	{107, "PROXY UNKNOWN aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
};

START_TEST(refused_v1)
{
	const uint8_t *text = (const uint8_t *)bad_v1[_i].text;
	size_t from = strlen(bad_v1[_i].text);
	struct proxyproto_addrs got = none;

	if (bad_v1[_i].from != -1)
		from = (size_t)bad_v1[_i].from;
	ck_assert_int_eq(parse(text, from - 1, &got), 0);
	for (size_t len = from; len <= strlen(bad_v1[_i].text); len++)
		ck_assert_int_eq(parse(text, len, &got), -1);
	expect_addrs(&got, &none);
}
END_TEST

START_TEST(v1_with_a_nul)
{
	static const char line[] = "PROXY TCP4 1.2.3.4\0x 1.2.3.4 1 2\r\n";
	struct proxyproto_addrs got = none;

	ck_assert_int_eq(
		parse((const uint8_t *)line, sizeof(line) - 1, &got), -1);
}
END_TEST

START_TEST(refused_v2)
{
	static const struct {
		size_t from;
		uint8_t tail[4];
	} cases[] = {
		{13, {0x11, 0x11, 0, 12}}, /* version 1 */
		{13, {0x22, 0x11, 0, 12}}, /* unknown command */
		{13, {0x31, 0x11, 0, 12}}, /* version 3 */
		{16, {0x21, 0x11, 0, 11}}, /* too short for its addresses */
		{16, {0x21, 0x21, 0, 35}},
		{16, {0x21, 0x31, 0, 215}},
		{16, {0x21, 0x12, 0, 12}},      /* a datagram */
		{16, {0x21, 0x41, 0, 12}},      /* no such family */
		{16, {0x21, 0x01, 0, 12}},      /* UNSPEC, but a stream */
		{16, {0x21, 0x00, 0x0f, 0xf1}}, /* longer than we take */
		{16, {0x20, 0x00, 0xff, 0xff}},
	};
	uint8_t buf[16 + 8] = {0};
	struct proxyproto_addrs got = none;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memcpy(buf, SIG, 12);
		memcpy(buf + 12, cases[i].tail, 4);
		ck_assert_int_eq(parse(buf, cases[i].from - 1, &got), 0);
		for (size_t len = cases[i].from; len <= sizeof(buf); len++)
			ck_assert_msg(parse(buf, len, &got) == -1,
				"case %zu, %zu bytes", i, len);
	}
	for (size_t i = 0; i < 12; i++) {
		memcpy(buf, SIG, 12);
		buf[i] ^= 0x80;
		ck_assert_int_eq(parse(buf, i + 1, &got), -1);
	}
	expect_addrs(&got, &none);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("proxyproto");
	TCase *tc = tcase_create("proxyproto");

	tcase_add_loop_test(tc, both_ways, 0, NR_HEADERS);
	tcase_add_test(tc, families);
	tcase_add_test(tc, v1_unknown_with_anything);
	tcase_add_test(tc, v2_families);
	tcase_add_loop_test(
		tc, refused_v1, 0, sizeof(bad_v1) / sizeof(bad_v1[0]));
	tcase_add_test(tc, v1_with_a_nul);
	tcase_add_test(tc, refused_v2);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
