/* SPDX-License-Identifier: Apache-2.0 */
#include "bind_stage.h"
#include "test_proxy_net.h"

#include <sys/stat.h>

/*
 * Exported ports as their two sides see them: what is sent, byte by byte, who
 * gets which port, and who gets which client. What goes wrong on the way is in
 * test_proxy_bind_failures.c.
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

/* ---- hold and join ---- */

START_TEST(hold_does_not_listen)
{
	uint16_t port = 0;
	int holder, standby, client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	ck_assert_int_eq(reach(AF_INET6, port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);

	standby = join(&stage, KEY_A, port);
	client = reached(AF_INET6, port);
	expect_second(standby, client);
	expect_open(standby, client);
	expect_silence(holder);
	close(holder);
	expect_open(standby, client);
	close(standby);
	expect_end(client);
}
END_TEST

/* Another program cannot take a port that is held and does not listen. */
START_TEST(hold_keeps_others_out)
{
	struct ip_port addr = {.family = AF_INET};
	union sockaddr_any any;
	socklen_t len;
	int holder, standby, fd, on = 1;

	bind_stage_start(&stage);
	addr.port = free_port();
	holder = hold(&stage, "4-" KEY_A, &addr.port);
	len = ip_port_to_sockaddr(&addr, &any);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	/* Which of the two refuses depends on the kernel. */
	ck_assert(bind(fd, &any.sa, len) == -1 || listen(fd, 1) == -1);
	ck_assert_int_eq(errno, EADDRINUSE);
	close(fd);
	standby = join(&stage, KEY_A, addr.port);
	close(reached(AF_INET, addr.port));
	close(standby);
	close(holder);
}
END_TEST

START_TEST(scopes)
{
	static const struct {
		const char *name;
		bool v4, v6;
	} rows[] = {
		{"4-" KEY_A, true, false},
		{"6-" KEY_A, false, true},
		{"46-" KEY_A, true, true},
		{"4l-" KEY_A, true, false},
		{"6l-" KEY_A, false, true},
		{"46l-" KEY_A, true, true},
	};

	bind_stage_start(&stage);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int v6 = 0; v6 < 2; v6++) {
			uint16_t port = 0;
			int holder = hold(&stage, rows[i].name, &port);
			int standby = join(&stage, KEY_A, port);
			int fd = reach(v6 ? AF_INET6 : AF_INET, port);

			ck_assert_int_eq(fd >= 0, v6 ? rows[i].v6 : rows[i].v4);
			if (fd >= 0) {
				expect_second(standby, fd);
				close(fd);
				expect_end(standby);
			} else {
				close(standby);
			}
			close(holder);
		}
	}
}
END_TEST

/* 127.0.0.2 is of this host, but not the loopback address. */
START_TEST(loopback_scope_is_narrow)
{
	struct ip_port addr = {.family = AF_INET, .ip = {127, 0, 0, 2}};
	union sockaddr_any any;
	int holder, standby, fd;

	bind_stage_start(&stage);
	for (int narrow = 0; narrow < 2; narrow++) {
		addr.port = 0;
		holder = hold(&stage, narrow ? "46l-" KEY_A : "46-" KEY_A,
			&addr.port);
		standby = join(&stage, KEY_A, addr.port);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(
			connect(fd, &any.sa, ip_port_to_sockaddr(&addr, &any)),
			narrow ? -1 : 0);
		close(fd);
		close(standby);
		close(holder);
	}
}
END_TEST

START_TEST(join_needs_the_key)
{
	uint16_t port = 0, asked;
	int holder, fd;

	bind_stage_start(&stage);
	fd = stage_dial(&stage);
	asked = free_port();
	ck_assert_int_eq(
		ask_name(fd, "join-" KEY_A, &asked), SOCKS5_NOT_ALLOWED);
	expect_end(fd);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 3; i++) {
		fd = stage_dial(&stage);
		asked = i == 0 ? port : i == 1 ? 0 : (uint16_t)(port ^ 1);
		ck_assert_int_eq(
			ask_name(fd, i == 0 ? "join-" KEY_B : "join-" KEY_A,
				&asked),
			SOCKS5_NOT_ALLOWED);
		expect_end(fd);
	}
	ck_assert_int_eq(reach(AF_INET, port), -1);
	/* Being the same peer is no key. */
	fd = stage_dial(&stage);
	asked = port;
	ck_assert_int_eq(plain(fd, &asked), SOCKS5_REFUSED);
	expect_end(fd);
	close(holder);
}
END_TEST

START_TEST(several_holders)
{
	uint16_t port = 0;
	int holder[3], standby, client, last;

	bind_stage_start(&stage);
	for (int i = 0; i < 3; i++)
		holder[i] = hold(&stage, "46-" KEY_A, &port);
	standby = join(&stage, KEY_A, port);
	close(holder[0]);
	close(holder[2]);
	client = reached(AF_INET, port);
	expect_second(standby, client);
	last = join(&stage, KEY_A, port);
	close(holder[1]);
	expect_end(last);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	close(client);
	expect_end(standby);
}
END_TEST

/* nginx: listen 80; listen [::]:80 */
START_TEST(families_share_a_number)
{
	uint16_t port = 0, wanted;
	int holder4, holder6, standby4, standby6, client4, client6, fd;

	bind_stage_start(&stage);
	holder4 = hold(&stage, "4-" KEY_A, &port);
	holder6 = hold(&stage, "6-" KEY_B, &port);
	standby4 = join(&stage, KEY_A, port);
	standby6 = join(&stage, KEY_B, port);
	client6 = reached(AF_INET6, port);
	client4 = reached(AF_INET, port);
	expect_second(standby4, client4);
	expect_second(standby6, client6);
	/* With a key that has the port for another family. */
	fd = stage_dial(&stage);
	wanted = port;
	ck_assert_int_eq(
		ask_name(fd, "hold-46-" KEY_A, &wanted), SOCKS5_REFUSED);
	expect_end(fd);
	close(holder4);
	close(holder6);
	close(client4);
	close(client6);
	expect_end(standby4);
	expect_end(standby6);
}
END_TEST

/* ---- clients ---- */

START_TEST(clients_wait_their_turn)
{
	int holder, standby[20], client[20];
	uint16_t port = 0;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	standby[0] = join(&stage, KEY_A, port);
	close(reached(AF_INET, port));
	expect(standby[0], "\5\0\0\4", 4);
	close(standby[0]);
	for (int i = 0; i < 20; i++) {
		client[i] = reached(AF_INET, port);
		put(client[i], &i, sizeof(i));
	}
	for (int i = 0; i < 20; i++) {
		standby[i] = join(&stage, KEY_A, port);
		expect_second(standby[i], client[i]);
		expect(standby[i], &i, sizeof(i));
	}
	for (int i = 0; i < 20; i++) {
		expect_open(standby[i], client[i]);
		close(standby[i]);
		expect_end(client[i]);
	}
	close(holder);
}
END_TEST

/* With the queue full, the kernel holds the rest. */
START_TEST(clients_beyond_the_queue)
{
	int holder, standby, client[8];
	uint16_t port = 0;

	stage.policy.queue = 2;
	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	standby = join(&stage, KEY_A, port);
	close(standby);
	for (int i = 0; i < 8; i++)
		client[i] = reached(AF_INET, port);
	for (int i = 0; i < 8; i++) {
		standby = join(&stage, KEY_A, port);
		expect_second(standby, client[i]);
		expect_open(standby, client[i]);
		close(client[i]);
		expect_end(standby);
	}
	close(holder);
}
END_TEST

#define BURST 500

static int client_port(int client)
{
	union sockaddr_any any = {.in = {0}};
	socklen_t len = sizeof(any);

	ck_assert_int_eq(getsockname(client, &any.sa, &len), 0);
	return ntohs(any.in.sin_port);
}

/* All at once, with next to no standby connections: each is served once. */
START_TEST(burst)
{
	static int client[BURST], by_port[65536];
	int holder, standby;
	uint8_t second[22];
	uint16_t port = 0;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	standby = join(&stage, KEY_A, port);
	for (int i = 0; i < BURST; i++) {
		client[i] = reached(AF_INET, port);
		by_port[client_port(client[i])] = client[i];
	}
	for (int i = 0; i < BURST; i++) {
		int *whose;

		ck_assert_int_eq(recv(standby, second, 22, MSG_WAITALL), 22);
		whose = &by_port[second[20] << 8 | second[21]];
		ck_assert_int_ne(*whose, 0);
		expect_open(standby, *whose);
		*whose = 0;
		close(standby);
		standby = join(&stage, KEY_A, port);
	}
	for (int i = 0; i < BURST; i++)
		expect_end(client[i]);
	close(standby);
	close(holder);
}
END_TEST

/* Whole streams, both ways, whichever thread moves them. */
START_TEST(streams)
{
	static uint8_t sent[300000], got[300000];
	uint16_t port = 0;
	int holder, standby, client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	net_pattern(sent, sizeof(sent), 1);
	for (int i = 0; i < 2 * STAGE_WORKERS; i++) {
		standby = join(&stage, KEY_A, port);
		client = reached(AF_INET, port);
		expect_second(standby, client);
		for (int back = 0; back < 2; back++) {
			int from = back ? standby : client;
			int to = back ? client : standby;
			size_t off = 0, in = 0;

			while (in < sizeof(got)) {
				size_t n = sizeof(sent) - off;
				ssize_t m;

				if (n > 20000)
					n = 20000;
				if (n > 0)
					put(from, sent + off, n);
				else
					shutdown(from, SHUT_WR);
				off += n;
				m = recv(to, got + in, sizeof(got) - in, 0);
				ck_assert_int_gt(m, 0);
				in += (size_t)m;
			}
			shutdown(from, SHUT_WR);
			ck_assert_int_eq(recv(to, got, 1, 0), 0);
			ck_assert_mem_eq(got, sent, sizeof(sent));
		}
		close(client);
		close(standby);
	}
	close(holder);
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

static Suite *make_suite(void)
{
	Suite *suite = suite_create("proxy_bind");
	TCase *tcase = tcase_create("bind");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, reference_sequence);
	tcase_add_test(tcase, reference_asks_for_a_port);
	tcase_add_test(tcase, split_anywhere);
	tcase_add_test(tcase, plain_serves_both_families);
	tcase_add_test(tcase, plain6_serves_ipv6);
	tcase_add_test(tcase, plain_is_shared_by_one_peer);
	tcase_add_test(tcase, plain_outlives_an_empty_pool);
	tcase_add_test(tcase, plain_ends_after_the_grace);
	tcase_add_test(tcase, hold_does_not_listen);
	tcase_add_test(tcase, hold_keeps_others_out);
	tcase_add_test(tcase, scopes);
	tcase_add_test(tcase, loopback_scope_is_narrow);
	tcase_add_test(tcase, join_needs_the_key);
	tcase_add_test(tcase, several_holders);
	tcase_add_test(tcase, families_share_a_number);
	tcase_add_test(tcase, clients_wait_their_turn);
	tcase_add_test(tcase, clients_beyond_the_queue);
	tcase_add_test(tcase, burst);
	tcase_add_test(tcase, streams);
	tcase_add_test(tcase, published);
	tcase_add_test(tcase, allowed_ports);
	tcase_add_test(tcase, no_port_allowed);
	tcase_add_test(tcase, bind_address);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(void)
{
	SRunner *runner = srunner_create(make_suite());
	int failed;

	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
