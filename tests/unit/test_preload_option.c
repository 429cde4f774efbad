/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload/lookup.h"
#include "preload/option.h"
#include "preload_stage.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

/*
 * Each option is set and read on a TCP socket and on a socket of each of our
 * kinds, and everything about the two must be the same: values, errno, lengths,
 * and the bytes behind them.
 */

#define GUARD 0x5a

static const enum record_kind kinds[] = {
	RECORD_GATE, RECORD_CARRIER, RECORD_BOUND, RECORD_LISTENER};
#define NR_KINDS 4

/* A socket that the library takes for one of a kind, and its other end. */
static int make(enum record_kind kind, int family, int *other)
{
	struct record rec = {.kind = (uint8_t)kind, .family = (uint8_t)family};
	int type = kind == RECORD_CARRIER ? SOCK_STREAM : SOCK_SEQPACKET;
	int pair[2];

	expect_ok(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, pair));
	ck_assert(slot_store(pair[0], socket_cookie(pair[0]), &rec));
	*other = pair[1];
	return pair[0];
}

static int loop_family(int i)
{
	return i % 2 ? AF_INET6 : AF_INET;
}

/* ---- one call on each ---- */

static const char *where(int level, int name, const char *what)
{
	static char text[96];

	snprintf(text, sizeof(text), "level %d name %d %s", level, name, what);
	return text;
}

/* setsockopt() on both. Return: whether they took it. */
static bool set_both(int ours, int theirs, int level, int name,
	const void *value, socklen_t len)
{
	int rc, err, want_rc, want_err;

	errno = 0;
	want_rc = setsockopt(theirs, level, name, value, len);
	want_err = errno;
	errno = 0;
	rc = setsockopt(ours, level, name, value, len);
	err = errno;
	ck_assert_msg(rc == want_rc && err == want_err,
		"set %s, %u bytes: %d %s, TCP %d %s", where(level, name, ""),
		len, rc, strerror(err), want_rc, strerror(want_err));
	return rc == 0;
}

/* getsockopt() on both, into @room bytes. */
static void get_both(int ours, int theirs, int level, int name, socklen_t room)
{
	uint8_t value[64], wanted[64];
	socklen_t len = room, want_len = room;
	int rc, err, want_rc, want_err;

	memset(value, GUARD, sizeof(value));
	memset(wanted, GUARD, sizeof(wanted));
	errno = 0;
	want_rc = getsockopt(theirs, level, name, wanted, &want_len);
	want_err = errno;
	errno = 0;
	rc = getsockopt(ours, level, name, value, &len);
	err = errno;
	ck_assert_msg(rc == want_rc && err == want_err && len == want_len,
		"get %s: %d %s %u bytes, TCP %d %s %u", where(level, name, ""),
		rc, strerror(err), len, want_rc, strerror(want_err), want_len);
	ck_assert_msg(memcmp(value, wanted, sizeof(value)) == 0, "%s: value %d",
		where(level, name, "another value"), *(int *)(void *)value);
}

/* ---- the options ---- */

struct int_case {
	int level;
	int name;
	int values[8];
};

#define END_OF_VALUES (-77)

static const struct int_case int_cases[] = {
	{IPPROTO_TCP, TCP_NODELAY, {1, 0, 5, -1, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_MAXSEG, {-1, 0, 40, 88, 1460, 65536, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_CORK, {1, 0, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_KEEPIDLE,
		{0, 1, 33, 32767, 32768, -1, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_KEEPINTVL, {0, 1, 44, 32768, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_KEEPCNT, {0, 1, 127, 128, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_SYNCNT, {0, 1, 127, 128, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_LINGER2, {-1, 0, 10, 1000000, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, {0, 1, 10, -1, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP, {0, 1, 100000, -1, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_QUICKACK, {0, 1, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, {-1, 0, 6000, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_FASTOPEN, {-1, 0, 5, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_FASTOPEN_CONNECT, {1, 0, 2, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_NOTSENT_LOWAT, {0, 16384, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_SAVE_SYN, {1, 2, 3, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, {1, 2, END_OF_VALUES}},
	{IPPROTO_TCP, TCP_REPAIR, {1, 9, END_OF_VALUES}},
	{IPPROTO_TCP, 9999, {0, END_OF_VALUES}},
	{IPPROTO_TCP, -1, {0, END_OF_VALUES}},
	{IPPROTO_IP, IP_TOS, {0, 16, 255, 256, END_OF_VALUES}},
	{IPPROTO_IP, IP_TTL, {-1, 0, 1, 60, 255, 256, END_OF_VALUES}},
	{IPPROTO_IP, IP_MTU_DISCOVER, {0, 2, 9, END_OF_VALUES}},
	{IPPROTO_IP, IP_RECVTOS, {1, END_OF_VALUES}},
	{IPPROTO_IP, IP_FREEBIND, {1, END_OF_VALUES}},
	{IPPROTO_IP, IP_TRANSPARENT, {1, END_OF_VALUES}},
	{IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, {1, 2, END_OF_VALUES}},
	{IPPROTO_IP, IP_MULTICAST_TTL, {1, END_OF_VALUES}},
	{IPPROTO_IP, 9999, {1, END_OF_VALUES}},
	{IPPROTO_IPV6, IPV6_V6ONLY, {1, 0, END_OF_VALUES}},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, {-1, 0, 60, 256, END_OF_VALUES}},
	{IPPROTO_IPV6, IPV6_TCLASS, {-1, 32, 256, END_OF_VALUES}},
	{SOL_SOCKET, SO_KEEPALIVE, {1, 0, END_OF_VALUES}},
	{SOL_SOCKET, SO_PRIORITY, {0, 3, 6, 7, -1, END_OF_VALUES}},
	{SOL_SOCKET, SO_MARK, {0, 7, END_OF_VALUES}},
	{SOL_SOCKET, SO_REUSEADDR, {1, 0, END_OF_VALUES}},
	{SOL_SOCKET, SO_REUSEPORT, {1, 0, END_OF_VALUES}},
	{SOL_SOCKET, SO_OOBINLINE, {1, 0, END_OF_VALUES}},
	{SOL_SOCKET, SO_DONTROUTE, {1, 0, END_OF_VALUES}},
	{SOL_SOCKET, SO_BUSY_POLL, {0, 50, -1, END_OF_VALUES}},
	{SOL_SOCKET, SO_TYPE, {1, END_OF_VALUES}},
	{SOL_SOCKET, SO_DOMAIN, {1, END_OF_VALUES}},
	{SOL_SOCKET, SO_PROTOCOL, {1, END_OF_VALUES}},
	{SOL_SOCKET, SO_ERROR, {1, END_OF_VALUES}},
	{SOL_SOCKET, 9999, {1, END_OF_VALUES}},
	{9999, 1, {1, END_OF_VALUES}},
};

/* As a TCP socket that is no more than made: reading first, then each value. */
START_TEST(test_ints)
{
	enum record_kind kind = kinds[_i / 2];

	for (size_t i = 0; i < sizeof(int_cases) / sizeof(*int_cases); i++) {
		const struct int_case *c = &int_cases[i];
		int theirs = tcp(loop_family(_i), SOCK_CLOEXEC);
		int other, ours = make(kind, loop_family(_i), &other);

		get_both(ours, theirs, c->level, c->name, sizeof(int));
		for (int v = 0; c->values[v] != END_OF_VALUES; v++) {
			set_both(ours, theirs, c->level, c->name, &c->values[v],
				sizeof(int));
			get_both(ours, theirs, c->level, c->name, sizeof(int));
		}
		closefd(&ours);
		closefd(&other);
		closefd(&theirs);
	}
}
END_TEST

/* Lengths that are too short and too long, pointers to nowhere. */
START_TEST(test_lengths)
{
	static const int names[][2] = {{IPPROTO_TCP, TCP_NODELAY},
		{IPPROTO_TCP, TCP_CONGESTION}, {IPPROTO_IP, IP_TOS},
		{SOL_SOCKET, SO_REUSEPORT}, {SOL_SOCKET, SO_KEEPALIVE},
		{SOL_SOCKET, SO_LINGER}};
	static const socklen_t lens[] = {
		0, 1, 3, 4, 5, 8, 16, 40, (socklen_t)-1, 1u << 31};
	const uint8_t value[64] = {1};
	int family = loop_family(_i);

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		int level = names[i][0], name = names[i][1];
		int theirs = tcp(family, SOCK_CLOEXEC);
		int other, ours = make(kinds[_i / 2], family, &other);

		for (size_t n = 0; n < sizeof(lens) / sizeof(*lens); n++) {
			if (lens[n] <= sizeof(value))
				set_both(ours, theirs, level, name, value,
					lens[n]);
			get_both(ours, theirs, level, name, lens[n]);
		}
		set_both(ours, theirs, level, name, NULL, 4);
		set_both(ours, theirs, level, name, (void *)1, 4);
		set_both(ours, theirs, level, name, (void *)-8, 4);
		closefd(&ours);
		closefd(&other);
		closefd(&theirs);
	}
}
END_TEST

START_TEST(test_bad_pointers)
{
	static const int names[][2] = {{IPPROTO_TCP, TCP_NODELAY},
		{IPPROTO_TCP, TCP_INFO}, {IPPROTO_IP, IP_TOS},
		{SOL_SOCKET, SO_TYPE}, {SOL_SOCKET, SO_ERROR},
		{SOL_SOCKET, SO_KEEPALIVE}};
	int other, ours = make(kinds[_i], AF_INET, &other);

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		socklen_t len = 4;
		int value = 0;

		expect_errno(getsockopt(ours, names[i][0], names[i][1],
				     (void *)1, &len),
			EFAULT);
		expect_errno(
			getsockopt(ours, names[i][0], names[i][1], NULL, &len),
			EFAULT);
		expect_errno(getsockopt(ours, names[i][0], names[i][1], &value,
				     (socklen_t *)1),
			EFAULT);
		expect_errno(getsockopt(ours, names[i][0], names[i][1], &value,
				     NULL),
			EFAULT);
	}
	closefd(&ours);
	closefd(&other);
}
END_TEST

/* Options that are not an int. */
START_TEST(test_others)
{
	static const struct linger lingers[] = {{0, 3}, {1, 7}, {1, -1}};
	static const struct timeval times[] = {
		{7, 5000}, {0, 0}, {0, 1000000}, {0, -1}, {-1, 0}};
	static const char *const names[] = {"reno", "cubic", "nonsense", ""};
	enum record_kind kind = kinds[_i / 2];
	int theirs = tcp(loop_family(_i), SOCK_CLOEXEC);
	int other, ours = make(kind, loop_family(_i), &other);

	for (size_t i = 0; i < 3; i++) {
		set_both(ours, theirs, SOL_SOCKET, SO_LINGER, &lingers[i],
			sizeof(lingers[i]));
		get_both(ours, theirs, SOL_SOCKET, SO_LINGER,
			sizeof(lingers[i]));
	}
	for (size_t i = 0; i < 5; i++) {
		set_both(ours, theirs, SOL_SOCKET, SO_RCVTIMEO, &times[i],
			sizeof(times[i]));
		get_both(ours, theirs, SOL_SOCKET, SO_RCVTIMEO,
			sizeof(times[i]));
		set_both(ours, theirs, SOL_SOCKET, SO_SNDTIMEO, &times[i],
			sizeof(times[i]));
		get_both(ours, theirs, SOL_SOCKET, SO_SNDTIMEO,
			sizeof(times[i]));
	}
	for (size_t i = 0; i < 4; i++) {
		set_both(ours, theirs, IPPROTO_TCP, TCP_CONGESTION, names[i],
			(socklen_t)strlen(names[i]));
		get_both(ours, theirs, IPPROTO_TCP, TCP_CONGESTION, 16);
	}
	get_both(ours, theirs, SOL_SOCKET, SO_PEERCRED, sizeof(struct ucred));
	get_both(ours, theirs, SOL_SOCKET, SO_PEERCRED, 6);
	closefd(&ours);
	closefd(&other);
	closefd(&theirs);
}
END_TEST

/* Buffer sizes: what the vendor needs its socket for stays as it is. */
START_TEST(test_buffers)
{
	int size = 100000, theirs = tcp(AF_INET, SOCK_CLOEXEC);
	int other, ours = make(kinds[_i], AF_INET, &other);
	bool opaque = kinds[_i] == RECORD_GATE || kinds[_i] == RECORD_BOUND;
	static const int names[] = {
		SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE};

	for (size_t i = 0; i < 4; i++) {
		set_both(ours, theirs, SOL_SOCKET, names[i], &size,
			sizeof(size));
		if (opaque && i < 2)
			get_both(ours, theirs, SOL_SOCKET, names[i],
				sizeof(size));
		size += 1000;
	}
	closefd(&ours);
	closefd(&other);
	closefd(&theirs);
}
END_TEST

START_TEST(test_kinds)
{
	enum record_kind kind = kinds[_i / 2];
	int family = loop_family(_i);
	int other, ours = make(kind, family, &other);
	static const int states[] = {[RECORD_GATE] = TCP_SYN_SENT,
		[RECORD_CARRIER] = TCP_ESTABLISHED,
		[RECORD_BOUND] = TCP_CLOSE,
		[RECORD_LISTENER] = TCP_LISTEN};
	struct tcp_info info;
	socklen_t len = sizeof(info);
	uint8_t state = 0;

	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_DOMAIN), family);
	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
	ck_assert_int_eq(
		int_option(ours, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_ACCEPTCONN),
		kind == RECORD_LISTENER);
	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_ERROR), 0);
	expect_ok(getsockopt(ours, IPPROTO_TCP, TCP_INFO, &info, &len));
	ck_assert_int_eq(info.tcpi_state, states[kind]);
	len = 1;
	expect_ok(getsockopt(ours, IPPROTO_TCP, TCP_INFO, &state, &len));
	ck_assert_int_eq(state, states[kind]);
	closefd(&ours);
	closefd(&other);
}
END_TEST

/* The vendor has died over a control: that is not the listener's error. */
START_TEST(test_control_error)
{
	enum record_kind kind = _i ? RECORD_LISTENER : RECORD_BOUND;
	int other, ours = make(kind, AF_INET, &other);

	/* past the hook, which knows that a listener has nothing to send */
	ck_assert_int_eq(syscall(SYS_sendto, ours, "x", 1, 0, NULL, 0), 1);
	closefd(&other);
	ck_assert_int_eq(events(ours, 0) & POLLERR, POLLERR);
	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_ERROR), 0);
	closefd(&ours);
}
END_TEST

/* ---- notes ---- */

/* More options than a record has room for: nothing fails. */
START_TEST(test_full)
{
	struct found found;
	int other, ours = make(RECORD_GATE, AF_INET, &other);
	int noted = 0, value = 1;

	for (size_t i = 0; i < sizeof(int_cases) / sizeof(*int_cases); i++)
		noted += setsockopt(ours, int_cases[i].level, int_cases[i].name,
				 &value, sizeof(value)) == 0;
	ck_assert_int_gt(noted, RECORD_OPTIONS);
	ck_assert(lookup(ours, &found));
	for (int i = 0; i < RECORD_OPTIONS; i++)
		ck_assert_int_ne(found.rec.options[i].len, 0);
	/* changing one that is noted still works */
	ck_assert_int_eq(int_option(ours, IPPROTO_TCP, TCP_NODELAY), 1);
	value = 0;
	expect_ok(setsockopt(
		ours, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)));
	ck_assert_int_eq(int_option(ours, IPPROTO_TCP, TCP_NODELAY), 0);
	closefd(&ours);
	closefd(&other);
}
END_TEST

/* Sockets that are none of ours are not noted. */
START_TEST(test_not_ours)
{
	struct found found;
	int on = 1, fds[3], pair[2];

	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	fds[0] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	fds[1] = pair[0];
	fds[2] = pair[1];
	for (int i = 0; i < 3; i++) {
		expect_ok(setsockopt(
			fds[i], SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
		ck_assert(!slot_known(fds[i]));
		ck_assert(!lookup_options(fds[i], &found));
		closefd(&fds[i]);
	}
	expect_errno(setsockopt(-1, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)),
		EBADF);
}
END_TEST

/* No fd is left for the oracle. */
START_TEST(test_out_of_fds)
{
	int other, ours = make(RECORD_CARRIER, AF_INET, &other);
	struct rlimit old, none;
	int value = 1, rc[4], errs[4], got = 0;
	socklen_t len = sizeof(got);

	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &none);
	errno = 0;
	rc[0] = setsockopt(
		ours, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value));
	errs[0] = errno;
	rc[1] = getsockopt(ours, IPPROTO_TCP, TCP_NODELAY, &got, &len);
	errs[1] = errno;
	rc[2] = getsockopt(ours, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len);
	errs[2] = errno;
	rc[3] = setsockopt(ours, IPPROTO_TCP, TCP_NODELAY, (void *)1, 4);
	errs[3] = errno;
	setrlimit(RLIMIT_NOFILE, &old);
	ck_assert_int_eq(rc[0], 0);
	ck_assert_int_eq(errs[0], 0);
	ck_assert_int_eq(rc[1], 0);
	ck_assert_int_eq(got, 1);
	ck_assert_uint_eq(len, sizeof(got));
	ck_assert_int_eq(rc[2], -1); /* it is not known, and says so */
	ck_assert_int_eq(errs[2], EMFILE);
	ck_assert_int_eq(rc[3], -1);
	ck_assert_int_eq(errs[3], EFAULT);
	ck_assert_int_eq(int_option(ours, IPPROTO_TCP, TCP_NODELAY), 1);
	closefd(&ours);
	closefd(&other);
}
END_TEST

/* Noted on a gate, set on the carrier that follows it. */
START_TEST(test_replay)
{
	struct timeval limit = {.tv_sec = 3}, got = {0, 0};
	socklen_t len = sizeof(got);
	int on = 1, size = 50000, pair[2];
	int other, ours = make(RECORD_GATE, AF_INET, &other);
	struct found found;

	expect_ok(setsockopt(ours, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
	expect_ok(setsockopt(
		ours, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
	expect_ok(setsockopt(ours, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)));
	expect_ok(setsockopt(ours, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
	ck_assert(lookup(ours, &found));
	expect_ok(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	found.rec.kind = RECORD_CARRIER;
	expect_ok(replace(ours, found.cookie, &pair[0], &found.rec));
	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_KEEPALIVE), 1);
	ck_assert_int_eq(int_option(ours, SOL_SOCKET, SO_RCVBUF), 2L * size);
	ck_assert_int_eq(int_option(ours, IPPROTO_TCP, TCP_NODELAY), 1);
	expect_ok(getsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &got, &len));
	ck_assert_int_eq(got.tv_sec, 3);
	closefd(&ours);
	closefd(&other);
	closefd(&pair[1]);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_option");
	TCase *tc = stage_case(s, "option");

	tcase_add_loop_test(tc, test_ints, 0, 2 * NR_KINDS);
	tcase_add_loop_test(tc, test_lengths, 0, 2 * NR_KINDS);
	tcase_add_loop_test(tc, test_bad_pointers, 0, NR_KINDS);
	tcase_add_loop_test(tc, test_others, 0, 2 * NR_KINDS);
	tcase_add_loop_test(tc, test_buffers, 0, NR_KINDS);
	tcase_add_loop_test(tc, test_kinds, 0, 2 * NR_KINDS);
	tcase_add_loop_test(tc, test_control_error, 0, 2);
	tcase_add_test(tc, test_full);
	tcase_add_test(tc, test_not_ours);
	tcase_add_test(tc, test_out_of_fds);
	tcase_add_test(tc, test_replay);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, NULL);
}
