/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "inbound_stage.h"
#include "vendor/inbound.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <ev.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OTHER_UID 12345

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- what is asked of the host ---- */

static const struct {
	const char *addr;
	unsigned flags;
	bool v4, v6, loopback;
} scopes[] = {
	{"0.0.0.0", 0, true, false, false},
	{"0.0.0.0", VENDOR_V6ONLY, true, false, false},
	{"192.0.2.1", 0, true, false, false},
	{"::", 0, true, true, false},
	{"::", VENDOR_V6ONLY, false, true, false},
	{"2001:db8::1", 0, false, true, false},
	{"::ffff:0.0.0.0", 0, true, false, false},
	{"127.0.0.1", VENDOR_LOOPBACK, true, false, true},
	{"127.9.9.9", VENDOR_LOOPBACK, true, false, true},
	{"::ffff:127.0.0.1", VENDOR_LOOPBACK, true, false, true},
	{"::1", VENDOR_LOOPBACK, false, true, true},
};

START_TEST(test_scope)
{
	static const uint8_t no_key[VENDOR_KEY_LEN];
	struct vendor_result res;
	struct ip_port want = ip(scopes[_i].addr, host.next_port);
	const struct conn *hold;
	int control;

	worker_start();
	control = front_bind(scopes[_i].addr, 0, scopes[_i].flags, &res);
	ck_assert_int_ge(control, 0);
	ck_assert(ip_port_equal(&res.local, &want));
	ck_assert_mem_ne(res.key, no_key, sizeof(no_key));
	hold = host_find(CONN_HOLD, want.port);
	ck_assert_ptr_nonnull(hold);
	ck_assert_int_eq(hold->name.v4, scopes[_i].v4);
	ck_assert_int_eq(hold->name.v6, scopes[_i].v6);
	ck_assert_int_eq(hold->name.loopback, scopes[_i].loopback);
	/* Who knows the one key does not know the other. */
	ck_assert_mem_ne(res.key, hold->name.key, sizeof(no_key));
	closefd(&control);
	UNTIL(host_count(CONN_HOLD, 0) == 0);
}
END_TEST

START_TEST(test_port_as_asked)
{
	struct vendor_result res;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, &res);
	ck_assert_int_ge(control, 0);
	ck_assert_int_eq(res.local.port, 8080);
	ck_assert_int_eq(host_count(CONN_HOLD, 8080), 1);
	closefd(&control);
}
END_TEST

/* Bound is not listening: no standby connection before LISTEN. */
START_TEST(test_listen_opens_the_pool)
{
	const struct conn *hold, *join;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	for (int i = 0; i < 20; i++)
		host_turn(1);
	ck_assert_int_eq(host.joins, 0);
	front_listen(control, 128);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	hold = host_find(CONN_HOLD, 8080);
	join = host_find(CONN_JOIN, 8080);
	ck_assert_mem_eq(hold->name.key, join->name.key, HOLD_KEY_LEN);
	closefd(&control);
	UNTIL(host_count(CONN_JOIN, 0) + host_count(CONN_HOLD, 0) == 0);
}
END_TEST

/* listen() returns when the host listens, and whoever connects then is let in:
 * not while the first standby connection is under way. */
START_TEST(test_listen_waits_for_the_host)
{
	struct vendor_request req;
	struct vendor_result res;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	host.mute = true;
	vendor_request_init(&req, VENDOR_LISTEN);
	front_more(control, &req);
	UNTIL(host_count(CONN_MUTE, 8080) >= 1);
	worker_settle();
	ck_assert(!front_pending(control));
	host.mute = false;
	while (host_count(CONN_MUTE, 0) > 0)
		host_hang_up(host_find(CONN_MUTE, 0));
	/* A host proxy that fails then is no error: it is tried again. */
	ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), 0);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	closefd(&control);
}
END_TEST

/* A client that is faster than the answer comes behind it. */
START_TEST(test_listen_is_answered_first)
{
	struct vendor_request req;
	struct vendor_result res;
	struct conn *join;
	uint8_t buf[64];
	size_t len = host_reply2(buf, "192.0.2.9", 1000);
	int control, client, conn;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	vendor_request_init(&req, VENDOR_LISTEN);
	front_more(control, &req);
	UNTIL((join = host_find(CONN_JOIN, 8080)));
	client = join->fd;
	join->kind = CONN_NONE;
	host_send(client, buf, len);
	worker_settle();
	ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), 0);
	conn = front_accept(control, &res);
	expect_talk(client, conn);
	closefd(&conn);
	closefd(&client);
	closefd(&control);
}
END_TEST

/* ---- errors ---- */

static const struct {
	enum socks5_reply by_name, plain;
	unsigned plains;
	int err;
} errors[] = {
	{SOCKS5_NOT_ALLOWED, 0, 0, EACCES},
	{SOCKS5_REFUSED, 0, 0, EADDRINUSE},
	{SOCKS5_NETWORK_UNREACHABLE, 0, 0, ENETDOWN},
	{SOCKS5_TTL_EXPIRED, 0, 0, ENETDOWN},
	{99, 0, 0, ENETDOWN},
	{SOCKS5_GENERAL_FAILURE, SOCKS5_GENERAL_FAILURE, 1, ENETDOWN},
	{SOCKS5_HOST_UNREACHABLE, SOCKS5_HOST_UNREACHABLE, 1, EADDRNOTAVAIL},
	{SOCKS5_ATYP_NOT_SUPPORTED, SOCKS5_GENERAL_FAILURE, 1, EADDRINUSE},
	{SOCKS5_COMMAND_NOT_SUPPORTED, SOCKS5_COMMAND_NOT_SUPPORTED, 1,
		ENETDOWN},
	{SOCKS5_ATYP_NOT_SUPPORTED, SOCKS5_REFUSED, 1, EADDRINUSE},
	{SOCKS5_ATYP_NOT_SUPPORTED, SOCKS5_NOT_ALLOWED, 1, EACCES},
};

/* A port in use is worth another look in a worker's first moments. */
static void grow_up(void)
{
	double end = now() + 0.4;

	while (now() < end)
		host_turn(10);
}

START_TEST(test_errors)
{
	worker_start();
	grow_up();
	host.by_name = errors[_i].by_name;
	host.plain = errors[_i].plain;
	ck_assert_int_eq(front_bind("0.0.0.0", 80, 0, NULL), -1);
	ck_assert_int_eq(errno, errors[_i].err);
	ck_assert_int_eq(host.holds, 1);
	ck_assert_int_eq(host.plains, errors[_i].plains);
}
END_TEST

/* IPv6 only, and the host has none or knows no names: which it is, plain BIND
 * of :: tells. Never is a port opened to IPv4 where the host has no IPv6. */
static const struct {
	enum socks5_reply by_name, plain6, plain;
	unsigned plains6, plains;
	int err;
} v6_errors[] = {
	{SOCKS5_HOST_UNREACHABLE, SOCKS5_HOST_UNREACHABLE, 0, 1, 1,
		EADDRNOTAVAIL},
	{SOCKS5_HOST_UNREACHABLE, SOCKS5_REFUSED, 0, 1, 1, EADDRINUSE},
	{SOCKS5_HOST_UNREACHABLE, 0, SOCKS5_REFUSED, 1, 1, 0},
	{SOCKS5_HOST_UNREACHABLE, SOCKS5_ATYP_NOT_SUPPORTED, 0, 1, 2, 0},
	{SOCKS5_HOST_UNREACHABLE, SOCKS5_GENERAL_FAILURE, SOCKS5_NOT_ALLOWED, 1,
		2, EACCES},
	{SOCKS5_ATYP_NOT_SUPPORTED, SOCKS5_REFUSED, 0, 0, 1, 0},
};

START_TEST(test_v6only_plain)
{
	int control;

	worker_start();
	grow_up();
	host.by_name = v6_errors[_i].by_name;
	host.plain6 = v6_errors[_i].plain6;
	host.plain = v6_errors[_i].plain;
	control = front_bind("::", 8080, VENDOR_V6ONLY, NULL);
	if (v6_errors[_i].err)
		ck_assert_int_eq(errno, v6_errors[_i].err);
	ck_assert_int_eq(control == -1, v6_errors[_i].err != 0);
	ck_assert_int_eq(host.plains6, v6_errors[_i].plains6);
	ck_assert_int_eq(host.plains, v6_errors[_i].plains);
	closefd_if(&control);
	UNTIL(host_count(CONN_PLAIN, 0) == 0);
}
END_TEST

/* Plain BIND would open to everybody what is for loopback only. */
START_TEST(test_loopback_is_never_plain)
{
	worker_start();
	host.by_name = SOCKS5_HOST_UNREACHABLE;
	ck_assert_int_eq(
		front_bind("127.0.0.1", 80, VENDOR_LOOPBACK, NULL), -1);
	ck_assert_int_eq(errno, EADDRNOTAVAIL);
	ck_assert_int_eq(host.plains, 0);
}
END_TEST

START_TEST(test_port_zero_bound)
{
	worker_start();
	host.next_port = 0;
	ck_assert_int_eq(front_bind("0.0.0.0", 0, 0, NULL), -1);
	ck_assert_int_eq(errno, ENETDOWN);
}
END_TEST

/* The host has not yet seen that the hold was given up. */
START_TEST(test_release_is_slow)
{
	struct vendor_result res;
	struct vendor_request req;
	int control;

	worker_start();
	grow_up();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	closefd(&control);
	UNTIL(host_count(CONN_HOLD, 0) == 0);
	host.by_name = SOCKS5_REFUSED;
	bind_request(&req, "0.0.0.0", 8080, 0);
	control = front_send(&req);
	UNTIL(host.holds >= 3);
	host.by_name = 0;
	ck_assert_int_eq(front_answer(control, VENDOR_BIND, &res), 0);
	closefd(&control);
}
END_TEST

/* ... but one that somebody else has is in use, and soon known to be. */
START_TEST(test_in_use_after_release)
{
	double begin;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	closefd(&control);
	UNTIL(host_count(CONN_HOLD, 0) == 0);
	host.by_name = SOCKS5_REFUSED;
	begin = now();
	ck_assert_int_eq(front_bind("0.0.0.0", 8080, 0, NULL), -1);
	ck_assert_int_eq(errno, EADDRINUSE);
	ck_assert(now() - begin < 2);
}
END_TEST

/* ---- a host proxy that is not there ---- */

START_TEST(test_away)
{
	double begin = now();

	worker_start();
	host_stop();
	ck_assert_int_eq(front_bind("0.0.0.0", 80, 0, NULL), -1);
	ck_assert_int_eq(errno, ENETDOWN);
	ck_assert(now() - begin < 2);
}
END_TEST

START_TEST(test_wait_in_vain)
{
	struct vendor_request req;
	struct vendor_result res;
	double begin = now();
	int control;

	worker_start();
	host_stop();
	bind_request(&req, "0.0.0.0", 80, 0);
	req.timeout_ms = 500;
	control = front_send(&req);
	ck_assert_int_eq(front_answer(control, VENDOR_BIND, &res), ENETDOWN);
	ck_assert(now() - begin >= 0.5 && now() - begin < 3);
	closefd(&control);
}
END_TEST

START_TEST(test_wait)
{
	struct vendor_request req;
	struct vendor_result res;
	int control;

	worker_start();
	host_stop();
	bind_request(&req, "0.0.0.0", 80, 0);
	req.timeout_ms = 9000;
	control = front_send(&req);
	for (int i = 0; i < 20; i++)
		host_turn(10);
	ck_assert(!front_pending(control));
	host_start();
	ck_assert_int_eq(front_answer(control, VENDOR_BIND, &res), 0);
	closefd(&control);
}
END_TEST

START_TEST(test_leaves_while_waiting)
{
	struct vendor_request req;
	int control;

	worker_start();
	host.mute = true;
	bind_request(&req, "0.0.0.0", 80, 0);
	control = front_send(&req);
	UNTIL(host_count(CONN_MUTE, 80) == 1);
	closefd(&control);
	UNTIL(host_count(CONN_MUTE, 0) == 0);
}
END_TEST

/* ---- who may have a port ---- */

static const struct {
	const char *first;
	unsigned first_flags;
	const char *second;
	unsigned second_flags;
	int err;
} pairs[] = {
	{"0.0.0.0", 0, "0.0.0.0", 0, EADDRINUSE},
	{"0.0.0.0", 0, "::", 0, EADDRINUSE},
	{"::", 0, "0.0.0.0", 0, EADDRINUSE},
	{"::", 0, "::", VENDOR_V6ONLY, EADDRINUSE},
	{"0.0.0.0", 0, "::", VENDOR_V6ONLY, 0},
	{"::", VENDOR_V6ONLY, "0.0.0.0", 0, 0},
	{"0.0.0.0", 0, "127.0.0.1", VENDOR_LOOPBACK, EADDRINUSE},
	{"127.0.0.1", VENDOR_LOOPBACK, "::1", VENDOR_LOOPBACK, 0},
	{"0.0.0.0", VENDOR_REUSEPORT, "0.0.0.0", 0, EADDRINUSE},
	{"0.0.0.0", 0, "0.0.0.0", VENDOR_REUSEPORT, EADDRINUSE},
	{"0.0.0.0", VENDOR_REUSEPORT, "0.0.0.0", VENDOR_REUSEPORT, 0},
	{"::", VENDOR_REUSEPORT, "0.0.0.0", VENDOR_REUSEPORT, EADDRINUSE},
};

START_TEST(test_two_listeners)
{
	int first, second;

	worker_start();
	first = front_serve(pairs[_i].first, 8080, pairs[_i].first_flags);
	second = front_bind(
		pairs[_i].second, 8080, pairs[_i].second_flags, NULL);
	ck_assert_int_eq(second == -1 ? errno : 0, pairs[_i].err);
	ck_assert(!front_pending(first));
	ck_assert_int_ge(host_count(CONN_HOLD, 8080), 1);
	closefd_if(&second);
	/* The first is what it was. */
	UNTIL(host_count(CONN_JOIN, 8080) >= CONFIG_POOL_LOW);
	closefd(&first);
}
END_TEST

START_TEST(test_other_users_reuseport)
{
	struct vendor_result res;
	int first;
	pid_t pid;

	if (geteuid() != 0)
		return;
	stage.config.allow_any = true;
	worker_start();
	ck_assert_int_eq(chmod(stage.config.path, 0666), 0);
	first = front_bind("0.0.0.0", 8080, VENDOR_REUSEPORT, &res);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		int control;

		if (setuid(OTHER_UID) == -1)
			_exit(2);
		control = front_bind("0.0.0.0", 8080, VENDOR_REUSEPORT, &res);
		_exit(control == -1 && errno == EADDRINUSE ? 0 : 1);
	}
	ck_assert_int_eq(stage_wait_exit(pid), 0);
	closefd(&first);
}
END_TEST

START_TEST(test_reuseport_in_turn)
{
	struct vendor_result res;
	int controls[3], clients[6], conns[6];

	worker_start();
	for (int i = 0; i < 3; i++)
		controls[i] = front_serve("0.0.0.0", 8080, VENDOR_REUSEPORT);
	ck_assert_int_eq(host.holds, 1);
	for (int i = 0; i < 6; i++)
		clients[i] = host_client(8080, "192.0.2.9", 1000 + i);
	for (int i = 0; i < 6; i++)
		conns[i] = front_accept(controls[i % 3], &res);
	/* One less: the others go on. */
	closefd(&controls[1]);
	for (int i = 0; i < 6; i++) {
		closefd(&clients[i]);
		closefd(&conns[i]);
	}
	for (int i = 0; i < 2; i++)
		clients[i] = host_client(8080, "192.0.2.9", 1000 + i);
	conns[0] = front_accept(controls[0], &res);
	conns[1] = front_accept(controls[2], &res);
	for (int i = 0; i < 2; i++) {
		closefd(&clients[i]);
		closefd(&conns[i]);
	}
	ck_assert_int_eq(host_count(CONN_HOLD, 8080), 1);
	closefd(&controls[0]);
	closefd(&controls[2]);
}
END_TEST

/* ---- a server that is restarted ---- */

static struct ev_loop *loop;
static struct inbound *inbound;

/* A service in this process, to have it between two turns of its loop. */
static int take(const char *addr, uint16_t port, unsigned flags, int *front)
{
	struct vendor_request req;
	int pair[2];
	int err;

	ck_assert_int_eq(
		socketpair(AF_UNIX,
			SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
		0);
	bind_request(&req, addr, port, flags);
	err = inbound_take(
		inbound, &pair[0], geteuid(), &stage.config.endpoint, &req);
	closefd_if(&pair[0]);
	if (err)
		closefd(&pair[1]);
	*front = pair[1];
	return err;
}

static bool both_turn(void)
{
	ev_run(loop, EVRUN_NOWAIT);
	host_turn(1);
	return true;
}

#define UNTIL_BOTH(condition) UNTIL(both_turn() && (condition))

static void inside_setup(void)
{
	inbound_setup();
	loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	inbound = inbound_new(loop, &stage.config);
	ck_assert_ptr_nonnull(inbound);
}

static void inside_teardown(void)
{
	inbound_free(inbound);
	ck_assert_ptr_null(ev_userdata(loop));
	ev_loop_destroy(loop);
	inbound_teardown();
}

START_TEST(test_take_over)
{
	struct vendor_request req;
	struct vendor_result res;
	int before, after;

	ck_assert_int_eq(take("0.0.0.0", 8080, 0, &before), 0);
	UNTIL_BOTH(front_pending(before));
	ck_assert_int_eq(take("0.0.0.0", 8080, 0, &after), EADDRINUSE);
	closefd(&before);
	/* The loop has not seen the end of the one before. */
	ck_assert_int_eq(take("0.0.0.0", 8080, 0, &after), 0);
	ck_assert(front_pending(after));
	ck_assert_int_eq(front_answer(after, VENDOR_BIND, &res), 0);
	ck_assert_int_eq(inbound_count(inbound), 1);
	ck_assert_int_eq(host.holds, 1);
	vendor_request_init(&req, VENDOR_LISTEN);
	front_more(after, &req);
	UNTIL_BOTH(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	closefd(&after);
	UNTIL_BOTH(host_count(CONN_HOLD, 0) + host_count(CONN_JOIN, 0) == 0);
}
END_TEST

/* For other clients than before: no take-over, but no error either. */
START_TEST(test_replace)
{
	struct vendor_result res;
	int before, after;

	ck_assert_int_eq(take("0.0.0.0", 8080, 0, &before), 0);
	UNTIL_BOTH(front_pending(before));
	closefd(&before);
	ck_assert_int_eq(take("::", 8080, 0, &after), 0);
	UNTIL_BOTH(front_pending(after));
	ck_assert_int_eq(front_answer(after, VENDOR_BIND, &res), 0);
	ck_assert_int_eq(host_count(CONN_HOLD, 8080), 1);
	ck_assert(host_find(CONN_HOLD, 8080)->name.v6);
	closefd(&after);
	UNTIL_BOTH(host_count(CONN_HOLD, 0) == 0);
}
END_TEST

/* One in the way has hung up and the other has not. */
START_TEST(test_half_in_the_way)
{
	struct vendor_result res;
	int v4, v6, both;

	ck_assert_int_eq(take("0.0.0.0", 8080, 0, &v4), 0);
	ck_assert_int_eq(take("::", 8080, VENDOR_V6ONLY, &v6), 0);
	UNTIL_BOTH(front_pending(v4) && front_pending(v6));
	closefd(&v4);
	ck_assert_int_eq(take("::", 8080, 0, &both), EADDRINUSE);
	ck_assert_int_eq(inbound_count(inbound), 1);
	closefd(&v6);
	ck_assert_int_eq(take("::", 8080, 0, &both), 0);
	UNTIL_BOTH(front_pending(both));
	ck_assert_int_eq(front_answer(both, VENDOR_BIND, &res), 0);
	closefd(&both);
	UNTIL_BOTH(inbound_count(inbound) == 0);
}
END_TEST

/* The service ends with everything in every state. */
START_TEST(test_end_in_the_middle)
{
	int fronts[4];

	ck_assert_int_eq(take("0.0.0.0", 1, 0, &fronts[0]), 0);
	UNTIL_BOTH(front_pending(fronts[0]));
	ck_assert_int_eq(take("0.0.0.0", 2, 0, &fronts[1]), 0);
	host.mute = true;
	ck_assert_int_eq(take("0.0.0.0", 3, 0, &fronts[2]), 0);
	UNTIL_BOTH(host_count(CONN_MUTE, 3) == 1);
	ck_assert_int_eq(take("0.0.0.0", 4, 0, &fronts[3]), 0);
	inbound_free(inbound);
	for (int i = 0; i < 4; i++) {
		expect_hang_up(fronts[i]);
		closefd(&fronts[i]);
	}
	inbound = inbound_new(loop, &stage.config);
}
END_TEST

/* ---- limits and bad input ---- */

START_TEST(test_too_many)
{
	int controls[8];

	stage.config.max_exports = 8;
	worker_start();
	for (int i = 0; i < 8; i++)
		controls[i] = front_bind("0.0.0.0", 0, 0, NULL);
	for (int i = 0; i < 1000; i++) {
		ck_assert_int_eq(front_bind("0.0.0.0", 0, 0, NULL), -1);
		ck_assert_int_eq(errno, ENOBUFS);
	}
	ck_assert_int_eq(host_count(CONN_HOLD, 0), 8);
	closefd(&controls[3]);
	UNTIL(host_count(CONN_HOLD, 0) == 7);
	controls[3] = front_bind("0.0.0.0", 0, 0, NULL);
	ck_assert_int_ge(controls[3], 0);
	for (int i = 0; i < 8; i++)
		closefd(&controls[i]);
}
END_TEST

static const struct {
	const char *addr;
	unsigned flags;
} bad_binds[] = {
	{"127.0.0.1", 0},
	{"::1", 0},
	{"::ffff:127.0.0.1", 0},
	{"0.0.0.0", VENDOR_LOOPBACK},
	{"192.0.2.1", VENDOR_LOOPBACK},
	{"0.0.0.0", 1u << 3},
	{"0.0.0.0", 1u << 31},
};

START_TEST(test_bad_bind)
{
	worker_start();
	ck_assert_int_eq(
		front_bind(bad_binds[_i].addr, 8080, bad_binds[_i].flags, NULL),
		-1);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(host.holds, 0);
}
END_TEST

START_TEST(test_bad_endpoint)
{
	struct vendor_request req;
	struct vendor_result res;
	int control;

	worker_start();
	bind_request(&req, "0.0.0.0", 8080, 0);
	snprintf(req.endpoint, sizeof(req.endpoint), "nowhere");
	control = front_send(&req);
	/* No pending error comes before the answer. */
	ck_assert_int_eq(front_answer(control, VENDOR_BIND, &res), EINVAL);
	expect_hang_up(control);
	closefd(&control);
}
END_TEST

START_TEST(test_bind_twice)
{
	struct vendor_request req;
	struct vendor_result res;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	bind_request(&req, "0.0.0.0", 8081, 0);
	front_more(control, &req);
	ck_assert_int_eq(front_answer(control, VENDOR_BIND, &res), EINVAL);
	front_listen(control, 1);
	front_listen(control, 5);
	UNTIL(host_count(CONN_JOIN, 8080) == CONFIG_POOL_LOW);
	ck_assert_int_eq(host.holds, 1);
	closefd(&control);
}
END_TEST

START_TEST(test_listen_first)
{
	struct vendor_request req;
	struct vendor_result res;
	int carrier;
	int control;

	worker_start();
	vendor_request_init(&req, VENDOR_LISTEN);
	control = front_send(&req);
	front_result(control, &res, &carrier, 0);
	ck_assert_int_eq(res.status, EINVAL);
	closefd(&control);
}
END_TEST

START_TEST(test_impatient)
{
	struct vendor_request req;
	struct vendor_result res;
	int control;

	worker_start();
	host.mute = true;
	bind_request(&req, "0.0.0.0", 8080, 0);
	control = front_send(&req);
	UNTIL(host_count(CONN_MUTE, 8080) == 1);
	vendor_request_init(&req, VENDOR_LISTEN);
	front_more(control, &req);
	ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), EPROTO);
	expect_hang_up(control);
	closefd(&control);
	UNTIL(host_count(CONN_MUTE, 0) == 0);
}
END_TEST

/* A control that says nonsense is lost, and only that one. */
START_TEST(test_nonsense)
{
	struct vendor_request req;
	struct vendor_result res;
	int other, control;
	ssize_t n = sizeof(req);

	worker_start();
	other = front_serve("0.0.0.0", 8081, 0);
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	vendor_request_init(&req, _i == 3 ? VENDOR_CONNECT : VENDOR_LISTEN);
	if (_i == 3)
		req.dst = ip("192.0.2.1", 80);
	if (_i == 0)
		n = 80;
	if (_i == 1)
		req.magic = 0;
	ck_assert_int_eq(
		fd_send(control, &req, (size_t)n, _i == 2 ? 0 : -1, 0), n);
	ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), EPROTO);
	expect_hang_up(control);
	closefd(&control);
	UNTIL(host_count(CONN_HOLD, 8080) == 0);
	UNTIL(host_count(CONN_JOIN, 8081) == CONFIG_POOL_LOW);
	ck_assert(!front_pending(other));
	closefd(&other);
}
END_TEST

/* Many more messages than are read in one turn. */
START_TEST(test_many_messages)
{
	struct vendor_request req;
	struct vendor_result res;
	int control;

	worker_start();
	control = front_bind("0.0.0.0", 8080, 0, NULL);
	vendor_request_init(&req, VENDOR_LISTEN);
	for (int i = 0; i < 50; i++)
		front_more(control, &req);
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), 0);
	closefd(&control);
}
END_TEST

#define LOOP_TEST(tcase, test, table) \
 tcase_add_loop_test(tcase, test, 0, sizeof(table) / sizeof((table)[0]))

static void add_worker_tests(TCase *tc)
{
	LOOP_TEST(tc, test_scope, scopes);
	tcase_add_test(tc, test_port_as_asked);
	tcase_add_test(tc, test_listen_opens_the_pool);
	tcase_add_test(tc, test_listen_waits_for_the_host);
	tcase_add_test(tc, test_listen_is_answered_first);
	LOOP_TEST(tc, test_errors, errors);
	LOOP_TEST(tc, test_v6only_plain, v6_errors);
	tcase_add_test(tc, test_loopback_is_never_plain);
	tcase_add_test(tc, test_port_zero_bound);
	tcase_add_test(tc, test_release_is_slow);
	tcase_add_test(tc, test_in_use_after_release);
	tcase_add_test(tc, test_away);
	tcase_add_test(tc, test_wait_in_vain);
	tcase_add_test(tc, test_wait);
	tcase_add_test(tc, test_leaves_while_waiting);
	LOOP_TEST(tc, test_two_listeners, pairs);
	tcase_add_test(tc, test_other_users_reuseport);
	tcase_add_test(tc, test_reuseport_in_turn);
	tcase_add_test(tc, test_too_many);
	LOOP_TEST(tc, test_bad_bind, bad_binds);
	tcase_add_test(tc, test_bad_endpoint);
	tcase_add_test(tc, test_bind_twice);
	tcase_add_test(tc, test_listen_first);
	tcase_add_test(tc, test_impatient);
	tcase_add_loop_test(tc, test_nonsense, 0, 4);
	tcase_add_test(tc, test_many_messages);
}

int main(void)
{
	Suite *suite = suite_create("vendor_bind");
	TCase *worker = tcase_create("worker");
	TCase *inside = tcase_create("inside");

	tcase_set_timeout(worker, 30);
	tcase_add_checked_fixture(worker, inbound_setup, inbound_teardown);
	add_worker_tests(worker);
	suite_add_tcase(suite, worker);
	tcase_add_checked_fixture(inside, inside_setup, inside_teardown);
	tcase_add_test(inside, test_take_over);
	tcase_add_test(inside, test_replace);
	tcase_add_test(inside, test_half_in_the_way);
	tcase_add_test(inside, test_end_in_the_middle);
	suite_add_tcase(suite, inside);
	return suite_run(suite);
}
