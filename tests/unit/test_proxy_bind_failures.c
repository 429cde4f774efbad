/* SPDX-License-Identifier: Apache-2.0 */
#include "bind_stage.h"
#include "test_proxy_net.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>

/*
 * Exported ports when something goes wrong: ports that are taken, peers and
 * clients that die at each stage, bytes where none belong, fds that run out.
 * What must hold each time: a clear answer to whoever caused it, everybody else
 * served, and nothing left behind (which closing the stage checks).
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

/* Ask with a name, be refused with @reply. */
static void refused(const char *name, uint16_t port, int reply)
{
	int fd = stage_dial(&stage);

	ck_assert_int_eq(ask_name(fd, name, &port), reply);
	expect_end(fd);
}

/* ---- ports that are taken ---- */

START_TEST(taken_by_another_program)
{
	struct ip_port addr;
	int fd = net_listen(AF_INET, 1, &addr);
	uint16_t port = addr.port;
	int holder, refusee;

	bind_stage_start(&stage);
	refused("hold-4-" KEY_A, port, SOCKS5_REFUSED);
	refused("hold-46-" KEY_A, port, SOCKS5_REFUSED);
	refused("hold-4l-" KEY_A, port, SOCKS5_REFUSED);
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
	refused("hold-46-" KEY_B, port, SOCKS5_REFUSED);
	refused("hold-4-" KEY_B, port, SOCKS5_REFUSED);
	refused("hold-6-" KEY_B, port, SOCKS5_REFUSED);
	refused("hold-4l-" KEY_B, port, SOCKS5_REFUSED);
	refused("hold-46l-" KEY_A, port, SOCKS5_REFUSED);
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
	refused("join-" KEY_A, addr.port, SOCKS5_REFUSED);
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
	static const char *const scopes[] = {"46", "4", "46l", "6"};
	uint16_t port = 0;
	int holder, standby = -1;

	bind_stage_start(&stage);
	holder = hold(&stage, "46-" KEY_A, &port);
	for (unsigned int i = 0; i < 1000; i++) {
		char name[64], key[33];

		/* Now and then the same key, for other families. */
		snprintf(key, sizeof(key), "%032x", i / 2);
		snprintf(name, sizeof(name), "%s-%s", scopes[i % 4], key);
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
	port = free_port();
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
		refused("hold-46-" KEY_A, 80, SOCKS5_NOT_ALLOWED);
		fd = stage_dial(&stage);
		ck_assert_int_eq(plain(fd, &port), SOCKS5_NOT_ALLOWED);
		expect_end(fd);
		port = 8080;
		close(hold(&stage, "46-" KEY_A, &port));
	} else {
		bind_stage_start(&stage);
	}
	ck_assert_int_eq(seteuid(getuid()), 0);
}
END_TEST

/* ---- bytes where none belong ---- */

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
		refused(rows[i].name, 0, rows[i].reply);
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
	refused("hold-46-" KEY_B, 0, SOCKS5_GENERAL_FAILURE);
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

static void add(Suite *suite, const char *name, const TTest *const *tests)
{
	TCase *tcase = tcase_create(name);

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	for (; *tests; tests++)
		tcase_add_test(tcase, *tests);
	suite_add_tcase(suite, tcase);
}

int main(void)
{
	const TTest *const taken[] = {taken_by_another_program,
		taken_by_another_key, taken_before_listening,
		dead_holder_gives_way, old_connections_do_not_keep_a_port,
		privileged_port, NULL};
	const TTest *const bytes[] = {bad_requests, bytes_behind_the_request,
		bytes_on_a_hold, bytes_on_a_standby, NULL};
	const TTest *const dying[] = {hold_ends_with_everything,
		plain_ends_with_its_owner, standby_dies_while_paired,
		last_standby_dies_while_paired, client_leaves_before_pairing,
		queue_forgets_those_who_left, client_half_closes_while_waiting,
		NULL};
	const TTest *const limits[] = {waiting_clients_leave_fds,
		standbys_use_up_the_fds, no_fd_for_a_port, out_of_fds,
		many_cycles, drain, NULL};
	Suite *suite = suite_create("proxy_bind_failures");
	SRunner *runner = srunner_create(suite);
	int failed;

	add(suite, "taken", taken);
	add(suite, "bytes", bytes);
	add(suite, "dying", dying);
	add(suite, "limits", limits);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
