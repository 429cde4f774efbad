/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "inbound_stage.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <linux/capability.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * The mirror listens on all addresses, so each test has a network namespace of
 * its own where that is allowed, with one more address on its loopback
 * interface. Elsewhere the ports are whatever the kernel has free.
 */

#define OUTER "10.77.0.1"

static bool alone;

static void set_address(int sock, const char *name, const char *text)
{
	struct ifreq ifr;
	union sockaddr_any any;
	struct ip_port addr = ip(text, 0);

	memset(&ifr, 0, sizeof(ifr));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ip_port_to_sockaddr(&addr, &any);
	memcpy(&ifr.ifr_addr, &any.in, sizeof(any.in));
	ck_assert_int_eq(ioctl(sock, SIOCSIFADDR, &ifr), 0);
}

static void loopback_up(void)
{
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr;

	ck_assert_int_ge(sock, 0);
	memset(&ifr, 0, sizeof(ifr));
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "lo");
	ck_assert_int_eq(ioctl(sock, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags |= IFF_UP;
	ck_assert_int_eq(ioctl(sock, SIOCSIFFLAGS, &ifr), 0);
	set_address(sock, "lo:1", OUTER);
	closefd(&sock);
}

static void setup(void)
{
	alone = unshare(CLONE_NEWNET) == 0;
	if (alone)
		loopback_up();
	inbound_setup();
	stage.config.no_mirror = false;
}

static int tcp_socket(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	return fd;
}

/* Somebody in the enclave has a port. */
static int local_server(uint16_t *port)
{
	struct ip_port addr = ip("127.0.0.1", 0);
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(&addr, &any);
	int fd = tcp_socket(AF_INET);

	ck_assert_int_eq(bind(fd, &any.sa, len), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	ck_assert_int_eq(getsockname(fd, &any.sa, &len), 0);
	*port = ntohs(any.in.sin_port);
	return fd;
}

/* A port that nobody has, as far as one can tell. */
static uint16_t free_port(void)
{
	uint16_t port;
	int fd = local_server(&port);

	closefd(&fd);
	return port;
}

/* Return: a connection, or -1 and errno. */
static int local_client(const char *text, uint16_t port)
{
	struct ip_port addr = ip(text, port);
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(&addr, &any);
	int fd = tcp_socket(addr.family);

	if (connect(fd, &any.sa, len) == -1)
		closefd(&fd);
	return fd;
}

static const struct {
	const char *listener;
	unsigned flags;
	const char *client;
	const char *seen;
} addresses[] = {
	{"0.0.0.0", 0, "127.0.0.1", "127.0.0.1"},
	{"0.0.0.0", 0, "127.0.1.1", "127.0.1.1"},
	{"::", 0, "::1", "::1"},
	{"::", 0, "127.0.0.1", "::ffff:127.0.0.1"},
	{"::", VENDOR_V6ONLY, "::1", "::1"},
	{"::ffff:0.0.0.0", 0, "127.0.0.1", "::ffff:127.0.0.1"},
};

START_TEST(test_local_client)
{
	struct ip_port seen;
	struct vendor_result res;
	union sockaddr_any any;
	socklen_t len = sizeof(any);
	uint16_t port = free_port();
	int control, client, conn;

	worker_start();
	control =
		front_serve(addresses[_i].listener, port, addresses[_i].flags);
	client = local_client(addresses[_i].client, port);
	ck_assert_int_ge(client, 0);
	conn = front_accept(control, &res);
	seen = ip(addresses[_i].seen, port);
	ck_assert(ip_port_equal(&res.local, &seen));
	ck_assert_int_eq(getsockname(client, &any.sa, &len), 0);
	ip_port_from_sockaddr(&seen, &any.sa, len);
	if (strchr(addresses[_i].listener, ':'))
		ip_port_map(&seen);
	ck_assert(ip_port_equal(&res.remote, &seen));
	expect_talk(client, conn);
	closefd(&client);
	closefd(&conn);
	/* The host's clients come as well. */
	client = host_client(port, "192.0.2.9", 4711);
	if (strcmp(addresses[_i].listener, "::") != 0) {
		conn = front_accept(control, &res);
		ck_assert_int_eq(res.remote.port, 4711);
		closefd(&conn);
	}
	closefd(&client);
	closefd(&control);
	UNTIL(host_count(CONN_HOLD, 0) == 0);
	ck_assert_int_eq(local_client(addresses[_i].client, port), -1);
}
END_TEST

/* Bound is not listening, and v6 only is no v4. */
START_TEST(test_refused)
{
	uint16_t port = free_port();
	int control;

	worker_start();
	control = front_bind("::", port, VENDOR_V6ONLY, NULL);
	ck_assert_int_eq(local_client("::1", port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	front_listen(control, 5);
	ck_assert_int_eq(local_client("127.0.0.1", port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	closefd(&control);
}
END_TEST

/* Neither a specific address nor a loopback one is served in the enclave. */
START_TEST(test_no_mirror)
{
	uint16_t port = free_port();
	int control;

	worker_start();
	control = front_serve(_i == 0 ? "192.0.2.1" : "127.0.0.1", port,
		_i == 0 ? 0 : VENDOR_LOOPBACK);
	ck_assert_int_eq(local_client("127.0.0.1", port), -1);
	ck_assert_int_eq(errno, ECONNREFUSED);
	closefd(&control);
}
END_TEST

/* The enclave's other addresses are reached through the host only. */
START_TEST(test_not_loopback)
{
	struct pollfd pfd = {.events = POLLIN};
	char byte;
	int control;

	if (!alone)
		return;
	worker_start();
	control = front_serve("0.0.0.0", 8080, 0);
	pfd.fd = local_client(OUTER, 8080);
	ck_assert_int_ge(pfd.fd, 0);
	ck_assert_int_eq(poll(&pfd, 1, STAGE_PATIENCE_MS), 1);
	ck_assert_int_eq(recv(pfd.fd, &byte, 1, 0), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	ck_assert(!front_pending(control));
	closefd(&pfd.fd);
	closefd(&control);
}
END_TEST

START_TEST(test_taken)
{
	uint16_t port;
	int server = local_server(&port);

	worker_start();
	ck_assert_int_eq(front_bind("0.0.0.0", port, 0, NULL), -1);
	ck_assert_int_eq(errno, EADDRINUSE);
	ck_assert_int_eq(host.holds, 0);
	closefd(&server);
}
END_TEST

/* The host chooses one that is taken in the enclave: it is asked again. */
START_TEST(test_chosen_is_taken)
{
	struct vendor_result res;
	uint16_t port;
	int server = local_server(&port);
	int control;

	host.next_port = port;
	worker_start();
	control = front_bind("0.0.0.0", 0, 0, &res);
	ck_assert_int_ge(control, 0);
	ck_assert_int_gt(res.local.port, port);
	ck_assert_int_ge(host.holds, 2);
	UNTIL(host_count(CONN_HOLD, 0) == 1);
	closefd(&server);
	closefd(&control);
}
END_TEST

/* Be as one who may not bind low ports, and the worker too. */
static void drop_privilege(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	ck_assert_int_eq(syscall(SYS_capget, &header, data), 0);
	data[0].effective &= ~(1u << CAP_NET_BIND_SERVICE);
	ck_assert_int_eq(syscall(SYS_capset, &header, data), 0);
}

START_TEST(test_privileged)
{
	if (!alone)
		return;
	drop_privilege();
	worker_start();
	ck_assert_int_eq(front_bind("0.0.0.0", 80, 0, NULL), -1);
	ck_assert_int_eq(errno, EACCES);
	ck_assert_int_eq(host.holds, 0);
}
END_TEST

/* Clients that nobody takes wait with the kernel. */
START_TEST(test_local_clients_wait)
{
	struct vendor_request req;
	struct vendor_result res;
	uint16_t port = free_port();
	int control, clients[8];
	int before;

	worker_start();
	control = front_bind("0.0.0.0", port, 0, NULL);
	ck_assert_int_ge(control, 0);
	vendor_request_init(&req, VENDOR_LISTEN);
	req.backlog = 3;
	front_more(control, &req);
	ck_assert_int_eq(front_answer(control, VENDOR_LISTEN, &res), 0);
	UNTIL(host_count(CONN_JOIN, port) == CONFIG_POOL_LOW);
	before = worker_fds();
	for (int i = 0; i < 6; i++) {
		clients[i] = local_client("127.0.0.1", port);
		ck_assert_int_ge(clients[i], 0);
	}
	for (int i = 0; i < 30; i++)
		host_turn(1);
	/* Three are in the control, one waits in the vendor. */
	ck_assert_int_le(worker_fds(), before + 1);
	for (int i = 0; i < 6; i++) {
		int conn = front_accept(control, &res);

		expect_talk(clients[i], conn);
		closefd(&conn);
		closefd(&clients[i]);
	}
	closefd(&control);
}
END_TEST

/* Both listeners of `listen 80; listen [::]:80'. */
START_TEST(test_both_families)
{
	struct vendor_result res;
	uint16_t port = free_port();
	int v4, v6, client, conn;

	worker_start();
	v4 = front_serve("0.0.0.0", port, 0);
	v6 = front_serve("::", port, VENDOR_V6ONLY);
	client = local_client("::1", port);
	conn = front_accept(v6, &res);
	closefd(&client);
	closefd(&conn);
	client = local_client("127.0.0.1", port);
	conn = front_accept(v4, &res);
	closefd(&client);
	closefd(&conn);
	closefd(&v4);
	closefd(&v6);
}
END_TEST

/* Restarted while connections of before are still there. */
START_TEST(test_restart)
{
	struct vendor_result res;
	uint16_t port = free_port();
	int control, client, conn;

	worker_start();
	for (int i = 0; i < 5; i++) {
		control = front_serve("0.0.0.0", port, 0);
		client = local_client("127.0.0.1", port);
		conn = front_accept(control, &res);
		expect_talk(client, conn);
		closefd(&conn); /* it is the server that waits then */
		closefd(&control);
		closefd(&client);
	}
}
END_TEST

/* Local clients are served while the host proxy is away. */
START_TEST(test_host_away)
{
	struct vendor_result res;
	uint16_t port = free_port();
	int control, client, conn;

	worker_start();
	control = front_serve("0.0.0.0", port, 0);
	host_stop();
	client = local_client("127.0.0.1", port);
	conn = front_accept(control, &res);
	expect_talk(client, conn);
	closefd(&conn);
	closefd(&control);
	closefd(&client);
}
END_TEST

/* A worker's successor has the mirror too. */
START_TEST(test_rejoin)
{
	struct vendor_result bound, res;
	uint16_t port = free_port();
	int control, client, conn;

	worker_start();
	control = front_bind("0.0.0.0", port, 0, &bound);
	front_listen(control, 5);
	worker_kill();
	closefd(&control);
	ck_assert_int_eq(local_client("127.0.0.1", port), -1);
	worker_start();
	control = front_rejoin(&bound, 0);
	UNTIL(host.holds == 2);
	client = local_client("127.0.0.1", port);
	ck_assert_int_ge(client, 0);
	conn = front_accept(control, &res);
	expect_talk(client, conn);
	closefd(&conn);
	closefd(&control);
	closefd(&client);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vendor_mirror");
	TCase *tc = tcase_create("worker");

	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, inbound_teardown);
	tcase_add_loop_test(tc, test_local_client, 0,
		sizeof(addresses) / sizeof(addresses[0]));
	tcase_add_test(tc, test_refused);
	tcase_add_loop_test(tc, test_no_mirror, 0, 2);
	tcase_add_test(tc, test_not_loopback);
	tcase_add_test(tc, test_taken);
	tcase_add_test(tc, test_chosen_is_taken);
	tcase_add_test(tc, test_privileged);
	tcase_add_test(tc, test_local_clients_wait);
	tcase_add_test(tc, test_both_families);
	tcase_add_test(tc, test_restart);
	tcase_add_test(tc, test_host_away);
	tcase_add_test(tc, test_rejoin);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
