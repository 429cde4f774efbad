/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/connect.h"

#include "common/fd.h"

#include "suite.h"
#include "test_proxy_net.h"

#include <sys/resource.h>

/*
 * Theory of operation
 *
 * A list of addresses is made of three kinds: one that accepts, one where
 * nobody listens, and one that stays silent (a listener whose queue is full
 * drops what comes). All on loopback, the IPv6 ones too. In a namespace without
 * routes a fourth kind fails at once with ENETUNREACH.
 */

static struct ev_loop *loop;
static struct fd_budget budget;
static struct connect_job job;
static int called;
static bool isolated;

static int good_fd[2], silent_fd, silent_filler[2];
static struct ip_port good4, good6, closed4, silent4;

static const struct ip_port nowhere4 = {
	.family = AF_INET, .port = 80, .ip = {192, 0, 2, 1}};
static const struct ip_port nowhere6 = {
	.family = AF_INET6, .port = 80, .ip = {0x20, 0x01, 0x0d, 0xb8}};

static void on_done(struct connect_job *j, void *arg)
{
	ck_assert_ptr_eq(j, &job);
	ck_assert_ptr_eq(arg, &called);
	called++;
}

/* A listener that has all it can take: further connects get no answer. */
static void make_silent(void)
{
	union sockaddr_any any;
	socklen_t len;

	silent_fd = net_listen(AF_INET, 0, &silent4);
	len = ip_port_to_sockaddr(&silent4, &any);
	for (int i = 0; i < 2; i++) {
		silent_filler[i] = socket(AF_INET, SOCK_STREAM, 0);
		net_nonblock(silent_filler[i]);
		if (connect(silent_filler[i], &any.sa, len) == -1)
			ck_assert_int_eq(errno, EINPROGRESS);
	}
}

static void setup(void)
{
	int fd;

	loop = ev_loop_new(EVBACKEND_EPOLL);
	fd_budget_init(&budget, 1000, 0);
	ck_assert(fd_budget_take(&budget, FDS_PER_CONNECTION));
	called = 0;
	good_fd[0] = net_listen(AF_INET, 16, &good4);
	good_fd[1] = net_listen(AF_INET6, 16, &good6);
	fd = net_listen(AF_INET, 1, &closed4);
	close(fd);
	make_silent();
	connect_init(&job, loop, &budget);
}

static void teardown(void)
{
	connect_cancel(&job);
	/* Whatever happened, only the connection's own fds are in use. */
	ck_assert_int_eq(atomic_load(&budget.used), FDS_PER_CONNECTION);
	close(good_fd[0]);
	close(good_fd[1]);
	close(silent_fd);
	close(silent_filler[0]);
	close(silent_filler[1]);
	ev_loop_destroy(loop);
}

static bool is_called(void *arg)
{
	return called > 0;
}

/* Connect and wait. Return: seconds it took. */
static double dial(const struct ip_port *addrs, size_t nr)
{
	double start = net_now();

	ev_now_update(loop);
	if (!connect_start(&job, addrs, nr, on_done, &called))
		ck_assert(net_turn_until(loop, is_called, NULL));
	ck_assert_int_le(called, 1);
	return net_now() - start;
}

static void expect_peer(const struct ip_port *want)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	struct ip_port addr;
	int on = 0;

	ck_assert_int_ge(job.fd, 0);
	ck_assert_int_eq(job.err, 0);
	ck_assert_int_eq(getpeername(job.fd, &any.sa, &len), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(&addr, &any.sa, len), 0);
	ck_assert(ip_port_equal(&addr, want));
	len = sizeof(any);
	ck_assert_int_eq(getsockname(job.fd, &any.sa, &len), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(&addr, &any.sa, len), 0);
	ck_assert(ip_port_equal(&addr, &job.local));
	ck_assert(fcntl(job.fd, F_GETFL) & O_NONBLOCK);
	ck_assert(fcntl(job.fd, F_GETFD) & FD_CLOEXEC);
	len = sizeof(on);
	getsockopt(job.fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len);
	ck_assert_int_eq(on, 1);
}

START_TEST(one_address)
{
	ck_assert(dial(&good4, 1) < 0.2);
	expect_peer(&good4);
	closefd(&job.fd);
	called = 0;
	dial(&good6, 1);
	expect_peer(&good6);
}
END_TEST

START_TEST(refused)
{
	dial(&closed4, 1);
	ck_assert_int_eq(job.fd, -1);
	ck_assert_int_eq(job.err, ECONNREFUSED);
}
END_TEST

/* A failure starts the next address at once, a silence after the stagger. */
START_TEST(next_address)
{
	const struct ip_port after_failure[] = {closed4, closed4, good4};
	const struct ip_port after_silence[] = {silent4, good6};
	double t;

	ck_assert(dial(after_failure, 3) < 0.2);
	expect_peer(&good4);
	closefd(&job.fd);
	called = 0;
	t = dial(after_silence, 2);
	expect_peer(&good6);
	ck_assert(t > 0.2);
	ck_assert(t < 5);
}
END_TEST

/* The best error of all, whatever the order. */
START_TEST(which_error)
{
	const struct ip_port lists[][3] = {
		{nowhere6, closed4, nowhere4},
		{closed4, nowhere4, nowhere6},
		{nowhere4, nowhere6, closed4},
	};

	if (!isolated)
		return;
	dial(lists[_i], 3);
	ck_assert_int_eq(job.fd, -1);
	ck_assert_int_eq(job.err, ECONNREFUSED);
	called = 0;
	dial(&nowhere4, 1);
	ck_assert_int_eq(job.err, ENETUNREACH);
}
END_TEST

/* The owner's deadline. */
START_TEST(timed_out)
{
	const struct ip_port mixed[] = {closed4, silent4};

	ck_assert(!connect_start(&job, &silent4, 1, on_done, &called));
	net_turn(loop, 3);
	ck_assert_int_eq(connect_timed_out(&job), ETIMEDOUT);
	connect_cancel(&job);
	ck_assert(!connect_start(&job, mixed, 2, on_done, &called));
	net_turn(loop, 3);
	ck_assert_int_eq(connect_timed_out(&job), ECONNREFUSED);
	connect_cancel(&job);
	ck_assert_int_eq(called, 0);
}
END_TEST

static bool all_running(void *arg)
{
	return job.nr_attempts == CONNECT_PARALLEL;
}

static bool last_tried(void *arg)
{
	return job.next == job.nr_addrs;
}

/* More silent addresses than may run at once: each gets its turn. */
START_TEST(many_silent_addresses)
{
	struct ip_port addrs[CONNECT_PARALLEL + 2];
	double start = net_now();

	job.patience = 2.5;
	for (size_t i = 0; i < CONNECT_PARALLEL + 2; i++)
		addrs[i] = silent4;
	addrs[CONNECT_PARALLEL + 1] = good4;
	ev_now_update(loop);
	ck_assert(!connect_start(
		&job, addrs, CONNECT_PARALLEL + 2, on_done, &called));
	ck_assert(net_turn_until(loop, all_running, NULL));
	ck_assert_int_eq(atomic_load(&budget.used),
		FDS_PER_CONNECTION + CONNECT_PARALLEL - 1);
	ck_assert(net_turn_until(loop, is_called, NULL));
	expect_peer(&good4);
	ck_assert(net_now() - start > 2.4);
}
END_TEST

/* Without an fd to spare the addresses are tried one after the other. */
START_TEST(no_spare_fd)
{
	const struct ip_port addrs[] = {silent4, good4};

	budget.limit = FDS_PER_CONNECTION;
	job.patience = 0.5;
	ck_assert(!connect_start(&job, addrs, 2, on_done, &called));
	ck_assert(net_turn_until(loop, last_tried, NULL) || called);
	ck_assert(net_turn_until(loop, is_called, NULL));
	expect_peer(&good4);
	ck_assert_int_eq(atomic_load(&budget.used), FDS_PER_CONNECTION);
}
END_TEST

/* No fd at all is a failure like any other. */
START_TEST(out_of_fds)
{
	struct rlimit old, now;
	int next = dup(0);

	ck_assert_int_ge(next, 0);
	close(next);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	now = old;
	now.rlim_cur = (rlim_t)next;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &now), 0);
	ck_assert(connect_start(&job, &good4, 1, on_done, &called));
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	ck_assert_int_eq(job.fd, -1);
	ck_assert_int_eq(job.err, EMFILE);
}
END_TEST

/* Set the namespace's ephemeral ports. Return: false if that is not allowed. */
static bool set_ports(const char *range)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "w");

	if (!f)
		return false;
	fputs(range, f);
	return fclose(f) == 0;
}

/* A free port of the ephemeral range may connect to itself; with a range of
 * two it is certain to. */
START_TEST(not_to_itself)
{
	if (!isolated || !set_ports("40000 40001\n"))
		return;
	for (int i = 0; i < 40; i++) {
		struct ip_port self = {.family = AF_INET,
			.port = (uint16_t)(40000 + i % 2),
			.ip = {127, 0, 0, 1}};

		called = 0;
		dial(&self, 1);
		ck_assert_int_eq(job.fd, -1);
		ck_assert_int_eq(job.err, ECONNREFUSED);
	}
	ck_assert(set_ports("32768 60999\n"));
}
END_TEST

/* "4" and "6" for families, letters for the order within one. */
static const struct {
	const char *in;
	const char *out;
} orders[] = {
	{"", ""},
	{"4a", "4a"},
	{"4a4b4c", "4a4b4c"},
	{"6a6b4a4b", "6a4a6b4b"},
	{"4a4b6a6b", "4a6a4b6b"},
	{"6a6b6c6d4a", "6a4a6b6c6d"},
	{"4a6a6b6c6d", "4a6a6b6c6d"},
	{"6a4a4b4c6b", "6a4a6b4b4c"},
};

START_TEST(order)
{
	struct ip_port addrs[8];
	size_t nr = strlen(orders[_i].in) / 2;
	char out[20] = "";

	memset(addrs, 0, sizeof(addrs));
	for (size_t i = 0; i < nr; i++) {
		addrs[i].family =
			orders[_i].in[2 * i] == '4' ? AF_INET : AF_INET6;
		addrs[i].ip[0] = (uint8_t)orders[_i].in[2 * i + 1];
	}
	connect_order(addrs, nr);
	for (size_t i = 0; i < nr; i++) {
		out[2 * i] = addrs[i].family == AF_INET ? '4' : '6';
		out[2 * i + 1] = (char)addrs[i].ip[0];
	}
	ck_assert_str_eq(out, orders[_i].out);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proxy connect");
	TCase *tc = tcase_create("connect");

	isolated = net_isolate();
	tcase_set_timeout(tc, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, one_address);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, next_address);
	tcase_add_loop_test(tc, which_error, 0, 3);
	tcase_add_test(tc, timed_out);
	tcase_add_test(tc, many_silent_addresses);
	tcase_add_test(tc, no_spare_fd);
	tcase_add_test(tc, out_of_fds);
	tcase_add_test(tc, not_to_itself);
	tcase_add_loop_test(
		tc, order, 0, (int)(sizeof(orders) / sizeof(orders[0])));
	suite_add_tcase(s, tc);
	return suite_run(s);
}
