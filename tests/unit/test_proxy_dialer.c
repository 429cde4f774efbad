/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/dialer.h"

#include "common/fd.h"
#include "common/log.h"

#include "suite.h"
#include "test_proxy_net.h"

#include <sys/stat.h>
#include <sys/un.h>

/*
 * Theory of operation
 *
 * Dials to unix sockets in a temporary directory, where the test plays the
 * multiplexer of a VMM, and to TCP listeners. (What the vsock of this machine
 * does is another machine's business.)
 */

static struct ev_loop *loop;
static struct resolver *resolver;
static struct fd_budget budget;
static struct dialer dialer;
static char dir[32], path[64];
static int listen_fd = -1, peer = -1;
static int nr_calls;

static void on_dialled(struct dialer *d, void *arg)
{
	ck_assert_ptr_eq(d, &dialer);
	ck_assert_ptr_eq(arg, &nr_calls);
	nr_calls++;
}

static int listen_unix(int backlog)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	ck_assert_int_eq(bind(fd, (const struct sockaddr *)&un, sizeof(un)), 0);
	ck_assert_int_eq(listen(fd, backlog), 0);
	return fd;
}

static void setup(void)
{
	log_init("test", LOG_ERROR, STDERR_FILENO);
	snprintf(dir, sizeof(dir), "/tmp/test-dialer-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	loop = ev_loop_new(EVBACKEND_EPOLL);
	ck_assert_int_eq(resolve_library_init(), 0);
	resolver = resolver_new(loop, "/nonexistent");
	fd_budget_init(&budget, 100, 0);
	dialer_init(&dialer, loop, resolver, &budget);
	nr_calls = 0;
}

static void teardown(void)
{
	dialer_cancel(&dialer);
	closefd_if(&listen_fd);
	closefd_if(&peer);
	resolver_free(resolver);
	resolve_library_cleanup();
	ev_loop_destroy(loop);
	unlink(path);
	rmdir(dir);
	ck_assert_int_eq(atomic_load(&budget.used), 0);
}

static bool start_with(const struct endpoint *ep, const struct rules *rules)
{
	ev_now_update(loop);
	return dialer_start(&dialer, ep, rules, on_dialled, &nr_calls);
}

static bool start(const char *scheme, const char *suffix)
{
	char text[ENDPOINT_STRLEN];
	struct endpoint ep;

	snprintf(text, sizeof(text), "%s%s%s", scheme, path, suffix);
	ck_assert_ptr_null(endpoint_parse(&ep, text));
	return start_with(&ep, NULL);
}

static bool called(void *arg)
{
	return nr_calls > 0;
}

static void finish(void)
{
	ck_assert(net_turn_until(loop, called, NULL));
	ck_assert_int_eq(nr_calls, 1);
	ck_assert_int_eq(dialer.state, DIALER_IDLE);
}

START_TEST(unix_socket)
{
	listen_fd = listen_unix(4);
	ck_assert(start("unix:", ""));
	ck_assert_int_eq(dialer.err, 0);
	ck_assert_int_ge(dialer.fd, 0);
	ck_assert_int_eq(dialer.family, AF_UNIX);
	ck_assert_int_eq(nr_calls, 0);
}
END_TEST

START_TEST(nobody_there)
{
	ck_assert(start("unix:", ""));
	ck_assert_int_eq(dialer.err, ENOENT);
	ck_assert_int_eq(dialer.fd, -1);
}
END_TEST

START_TEST(nobody_listens)
{
	listen_fd = listen_unix(4);
	closefd(&listen_fd);
	ck_assert(start("unix:", ""));
	ck_assert_int_eq(dialer.err, ECONNREFUSED);
}
END_TEST

/* A full backlog is waited for, on one fd at a time. */
START_TEST(backlog_full)
{
	int first[2];

	listen_fd = listen_unix(0);
	ck_assert(start("unix:", ""));
	first[0] = dialer.fd;
	dialer.fd = -1;
	ck_assert(!start("unix:", ""));
	ck_assert_int_eq(dialer.state, DIALER_PAUSE);
	net_turn(loop, 3);
	ck_assert_int_eq(dialer_timed_out(&dialer), EAGAIN);
	ck_assert_int_eq(dialer.fd, -1);
	first[1] = accept(listen_fd, NULL, NULL);
	finish();
	ck_assert_int_eq(dialer.err, 0);
	ck_assert_int_ge(dialer.fd, 0);
	close(first[0]);
	close(first[1]);
}
END_TEST

START_TEST(cancelled_while_paused)
{
	int first;

	listen_fd = listen_unix(0);
	ck_assert(start("unix:", ""));
	first = dialer.fd;
	dialer.fd = -1;
	ck_assert(!start("unix:", ""));
	dialer_cancel(&dialer);
	net_turn(loop, 3);
	ck_assert_int_eq(nr_calls, 0);
	close(first);
}
END_TEST

/* ---- the multiplexer ---- */

static void accept_mux(const char *want)
{
	char line[64] = "";

	peer = accept(listen_fd, NULL, NULL);
	ck_assert_int_ge(peer, 0);
	ck_assert_int_eq(
		recv(peer, line, sizeof(line) - 1, 0), (ssize_t)strlen(want));
	ck_assert_str_eq(line, want);
}

static void mux_says(const char *text, size_t len)
{
	ck_assert_int_eq(send(peer, text, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void start_mux(void)
{
	listen_fd = listen_unix(4);
	ck_assert(!start("vsock-mux:", ":4294967295"));
	accept_mux("CONNECT 4294967295\n");
}

/* The answer in two parts, split anywhere, with what the guest says first. */
START_TEST(mux)
{
	static const char answer[] = "OK 1073741824\nSSH-2.0";
	size_t cut = (size_t)_i;

	start_mux();
	mux_says(answer, cut);
	net_turn(loop, 3);
	if (cut < 14) {
		ck_assert_int_eq(nr_calls, 0);
		mux_says(answer + cut, sizeof(answer) - 1 - cut);
	}
	finish();
	ck_assert_int_eq(dialer.err, 0);
	ck_assert_int_ge(dialer.fd, 0);
	ck_assert_int_eq(dialer.family, AF_UNIX);
	if (cut < 14) {
		ck_assert_uint_eq(dialer.rest_len, 7);
		ck_assert_mem_eq(dialer.rest, "SSH-2.0", 7);
	} else {
		ck_assert_uint_eq(dialer.rest_len, cut - 14);
	}
}
END_TEST

START_TEST(mux_has_no_such_port)
{
	start_mux();
	closefd(&peer);
	finish();
	ck_assert_int_eq(dialer.err, ECONNREFUSED);
	ck_assert_int_eq(dialer.fd, -1);
}
END_TEST

START_TEST(mux_talks_nonsense)
{
	static const char *const answers[] = {"NO\n", "OK\n", "ok 1\n",
		"HTTP/1.1 400 Bad Request\r\n",
		"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		"OK xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"};

	start_mux();
	mux_says(answers[_i], strlen(answers[_i]));
	finish();
	ck_assert_int_eq(dialer.err, EPROTO);
	ck_assert_ptr_nonnull(dialer.why);
	ck_assert_int_eq(dialer.fd, -1);
}
END_TEST

START_TEST(mux_is_silent)
{
	start_mux();
	net_turn(loop, 5);
	ck_assert_int_eq(nr_calls, 0);
	ck_assert_int_eq(dialer_timed_out(&dialer), ETIMEDOUT);
	dialer_cancel(&dialer);
	/* Our end is closed. */
	ck_assert_int_eq(recv(peer, path, 1, 0), 0);
}
END_TEST

/* ---- TCP ---- */

START_TEST(tcp)
{
	struct endpoint ep = {.kind = ENDPOINT_TCP};

	listen_fd = net_listen(_i ? AF_INET6 : AF_INET, 4, &ep.addr);
	if (!start_with(&ep, NULL))
		finish();
	ck_assert_int_eq(dialer.err, 0);
	ck_assert_int_ge(dialer.fd, 0);
	ck_assert_int_eq(dialer.family, _i ? AF_INET6 : AF_INET);
}
END_TEST

START_TEST(tcp_refused)
{
	struct endpoint ep = {.kind = ENDPOINT_TCP};
	int fd = net_listen(AF_INET, 4, &ep.addr);

	close(fd);
	if (!start_with(&ep, NULL))
		finish();
	ck_assert_int_eq(dialer.err, ECONNREFUSED);
	ck_assert_int_eq(dialer.fd, -1);
}
END_TEST

/* From the hosts file. */
START_TEST(tcp_name)
{
	struct endpoint ep = {.kind = ENDPOINT_TCP};

	listen_fd = net_listen(AF_INET, 4, &ep.addr);
	ep.port = ep.addr.port;
	memset(&ep.addr, 0, sizeof(ep.addr));
	strcpy(ep.text, "localhost");
	if (!start_with(&ep, NULL))
		finish();
	ck_assert_int_eq(dialer.err, 0);
	ck_assert_int_ge(dialer.fd, 0);
}
END_TEST

START_TEST(tcp_denied)
{
	struct endpoint ep = {.kind = ENDPOINT_TCP};
	struct rules rules;

	rules_init(&rules);
	ck_assert_ptr_null(rules_add(&rules, "127.0.0.0/8", RULES_DENY));
	listen_fd = net_listen(AF_INET, 4, &ep.addr);
	ck_assert(start_with(&ep, &rules));
	ck_assert_int_eq(dialer.err, EACCES);
	ck_assert_str_eq(dialer.why, "not allowed by the rules");
	/* However it is spelled. */
	ip_port_map(&ep.addr);
	ck_assert(start_with(&ep, &rules));
	ck_assert_int_eq(dialer.err, EACCES);
	rules_free(&rules);
}
END_TEST

/* An address that leads back to whoever asks. */
START_TEST(tcp_never)
{
	struct endpoint ep = {.kind = ENDPOINT_TCP};
	struct ip_port never;

	listen_fd = net_listen(AF_INET, 4, &ep.addr);
	never = ep.addr;
	dialer.never = &never;
	if (_i)
		ip_port_map(&ep.addr);
	ck_assert(start_with(&ep, NULL));
	ck_assert_int_eq(dialer.err, ELOOP);
	ck_assert_ptr_nonnull(strstr(dialer.why, "original destination"));
	/* Another port is another place. */
	never.port ^= 1;
	if (!start_with(&ep, NULL))
		finish();
	ck_assert_int_eq(dialer.err, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("dialer");
	TCase *tc = tcase_create("dialer");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, unix_socket);
	tcase_add_test(tc, nobody_there);
	tcase_add_test(tc, nobody_listens);
	tcase_add_test(tc, backlog_full);
	tcase_add_test(tc, cancelled_while_paused);
	tcase_add_loop_test(tc, mux, 1, 22);
	tcase_add_test(tc, mux_has_no_such_port);
	tcase_add_loop_test(tc, mux_talks_nonsense, 0, 6);
	tcase_add_test(tc, mux_is_silent);
	tcase_add_loop_test(tc, tcp, 0, 2);
	tcase_add_test(tc, tcp_refused);
	tcase_add_test(tc, tcp_name);
	tcase_add_test(tc, tcp_denied);
	tcase_add_loop_test(tc, tcp_never, 0, 2);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
