/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/forward.h"

#include "common/fd.h"
#include "common/log.h"
#include "proxy/prefix.h"

#include "suite.h"
#include "test_proxy_net.h"

/*
 * Theory of operation
 *
 * Forwards on a loop of the test's own, between a socket pair whose other end
 * is the client and a TCP listener that is the origin. The service that they
 * belong to is made for each test.
 */

static struct ev_loop *loop;
static struct reaper reaper;
static struct relay_group group;
static struct fd_budget budget;
static struct client_env env;
static struct service *service;
static int nr_gone, nr_closed;
static int origin_fd = -1, origin = -1, client = -1;
static int mux_fd = -1;
static char mux_path[64];
static struct ip_port origin_addr;

static void on_gone(void *arg)
{
	nr_gone++;
}

static void on_closed(void *arg)
{
	nr_closed++;
}

static void setup(void)
{
	static const struct endpoint none;
	struct service_config config = {
		.mode = &mode_table[MODE_VSOCK_TO_IP],
		.handshake_timeout = 20,
		.connect_timeout = 20,
	};

	log_init("test", LOG_ERROR, STDERR_FILENO);
	loop = ev_loop_new(EVBACKEND_EPOLL);
	reaper_init(&reaper, loop);
	ck_assert_int_eq(
		relay_group_init(&group, loop, &reaper, 65536, on_closed, NULL),
		0);
	ck_assert_int_eq(resolve_library_init(), 0);
	fd_budget_init(&budget, 100, 0);
	memset(&env, 0, sizeof(env));
	env.loop = loop;
	env.reaper = &reaper;
	env.relays = &group;
	env.resolver = resolver_new(loop, "/nonexistent");
	env.budget = &budget;
	list_init(&env.clients);
	list_init(&env.forwards);
	env.next_id = 1;
	env.id_step = 1;
	env.gone = on_gone;
	nr_gone = nr_closed = 0;
	snprintf(mux_path, sizeof(mux_path), "/tmp/test-forward-%d",
		(int)getpid());
	origin_fd = net_listen(AF_INET, 64, &origin_addr);
	net_nonblock(origin_fd);
	service = service_new(&config, entrance_new(&none));
	service->config.target.kind = ENDPOINT_TCP;
	service->config.target.addr = origin_addr;
	service->config.target.port = origin_addr.port;
}

static void teardown(void)
{
	forward_abort_all(&env);
	relay_group_abort(&group);
	ck_assert_uint_eq(env.nr, 0);
	ck_assert_int_eq(atomic_load(&service->entrance->nr), 0);
	ck_assert_int_eq(atomic_load(&service->refs), 1);
	service_unref(service);
	resolver_free(env.resolver);
	resolve_library_cleanup();
	reaper_stop(&reaper);
	relay_group_free(&group);
	closefd_if(&origin_fd);
	closefd_if(&origin);
	closefd_if(&client);
	closefd_if(&mux_fd);
	unlink(mux_path);
	ck_assert_int_eq(atomic_load(&budget.used), 0);
	ev_loop_destroy(loop);
}

static void use_mode(enum mode_id id)
{
	service->config.mode = &mode_table[id];
}

/* A client that has sent @len bytes before it was accepted. */
static void open_client(sa_family_t family, const void *first, size_t len)
{
	int pair[2];

	net_pair(family, pair);
	client = pair[0];
	if (len > 0)
		ck_assert_int_eq(send(client, first, len, 0), (ssize_t)len);
	service->entrance->listener.family = family;
	ck_assert(service_enter(service));
	ev_now_update(loop);
	ck_assert_int_eq(forward_new(&env, service, pair[1]), 0);
}

static bool origin_came(void *arg)
{
	if (origin == -1)
		origin = accept4(origin_fd, NULL, NULL, SOCK_NONBLOCK);
	return origin != -1;
}

static void accept_origin(void)
{
	ck_assert(net_turn_until(loop, origin_came, NULL));
}

struct expected {
	int fd;
	const uint8_t *data;
	size_t len, got;
};

static bool data_came(void *arg)
{
	struct expected *e = arg;
	uint8_t buf[512];
	size_t want = e->len - e->got;
	ssize_t n =
		recv(e->fd, buf, want < sizeof(buf) ? want : sizeof(buf), 0);

	if (n > 0) {
		ck_assert_mem_eq(buf, e->data + e->got, n);
		e->got += (size_t)n;
	}
	return e->got == e->len;
}

static void expect(int fd, const void *data, size_t len)
{
	struct expected e = {fd, data, len, 0};

	ck_assert(net_turn_until(loop, data_came, &e));
}

struct end {
	int fd;
	int err;
};

static bool ended(void *arg)
{
	struct end *end = arg;
	char byte;
	ssize_t n = recv(end->fd, &byte, 1, 0);

	ck_assert_int_le(n, 0);
	end->err = n == 0 ? 0 : errno;
	return end->err != EAGAIN && end->err != EINTR;
}

/* Return: 0 for an end of stream, else the errno. */
static int expect_end(int fd)
{
	struct end end = {fd, 0};

	ck_assert(net_turn_until(loop, ended, &end));
	return end.err;
}

static void expect_refused(void)
{
	expect_end(client);
	ck_assert_int_eq(nr_gone, 1);
	ck_assert_int_eq(nr_closed, 0);
	ck_assert_uint_eq(group.nr, 0);
	ck_assert(!origin_came(NULL));
}

static void say(int fd, const void *data, size_t len)
{
	ck_assert_int_eq(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

static bool all_closed(void *arg)
{
	return nr_closed == 1;
}

/* ---- a fixed target ---- */

START_TEST(both_directions)
{
	open_client(_i ? AF_INET : AF_UNIX, "early", 5);
	accept_origin();
	expect(origin, "early", 5);
	say(origin, "answer", 6);
	expect(client, "answer", 6);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	ck_assert_int_eq(expect_end(origin), 0);
	say(origin, "late", 4);
	expect(client, "late", 4);
	closefd(&origin);
	ck_assert_int_eq(expect_end(client), 0);
	ck_assert(net_turn_until(loop, all_closed, NULL));
	ck_assert_int_eq(nr_gone, 0);
}
END_TEST

START_TEST(target_down)
{
	closefd(&origin_fd);
	open_client(AF_INET, NULL, 0);
	ck_assert_int_eq(expect_end(client), ECONNRESET);
	ck_assert_int_eq(nr_gone, 1);
}
END_TEST

/* Have a multiplexer for a target: dials wait for its answer. */
static void use_mux(void)
{
	struct endpoint *ep = &service->config.target;
	union endpoint_sockaddr addr;
	char text[80];
	socklen_t len;

	snprintf(text, sizeof(text), "vsock-mux:%s:7", mux_path);
	ck_assert_ptr_null(endpoint_parse(ep, text));
	len = endpoint_sockaddr(ep, &addr);
	mux_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(mux_fd, &addr.sa, len), 0);
	ck_assert_int_eq(listen(mux_fd, 8), 0);
}

static void accept_mux(void)
{
	origin = accept4(mux_fd, NULL, NULL, SOCK_NONBLOCK);
	ck_assert_int_ge(origin, 0);
	expect(origin, "CONNECT 7\n", 10);
}

/* A guest may speak first, in the same breath as its VMM. */
START_TEST(guest_speaks_first)
{
	use_mux();
	open_client(AF_INET, "hello", 5);
	accept_mux();
	say(origin, "OK 12\n220 ready", 15);
	expect(client, "220 ready", 9);
	expect(origin, "hello", 5);
}
END_TEST

START_TEST(no_answer_in_time)
{
	service->config.connect_timeout = 0.05;
	use_mux();
	open_client(AF_INET, NULL, 0);
	ck_assert_int_eq(expect_end(client), ECONNRESET);
	ck_assert_int_eq(nr_gone, 1);
}
END_TEST

static bool is_gone(void *arg)
{
	return nr_gone == 1;
}

/* Reset, or closed where that can be told from a half-close. */
START_TEST(client_leaves_while_dialling)
{
	use_mux();
	open_client(_i ? AF_INET : AF_UNIX, NULL, 0);
	accept_mux();
	net_turn(loop, 3);
	ck_assert_uint_eq(env.nr, 1);
	if (_i)
		net_reset(client);
	else
		close(client);
	client = -1;
	ck_assert(net_turn_until(loop, is_gone, NULL));
	ck_assert_int_eq(expect_end(origin), 0);
}
END_TEST

/* A half-close and early data are none of that. */
START_TEST(client_says_all_while_dialling)
{
	use_mux();
	open_client(_i & 1 ? AF_INET : AF_UNIX, "all", _i & 2 ? 3 : 0);
	accept_mux();
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	net_turn(loop, 5);
	say(origin, "OK 1\n", 5);
	expect(origin, "all", _i & 2 ? 3 : 0);
	ck_assert_int_eq(expect_end(origin), 0);
	say(origin, "answer", 6);
	expect(client, "answer", 6);
}
END_TEST

START_TEST(idle)
{
	service->config.idle_timeout = 0.1;
	open_client(AF_INET, NULL, 0);
	accept_origin();
	for (int i = 0; i < 5; i++) {
		say(client, "x", 1);
		expect(origin, "x", 1);
	}
	ck_assert_int_eq(expect_end(client), ECONNRESET);
	ck_assert_int_eq(expect_end(origin), ECONNRESET);
	ck_assert_int_eq(nr_closed, 1);
}
END_TEST

/* ---- a destination at the head of the stream ---- */

static size_t put_prefix(uint8_t *buf)
{
	use_mode(MODE_VSOCK_TO_IP_TRANSPARENT);
	memset(&service->config.target, 0, sizeof(struct endpoint));
	return prefix_write(buf, &origin_addr);
}

/* Split at every byte, with payload right behind it. */
START_TEST(prefix)
{
	uint8_t buf[PREFIX_MAX + 7];
	size_t len = put_prefix(buf);
	size_t cut = (size_t)_i;

	ck_assert_uint_eq(len, PREFIX_V4_LEN);
	memcpy(buf + len, "payload", 7);
	open_client(AF_UNIX, buf, cut);
	net_turn(loop, 3);
	if (cut < len)
		ck_assert(!origin_came(NULL));
	if (cut < len + 7)
		say(client, buf + cut, len + 7 - cut);
	accept_origin();
	expect(origin, "payload", 7);
	say(origin, "answer", 6);
	expect(client, "answer", 6);
}
END_TEST

START_TEST(prefix_bad_version)
{
	use_mode(MODE_VSOCK_TO_IP_TRANSPARENT);
	open_client(_i ? AF_INET : AF_UNIX, "GET / HTTP/1.1\r\n\r\n", 18);
	expect_refused();
}
END_TEST

START_TEST(prefix_short)
{
	uint8_t buf[PREFIX_MAX];
	size_t len = put_prefix(buf);

	open_client(AF_INET, buf, len - 1);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	expect_refused();
}
END_TEST

START_TEST(prefix_late)
{
	uint8_t buf[PREFIX_MAX];
	size_t len = put_prefix(buf);

	service->config.handshake_timeout = 0.05;
	open_client(AF_INET, buf, len - 1);
	expect_refused();
}
END_TEST

START_TEST(prefix_denied)
{
	uint8_t buf[PREFIX_MAX];
	size_t len = put_prefix(buf);

	ck_assert_ptr_null(
		rules_add(&service->config.rules, "127.0.0.0/8", RULES_DENY));
	open_client(AF_UNIX, buf, len);
	expect_refused();
}
END_TEST

/* The unspecified address and port 0 end where they end in the kernel. */
START_TEST(prefix_of_nowhere)
{
	static const uint8_t nowhere[] = {4, 0, 0, 0, 0, 0, 0};

	use_mode(MODE_VSOCK_TO_IP_TRANSPARENT);
	open_client(AF_UNIX, nowhere, sizeof(nowhere));
	expect_refused();
}
END_TEST

/* ---- a destination from the kernel ---- */

START_TEST(not_redirected)
{
	use_mode(_i & 1 ? MODE_TRANSPARENT_PORT_TO_VSOCK
			: MODE_IP_TO_VSOCK_TRANSPARENT);
	service->config.tproxy = _i & 2;
	open_client(AF_INET, NULL, 0);
	expect_refused();
}
END_TEST

/* ---- PROXY protocol ---- */

START_TEST(header_sent)
{
	uint8_t want[PROXYPROTO_WRITE_MAX];
	struct proxyproto_addrs addrs;
	union sockaddr_any any;
	socklen_t alen = sizeof(any);
	size_t len;

	service->config.send_proxyproto = _i ? PROXYPROTO_V2 : PROXYPROTO_V1;
	open_client(AF_INET, "payload", 7);
	ck_assert_int_eq(getsockname(client, &any.sa, &alen), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(&addrs.src, &any.sa, alen), 0);
	alen = sizeof(any);
	ck_assert_int_eq(getpeername(client, &any.sa, &alen), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(&addrs.dst, &any.sa, alen), 0);
	len = proxyproto_write(want, service->config.send_proxyproto, &addrs);
	accept_origin();
	expect(origin, want, len);
	expect(origin, "payload", 7);
}
END_TEST

/* A client that has no IP address is not known. */
START_TEST(header_sent_for_unix)
{
	service->config.send_proxyproto = PROXYPROTO_V1;
	open_client(AF_UNIX, "payload", 7);
	accept_origin();
	expect(origin, "PROXY UNKNOWN\r\npayload", 22);
}
END_TEST

static const char v1[] = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n";

/* Taken off, and what it says is passed on; with a prefix behind it, and
 * payload behind that; split at every byte. */
START_TEST(header_taken)
{
	uint8_t buf[200];
	size_t len = sizeof(v1) - 1, cut = (size_t)_i;

	memcpy(buf, v1, len);
	len += put_prefix(buf + len);
	memcpy(buf + len, "payload", 7);
	len += 7;
	service->config.accept_proxyproto = true;
	service->config.send_proxyproto = PROXYPROTO_V1;
	open_client(AF_UNIX, buf, cut < len ? cut : len);
	net_turn(loop, 3);
	if (cut < len)
		say(client, buf + cut, len - cut);
	accept_origin();
	expect(origin, v1, sizeof(v1) - 1);
	expect(origin, "payload", 7);
}
END_TEST

/* A header that says "not known" leaves what we know ourselves. */
START_TEST(header_of_unknown)
{
	static const char text[] = "PROXY UNKNOWN\r\npayload";

	service->config.accept_proxyproto = true;
	open_client(AF_INET, text, sizeof(text) - 1);
	accept_origin();
	expect(origin, "payload", 7);
}
END_TEST

START_TEST(header_missing)
{
	service->config.accept_proxyproto = true;
	open_client(AF_INET, "GET / HTTP/1.1\r\n", 16);
	expect_refused();
}
END_TEST

START_TEST(header_short)
{
	service->config.accept_proxyproto = true;
	open_client(AF_INET, v1, 20);
	ck_assert_int_eq(shutdown(client, SHUT_WR), 0);
	expect_refused();
}
END_TEST

/* ---- many at once ---- */

START_TEST(aborted)
{
	use_mux();
	open_client(AF_INET, NULL, 0);
	forward_abort_all(&env);
	ck_assert_int_eq(expect_end(client), ECONNRESET);
	ck_assert_int_eq(nr_gone, 1);
}
END_TEST

START_TEST(max_connections)
{
	service->config.max_connections = 2;
	ck_assert(service_enter(service));
	ck_assert(!service_is_full(service));
	ck_assert(service_enter(service));
	ck_assert(service_is_full(service));
	ck_assert(!service_enter(service));
	service_leave(service);
	ck_assert(!service_is_full(service));
	ck_assert(service_enter(service));
	service_leave(service);
	service_leave(service);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("forward");
	TCase *tc = tcase_create("forward");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, both_directions, 0, 2);
	tcase_add_test(tc, target_down);
	tcase_add_test(tc, guest_speaks_first);
	tcase_add_test(tc, no_answer_in_time);
	tcase_add_loop_test(tc, client_leaves_while_dialling, 0, 2);
	tcase_add_loop_test(tc, client_says_all_while_dialling, 0, 4);
	tcase_add_test(tc, idle);
	tcase_add_loop_test(tc, prefix, 0, PREFIX_V4_LEN + 8);
	tcase_add_loop_test(tc, prefix_bad_version, 0, 2);
	tcase_add_test(tc, prefix_short);
	tcase_add_test(tc, prefix_late);
	tcase_add_test(tc, prefix_denied);
	tcase_add_test(tc, prefix_of_nowhere);
	tcase_add_loop_test(tc, not_redirected, 0, 2);
	tcase_add_loop_test(tc, header_sent, 0, 2);
	tcase_add_test(tc, header_sent_for_unix);
	tcase_add_loop_test(tc, header_taken, 0, 58);
	tcase_add_test(tc, header_of_unknown);
	tcase_add_test(tc, header_missing);
	tcase_add_test(tc, header_short);
	tcase_add_test(tc, aborted);
	tcase_add_test(tc, max_connections);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
