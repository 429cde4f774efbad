/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "suite.h"
#include "test_dns_stage.h"

#include <stdio.h>
#include <sys/socket.h>

/* Servers that do not answer, answer wrongly, close, die and come back. */

/* ---- bad servers ---- */

/* One server that never gives an answer: a timely SERVFAIL, then it is well. */
START_TEST(bad_server)
{
	static const struct {
		enum fake_manner manner;
		bool at_once;
	} table[] = {
		{FAKE_SILENT, false},
		{FAKE_CLOSE, true},
		{FAKE_CLOSE_ASKED, true},
		{FAKE_WRONG_ID, false},
		{FAKE_WRONG_QUESTION, false},
		{FAKE_HALF, false},
		{FAKE_HALF_CLOSE, true},
		{FAKE_GARBAGE, true},
	};
	struct fake *fake = server(table[_i].manner);
	double took;

	start();
	took = ask_once("bad.test");
	ck_assert(is_error(2));
	if (table[_i].at_once)
		ck_assert_double_lt(took, QUICK);
	else
		ck_assert_double_lt(took, DEADLINE + QUICK);
	fake->manner = FAKE_ANSWER;
	next_query_works();
	ck_assert_uint_eq(dns_stub_in_flight(stub), 0);
}
END_TEST

/* The same as the first of two: the second one's answer arrives. */
START_TEST(bad_first_server)
{
	static const enum fake_manner table[] = {FAKE_SILENT, FAKE_CLOSE,
		FAKE_CLOSE_ASKED, FAKE_WRONG_ID, FAKE_WRONG_QUESTION, FAKE_HALF,
		FAKE_HALF_CLOSE, FAKE_GARBAGE, FAKE_REFUSE};
	double took;

	server(table[_i]);
	server(FAKE_ANSWER);
	start();
	took = ask_once("one.test");
	ck_assert(is_answer());
	ck_assert_double_lt(took, DEADLINE);
	/* Two names without a word and it is passed over. */
	ask_once("two.test");
	ck_assert(is_answer());
	took = ask_once("three.test");
	ck_assert(is_answer());
	ck_assert_double_lt(took, QUICK);
}
END_TEST

START_TEST(wrong_before_right)
{
	server(FAKE_WRONG_THEN_RIGHT);
	start();
	ask_once("one.test");
	ck_assert(is_answer());
	/* more of it than is normal ends connections, but not answers */
	for (int i = 0; i < 40; i++)
		next_query_works();
}
END_TEST

START_TEST(nobody_listens)
{
	double took;

	server(FAKE_REFUSE);
	start();
	took = ask_once("one.test");
	ck_assert(is_error(2));
	ck_assert_double_lt(took, QUICK);
	fakes[0].manner = FAKE_ANSWER;
	fake_restart(&fakes[0]);
	next_query_works();
}
END_TEST

/* Of three servers two are dead, each in its way. */
START_TEST(third_server)
{
	double took;

	if (_i == 0)
		black_hole();
	else
		server(FAKE_REFUSE);
	black_hole();
	server(FAKE_ANSWER);
	start();
	took = ask_once("one.test");
	ck_assert(is_answer());
	ck_assert_double_lt(took, DEADLINE * 0.9);
	took = ask_once("two.test");
	ck_assert(is_answer());
	ck_assert_double_lt(took, QUICK);
}
END_TEST

/* All dead: an end before the deadline, and life as soon as one is back. */
START_TEST(all_dead)
{
	double took;

	server(FAKE_REFUSE);
	black_hole();
	server(FAKE_SILENT);
	start();
	took = ask_once("one.test");
	ck_assert(is_error(2));
	ck_assert_double_lt(took, DEADLINE + QUICK);
	fakes[0].manner = FAKE_ANSWER;
	fake_restart(&fakes[0]);
	ask_once("two.test");
	ask_once("three.test");
	took = ask_once("four.test");
	ck_assert(is_answer());
	ck_assert_double_lt(took, QUICK);
}
END_TEST

/* SERVFAIL, NOTIMP, REFUSED: another server may know. NXDOMAIN is known. */
START_TEST(rcodes)
{
	static const unsigned codes[] = {2, 4, 5, 3, 1};
	bool next = _i < 3;

	server(FAKE_RCODE)->rcode = codes[_i];
	server(FAKE_ANSWER);
	start();
	ask_once("one.test");
	ck_assert(next ? is_answer() : is_error(codes[_i]));
	/* none knows: what the last one said */
	fakes[1].manner = FAKE_RCODE;
	fakes[1].rcode = 5;
	ask_once("two.test");
	ck_assert(is_error(next ? 5 : codes[_i]));
	/* said without repeating the question */
	fakes[0].manner = fakes[1].manner = FAKE_BARE;
	ask_once("three.test");
	ck_assert(
		codes[_i] == 3 ? is_error(5) : is_error(next ? 5 : codes[_i]));
}
END_TEST

/* One name that a server is busy with does not hold up the others. */
START_TEST(slow_name)
{
	int sock, i;
	double took;

	server(FAKE_SLOW_NAME);
	start();
	next_query_works();
	sock = client(SOCK_DGRAM);
	wire_query(&q, 77, "slow.test", TYPE_A);
	put(sock, SOCK_DGRAM);
	turn_for(DNS_STALL + 0.1);
	for (i = 0; i < 10; i++) {
		char name[32];

		snprintf(name, sizeof(name), "quick-%d.test", i);
		took = ask_once(name);
		ck_assert(is_answer());
		ck_assert_double_lt(took, QUICK);
	}
	wire_query(&q, 77, "slow.test", TYPE_A);
	get(sock, SOCK_DGRAM);
	ck_assert(is_error(2));
	closefd(&sock);
}
END_TEST

/* Nor those that were sent right behind it, on the same connection. */
START_TEST(behind_slow_names)
{
	double begin = ev_time();
	int slow, quick, i;
	char name[32];

	config.deadline = 3;
	server(FAKE_SLOW_NAME);
	start();
	slow = client(SOCK_DGRAM);
	quick = client(SOCK_DGRAM);
	for (i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "quick-%d.test", i);
		wire_query(&q, (unsigned)i, name, TYPE_A);
		put(quick, SOCK_DGRAM);
		wire_query(&q, 77, "slow.test", TYPE_A);
		if (i % 16 == 0)
			put(slow, SOCK_DGRAM);
	}
	for (i = 0; i < 40; i++) {
		get(quick, SOCK_DGRAM);
		snprintf(
			name, sizeof(name), "quick-%u.test", wire_get16(a.buf));
		wire_query(&q, wire_get16(a.buf), name, TYPE_A);
		ck_assert(is_answer());
	}
	ck_assert_double_lt(ev_time() - begin, 4 * DNS_STALL);
	/* asked again, they are by themselves, and others still not held up */
	turn_for(1.5 - (ev_time() - begin) + 0.1);
	for (i = 0; i < 5; i++)
		next_query_works();
	ck_assert_double_lt(ev_time() - begin, 2.0);
	for (i = 0; i < 3; i++) {
		get(slow, SOCK_DGRAM);
		wire_query(&q, 77, "slow.test", TYPE_A);
		ck_assert(is_error(2));
	}
	closefd(&slow);
	closefd(&quick);
}
END_TEST

/* A slow name does not make a server dead for the others. */
START_TEST(slow_name_is_not_death)
{
	server(FAKE_SLOW_NAME);
	server(FAKE_RCODE)->rcode = 3;
	start();
	ask_once("slow.test");
	ck_assert(is_error(3)); /* the second one's word */
	next_query_works();     /* the first one's */
}
END_TEST

/* An answer that takes longer than an attempt, but not than the deadline, is an
 * answer: of a sole server, and of the first one of two and of three. */
START_TEST(late_answer)
{
	double took;
	int i;

	config.deadline = 2;
	server(FAKE_LATE)->delay = 1.4;
	for (i = 0; i < _i; i++)
		server(FAKE_SILENT);
	start();
	took = ask_once("late.test");
	ck_assert(is_answer());
	ck_assert_double_ge(took, 1.3);
	ck_assert_double_lt(took, 1.4 + QUICK);
	/* more of them than connections are kept for late ones */
	for (i = 0; i < 12; i++) {
		int sock = client(SOCK_DGRAM);
		char name[32];

		snprintf(name, sizeof(name), "late-%d.test", i);
		wire_query(&q, 5, name, TYPE_A);
		put(sock, SOCK_DGRAM);
		turn_for(0.02);
		if (i == 11) {
			get(sock, SOCK_DGRAM);
			ck_assert(is_answer());
		}
		closefd(&sock);
	}
	fakes[0].manner = FAKE_ANSWER;
	next_query_works();
	turn_for(config.deadline);
	ck_assert_uint_eq(dns_stub_in_flight(stub), 0);
}
END_TEST

/* A late SERVFAIL does not end what the second server has begun. */
START_TEST(late_failure)
{
	config.deadline = 2;
	server(FAKE_LATE)->delay = 1.2;
	fakes[0].rcode = 2;
	server(FAKE_LATE)->delay = 0.6;
	start();
	ask_once("late.test");
	ck_assert(is_answer());
}
END_TEST

/* ---- connections that end ---- */

START_TEST(idle_upstream_closed)
{
	int i;

	server(FAKE_CLOSE_BEHIND)->limit = 1;
	start();
	for (i = 0; i < 20; i++) {
		next_query_works();
		if (i % 2)
			turn_for(0.02);
	}
	ck_assert_uint_eq(fakes[0].asked, 20);
}
END_TEST

/* Closed with queries in flight: asked again on a fresh connection. */
START_TEST(upstream_closes_under_load)
{
	int sock = -1, i;
	bool seen[100] = {false};
	char name[64];

	server(FAKE_CLOSE_AFTER)->limit = 7;
	start();
	sock = client(SOCK_DGRAM);
	for (i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "n%d.test", i);
		wire_query(&q, (unsigned)i, name, TYPE_A);
		put(sock, SOCK_DGRAM);
	}
	for (i = 0; i < 100; i++) {
		unsigned id;

		get(sock, SOCK_DGRAM);
		id = wire_get16(a.buf);
		ck_assert(id < 100 && !seen[id]);
		seen[id] = true;
		snprintf(name, sizeof(name), "n%u.test", id);
		wire_query(&q, id, name, TYPE_A);
		ck_assert(is_answer());
	}
	closefd(&sock);
}
END_TEST

START_TEST(upstream_restarts)
{
	int sock;

	server(FAKE_SILENT);
	start();
	sock = client(SOCK_DGRAM);
	wire_query(&q, 1, "one.test", TYPE_A);
	put(sock, SOCK_DGRAM);
	turn_for(0.1);
	ck_assert_uint_eq(fakes[0].asked, 1);
	fakes[0].manner = FAKE_ANSWER;
	fake_restart(&fakes[0]);
	ck_assert_double_lt(get(sock, SOCK_DGRAM), QUICK);
	ck_assert(is_answer());
	closefd(&sock);
}
END_TEST

/* An unused connection is not kept: it would go stale. */
START_TEST(upstream_idle_time)
{
	config.upstream_idle = 0.1;
	server(FAKE_ANSWER);
	start();
	next_query_works();
	ck_assert_uint_eq(fakes[0].open, 1);
	turn_for(0.3);
	ck_assert_uint_eq(fakes[0].open, 0);
	next_query_works();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dns_servers");
	TCase *tc;

	tc = tcase_create("servers");
	tcase_set_timeout(tc, 20);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, bad_server, 0, 8);
	tcase_add_loop_test(tc, bad_first_server, 0, 9);
	tcase_add_test(tc, wrong_before_right);
	tcase_add_test(tc, nobody_listens);
	tcase_add_loop_test(tc, third_server, 0, 2);
	tcase_add_test(tc, all_dead);
	tcase_add_loop_test(tc, rcodes, 0, 5);
	tcase_add_test(tc, slow_name);
	tcase_add_test(tc, behind_slow_names);
	tcase_add_test(tc, slow_name_is_not_death);
	tcase_add_loop_test(tc, late_answer, 0, 3);
	tcase_add_test(tc, late_failure);
	tcase_add_test(tc, idle_upstream_closed);
	tcase_add_test(tc, upstream_closes_under_load);
	tcase_add_test(tc, upstream_restarts);
	tcase_add_test(tc, upstream_idle_time);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
