/* SPDX-License-Identifier: Apache-2.0 */
#include "test_dns_stage.h"
#include "common/fd.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

struct ev_loop *loop;
struct dns_stub *stub;
struct fake fakes[3];
struct socks5_addr servers[3];
unsigned nr_fakes, nr_servers;
struct dns_stub_config config;
struct ip_port at;
static int fds_before;

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

void setup(void)
{
	static const struct ip_port any = {
		.family = AF_INET, .ip = {127, 0, 0, 1}};

	/* Warnings are expected; they are looked at when a test fails. */
	log_init("test", getenv("TEST_LOG") ? LOG_DEBUG : LOG_ERROR, 2);
	loop = ev_loop_new(EVFLAG_AUTO);
	fds_before = count_fds();
	nr_fakes = nr_servers = 0;
	config = (struct dns_stub_config){
		.listen = &any,
		.nr_listen = 1,
		.deadline = DEADLINE,
		.dead_time = 30,
		.dialer = fake_dialer(loop),
	};
}

void teardown(void)
{
	dns_stub_stop(stub);
	stub = NULL;
	while (nr_fakes > 0)
		fake_stop(&fakes[--nr_fakes]);
	ck_assert_uint_eq(fake_dialing(), 0);
	ck_assert_int_eq(count_fds(), fds_before);
	ev_loop_destroy(loop);
}

struct fake *server(enum fake_manner manner)
{
	struct fake *fake = &fakes[nr_fakes++];

	fake_start(fake, loop, "127.0.0.1", manner);
	servers[nr_servers++] = fake->addr;
	return fake;
}

void black_hole(void)
{
	servers[nr_servers++] =
		(struct socks5_addr){.name = "hole", .name_len = 4};
}

void start(void)
{
	config.servers = servers;
	config.nr_servers = nr_servers;
	stub = dns_stub_start(loop, &config);
	ck_assert_ptr_nonnull(stub);
	ck_assert_int_eq(dns_stub_address(stub, 0, &at), 0);
	ck_assert_int_eq(dns_stub_address(stub, 99, &at), -1);
	ck_assert_int_eq(dns_stub_address(stub, 0, &at), 0);
}

/* ---- turning the loop ---- */

static void on_tick(struct ev_loop *l, ev_timer *timer, int revents)
{
}

void turn(void)
{
	ev_timer tick;

	ev_timer_init(&tick, on_tick, 0.02, 0.);
	ev_timer_start(loop, &tick);
	ev_run(loop, EVRUN_ONCE);
	ev_timer_stop(loop, &tick);
}

void turn_for(double seconds)
{
	double end = ev_time() + seconds;

	while (ev_time() < end)
		turn();
}

/* Turn until @sock is readable or closed. Return: the seconds it took. */
double wait_readable(int sock)
{
	double begin = ev_time();
	char c;

	while (recv(sock, &c, 1, MSG_PEEK | MSG_DONTWAIT) == -1 &&
		errno == EAGAIN) {
		turn();
		ck_assert_double_lt(ev_time() - begin, PATIENT);
	}
	return ev_time() - begin;
}

/* ---- clients ---- */

int client_at(int type, const struct ip_port *where)
{
	union sockaddr_any sa;
	socklen_t len = ip_port_to_sockaddr(where, &sa);
	int fd = socket(sa.sa.sa_family, type | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(connect(fd, &sa.sa, len), 0);
	ck_assert_int_eq(fd_set_nonblock(fd, true), 0);
	return fd;
}

int client(int type)
{
	return client_at(type, &at);
}

struct wire q, a;
const int types[2] = {SOCK_DGRAM, SOCK_STREAM};

void put(int sock, int type)
{
	uint8_t prefix[2] = {(uint8_t)(q.len >> 8), (uint8_t)q.len};

	if (type == SOCK_STREAM)
		ck_assert_int_eq(send(sock, prefix, 2, MSG_MORE), 2);
	ck_assert_int_eq(
		send(sock, q.buf, q.len, MSG_NOSIGNAL), (ssize_t)q.len);
}

static void get_bytes(int sock, uint8_t *buf, size_t len)
{
	while (len > 0) {
		ssize_t n;

		wait_readable(sock);
		n = recv(sock, buf, len, MSG_DONTWAIT);
		ck_assert_int_gt(n, 0);
		buf += n;
		len -= (size_t)n;
	}
}

/* Take an answer. Return: the seconds it took to come. */
double get(int sock, int type)
{
	double took = wait_readable(sock);
	uint8_t prefix[2];

	if (type == SOCK_STREAM) {
		get_bytes(sock, prefix, 2);
		a.len = wire_get16(prefix);
		get_bytes(sock, a.buf, a.len);
	} else {
		ssize_t n = recv(sock, a.buf, sizeof(a.buf), MSG_DONTWAIT);

		ck_assert_int_ge(n, 12);
		a.len = (size_t)n;
	}
	return took;
}

double ask(int sock, int type, unsigned id, const char *name)
{
	wire_query(&q, id, name, TYPE_A);
	put(sock, type);
	return get(sock, type);
}

unsigned rcode(void)
{
	return a.buf[3] & 15u;
}

/* Is @a the answer to @q? */
bool is_answer(void)
{
	return a.len == q.len + 16 && memcmp(a.buf, q.buf, 2) == 0 &&
	       rcode() == 0 &&
	       memcmp(a.buf + 12, q.buf + 12, q.len - 12) == 0 &&
	       wire_get32(a.buf + a.len - 4) == fake_ip(q.buf + 12, q.len - 16);
}

bool is_error(unsigned code)
{
	return a.len == q.len && memcmp(a.buf, q.buf, 2) == 0 &&
	       rcode() == code &&
	       memcmp(a.buf + 12, q.buf + 12, q.len - 12) == 0;
}

/* A query over UDP on a socket of its own, its answer in @a. */
double ask_once(const char *name)
{
	int sock = client(SOCK_DGRAM);
	double took = ask(sock, SOCK_DGRAM, 0x1234, name);

	closefd(&sock);
	return took;
}

void next_query_works(void)
{
	char name[64];
	static unsigned serial;

	snprintf(name, sizeof(name), "next-%u.test", serial++);
	ask_once(name);
	ck_assert(is_answer());
}
