/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "suite.h"
#include "test_dns_stage.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* What clients see of the stub: answers, limits, and what bad queries do. */

/* ---- the usual ---- */

START_TEST(answers)
{
	int type = types[_i];
	int sock;

	server(FAKE_ANSWER);
	start();
	sock = client(type);
	ask(sock, type, 0xabcd, "www.example.test");
	ck_assert(is_answer());
	ask(sock, type, 0xabcd, "Other.Example.TEST");
	ck_assert(is_answer());
	ck_assert_uint_eq(fakes[0].accepted, 1);
	ck_assert_uint_eq(dns_stub_in_flight(stub), 0);
	closefd(&sock);
}
END_TEST

START_TEST(drip_feed)
{
	server(FAKE_DRIP);
	start();
	ask_once("www.example.test");
	ck_assert(is_answer());
}
END_TEST

/* The query cut at every byte, over TCP. */
START_TEST(client_split)
{
	uint8_t bytes[300];
	size_t len, cut;
	int sock;

	server(FAKE_ANSWER);
	start();
	sock = client(SOCK_STREAM);
	wire_query(&q, 5, "split.example.test", TYPE_A);
	bytes[0] = 0;
	bytes[1] = (uint8_t)q.len;
	memcpy(bytes + 2, q.buf, q.len);
	len = q.len + 2;
	for (cut = 1; cut < len; cut++) {
		ck_assert_int_eq(send(sock, bytes, cut, 0), (ssize_t)cut);
		ev_run(loop, EVRUN_NOWAIT);
		ck_assert_int_eq(send(sock, bytes + cut, len - cut, 0),
			(ssize_t)(len - cut));
		get(sock, SOCK_STREAM);
		ck_assert(is_answer());
	}
	closefd(&sock);
}
END_TEST

/* Pipelined, answered backwards, and the client has half-closed. */
START_TEST(client_pipelines)
{
	bool seen[50] = {false};
	char name[64];
	int sock, i;

	server(FAKE_SHUFFLE)->limit = 50;
	start();
	sock = client(SOCK_STREAM);
	for (i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "n%d.test", i);
		wire_query(&q, (unsigned)i, name, TYPE_A);
		put(sock, SOCK_STREAM);
	}
	ck_assert_int_eq(shutdown(sock, SHUT_WR), 0);
	for (i = 0; i < 50; i++) {
		unsigned id;

		get(sock, SOCK_STREAM);
		id = wire_get16(a.buf);
		ck_assert_uint_lt(id, 50);
		ck_assert(!seen[id]);
		seen[id] = true;
		snprintf(name, sizeof(name), "n%u.test", id);
		wire_query(&q, id, name, TYPE_A);
		ck_assert(is_answer());
	}
	wait_readable(sock);
	ck_assert_int_eq(recv(sock, name, 1, 0), 0);
	ck_assert_uint_eq(dns_stub_clients(stub), 0);
	closefd(&sock);
}
END_TEST

START_TEST(truncates)
{
	int sock;

	/* 64 kB in many small reads, on a machine with other things to do */
	config.deadline = 4 * DEADLINE;
	server(FAKE_HUGE);
	start();
	sock = client(SOCK_DGRAM);
	ask(sock, SOCK_DGRAM, 1, "huge.test");
	ck_assert_uint_le(a.len, 512);
	ck_assert(a.buf[2] & 2);
	ck_assert_uint_eq(wire_get16(a.buf + 6), 1);
	wire_query_edns(&q, 2, "huge.test", TYPE_A, 4096);
	put(sock, SOCK_DGRAM);
	get(sock, SOCK_DGRAM);
	ck_assert(a.buf[2] & 2);
	ck_assert_uint_eq(wire_get16(a.buf + 10), 1);
	closefd(&sock);
	sock = client(SOCK_STREAM);
	ask(sock, SOCK_STREAM, 3, "huge.test");
	ck_assert_uint_eq(a.len, 65535);
	ck_assert(!(a.buf[2] & 2));
	closefd(&sock);
}
END_TEST

START_TEST(listens_where_told)
{
	static const struct ip_port two[] = {
		{.family = AF_INET, .ip = {127, 0, 0, 2}},
		{.family = AF_INET, .ip = {127, 0, 0, 3}}};
	struct ip_port other;
	int sock;

	config.listen = two;
	config.nr_listen = 2;
	server(FAKE_ANSWER);
	start();
	ck_assert_int_eq(dns_stub_address(stub, 1, &other), 0);
	ck_assert_int_eq(other.ip[3], 3);
	sock = client_at(SOCK_DGRAM, &other);
	ask(sock, SOCK_DGRAM, 1, "x.test"); /* from the address it went to */
	ck_assert(is_answer());
	closefd(&sock);
	sock = client_at(SOCK_STREAM, &other);
	ask(sock, SOCK_STREAM, 1, "y.test");
	ck_assert(is_answer());
	closefd(&sock);
}
END_TEST

/* Standing in for 127.0.0.3, the stub asks 127.0.0.3 first. */
START_TEST(asks_whom_it_stands_for)
{
	static const struct ip_port two[] = {
		{.family = AF_INET, .ip = {127, 0, 0, 2}},
		{.family = AF_INET, .ip = {127, 0, 0, 3}}};
	struct ip_port other;
	int sock;

	config.listen = two;
	config.nr_listen = 2;
	fake_start(&fakes[nr_fakes++], loop, "127.0.0.2", FAKE_ANSWER);
	fake_start(&fakes[nr_fakes++], loop, "127.0.0.3", FAKE_ANSWER);
	servers[nr_servers++] = fakes[0].addr;
	servers[nr_servers++] = fakes[1].addr;
	start();
	ck_assert_int_eq(dns_stub_address(stub, 1, &other), 0);
	sock = client_at(SOCK_DGRAM, &other);
	ask(sock, SOCK_DGRAM, 1, "x.test");
	ck_assert(is_answer());
	ck_assert_uint_eq(fakes[0].asked, 0);
	ck_assert_uint_eq(fakes[1].asked, 1);
	/* and the others when that one is gone */
	fake_stop(&fakes[1]);
	ask(sock, SOCK_DGRAM, 2, "y.test");
	ck_assert(is_answer());
	ck_assert_uint_eq(fakes[0].asked, 1);
	closefd(&sock);
}
END_TEST

/* Sockets that somebody else holds: what is asked while there is no stub is
 * answered by the next one. */
START_TEST(lent_sockets)
{
	struct dns_socket held, lent;
	int socks[2], i;

	server(FAKE_ANSWER);
	ck_assert_int_eq(dns_socket_open(&held, config.listen), 0);
	config.sockets = &lent;
	config.nr_sockets = 1;
	lent = held;
	lent.udp = dup(held.udp);
	lent.tcp = dup(held.tcp);
	start();
	ck_assert(ip_port_equal(&at, &held.addr));
	next_query_works();
	dns_stub_stop(stub);
	for (i = 0; i < 2; i++) {
		socks[i] = client(types[i]);
		wire_query(&q, (unsigned)i, "meanwhile.test", TYPE_A);
		put(socks[i], types[i]);
	}
	lent.udp = dup(held.udp);
	lent.tcp = dup(held.tcp);
	start();
	for (i = 0; i < 2; i++) {
		wire_query(&q, (unsigned)i, "meanwhile.test", TYPE_A);
		get(socks[i], types[i]);
		ck_assert(is_answer());
		closefd(&socks[i]);
	}
	dns_socket_close(&held);
	dns_socket_close(&held);
}
END_TEST

START_TEST(address_in_use)
{
	struct dns_stub *second;
	struct dns_stub_config again;

	server(FAKE_ANSWER);
	start();
	again = config;
	again.listen = &at;
	second = dns_stub_start(loop, &again);
	ck_assert_ptr_null(second);
	ck_assert_int_eq(errno, EADDRINUSE);
	next_query_works();
}
END_TEST

START_TEST(bad_config)
{
	server(FAKE_ANSWER);
	config.servers = servers;
	ck_assert_ptr_null(dns_stub_start(loop, &config));
	ck_assert_int_eq(errno, EINVAL);
	config.nr_servers = 1;
	config.nr_listen = 0;
	ck_assert_ptr_null(dns_stub_start(loop, &config));
	ck_assert_int_eq(errno, EINVAL);
}
END_TEST

/* ---- bad queries ---- */

START_TEST(malformed_udp)
{
	int sock;

	server(FAKE_ANSWER);
	start();
	sock = client(SOCK_DGRAM);
	/* too short, empty, an answer: nothing comes back */
	wire_query(&q, 1, "x.test", TYPE_A);
	ck_assert_int_eq(send(sock, q.buf, 11, 0), 11);
	ck_assert_int_eq(send(sock, q.buf, 0, 0), 0);
	q.buf[2] |= 0x80;
	put(sock, SOCK_DGRAM);
	turn_for(0.1);
	ck_assert_int_eq(recv(sock, a.buf, 1, MSG_DONTWAIT), -1);
	/* no whole question: FORMERR */
	wire_query(&q, 9, "x.test", TYPE_A);
	q.len -= 2;
	put(sock, SOCK_DGRAM);
	get(sock, SOCK_DGRAM);
	ck_assert_uint_eq(a.len, 12);
	ck_assert_uint_eq(rcode(), 1);
	ck_assert_uint_eq(wire_get16(a.buf), 9);
	/* a transfer: REFUSED */
	wire_query(&q, 9, "x.test", 252);
	put(sock, SOCK_DGRAM);
	get(sock, SOCK_DGRAM);
	ck_assert(is_error(5));
	ck_assert_uint_eq(fakes[0].asked, 0);
	closefd(&sock);
	next_query_works();
}
END_TEST

START_TEST(malformed_tcp)
{
	int sock, i;
	char c;

	server(FAKE_ANSWER);
	start();
	sock = client(SOCK_STREAM);
	wire_query(&q, 9, "x.test", TYPE_A);
	q.len -= 2;
	put(sock, SOCK_STREAM);
	get(sock, SOCK_STREAM);
	ck_assert_uint_eq(rcode(), 1);
	ask(sock, SOCK_STREAM, 10, "x.test");
	ck_assert(is_answer());
	closefd(&sock);
	/* what is no query at all ends the connection */
	for (i = 0; i < 2; i++) {
		sock = client(SOCK_STREAM);
		wire_query(&q, 9, "x.test", TYPE_A);
		if (i == 0)
			q.len = 11;
		else
			q.buf[2] |= 0x80;
		put(sock, SOCK_STREAM);
		wait_readable(sock);
		ck_assert_int_le(recv(sock, &c, 1, 0), 0);
		closefd(&sock);
	}
	next_query_works();
}
END_TEST

/* ---- limits ---- */

START_TEST(too_many_in_flight)
{
	int sock, i, refused = 0;

	config.max_in_flight = 10;
	server(FAKE_SILENT);
	start();
	sock = client(SOCK_DGRAM);
	for (i = 0; i < 30; i++) {
		wire_query(&q, (unsigned)i, "x.test", TYPE_A);
		put(sock, SOCK_DGRAM);
	}
	turn_for(0.1);
	ck_assert_uint_eq(dns_stub_in_flight(stub), 10);
	while (recv(sock, a.buf, sizeof(a.buf), MSG_DONTWAIT) > 0) {
		ck_assert_uint_eq(rcode(), 2);
		refused++;
	}
	ck_assert_int_eq(refused, 20);
	closefd(&sock);
}
END_TEST

/* Many large queries are as much as too many. */
START_TEST(too_many_bytes)
{
	unsigned i, fit = DNS_MAX_QUERY_BYTES / 60000;
	int sock[2];

	server(FAKE_SILENT);
	/* The first query must not run out before the last has come, four
	 * megabytes later, on a machine with other things to do. */
	config.deadline = 4 * DEADLINE;
	start();
	sock[0] = client(SOCK_STREAM);
	sock[1] = client(SOCK_STREAM);
	wire_query(&q, 1, "x.test", TYPE_A);
	wire_set16(&q, 10, 1);
	wire_bytes(&q, "\0\0\x10\0\1\0\0\0\0", 9);
	wire_u16(&q, 60000 - (unsigned)q.len - 2);
	while (q.len < 60000)
		wire_u8(&q, 0x55);
	for (i = 0; i < fit + 5; i++) {
		uint8_t prefix[2] = {60000 >> 8, 60000 & 255};
		size_t sent = 0;
		int s = sock[i & 1];

		ck_assert_int_eq(send(s, prefix, 2, MSG_MORE), 2);
		while (sent < q.len) {
			ssize_t n = send(s, q.buf + sent, q.len - sent, 0);

			if (n > 0)
				sent += (size_t)n;
			else
				turn();
		}
	}
	turn_for(0.1);
	ck_assert_uint_eq(dns_stub_in_flight(stub), fit);
	closefd(&sock[0]);
	closefd(&sock[1]);
	/* A close looks like a half-close, whose answers are waited for. */
	turn_for(config.deadline + 0.2);
	ck_assert_uint_eq(dns_stub_in_flight(stub), 0);
	fakes[0].manner = FAKE_ANSWER;
	next_query_works();
}
END_TEST

/* More clients than places: idle ones go; busy ones make others wait. */
START_TEST(too_many_clients)
{
	int socks[12], i, late;
	char c;

	config.max_clients = 8;
	server(FAKE_ANSWER);
	start();
	for (i = 0; i < 12; i++) {
		socks[i] = client(SOCK_STREAM);
		ask(socks[i], SOCK_STREAM, 1, "x.test");
		ck_assert(is_answer());
		ck_assert_uint_le(dns_stub_clients(stub), 8);
	}
	for (i = 0; i < 4; i++)
		ck_assert_int_eq(recv(socks[i], &c, 1, MSG_DONTWAIT), 0);
	fakes[0].manner = FAKE_SILENT;
	for (i = 4; i < 12; i++) {
		wire_query(&q, 1, "y.test", TYPE_A);
		put(socks[i], SOCK_STREAM);
	}
	turn_for(0.1);
	late = client(SOCK_STREAM);
	wire_query(&q, 2, "z.test", TYPE_A);
	put(late, SOCK_STREAM);
	turn_for(0.3);
	ck_assert_uint_eq(dns_stub_clients(stub), 8);
	fakes[0].manner = FAKE_ANSWER;
	closefd(&socks[4]);
	get(late, SOCK_STREAM);
	ck_assert(is_answer());
	closefd(&late);
	for (i = 0; i < 12; i++)
		closefd_if(&socks[i]);
}
END_TEST

START_TEST(client_idle_time)
{
	int sock;
	char c;

	config.client_idle = 0.2;
	server(FAKE_ANSWER);
	start();
	sock = client(SOCK_STREAM);
	ck_assert_int_eq(send(sock, "\0", 1, 0), 1);
	wait_readable(sock);
	ck_assert_int_eq(recv(sock, &c, 1, MSG_DONTWAIT), 0);
	ck_assert_uint_eq(dns_stub_clients(stub), 0);
	closefd(&sock);
}
END_TEST

/* A client that asks for much and reads nothing costs a bounded amount. */
START_TEST(client_does_not_read)
{
	const int small = 4096;
	unsigned asked = 0;
	double end;
	int sock;

	server(FAKE_HUGE);
	start();
	sock = client(SOCK_STREAM);
	setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	wire_query(&q, 1, "huge.test", TYPE_A);
	end = ev_time() + 2;
	while (ev_time() < end) {
		uint8_t prefix[2] = {0, (uint8_t)q.len};

		if (send(sock, prefix, 2, MSG_NOSIGNAL | MSG_MORE) == 2 &&
			send(sock, q.buf, q.len, MSG_NOSIGNAL) > 0)
			asked++;
		else if (errno != EAGAIN)
			break;
		if (asked % 64 == 0)
			turn();
	}
	ck_assert_uint_gt(asked, 100);
	ck_assert_uint_lt(fakes[0].asked, 400);
	closefd(&sock);
	fakes[0].manner = FAKE_ANSWER;
	next_query_works();
}
END_TEST

/* Out of descriptors: TCP clients wait, nothing spins, UDP goes on. */
START_TEST(out_of_fds)
{
	struct rlimit old, low;
	int socks[3], udp, i;
	double cpu;
	struct rusage before, after;

	server(FAKE_ANSWER);
	start();
	next_query_works();
	udp = client(SOCK_DGRAM);
	for (i = 0; i < 3; i++)
		socks[i] = client(SOCK_STREAM);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)socks[2] + 1;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
	wire_query(&q, 3, "x.test", TYPE_A);
	put(socks[0], SOCK_STREAM);
	getrusage(RUSAGE_SELF, &before);
	turn_for(0.5);
	getrusage(RUSAGE_SELF, &after);
	cpu = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
	      (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1e6;
	ck_assert_double_lt(cpu, 0.25);
	ask(udp, SOCK_DGRAM, 4, "y.test");
	ck_assert(is_answer());
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
	wire_query(&q, 3, "x.test", TYPE_A);
	get(socks[0], SOCK_STREAM);
	ck_assert(is_answer());
	for (i = 0; i < 3; i++)
		closefd(&socks[i]);
	closefd(&udp);
}
END_TEST

/* Clients that leave take their queries along. */
START_TEST(client_leaves)
{
	const struct linger reset = {.l_onoff = 1};
	int sock = -1, i;

	server(FAKE_SILENT);
	start();
	for (i = 0; i < 5; i++) {
		sock = client(SOCK_STREAM);
		wire_query(&q, 1, "x.test", TYPE_A);
		put(sock, SOCK_STREAM);
		turn_for(0.03);
		ck_assert_uint_eq(dns_stub_in_flight(stub), 1);
		setsockopt(sock, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		closefd(&sock);
		turn_for(0.03);
		ck_assert_uint_eq(dns_stub_in_flight(stub), 0);
	}
	fakes[0].manner = FAKE_ANSWER;
	next_query_works();
}
END_TEST

/* Stopped in the middle of everything: teardown looks for what is left. */
START_TEST(stop_in_flight)
{
	int udp, tcp, i;

	server(FAKE_SILENT);
	black_hole();
	start();
	udp = client(SOCK_DGRAM);
	tcp = client(SOCK_STREAM);
	for (i = 0; i < 100; i++) {
		wire_query(&q, (unsigned)i, "x.test", TYPE_A);
		put(udp, SOCK_DGRAM);
		put(tcp, SOCK_STREAM);
		if (i % 10 == 0)
			turn();
	}
	turn_for(0.1 + 0.6 * _i);
	dns_stub_stop(stub);
	stub = NULL;
	turn();
	closefd(&udp);
	closefd(&tcp);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dns_stub");
	TCase *tc;

	tc = tcase_create("usual");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, answers, 0, 2);
	tcase_add_test(tc, drip_feed);
	tcase_add_test(tc, client_split);
	tcase_add_test(tc, client_pipelines);
	tcase_add_test(tc, truncates);
	tcase_add_test(tc, listens_where_told);
	tcase_add_test(tc, asks_whom_it_stands_for);
	tcase_add_test(tc, lent_sockets);
	tcase_add_test(tc, address_in_use);
	tcase_add_test(tc, bad_config);
	tcase_add_test(tc, malformed_udp);
	tcase_add_test(tc, malformed_tcp);
	suite_add_tcase(s, tc);
	tc = tcase_create("limits");
	tcase_set_timeout(tc, 20);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, too_many_in_flight);
	tcase_add_test(tc, too_many_bytes);
	tcase_add_test(tc, too_many_clients);
	tcase_add_test(tc, client_idle_time);
	tcase_add_test(tc, client_does_not_read);
	tcase_add_test(tc, out_of_fds);
	tcase_add_test(tc, client_leaves);
	tcase_add_loop_test(tc, stop_in_flight, 0, 2);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
