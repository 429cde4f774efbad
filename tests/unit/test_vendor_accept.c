/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "inbound_stage.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BURST 500

static const struct {
	const char *listener;
	unsigned flags;
	const char *client;
	const char *remote, *local;
} addresses[] = {
	{"0.0.0.0", 0, "192.0.2.9", "192.0.2.9", HOST4},
	{"192.0.2.1", 0, "192.0.2.9", "192.0.2.9", "192.0.2.1"},
	{"::", 0, "192.0.2.9", "::ffff:192.0.2.9", "::ffff:" HOST4},
	{"::", 0, "2001:db8::9", "2001:db8::9", HOST6},
	{"::", VENDOR_V6ONLY, "2001:db8::9", "2001:db8::9", HOST6},
	{"2001:db8::1", 0, "2001:db8::9", "2001:db8::9", "2001:db8::1"},
	{"::ffff:0.0.0.0", 0, "192.0.2.9", "::ffff:192.0.2.9", "::ffff:" HOST4},
	{"127.0.0.1", VENDOR_LOOPBACK, "127.0.0.1", "127.0.0.1", "127.0.0.1"},
	{"::1", VENDOR_LOOPBACK, "::1", "::1", "::1"},
};

START_TEST(test_addresses)
{
	struct ip_port remote = ip(addresses[_i].remote, 4711);
	struct ip_port local = ip(addresses[_i].local, 8080);
	struct vendor_result res;
	int control, client, conn;

	worker_start();
	control =
		front_serve(addresses[_i].listener, 8080, addresses[_i].flags);
	client = host_client(8080, addresses[_i].client, 4711);
	conn = front_accept(control, &res);
	ck_assert(ip_port_equal(&res.remote, &remote));
	ck_assert(ip_port_equal(&res.local, &local));
	expect_talk(client, conn);
	closefd(&client);
	closefd(&conn);
	closefd(&control);
}
END_TEST

/* ---- the second reply ---- */

static struct conn *standby(uint16_t port)
{
	UNTIL(host_find(CONN_JOIN, port));
	return host_find(CONN_JOIN, port);
}

static void forget(struct conn *c)
{
	c->kind = CONN_NONE;
}

/* Cut anywhere, with the client's first bytes right behind: they stay. */
START_TEST(test_split)
{
	static const uint8_t hello[5] = {'h', 'e', 'l', 'l', 'o'};
	uint8_t buf[HOST_REPLY2_LEN + sizeof(hello)];
	size_t len = host_reply2(buf, "192.0.2.9", 4711);
	struct vendor_result res;
	char text[16] = "";
	int control, client, conn;
	struct conn *c;

	memcpy(buf + len, hello, sizeof(hello));
	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	c = standby(8080);
	client = c->fd;
	host_send(client, buf, (size_t)_i);
	for (int i = 0; i < 5; i++)
		host_turn(1);
	ck_assert(_i >= (int)len || !front_pending(control));
	host_send(client, buf + _i, len + 5 - (size_t)_i);
	forget(c);
	conn = front_accept(control, &res);
	ck_assert_int_eq(res.remote.port, 4711);
	ck_assert_int_eq(recv(conn, text, sizeof(text), 0), 5);
	ck_assert_str_eq(text, "hello");
	expect_talk(client, conn);
	closefd(&client);
	closefd(&conn);
	closefd(&control);
}
END_TEST

/* Who leaves before the server accepts is accepted all the same, as by TCP. */
START_TEST(test_client_leaves)
{
	struct vendor_result res;
	char byte;
	int control, client, conn;

	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	client = host_client(8080, "192.0.2.9", 4711);
	closefd(&client);
	conn = front_accept(control, &res);
	ck_assert_int_eq(recv(conn, &byte, 1, 0), 0);
	closefd(&conn);
	closefd(&control);
}
END_TEST

static const struct {
	const char *bytes;
	size_t len;
} bad_replies[] = {
	{"\x05\x01\x00\x01\0\0\0\0\0\0", 10},
	{"\x04\x00\x00\x01\0\0\0\0\0\0", 10},
	{"\x05\x00\x00\x02\0\0\0\0\0\0", 10},
	{"\x05\x00\x00\x03\x03"
	 "foo\x12\x34",
		10},
	{"\x05\x00\x00\x03\x00\x12\x34", 7},
	{"GET / HTTP/1.1\r\n\r\n", 18},
	{"\x05\x00\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09\x12", 21},
	{"\x05", 1},
	{"", 0},
};

/* It costs that connection and nobody gets a client of it. */
START_TEST(test_bad_reply)
{
	struct vendor_result res;
	int control, client, conn;
	struct conn *c;

	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	c = standby(8080);
	if (bad_replies[_i].len)
		host_send(c->fd, bad_replies[_i].bytes, bad_replies[_i].len);
	host_hang_up(c);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	ck_assert(!front_pending(control));
	client = host_client(8080, "192.0.2.9", 4711);
	conn = front_accept(control, &res);
	ck_assert_int_eq(res.remote.port, 4711);
	expect_talk(client, conn);
	closefd(&client);
	closefd(&conn);
	closefd(&control);
}
END_TEST

static bool at_end(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLRDHUP};

	return poll(&pfd, 1, 0) == 1;
}

START_TEST(test_wrong_family)
{
	struct vendor_result res;
	int v4, v6, client, conn;

	worker_start();
	v4 = front_serve("0.0.0.0", 8080, 0);
	v6 = front_serve("::", 8080, VENDOR_V6ONLY);
	/* The stage's host takes the first standby there is: one of v4's. */
	UNTIL(host_count(CONN_JOIN, 8080) == 2 * CONFIG_POOL_LOW);
	while (memcmp(standby(8080)->name.key,
		       host_find(CONN_HOLD, 8080)->name.key, HOLD_KEY_LEN) != 0)
		host_hang_up(standby(8080));
	client = host_client(8080,
		host_find(CONN_HOLD, 8080)->name.v4 ? "2001:db8::9"
						    : "192.0.2.9",
		4711);
	UNTIL(at_end(client));
	ck_assert(!front_pending(v4) && !front_pending(v6));
	closefd(&client);
	closefd(&v6);
	UNTIL(host_count(CONN_HOLD, 8080) == 1);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	client = host_client(8080, "192.0.2.9", 4712);
	conn = front_accept(v4, &res);
	closefd(&conn);
	closefd(&client);
	closefd(&v4);
}
END_TEST

/* ---- queues ---- */

static void quiet_turns(void)
{
	for (int i = 0; i < 30; i++)
		host_turn(1);
}

static int serve_with(uint16_t port, int backlog)
{
	int control = front_bind("0.0.0.0", port, 0, NULL);

	ck_assert_int_ge(control, 0);
	front_listen(control, backlog);
	return control;
}

static int drain(int control, int *conns)
{
	struct vendor_result res;
	int nr = 0;

	/* Not while more of them are sent. */
	worker_freeze();
	while (front_pending(control))
		conns[nr++] = front_accept(control, &res);
	worker_thaw();
	return nr;
}

/* No more than the backlog lies unread, one at least. */
START_TEST(test_backlog)
{
	static const int backlogs[] = {-1, 0, 1, 2, 3};
	int backlog = backlogs[_i];
	int limit = backlog < 1 ? 1 : backlog;
	int conns[8], clients[4];
	int control;

	stage.config.pool_low = 4;
	worker_start();
	control = serve_with(8080, backlog);
	for (int i = 0; i < 4; i++)
		clients[i] = host_client(8080, "192.0.2.9", 1000 + i);
	quiet_turns();
	for (int taken = 0; taken < 4;) {
		int nr = drain(control, conns);

		ck_assert_int_le(nr, limit);
		ck_assert_int_ge(nr, 1);
		for (int i = 0; i < nr; i++)
			closefd(&conns[i]);
		taken += nr;
		quiet_turns();
	}
	ck_assert(!front_pending(control));
	for (int i = 0; i < 4; i++)
		closefd(&clients[i]);
	closefd(&control);
}
END_TEST

/* While nobody takes clients, no connections are opened for more. */
START_TEST(test_held_back)
{
	struct vendor_result res;
	int control, clients[4];
	bool seen[4] = {false};
	unsigned joins;

	stage.config.pool_low = 4;
	worker_start();
	control = serve_with(8080, 1);
	UNTIL(host_count(CONN_JOIN, 8080) == 4);
	ck_assert_int_eq(host.joins, 4);
	worker_settle(); /* to it, too, all four are idle */
	for (int i = 0; i < 4; i++)
		clients[i] = host_client(8080, "192.0.2.9", 1000 + i);
	quiet_turns();
	joins = host.joins;
	ck_assert_int_le(joins, 4 + 4);
	quiet_turns();
	ck_assert_int_eq(host.joins, joins);
	for (int i = 0; i < 4; i++) {
		int conn = front_accept(control, &res);
		unsigned which = res.remote.port - 1000u;

		if (which >= 4 || seen[which])
			ck_abort_msg("client %u", which);
		seen[which] = true;
		expect_talk(clients[which], conn);
		closefd(&clients[which]);
		closefd(&conn);
	}
	UNTIL(host_count(CONN_JOIN, 8080) >= 4);
	closefd(&control);
}
END_TEST

/* A listener of several processes, each with its own control after a REJOIN:
 * the one with the least unread is next. */
START_TEST(test_least_unread)
{
	struct vendor_result bound, res;
	int first, second, clients[4], conns[4];

	worker_start();
	first = front_bind("0.0.0.0", 8080, 0, &bound);
	front_listen(first, 16);
	clients[0] = host_client(8080, "192.0.2.9", 1000);
	UNTIL(front_pending(first));
	second = front_rejoin(&bound, 0);
	quiet_turns();
	clients[1] = host_client(8080, "192.0.2.9", 1001);
	UNTIL(front_pending(second));
	clients[2] = host_client(8080, "192.0.2.9", 1002);
	clients[3] = host_client(8080, "192.0.2.9", 1003);
	quiet_turns();
	ck_assert_int_eq(drain(first, conns), 2);
	ck_assert_int_eq(drain(second, conns + 2), 2);
	ck_assert_int_eq(host.holds, 1);
	for (int i = 0; i < 4; i++) {
		closefd(&clients[i]);
		closefd(&conns[i]);
	}
	/* The second alone is the listener, too. */
	closefd(&first);
	clients[0] = host_client(8080, "192.0.2.9", 1004);
	conns[0] = front_accept(second, &res);
	closefd(&clients[0]);
	closefd(&conns[0]);
	closefd(&second);
}
END_TEST

/* What lies unread in a dead control is lost, what was not sent yet is not. */
START_TEST(test_control_dies)
{
	struct vendor_result bound, res;
	struct vendor_request req;
	int first, second, conn, clients[3];

	stage.config.pool_low = 4;
	worker_start();
	first = front_bind("0.0.0.0", 8080, 0, &bound);
	front_listen(first, 1);
	vendor_request_init(&req, VENDOR_REJOIN);
	req.dst = bound.local;
	req.backlog = 1;
	memcpy(req.key, bound.key, sizeof(req.key));
	second = front_send(&req);
	quiet_turns();
	for (int i = 0; i < 3; i++)
		clients[i] = host_client(8080, "192.0.2.9", 1000 + i);
	UNTIL(front_pending(first) && front_pending(second));
	quiet_turns();
	closefd(&first);
	quiet_turns();
	ck_assert_int_eq(at_end(clients[0]) + at_end(clients[1]), 1);
	ck_assert(!at_end(clients[2]));
	conn = front_accept(second, &res);
	closefd(&conn);
	conn = front_accept(second, &res);
	ck_assert_int_eq(res.remote.port, 1002);
	closefd(&conn);
	/* The last one takes all with it. */
	closefd(&second);
	for (int i = 0; i < 3; i++) {
		UNTIL(at_end(clients[i]));
		closefd(&clients[i]);
	}
}
END_TEST

/* ---- the pool ---- */

START_TEST(test_pool_grows_and_shrinks)
{
	struct vendor_result res;
	int control, most = 0;

	stage.config.pool_high = 8;
	worker_start();
	control = serve_with(8080, 128);
	for (int i = 0; i < 100; i++) {
		int client = host_client(8080, "192.0.2.9", 1000 + i);
		int conn = front_accept(control, &res);

		ck_assert_int_eq(res.remote.port, 1000 + i);
		closefd(&client);
		closefd(&conn);
		/* A burst: whatever is idle is taken. */
		if (host_count(CONN_JOIN, 8080) > most)
			most = host_count(CONN_JOIN, 8080);
	}
	ck_assert_int_le(most, 8);
	UNTIL(host_count(CONN_JOIN, 8080) >= CONFIG_POOL_LOW);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	closefd(&control);
}
END_TEST

/* Every idle one is taken at once, again and again. */
START_TEST(test_pool_follows_demand)
{
	struct vendor_result res;
	int clients[64];
	int control;

	stage.config.pool_high = 16;
	worker_start();
	control = serve_with(8080, 128);
	for (int want = CONFIG_POOL_LOW; want <= 16; want *= 2) {
		UNTIL(host_count(CONN_JOIN, 8080) == want);
		for (int i = 0; i < want; i++)
			clients[i] = host_client(8080, "192.0.2.9", 1000 + i);
		for (int i = 0; i < want; i++) {
			int conn = front_accept(control, &res);

			closefd(&conn);
			closefd(&clients[i]);
		}
	}
	UNTIL(host_count(CONN_JOIN, 8080) == 16);
	quiet_turns();
	ck_assert_int_eq(host_count(CONN_JOIN, 8080), 16);
	closefd(&control);
}
END_TEST

/* What is not needed is used up, not closed, while clients come. */
START_TEST(test_pool_is_used_up)
{
	struct vendor_result res;
	int clients[64];
	int control, served = 0;

	stage.config.pool_high = 16;
	worker_start();
	control = serve_with(8080, 128);
	for (int want = CONFIG_POOL_LOW; want <= 16; want *= 2) {
		UNTIL(host_count(CONN_JOIN, 8080) == want);
		for (int i = 0; i < want; i++)
			clients[i] = host_client(8080, "192.0.2.9", 1000);
		for (int i = 0; i < want; i++) {
			int conn = front_accept(control, &res);

			closefd(&conn);
			closefd(&clients[i]);
		}
	}
	UNTIL(host_count(CONN_JOIN, 8080) == 16);
	while (host_count(CONN_JOIN, 8080) > 4) {
		int client = host_client(8080, "192.0.2.9", 1000);
		int conn = front_accept(control, &res);

		closefd(&client);
		closefd(&conn);
		for (int i = 0; i < 10; i++)
			host_turn(10);
		ck_assert_int_lt(served++, 200);
	}
	ck_assert_int_gt(served, 12);
	closefd(&control);
}
END_TEST

/* More than the process has fds for: a clear error, and the rest goes on. */
START_TEST(test_out_of_fds)
{
	const struct rlimit few = {.rlim_cur = 120, .rlim_max = 120};
	struct vendor_result res;
	int controls[12], conn, client;

	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	stage.config.pool_low = 16;
	worker_start();
	for (int i = 0; i < 12; i++) {
		controls[i] = front_bind("0.0.0.0", 0, 0, NULL);
		ck_assert_int_ge(controls[i], 0);
		front_listen(controls[i], 4);
	}
	ck_assert_int_eq(front_bind("0.0.0.0", 0, 0, NULL), -1);
	ck_assert_int_eq(errno, ENOBUFS);
	for (int i = 0; i < 100; i++)
		host_turn(10);
	ck_assert_int_le(host_count(CONN_JOIN, 0), 120 / 4);
	for (int i = 0; i < 11; i++)
		closefd(&controls[i]);
	UNTIL(host_count(CONN_HOLD, 0) == 1);
	client = host_client(host_find(CONN_HOLD, 0)->port, "192.0.2.9", 9);
	conn = front_accept(controls[11], &res);
	closefd(&client);
	closefd(&conn);
	closefd(&controls[11]);
}
END_TEST

START_TEST(test_burst)
{
	static int clients[BURST], conns[BURST];
	static bool seen[BURST];
	int paired = 0, accepted = 0;
	int control;

	worker_start();
	control = serve_with(8080, 5);
	memset(seen, 0, sizeof(seen));
	for (int turns = 0; accepted < BURST; turns++) {
		struct vendor_result res;

		ck_assert_int_lt(turns, STAGE_PATIENCE_MS);
		while (paired < BURST && host_find(CONN_JOIN, 8080)) {
			clients[paired] =
				host_client(8080, "192.0.2.9", 1000 + paired);
			paired++;
		}
		if (front_pending(control)) {
			conns[accepted] = front_accept(control, &res);
			ck_assert(!seen[res.remote.port - 1000]);
			seen[res.remote.port - 1000] = true;
			accepted++;
		}
		host_turn(1);
	}
	for (int i = 0; i < BURST; i++) {
		closefd(&clients[i]);
		closefd(&conns[i]);
	}
	ck_assert_int_le(host_count(CONN_JOIN, 8080), CONFIG_POOL_HIGH);
	closefd(&control);
}
END_TEST

/* A host proxy that takes connections and drops them is not hammered. */
START_TEST(test_dropped_standbys)
{
	struct timespec begin, end;
	int control;

	worker_start();
	control = serve_with(8080, 5);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do {
		host_turn(1);
		while (host_find(CONN_JOIN, 8080))
			host_hang_up(host_find(CONN_JOIN, 8080));
		clock_gettime(CLOCK_MONOTONIC, &end);
	} while (end.tv_sec - begin.tv_sec < 2);
	ck_assert_int_le(host.joins, 40);
	host.join = SOCKS5_GENERAL_FAILURE;
	host.joins = 0;
	UNTIL(host.joins > 0);
	host.join = 0;
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	closefd(&control);
}
END_TEST

/* ---- a host proxy that knows plain BIND only ---- */

static void plain_host(void)
{
	static const enum socks5_reply unknown[] = {SOCKS5_GENERAL_FAILURE,
		SOCKS5_HOST_UNREACHABLE, SOCKS5_COMMAND_NOT_SUPPORTED,
		SOCKS5_ATYP_NOT_SUPPORTED};

	host.by_name = unknown[host.next_port % 4];
	host.join = SOCKS5_ATYP_NOT_SUPPORTED;
}

START_TEST(test_plain)
{
	struct vendor_result bound, res;
	int control, client, conn;

	host.next_port += _i;
	plain_host();
	worker_start();
	control = front_bind("0.0.0.0", 0, 0, &bound);
	ck_assert_int_ge(control, 0);
	UNTIL(host_count(CONN_PLAIN, bound.local.port) == 1);
	/* Nobody listens yet, but the port must stay ours. */
	client = host_client(bound.local.port, "192.0.2.9", 4711);
	UNTIL(at_end(client));
	closefd(&client);
	UNTIL(host_count(CONN_PLAIN, bound.local.port) == 1);
	front_listen(control, 5);
	UNTIL(host_count(CONN_PLAIN, bound.local.port) == CONFIG_POOL_LOW);
	client = host_client(bound.local.port, "192.0.2.9", 4712);
	conn = front_accept(control, &res);
	ck_assert_int_eq(res.remote.port, 4712);
	expect_talk(client, conn);
	closefd(&client);
	closefd(&conn);
	ck_assert_int_eq(host.joins, 0);
	closefd(&control);
	UNTIL(host_count(CONN_PLAIN, 0) == 0);
}
END_TEST

/* It pairs a client with whatever stands by on the port. */
START_TEST(test_plain_families)
{
	struct vendor_result res;
	int v4, v6, client, conn;

	plain_host();
	worker_start();
	v4 = front_serve("0.0.0.0", 8080, 0);
	v6 = front_serve("::", 8080, VENDOR_V6ONLY);
	for (int i = 0; i < 10; i++) {
		client = host_client(
			8080, i & 1 ? "2001:db8::9" : "192.0.2.9", 1000 + i);
		conn = front_accept(i & 1 ? v6 : v4, &res);
		ck_assert_int_eq(res.remote.port, 1000 + i);
		closefd(&client);
		closefd(&conn);
	}
	closefd(&v6);
	UNTIL(host_count(CONN_PLAIN, 8080) == CONFIG_POOL_LOW);
	client = host_client(8080, "2001:db8::9", 1010);
	UNTIL(at_end(client));
	closefd(&client);
	closefd(&v4);
}
END_TEST

START_TEST(test_plain_recovers)
{
	struct vendor_result res;
	int control, client, conn;

	plain_host();
	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	UNTIL(host_count(CONN_PLAIN, 8080) == CONFIG_POOL_LOW);
	host_stop();
	quiet_turns();
	host_start();
	client = host_client(8080, "192.0.2.9", 4711);
	conn = front_accept(control, &res);
	closefd(&client);
	closefd(&conn);
	closefd(&control);
}
END_TEST

#define LOOP_TEST(tcase, test, table) \
 tcase_add_loop_test(tcase, test, 0, sizeof(table) / sizeof((table)[0]))

int main(void)
{
	Suite *suite = suite_create("vendor_accept");
	TCase *tc = tcase_create("worker");

	tcase_set_timeout(tc, 40);
	tcase_add_checked_fixture(tc, inbound_setup, inbound_teardown);
	LOOP_TEST(tc, test_addresses, addresses);
	tcase_add_loop_test(tc, test_split, 1, HOST_REPLY2_LEN + 5);
	tcase_add_test(tc, test_client_leaves);
	LOOP_TEST(tc, test_bad_reply, bad_replies);
	tcase_add_test(tc, test_wrong_family);
	tcase_add_loop_test(tc, test_backlog, 0, 5);
	tcase_add_test(tc, test_held_back);
	tcase_add_test(tc, test_least_unread);
	tcase_add_test(tc, test_control_dies);
	tcase_add_test(tc, test_pool_grows_and_shrinks);
	tcase_add_test(tc, test_pool_follows_demand);
	tcase_add_test(tc, test_pool_is_used_up);
	tcase_add_test(tc, test_out_of_fds);
	tcase_add_test(tc, test_burst);
	tcase_add_test(tc, test_dropped_standbys);
	tcase_add_loop_test(tc, test_plain, 0, 4);
	tcase_add_test(tc, test_plain_families);
	tcase_add_test(tc, test_plain_recovers);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
