/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/dns_tcp.h"
#include "common/fd.h"
#include "resolv/dns_msg.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The module under test has one end of a socket pair, the test has the other
 * and writes and reads it raw. What is handed out is compared with what went
 * in; the loop is turned without blocking.
 */

#define TX_MAX   ((size_t)256 * 1024)
#define MSGS_MAX 64

static struct ev_loop *loop;
static struct dns_tcp tcp;
static int far = -1;

static size_t got_len[MSGS_MAX];
static uint8_t got_sum[MSGS_MAX];
static unsigned got;
static int closed, closed_err, drained;
static unsigned stop_after; /* stop reading after so many messages, 0: never */
static unsigned close_after;

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len-- > 0)
		s = (uint8_t)(s * 31 + *p++);
	return s;
}

static void on_message(struct dns_tcp *t, uint8_t *msg, size_t len)
{
	ck_assert_ptr_eq(t, &tcp);
	ck_assert_uint_lt(got, MSGS_MAX);
	got_len[got] = len;
	got_sum[got] = sum(msg, len);
	got++;
	if (got == stop_after)
		dns_tcp_set_reading(t, false);
	if (got == close_after)
		dns_tcp_close(t);
}

static void on_closed(struct dns_tcp *t, int err)
{
	ck_assert_int_eq(closed, 0);
	closed = 1;
	closed_err = err;
}

static void on_drained(struct dns_tcp *t)
{
	drained++;
}

static const struct dns_tcp_ops ops = {
	.message = on_message,
	.closed = on_closed,
	.drained = on_drained,
};

static void setup(void)
{
	int pair[2];

	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_ptr_nonnull(loop);
	ck_assert_int_eq(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			0, pair),
		0);
	far = pair[1];
	dns_tcp_init(&tcp);
	dns_tcp_open(&tcp, loop, pair[0], TX_MAX, &ops);
	got = stop_after = close_after = 0;
	closed = closed_err = drained = 0;
}

static void teardown(void)
{
	dns_tcp_close(&tcp);
	ck_assert_int_eq(tcp.fd, -1);
	ck_assert_ptr_null(tcp.rx);
	ck_assert_ptr_null(tcp.tx);
	closefd_if(&far);
	ev_loop_destroy(loop);
}

static void turn(void)
{
	int i;

	for (i = 0; i < 4; i++)
		ev_run(loop, EVRUN_NOWAIT);
}

/* A frame of @len bytes, counted up from @seed. */
static size_t frame(uint8_t *buf, size_t len, uint8_t seed)
{
	size_t i;

	buf[0] = (uint8_t)(len >> 8);
	buf[1] = (uint8_t)len;
	for (i = 0; i < len; i++)
		buf[2 + i] = (uint8_t)(seed + i * 7);
	return 2 + len;
}

static void write_all(const uint8_t *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(far, buf, len);

		if (n == -1 && errno == EAGAIN) {
			turn();
			continue;
		}
		ck_assert_int_gt(n, 0);
		buf += n;
		len -= (size_t)n;
	}
}

static uint8_t buf[3 * (2 + DNS_MSG_MAX)];

/* Three messages in two writes, cut at every byte. */
START_TEST(split_everywhere)
{
	size_t len = frame(buf, 17, 1);
	size_t cut;

	len += frame(buf + len, 0, 2);
	len += frame(buf + len, 300, 3);
	for (cut = 0; cut <= len; cut++) {
		got = 0;
		write_all(buf, cut);
		turn();
		write_all(buf + cut, len - cut);
		turn();
		ck_assert_uint_eq(got, 3);
		ck_assert_uint_eq(got_len[0], 17);
		ck_assert_uint_eq(got_len[1], 0);
		ck_assert_uint_eq(got_len[2], 300);
		ck_assert_uint_eq(got_sum[0], sum(buf + 2, 17));
		ck_assert_uint_eq(got_sum[2], sum(buf + 23, 300));
		/* an idle connection holds no buffer */
		ck_assert_ptr_null(tcp.rx);
	}
	ck_assert_int_eq(closed, 0);
}
END_TEST

START_TEST(byte_by_byte)
{
	size_t len = frame(buf, 5, 1);
	size_t i;

	len += frame(buf + len, 700, 9);
	for (i = 0; i < len; i++) {
		ck_assert_uint_eq(got, i < 7 ? 0u : 1u);
		write_all(buf + i, 1);
		turn();
	}
	ck_assert_uint_eq(got, 2);
	ck_assert_uint_eq(got_sum[1], sum(buf + 9, 700));
}
END_TEST

START_TEST(largest)
{
	size_t len = frame(buf, 1, 1);

	len += frame(buf + len, DNS_MSG_MAX, 5);
	len += frame(buf + len, DNS_MSG_MAX, 6);
	write_all(buf, len);
	turn();
	ck_assert_uint_eq(got, 3);
	ck_assert_uint_eq(got_len[1], DNS_MSG_MAX);
	ck_assert_uint_eq(got_sum[1], sum(buf + 5, DNS_MSG_MAX));
	ck_assert_uint_eq(got_sum[2], sum(buf + 7 + DNS_MSG_MAX, DNS_MSG_MAX));
	ck_assert_ptr_null(tcp.rx);
}
END_TEST

/* What was read waits, and comes without another byte on the socket. */
START_TEST(stop_and_go_on)
{
	size_t len = 0;
	int i;

	for (i = 0; i < 10; i++)
		len += frame(buf + len, 20, (uint8_t)i);
	stop_after = 3;
	write_all(buf, len);
	turn();
	ck_assert_uint_eq(got, 3);
	turn();
	ck_assert_uint_eq(got, 3);
	/* queueing output changes the poll mask and must not lose the rest */
	dns_tcp_set_reading(&tcp, true);
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(dns_tcp_send(&tcp, buf, 60000), 0);
	turn();
	ck_assert_uint_eq(got, 10);
	ck_assert_uint_eq(got_sum[9], sum(buf + (size_t)9 * 22 + 2, 20));
}
END_TEST

START_TEST(close_within_message)
{
	size_t len = frame(buf, 20, 1);

	len += frame(buf + len, 20, 2);
	close_after = 1;
	write_all(buf, len);
	turn();
	ck_assert_uint_eq(got, 1);
	ck_assert_int_eq(tcp.fd, -1);
	ck_assert_int_eq(closed, 0);
}
END_TEST

/* End of file comes after the messages before it; writing goes on. */
START_TEST(half_close)
{
	size_t len = frame(buf, 20, 1);

	len += frame(buf + len, 20, 2);
	write_all(buf, len - 1); /* the second one never becomes whole */
	ck_assert_int_eq(shutdown(far, SHUT_WR), 0);
	turn();
	ck_assert_uint_eq(got, 1);
	ck_assert_int_eq(closed, 1);
	ck_assert_int_eq(closed_err, 0);
	ck_assert_int_eq(dns_tcp_send(&tcp, buf, 20), 0);
	turn();
	ck_assert_int_eq(read(far, buf, sizeof(buf)), 22);
}
END_TEST

START_TEST(send_small)
{
	uint8_t in[64];

	ck_assert_int_eq(dns_tcp_send(&tcp, (const uint8_t *)"hello", 5), 0);
	ck_assert_int_eq(read(far, in, sizeof(in)), 7);
	ck_assert_mem_eq(in, "\0\5hello", 7);
	ck_assert_uint_eq(dns_tcp_queued(&tcp), 0);
}
END_TEST

/* A reader that is slow gets all of it, one that does not read a limit. */
START_TEST(send_queued)
{
	static uint8_t msg[DNS_MSG_MAX];
	static uint8_t in[1024 * 1024];
	size_t sent = 0, i;
	size_t have = 0;
	ssize_t n;

	while (dns_tcp_send(&tcp, msg, 60000) == 0) {
		ck_assert_uint_le(dns_tcp_queued(&tcp), TX_MAX);
		memset(msg, (int)++sent, sizeof(msg));
		ck_assert_uint_lt(sent, 16);
	}
	ck_assert_int_eq(errno, ENOBUFS);
	ck_assert_uint_gt(dns_tcp_queued(&tcp), TX_MAX - 60002);
	ck_assert_int_eq(drained, 0);
	do {
		n = read(far, in + have, 5000);
		if (n > 0)
			have += (size_t)n;
		turn();
	} while (n > 0);
	ck_assert_int_eq(drained, 1);
	ck_assert_uint_eq(have, sent * 60002);
	for (i = 0; i < sent; i++) {
		ck_assert_mem_eq(in + i * 60002, "\xea\x60", 2);
		ck_assert_uint_eq(in[i * 60002 + 2], i);
		ck_assert_uint_eq(in[i * 60002 + 60001], i);
	}
	ck_assert_ptr_null(tcp.tx);
}
END_TEST

/* Never from within dns_tcp_send(), once, and then from the loop. */
START_TEST(send_to_nobody)
{
	closefd(&far);
	ck_assert_int_eq(dns_tcp_send(&tcp, buf, 20), 0);
	ck_assert_int_eq(dns_tcp_send(&tcp, buf, 20), 0);
	ck_assert_int_eq(closed, 0);
	turn();
	ck_assert_int_eq(closed, 1);
	ck_assert_int_eq(closed_err, EPIPE);
}
END_TEST

START_TEST(peer_gone_while_queued)
{
	while (dns_tcp_send(&tcp, buf, 60000) == 0)
		;
	closefd(&far);
	turn();
	ck_assert_int_eq(closed, 1);
	ck_assert_int_ne(closed_err, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dns_tcp");
	TCase *tc = tcase_create("dns_tcp");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, split_everywhere);
	tcase_add_test(tc, byte_by_byte);
	tcase_add_test(tc, largest);
	tcase_add_test(tc, stop_and_go_on);
	tcase_add_test(tc, close_within_message);
	tcase_add_test(tc, half_close);
	tcase_add_test(tc, send_small);
	tcase_add_test(tc, send_queued);
	tcase_add_test(tc, send_to_nobody);
	tcase_add_test(tc, peer_gone_while_queued);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
