/* SPDX-License-Identifier: Apache-2.0 */
#include "common/vendor_msg.h"
#include "suite.h"

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * A message that is right passes; then one field at a time is broken, with
 * everything else right, and the check must name it. Sizes come first, so a
 * message of another size is never looked into.
 */

#define NR(table) (sizeof(table) / sizeof((table)[0]))

static struct vendor_request connect_request(void)
{
	struct vendor_request req;

	memset(&req, 0xa5, sizeof(req));
	vendor_request_init(&req, VENDOR_CONNECT);
	req.dst.family = AF_INET;
	req.dst.port = 80;
	memcpy(req.dst.ip, "\xc0\0\x02\x01", 4);
	return req;
}

static const char *check_request(const struct vendor_request *req)
{
	return vendor_request_check(req, sizeof(*req));
}

START_TEST(request_initialised)
{
	struct vendor_request req, zero = {0};

	memset(&req, 0xa5, sizeof(req));
	vendor_request_init(&req, VENDOR_PING);
	ck_assert_mem_eq(&req, "yfxp", 4);
	ck_assert_uint_eq(req.version, 1);
	ck_assert_uint_eq(req.op, VENDOR_PING);
	ck_assert_uint_eq(req.size, VENDOR_MSG_SIZE);
	ck_assert_mem_eq(&req.timeout_ms, &zero.timeout_ms, sizeof(req) - 12);
	ck_assert_pstr_eq(check_request(&req), NULL);
	vendor_request_init(&req, VENDOR_PROBE);
	ck_assert_pstr_eq(check_request(&req), NULL);
}
END_TEST

START_TEST(request_of_every_size)
{
	struct vendor_request req = connect_request();

	for (size_t len = 0; len <= 2 * sizeof(req); len++) {
		uint8_t *exact = calloc(1, len ? len : 1);

		ck_assert_ptr_nonnull(exact);
		memcpy(exact, &req, len < sizeof(req) ? len : sizeof(req));
		ck_assert_pstr_eq(vendor_request_check((void *)exact, len),
			len == sizeof(req)
				? NULL
				: "expected a request of 1024 bytes");
		free(exact);
	}
	ck_assert_ptr_nonnull(vendor_request_check(&req, SIZE_MAX));
}
END_TEST

START_TEST(request_header_broken)
{
	static const char magic[] = "not a request: wrong magic or size";
	struct vendor_request req = connect_request();

	req.magic ^= 1u << 31;
	ck_assert_pstr_eq(check_request(&req), magic);
	req = connect_request();
	req.magic = __builtin_bswap32(VENDOR_MAGIC);
	ck_assert_pstr_eq(check_request(&req), magic);
	req = connect_request();
	req.size--;
	ck_assert_pstr_eq(check_request(&req), magic);
	req.size = 0;
	ck_assert_pstr_eq(check_request(&req), magic);
	req = connect_request();
	req.version = 0;
	ck_assert_pstr_eq(check_request(&req), "expected protocol version 1");
	req.version = 2;
	ck_assert_pstr_eq(check_request(&req), "expected protocol version 1");
}
END_TEST

START_TEST(request_operations)
{
	for (unsigned int op = 0; op <= UINT16_MAX; op++) {
		struct vendor_request req = connect_request();

		req.op = (uint16_t)op;
		ck_assert_pstr_eq(check_request(&req),
			(op >= 1 && op <= 5) || op == VENDOR_REJOIN
				? NULL
				: "expected a known operation");
	}
}
END_TEST

START_TEST(request_without_nul)
{
	struct vendor_request req = connect_request();

	memset(req.name, 'n', sizeof(req.name));
	ck_assert_pstr_eq(check_request(&req), "name without its NUL");
	req.op = VENDOR_PING;
	ck_assert_pstr_eq(check_request(&req), "name without its NUL");
	req = connect_request();
	memset(req.endpoint, 'e', sizeof(req.endpoint));
	ck_assert_pstr_eq(check_request(&req), "endpoint without its NUL");
	req.endpoint[sizeof(req.endpoint) - 1] = '\0';
	ck_assert_pstr_eq(check_request(&req), NULL);
}
END_TEST

START_TEST(request_destinations)
{
	static const char one[] =
		"expected one destination, a name or an address";
	struct vendor_request req = connect_request();

	req.dst.family = AF_INET6;
	ck_assert_pstr_eq(check_request(&req), NULL);
	/* both */
	req.name[0] = 'n';
	ck_assert_pstr_eq(check_request(&req), one);
	/* a name, of every length that fits */
	req.dst.family = AF_UNSPEC;
	for (size_t len = 1; len <= VENDOR_NAME_MAX; len++) {
		memset(req.name, 'n', len);
		req.name[len] = '\0';
		ck_assert_pstr_eq(check_request(&req), NULL);
	}
	/* neither */
	req.name[0] = '\0';
	ck_assert_pstr_eq(check_request(&req), one);
	for (unsigned int family = 0; family <= UINT16_MAX; family++) {
		req.dst.family = (uint16_t)family;
		ck_assert_pstr_eq(check_request(&req),
			family == AF_INET || family == AF_INET6 ? NULL : one);
	}
	/* a strange family is no way past it with a name either */
	req.dst.family = AF_UNIX;
	req.name[0] = 'n';
	ck_assert_pstr_eq(check_request(&req), one);
	/* only CONNECT has a destination */
	req.op = VENDOR_PING;
	ck_assert_pstr_eq(check_request(&req), NULL);
}
END_TEST

START_TEST(request_sources)
{
	for (unsigned int family = 0; family <= UINT16_MAX; family++) {
		struct vendor_request req = connect_request();
		bool good = family == AF_UNSPEC || family == AF_INET ||
			    family == AF_INET6;

		req.source.family = (uint16_t)family;
		ck_assert_pstr_eq(check_request(&req),
			good ? NULL
			     : "expected an IPv4 or IPv6 source address");
	}
}
END_TEST

/* Room for a later version: what is not used is not looked at. */
START_TEST(request_unused_bytes)
{
	struct vendor_request req = connect_request();

	memset(req.unused, 0xa5, sizeof(req.unused));
	memset(req.name + 1, 0xa5, sizeof(req.name) - 1);
	req.timeout_ms = UINT32_MAX;
	ck_assert_pstr_eq(check_request(&req), NULL);
}
END_TEST

/* ---- results ---- */

static struct vendor_result result(enum vendor_op op, int status)
{
	struct vendor_result res;

	memset(&res, 0xa5, sizeof(res));
	vendor_result_init(&res, op, status);
	return res;
}

START_TEST(result_initialised)
{
	struct vendor_result res = result(VENDOR_CONNECT, 111), zero = {0};

	ck_assert_mem_eq(&res, "yfxp", 4);
	ck_assert_uint_eq(res.version, 1);
	ck_assert_uint_eq(res.op, VENDOR_CONNECT);
	ck_assert_uint_eq(res.size, 80);
	ck_assert_int_eq(res.status, 111);
	ck_assert_mem_eq(&res.remote, &zero.remote, 48);
}
END_TEST

START_TEST(result_of_every_size)
{
	struct vendor_result res = result(VENDOR_CONNECT, 111);

	for (size_t len = 0; len <= 2 * sizeof(res); len++) {
		uint8_t *exact = calloc(1, len ? len : 1);

		ck_assert_ptr_nonnull(exact);
		memcpy(exact, &res, len < sizeof(res) ? len : sizeof(res));
		ck_assert_pstr_eq(vendor_result_check((void *)exact, len, 0),
			len == sizeof(res) ? NULL
					   : "expected a result of 80 bytes");
		free(exact);
	}
}
END_TEST

START_TEST(result_header_broken)
{
	static const char want[] = "not a result: wrong magic, size or version";
	struct vendor_result res = result(VENDOR_PING, 0);

	res.magic++;
	ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 0), want);
	res = result(VENDOR_PING, 0);
	res.size = VENDOR_MSG_SIZE;
	ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 0), want);
	res = result(VENDOR_PING, 0);
	res.version = 2;
	ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 0), want);
}
END_TEST

START_TEST(result_status)
{
	static const char want[] = "expected a status of 0 or an errno";
	struct vendor_result res = result(VENDOR_PING, -1);

	ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 0), want);
	res.status = INT32_MIN;
	ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 0), want);
	for (int status = 0; status < 200; status++) {
		res.status = status;
		ck_assert_pstr_eq(
			vendor_result_check(&res, sizeof(res), 0), NULL);
	}
}
END_TEST

START_TEST(result_operations)
{
	for (unsigned int op = 0; op <= UINT16_MAX; op++) {
		struct vendor_result res = result(VENDOR_PING, 0);

		res.op = (uint16_t)op;
		ck_assert_pstr_eq(
			vendor_result_check(&res, sizeof(res),
				op == VENDOR_CONNECT || op == VENDOR_ACCEPT
					? 1
					: 0),
			op >= 1 && op <= 6 ? NULL
					   : "expected a known operation");
	}
}
END_TEST

START_TEST(result_addresses)
{
	static const char want[] = "expected IPv4 or IPv6 addresses or none";

	for (unsigned int family = 0; family <= UINT16_MAX; family++) {
		struct vendor_result res = result(VENDOR_CONNECT, 0);
		bool good = family == AF_UNSPEC || family == AF_INET ||
			    family == AF_INET6;

		res.remote.family = (uint16_t)family;
		ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 1),
			good ? NULL : want);
		res.remote.family = AF_UNSPEC;
		res.local.family = (uint16_t)family;
		ck_assert_pstr_eq(vendor_result_check(&res, sizeof(res), 1),
			good ? NULL : want);
	}
}
END_TEST

/* One fd with a CONNECT that succeeded, none with anything else. */
START_TEST(result_fds)
{
	static const struct {
		enum vendor_op op;
		int status, fds;
	} table[] = {
		{VENDOR_CONNECT, 0, 1},
		{VENDOR_CONNECT, 111, 0},
		{VENDOR_PING, 0, 0},
		{VENDOR_PING, 5, 0},
		{VENDOR_PROBE, 0, 0},
		{VENDOR_PROBE, 111, 0},
		{VENDOR_BIND, 0, 0},
		{VENDOR_LISTEN, 0, 0},
		{VENDOR_ACCEPT, 0, 1},
	};

	for (size_t i = 0; i < NR(table); i++) {
		struct vendor_result res = result(table[i].op, table[i].status);

		for (int fds = 0; fds < 4; fds++)
			ck_assert_pstr_eq(
				vendor_result_check(&res, sizeof(res), fds),
				fds == table[i].fds ? NULL
						    : "wrong number of fds for "
						      "this result");
	}
}
END_TEST

/* ---- the socket's path ---- */

static void check_path(const char *env, const char *want)
{
	char buf[108];

	memset(buf, 0xa5, sizeof(buf));
	setenv("SOCKET_VENDOR_PATH", env, 1);
	ck_assert_pstr_eq(vendor_path(buf, sizeof(buf)), NULL);
	ck_assert_str_eq(buf, want);
}

START_TEST(path_from_environment)
{
	char buf[108], longest[110];

	check_path("/run/x.sock", "/run/x.sock");
	check_path("/", "/");
	memset(longest, 'p', sizeof(longest));
	longest[0] = '/';
	longest[107] = '\0';
	check_path(longest, longest);
	longest[107] = 'p';
	longest[108] = '\0';
	setenv("SOCKET_VENDOR_PATH", longest, 1);
	ck_assert_pstr_eq(vendor_path(buf, sizeof(buf)),
		"expected a path of at most 107 bytes");
	setenv("SOCKET_VENDOR_PATH", "run/x.sock", 1);
	ck_assert_pstr_eq(
		vendor_path(buf, sizeof(buf)), "expected an absolute path");
	setenv("SOCKET_VENDOR_PATH", "", 1);
	ck_assert_pstr_eq(
		vendor_path(buf, sizeof(buf)), "expected an absolute path");
}
END_TEST

/* A path that does not fit is refused, never cut to another path. */
START_TEST(path_into_any_size)
{
	char buf[108];

	setenv("SOCKET_VENDOR_PATH", "/run/x.sock", 1);
	for (size_t size = 1; size <= 20; size++) {
		const char *why;

		memset(buf, 0xa5, sizeof(buf));
		why = vendor_path(buf, size);
		ck_assert((why == NULL) == (size > strlen("/run/x.sock")));
		if (!why)
			ck_assert_str_eq(buf, "/run/x.sock");
		ck_assert_uint_eq((uint8_t)buf[size], 0xa5);
	}
}
END_TEST

START_TEST(path_default)
{
	char want[108], buf[108];

	unsetenv("SOCKET_VENDOR_PATH");
	if (geteuid() == 0)
		snprintf(want, sizeof(want), "/run/proxify/vendor.sock");
	else
		snprintf(want, sizeof(want), "/tmp/proxify-%u/vendor.sock",
			geteuid());
	ck_assert_pstr_eq(vendor_path(buf, sizeof(buf)), NULL);
	ck_assert_str_eq(buf, want);
}
END_TEST

/* As other users; only root can become them, and only in a forked test. */
START_TEST(path_default_of_others)
{
	static const struct {
		uid_t uid;
		const char *want;
	} users[] = {
		{10, "/tmp/proxify-10/vendor.sock"},
		{65534, "/tmp/proxify-65534/vendor.sock"},
		{4294967294, "/tmp/proxify-4294967294/vendor.sock"},
	};
	char buf[108];

	unsetenv("SOCKET_VENDOR_PATH");
	if (geteuid() != 0)
		return;
	for (size_t i = 0; i < NR(users); i++) {
		if (seteuid(users[i].uid) == -1)
			continue; /* not mapped in this user namespace */
		ck_assert_pstr_eq(vendor_path(buf, sizeof(buf)), NULL);
		ck_assert_int_eq(seteuid(0), 0);
		ck_assert_str_eq(buf, users[i].want);
	}
}
END_TEST

static TCase *requests_case(void)
{
	TCase *tc = tcase_create("requests");

	tcase_add_test(tc, request_initialised);
	tcase_add_test(tc, request_of_every_size);
	tcase_add_test(tc, request_header_broken);
	tcase_add_test(tc, request_operations);
	tcase_add_test(tc, request_without_nul);
	tcase_add_test(tc, request_destinations);
	tcase_add_test(tc, request_sources);
	tcase_add_test(tc, request_unused_bytes);
	return tc;
}

static TCase *results_case(void)
{
	TCase *tc = tcase_create("results");

	tcase_add_test(tc, result_initialised);
	tcase_add_test(tc, result_of_every_size);
	tcase_add_test(tc, result_header_broken);
	tcase_add_test(tc, result_status);
	tcase_add_test(tc, result_operations);
	tcase_add_test(tc, result_addresses);
	tcase_add_test(tc, result_fds);
	return tc;
}

static TCase *path_case(void)
{
	TCase *tc = tcase_create("path");

	tcase_add_test(tc, path_from_environment);
	tcase_add_test(tc, path_into_any_size);
	tcase_add_test(tc, path_default);
	tcase_add_test(tc, path_default_of_others);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("common/vendor_msg");

	suite_add_tcase(suite, requests_case());
	suite_add_tcase(suite, results_case());
	suite_add_tcase(suite, path_case());
	return suite_run(suite);
}
