/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/options.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 16

static struct options options;
static char error[OPTPARSE_ERROR_MAX];

/* Parse @args, split at spaces; the first word is argv[0]. */
static int parse(const char *args)
{
	static char copy[1024];
	static char *argv[ARGS_MAX + 1];
	char *save, *word;
	int argc = 0;

	options_free(&options);
	ck_assert_int_lt(
		snprintf(copy, sizeof(copy), "%s", args), (int)sizeof(copy));
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

static void expect_endpoint(const struct endpoint *ep, const char *want)
{
	char text[ENDPOINT_STRLEN];

	ck_assert_str_eq(endpoint_format(ep, text, sizeof(text)), want);
}

/* ---- what is served ---- */

static const struct {
	const char *args;
	enum mode_id mode;
	const char *listen, *target; /* NULL: none */
} good[] = {
	{"vsock-to-ip -v 88:4000 -i 127.0.0.1:80", MODE_VSOCK_TO_IP,
		"vsock:88:4000", "tcp:127.0.0.1:80"},
	{"/usr/bin/vsock-to-ip -v 88:4000 -i 127.0.0.1:80", MODE_VSOCK_TO_IP,
		"vsock:88:4000", "tcp:127.0.0.1:80"},
	{"proxy vsock-to-ip -v any:1 -i db.example:5432", MODE_VSOCK_TO_IP,
		"vsock:any:1", "tcp:db.example:5432"},
	{"proxy vsock-to-ip --vsock-addr=unix:/a --ip-addr=[::1]:8080",
		MODE_VSOCK_TO_IP, "unix:/a", "tcp:[::1]:8080"},
	{"vsock-to-ip -v tcp:[::1]:1 -i unix:/b", MODE_VSOCK_TO_IP,
		"tcp:[::1]:1", "unix:/b"},
	{"ip-to-vsock -i 0.0.0.0:3000 -v 88:5000", MODE_IP_TO_VSOCK,
		"tcp:0.0.0.0:3000", "vsock:88:5000"},
	{"ip-to-vsock -i [::]:0 -v vsock-mux:/run/v.sock:52", MODE_IP_TO_VSOCK,
		"tcp:[::]:0", "vsock-mux:/run/v.sock:52"},
	{"proxy ip-to-vsock -i unix:/a -v unix:/b", MODE_IP_TO_VSOCK, "unix:/a",
		"unix:/b"},
	{"vsock-to-ip-transparent -v 3:1200", MODE_VSOCK_TO_IP_TRANSPARENT,
		"vsock:3:1200", NULL},
	{"ip-to-vsock-transparent -i 127.0.0.1:1200 -v 3:1200",
		MODE_IP_TO_VSOCK_TRANSPARENT, "tcp:127.0.0.1:1200",
		"vsock:3:1200"},
	{"transparent-port-to-vsock -i [::1]:1200 -v 88",
		MODE_TRANSPARENT_PORT_TO_VSOCK, "tcp:[::1]:1200", "vsock:88:0"},
	{"proxy transparent-port-to-vsock --ip-addr 1.2.3.4:1 --vsock 88",
		MODE_TRANSPARENT_PORT_TO_VSOCK, "tcp:1.2.3.4:1", "vsock:88:0"},
	{"transparent-port-to-vsock -i 1.2.3.4:1 -v vsock-mux:/v.sock",
		MODE_TRANSPARENT_PORT_TO_VSOCK, "tcp:1.2.3.4:1",
		"vsock-mux:/v.sock:0"},
	{"transparent-port-to-vsock -i 1.2.3.4:1 -v unix:/v.sock",
		MODE_TRANSPARENT_PORT_TO_VSOCK, "tcp:1.2.3.4:1",
		"unix:/v.sock"},
	{"transparent-port-to-vsock -i 1.2.3.4:1 -v tcp:[::1]",
		MODE_TRANSPARENT_PORT_TO_VSOCK, "tcp:1.2.3.4:1", "tcp:[::1]:0"},
	{"proxy", MODE_SOCKS5, "vsock:any:8888", NULL},
	{"proxy socks5 -l unix:/a", MODE_SOCKS5, "unix:/a", NULL},
};

START_TEST(taken)
{
	static struct service_config services[OPTIONS_LISTEN_MAX];

	ck_assert_msg(parse(good[_i].args) == 0, "%s", error);
	ck_assert_ptr_eq(options.mode, &mode_table[good[_i].mode]);
	ck_assert_int_eq(options_services(&options, services), 1);
	expect_endpoint(&services[0].listen, good[_i].listen);
	if (good[_i].target)
		expect_endpoint(&services[0].target, good[_i].target);
	else
		ck_assert_int_eq(services[0].target.kind, ENDPOINT_NONE);
	ck_assert_int_eq(services[0].max_connections, 0);
	ck_assert_double_eq(services[0].handshake_timeout, 10);
	ck_assert_double_eq(services[0].connect_timeout, 60);
	ck_assert_double_eq(services[0].idle_timeout, 0);
	ck_assert_int_eq(services[0].send_proxyproto, PROXYPROTO_NONE);
	ck_assert(!services[0].accept_proxyproto);
	ck_assert(!services[0].tproxy);
	rules_free(&services[0].rules);
}
END_TEST

START_TEST(values)
{
	ck_assert_msg(parse("ip-to-vsock-transparent -i 1.2.3.4:1 -v 3:1 "
			    "--max-connections 9 --connect-timeout 0.5 "
			    "--idle-timeout 7 --handshake-timeout 8 "
			    "--proxy-protocol v1") == 0,
		"%s", error);
	ck_assert_int_eq(options.max_connections, 9);
	ck_assert_double_eq(options.connect_timeout, 0.5);
	ck_assert_double_eq(options.idle_timeout, 7);
	ck_assert_double_eq(options.handshake_timeout, 8);
	ck_assert_int_eq(options.send_proxyproto, PROXYPROTO_V1);
	ck_assert_int_eq(parse("ip-to-vsock-transparent -i 1.2.3.4:1 -v 3:1 "
			       "--tproxy --accept-proxy-protocol "
			       "--proxy-protocol=v2"),
		0);
	ck_assert(options.tproxy && options.accept_proxyproto);
	ck_assert_int_eq(options.send_proxyproto, PROXYPROTO_V2);
	ck_assert_int_eq(parse("proxy run -c /x"), 0);
	ck_assert_ptr_null(options.mode);
	ck_assert_str_eq(options.config_file, "/x");
	ck_assert_int_eq(parse("ip-to-vsock -h"), 0);
	ck_assert(options.help);
	/* whatever else is wrong */
	ck_assert_int_eq(parse("ip-to-vsock -h -i x --frob"), 0);
	ck_assert(options.help);
	ck_assert_int_eq(parse("proxy ip-to-vsock --version"), 0);
	ck_assert(options.version);
	ck_assert_str_eq(options.program, "proxy ip-to-vsock");
}
END_TEST

/* ---- what is wrong, named ---- */

static const struct {
	const char *args;
	const char *says;
} bad[] = {
	{"vsock-to-ip", "option -v, --vsock-addr is required"},
	{"vsock-to-ip -v 1:2", "option -i, --ip-addr is required"},
	{"proxy ip-to-vsock -i 1.2.3.4:5",
		"option -v, --vsock-addr is required"},
	{"ip-to-vsock -v 1:2", "option -i, --ip-addr is required"},
	{"vsock-to-ip-transparent", "option -v, --vsock-addr is required"},
	{"ip-to-vsock-transparent -v 1:2", "option -i, --ip-addr is required"},
	{"transparent-port-to-vsock -i 1.2.3.4:5",
		"option -v, --vsock is required"},
	{"proxy run", "option -c, --config is required"},
	{"vsock-to-ip -v 1 -i 1.2.3.4:5", "bad value '1' for -v: expected"},
	{"vsock-to-ip -v x:1 -i 1.2.3.4:5", "bad value 'x:1' for -v: expected"},
	{"vsock-to-ip --vsock-addr 1:x -i 1.2.3.4:5",
		"bad value '1:x' for --vsock-addr: expected a vsock port"},
	{"vsock-to-ip -v 4294967296:1 -i 1.2.3.4:5",
		"bad value '4294967296:1' for -v"},
	{"vsock-to-ip -v 1:2 -i 1.2.3.4", "bad value '1.2.3.4' for -i"},
	{"vsock-to-ip -v 1:2 -i 1.2.3.4:65536",
		"bad value '1.2.3.4:65536' for -i: expected a TCP port"},
	{"vsock-to-ip -v 1:2 -i ::1:80",
		"bad value '::1:80' for -i: expected an IPv4"},
	{"vsock-to-ip -v 1:2 -i 1.2.3:80", "bad value '1.2.3:80' for -i"},
	{"vsock-to-ip -v vsock-mux:/a:1 -i 1.2.3.4:5",
		"bad value 'vsock-mux:/a:1' for -v: expected vsock, unix or"},
	{"ip-to-vsock -v any:1 -i 1.2.3.4:5",
		"bad value 'any:1' for -v: expected the CID of one machine"},
	{"ip-to-vsock -v 1:2 -i vsock-mux:/a:1",
		"bad value 'vsock-mux:/a:1' for -i: expected vsock, unix or"},
	{"ip-to-vsock-transparent -v 1:2 -i unix:/a",
		"bad value 'unix:/a' for -i: expected a TCP address"},
	{"transparent-port-to-vsock -i 1.2.3.4:5 -v 3:80",
		"bad value '3:80' for -v: expected no port"},
	{"transparent-port-to-vsock -i 1.2.3.4:5 -v tcp:[::1]:80",
		"bad value 'tcp:[::1]:80' for -v: expected no port"},
	{"vsock-to-ip -v 1:2 -i 1.2.3.4:0",
		"bad value '1.2.3.4:0' for -i: expected a port to connect to"},
	{"ip-to-vsock -i 1.2.3.4:5 -v 3:4294967295",
		"bad value '3:4294967295' for -v: expected a port to"},
	{"ip-to-vsock -i 1.2.3.4:5 -v tcp:h:0",
		"bad value 'tcp:h:0' for -v: expected a port to connect to"},
	{"vsock-to-ip -v 1:2 -v 1:3 -i 1.2.3.4:5",
		"bad value '1:3' for -v: expected it once"},
	{"ip-to-vsock -i 1.2.3.4:5 -v 3:4 --ip-addr=1.2.3.4:6",
		"bad value '1.2.3.4:6' for --ip-addr: expected it once"},
	{"transparent-port-to-vsock -i 1.2.3.4:5 -v "
	 "unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
	 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		"bad value "
		"'unix:/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
	{"vsock-to-ip --frob", "unknown option '--frob'"},
	{"vsock-to-ip -x", "unknown option '-x'"},
	{"vsock-to-ip stray", "unexpected argument 'stray'"},
	{"vsock-to-ip --allow 10.0.0.0/8", "unknown option '--allow'"},
	{"vsock-to-ip --tproxy", "unknown option '--tproxy'"},
	{"vsock-to-ip --config /x", "unknown option '--config'"},
	{"vsock-to-ip --vsock 3", "unknown option '--vsock'"},
	{"transparent-port-to-vsock --vsock-addr 3:1",
		"unknown option '--vsock-addr'"},
	{"proxy run --workers 1", "unknown option '--workers'"},
	{"proxy frob", "unexpected argument 'frob'"},
	{"ip-to-vsock --max-connections -1", "bad value '-1' for"},
	{"ip-to-vsock --max-connections x",
		"bad value 'x' for --max-connections: expected a number"},
	{"ip-to-vsock --idle-timeout x",
		"bad value 'x' for --idle-timeout: expected seconds"},
	{"ip-to-vsock --connect-timeout 0",
		"bad value '0' for --connect-timeout: expected seconds, more"},
	{"ip-to-vsock --proxy-protocol v3",
		"bad value 'v3' for --proxy-protocol: expected v1 or v2"},
	{"ip-to-vsock --proxy-protocol", "option --proxy-protocol needs a"},
	{"ip-to-vsock --accept-proxy-protocol=1",
		"option --accept-proxy-protocol takes no value, got '1'"},
};

START_TEST(refused)
{
	ck_assert_msg(parse(bad[_i].args) == -1, "%s", bad[_i].args);
	ck_assert_msg(strncmp(error, bad[_i].says, strlen(bad[_i].says)) == 0,
		"'%s' is not '%s'", error, bad[_i].says);
}
END_TEST

/* ---- endpoints without a port ---- */

START_TEST(ports)
{
	static const struct {
		const char *args;
		const char *want;
	} cases[] = {
		{"88", "vsock:88:443"},
		{"vsock-mux:/v.sock", "vsock-mux:/v.sock:443"},
		{"unix:/v.sock", "unix:/v.sock_443"},
		{"tcp:[::1]", "tcp:[::1]:443"},
		{"tcp:a.example", "tcp:a.example:443"},
	};
	char args[128];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(args, sizeof(args),
			"transparent-port-to-vsock -i 1.2.3.4:1 -v %s",
			cases[i].args);
		ck_assert_msg(parse(args) == 0, "%s", error);
		endpoint_set_port(&options.vsock, 443);
		expect_endpoint(&options.vsock, cases[i].want);
	}
}
END_TEST

/* ---- tables ---- */

START_TEST(modes)
{
	for (size_t i = 0; i < NR_MODES; i++) {
		const char *name = mode_table[i].name;

		ck_assert_ptr_eq(mode_find(name, strlen(name)), &mode_table[i]);
		ck_assert_ptr_null(mode_find(name, strlen(name) - 1));
	}
	ck_assert_ptr_null(mode_find("run", 3));
	ck_assert_ptr_null(mode_find("", 0));
}
END_TEST

/* Names and letters are used once in each command, and each option's help
 * says what holds without it. */
START_TEST(rows)
{
	for (int i = -1; i < NR_MODES; i++) {
		const struct mode *mode = i == -1 ? NULL : &mode_table[i];
		struct opt row[OPTIONS_ROWS_MAX];
		size_t nr = options_rows(
			mode, OPTIONS_OF_LISTENER | OPTIONS_OF_PROCESS, row);

		for (size_t a = 0; a < nr; a++) {
			ck_assert_ptr_eq(
				optparse_find(row, nr, row[a].name), &row[a]);
			for (size_t b = 0; b < a; b++)
				ck_assert(!row[a].letter ||
					  row[a].letter != row[b].letter);
			ck_assert_msg(!row[a].arg || row[a].many ||
					      strstr(row[a].help, "default") ||
					      strstr(row[a].help, "required"),
				"%s", row[a].name);
		}
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("modes");
	TCase *tc = tcase_create("modes");

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_loop_test(tc, taken, 0, sizeof(good) / sizeof(good[0]));
	tcase_add_test(tc, values);
	tcase_add_loop_test(tc, refused, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, ports);
	tcase_add_test(tc, modes);
	tcase_add_test(tc, rows);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
