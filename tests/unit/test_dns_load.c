/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "suite.h"
#include "test_dns_stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define LOAD_TOTAL  10000
#define LOAD_FLIGHT 200

static uint8_t load_seen[LOAD_TOTAL];

static void load_put(int sock, int type, unsigned n)
{
	char name[64];

	/* ids repeat, as those of many clients do */
	snprintf(name, sizeof(name), "load-%u.test", n);
	wire_query(&q, n % 251, name, TYPE_A);
	put(sock, type);
}

/* Which query does the answer say that it answers? */
static unsigned load_number(void)
{
	char name[64];
	unsigned n;

	ck_assert_mem_eq(a.buf + 13, "load-", 5);
	ck_assert_uint_lt(a.buf[12], sizeof(name));
	memcpy(name, a.buf + 13, a.buf[12]);
	name[a.buf[12]] = '\0';
	n = (unsigned)strtoul(name + 5, NULL, 10);
	ck_assert_uint_lt(n, LOAD_TOTAL);
	snprintf(name, sizeof(name), "load-%u.test", n);
	wire_query(&q, n % 251, name, TYPE_A);
	ck_assert(is_answer());
	return n;
}

/*
 * 200 in flight over UDP and TCP at once, the server answers out of order and
 * closes its connections all the time: each answer for its own question.
 */
START_TEST(load)
{
	static const enum fake_manner manners[] = {
		FAKE_SHUFFLE, FAKE_CLOSE_BEHIND, FAKE_CLOSE_AFTER};
	const unsigned total = _i == 0 ? LOAD_TOTAL : LOAD_TOTAL / 4;
	double begin = ev_time();
	unsigned next = 0, done = 0;
	int udp, tcp;

	config.deadline = 20;
	server(manners[_i])->limit = _i == 0 ? 40 : 100;
	start();
	udp = client(SOCK_DGRAM);
	tcp = client(SOCK_STREAM);
	memset(load_seen, 0, sizeof(load_seen));
	while (done < total) {
		bool more = true;

		while (next < total && next - done < LOAD_FLIGHT) {
			int type = types[next & 1];

			load_put(type == SOCK_DGRAM ? udp : tcp, type, next);
			next++;
		}
		turn();
		ck_assert_double_lt(ev_time() - begin, 10 * PATIENT);
		while (more) {
			int i;

			more = false;
			for (i = 0; i < 2; i++) {
				int sock = i ? tcp : udp;
				uint8_t c;
				unsigned n;

				if (recv(sock, &c, 1,
					    MSG_PEEK | MSG_DONTWAIT) != 1)
					continue;
				get(sock, types[i]);
				n = load_number();
				ck_assert_uint_eq(load_seen[n], 0);
				ck_assert_uint_eq(n & 1, (unsigned)i);
				load_seen[n] = 1;
				done++;
				more = true;
			}
		}
	}
	ck_assert_uint_eq(dns_stub_in_flight(stub), 0);
	closefd(&udp);
	closefd(&tcp);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dns_load");
	TCase *tc;

	tc = tcase_create("load");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, load, 0, 3);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
