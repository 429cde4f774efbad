/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/config_file.h"
#include "suite.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct config config;
static char error[CONFIG_ERROR_MAX];

static int parse_bytes(const char *text, size_t len)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, len, "r");
	int rc;

	ck_assert_ptr_nonnull(in);
	config_free(&config);
	error[0] = '\0';
	rc = config_file_parse(&config, in, "f.ini", error);
	fclose(in);
	return rc;
}

static int parse(const char *text)
{
	return parse_bytes(text, strlen(text));
}

static void teardown(void)
{
	config_free(&config);
}

static void expect_endpoint(const struct endpoint *ep, const char *want)
{
	char text[ENDPOINT_STRLEN];

	ck_assert_str_eq(endpoint_format(ep, text, sizeof(text)), want);
}

START_TEST(everything)
{
	static const char text[] =
		"# a comment\n"
		"workers = 3\n"
		"buffer_size=4096 ; another\n"
		"log = warn\n"
		"drain = 2.5\n"
		"resolv-conf = /x/y\n"
		"\n"
		"[socks5 main]\n"
		"listen = unix:/a\n"
		"listen = tcp:[::1]:7\n"
		"deny = 10.0.0.1\n"
		"allow = 10.0.0.0/8\n"
		"deny = [::]/0:1-9\n"
		"handshake-timeout = 3\n"
		"[vsock-to-ip a]\n"
		"vsock-addr = any:80\n"
		"ip-addr = web.example:8080\n"
		"max-connections = 7\n"
		"connect-timeout = 4\n"
		"idle-timeout = 5\n"
		"accept-proxy-protocol = yes\n"
		"[vsock-to-ip a] # the same name is another listener\n"
		"  vsock-addr = unix:/b\n"
		"\tip-addr = [::1]:81\r\n"
		"[ip-to-vsock]\n"
		"ip-addr = 127.0.0.1:0\n"
		"vsock-addr = vsock-mux:/v.sock:52\n"
		"proxy-protocol = v2\n"
		"[ vsock-to-ip-transparent ]\n"
		"vsock-addr = 3:9\n"
		"allow = 192.0.2.0/24\n"
		"[ip-to-vsock-transparent]\n"
		"ip-addr = [::]:1200\n"
		"vsock-addr = 3:1200\n"
		"tproxy = on\n"
		"[transparent-port-to-vsock]\n"
		"ip-addr = 0.0.0.0:1201\n"
		"vsock = 88\n"
		"tproxy = no";
	const struct service_config *s;

	ck_assert_msg(parse(text) == 0, "%s", error);
	ck_assert_uint_eq(config.process.workers, 3);
	ck_assert_uint_eq(config.process.buffer_size, 4096);
	ck_assert_int_eq(config.process.log_level, LOG_WARN);
	ck_assert_double_eq(config.process.drain, 2.5);
	ck_assert_str_eq(config.process.resolv_conf, "/x/y");
	ck_assert_uint_eq(config.nr, 8);
	s = config.service;
	ck_assert_ptr_eq(s[0].mode, &mode_table[MODE_SOCKS5]);
	expect_endpoint(&s[0].listen, "unix:/a");
	expect_endpoint(&s[1].listen, "tcp:[::1]:7");
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(s[i].rules.nr, 3);
		ck_assert_int_eq(s[i].rules.rule[0].verdict, RULES_DENY);
		ck_assert_int_eq(s[i].rules.rule[1].verdict, RULES_ALLOW);
		ck_assert_double_eq(s[i].handshake_timeout, 3);
		ck_assert_str_eq(s[i].where, "f.ini:8");
	}
	ck_assert_ptr_eq(s[2].mode, &mode_table[MODE_VSOCK_TO_IP]);
	expect_endpoint(&s[2].listen, "vsock:any:80");
	expect_endpoint(&s[2].target, "tcp:web.example:8080");
	ck_assert_int_eq(s[2].max_connections, 7);
	ck_assert_double_eq(s[2].connect_timeout, 4);
	ck_assert_double_eq(s[2].idle_timeout, 5);
	ck_assert(s[2].accept_proxyproto);
	ck_assert_str_eq(s[2].where, "f.ini:15");
	expect_endpoint(&s[3].listen, "unix:/b");
	expect_endpoint(&s[3].target, "tcp:[::1]:81");
	ck_assert_int_eq(s[3].max_connections, 0);
	ck_assert_double_eq(s[3].connect_timeout, 60);
	ck_assert_double_eq(s[3].idle_timeout, 0);
	ck_assert(!s[3].accept_proxyproto);
	expect_endpoint(&s[4].listen, "tcp:127.0.0.1:0");
	expect_endpoint(&s[4].target, "vsock-mux:/v.sock:52");
	ck_assert_int_eq(s[4].send_proxyproto, PROXYPROTO_V2);
	ck_assert_int_eq(s[5].mode->learn, LEARN_PREFIX);
	ck_assert_uint_eq(s[5].rules.nr, 1);
	ck_assert(s[6].tproxy);
	expect_endpoint(&s[6].target, "vsock:3:1200");
}
END_TEST

/* What is wrong, and where. */
static const struct {
	const char *text;
	const char *says;
} bad[] = {
	{"", "f.ini: no section, so there is nothing to serve"},
	{"workers = 1\n", "f.ini: no section, so there is nothing to serve"},
	{"\n\nnonsense\n", "f.ini:3: expected NAME = VALUE"},
	{"[socks5]\nlisten\n", "f.ini:2: expected NAME = VALUE"},
	{"# x\nlisten = unix:/a\n",
		"f.ini:2: unknown setting 'listen' ahead of the first section"},
	{"[socks5]\nlisten = unix:/a\nfrob = 1\n",
		"f.ini:3: unknown setting 'frob' in [socks5]"},
	{"[socks5]\nworkers = 1\n",
		"f.ini:2: unknown setting 'workers' in [socks5]"},
	{"[socks5]\nport = 1\n", "f.ini:2: unknown setting 'port' in [socks5]"},
	{"[socks5]\nhelp = yes\n",
		"f.ini:2: unknown setting 'help' in [socks5]"},
	{"[vsock-to-ip]\nallow = 10.0.0.0/8\n",
		"f.ini:2: unknown setting 'allow' in [vsock-to-ip]"},
	{"workers = 0\n", "f.ini:1: bad value '0' for workers: expected a"},
	{"[socks5]\nlisten = foo\n",
		"f.ini:2: bad value 'foo' for listen: expected vsock:CID"},
	{"[socks5]\nlisten =\n", "f.ini:2: bad value '' for listen"},
	{"\n[vsock-to-ip x]\nvsock-addr = 3\n",
		"f.ini:3: bad value '3' for vsock-addr"},
	{"\n[vsock-to-ip x]\nvsock-addr = 3:1\n[socks5]\n",
		"f.ini:2: [vsock-to-ip]: option -i, --ip-addr is required"},
	{"\n\n[vsock-to-ip]\n",
		"f.ini:3: [vsock-to-ip]: option -v, --vsock-addr is required"},
	{"[vsock-to-ip]\n[socks5]\nlisten = unix:/a\n",
		"f.ini:1: [vsock-to-ip]: option -v, --vsock-addr is required"},
	{"[socks5]\nlisten = unix:/a\nidle-timeout = 1\nidle-timeout = 1\n",
		"f.ini:4: idle-timeout is set already"},
	{"[frob]\n", "f.ini:1: no such mode: 'frob'"},
	{"[run]\n", "f.ini:1: no such mode: 'run'"},
	{"[]\n", "f.ini:1: no such mode: ''"},
	{"[socks5\n", "f.ini:1: expected [MODE] or [MODE NAME]"},
	{"[socks5] listen = unix:/a\n",
		"f.ini:1: expected [MODE] or [MODE NAME]"},
	{"[ip-to-vsock-transparent]\nip-addr=1.2.3.4:1\nvsock-addr=3:1\n"
	 "tproxy = maybe\n",
		"f.ini:4: bad value 'maybe' for tproxy: expected yes or no"},
	{"[ip-to-vsock-transparent]\nip-addr=unix:/a\n",
		"f.ini:2: bad value 'unix:/a' for ip-addr: expected a TCP"},
};

START_TEST(refused)
{
	ck_assert_int_eq(parse(bad[_i].text), -1);
	ck_assert_msg(strncmp(error, bad[_i].says, strlen(bad[_i].says)) == 0,
		"'%s' is not '%s'", error, bad[_i].says);
}
END_TEST

START_TEST(refused_bytes)
{
	static const char nul[] = "[socks5]\nlisten = unix:/a\0b\n";
	char line[9000];

	ck_assert_int_eq(parse_bytes(nul, sizeof(nul) - 1), -1);
	ck_assert_str_eq(error, "f.ini:2: a NUL byte");
	memset(line, 'x', sizeof(line) - 1);
	memcpy(line, "[socks5]\nlisten = unix:/", 24);
	line[sizeof(line) - 1] = '\0';
	ck_assert_int_eq(parse(line), -1);
	ck_assert_msg(
		strncmp(error, "f.ini:2: longer than ", 21) == 0, "%s", error);
}
END_TEST

/* A name as long as can be does no harm, nor does a byte order mark. */
START_TEST(taken)
{
	char line[400];

	memset(line, 'x', sizeof(line));
	memcpy(line, "\xef\xbb\xbf[socks5 ", 11);
	memcpy(line + 300, "]\nlisten = unix:/a\n", 20);
	ck_assert_msg(parse(line) == 0, "%s", error);
	ck_assert_uint_eq(config.nr, 1);
	expect_endpoint(&config.service[0].listen, "unix:/a");
	/* Without a listen it is the command line's default. */
	ck_assert_int_eq(parse("[socks5]"), 0);
	expect_endpoint(&config.service[0].listen, "vsock:any:8888");
}
END_TEST

/* Only what is read has to be short. */
START_TEST(long_comments)
{
	char text[2200];

	for (int i = 0; i < 2; i++) {
		memset(text, 'x', sizeof(text));
		text[0] = "#;"[i];
		snprintf(text + 2000, sizeof(text) - 2000,
			"\n[socks5]\nlisten = unix:/a\n");
		ck_assert_msg(parse(text) == 0, "%s", error);
		expect_endpoint(&config.service[0].listen, "unix:/a");
		config_free(&config);
	}
}
END_TEST

START_TEST(files)
{
	char path[] = "/tmp/test-config-XXXXXX";
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, "[socks5]\n", 9), 9);
	close(fd);
	ck_assert_int_eq(config_file_read(&config, path, error), 0);
	ck_assert_uint_eq(config.nr, 1);
	config_free(&config);
	unlink(path);
	ck_assert_int_eq(config_file_read(&config, path, error), -1);
	ck_assert_msg(strstr(error, ": No such file or directory") != NULL,
		"%s", error);
	ck_assert_int_eq(config_file_read(&config, "/", error), -1);
	ck_assert_msg(strstr(error, "Is a directory") != NULL, "%s", error);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("config");
	TCase *tc = tcase_create("config");

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, everything);
	tcase_add_loop_test(tc, refused, 0, sizeof(bad) / sizeof(bad[0]));
	tcase_add_test(tc, refused_bytes);
	tcase_add_test(tc, taken);
	tcase_add_test(tc, long_comments);
	tcase_add_test(tc, files);
	suite_add_tcase(suite, tc);
	return suite_run(suite);
}
