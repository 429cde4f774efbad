/* SPDX-License-Identifier: Apache-2.0 */
#include "bind_stage.h"
#include "suite.h"
#include "test_proxy_net.h"

#include <sched.h>
#include <sys/stat.h>

/*
 * Ports that are held by a key: what is reached and by whom, and who may have
 * which port when several want it.
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

/* Who meets is told both ends of the client's connection. */
START_TEST(meet_tells_both_addresses)
{
	static const sa_family_t families[] = {AF_INET, AF_INET6};
	uint16_t port = 0;
	int holder, standby, client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 2; i++) {
		standby = meet(&stage, KEY_A, port);
		client = reached(families[i], port);
		expect_second(standby, client);
		expect_third(standby, client);
		expect_open(standby, client);
		close(standby);
		expect_end(client);
	}
	refused(&stage, "meet-" KEY_B, port, SOCKS5_NOT_ALLOWED);
	close(holder);
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

/* ---- ports that are taken ---- */

START_TEST(taken_by_another_program)
{
	struct ip_port addr;
	int fd = net_listen(AF_INET, 1, &addr);
	uint16_t port = addr.port;
	int holder, refusee;

	bind_stage_start(&stage);
	refused(&stage, "hold-4-" KEY_A, port, SOCKS5_REFUSED);
	refused(&stage, "hold-46-" KEY_A, port, SOCKS5_REFUSED);
	refused(&stage, "hold-4l-" KEY_A, port, SOCKS5_REFUSED);
	refusee = stage_dial(&stage);
	ck_assert_int_eq(plain(refusee, &port), SOCKS5_REFUSED);
	expect_end(refusee);
	port = addr.port;
	holder = hold(&stage, "6-" KEY_A, &port);
	close(holder);
	close(fd);
	holder = hold(&stage, "4-" KEY_A, &port);
	close(holder);
}
END_TEST

START_TEST(taken_by_another_key)
{
	uint16_t port = 0;
	int holder;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	refused(&stage, "hold-46-" KEY_B, port, SOCKS5_REFUSED);
	refused(&stage, "hold-4-" KEY_B, port, SOCKS5_REFUSED);
	refused(&stage, "hold-6-" KEY_B, port, SOCKS5_REFUSED);
	refused(&stage, "hold-4l-" KEY_B, port, SOCKS5_REFUSED);
	refused(&stage, "hold-46l-" KEY_A, port, SOCKS5_REFUSED);
	expect_silence(holder);
	close(holder);
}
END_TEST

/* Another program takes the port between hold and join, as far as it can. */
START_TEST(taken_before_listening)
{
	struct ip_port addr = {.family = AF_INET};
	union sockaddr_any any;
	socklen_t len;
	int holder, fd, on = 1;

	bind_stage_start(&stage);
	addr.port = free_port();
	len = ip_port_to_sockaddr(&addr, &any);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	ck_assert_int_eq(bind(fd, &any.sa, len), 0);
	/* Two sockets that do not listen may both be bound. */
	holder = hold(&stage, "46-" KEY_A, &addr.port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){0}, sizeof(int));
	refused(&stage, "join-" KEY_A, addr.port, SOCKS5_REFUSED);
	ck_assert_int_eq(reach(AF_INET6, addr.port), -1);
	close(fd);
	fd = join(&stage, KEY_A, addr.port);
	close(reached(AF_INET6, addr.port));
	close(fd);
	close(holder);
}
END_TEST

/* A server that is started again may be faster than the news of its end. */
START_TEST(dead_holder_gives_way)
{
	static const char *const rows[] = {"46", "4", "46l", "6"};
	uint16_t port = 0;
	int holder, standby = -1;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (unsigned int i = 0; i < 1000; i++) {
		char name[64], key[33];

		/* Now and then the same key, for other families. */
		snprintf(key, sizeof(key), "%032x", i / 2);
		snprintf(name, sizeof(name), "%s-%s", rows[i % 4], key);
		close(holder);
		holder = hold(&stage, name, &port);
		if (standby >= 0)
			expect_end(standby);
		standby = i % 3 ? -1 : join(&stage, key, port);
	}
	close(holder);
	if (standby >= 0)
		expect_end(standby);
}
END_TEST

/* Connections from its previous life are no hindrance, open or lingering. */
START_TEST(old_connections_do_not_keep_a_port)
{
	uint16_t port;
	int holder, standby[2], client[2];

	bind_stage_start(&stage);
	/* One that the kernel chose, and one that was asked for. */
	port = _i ? free_port() : 0;
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 2; i++) {
		standby[i] = join(&stage, KEY_A, port);
		client[i] = reached(AF_INET, port);
		expect_second(standby[i], client[i]);
	}
	/* The host's end closes first: TIME_WAIT is on the port. */
	close(standby[0]);
	expect_end(client[0]);
	close(holder);
	holder = hold(&stage, "46-" KEY_B, &port);
	standby[0] = join(&stage, KEY_B, port);
	client[0] = reached(AF_INET, port);
	expect_second(standby[0], client[0]);
	expect_open(standby[1], client[1]);
	for (int i = 0; i < 2; i++) {
		close(standby[i]);
		expect_end(client[i]);
	}
	close(holder);
}
END_TEST

/* Is port 80 one that this user may not bind? Not the superuser in a network
 * of its own, once it is another. */
static bool become_nobody(void)
{
	const struct ip_port addr = {.family = AF_INET, .port = 80};
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(&addr, &any);
	bool denied;
	int fd;

	if (getuid() == 0 &&
		(unshare(CLONE_NEWNET) == -1 || chmod(stage.dir, 0777) == -1 ||
			seteuid(65534) == -1))
		return false;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(fd, 0);
	denied = bind(fd, &any.sa, len) == -1 && errno == EACCES;
	close(fd);
	return denied;
}

START_TEST(privileged_port)
{
	uint16_t port = 80;
	int fd;

	if (become_nobody()) {
		bind_stage_start(&stage);
		refused(&stage, "hold-46-" KEY_A, 80, SOCKS5_NOT_ALLOWED);
		fd = stage_dial(&stage);
		ck_assert_int_eq(plain(fd, &port), SOCKS5_NOT_ALLOWED);
		expect_end(fd);
		port = 8080;
		close(hold(&stage, "46-" KEY_A, &port));
	} else {
		bind_stage_start(&stage);
	}
	if (geteuid() != getuid())
		ck_assert_int_eq(seteuid(getuid()), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("proxy_hold");
	TCase *tcase = tcase_create("proxy_hold");

	net_isolate(); /* from the ports of others; no harm without */
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 3 * WAIT_SECONDS);
	tcase_add_test(tcase, hold_does_not_listen);
	tcase_add_test(tcase, meet_tells_both_addresses);
	tcase_add_test(tcase, hold_keeps_others_out);
	tcase_add_test(tcase, scopes);
	tcase_add_test(tcase, loopback_scope_is_narrow);
	tcase_add_test(tcase, join_needs_the_key);
	tcase_add_test(tcase, several_holders);
	tcase_add_test(tcase, families_share_a_number);
	tcase_add_test(tcase, taken_by_another_program);
	tcase_add_test(tcase, taken_by_another_key);
	tcase_add_test(tcase, taken_before_listening);
	tcase_add_test(tcase, dead_holder_gives_way);
	tcase_add_loop_test(tcase, old_connections_do_not_keep_a_port, 0, 2);
	tcase_add_test(tcase, privileged_port);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
