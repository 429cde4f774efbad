/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "vendor/dial.h"
#include "vendor/edge.h"
#include "suite.h"
#include "vendor_stage.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * One loop and one thread: between two turns of the loop the test is the host
 * proxy. A unix socket has delivered what was sent when send() returns, so one
 * turn is enough for the dial to see it.
 */

#define TIMEOUT 5.0

static struct stage stage;
static struct ev_loop *loop;
static struct socks5_addr dst;
static struct dial_result result;
static int called;
static int fds_before;

static void on_result(const struct dial_result *r, void *arg)
{
	ck_assert_ptr_eq(arg, &called);
	result = *r;
	called++;
}

static void setup(void)
{
	stage_open(&stage);
	loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	ck_assert_ptr_nonnull(loop);
	memset(&dst, 0, sizeof(dst));
	dst.addr.family = AF_INET;
	dst.addr.port = 80;
	ck_assert_int_eq(inet_pton(AF_INET, "198.51.100.1", dst.addr.ip), 1);
	called = 0;
	fds_before = stage_count_fds(0);
}

static void teardown(void)
{
	if (stage.listener != -1)
		closefd(&stage.listener);
	ck_assert_int_eq(stage_count_fds(0), fds_before);
	ck_assert_ptr_null(ev_userdata(loop));
	ev_loop_destroy(loop);
	stage_close(&stage);
}

static void turn(void)
{
	ev_run(loop, EVRUN_NOWAIT);
}

/* Run until somebody knocks at the host proxy. */
static void run_to_knock(void)
{
	struct pollfd pfd = {stage.listener, POLLIN, 0};

	while (poll(&pfd, 1, 0) == 0)
		ev_run(loop, EVRUN_ONCE);
}

static void on_guard(struct ev_loop *l, ev_timer *w, int revents)
{
	ck_abort_msg("no result");
}

/* Run until the callback was called. */
static void finish(void)
{
	ev_timer guard;

	ev_timer_init(&guard, on_guard, STAGE_PATIENCE_MS / 1000.0, 0);
	ev_timer_start(loop, &guard);
	turn(); /* what waits already does not end a wait */
	while (!called)
		ev_run(loop, EVRUN_ONCE);
	ev_timer_stop(loop, &guard);
	ck_assert_int_eq(called, 1);
}

static struct dial *dial(void)
{
	struct dial *d = dial_start(loop, &stage.config.endpoint,
		SOCKS5_CONNECT, &dst, TIMEOUT, on_result, &called);

	ck_assert_ptr_nonnull(d);
	ck_assert_int_eq(called, 0);
	return d;
}

static int dial_and_accept(void)
{
	struct socks5_request request;
	int peer;

	dial();
	peer = host_accept(&stage);
	host_take_hello(peer, &request);
	ck_assert(ip_port_equal(&request.dst.addr, &dst.addr));
	return peer;
}

static void expect_failure(int err, int proxy_err)
{
	ck_assert_int_eq(result.err, err);
	ck_assert_int_eq(result.proxy_err, proxy_err);
	ck_assert_int_eq(result.fd, -1);
	ck_assert_int_eq(result.local.family, AF_UNSPEC);
}

/* ---- success, however the bytes arrive ---- */

static const struct {
	const char *bytes;
	size_t len;
	const char *local;
} replies[] = {
	{"\5\0\5\0\0\1\300\0\2\7\20\222", 12, "192.0.2.7:4242"},
	{"\5\0\5\0\0\4\x20\1\r\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\x50", 24,
		"[2001:db8::1]:80"},
	{"\5\0\5\0\0\3\4host\0\x50", 13, "-"},
	{"\5\0\5\0\0\3\0\0\x50", 9, "-"},
};

#define NR_REPLIES (sizeof(replies) / sizeof(replies[0]))

static const char payload[] = "\5\0\5\0\0\1payload";

static void expect_payload(void)
{
	char buf[64], text[IP_PORT_STRLEN];
	ssize_t n = recv(result.fd, buf, sizeof(buf), MSG_DONTWAIT);

	ip_port_format(&result.local, text, sizeof(text));
	ck_assert_int_eq(n, sizeof(payload));
	ck_assert_mem_eq(buf, payload, sizeof(payload));
}

/* Cut the reply and the payload behind it in two at each byte. */
static void split_reply(size_t which)
{
	char all[64], text[IP_PORT_STRLEN];
	size_t len = replies[which].len;

	memcpy(all, replies[which].bytes, len);
	memcpy(all + len, payload, sizeof(payload));
	for (size_t cut = 0; cut <= len; cut++) {
		int peer = dial_and_accept();

		if (cut > 0)
			host_send(peer, all, cut);
		turn();
		ck_assert_int_eq(called, cut == len);
		host_send(peer, all + cut, len + sizeof(payload) - cut);
		finish();
		ck_assert_int_eq(result.err, 0);
		ck_assert_int_eq(result.proxy_err, 0);
		ck_assert_str_eq(
			ip_port_format(&result.local, text, sizeof(text)),
			replies[which].local);
		expect_payload();
		closefd(&result.fd);
		closefd(&peer);
		called = 0;
	}
}

START_TEST(test_split)
{
	stage_listen(&stage, 8);
	split_reply((size_t)_i);
}
END_TEST

START_TEST(test_byte_by_byte)
{
	const char *at = replies[_i].bytes;
	int peer;

	stage_listen(&stage, 8);
	peer = dial_and_accept();
	for (size_t i = 0; i < replies[_i].len; i++) {
		ck_assert_int_eq(called, 0);
		host_send(peer, at + i, 1);
		turn();
	}
	ck_assert_int_eq(called, 1);
	ck_assert_int_eq(result.err, 0);
	closefd(&result.fd);
	closefd(&peer);
}
END_TEST

START_TEST(test_name)
{
	struct socks5_request request;
	int peer;

	dst.addr.family = AF_UNSPEC;
	dst.addr.port = 443;
	dst.name_len = 11;
	memcpy(dst.name, "example.org", 12);
	stage_listen(&stage, 8);
	dial();
	peer = host_accept(&stage);
	host_take_hello(peer, &request);
	ck_assert_str_eq(request.dst.name, "example.org");
	ck_assert_int_eq(request.dst.addr.port, 443);
	host_answer(peer, SOCKS5_SUCCEEDED);
	finish();
	ck_assert_int_eq(result.err, 0);
	closefd(&result.fd);
	closefd(&peer);
}
END_TEST

/* epoll remembers files, not fd numbers: see vendor/edge.h. */
static int watched_by_epoll(int fd)
{
	struct stat st;
	char path[64], line[256], want[64];
	int found = 0;

	ck_assert_int_eq(fstat(fd, &st), 0);
	snprintf(want, sizeof(want), "ino:%lx ", (unsigned long)st.st_ino);
	for (int i = 0; i < 64; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", i);
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			found += strncmp(line, "tfd:", 4) == 0 &&
				 strstr(line, want) != NULL;
		if (f)
			fclose(f);
	}
	return found;
}

START_TEST(test_handed_over)
{
	struct edge_poll *poll = edge_poll_ref(loop);
	int peer;

	stage_listen(&stage, 8);
	peer = dial_and_accept();
	host_answer(peer, SOCKS5_SUCCEEDED);
	finish();
	ck_assert_int_eq(watched_by_epoll(result.fd), 0);
	ck_assert_int_eq(fcntl(result.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	ck_assert_int_eq(fcntl(result.fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	closefd(&result.fd);
	closefd(&peer);
	edge_poll_unref(poll);
}
END_TEST

START_TEST(test_tcp)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	char text[64];
	int peer;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	stage.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(
		bind(stage.listener, (struct sockaddr *)&addr, len), 0);
	ck_assert_int_eq(listen(stage.listener, 8), 0);
	getsockname(stage.listener, (struct sockaddr *)&addr, &len);
	snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", ntohs(addr.sin_port));
	ck_assert_ptr_null(endpoint_parse(&stage.config.endpoint, text));
	dial();
	turn();
	peer = host_accept(&stage);
	turn();
	host_answer(peer, SOCKS5_SUCCEEDED);
	host_send(peer, payload, sizeof(payload));
	finish();
	ck_assert_int_eq(result.err, 0);
	expect_payload();
	closefd(&result.fd);
	closefd(&peer);
}
END_TEST

/* ---- what the host proxy says no to ---- */

static const struct {
	uint8_t reply;
	int err;
} refusals[] = {
	{SOCKS5_GENERAL_FAILURE, ECONNABORTED},
	{SOCKS5_NOT_ALLOWED, EACCES},
	{SOCKS5_NETWORK_UNREACHABLE, ENETUNREACH},
	{SOCKS5_HOST_UNREACHABLE, EHOSTUNREACH},
	{SOCKS5_REFUSED, ECONNREFUSED},
	{SOCKS5_TTL_EXPIRED, ETIMEDOUT},
	{SOCKS5_COMMAND_NOT_SUPPORTED, EOPNOTSUPP},
	{SOCKS5_ATYP_NOT_SUPPORTED, EAFNOSUPPORT},
	{0x42, ECONNABORTED},
};

START_TEST(test_refused)
{
	int peer;

	stage_listen(&stage, 8);
	peer = dial_and_accept();
	host_answer(peer, (enum socks5_reply)refusals[_i].reply);
	finish();
	expect_failure(refusals[_i].err, 0);
	host_expect_eof(peer);
	closefd(&peer);
}
END_TEST

static const struct {
	const char *bytes;
	size_t len;
} nonsense[] = {
	{"\5\xff", 2}, /* no acceptable method */
	{"\4\0", 2},   /* another version */
	{"\5\2", 2},   /* a method that was not offered */
	{"HTTP/1.0 400 Bad\r\n", 18},
	{"\5\0\4\0\0\1", 6},       /* reply of another version */
	{"\5\0\5\0\0\2\0\0\0", 9}, /* unknown address type */
	{"\0", 1},
};

START_TEST(test_nonsense)
{
	int peer;

	stage_listen(&stage, 8);
	peer = dial_and_accept();
	host_send(peer, nonsense[_i].bytes, nonsense[_i].len);
	finish();
	expect_failure(ENETDOWN, EPROTO);
	host_expect_eof(peer);
	closefd(&peer);
}
END_TEST

/* The host proxy goes away after @_i bytes of its answer. */
START_TEST(test_cut_off)
{
	int peer;

	stage_listen(&stage, 8);
	peer = dial_and_accept();
	host_send(peer, replies[0].bytes, (size_t)_i);
	closefd(&peer);
	finish();
	expect_failure(ENETDOWN, ECONNRESET);
}
END_TEST

/* ---- no host proxy ---- */

START_TEST(test_missing)
{
	ev_tstamp start = ev_time();

	dial();
	finish();
	expect_failure(ENETDOWN, ENOENT);
	ck_assert(ev_time() - start < 0.2);
}
END_TEST

START_TEST(test_dead)
{
	stage_listen(&stage, 8);
	closefd(&stage.listener);
	dial();
	finish();
	expect_failure(ENETDOWN, ECONNREFUSED);
}
END_TEST

START_TEST(test_named_tcp)
{
	ck_assert_ptr_null(
		endpoint_parse(&stage.config.endpoint, "tcp:host.invalid:1"));
	dial();
	finish();
	expect_failure(ENETDOWN, EDESTADDRREQ);
}
END_TEST

/* A proxy that closes before it said a word is being restarted, perhaps. */
START_TEST(test_restarted)
{
	int peer, first;

	stage_listen(&stage, 8);
	first = dial_and_accept();
	closefd(&first);
	run_to_knock();
	peer = host_serve(&stage, SOCKS5_SUCCEEDED);
	finish();
	ck_assert_int_eq(result.err, 0);
	closefd(&result.fd);
	closefd(&peer);
}
END_TEST

START_TEST(test_backlog_full)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int filler[4];
	int peer;

	stage_listen(&stage, 0);
	memcpy(addr.sun_path, stage.host, sizeof(stage.host));
	for (size_t i = 0; i < 4; i++) {
		filler[i] = socket(
			AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)!connect(
			filler[i], (struct sockaddr *)&addr, sizeof(addr));
	}
	ck_assert_int_eq(errno, EAGAIN);
	dial();
	for (int i = 0; i < 3; i++)
		ev_run(loop, EVRUN_ONCE);
	ck_assert_int_eq(called, 0);
	for (size_t i = 0; i < 4; i++)
		closefd(&filler[i]);
	/* Whatever waited in the backlog ends at once, but for ours. */
	while (!called) {
		struct pollfd pfd = {stage.listener, POLLIN, 0};
		char byte;

		ev_run(loop, EVRUN_NOWAIT);
		if (poll(&pfd, 1, 10) == 0)
			continue;
		peer = host_accept(&stage);
		if (recv(peer, &byte, 1, MSG_PEEK) == 1) {
			host_answer(peer, SOCKS5_SUCCEEDED);
			finish();
		}
		closefd(&peer);
	}
	ck_assert_int_eq(result.err, 0);
	closefd(&result.fd);
}
END_TEST

/* ---- deadlines ---- */

START_TEST(test_silent)
{
	int peer;

	stage_listen(&stage, 8);
	ck_assert_ptr_nonnull(dial_start(loop, &stage.config.endpoint,
		SOCKS5_CONNECT, &dst, 0.05, on_result, &called));
	peer = host_accept(&stage);
	if (_i)
		host_send(peer, "\5\0", 2);
	finish();
	/* Only a proxy that did not even take the greeting is to blame. */
	expect_failure(ETIMEDOUT, _i ? 0 : ETIMEDOUT);
	closefd(&peer);
}
END_TEST

/* ---- cancelling ---- */

START_TEST(test_cancel)
{
	static const size_t sent[] = {0, 1, 2, 7, 11, 12};
	struct socks5_request request;
	struct dial *d;
	int peer;

	stage_listen(&stage, 8);
	d = dial();
	peer = host_accept(&stage);
	host_take_hello(peer, &request);
	if (sent[_i] > 0)
		host_send(peer, replies[0].bytes, sent[_i]);
	if (sent[_i] < 12)
		turn();
	dial_cancel(d);
	turn();
	ck_assert_int_eq(called, 0);
	host_expect_eof(peer);
	closefd(&peer);
}
END_TEST

START_TEST(test_cancel_at_once)
{
	if (_i)
		stage_listen(&stage, 8);
	dial_cancel(dial());
	turn();
	ck_assert_int_eq(called, 0);
}
END_TEST

/* ---- probing ---- */

START_TEST(test_probe)
{
	char buf[8];
	int peer;

	stage_listen(&stage, 8);
	ck_assert_ptr_nonnull(dial_probe(
		loop, &stage.config.endpoint, TIMEOUT, on_result, &called));
	peer = host_accept(&stage);
	ck_assert_int_eq(recv(peer, buf, sizeof(buf), 0), 3);
	ck_assert_mem_eq(buf, "\5\1\0", 3);
	host_send(peer, "\5\0", 2);
	finish();
	expect_failure(0, 0);
	host_expect_eof(peer);
	closefd(&peer);
}
END_TEST

START_TEST(test_probe_missing)
{
	ck_assert_ptr_nonnull(dial_probe(
		loop, &stage.config.endpoint, TIMEOUT, on_result, &called));
	finish();
	expect_failure(ENETDOWN, ENOENT);
}
END_TEST

/* ---- vsock behind a unix socket ---- */

static int mux_accept(void)
{
	char line[32] = {0};
	int peer;

	stage_listen(&stage, 8);
	stage.config.endpoint.kind = ENDPOINT_VSOCK_MUX;
	stage.config.endpoint.port = 8888;
	dial();
	peer = host_accept(&stage);
	ck_assert_int_eq(recv(peer, line, sizeof(line) - 1, 0), 13);
	ck_assert_str_eq(line, "CONNECT 8888\n");
	return peer;
}

START_TEST(test_mux)
{
	static const char ok[] = "OK 1073741824\n";
	struct socks5_request request;
	int peer = mux_accept();
	size_t cut = (size_t)_i;

	if (cut > 0)
		host_send(peer, ok, cut);
	turn();
	host_send(peer, ok + cut, sizeof(ok) - 1 - cut);
	turn();
	host_take_hello(peer, &request);
	host_answer(peer, SOCKS5_SUCCEEDED);
	host_send(peer, payload, sizeof(payload));
	finish();
	ck_assert_int_eq(result.err, 0);
	expect_payload();
	closefd(&result.fd);
	closefd(&peer);
}
END_TEST

START_TEST(test_mux_nonsense)
{
	static const char *const lines[] = {
		"NO 1\n",
		"OK \n....",
		"................................................",
	};
	int peer = mux_accept();

	host_send(peer, lines[_i], strlen(lines[_i]));
	finish();
	expect_failure(ENETDOWN, EPROTO);
	closefd(&peer);
}
END_TEST

START_TEST(test_mux_nobody)
{
	int peer = mux_accept();

	closefd(&peer);
	/* Told by a close, as a reset is on vsock: tried again for a while. */
	while (!called) {
		struct pollfd pfd = {stage.listener, POLLIN, 0};

		ev_run(loop, EVRUN_ONCE);
		if (poll(&pfd, 1, 0) == 1) {
			peer = host_accept(&stage);
			closefd(&peer);
		}
	}
	expect_failure(ENETDOWN, ECONNRESET);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("vendor_dial");
	TCase *tc = tcase_create("dial");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 30);
	tcase_add_loop_test(tc, test_split, 0, NR_REPLIES);
	tcase_add_loop_test(tc, test_byte_by_byte, 0, NR_REPLIES);
	tcase_add_test(tc, test_name);
	tcase_add_test(tc, test_handed_over);
	tcase_add_test(tc, test_tcp);
	tcase_add_loop_test(
		tc, test_refused, 0, sizeof(refusals) / sizeof(refusals[0]));
	tcase_add_loop_test(
		tc, test_nonsense, 0, sizeof(nonsense) / sizeof(nonsense[0]));
	tcase_add_loop_test(tc, test_cut_off, 1, 12);
	tcase_add_test(tc, test_missing);
	tcase_add_test(tc, test_dead);
	tcase_add_test(tc, test_named_tcp);
	tcase_add_test(tc, test_restarted);
	tcase_add_test(tc, test_backlog_full);
	tcase_add_loop_test(tc, test_silent, 0, 2);
	tcase_add_loop_test(tc, test_cancel, 0, 6);
	tcase_add_loop_test(tc, test_cancel_at_once, 0, 2);
	tcase_add_test(tc, test_probe);
	tcase_add_test(tc, test_probe_missing);
	tcase_add_loop_test(tc, test_mux, 0, 14);
	tcase_add_loop_test(tc, test_mux_nonsense, 0, 3);
	tcase_add_test(tc, test_mux_nobody);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
