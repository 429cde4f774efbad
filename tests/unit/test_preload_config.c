/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "preload_stage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * The environment is read before main(), so each case of it is a program of its
 * own. What follows from the settings is tried here.
 */

/* ---- the environment ---- */

/* In the program: compare the settings with argv, and try to connect. */
START_TEST(play)
{
	const struct config *c = stage_config();
	const char *bad = stage_argv[0];
	int fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);

	ck_assert_str_eq(c->bad ? c->bad : "-", bad);
	if (strcmp(bad, "-") != 0) {
		/* and it is said once, not each time */
		expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINVAL);
		expect_errno(tcp_connect(fd, FAR4, FAR_PORT), EINVAL);
		expect_errno(tcp_bind(fd, "0.0.0.0", 81), EINVAL);
	} else {
		ck_assert_int_eq(c->loopback_is_host, stage_int(1));
		ck_assert_uint_eq(c->nr_bypass, (unsigned int)stage_int(2));
		ck_assert_int_eq(c->wait_ms, stage_int(3));
	}
	closefd(&fd);
}
END_TEST

/* Run it with one more variable. Return: what it wrote to stderr. */
static char *run_with(const char *name, const char *value, const char *log,
	const char *const expected[4])
{
	static char said[512];
	int pipefd[2], status;
	ssize_t n, len = 0;
	pid_t pid;

	expect_ok(pipe(pipefd));
	pid = fork();
	if (pid == 0) {
		setenv(name, value, 1);
		if (log)
			setenv("PROXY_LOG", log, 1);
		dup2(pipefd[1], STDERR_FILENO);
		close(pipefd[0]);
		close(pipefd[1]);
		execl(stage_program(), "play", "--play", expected[0],
			expected[1], expected[2], expected[3], (char *)NULL);
		_exit(127);
	}
	ck_assert_int_ne(pid, -1);
	closefd(&pipefd[1]);
	while ((n = read(pipefd[0], said + len,
			sizeof(said) - 1 - (size_t)len)) > 0)
		len += n;
	said[len] = '\0';
	closefd(&pipefd[0]);
	status = stage_wait_exit(pid);
	ck_assert_msg(status == 0, "%s=%s: status %d", name, value, status);
	return said;
}

START_TEST(test_environment)
{
	static const struct {
		const char *name, *value, *expected[4];
	} cases[] = {
		{"PROXY_LOOPBACK", "local", {"-", "0", "0", "0"}},
		{"PROXY_LOOPBACK", "host", {"-", "1", "0", "0"}},
		{"PROXY_LOOPBACK", "", {"PROXY_LOOPBACK"}},
		{"PROXY_LOOPBACK", "Host", {"PROXY_LOOPBACK"}},
		{"PROXY_BYPASS", "", {"-", "0", "0", "0"}},
		{"PROXY_BYPASS", "10.0.0.0/8", {"-", "0", "1", "0"}},
		{"PROXY_BYPASS", "10.0.0.0/8,fd00::/8,192.0.2.1",
			{"-", "0", "3", "0"}},
		{"PROXY_BYPASS", "10.0.0.0/33", {"PROXY_BYPASS"}},
		{"PROXY_BYPASS", "10.0.0.0/8,,fd00::/8", {"PROXY_BYPASS"}},
		{"PROXY_BYPASS", "example.org", {"PROXY_BYPASS"}},
		{"PROXY_BYPASS", " 10.0.0.0/8", {"PROXY_BYPASS"}},
		{"PROXY_WAIT", "5", {"-", "0", "0", "5000"}},
		{"PROXY_WAIT", "86400", {"-", "0", "0", "86400000"}},
		{"PROXY_WAIT", "86401", {"PROXY_WAIT"}},
		{"PROXY_WAIT", "-1", {"PROXY_WAIT"}},
		{"PROXY_WAIT", "5s", {"PROXY_WAIT"}},
		{"PROXY_STUB", "127.0.0.1,::1", {"-", "0", "0", "0"}},
		{"PROXY_STUB", "127.0.0.1:53", {"PROXY_STUB"}},
		{"PROXY_ENDPOINT", "vsock:3:8888", {"-", "0", "0", "0"}},
		{"PROXY_ENDPOINT", "vsock:3", {"PROXY_ENDPOINT"}},
		{"SOCKET_VENDOR_PATH", "relative", {"SOCKET_VENDOR_PATH"}},
	};
	int nr = (int)(sizeof(cases) / sizeof(*cases));

	for (int i = 0; i < nr; i++)
		ck_assert_str_eq(run_with(cases[i].name, cases[i].value, NULL,
					 cases[i].expected),
			"");
}
END_TEST

/* One line, when it is asked for: the variable, its value, what it should be.
 */
START_TEST(test_complaint)
{
	static const char *const expected[4] = {"PROXY_WAIT"};
	static const char line[] =
		"proxify: PROXY_WAIT='x': expected seconds, a number up to "
		"86400\n";

	ck_assert_str_eq(run_with("PROXY_WAIT", "x", "warn", expected), line);
	ck_assert_str_eq(run_with("PROXY_WAIT", "x", "debug", expected), line);
	ck_assert_str_eq(run_with("PROXY_WAIT", "x", "error", expected), "");
}
END_TEST

START_TEST(test_complaints)
{
	static const struct {
		const char *name, *value, *line;
	} cases[] = {
		{"PROXY_LOOPBACK", "",
			"proxify: PROXY_LOOPBACK='': expected local or host\n"},
		{"PROXY_BYPASS", "10.0.0.0/33",
			"proxify: PROXY_BYPASS='10.0.0.0/33': expected "
			"addresses or blocks such as 10.0.0.0/8,fd00::/8\n"},
		{"PROXY_ENDPOINT", "foo",
			"proxify: PROXY_ENDPOINT='foo': expected "
			"vsock:CID:PORT, unix:/path, tcp:HOST:PORT or "
			"vsock-mux:/path:PORT\n"},
		{"SOCKET_VENDOR_PATH", "relative",
			"proxify: SOCKET_VENDOR_PATH='relative': expected an "
			"absolute path\n"},
	};
	char value[400], line[512];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *const expected[4] = {cases[i].name};

		ck_assert_str_eq(run_with(cases[i].name, cases[i].value, "warn",
					 expected),
			cases[i].line);
	}
	/* A long one is cut. */
	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	snprintf(line, sizeof(line), "proxify: %s='%.127s': %s\n",
		"PROXY_LOOPBACK", value, "expected local or host");
	ck_assert_str_eq(run_with("PROXY_LOOPBACK", value, "warn",
				 (const char *const[4]){"PROXY_LOOPBACK"}),
		line);
}
END_TEST

START_TEST(test_many_blocks)
{
	static const char *const good[4] = {"-", "0", "64", "0"};
	static const char *const bad[4] = {"PROXY_BYPASS"};
	char text[65 * 16] = "";

	for (int i = 0; i < 64; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			"%s10.%d.0.0/16", i ? "," : "", i);
	run_with("PROXY_BYPASS", text, NULL, good);
	snprintf(text + strlen(text), sizeof(text) - strlen(text),
		",10.64.0.0/16");
	run_with("PROXY_BYPASS", text, NULL, bad);
}
END_TEST

/* ---- what follows ---- */

static struct ip_port parse(const char *ip)
{
	struct ip_port out;

	ck_assert_int_eq(
		ip_port_from_sockaddr(&out, addr_of(ip, 80), ADDR_LEN(ip)), 0);
	return out;
}

static void bypass(const char *text)
{
	struct config *c = stage_config();

	ck_assert_int_eq(
		ip_prefix_parse(&c->bypass[c->nr_bypass++], text, strlen(text)),
		0);
}

START_TEST(test_addresses)
{
	/* [0]: with loopback local, [1]: with the host's */
	static const struct {
		const char *ip;
		bool keeps[2], exports[2];
	} cases[] = {
		{"127.0.0.1", {1, 0}, {0, 1}},
		{"127.255.255.255", {1, 0}, {0, 1}},
		{"::1", {1, 0}, {0, 1}},
		{"::ffff:127.0.0.1", {1, 0}, {0, 1}},
		{"0.0.0.0", {1, 0}, {1, 1}},
		{"::", {1, 0}, {1, 1}},
		{"::ffff:0.0.0.0", {1, 0}, {1, 1}},
		{"128.0.0.1", {0, 0}, {1, 1}},
		{"::2", {0, 0}, {1, 1}},
		{FAR4, {0, 0}, {1, 1}},
		{FAR4_MAPPED, {0, 0}, {1, 1}},
		{FAR6, {0, 0}, {1, 1}},
		{"224.0.0.1", {1, 1}, {0, 0}},
		{"239.255.255.255", {1, 1}, {0, 0}},
		{"240.0.0.1", {0, 0}, {1, 1}},
		{"255.255.255.255", {1, 1}, {0, 0}},
		{"ff02::1", {1, 1}, {0, 0}},
		{"fe80::1", {1, 1}, {0, 0}},
		{"febf::1", {1, 1}, {0, 0}},
		{"fec0::1", {0, 0}, {1, 1}},
		{"169.254.169.254", {0, 0}, {1, 1}},
		{"10.1.2.3", {1, 1}, {0, 0}},
		{"::ffff:10.1.2.3", {1, 1}, {0, 0}},
		{"11.1.2.3", {0, 0}, {1, 1}},
		{"fd12::1", {1, 1}, {0, 0}},
	};

	bypass("10.0.0.0/8");
	bypass("fd00::/8");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		for (int host = 0; host < 2; host++) {
			struct ip_port at = parse(cases[i].ip);

			stage_config()->loopback_is_host = host;
			ck_assert_msg(
				config_keeps_local(&at) == cases[i].keeps[host],
				"connect to %s, host %d", cases[i].ip, host);
			ck_assert_msg(
				config_exports(&at) == cases[i].exports[host],
				"bind to %s, host %d", cases[i].ip, host);
		}
	}
}
END_TEST

/* Port 53 where the DNS stub is belongs to the enclave, whatever loopback
 * means, and no other port does. */
START_TEST(test_stub)
{
	static const struct {
		const char *ip;
		uint16_t port;
		bool keeps;
	} cases[] = {
		{"10.0.0.2", 53, true},
		{"::ffff:10.0.0.2", 53, true},
		{"10.0.0.2", 80, false},
		{"10.0.0.3", 53, false},
		{"127.0.0.1", 53, true},
		{"127.0.0.2", 53, false},
		{"fd00::53", 53, true},
		{"fd00::54", 53, false},
	};
	static const char *const stubs[] = {
		"127.0.0.1", "10.0.0.2", "fd00::53"};
	struct config *c = stage_config();

	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(ip_prefix_parse(&c->stub[c->nr_stub++],
					 stubs[i], strlen(stubs[i])),
			0);
	c->loopback_is_host = true;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct ip_port at = parse(cases[i].ip);

		at.port = cases[i].port;
		ck_assert_msg(config_keeps_local(&at) == cases[i].keeps,
			"connect to %s, port %d", cases[i].ip, at.port);
	}
}
END_TEST

/* Bypassed, it is the kernel's: there is no route here. */
START_TEST(test_bypass)
{
	int peer, fd = tcp(AF_INET, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct vendor_request req;

	bypass("192.0.2.0/24");
	expect_errno(tcp_connect(fd, FAR4, FAR_PORT), ENETUNREACH);
	ck_assert(vendor_nobody());
	expect_errno(tcp_connect(fd, FAR4_OTHER, FAR_PORT), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	closefd(&fd);
	vendor_gone(&peer);
}
END_TEST

/* With the host's loopback nothing is the enclave's own. */
START_TEST(test_loopback_is_host)
{
	static const struct {
		const char *ip, *peer, *asked;
	} cases[] = {
		{"127.0.0.1", "127.0.0.1", "127.0.0.1"},
		{"0.0.0.0", "127.0.0.1", "127.0.0.1"},
		{"::1", "::1", "::1"},
		{"::", "::1", "::1"},
		{"::ffff:127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1"},
		{"::ffff:0.0.0.0", "::ffff:127.0.0.1", "127.0.0.1"},
	};
	const char *ip = cases[_i].ip;
	int peer, remote,
		fd = tcp(strchr(ip, ':') ? AF_INET6 : AF_INET,
			SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct ip_port asked = parse(cases[_i].asked);
	struct vendor_request req;

	stage_config()->loopback_is_host = true;
	expect_errno(tcp_connect(fd, ip, 80), EINPROGRESS);
	peer = vendor_next(&req, VENDOR_CONNECT);
	ck_assert(ip_port_equal(&req.dst, &asked));
	remote = vendor_connects(peer);
	expect_name(getpeername, fd, cases[_i].peer, 80);
	vendor_gone(&peer);
	closefd(&fd);
	closefd(&remote);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("preload_config");
	TCase *tc = stage_case(s, "environment");

	tcase_add_test(tc, test_environment);
	tcase_add_test(tc, test_complaint);
	tcase_add_test(tc, test_complaints);
	tcase_add_test(tc, test_many_blocks);
	tc = stage_case(s, "addresses");
	tcase_add_test(tc, test_addresses);
	tcase_add_test(tc, test_stub);
	tcase_add_test(tc, test_bypass);
	tcase_add_loop_test(tc, test_loopback_is_host, 0, 6);
	return s;
}

int main(int argc, char **argv)
{
	return stage_main(argc, argv, suite, play);
}
