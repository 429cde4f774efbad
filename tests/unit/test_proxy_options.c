/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/options.h"
#include "proxy/optparse.h"
#include "proxy/relay.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 12

static struct options options;
static char error[OPTPARSE_ERROR_MAX];

/* Parse "proxy ARGS", split at spaces. */
static int parse(const char *args)
{
	static char copy[1024];
	static char name[] = "proxy";
	static char *argv[ARGS_MAX + 1];
	int argc = 0;
	char *save, *word;

	argv[argc++] = name;
	snprintf(copy, sizeof(copy), "%s", args);
	for (word = strtok_r(copy, " ", &save); word;
		word = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, ARGS_MAX);
		argv[argc++] = word;
	}
	argv[argc] = NULL;
	error[0] = '\0';
	return options_parse(&options, argc, argv, error);
}

static void teardown(void)
{
	options_free(&options);
}

START_TEST(defaults)
{
	char text[ENDPOINT_STRLEN];

	ck_assert_int_eq(parse(""), 0);
	ck_assert_uint_eq(options.nr_listen, 1);
	ck_assert_str_eq(
		endpoint_format(&options.listen[0], text, sizeof(text)),
		"vsock:any:8888");
	ck_assert_uint_eq(options.buffer_size, RELAY_BUFFER_DEFAULT);
	ck_assert_uint_ge(options.workers, 1);
	ck_assert_double_eq(options.drain, 10);
	ck_assert_double_eq(options.handshake_timeout, 10);
	ck_assert_double_eq(options.connect_timeout, 60);
	ck_assert_int_eq(options.log_level, LOG_INFO);
	ck_assert_str_eq(options.resolv_conf, "/etc/resolv.conf");
	ck_assert_uint_eq(options.rules.nr, 0);
	ck_assert_uint_eq(options.bind.nr_addresses, 0);
	ck_assert_uint_eq(options.bind.nr_publish, 0);
	ck_assert(!options.bind.limited);
	ck_assert_uint_eq(options.bind.queue, BIND_QUEUE_DEFAULT);
}
END_TEST

/* What is listened on. */
static const struct {
	const char *args;
	const char *listen[3];
} listens[] = {
	{"-t", {"tcp:0.0.0.0:8888"}},
	{"--tcp -p 99", {"tcp:0.0.0.0:99"}},
	{"-tp99", {"tcp:0.0.0.0:99"}},
	{"-p 70000", {"vsock:any:70000"}},
	{"--port=5", {"vsock:any:5"}},
	{"--listen unix:/a", {"unix:/a"}},
	{"-l unix:/a --listen=tcp:[::1]:0", {"unix:/a", "tcp:[::1]:0"}},
	{"-l vsock:any:5-6 -l unix:/a",
		{"vsock:any:5", "vsock:any:6", "unix:/a"}},
	{"-lunix:/a -t", {"unix:/a", "tcp:0.0.0.0:8888"}},
	{"-l unix:/a -p 1", {"unix:/a", "vsock:any:1"}},
};

START_TEST(what_to_listen_on)
{
	char text[ENDPOINT_STRLEN];
	size_t nr = 0;

	ck_assert_msg(parse(listens[_i].args) == 0, "%s", error);
	while (nr < 3 && listens[_i].listen[nr]) {
		ck_assert_str_eq(endpoint_format(&options.listen[nr], text,
					 sizeof(text)),
			listens[_i].listen[nr]);
		nr++;
	}
	ck_assert_uint_eq(options.nr_listen, nr);
}
END_TEST

START_TEST(values)
{
	ck_assert_int_eq(parse("-b 4096 --workers 3 --drain 0 "
			       "--handshake-timeout=0.25 --connect-timeout 7 "
			       "--log debug"),
		0);
	ck_assert_uint_eq(options.buffer_size, 4096);
	ck_assert_uint_eq(options.workers, 3);
	ck_assert_double_eq(options.drain, 0);
	ck_assert_double_eq(options.handshake_timeout, 0.25);
	ck_assert_double_eq(options.connect_timeout, 7);
	ck_assert_int_eq(options.log_level, LOG_DEBUG);
	options_free(&options);
	ck_assert_int_eq(parse("--buffer_size 1024 -w1 --resolv-conf /x"), 0);
	ck_assert_uint_eq(options.buffer_size, 1024);
	ck_assert_str_eq(options.resolv_conf, "/x");
	options_free(&options);
	ck_assert_int_eq(
		parse("--deny 10.0.0.1 --allow 10.0.0.0/8:80 --deny ::/0"), 0);
	ck_assert_uint_eq(options.rules.nr, 3);
	ck_assert_int_eq(options.rules.rule[0].verdict, RULES_DENY);
	ck_assert_int_eq(options.rules.rule[1].verdict, RULES_ALLOW);
	options_free(&options);
	ck_assert_int_eq(parse("--bind-address 192.0.2.1 --bind-address :: "
			       "--publish 8080:80 --publish 8443:443 "
			       "--accept-queue 5"),
		0);
	ck_assert_uint_eq(options.bind.nr_addresses, 2);
	ck_assert_uint_eq(bind_policy_host_port(&options.bind, 8443), 443);
	ck_assert_uint_eq(options.bind.queue, 5);
	options_free(&options);
	ck_assert_int_eq(
		parse("--allow-bind 80,443 --allow-bind=8000-8001"), 0);
	ck_assert(bind_policy_allows(&options.bind, 80));
	ck_assert(bind_policy_allows(&options.bind, 8001));
	ck_assert(!bind_policy_allows(&options.bind, 8002));
	options_free(&options);
	ck_assert_int_eq(parse("-h"), 0);
	ck_assert(options.help);
	options_free(&options);
	ck_assert_int_eq(parse("--version --"), 0);
	ck_assert(options.version);
}
END_TEST

/* What is wrong, and that the line says so. */
static const struct {
	const char *args;
	const char *says;
} bad[] = {
	{"--frobnicate", "unknown option '--frobnicate'"},
	{"--frob=1", "unknown option '--frob'"},
	{"--list unix:/a", "unknown option '--list'"},
	{"-x", "unknown option '-x'"},
	{"-tx", "unknown option '-x'"},
	{"--", NULL},
	{"stray", "unexpected argument 'stray'"},
	{"-- --tcp", "unexpected argument '--tcp'"},
	{"-", "unexpected argument '-'"},
	{"--tcp=1", "option --tcp takes no value, got '1'"},
	{"-p", "option -p needs a value: PORT"},
	{"--listen", "option --listen needs a value: ENDPOINT"},
	{"--listen=", "bad value '' for --listen: expected vsock:CID:PORT"},
	{"--listen foo:1", "bad value 'foo:1' for --listen: expected vsock"},
	{"--listen vsock-mux:/a:1",
		"bad value 'vsock-mux:/a:1' for --listen: expected vsock, unix "
		"or tcp"},
	{"-p x", "bad value 'x' for -p: expected a port number"},
	{"-p 4294967296", "bad value '4294967296' for -p"},
	{"-t -p 65536", "bad value '65536' for --port: expected a TCP port"},
	{"-b 1023", "bad value '1023' for -b: expected bytes, 1024 to"},
	{"-b 16777217", "bad value '16777217' for -b"},
	{"-b 1k", "bad value '1k' for -b"},
	{"--workers 0", "bad value '0' for --workers: expected a number from"},
	{"--workers 257", "bad value '257' for --workers"},
	{"--workers -1", "bad value '-1' for --workers"},
	{"--drain -1", "bad value '-1' for --drain: expected seconds"},
	{"--drain 1e3", "bad value '1e3' for --drain"},
	{"--drain inf", "bad value 'inf' for --drain"},
	{"--drain 1.2.3", "bad value '1.2.3' for --drain"},
	{"--drain .", "bad value '.' for --drain"},
	{"--drain 86401", "bad value '86401' for --drain"},
	{"--handshake-timeout 0", "bad value '0' for --handshake-timeout"},
	{"--connect-timeout x", "bad value 'x' for --connect-timeout"},
	{"--allow 10.0.0.0/33", "bad value '10.0.0.0/33' for --allow: expected "
				"CIDR"},
	{"--deny host", "bad value 'host' for --deny: expected CIDR"},
	{"--bind-address host", "bad value 'host' for --bind-address: expected "
				"an IPv4 or IPv6 address"},
	{"--allow-bind 80-", "bad value '80-' for --allow-bind: expected all"},
	{"--publish 80", "bad value '80' for --publish: expected "
			 "ENCLAVE:HOST"},
	{"--publish 1:2 --publish 1:3",
		"bad value '1:3' for --publish: one of the ports was "
		"published"},
	{"--accept-queue 0", "bad value '0' for --accept-queue: expected a"},
	{"--accept-queue 65536", "bad value '65536' for --accept-queue"},
	{"--resolv-conf x", "bad value 'x' for --resolv-conf: expected an "
			    "absolute path"},
	{"--log loud", "bad value 'loud' for --log: expected error, warn"},
};

START_TEST(bad_command_lines)
{
	int rc = parse(bad[_i].args);

	if (!bad[_i].says) {
		ck_assert_int_eq(rc, 0);
		return;
	}
	ck_assert_int_eq(rc, -1);
	ck_assert_msg(strstr(error, bad[_i].says) == error, "'%s' gives '%s'",
		bad[_i].args, error);
}
END_TEST

START_TEST(too_many_listeners)
{
	static char name[] = "proxy", arg[] = "--listen=unix:/a";
	char *argv[OPTIONS_LISTEN_MAX + 3];
	int argc = 0;

	argv[argc++] = name;
	while (argc <= OPTIONS_LISTEN_MAX)
		argv[argc++] = arg;
	argv[argc] = NULL;
	ck_assert_int_eq(options_parse(&options, argc, argv, error), 0);
	ck_assert_uint_eq(options.nr_listen, OPTIONS_LISTEN_MAX);
	options_free(&options);
	argv[argc++] = arg;
	argv[argc] = NULL;
	ck_assert_int_eq(options_parse(&options, argc, argv, error), -1);
	ck_assert_str_eq(error, "bad value 'unix:/a' for --listen: expected at "
				"most 64 endpoints");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proxy options");
	TCase *tc = tcase_create("options");

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, defaults);
	tcase_add_loop_test(tc, what_to_listen_on, 0,
		(int)(sizeof(listens) / sizeof(listens[0])));
	tcase_add_test(tc, values);
	tcase_add_loop_test(
		tc, bad_command_lines, 0, (int)(sizeof(bad) / sizeof(bad[0])));
	tcase_add_test(tc, too_many_listeners);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
