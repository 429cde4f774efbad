/* SPDX-License-Identifier: Apache-2.0 */
#include "common/carrier.h"
#include "common/fd.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <errno.h>
#include <netinet/tcp.h>

/* ---- which failures, and for how long ---- */

static const struct {
	enum endpoint_kind kind;
	int err;
	bool silent;
	unsigned ms;
} rules[] = {
	/* nobody is there: final, but on vsock it looks like a full backlog */
	{ENDPOINT_UNIX, ENOENT, true, 0},
	{ENDPOINT_UNIX, ECONNREFUSED, true, 0},
	{ENDPOINT_TCP, ECONNREFUSED, true, 0},
	{ENDPOINT_VSOCK, ENODEV, true, 0},
	{ENDPOINT_VSOCK, ECONNRESET, true, 250},
	/* a backlog is full */
	{ENDPOINT_UNIX, EAGAIN, true, 2000},
	{ENDPOINT_VSOCK_MUX, EAGAIN, true, 2000},
	/* closed before it said a word, or in the middle of one */
	{ENDPOINT_UNIX, ECONNRESET, true, 250},
	{ENDPOINT_UNIX, EPIPE, true, 250},
	{ENDPOINT_TCP, ECONNRESET, true, 250},
	{ENDPOINT_VSOCK, EPIPE, true, 250},
	{ENDPOINT_UNIX, ECONNRESET, false, 0},
	{ENDPOINT_TCP, EPIPE, false, 0},
	{ENDPOINT_VSOCK, ECONNRESET, false, 0},
	/* TCP has tried again by itself before it says so */
	{ENDPOINT_VSOCK, ETIMEDOUT, true, 6000},
	{ENDPOINT_TCP, ETIMEDOUT, true, 0},
	{ENDPOINT_UNIX, ETIMEDOUT, true, 0},
	/* what it said is no SOCKS5, or the caller is short of something */
	{ENDPOINT_VSOCK, EPROTO, false, 0},
	{ENDPOINT_VSOCK, EMFILE, true, 0},
	{ENDPOINT_UNIX, ENOMEM, true, 0},
};

START_TEST(test_rule)
{
	ck_assert_uint_eq(carrier_retry_ms(rules[_i].kind, rules[_i].err,
				  rules[_i].silent),
		rules[_i].ms);
}
END_TEST

/* ---- pauses ---- */

static const uint32_t numbers[] = {0, 1, 999, 1000, 0x7fffffff, 0xffffffff};

#define NR_NUMBERS (sizeof(numbers) / sizeof(numbers[0]))

START_TEST(test_pause)
{
	static const unsigned full[] = {
		2000, 4000, 8000, 16000, 32000, 50000, 50000, 50000};
	unsigned step = 0;

	for (size_t i = 0; i < sizeof(full) / sizeof(full[0]); i++) {
		unsigned pause = carrier_pause_us(&step, numbers[_i]);

		ck_assert_uint_ge(pause, full[i] / 2);
		ck_assert_uint_le(pause, full[i]);
	}
}
END_TEST

/* Who failed together must not come back together. */
START_TEST(test_jitter)
{
	unsigned least = UINT32_MAX, most = 0;

	for (uint32_t i = 0; i < 1000; i++) {
		unsigned step = 0;
		unsigned pause = carrier_pause_us(&step, i * 2654435761u);

		least = pause < least ? pause : least;
		most = pause > most ? pause : most;
	}
	ck_assert_uint_lt(least, 1100);
	ck_assert_uint_gt(most, 1900);
}
END_TEST

/* ---- options ---- */

START_TEST(test_tcp_options)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int on = 0;
	socklen_t len = sizeof(on);

	carrier_options(fd, ENDPOINT_TCP);
	ck_assert_int_eq(
		getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len), 0);
	ck_assert_int_eq(on, 1);
	closefd(&fd);
}
END_TEST

/* A kernel without them, here a socket that is none of vsock's: no matter. */
START_TEST(test_unknown_options)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	errno = E2BIG;
	carrier_options(fd, ENDPOINT_VSOCK);
	carrier_options(fd, ENDPOINT_TCP);
	carrier_options(fd, ENDPOINT_UNIX);
	ck_assert_int_eq(errno, E2BIG);
	closefd(&fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("common_carrier");
	TCase *tcase = tcase_create("carrier");

	tcase_add_loop_test(
		tcase, test_rule, 0, sizeof(rules) / sizeof(rules[0]));
	tcase_add_loop_test(tcase, test_pause, 0, NR_NUMBERS);
	tcase_add_test(tcase, test_jitter);
	tcase_add_test(tcase, test_tcp_options);
	tcase_add_test(tcase, test_unknown_options);
	suite_add_tcase(suite, tcase);
	return suite_run(suite);
}
