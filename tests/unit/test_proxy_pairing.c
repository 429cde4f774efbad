/* SPDX-License-Identifier: Apache-2.0 */
#include "bind_stage.h"
#include "suite.h"
#include "test_proxy_net.h"

#include <sys/resource.h>

/*
 * Clients of exported ports and the connections that wait for them: each is
 * served once and in its turn, whoever dies on the way and whatever runs out.
 * Nothing is left behind, which closing the stage checks.
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

/* ---- peers that die ---- */

START_TEST(hold_ends_with_everything)
{
	uint16_t port = 0;
	int holder, standby[2], busy, client[3];

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	busy = join(&stage, KEY_A, port);
	client[0] = reached(AF_INET, port);
	expect_second(busy, client[0]);
	client[1] = reached(AF_INET, port);
	client[2] = reached(AF_INET6, port);
	close(holder);
	expect_end(client[1]);
	expect_end(client[2]);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	expect_open(busy, client[0]);
	close(busy);
	expect_end(client[0]);

	holder = hold(&stage, "46-" KEY_A, &port);
	standby[0] = join(&stage, KEY_A, port);
	standby[1] = join(&stage, KEY_A, port);
	close(holder);
	expect_end(standby[0]);
	expect_end(standby[1]);
}
END_TEST

/* Closed by its peer, a plain port goes at once: the server stopped. */
START_TEST(plain_ends_with_its_owner)
{
	uint16_t port = 0, wanted;
	int standby, next;

	bind_stage_start(&stage);
	standby = stage_dial_tcp(&stage, 2);
	ck_assert_int_eq(plain(standby, &port), 0);
	for (int i = 0; i < 100; i++) {
		close(standby);
		/* Another peer, so it cannot just share it. */
		next = stage_dial_tcp(&stage, 3 + i % 2);
		wanted = port;
		for (int tries = 0; tries < 1000; tries++) {
			if (plain(next, &wanted) == 0)
				break;
			expect_end(next);
			next = stage_dial_tcp(&stage, 3 + i % 2);
			wanted = port;
		}
		ck_assert_uint_eq(wanted, port);
		standby = next;
	}
	close(standby);
}
END_TEST

/* The first of two standby connections dies as the client comes. */
START_TEST(standby_dies_while_paired)
{
	uint16_t port = 0;
	int holder, dying, standby, client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 500; i++) {
		dying = join(&stage, KEY_A, port);
		standby = join(&stage, KEY_A, port);
		close(dying);
		client = reached(AF_INET, port);
		expect_second(standby, client);
		close(standby);
		expect_end(client);
	}
	close(holder);
}
END_TEST

/* The same with the only one: the client waits for the next. */
START_TEST(last_standby_dies_while_paired)
{
	uint16_t port = 0;
	int holder, standby, client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 300; i++) {
		standby = join(&stage, KEY_A, port);
		close(standby);
		client = reached(AF_INET, port);
		standby = join(&stage, KEY_A, port);
		expect_second(standby, client);
		close(standby);
		expect_end(client);
	}
	close(holder);
}
END_TEST

START_TEST(client_leaves_before_pairing)
{
	uint16_t port = 0;
	int holder, standby, client[10];

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	close(join(&stage, KEY_A, port));
	for (int i = 0; i < 10; i++) {
		client[i] = reached(AF_INET, port);
		put(client[i], "hello", 5);
	}
	for (int i = 0; i < 10; i++)
		if (i != 7)
			break_off(client[i]);
	standby = join(&stage, KEY_A, port);
	expect_second(standby, client[7]);
	expect(standby, "hello", 5);
	close(client[7]);
	expect_end(standby);
	close(holder);
}
END_TEST

/* They do not keep others out of a full queue. */
START_TEST(queue_forgets_those_who_left)
{
	uint16_t port = 0;
	int holder, standby, client[5];

	stage.policy.queue = 4;
	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	close(join(&stage, KEY_A, port));
	for (int i = 0; i < 4; i++)
		client[i] = reached(AF_INET, port);
	for (int i = 0; i < 4; i++)
		break_off(client[i]);
	client[4] = reached(AF_INET, port);
	standby = join(&stage, KEY_A, port);
	expect_second(standby, client[4]);
	close(client[4]);
	expect_end(standby);
	close(holder);
}
END_TEST

/* One that only ended its stream may still want an answer. */
START_TEST(client_half_closes_while_waiting)
{
	uint16_t port = 0;
	int holder, standby, client;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	close(join(&stage, KEY_A, port));
	client = reached(AF_INET, port);
	put(client, "GET", 3);
	shutdown(client, SHUT_WR);
	standby = join(&stage, KEY_A, port);
	expect_second(standby, client);
	expect(standby, "GET", 3);
	ck_assert_int_eq(recv(standby, &(char){0}, 1, 0), 0);
	put(standby, "OK", 2);
	close(standby);
	expect(client, "OK", 2);
	expect_end(client);
	close(holder);
}
END_TEST

/* ---- limits ---- */

/* With the budget used up by clients that wait, standby connections still get
 * in and serve them. */
START_TEST(waiting_clients_leave_fds)
{
	uint16_t port = 0;
	int holder, standby, client[40];

	fd_budget_init(&stage.budget, 60, 0);
	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	close(join(&stage, KEY_A, port));
	for (int i = 0; i < 40; i++)
		client[i] = reached(AF_INET, port);
	for (int i = 0; i < 40; i++) {
		standby = join(&stage, KEY_A, port);
		expect_second(standby, client[i]);
		expect_open(standby, client[i]);
		close(client[i]);
		expect_end(standby);
	}
	close(holder);
}
END_TEST

/* Standby connections bring an fd for their clients. */
START_TEST(standbys_use_up_the_fds)
{
	uint16_t port = 0;
	int holder, standby[9], client;

	fd_budget_init(&stage.budget, 22, 0);
	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 9; i++)
		standby[i] = join(&stage, KEY_A, port);
	for (int i = 0; i < 9; i++) {
		client = reached(AF_INET, port);
		expect_second(standby[i], client);
		expect_open(standby[i], client);
		close(client);
		expect_end(standby[i]);
	}
	close(holder);
}
END_TEST

START_TEST(no_fd_for_a_port)
{
	uint16_t port = 0;
	int holder;

	fd_budget_init(&stage.budget, 5, 0);
	bind_stage_start(&stage);
	holder = hold(&stage, "4-" KEY_A, &port);
	refused(&stage, "hold-46-" KEY_B, 0, SOCKS5_GENERAL_FAILURE);
	close(holder);
}
END_TEST

/* The kernel's own limit: accepting stops, and goes on when there are fds. */
START_TEST(out_of_fds)
{
	struct rlimit limit, low;
	uint16_t port = 0;
	int holder, standby[2], client[2], fds[64], nr = 0;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (int i = 0; i < 2; i++)
		standby[i] = join(&stage, KEY_A, port);
	for (int i = 0; i < 2; i++)
		client[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = limit;
	low.rlim_cur = (rlim_t)client[1] + 32;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
	while (nr < 64 && (fds[nr] = dup(0)) >= 0)
		nr++;
	ck_assert_int_lt(nr, 64);
	for (int i = 0; i < 2; i++) {
		struct ip_port to = {AF_INET, port, 0, {127, 0, 0, 1}};
		union sockaddr_any any;

		ck_assert_int_eq(connect(client[i], &any.sa,
					 ip_port_to_sockaddr(&to, &any)),
			0);
	}
	expect_silence(standby[0]);
	while (nr > 0)
		close(fds[--nr]);
	for (int i = 0; i < 2; i++) {
		expect_second(standby[i], client[i]);
		expect_open(standby[i], client[i]);
		close(client[i]);
		expect_end(standby[i]);
	}
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	close(holder);
}
END_TEST

/* Nothing is left behind by binding and closing, however it is done. */
START_TEST(many_cycles)
{
	uint16_t port = 0, wanted;
	char name[64];
	int fd, fds;

	bind_stage_start(&stage);
	close(hold(&stage, "46-" KEY_A, &port));
	fds = count_fds();
	for (unsigned int i = 0; i < 10000; i++) {
		wanted = i % 4 ? port : 0;
		snprintf(name, sizeof(name), "46-%032x", i);
		fd = hold(&stage, name, &wanted);
		if (i % 16 == 0)
			close(join(&stage, name + 3, wanted));
		close(fd);
	}
	fd = hold(&stage, "46-" KEY_B, &port);
	ck_assert_int_le(count_fds(), fds + 8);
	close(fd);
}
END_TEST

/* ---- the end ---- */

START_TEST(drain)
{
	uint16_t port = 0, plain_port = 0;
	int holder, standby, own, busy, client[2];

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	busy = join(&stage, KEY_A, port);
	client[0] = reached(AF_INET, port);
	expect_second(busy, client[0]);
	client[1] = reached(AF_INET, port);
	own = stage_dial(&stage);
	ck_assert_int_eq(plain(own, &plain_port), 0);
	standby = stage_dial(&stage);
	ck_assert_int_eq(plain(standby, &plain_port), 0);
	for (int i = 0; i < STAGE_WORKERS; i++)
		worker_drain(stage.worker[i]);
	expect_end(holder);
	expect_end(own);
	expect_end(standby);
	expect_end(client[1]);
	ck_assert_int_eq(reach(AF_INET, port), -1);
	ck_assert_int_eq(reach(AF_INET, plain_port), -1);
	expect_open(busy, client[0]);
	close(busy);
	expect_end(client[0]);
	for (int i = 0; i < STAGE_WORKERS; i++)
		worker_join(stage.worker[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("proxy_pairing");
	TCase *tcase = tcase_create("proxy_pairing");

	net_isolate(); /* from the ports of others; no harm without */
	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 3 * WAIT_SECONDS);
	tcase_add_test(tcase, clients_wait_their_turn);
	tcase_add_test(tcase, clients_beyond_the_queue);
	tcase_add_test(tcase, burst);
	tcase_add_test(tcase, streams);
	tcase_add_test(tcase, hold_ends_with_everything);
	tcase_add_test(tcase, plain_ends_with_its_owner);
	tcase_add_test(tcase, standby_dies_while_paired);
	tcase_add_test(tcase, last_standby_dies_while_paired);
	tcase_add_test(tcase, client_leaves_before_pairing);
	tcase_add_test(tcase, queue_forgets_those_who_left);
	tcase_add_test(tcase, client_half_closes_while_waiting);
	tcase_add_test(tcase, waiting_clients_leave_fds);
	tcase_add_test(tcase, standbys_use_up_the_fds);
	tcase_add_test(tcase, no_fd_for_a_port);
	tcase_add_test(tcase, out_of_fds);
	tcase_add_test(tcase, many_cycles);
	tcase_add_test(tcase, drain);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
