/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/prefix.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

/* What the wire looks like, byte by byte; the first is the design's. */
static const struct {
	int family;
	const char *ip;
	uint16_t port;
	uint8_t len;
	uint8_t wire[PREFIX_MAX];
} vectors[] = {
	{AF_INET, "93.184.216.34", 80, 7,
		{4, 0x22, 0xd8, 0xb8, 0x5d, 0x50, 0x00}},
	{AF_INET, "1.2.3.4", 0x1234, 7, {4, 4, 3, 2, 1, 0x34, 0x12}},
	{AF_INET, "0.0.0.0", 0, 7, {4, 0, 0, 0, 0, 0, 0}},
	{AF_INET, "255.255.255.255", 65535, 7,
		{4, 255, 255, 255, 255, 255, 255}},
	{AF_INET6, "2001:db8::1", 443, 19,
		{6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb8, 0x0d, 1, 0x20,
			0xbb, 0x01}},
	{AF_INET6, "102:304:506:708:90a:b0c:d0e:f10", 256, 19,
		{6, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
			1}},
};
#define NR_VECTORS ((int)(sizeof(vectors) / sizeof(vectors[0])))

static struct ip_port address(int i)
{
	struct ip_port addr;

	memset(&addr, 0, sizeof(addr));
	addr.family = (uint16_t)vectors[i].family;
	addr.port = vectors[i].port;
	ck_assert_int_eq(
		inet_pton(vectors[i].family, vectors[i].ip, addr.ip), 1);
	return addr;
}

/* In an allocation of exactly that size: a byte read too many is seen. */
static ssize_t parse(const uint8_t *buf, size_t len, struct ip_port *out)
{
	uint8_t *exact = malloc(len ? len : 1);
	ssize_t n;

	ck_assert_ptr_nonnull(exact);
	memcpy(exact, buf, len);
	n = prefix_parse(exact, len, out);
	free(exact);
	return n;
}

START_TEST(written)
{
	struct ip_port addr = address(_i);
	uint8_t buf[PREFIX_MAX];

	ck_assert_uint_eq(prefix_write(buf, &addr), vectors[_i].len);
	ck_assert_mem_eq(buf, vectors[_i].wire, vectors[_i].len);
}
END_TEST

/* Every part of it asks for more and fills nothing in. */
START_TEST(split_at_every_byte)
{
	static const struct ip_port none;
	struct ip_port addr = address(_i), got = none;

	for (size_t len = 0; len < vectors[_i].len; len++) {
		ck_assert_int_eq(parse(vectors[_i].wire, len, &got), 0);
		ck_assert(ip_port_equal(&got, &none));
	}
	ck_assert_int_eq(parse(vectors[_i].wire, vectors[_i].len, &got),
		vectors[_i].len);
	ck_assert(ip_port_equal(&got, &addr));
}
END_TEST

/* What follows at once is payload, and not looked at. */
START_TEST(payload_behind)
{
	struct ip_port addr = address(_i), got;
	uint8_t buf[PREFIX_MAX + 40];

	for (int byte = 0; byte < 256; byte++) {
		memset(buf, byte, sizeof(buf));
		memcpy(buf, vectors[_i].wire, vectors[_i].len);
		ck_assert_int_eq(
			parse(buf, sizeof(buf), &got), vectors[_i].len);
		ck_assert(ip_port_equal(&got, &addr));
	}
}
END_TEST

START_TEST(bad_version)
{
	uint8_t buf[PREFIX_MAX] = {0};
	struct ip_port got;

	for (int version = 0; version < 256; version++) {
		if (version == 4 || version == 6)
			continue;
		buf[0] = (uint8_t)version;
		for (size_t len = 1; len <= sizeof(buf); len++)
			ck_assert_int_eq(parse(buf, len, &got), -1);
	}
}
END_TEST

START_TEST(mapped_is_ipv4)
{
	struct ip_port addr = address(0);
	uint8_t buf[PREFIX_MAX];

	ip_port_map(&addr);
	ck_assert_int_eq(addr.family, AF_INET6);
	ck_assert_uint_eq(prefix_write(buf, &addr), PREFIX_V4_LEN);
	ck_assert_mem_eq(buf, vectors[0].wire, PREFIX_V4_LEN);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("prefix");
	TCase *tc = tcase_create("prefix");

	tcase_add_loop_test(tc, written, 0, NR_VECTORS);
	tcase_add_loop_test(tc, split_at_every_byte, 0, NR_VECTORS);
	tcase_add_loop_test(tc, payload_behind, 0, NR_VECTORS);
	tcase_add_test(tc, bad_version);
	tcase_add_test(tc, mapped_is_ipv4);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
