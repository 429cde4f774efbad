/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/client.h"

#include "common/log.h"

#include "suite.h"
#include "test_proxy_dns.h"

#include <arpa/inet.h>
#include <sys/resource.h>

/*
 * Theory of operation
 *
 * The test is the client, on one end of a socket pair whose other end is
 * accepted as far as the server knows; it is the destination too, by a
 * listening socket on loopback; and it turns the loop in between. So every
 * step of a handshake can be cut anywhere. In a namespace of its own, with a
 * name server.
 */

static struct ev_loop *loop;
static struct dns dns;
static struct reaper reaper;
static struct relay_group group;
static struct nameservers nameservers;
static struct service *service;
static struct fd_budget budget;
static struct client_env env;
static int nr_gone, nr_relays_closed;

static int origin_fd[2];
static struct ip_port origin4, origin6, closed4;
static int fd = -1; /* the client's end */

static void on_gone(void *arg)
{
	nr_gone++;
}

static void on_relay_closed(void *arg)
{
	nr_relays_closed++;
}

/* What the clients come to; nothing listens. */
static void open_service(void)
{
	static const struct endpoint none;
	struct service_config config = {
		.mode = &mode_table[MODE_SOCKS5],
		.handshake_timeout = 10,
		.connect_timeout = 10,
	};

	service = service_new(&config, entrance_new(&none));
	ck_assert_ptr_nonnull(service);
}

/* As a worker does. */
static void accept_client(int sock, sa_family_t family)
{
	service->entrance->listener.family = family;
	ck_assert(service_enter(service));
	ck_assert_int_eq(client_new(&env, service, sock), 0);
}

static void setup(void)
{
	int unused;

	log_init("test", LOG_ERROR, STDERR_FILENO);
	loop = ev_loop_new(EVBACKEND_EPOLL);
	ck_assert_int_eq(resolve_library_init(), 0);
	dns_start(&dns, loop);
	reaper_init(&reaper, loop);
	ck_assert_int_eq(relay_group_init(&group, loop, &reaper, 65536,
				 on_relay_closed, NULL),
		0);
	nameservers_init(&nameservers, dns.conf);
	open_service();
	fd_budget_init(&budget, 1000, 0);
	memset(&env, 0, sizeof(env));
	env.loop = loop;
	env.reaper = &reaper;
	env.relays = &group;
	env.resolver = resolver_new(loop, dns.conf);
	env.nameservers = &nameservers;
	env.budget = &budget;
	list_init(&env.clients);
	list_init(&env.forwards);
	env.next_id = 1;
	env.id_step = 1;
	env.gone = on_gone;
	nr_gone = nr_relays_closed = 0;
	origin_fd[0] = net_listen(AF_INET, 64, &origin4);
	origin_fd[1] = net_listen(AF_INET6, 64, &origin6);
	unused = net_listen(AF_INET, 1, &closed4);
	close(unused);
}

static void teardown(void)
{
	client_abort_all(&env);
	relay_group_abort(&group);
	resolver_free(env.resolver);
	reaper_stop(&reaper);
	relay_group_free(&group);
	ck_assert_int_eq(atomic_load(&service->entrance->nr), 0);
	ck_assert_int_eq(atomic_load(&service->refs), 1);
	service_unref(service);
	dns_stop(&dns, loop);
	resolve_library_cleanup();
	close(origin_fd[0]);
	close(origin_fd[1]);
	if (fd != -1)
		close(fd);
	fd = -1;
	ck_assert_uint_eq(env.nr, 0);
	ck_assert_int_eq(atomic_load(&budget.used), 0);
	ev_loop_destroy(loop);
}

/* A new client; @first is what it sent before it was accepted. */
static void open_client(sa_family_t family, const void *first, size_t len)
{
	int pair[2];

	if (fd != -1)
		close(fd);
	net_pair(family, pair);
	fd = pair[0];
	if (len > 0)
		ck_assert_int_eq(send(fd, first, len, 0), (ssize_t)len);
	ev_now_update(loop);
	accept_client(pair[1], family);
}

static void say(const void *data, size_t len)
{
	ck_assert_int_eq(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
	net_turn(loop, 3);
}

static bool is_readable(void *arg)
{
	struct pollfd p = {.fd = *(int *)arg, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

/* Receive on @sock exactly @len bytes. */
static void take(int sock, void *buf, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t n;

		ck_assert(net_turn_until(loop, is_readable, &sock));
		n = recv(sock, (char *)buf + have, len - have, 0);
		ck_assert_int_gt(n, 0);
		have += (size_t)n;
	}
}

static void expect(int sock, const void *want, size_t len)
{
	uint8_t got[1024];

	ck_assert_uint_le(len, sizeof(got));
	take(sock, got, len);
	ck_assert_mem_eq(got, want, len);
}

static void expect_eof(int sock)
{
	char c;

	ck_assert(net_turn_until(loop, is_readable, &sock));
	ck_assert_int_eq(recv(sock, &c, 1, 0), 0);
}

static bool nobody_left(void *arg)
{
	return env.nr == 0 && group.nr == 0;
}

static void expect_nobody(void)
{
	ck_assert(net_turn_until(loop, nobody_left, NULL));
}

/* ---- requests ---- */

static const uint8_t greeting[] = {5, 1, 0};

/* Greeting and request. Return: the length. */
static size_t hello(
	uint8_t *buf, int command, const struct ip_port *addr, const char *name)
{
	struct socks5_addr dst;

	memset(&dst, 0, sizeof(dst));
	dst.addr = *addr;
	if (name) {
		dst.addr.family = AF_UNSPEC;
		dst.name_len = (uint8_t)strlen(name);
		memcpy(dst.name, name, strlen(name));
	}
	return socks5_write_hello(buf, (enum socks5_command)command, &dst);
}

static void expect_method(void)
{
	expect(fd, "\x05\x00", 2);
}

/* A reply that refuses, then the end of the stream. */
static void expect_refusal(int code)
{
	uint8_t want[10] = {5, (uint8_t)code, 0, 1};

	expect(fd, want, sizeof(want));
	expect_eof(fd);
}

/* A reply that tells the address from which @sock was connected. */
static void expect_success(int sock)
{
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	struct ip_port peer;
	uint8_t want[SOCKS5_REPLY_V6_LEN];

	ck_assert_int_eq(getpeername(sock, &any.sa, &len), 0);
	ck_assert_int_eq(ip_port_from_sockaddr(&peer, &any.sa, len), 0);
	expect(fd, want, socks5_write_reply(want, SOCKS5_SUCCEEDED, &peer));
}

static int accept_at(int listener)
{
	int sock;

	ck_assert(net_turn_until(loop, is_readable, &listener));
	sock = accept(listener, NULL, NULL);
	ck_assert_int_ge(sock, 0);
	return sock;
}

/* Both directions work and the end goes through. */
static void expect_relayed(int sock)
{
	say("to origin", 9);
	expect(sock, "to origin", 9);
	ck_assert_int_eq(send(sock, "to client", 9, 0), 9);
	expect(fd, "to client", 9);
	ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
	expect_eof(sock);
	close(sock);
	expect_eof(fd);
	expect_nobody();
	ck_assert_int_eq(nr_gone, 0);
}

/* ---- good clients ---- */

static const struct {
	sa_family_t family;
	int origin;
	const char *name;
} good[] = {
	{AF_UNIX, 0, NULL},
	{AF_UNIX, 1, NULL},
	{AF_INET, 0, NULL},
	{AF_INET6, 1, NULL},
	{AF_UNIX, 0, "127.0.0.1"},
	{AF_UNIX, 1, "::1"},
	{AF_UNIX, 0, "four.test"},
	{AF_UNIX, 0, "four.test."},
	{AF_UNIX, 0, "good.test"},
	{AF_UNIX, 1, "good.test"},
	{AF_UNIX, 0, "localhost"},
};

START_TEST(connects)
{
	const struct ip_port *addr = good[_i].origin ? &origin6 : &origin4;
	uint8_t buf[300];
	size_t len = hello(buf, SOCKS5_CONNECT, addr, good[_i].name);
	int sock;

	open_client(good[_i].family, NULL, 0);
	say(buf, 3);
	expect_method();
	say(buf + 3, len - 3);
	sock = accept_at(origin_fd[good[_i].origin]);
	expect_success(sock);
	expect_relayed(sock);
	ck_assert_int_eq(nr_relays_closed, 1);
}
END_TEST

/* The whole handshake and payload, cut in two at each byte, and before or
 * after the server accepts. */
START_TEST(cut_anywhere)
{
	uint8_t buf[400];
	bool named = _i % 2;
	size_t len = hello(
		buf, SOCKS5_CONNECT, &origin4, named ? "four.test" : NULL);

	len += (size_t)sprintf((char *)buf + len, "payload");
	for (size_t cut = 0; cut <= len; cut++) {
		int sock;

		open_client(AF_UNIX, buf, cut);
		net_turn(loop, 3);
		if (cut < len)
			say(buf + cut, len - cut);
		sock = accept_at(origin_fd[0]);
		expect_method();
		expect_success(sock);
		expect(sock, "payload", 7);
		expect_relayed(sock);
	}
}
END_TEST

START_TEST(byte_by_byte)
{
	uint8_t buf[400];
	size_t len = hello(buf, SOCKS5_CONNECT, &origin6, NULL);
	int sock;

	len += (size_t)sprintf((char *)buf + len, "payload");
	open_client(AF_INET, NULL, 0);
	for (size_t i = 0; i < len; i++)
		say(buf + i, 1);
	sock = accept_at(origin_fd[1]);
	expect_method();
	expect_success(sock);
	expect(sock, "payload", 7);
	expect_relayed(sock);
}
END_TEST

/* The longest greeting and request there can be, and more payload than the
 * handshake's buffer holds, all at once and ended. */
START_TEST(everything_at_once)
{
	static uint8_t buf[200000], got[200000];
	uint8_t request[300];
	char name[256];
	size_t len = 0, n;
	int sock, size = 1024 * 1024;
	int pair[2];

	buf[len++] = 5;
	buf[len++] = 255;
	for (int i = 0; i < 255; i++)
		buf[len++] = (uint8_t)(254 - i);
	/* As long as names get; the server looks at the first label only. */
	memset(name, 0, sizeof(name));
	for (int i = 0; i < 249; i++)
		name[i] = i == 4 || i % 50 == 10 ? '.' : 'x';
	snprintf(name, sizeof(name), "four");
	name[4] = '.';
	n = hello(request, SOCKS5_CONNECT, &origin4, name);
	memcpy(buf + len, request + 3, n - 3);
	len += n - 3;
	net_pattern(buf + len, 100000, 1);
	net_pair(AF_UNIX, pair);
	fd = pair[0];
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	say(buf, len + 100000);
	ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
	accept_client(pair[1], AF_UNIX);
	sock = accept_at(origin_fd[0]);
	expect_method();
	expect_success(sock);
	take(sock, got, 100000);
	ck_assert_mem_eq(got, buf + len, 100000);
	expect_eof(sock);
	ck_assert_int_eq(send(sock, "late answer", 11, 0), 11);
	expect(fd, "late answer", 11);
	close(sock);
	expect_eof(fd);
	expect_nobody();
}
END_TEST

/* The reserved name stands for the host's name servers, in turn. */
START_TEST(host_resolver)
{
	struct ip_port server = {
		.family = AF_INET, .port = 53, .ip = {127, 0, 0, 1}};
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(&server, &any);
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1, sock;
	uint8_t buf[300];
	size_t n;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	ck_assert_int_eq(bind(listener, &any.sa, len), 0);
	ck_assert_int_eq(listen(listener, 5), 0);
	/* The first one is dead. Rules about other addresses do not matter. */
	dns_write_conf(
		dns.conf, "nameserver 127.0.0.7\nnameserver 127.0.0.1\n");
	ck_assert_ptr_null(
		rules_add(&service->config.rules, "192.0.2.1", RULES_ALLOW));
	n = hello(buf, SOCKS5_CONNECT, &server, "Resolver.Proxy.Internal");
	open_client(AF_UNIX, buf, n);
	sock = accept_at(listener);
	expect_method();
	expect_success(sock);
	expect_relayed(sock);
	/* A rule that denies the address does. */
	rules_free(&service->config.rules);
	ck_assert_ptr_null(
		rules_add(&service->config.rules, "127.0.0.0/8", RULES_DENY));
	open_client(AF_UNIX, buf, n);
	expect_method();
	expect_refusal(SOCKS5_NOT_ALLOWED);
	/* Another port is another matter: an ordinary name, unknown here. */
	rules_free(&service->config.rules);
	server.port = 54;
	dns_write_conf(dns.conf, "nameserver 127.0.0.1\n");
	n = hello(buf, SOCKS5_CONNECT, &server, "resolver.proxy.internal");
	open_client(AF_UNIX, buf, n);
	expect_method();
	expect_refusal(SOCKS5_HOST_UNREACHABLE);
	close(listener);
}
END_TEST

/* ---- destinations that cannot be had ---- */

static const struct {
	const char *ip;   /* NULL: closed4 */
	const char *name; /* instead */
	const char *deny;
	int command;
	int reply;
} refusals[] = {
	{NULL, NULL, NULL, SOCKS5_CONNECT, SOCKS5_REFUSED},
	{NULL, "good.test", NULL, SOCKS5_CONNECT, SOCKS5_REFUSED},
	{"192.0.2.1", NULL, NULL, SOCKS5_CONNECT, SOCKS5_NETWORK_UNREACHABLE},
	{"2001:db8::1", NULL, NULL, SOCKS5_CONNECT, SOCKS5_NETWORK_UNREACHABLE},
	{NULL, "nx.test", NULL, SOCKS5_CONNECT, SOCKS5_HOST_UNREACHABLE},
	{NULL, "empty.test", NULL, SOCKS5_CONNECT, SOCKS5_HOST_UNREACHABLE},
	{NULL, "fail.test", NULL, SOCKS5_CONNECT, SOCKS5_GENERAL_FAILURE},
	{NULL, "silent.test", NULL, SOCKS5_CONNECT, SOCKS5_TTL_EXPIRED},
	{"127.0.0.1", NULL, "127.0.0.0/8", SOCKS5_CONNECT, SOCKS5_NOT_ALLOWED},
	{"::ffff:127.0.0.1", NULL, "127.0.0.0/8", SOCKS5_CONNECT,
		SOCKS5_NOT_ALLOWED},
	{"0.0.0.0", NULL, "127.0.0.1", SOCKS5_CONNECT, SOCKS5_NOT_ALLOWED},
	{"::", NULL, "::1", SOCKS5_CONNECT, SOCKS5_NOT_ALLOWED},
	{NULL, "four.test", "127.0.0.1", SOCKS5_CONNECT, SOCKS5_NOT_ALLOWED},
	{NULL, "127.0.0.1", "127.0.0.1", SOCKS5_CONNECT, SOCKS5_NOT_ALLOWED},
	{"127.0.0.1", NULL, NULL, SOCKS5_BIND, SOCKS5_COMMAND_NOT_SUPPORTED},
	{"127.0.0.1", NULL, NULL, SOCKS5_UDP_ASSOCIATE,
		SOCKS5_COMMAND_NOT_SUPPORTED},
	{"127.0.0.1", NULL, NULL, 0, SOCKS5_COMMAND_NOT_SUPPORTED},
	{"127.0.0.1", NULL, NULL, 255, SOCKS5_COMMAND_NOT_SUPPORTED},
};

START_TEST(refuses)
{
	struct ip_port addr = closed4;
	uint8_t buf[400];
	size_t len;

	if (refusals[_i].ip) {
		memset(&addr, 0, sizeof(addr));
		addr.port = 80;
		addr.family = strchr(refusals[_i].ip, ':') ? AF_INET6 : AF_INET;
		ck_assert_int_eq(
			inet_pton(addr.family, refusals[_i].ip, addr.ip), 1);
	}
	if (refusals[_i].deny)
		ck_assert_ptr_null(rules_add(
			&service->config.rules, refusals[_i].deny, RULES_DENY));
	len = hello(buf, refusals[_i].command, &addr, refusals[_i].name);
	/* What follows the request must not destroy the reply. */
	memset(buf + len, 'x', 50);
	open_client(AF_INET, buf, len + 50);
	expect_method();
	expect_refusal(refusals[_i].reply);
	close(fd);
	fd = -1;
	expect_nobody();
	ck_assert_int_eq(nr_gone, 1);
}
END_TEST

/* One of several addresses is denied: the others are tried. */
START_TEST(some_addresses_denied)
{
	uint8_t buf[300];
	size_t len = hello(buf, SOCKS5_CONNECT, &origin4, "good.test");
	int sock;

	ck_assert_ptr_null(
		rules_add(&service->config.rules, "::/0", RULES_DENY));
	open_client(AF_UNIX, buf, len);
	sock = accept_at(origin_fd[0]);
	expect_method();
	expect_success(sock);
	expect_relayed(sock);
}
END_TEST

/* ---- bad clients ---- */

static const struct {
	const char *bytes;
	size_t len;
	const char *answer;
	size_t answer_len;
	const char *said; /* in the log */
} broken[] = {
	{"GET / HTTP/1.0\r\n\r\n", 18, "", 0,
		"not SOCKS5: version is 71, expected 5"},
	{"\x04\x01", 2, "", 0, "not SOCKS5: version is 4, expected 5"},
	{"\x05\x00", 2, "\x05\xff", 2, "none of the 0 methods offered is 0"},
	{"\x05\x01\x02", 3, "\x05\xff", 2,
		"none of the 1 methods offered is 0"},
	{"\x05\x02\x01\x02", 4, "\x05\xff", 2,
		"none of the 2 methods offered is 0"},
	/* bad version, reserved byte, address type, empty name, blank name */
	{"\x05\x01\x00\x04", 4, "\x05\x00\x05\x01\x00\x01", 6,
		"the request's version is 4, expected 5"},
	{"\x05\x01\x00\x05\x01\x07", 6, "\x05\x00\x05\x01\x00\x01", 6,
		"the request's reserved byte is 7, expected 0"},
	{"\x05\x01\x00\x05\x01\x00\x02", 7, "\x05\x00\x05\x08\x00\x01", 6,
		"the address type is 2, expected 1, 3 or 4"},
	{"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", 10,
		"\x05\x00\x05\x01\x00\x01", 6, "the name is empty"},
	{"\x05\x01\x00\x05\x01\x00\x03\x03"
	 "a b\x00\x50",
		13, "\x05\x00\x05\x01\x00\x01", 6,
		"byte 1 of the name is 0x20, expected printable ASCII"},
	{"\x05\x01\x00\x05\x01\x00\x03\x03"
	 "ab\x00\x00\x50",
		13, "\x05\x00\x05\x01\x00\x01", 6,
		"byte 2 of the name is 0x00, expected printable ASCII"},
	{"\x05\x01\x00\x05\x01\x00\x03\x01"
	 "\xff\x00\x50",
		11, "\x05\x00\x05\x01\x00\x01", 6,
		"byte 0 of the name is 0xff, expected printable ASCII"},
};

/* The line names the client, what was wrong, and what was expected. */
static void expect_line(int log, const char *said)
{
	char line[512] = "";

	ck_assert_int_gt(read(log, line, sizeof(line) - 1), 0);
	ck_assert_msg(strstr(line, said) && strstr(line, " warn: conn 1 ("),
		"logged '%s', not '%s'", line, said);
	ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
}

START_TEST(broken_protocol)
{
	uint8_t want[16];
	size_t len = broken[_i].answer_len;
	int log[2];

	ck_assert_int_eq(pipe(log), 0);
	log_init("test", LOG_WARN, log[1]);
	open_client(AF_INET, NULL, 0);
	for (size_t i = 0; i < broken[_i].len; i++)
		if (send(fd, broken[_i].bytes + i, 1, MSG_NOSIGNAL) == 1)
			net_turn(loop, 3);
	memset(want, 0, sizeof(want));
	memcpy(want, broken[_i].answer, len);
	if (len > 2)
		len = 2 + SOCKS5_REPLY_V4_LEN;
	if (len > 0) {
		expect(fd, want, len);
		expect_eof(fd);
	} else {
		char c;

		ck_assert(net_turn_until(loop, is_readable, &fd));
		ck_assert_int_le(recv(fd, &c, 1, 0), 0);
	}
	close(fd);
	fd = -1;
	expect_nobody();
	ck_assert_int_eq(nr_gone, 1);
	expect_line(log[0], broken[_i].said);
	close(log[0]);
	close(log[1]);
}
END_TEST

/* A client that does not finish its request is closed in time. */
START_TEST(slow_handshake)
{
	char c;

	service->config.handshake_timeout = 0.05;
	open_client(AF_UNIX, greeting, (size_t)_i);
	if (_i == 3)
		expect_method();
	ck_assert(net_turn_until(loop, is_readable, &fd));
	ck_assert_int_le(recv(fd, &c, 1, 0), 0);
	expect_nobody();
}
END_TEST

/* One that keeps sending after it was refused is not read for ever. */
START_TEST(sends_for_ever)
{
	static uint8_t junk[65536];
	uint8_t buf[300];
	size_t len = hello(buf, SOCKS5_BIND, &origin4, NULL);
	double end = net_now() + WAIT_SECONDS;

	open_client(AF_INET, buf, len);
	while (env.nr > 0 && net_now() < end) {
		send(fd, junk, sizeof(junk), MSG_NOSIGNAL);
		net_turn(loop, 1);
	}
	ck_assert_uint_eq(env.nr, 0);
}
END_TEST

START_TEST(leaves_early)
{
	uint8_t buf[300];
	size_t len = hello(buf, SOCKS5_CONNECT, &origin4, "silent.test");

	/* At any point of the handshake, or while its name is looked up. */
	for (size_t cut = 0; cut <= len; cut++) {
		open_client(AF_UNIX, buf, cut);
		net_turn(loop, 2);
		close(fd);
		fd = -1;
		net_turn(loop, 3);
		ck_assert_uint_eq(env.nr, 0);
		ck_assert_int_eq(nr_gone, (int)cut + 1);
	}
	/* One that resets. */
	open_client(AF_INET, buf, len);
	net_turn(loop, 2);
	ck_assert_uint_eq(env.nr, 1);
	net_reset(fd);
	fd = -1;
	expect_nobody();
}
END_TEST

/* A destination that does not answer. */
START_TEST(connect_timeout)
{
	struct ip_port silent;
	union sockaddr_any any;
	int listener = net_listen(AF_INET, 0, &silent);
	socklen_t alen = ip_port_to_sockaddr(&silent, &any);
	int filler[2];
	uint8_t buf[300];
	size_t len;

	for (int i = 0; i < 2; i++) {
		filler[i] = socket(AF_INET, SOCK_STREAM, 0);
		net_nonblock(filler[i]);
		if (connect(filler[i], &any.sa, alen) == -1)
			ck_assert_int_eq(errno, EINPROGRESS);
	}
	service->config.connect_timeout = 0.1;
	len = hello(buf, SOCKS5_CONNECT, &silent, NULL);
	open_client(AF_UNIX, buf, len);
	expect_method();
	expect_refusal(SOCKS5_TTL_EXPIRED);
	/* And one that leaves while it waits for that. */
	service->config.connect_timeout = 100;
	open_client(AF_UNIX, buf, len);
	expect_method();
	ck_assert_uint_ge(env.nr, 1);
	close(fd);
	fd = -1;
	expect_nobody();
	close(listener);
	close(filler[0]);
	close(filler[1]);
}
END_TEST

/* No fd for the destination: a refusal, and no harm. */
START_TEST(out_of_fds)
{
	uint8_t buf[300];
	size_t len = hello(buf, SOCKS5_CONNECT, &origin4, NULL);
	struct rlimit old, now;
	int pair[2], next;

	net_pair(AF_UNIX, pair);
	fd = pair[0];
	ck_assert_int_eq(send(fd, buf, len, 0), (ssize_t)len);
	next = dup(0);
	close(next);
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
	now = old;
	now.rlim_cur = (rlim_t)next;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &now), 0);
	accept_client(pair[1], AF_UNIX);
	expect_method();
	expect_refusal(SOCKS5_GENERAL_FAILURE);
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
}
END_TEST

/* All clients in all states can be ended at once. */
START_TEST(aborted)
{
	uint8_t buf[300];
	size_t len;
	int fds[4];

	open_client(AF_UNIX, NULL, 0);
	fds[0] = dup(fd);
	open_client(AF_UNIX, greeting, 3);
	fds[1] = dup(fd);
	len = hello(buf, SOCKS5_CONNECT, &origin4, "silent.test");
	open_client(AF_UNIX, buf, len);
	fds[2] = dup(fd);
	len = hello(buf, SOCKS5_BIND, &origin4, NULL);
	open_client(AF_UNIX, buf, len);
	fds[3] = dup(fd);
	ck_assert_uint_eq(env.nr, 4);
	client_abort_all(&env);
	ck_assert_uint_eq(env.nr, 0);
	ck_assert_int_eq(nr_gone, 4);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}
END_TEST

#define NR(table) ((int)(sizeof(table) / sizeof((table)[0])))

int main(void)
{
	Suite *s = suite_create("proxy client");
	TCase *tc = tcase_create("client");

	if (!net_isolate())
		return 77; /* skipped */
	tcase_set_timeout(tc, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, connects, 0, NR(good));
	tcase_add_loop_test(tc, cut_anywhere, 0, 2);
	tcase_add_test(tc, byte_by_byte);
	tcase_add_test(tc, everything_at_once);
	tcase_add_test(tc, host_resolver);
	tcase_add_loop_test(tc, refuses, 0, NR(refusals));
	tcase_add_test(tc, some_addresses_denied);
	tcase_add_loop_test(tc, broken_protocol, 0, NR(broken));
	tcase_add_loop_test(tc, slow_handshake, 0, 4);
	tcase_add_test(tc, sends_for_ever);
	tcase_add_test(tc, leaves_early);
	tcase_add_test(tc, connect_timeout);
	tcase_add_test(tc, out_of_fds);
	tcase_add_test(tc, aborted);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
