/* SPDX-License-Identifier: Apache-2.0 */
#include "common/endpoint.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * Tables of texts with what each must become, or the exact message that a user
 * sees. Every valid one is formatted and read back, is refused when any byte
 * is cut off its end unless that is another valid endpoint, and gives a
 * sockaddr of its family.
 */

#define TEXT_MAX 512

#define ONE_OF                                            \
 "expected vsock:CID:PORT, unix:/path, tcp:HOST:PORT or " \
 "vsock-mux:/path:PORT"
#define BAD_CID                                               \
 "expected a CID that is a number below 2^32, 'any', 'host' " \
 "or 'local'"
#define BAD_VSOCK_PORT "expected a vsock port, a number below 2^32"
#define BAD_RANGE                                         \
 "expected a range of at most 64 vsock ports, the lower " \
 "one first"
#define BAD_TCP_PORT "expected a TCP port, a number below 65536"
#define BAD_PATH     "expected an absolute path"
#define LONG_PATH    "expected a path of at most 107 bytes"
#define BAD_HOST                                                 \
 "expected an IPv4 address, a host name, or an IPv6 address in " \
 "brackets"
#define BAD_IPV6  "expected an IPv6 address between the brackets"
#define LONG_NAME "expected a host name of at most 253 bytes"

static const struct {
	const char *text;
	const char *formatted; /* NULL: as @text */
	enum endpoint_kind kind;
	uint32_t cid;
	uint32_t port;
	const char *name; /* text member, NULL for empty */
	const char *ip;   /* numeric TCP */
} valid[] = {
	{"vsock:3:8888", NULL, ENDPOINT_VSOCK, 3, 8888},
	{"vsock:16:0", NULL, ENDPOINT_VSOCK, 16, 0},
	{"vsock:0:1", NULL, ENDPOINT_VSOCK, 0, 1},
	{"vsock:any:8888", NULL, ENDPOINT_VSOCK, VMADDR_CID_ANY, 8888},
	{"vsock:host:1", NULL, ENDPOINT_VSOCK, VMADDR_CID_HOST, 1},
	{"vsock:local:4294967295", NULL, ENDPOINT_VSOCK, 1, UINT32_MAX},
	{"vsock:1:5", "vsock:local:5", ENDPOINT_VSOCK, 1, 5},
	{"vsock:2:5", "vsock:host:5", ENDPOINT_VSOCK, 2, 5},
	{"vsock:4294967295:5", "vsock:any:5", ENDPOINT_VSOCK, UINT32_MAX, 5},
	{"vsock:4294967294:5", NULL, ENDPOINT_VSOCK, UINT32_MAX - 1, 5},
	{"vsock:003:08888", "vsock:3:8888", ENDPOINT_VSOCK, 3, 8888},
	{"vsock:any:8888-8919", NULL, ENDPOINT_VSOCK, VMADDR_CID_ANY, 8888},
	{"vsock:local:1-64", NULL, ENDPOINT_VSOCK, 1, 1},
	{"vsock:3:7-7", "vsock:3:7", ENDPOINT_VSOCK, 3, 7},
	{"vsock:3:4294967294-4294967295", NULL, ENDPOINT_VSOCK, 3,
		UINT32_MAX - 1},
	{"unix:/", NULL, ENDPOINT_UNIX, 0, 0, "/"},
	{"unix:/run/p.sock", NULL, ENDPOINT_UNIX, 0, 0, "/run/p.sock"},
	{"unix:/with:colon:1", NULL, ENDPOINT_UNIX, 0, 0, "/with:colon:1"},
	{"unix:/a b/\xc3\xa4", NULL, ENDPOINT_UNIX, 0, 0, "/a b/\xc3\xa4"},
	{"tcp:127.0.0.1:80", NULL, ENDPOINT_TCP, 0, 80, NULL, "127.0.0.1"},
	{"tcp:0.0.0.0:0", NULL, ENDPOINT_TCP, 0, 0, NULL, "0.0.0.0"},
	{"tcp:255.255.255.255:65535", NULL, ENDPOINT_TCP, 0, 65535, NULL,
		"255.255.255.255"},
	{"tcp:[::1]:80", NULL, ENDPOINT_TCP, 0, 80, NULL, "::1"},
	{"tcp:[::]:65535", NULL, ENDPOINT_TCP, 0, 65535, NULL, "::"},
	{"tcp:[2001:DB8:0:0::1]:80", "tcp:[2001:db8::1]:80", ENDPOINT_TCP, 0,
		80, NULL, "2001:db8::1"},
	{"tcp:[::ffff:127.0.0.1]:80", NULL, ENDPOINT_TCP, 0, 80, NULL,
		"::ffff:127.0.0.1"},
	/* the longest text of an IPv6 address */
	{"tcp:[0000:0000:0000:0000:0000:ffff:255.255.255.255]:1",
		"tcp:[::ffff:255.255.255.255]:1", ENDPOINT_TCP, 0, 1, NULL,
		"::ffff:255.255.255.255"},
	{"tcp:localhost:80", NULL, ENDPOINT_TCP, 0, 80, "localhost"},
	{"tcp:Ex-ample_1.org:080", "tcp:Ex-ample_1.org:80", ENDPOINT_TCP, 0, 80,
		"Ex-ample_1.org"},
	{"tcp:example.org.:1", NULL, ENDPOINT_TCP, 0, 1, "example.org."},
	{"tcp:1.2.3.4.example:1", NULL, ENDPOINT_TCP, 0, 1, "1.2.3.4.example"},
	{"tcp:9to5:1", NULL, ENDPOINT_TCP, 0, 1, "9to5"},
	{"vsock-mux:/run/v.sock:52", NULL, ENDPOINT_VSOCK_MUX, 0, 52,
		"/run/v.sock"},
	{"vsock-mux:/a:b:4294967295", NULL, ENDPOINT_VSOCK_MUX, 0, UINT32_MAX,
		"/a:b"},
	{"vsock-mux:/:0", NULL, ENDPOINT_VSOCK_MUX, 0, 0, "/"},
};

static const struct {
	const char *text;
	const char *why;
} invalid[] = {
	{"", ONE_OF},
	{"vsock", ONE_OF},
	{"VSOCK:3:1", ONE_OF},
	{" vsock:3:1", ONE_OF},
	{"vsoc:3:1", ONE_OF},
	{"/run/p.sock", ONE_OF},
	{"udp:127.0.0.1:53", ONE_OF},
	{"127.0.0.1:80", ONE_OF},
	{"vsock-mux", ONE_OF},
	{"vsock:", "expected vsock:CID:PORT"},
	{"vsock:3", "expected vsock:CID:PORT"},
	{"vsock::1", BAD_CID},
	{"vsock:-1:1", BAD_CID},
	{"vsock:+3:1", BAD_CID},
	{"vsock: 3:1", BAD_CID},
	{"vsock:0x3:1", BAD_CID},
	{"vsock:4294967296:1", BAD_CID},
	{"vsock:18446744073709551619:1", BAD_CID},
	{"vsock:ANY:1", BAD_CID},
	{"vsock:anyone:1", BAD_CID},
	{"vsock:an:1", BAD_CID},
	{"vsock:3:", BAD_VSOCK_PORT},
	{"vsock:3:any", BAD_VSOCK_PORT},
	{"vsock:3:1 ", BAD_VSOCK_PORT},
	{"vsock:3:-1", BAD_VSOCK_PORT},
	{"vsock:3:1:2", BAD_VSOCK_PORT},
	{"vsock:3:4294967296", BAD_VSOCK_PORT},
	{"vsock:3:1-", BAD_RANGE},
	{"vsock:3:2-1", BAD_RANGE},
	{"vsock:3:1-65", BAD_RANGE},
	{"vsock:3:1-2-3", BAD_RANGE},
	{"vsock:3:1-x", BAD_RANGE},
	{"vsock:3:1-4294967296", BAD_RANGE},
	{"vsock:3:x-2", BAD_VSOCK_PORT},
	{"vsock-mux:/a:1-2", BAD_VSOCK_PORT},
	{"unix:", BAD_PATH},
	{"unix:run/p.sock", BAD_PATH},
	{"unix:@abstract", BAD_PATH},
	{"unix: /p", BAD_PATH},
	{"tcp:", "expected tcp:HOST:PORT"},
	{"tcp:localhost", "expected tcp:HOST:PORT"},
	{"tcp::80", BAD_HOST},
	{"tcp:localhost:", BAD_TCP_PORT},
	{"tcp:localhost:http", BAD_TCP_PORT},
	{"tcp:localhost:65536", BAD_TCP_PORT},
	{"tcp:localhost:-1", BAD_TCP_PORT},
	{"tcp:localhost:80 ", BAD_TCP_PORT},
	{"tcp:[::1]:65536", BAD_TCP_PORT},
	{"tcp:[::1]:", BAD_TCP_PORT},
	{"tcp:1.2.3:80", BAD_HOST},
	{"tcp:1.2.3.4.5:80", BAD_HOST},
	{"tcp:256.1.1.1:80", BAD_HOST},
	{"tcp:01.2.3.4:80", BAD_HOST},
	{"tcp:1:80", BAD_HOST},
	{"tcp:.:80", BAD_HOST},
	{"tcp:::1:80", BAD_HOST},
	{"tcp:2001:db8::1:80", BAD_HOST},
	{"tcp:-host:80", BAD_HOST},
	{"tcp:ho st:80", BAD_HOST},
	{"tcp:host\n:80", BAD_HOST},
	{"tcp:host/:80", BAD_HOST},
	{"tcp:user@host:80", BAD_HOST},
	{"tcp:h\xc3\xb6st:80", BAD_HOST},
	{"tcp:*:80", BAD_HOST},
	{"tcp:[::1]", "expected tcp:[IPv6]:PORT"},
	{"tcp:[::1:80", "expected tcp:[IPv6]:PORT"},
	{"tcp:[:80", "expected tcp:[IPv6]:PORT"},
	{"tcp:[::1]80:1", "expected tcp:[IPv6]:PORT"},
	{"tcp:[]:80", BAD_IPV6},
	{"tcp:[localhost]:80", BAD_IPV6},
	{"tcp:[127.0.0.1]:80", BAD_IPV6},
	{"tcp:[::1%lo]:80", BAD_IPV6},
	{"tcp:[::g]:80", BAD_IPV6},
	{"tcp:[[::1]]:80", BAD_IPV6},
	{"tcp:[1:2:3:4:5:6:7:8:9]:80", BAD_IPV6},
	{"tcp:[0000:0000:0000:0000:0000:ffff:255.255.255.2555]:1", BAD_IPV6},
	{"tcp:[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:1", BAD_IPV6},
	{"vsock-mux:", "expected vsock-mux:/path:PORT"},
	{"vsock-mux:/run/v.sock", "expected vsock-mux:/path:PORT"},
	{"vsock-mux::52", BAD_PATH},
	{"vsock-mux:run/v.sock:52", BAD_PATH},
	{"vsock-mux:/run/v.sock:", BAD_VSOCK_PORT},
	{"vsock-mux:/run/v.sock:x", BAD_VSOCK_PORT},
	{"vsock-mux:/run/v.sock:4294967296", BAD_VSOCK_PORT},
};

#define NR(table) (sizeof(table) / sizeof((table)[0]))

/* Parse an allocation of the text's exact size, into a dirty output. */
static const char *parse(struct endpoint *out, const char *text)
{
	char *exact = strdup(text);
	const char *why;

	ck_assert_ptr_nonnull(exact);
	memset(out, 0xa5, sizeof(*out));
	why = endpoint_parse(out, exact);
	free(exact);
	return why;
}

static void check_refused(const char *text, const char *want)
{
	static const struct endpoint none;
	struct endpoint ep;
	const char *why = parse(&ep, text);

	ck_assert_msg(why != NULL, "'%s' was taken", text);
	ck_assert_msg(strcmp(why, want) == 0, "'%s': '%s', not '%s'", text, why,
		want);
	ck_assert_int_eq(ep.kind, ENDPOINT_NONE);
	ck_assert_mem_eq(&ep, &none, sizeof(ep));
}

static void check_round_trip(const struct endpoint *ep, const char *want)
{
	char buf[ENDPOINT_STRLEN];
	struct endpoint again;

	ck_assert_ptr_eq(endpoint_format(ep, buf, sizeof(buf)), buf);
	ck_assert_str_eq(buf, want);
	ck_assert_ptr_null(parse(&again, buf));
	ck_assert_mem_eq(&again, ep, sizeof(again));
}

static void check_ip(const struct ip_port *addr, const char *ip)
{
	struct ip_port want = {0};

	want.family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	want.port = addr->port;
	ck_assert_int_eq(inet_pton(want.family, ip, want.ip), 1);
	ck_assert(ip_port_equal(addr, &want));
}

START_TEST(parse_valid)
{
	const char *name = valid[_i].name ? valid[_i].name : "";
	struct endpoint ep;
	const char *why = parse(&ep, valid[_i].text);

	ck_assert_msg(why == NULL, "'%s': %s", valid[_i].text, why ? why : "");
	ck_assert_int_eq(ep.kind, valid[_i].kind);
	ck_assert_uint_eq(ep.cid, valid[_i].cid);
	ck_assert_uint_eq(ep.port, valid[_i].port);
	ck_assert_str_eq(ep.text, name);
	if (ep.kind == ENDPOINT_TCP)
		ck_assert_uint_eq(ep.addr.port, ep.port);
	if (valid[_i].ip)
		check_ip(&ep.addr, valid[_i].ip);
	else
		ck_assert_int_eq(ep.addr.family, AF_UNSPEC);
	check_round_trip(&ep,
		valid[_i].formatted ? valid[_i].formatted : valid[_i].text);
}
END_TEST

/* An address that is none holds no bytes of what was tried. */
START_TEST(parse_name_leaves_no_address)
{
	static const uint8_t zero[16];
	struct endpoint ep;

	ck_assert_ptr_null(parse(&ep, "tcp:1.2.3.example:80"));
	ck_assert_mem_eq(ep.addr.ip, zero, sizeof(zero));
	ck_assert_uint_eq(ep.addr.scope, 0);
}
END_TEST

START_TEST(parse_invalid)
{
	check_refused(invalid[_i].text, invalid[_i].why);
}
END_TEST

/* No text that ends too early makes the parser read on. */
START_TEST(parse_every_prefix)
{
	char text[TEXT_MAX];
	char buf[ENDPOINT_STRLEN];
	struct endpoint ep, again;

	for (size_t len = 0; len < strlen(valid[_i].text); len++) {
		memcpy(text, valid[_i].text, len);
		text[len] = '\0';
		if (parse(&ep, text)) {
			ck_assert_int_eq(ep.kind, ENDPOINT_NONE);
			continue;
		}
		endpoint_format(&ep, buf, sizeof(buf));
		ck_assert_ptr_null(parse(&again, buf));
		ck_assert_mem_eq(&again, &ep, sizeof(ep));
	}
}
END_TEST

/* "unix:" or "vsock-mux:", a path of @len bytes, and the rest. */
static const char *path_text(
	char *text, const char *scheme, size_t len, const char *rest)
{
	char path[TEXT_MAX];

	memset(path, 'p', sizeof(path));
	path[0] = '/';
	snprintf(text, TEXT_MAX, "%s%.*s%s", scheme, (int)len, path, rest);
	return text;
}

START_TEST(path_limit)
{
	union endpoint_sockaddr sa;
	char text[TEXT_MAX];
	struct endpoint ep;

	ck_assert_ptr_null(
		parse(&ep, path_text(text, "unix:", ENDPOINT_PATH_MAX, "")));
	ck_assert_uint_eq(strlen(ep.text), ENDPOINT_PATH_MAX);
	check_round_trip(&ep, text);
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), sizeof(sa.un));
	ck_assert_str_eq(sa.un.sun_path, ep.text);
	check_refused(
		path_text(text, "unix:", ENDPOINT_PATH_MAX + 1, ""), LONG_PATH);
	check_refused(path_text(text, "unix:", 400, ""), LONG_PATH);

	ck_assert_ptr_null(
		parse(&ep, path_text(text, "vsock-mux:", ENDPOINT_PATH_MAX,
				   ":4294967295")));
	check_round_trip(&ep, text);
	check_refused(
		path_text(text, "vsock-mux:", ENDPOINT_PATH_MAX + 1, ":1"),
		LONG_PATH);
}
END_TEST

START_TEST(name_limit)
{
	char text[TEXT_MAX] = "tcp:";
	struct endpoint ep;

	memset(text + 4, 'n', ENDPOINT_NAME_MAX + 1);
	memcpy(text + 4 + ENDPOINT_NAME_MAX, ":65535", 7);
	ck_assert_ptr_null(parse(&ep, text));
	ck_assert_uint_eq(strlen(ep.text), ENDPOINT_NAME_MAX);
	check_round_trip(&ep, text);
	memcpy(text + 4 + ENDPOINT_NAME_MAX, "n:65535", 8);
	check_refused(text, LONG_NAME);
}
END_TEST

/* Cut short, a text still ends in a NUL and nothing behind it is written. */
START_TEST(format_into_any_size)
{
	struct endpoint ep;
	char whole[ENDPOINT_STRLEN], buf[ENDPOINT_STRLEN];

	ck_assert_ptr_null(parse(&ep, valid[_i].text));
	endpoint_format(&ep, whole, sizeof(whole));
	for (size_t size = 1; size <= strlen(whole) + 2; size++) {
		memset(buf, 0xa5, sizeof(buf));
		ck_assert_ptr_eq(endpoint_format(&ep, buf, size), buf);
		ck_assert_ptr_nonnull(memchr(buf, '\0', size));
		ck_assert_int_eq(
			strncmp(buf, whole, strlen(buf) ? strlen(buf) : 0), 0);
		ck_assert_uint_eq((uint8_t)buf[size], 0xa5);
	}
}
END_TEST

START_TEST(format_none)
{
	struct endpoint ep = {.kind = ENDPOINT_NONE};
	char buf[ENDPOINT_STRLEN];

	ck_assert_str_eq(endpoint_format(&ep, buf, sizeof(buf)), "-");
}
END_TEST

/* ---- sockaddr ---- */

START_TEST(sockaddr_of_each_kind)
{
	union endpoint_sockaddr sa;
	struct endpoint ep;

	parse(&ep, "vsock:any:8888");
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), sizeof(sa.vm));
	ck_assert_int_eq(sa.sa.sa_family, AF_VSOCK);
	ck_assert_uint_eq(sa.vm.svm_cid, VMADDR_CID_ANY);
	ck_assert_uint_eq(sa.vm.svm_port, 8888);

	parse(&ep, "unix:/run/p.sock");
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), sizeof(sa.un));
	ck_assert_int_eq(sa.sa.sa_family, AF_UNIX);
	ck_assert_str_eq(sa.un.sun_path, "/run/p.sock");

	parse(&ep, "vsock-mux:/run/v.sock:52");
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), sizeof(sa.un));
	ck_assert_int_eq(sa.sa.sa_family, AF_UNIX);
	ck_assert_str_eq(sa.un.sun_path, "/run/v.sock");

	parse(&ep, "tcp:127.0.0.1:80");
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), sizeof(sa.ip.in));
	ck_assert_int_eq(sa.sa.sa_family, AF_INET);
	ck_assert_uint_eq(sa.ip.in.sin_port, htons(80));
	ck_assert_uint_eq(sa.ip.in.sin_addr.s_addr, htonl(INADDR_LOOPBACK));

	parse(&ep, "tcp:[::1]:80");
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), sizeof(sa.ip.in6));
	ck_assert_int_eq(sa.sa.sa_family, AF_INET6);
	ck_assert(IN6_IS_ADDR_LOOPBACK(&sa.ip.in6.sin6_addr));
	ck_assert_uint_eq(sa.ip.in6.sin6_port, htons(80));
}
END_TEST

START_TEST(sockaddr_of_none)
{
	struct endpoint ep = {.kind = ENDPOINT_NONE};
	union endpoint_sockaddr sa;

	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), 0);
	parse(&ep, "tcp:localhost:80");
	ck_assert_uint_eq(endpoint_sockaddr(&ep, &sa), 0);
}
END_TEST

/* Every port of it, none beside, and whatever the number. */
START_TEST(pick_of_a_range)
{
	struct endpoint range, ep;
	unsigned int seen = 0;

	ck_assert_ptr_null(parse(&range, "vsock:3:8888-8895"));
	for (uint32_t i = 0; i < 1000; i++) {
		ep = range;
		endpoint_pick(&ep, i * 2654435761u);
		ck_assert_uint_eq(ep.more, 0);
		ck_assert_uint_eq(ep.cid, 3);
		ck_assert(ep.port >= 8888 && ep.port <= 8895);
		seen |= 1u << (ep.port - 8888);
	}
	ck_assert_uint_eq(seen, 0xff);
	ep = range;
	ck_assert(endpoint_equal(&ep, &range));
	ep.more--;
	ck_assert(!endpoint_equal(&ep, &range));
	ck_assert_ptr_null(parse(&ep, "vsock:3:1"));
	endpoint_pick(&ep, 77);
	ck_assert_uint_eq(ep.port, 1);
	ck_assert_ptr_null(parse(&ep, "unix:/a"));
	range = ep;
	endpoint_pick(&ep, 77);
	ck_assert(endpoint_equal(&ep, &range));
}
END_TEST

/* ---- environment ---- */

static void clear_env(void)
{
	unsetenv("PROXY_ENDPOINT");
	unsetenv("PROXY_PARENT_CID");
	unsetenv("PROXY_PARENT_PORT");
}

static void check_env(const char *want)
{
	char buf[ENDPOINT_STRLEN];
	const char *bad = NULL;
	struct endpoint ep;

	memset(&ep, 0xa5, sizeof(ep));
	ck_assert_ptr_null(endpoint_from_env(&ep, &bad));
	ck_assert_str_eq(endpoint_format(&ep, buf, sizeof(buf)), want);
}

static void check_bad_env(const char *name, const char *want)
{
	const char *bad = NULL;
	struct endpoint ep;
	const char *why;

	memset(&ep, 0xa5, sizeof(ep));
	why = endpoint_from_env(&ep, &bad);
	ck_assert_pstr_eq(why, want);
	ck_assert_pstr_eq(bad, name);
	ck_assert_int_eq(ep.kind, ENDPOINT_NONE);
}

START_TEST(env_defaults)
{
	check_env("vsock:3:8888");
	setenv("PROXY_PARENT_PORT", "9999", 1);
	check_env("vsock:3:9999");
	setenv("PROXY_PARENT_PORT", "9999-10006", 1);
	check_env("vsock:3:9999-10006");
	setenv("PROXY_PARENT_PORT", "9999", 1);
	setenv("PROXY_PARENT_CID", "16", 1);
	check_env("vsock:16:9999");
	unsetenv("PROXY_PARENT_PORT");
	check_env("vsock:16:8888");
	setenv("PROXY_PARENT_CID", "4294967295", 1);
	setenv("PROXY_PARENT_PORT", "4294967295", 1);
	check_env("vsock:any:4294967295");
}
END_TEST

START_TEST(env_endpoint_wins)
{
	setenv("PROXY_PARENT_CID", "rubbish", 1);
	setenv("PROXY_PARENT_PORT", "rubbish", 1);
	setenv("PROXY_ENDPOINT", "unix:/run/p.sock", 1);
	check_env("unix:/run/p.sock");
	setenv("PROXY_ENDPOINT", "vsock:host:1", 1);
	check_env("vsock:host:1");
}
END_TEST

START_TEST(env_invalid)
{
	static const char *const numbers[] = {"", "any", "-1", " 3", "3 ",
		"0x3", "4294967296", "99999999999999999999"};

	for (size_t i = 0; i < NR(numbers); i++) {
		clear_env();
		setenv("PROXY_PARENT_CID", numbers[i], 1);
		check_bad_env(
			"PROXY_PARENT_CID", "expected a number below 2^32");
		setenv("PROXY_PARENT_CID", "3", 1);
		setenv("PROXY_PARENT_PORT", numbers[i], 1);
		check_bad_env("PROXY_PARENT_PORT", BAD_VSOCK_PORT);
	}
	setenv("PROXY_ENDPOINT", "", 1);
	check_bad_env("PROXY_ENDPOINT", ONE_OF);
	setenv("PROXY_ENDPOINT", "vsock:3:x", 1);
	check_bad_env("PROXY_ENDPOINT", BAD_VSOCK_PORT);
}
END_TEST

/* ---- numbers ---- */

START_TEST(uint_limits)
{
	static const struct {
		const char *text;
		uint64_t max, want;
	} good[] = {
		{"0", 0, 0},
		{"0", UINT64_MAX, 0},
		{"00000000000000000000000000007", 9, 7},
		{"255", 255, 255},
		{"4294967295", UINT32_MAX, UINT32_MAX},
		{"18446744073709551615", UINT64_MAX, UINT64_MAX},
	};
	static const struct {
		const char *text;
		uint64_t max;
	} bad[] = {
		{"", UINT64_MAX},
		{"1", 0},
		{"256", 255},
		{"4294967296", UINT32_MAX},
		{"18446744073709551616", UINT64_MAX},
		{"18446744073709551620", UINT64_MAX},
		{"184467440737095516150", UINT64_MAX},
		{"-0", UINT64_MAX},
		{"+1", UINT64_MAX},
		{" 1", UINT64_MAX},
		{"1 ", UINT64_MAX},
		{"1\n", UINT64_MAX},
		{"1a", UINT64_MAX},
		{"/", UINT64_MAX},
		{":", UINT64_MAX},
		{"\xb1", UINT64_MAX},
	};
	uint64_t out;

	for (size_t i = 0; i < NR(good); i++) {
		out = 42;
		ck_assert_int_eq(parse_uint(good[i].text, strlen(good[i].text),
					 good[i].max, &out),
			0);
		ck_assert_uint_eq(out, good[i].want);
	}
	for (size_t i = 0; i < NR(bad); i++) {
		out = 42;
		ck_assert_msg(parse_uint(bad[i].text, strlen(bad[i].text),
				      bad[i].max, &out) == -1,
			"'%s'", bad[i].text);
		ck_assert_uint_eq(out, 42);
	}
}
END_TEST

/* Exactly @len bytes are the number: neither a NUL nor a digit behind. */
START_TEST(uint_needs_no_nul)
{
	static const char text[] = {'1', '2', '3', '4'};
	uint64_t out;

	ck_assert_int_eq(parse_uint(text, sizeof(text), 9999, &out), 0);
	ck_assert_uint_eq(out, 1234);
	ck_assert_int_eq(parse_uint(text, 2, 9999, &out), 0);
	ck_assert_uint_eq(out, 12);
	ck_assert_int_eq(parse_uint("1\0002", 3, 9999, &out), -1);
}
END_TEST

static TCase *parse_case(void)
{
	TCase *tc = tcase_create("grammar");

	tcase_add_loop_test(tc, parse_valid, 0, (int)NR(valid));
	tcase_add_loop_test(tc, parse_invalid, 0, (int)NR(invalid));
	tcase_add_loop_test(tc, parse_every_prefix, 0, (int)NR(valid));
	tcase_add_loop_test(tc, format_into_any_size, 0, (int)NR(valid));
	tcase_add_test(tc, parse_name_leaves_no_address);
	tcase_add_test(tc, path_limit);
	tcase_add_test(tc, name_limit);
	tcase_add_test(tc, format_none);
	tcase_add_test(tc, sockaddr_of_each_kind);
	tcase_add_test(tc, sockaddr_of_none);
	tcase_add_test(tc, pick_of_a_range);
	tcase_add_test(tc, uint_limits);
	tcase_add_test(tc, uint_needs_no_nul);
	return tc;
}

static TCase *env_case(void)
{
	TCase *tc = tcase_create("environment");

	tcase_add_checked_fixture(tc, clear_env, clear_env);
	tcase_add_test(tc, env_defaults);
	tcase_add_test(tc, env_endpoint_wins);
	tcase_add_test(tc, env_invalid);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("common/endpoint");

	suite_add_tcase(suite, parse_case());
	suite_add_tcase(suite, env_case());
	return suite_run(suite);
}
