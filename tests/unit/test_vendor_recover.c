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
#include <time.h>
#include <unistd.h>

#define CYCLES 10000

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void expect_client(int control, uint16_t port)
{
	struct vendor_result res;
	int client = host_client(port, "192.0.2.9", 4711);
	int conn = front_accept(control, &res);

	ck_assert_int_eq(res.remote.port, 4711);
	expect_talk(client, conn);
	closefd(&client);
	closefd(&conn);
}

/* ---- the host proxy dies ---- */

START_TEST(test_host_restarts)
{
	struct vendor_result bound;
	uint8_t key[HOLD_KEY_LEN];
	double begin;
	int control = -1;

	worker_start();
	control = front_bind("0.0.0.0", 0, 0, &bound);
	front_listen(control, 16);
	expect_client(control, bound.local.port);
	for (int i = 0; i < 3; i++) {
		memcpy(key, host_find(CONN_HOLD, 0)->name.key, sizeof(key));
		host_stop();
		for (double end = now() + 0.5 * i; now() < end;)
			host_turn(10);
		ck_assert(!front_pending(control));
		host_start();
		begin = now();
		expect_client(control, bound.local.port);
		ck_assert(now() - begin < 2);
		ck_assert_mem_ne(
			key, host_find(CONN_HOLD, 0)->name.key, sizeof(key));
		ck_assert_int_eq(host_count(CONN_HOLD, bound.local.port), 1);
	}
	closefd(&control);
}
END_TEST

/* Only the connection that owns the port breaks. */
START_TEST(test_hold_breaks)
{
	int control;

	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	if (_i == 1)
		host_send(host_find(CONN_HOLD, 8080)->fd, "more", 4);
	else
		host_hang_up(host_find(CONN_HOLD, 8080));
	UNTIL(host.holds == 2);
	expect_client(control, 8080);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	closefd(&control);
}
END_TEST

/* A client was paired in the host proxy's last moment: it is served. */
START_TEST(test_last_client)
{
	struct vendor_result res;
	uint8_t buf[HOST_REPLY2_LEN];
	size_t len = host_reply2(buf, "192.0.2.9", 4711);
	int control, conn, client;
	struct conn *c;

	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	worker_settle();
	/* The end of the hold is seen first. */
	worker_freeze();
	host_hang_up(host_find(CONN_HOLD, 8080));
	c = host_find(CONN_JOIN, 8080);
	client = c->fd;
	host_send(client, buf, len);
	c->kind = CONN_NONE;
	worker_thaw();
	conn = front_accept(control, &res);
	expect_talk(client, conn);
	closefd(&conn);
	closefd(&client);
	closefd(&control);
}
END_TEST

/* Bound but not listening: the port is had again all the same. */
START_TEST(test_bound_recovers)
{
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	host_stop();
	host_start();
	UNTIL(host_count(CONN_HOLD, 8080) == 1);
	ck_assert_int_eq(host_count(CONN_JOIN, 0), 0);
	front_listen(control, 5);
	expect_client(control, 8080);
	closefd(&control);
}
END_TEST

/* listen() while the host proxy is away succeeds: the port was reserved. */
START_TEST(test_listen_while_away)
{
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	host_stop();
	front_listen(control, 5);
	host_start();
	expect_client(control, 8080);
	closefd(&control);
}
END_TEST

/* Meanwhile somebody else has the port: it is waited for. */
START_TEST(test_port_taken)
{
	int control;

	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	host_stop();
	host.by_name = SOCKS5_REFUSED;
	host.holds = 0;
	host_start();
	UNTIL(host.holds >= 3);
	ck_assert(!front_pending(control));
	host.by_name = 0;
	expect_client(control, 8080);
	closefd(&control);
}
END_TEST

/* ---- the worker dies ---- */

START_TEST(test_rejoin)
{
	struct vendor_result bound;
	double begin;
	int control;

	worker_start();
	control = front_bind("::", 0, 0, &bound);
	front_listen(control, 16);
	UNTIL(host_count(CONN_JOIN, 0) == CONFIG_POOL_LOW);
	worker_kill();
	expect_hang_up(control);
	closefd(&control);
	/* The host has not noticed: the port is still held. */
	worker_start();
	begin = now();
	control = front_rejoin(&bound, 0);
	expect_client(control, bound.local.port);
	ck_assert(now() - begin < 2);
	ck_assert_int_eq(host_count(CONN_HOLD, bound.local.port), 1);
	ck_assert(host_find(CONN_HOLD, bound.local.port)->name.v6);
	closefd(&control);
}
END_TEST

/* Several processes, one listener. */
START_TEST(test_rejoin_together)
{
	struct vendor_result bound;
	int controls[3];

	worker_start();
	controls[0] = front_bind("0.0.0.0", 8080, 0, &bound);
	front_listen(controls[0], 16);
	worker_kill();
	closefd(&controls[0]);
	UNTIL(host_count(CONN_HOLD, 0) == 0);
	host.holds = 0;
	worker_start();
	for (int i = 0; i < 3; i++)
		controls[i] = front_rejoin(&bound, 0);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	ck_assert_int_eq(host.holds, 1);
	closefd(&controls[0]);
	closefd(&controls[1]);
	expect_client(controls[2], 8080);
	closefd(&controls[2]);
	UNTIL(host_count(CONN_HOLD, 0) == 0);
}
END_TEST

/* Both died, and the host proxy is back last. */
START_TEST(test_rejoin_before_the_host)
{
	struct vendor_result bound;
	double begin;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, &bound);
	front_listen(control, 16);
	worker_kill();
	host_stop();
	closefd(&control);
	worker_start();
	control = front_rejoin(&bound, 0);
	for (int i = 0; i < 100; i++)
		host_turn(10);
	ck_assert(!front_pending(control));
	host_start();
	begin = now();
	expect_client(control, 8080);
	ck_assert(now() - begin < 2);
	closefd(&control);
}
END_TEST

/* Another server has taken the port in the meantime: wait for its end. */
START_TEST(test_rejoin_waits)
{
	struct vendor_result bound;
	int waiting, other;

	worker_start();
	waiting = front_bind("0.0.0.0", 8080, 0, &bound);
	front_listen(waiting, 16);
	worker_kill();
	closefd(&waiting);
	worker_start();
	other = front_serve("0.0.0.0", 8080, 0);
	waiting = front_rejoin(&bound, 0);
	expect_client(other, 8080);
	ck_assert(!front_pending(waiting));
	closefd(&other);
	UNTIL(host_count(CONN_HOLD, 8080) + host_count(CONN_JOIN, 8080) == 0);
	expect_client(waiting, 8080);
	closefd(&waiting);
}
END_TEST

START_TEST(test_rejoin_leaves_while_waiting)
{
	struct vendor_result bound = {.key = {1}};
	int waiting, other;

	worker_start();
	other = front_serve("0.0.0.0", 8080, 0);
	bound.local = ip("0.0.0.0", 8080);
	waiting = front_rejoin(&bound, 0);
	for (int i = 0; i < 20; i++)
		host_turn(10);
	closefd(&waiting);
	expect_client(other, 8080);
	closefd(&other);
}
END_TEST

START_TEST(test_rejoin_mismatch)
{
	struct vendor_result bound;
	struct vendor_result wrong;
	int control, bad;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, &bound);
	front_listen(control, 16);
	wrong = bound;
	wrong.local.port = _i == 0 ? 8081 : 0;
	bad = front_rejoin(&wrong, 0);
	expect_hang_up(bad);
	closefd(&bad);
	expect_client(control, 8080);
	closefd(&control);
}
END_TEST

/* ---- it goes on for long ---- */

static long resident_pages(void)
{
	char path[64], line[128];
	const char *resident;
	long pages;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/statm", worker_pid());
	file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
	resident = strchr(line, ' ');
	ck_assert_ptr_nonnull(resident);
	pages = strtol(resident, NULL, 10);
	fclose(file);
	return pages;
}

/* AddressSanitizer keeps what was freed for a while, 256 MiB of it. */
#ifdef __SANITIZE_ADDRESS__
# define GROWTH_PAGES 65536
#else
# define GROWTH_PAGES 64
#endif

START_TEST(test_cycles)
{
	long before = 0;

	worker_start();
	for (int i = 0; i < CYCLES; i++) {
		int control = front_bind("0.0.0.0", 8080, 0, NULL);

		ck_assert_msg(control >= 0, "cycle %d: %s", i, strerror(errno));
		if (i % 2)
			front_listen(control, 5);
		closefd(&control);
		if (i == CYCLES / 10)
			before = resident_pages();
	}
	UNTIL(worker_fds() <= 0);
	ck_assert_int_le(resident_pages(), before + GROWTH_PAGES);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vendor_recover");
	TCase *tc = tcase_create("worker");

	tcase_set_timeout(tc, 50);
	tcase_add_checked_fixture(tc, inbound_setup, inbound_teardown);
	tcase_add_test(tc, test_host_restarts);
	tcase_add_loop_test(tc, test_hold_breaks, 0, 2);
	tcase_add_test(tc, test_last_client);
	tcase_add_test(tc, test_bound_recovers);
	tcase_add_test(tc, test_listen_while_away);
	tcase_add_test(tc, test_port_taken);
	tcase_add_test(tc, test_rejoin);
	tcase_add_test(tc, test_rejoin_together);
	tcase_add_test(tc, test_rejoin_before_the_host);
	tcase_add_test(tc, test_rejoin_waits);
	tcase_add_test(tc, test_rejoin_leaves_while_waiting);
	tcase_add_loop_test(tc, test_rejoin_mismatch, 0, 2);
	tcase_add_test(tc, test_cycles);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
