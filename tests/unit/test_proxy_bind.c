/* SPDX-License-Identifier: Apache-2.0 */
#include "bind_stage.h"
#include "suite.h"
#include "test_proxy_net.h"

#include <sched.h>
#include <sys/stat.h>

/*
 * Plain BIND as the reference implementation's vendor sends it, byte by byte;
 * what the operator says about ports; and requests that are refused.
 */

static struct bind_stage stage;

static void setup(void)
{
	bind_stage_open(&stage);
}

static void teardown(void)
{
	bind_stage_close(&stage);
}

/* ---- plain BIND, as the reference implementation's vendor sends it ---- */

/* Step by step, and never a byte before its time. */
START_TEST(reference_sequence)
{
	const uint8_t request[] = {5, 2, 0, 1, 0, 0, 0, 0, 0, 0};
	uint8_t first[10], second[22];
	int standby, client;
	uint16_t port;

	bind_stage_start(&stage);
	standby = stage_dial(&stage);
	put(standby, "\5\1\0", 3);
	expect(standby, "\5\0", 2);
	expect_silence(standby);
	put(standby, request, sizeof(request));
	ck_assert_int_eq(recv(standby, first, 10, MSG_WAITALL), 10);
	ck_assert_mem_eq(first, "\5\0\0\1\0\0\0\0", 8);
	port = (uint16_t)(first[8] << 8 | first[9]);
	ck_assert_uint_ne(port, 0);
	expect_silence(standby);

	client = reached(AF_INET, port);
	ck_assert_int_eq(recv(standby, second, 22, MSG_WAITALL), 22);
	ck_assert_mem_eq(
		second, "\5\0\0\4\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 20);
	expect_silence(standby);
	expect_open(standby, client);
	close(client);
	expect_end(standby);
}
END_TEST

START_TEST(reference_asks_for_a_port)
{
	uint8_t request[] = {5, 2, 0, 1, 0, 0, 0, 0, 0, 0};
	uint16_t wanted = free_port(), port;
	int standby, client;

	bind_stage_start(&stage);
	request[8] = (uint8_t)(wanted >> 8);
	request[9] = (uint8_t)wanted;
	standby = stage_dial(&stage);
	ck_assert_int_eq(ask_bytes(standby, request, 10, &port), 0);
	ck_assert_uint_eq(port, wanted);
	client = reached(AF_INET, port);
	expect_second(standby, client);
	close(standby);
	expect_end(client);
}
END_TEST

/* In two pieces, cut anywhere, and in one. */
START_TEST(split_anywhere)
{
	const uint8_t plain_hello[] = {5, 1, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0};
	struct hold_name name = {.verb = HOLD_HOLD, .v4 = true, .v6 = true};
	uint8_t named_hello[3 + SOCKS5_REQUEST_MAX];
	struct socks5_addr dst;
	size_t named_len;

	memset(&dst, 0, sizeof(dst));
	hold_name_write(&name, 0, &dst);
	named_len = socks5_write_hello(named_hello, SOCKS5_BIND, &dst);
	bind_stage_start(&stage);
	for (int named = 0; named < 2; named++) {
		const uint8_t *hello = named ? named_hello : plain_hello;
		size_t len = named ? named_len : sizeof(plain_hello);

		for (size_t cut = 1; cut <= len; cut++) {
			int fd = stage_dial(&stage);

			put(fd, hello, cut);
			if (cut >= 3)
				expect(fd, "\5\0", 2);
			if (cut < len)
				put(fd, hello + cut, len - cut);
			if (cut < 3)
				expect(fd, "\5\0", 2);
			expect(fd, "\5\0\0\1\0\0\0\0", 8);
			close(fd);
		}
	}
}
END_TEST

/* The reference's form knows no families: both are served. */
START_TEST(plain_serves_both_families)
{
	uint16_t port = 0;
	int standby, client;

	bind_stage_start(&stage);
	for (int i = 0; i < 4; i++) {
		standby = stage_dial(&stage);
		ck_assert_int_eq(plain(standby, &port), 0);
		client = reached(i % 2 ? AF_INET6 : AF_INET, port);
		expect_second(standby, client);
		expect_open(standby, client);
		close(client);
		expect_end(standby);
	}
}
END_TEST

START_TEST(plain6_serves_ipv6)
{
	uint16_t port = 0;
	int standby, client;

	bind_stage_start(&stage);
	standby = stage_dial(&stage);
	ck_assert_int_eq(plain6(standby, &port), 0);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	client = reached(AF_INET6, port);
	expect_second(standby, client);
	close(client);
	expect_end(standby);
}
END_TEST

/* One peer's connections share its port; another peer has no part in it. */
START_TEST(plain_is_shared_by_one_peer)
{
	uint16_t port = 0, wanted;
	int standby[3], other, client;

	bind_stage_start(&stage);
	for (int i = 0; i < 3; i++) {
		standby[i] = stage_dial_tcp(&stage, 2);
		wanted = port;
		ck_assert_int_eq(plain(standby[i], &port), 0);
		ck_assert(i == 0 || port == wanted);
	}
	other = stage_dial_tcp(&stage, 3);
	wanted = port;
	ck_assert_int_eq(plain(other, &wanted), SOCKS5_REFUSED);
	expect_end(other);
	other = stage_dial(&stage);
	wanted = port;
	ck_assert_int_eq(plain(other, &wanted), SOCKS5_REFUSED);
	expect_end(other);
	for (int i = 0; i < 3; i++) {
		client = reached(AF_INET, port);
		expect_second(standby[i], client);
		close(client);
		expect_end(standby[i]);
	}
}
END_TEST

/* Taken by clients, the pool is empty only until the next one comes. */
START_TEST(plain_outlives_an_empty_pool)
{
	uint16_t port = 0;
	int standby, next, client[2];

	bind_stage_start(&stage);
	standby = stage_dial(&stage);
	ck_assert_int_eq(plain(standby, &port), 0);
	client[0] = reached(AF_INET, port);
	expect_second(standby, client[0]);
	client[1] = reached(AF_INET, port);
	next = stage_dial(&stage);
	ck_assert_int_eq(plain(next, &port), 0);
	expect_second(next, client[1]);
	expect_open(standby, client[0]);
	expect_open(next, client[1]);
	close(client[0]);
	close(client[1]);
	expect_end(standby);
	expect_end(next);
}
END_TEST

/* ...but not for long, and then whoever waits is told. */
START_TEST(plain_ends_after_the_grace)
{
	uint16_t port = 0;
	int standby, client[2];

	bind_stage_start(&stage);
	standby = stage_dial(&stage);
	ck_assert_int_eq(plain(standby, &port), 0);
	client[0] = reached(AF_INET, port);
	expect_second(standby, client[0]);
	client[1] = reached(AF_INET, port);
	expect_end(client[1]);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	expect_open(standby, client[0]);
	close(client[0]);
	expect_end(standby);
}
END_TEST

/* ---- the operator's word ---- */

START_TEST(published)
{
	uint16_t inside = free_port(), outside = free_port(), port, other;
	char map[32];
	int holder, standby, client, fd;

	snprintf(map, sizeof(map), "%u:%u", inside, outside);
	ck_assert_ptr_null(bind_policy_add_publish(&stage.policy, map));
	bind_stage_start(&stage);
	port = inside;
	holder = hold(&stage, "46-" KEY_A, &port);
	standby = join(&stage, KEY_A, inside);
	ck_assert_int_eq(reach(AF_INET, inside), -1);
	client = reached(AF_INET, outside);
	expect_second(standby, client);
	close(client);
	expect_end(standby);
	/* The host's port is taken, under whatever number it is asked for. */
	fd = stage_dial(&stage);
	other = outside;
	ck_assert_int_eq(ask_name(fd, "hold-4-" KEY_B, &other), SOCKS5_REFUSED);
	expect_end(fd);
	fd = stage_dial(&stage);
	other = outside;
	ck_assert_int_eq(
		ask_name(fd, "join-" KEY_A, &other), SOCKS5_NOT_ALLOWED);
	expect_end(fd);
	close(holder);
}
END_TEST

START_TEST(allowed_ports)
{
	uint16_t allowed = free_port(), port;
	char text[32];
	int holder, fd;

	snprintf(text, sizeof(text), "%u", allowed);
	ck_assert_ptr_null(bind_policy_add_allow(&stage.policy, text));
	bind_stage_start(&stage);
	fd = stage_dial(&stage);
	port = (uint16_t)(allowed ^ 1);
	ck_assert_int_eq(
		ask_name(fd, "hold-46-" KEY_A, &port), SOCKS5_NOT_ALLOWED);
	expect_end(fd);
	fd = stage_dial(&stage);
	port = (uint16_t)(allowed ^ 1);
	ck_assert_int_eq(plain(fd, &port), SOCKS5_NOT_ALLOWED);
	expect_end(fd);
	/* Any port is the allowed one, as long as it is free. */
	port = 0;
	holder = hold(&stage, "46-" KEY_A, &port);
	ck_assert_uint_eq(port, allowed);
	fd = stage_dial(&stage);
	port = 0;
	ck_assert_int_eq(plain(fd, &port), SOCKS5_REFUSED);
	expect_end(fd);
	close(holder);
}
END_TEST

START_TEST(no_port_allowed)
{
	uint16_t port = 0;
	int fd;

	ck_assert_ptr_null(bind_policy_add_allow(&stage.policy, "none"));
	bind_stage_start(&stage);
	fd = stage_dial(&stage);
	ck_assert_int_eq(plain(fd, &port), SOCKS5_NOT_ALLOWED);
	expect_end(fd);
}
END_TEST

/* Only IPv4, only one address. */
START_TEST(bind_address)
{
	uint16_t port = 0, any = 0;
	int holder, standby, client, fd;

	ck_assert_ptr_null(bind_policy_add_address(&stage.policy, "127.0.0.1"));
	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	standby = join(&stage, KEY_A, port);
	ck_assert_int_eq(reach(AF_INET6, port), -1);
	client = reached(AF_INET, port);
	expect_second(standby, client);
	close(client);
	expect_end(standby);
	fd = stage_dial(&stage);
	ck_assert_int_eq(
		ask_name(fd, "hold-6-" KEY_B, &any), SOCKS5_HOST_UNREACHABLE);
	expect_end(fd);
	fd = stage_dial(&stage);
	ck_assert_int_eq(
		ask_name(fd, "hold-6l-" KEY_B, &any), SOCKS5_HOST_UNREACHABLE);
	expect_end(fd);
	close(holder);
}
END_TEST

/* ---- requests and bytes that make no sense ---- */

START_TEST(bad_requests)
{
	static const struct {
		const char *name;
		int reply;
	} rows[] = {
		{"hold-5-" KEY_A, SOCKS5_GENERAL_FAILURE},
		{"hold-" KEY_A, SOCKS5_GENERAL_FAILURE},
		{"hold-46-0", SOCKS5_GENERAL_FAILURE},
		{"hold-46-" KEY_A "0", SOCKS5_GENERAL_FAILURE},
		{"join-", SOCKS5_GENERAL_FAILURE},
		{"join-46-" KEY_A, SOCKS5_GENERAL_FAILURE},
		{"join-0011223344556677889"
		 "9AABBCCDDEEFF",
			SOCKS5_GENERAL_FAILURE},
		{"keep-46-" KEY_A, SOCKS5_HOST_UNREACHABLE},
	};
	static const struct {
		const char *request;
		size_t len;
	} addresses[] = {
		{"\5\2\0\1\x7f\0\0\1\x1f\x90", 10},
		{"\5\2\0\1\xc0\0\2\1\x1f\x90", 10},
		{"\5\2\0\3\1a\x1f\x90", 8},
		{"\5\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\x1f\x90", 22},
	};
	int fd;

	bind_stage_start(&stage);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refused(&stage, rows[i].name, 0, rows[i].reply);
	for (size_t i = 0; i < 4; i++) {
		fd = stage_dial(&stage);
		ck_assert_int_eq(ask_bytes(fd, addresses[i].request,
					 addresses[i].len, NULL),
			SOCKS5_HOST_UNREACHABLE);
		expect_end(fd);
	}
	/* v4-mapped "any" is "any". */
	fd = stage_dial(&stage);
	ck_assert_int_eq(
		ask_bytes(fd,
			"\5\2\0\4\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0\0\0", 22,
			NULL),
		SOCKS5_SUCCEEDED);
	close(fd);
}
END_TEST

START_TEST(bytes_behind_the_request)
{
	int fd;

	bind_stage_start(&stage);
	fd = stage_dial(&stage);
	put(fd, "\5\1\0\5\2\0\1\0\0\0\0\0\0x", 14);
	expect_end(fd);
}
END_TEST

START_TEST(bytes_on_a_hold)
{
	uint16_t port = 0;
	int holder, standby;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	standby = join(&stage, KEY_A, port);
	put(holder, "\5", 1);
	expect_end(holder);
	expect_end(standby);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	holder = hold(&stage, "46-" KEY_B, &port);
	close(holder);
}
END_TEST

/* A malformed second request, of any length. */
START_TEST(bytes_on_a_standby)
{
	uint16_t port = 0;
	int holder, standby[3], client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 3; i++)
		standby[i] = join(&stage, KEY_A, port);
	put(standby[0], "\5", 1);
	expect_end(standby[0]);
	put(standby[1], "\5\2\0\1\0\0\0\0\0\0", 10);
	expect_end(standby[1]);
	client = reached(AF_INET, port);
	expect_second(standby[2], client);
	close(client);
	expect_end(standby[2]);
	expect_silence(holder);
	close(holder);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("proxy_bind");
	TCase *tcase = tcase_create("proxy_bind");

	net_isolate(); /* from the ports of others; no harm without */
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 3 * WAIT_SECONDS);
	tcase_add_test(tcase, reference_sequence);
	tcase_add_test(tcase, reference_asks_for_a_port);
	tcase_add_test(tcase, split_anywhere);
	tcase_add_test(tcase, plain_serves_both_families);
	tcase_add_test(tcase, plain6_serves_ipv6);
	tcase_add_test(tcase, plain_is_shared_by_one_peer);
	tcase_add_test(tcase, plain_outlives_an_empty_pool);
	tcase_add_test(tcase, plain_ends_after_the_grace);
	tcase_add_test(tcase, published);
	tcase_add_test(tcase, allowed_ports);
	tcase_add_test(tcase, no_port_allowed);
	tcase_add_test(tcase, bind_address);
	tcase_add_test(tcase, bad_requests);
	tcase_add_test(tcase, bytes_behind_the_request);
	tcase_add_test(tcase, bytes_on_a_hold);
	tcase_add_test(tcase, bytes_on_a_standby);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
