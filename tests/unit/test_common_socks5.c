/* SPDX-License-Identifier: Apache-2.0 */
#include "common/socks5.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * A message arrives in any pieces and payload may follow at once. So each
 * valid message is given to its parser in every prefix, in an allocation of
 * exactly that size (a byte read too many is then an error of the address
 * sanitizer), and with payload behind it. Each invalid one carries the length
 * from which on it must be refused: one byte earlier it still could have
 * become a valid message.
 */

#define MESSAGE_MAX 300
#define PAYLOAD     "HTTP/1.1 200 OK\r\n"

/* One parser behind one shape. The output goes to a static of the wrapper. */
typedef ssize_t parser(const uint8_t *buf, size_t len);

static bool got_no_auth;
static struct socks5_request got_request;
static enum socks5_reply got_refusal;
static struct socks5_answer got_answer;

static ssize_t parse_greeting(const uint8_t *buf, size_t len)
{
	return socks5_parse_greeting(buf, len, &got_no_auth);
}

static ssize_t parse_request(const uint8_t *buf, size_t len)
{
	return socks5_parse_request(buf, len, &got_request, &got_refusal);
}

static ssize_t parse_reply(const uint8_t *buf, size_t len)
{
	return socks5_parse_reply(buf, len, &got_answer);
}

/* What the parser says of the first @len bytes, and of nothing behind them. */
static ssize_t parse_prefix(parser *parse, const uint8_t *buf, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);
	ssize_t n;

	ck_assert_ptr_nonnull(exact);
	memcpy(exact, buf, len);
	n = parse(exact, len);
	free(exact);
	return n;
}

/* Every proper prefix asks for more; the whole is taken to its last byte, and
 * the same with payload behind it. */
static void check_every_split(parser *parse, const uint8_t *buf, size_t len)
{
	uint8_t more[MESSAGE_MAX + sizeof(PAYLOAD)];

	ck_assert_uint_le(len, MESSAGE_MAX);
	for (size_t i = 0; i < len; i++)
		ck_assert_msg(parse_prefix(parse, buf, i) == 0,
			"prefix of %zu of %zu bytes", i, len);
	memcpy(more, buf, len);
	memcpy(more + len, PAYLOAD, sizeof(PAYLOAD));
	for (size_t i = 0; i <= sizeof(PAYLOAD); i++)
		ck_assert_msg(
			parse_prefix(parse, more, len + i) == (ssize_t)len,
			"%zu bytes of payload behind %zu", i, len);
}

/* Refused from @from bytes on, and not before. */
static void check_refused_from(
	parser *parse, const uint8_t *buf, size_t len, size_t from)
{
	for (size_t i = 0; i <= len; i++)
		ck_assert_msg(
			parse_prefix(parse, buf, i) == (i < from ? 0 : -1),
			"%zu of %zu bytes, refused from %zu", i, len, from);
}

static struct ip_port ip_port(int family, const void *ip, uint16_t port)
{
	struct ip_port addr = {.family = (uint16_t)family, .port = port};

	memcpy(addr.ip, ip, family == AF_INET ? 4 : 16);
	return addr;
}

/* ---- greeting ---- */

START_TEST(greeting_every_split)
{
	static const struct {
		uint8_t buf[8];
		size_t len;
		bool no_auth;
	} greetings[] = {
		{{5, 1, 0}, 3, true},
		{{5, 0}, 2, false},
		{{5, 1, 2}, 3, false},
		{{5, 1, 0xff}, 3, false},
		{{5, 3, 1, 2, 0}, 5, true},
		{{5, 3, 0, 1, 2}, 5, true},
		/* a zero behind the methods is not one of them */
		{{5, 2, 1, 2}, 4, false},
	};

	for (size_t i = 0; i < sizeof(greetings) / sizeof(greetings[0]); i++) {
		check_every_split(
			parse_greeting, greetings[i].buf, greetings[i].len);
		ck_assert(got_no_auth == greetings[i].no_auth);
	}
}
END_TEST

START_TEST(greeting_all_methods)
{
	uint8_t buf[SOCKS5_GREETING_MAX] = {5, 255};

	for (size_t i = 2; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i - 1);
	check_every_split(parse_greeting, buf, sizeof(buf));
	ck_assert(!got_no_auth);
	buf[sizeof(buf) - 1] = SOCKS5_METHOD_OK;
	check_every_split(parse_greeting, buf, sizeof(buf));
	ck_assert(got_no_auth);
}
END_TEST

START_TEST(greeting_other_versions)
{
	for (int version = 0; version < 256; version++) {
		uint8_t buf[3] = {(uint8_t)version, 1, 0};

		if (version != SOCKS5_VERSION)
			check_refused_from(parse_greeting, buf, sizeof(buf), 1);
	}
}
END_TEST

START_TEST(greeting_incomplete_says_no)
{
	static const uint8_t buf[] = {5, 2, 0, 1};

	/* "no authentication" is there already, but the message is not whole:
	 * the answer must not depend on how the bytes were cut. */
	got_no_auth = true;
	ck_assert_int_eq(parse_greeting(buf, 3), 0);
	ck_assert(!got_no_auth);
}
END_TEST

START_TEST(method_every_split)
{
	static const uint8_t ok[] = {5, 0};

	check_every_split(socks5_parse_method, ok, sizeof(ok));
	for (int version = 0; version < 256; version++) {
		uint8_t buf[2] = {(uint8_t)version, 0};

		if (version != SOCKS5_VERSION)
			check_refused_from(
				socks5_parse_method, buf, sizeof(buf), 1);
	}
	for (int method = 1; method < 256; method++) {
		uint8_t buf[2] = {5, (uint8_t)method};

		check_refused_from(socks5_parse_method, buf, sizeof(buf), 2);
	}
}
END_TEST

START_TEST(method_written)
{
	uint8_t buf[SOCKS5_METHOD_LEN + 1] = {0, 0, 0xa5};

	ck_assert_uint_eq(
		socks5_write_method(buf, SOCKS5_METHOD_OK), SOCKS5_METHOD_LEN);
	ck_assert_mem_eq(buf, "\x05\x00\xa5", 3);
	ck_assert_uint_eq(socks5_write_method(buf, SOCKS5_METHOD_NONE),
		SOCKS5_METHOD_LEN);
	ck_assert_mem_eq(buf, "\x05\xff\xa5", 3);
}
END_TEST

/* ---- request ---- */

START_TEST(request_ipv4)
{
	static const uint8_t buf[] = {5, 1, 0, 1, 93, 184, 216, 34, 0x1f, 0x90};
	struct ip_port want = ip_port(AF_INET, buf + 4, 8080);

	check_every_split(parse_request, buf, sizeof(buf));
	ck_assert_int_eq(got_request.command, SOCKS5_CONNECT);
	ck_assert(ip_port_equal(&got_request.dst.addr, &want));
	ck_assert_uint_eq(got_request.dst.name_len, 0);
	ck_assert_str_eq(got_request.dst.name, "");
}
END_TEST

START_TEST(request_ipv6)
{
	static const uint8_t buf[] = {5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff};
	struct ip_port want = ip_port(AF_INET6, buf + 4, 65535);

	check_every_split(parse_request, buf, sizeof(buf));
	ck_assert(ip_port_equal(&got_request.dst.addr, &want));
	ck_assert_uint_eq(got_request.dst.name_len, 0);
}
END_TEST

START_TEST(request_names_of_every_length)
{
	for (size_t len = 1; len <= SOCKS5_NAME_MAX; len++) {
		uint8_t buf[SOCKS5_REQUEST_MAX] = {5, 1, 0, 3, (uint8_t)len};

		memset(buf + 5, 'a' + (int)(len % 26), len);
		buf[5 + len] = 0x01;
		buf[6 + len] = 0xbb;
		memset(&got_request, 0xa5, sizeof(got_request));
		check_every_split(parse_request, buf, 7 + len);
		ck_assert_int_eq(got_request.dst.addr.family, AF_UNSPEC);
		ck_assert_uint_eq(got_request.dst.addr.port, 443);
		ck_assert_uint_eq(got_request.dst.name_len, len);
		ck_assert_uint_eq(strlen(got_request.dst.name), len);
		ck_assert_mem_eq(got_request.dst.name, buf + 5, len);
	}
}
END_TEST

START_TEST(request_any_command)
{
	for (int command = 0; command < 256; command++) {
		uint8_t buf[10] = {5, (uint8_t)command, 0, 1};

		check_every_split(parse_request, buf, sizeof(buf));
		ck_assert_int_eq(got_request.command, command);
		ck_assert_uint_eq(got_request.dst.addr.port, 0);
	}
}
END_TEST

START_TEST(request_refused)
{
	static const struct {
		uint8_t buf[16];
		size_t len, from;
		enum socks5_reply reply;
	} bad[] = {
		{{4, 1, 0, 80, 1, 2, 3, 4, 0}, 9, 1, SOCKS5_GENERAL_FAILURE},
		{{'G', 'E', 'T', ' ', '/'}, 5, 1, SOCKS5_GENERAL_FAILURE},
		{{5, 1, 1, 1, 1, 2, 3, 4, 0, 80}, 10, 3,
			SOCKS5_GENERAL_FAILURE},
		/* RSV is looked at before ATYP */
		{{5, 1, 0xff, 9}, 4, 3, SOCKS5_GENERAL_FAILURE},
		{{5, 1, 0, 0, 1, 2, 3, 4, 0, 80}, 10, 4,
			SOCKS5_ATYP_NOT_SUPPORTED},
		{{5, 1, 0, 2, 1, 2, 3, 4, 0, 80}, 10, 4,
			SOCKS5_ATYP_NOT_SUPPORTED},
		{{5, 1, 0, 5}, 4, 4, SOCKS5_ATYP_NOT_SUPPORTED},
		{{5, 3, 0, 0xff}, 4, 4, SOCKS5_ATYP_NOT_SUPPORTED},
		{{5, 1, 0, 3, 0, 0, 80}, 7, 7, SOCKS5_GENERAL_FAILURE},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		got_refusal = SOCKS5_SUCCEEDED;
		check_refused_from(
			parse_request, bad[i].buf, bad[i].len, bad[i].from);
		ck_assert_msg(got_refusal == bad[i].reply,
			"entry %zu: reply %d", i, (int)got_refusal);
	}
}
END_TEST

START_TEST(request_bytes_allowed_in_names)
{
	for (int c = 0; c < 256; c++) {
		for (size_t at = 0; at < 3; at++) {
			uint8_t buf[] = {5, 1, 0, 3, 3, 'a', 'b', 'c', 0, 80};

			buf[5 + at] = (uint8_t)c;
			if (c > ' ' && c < 0x7f) {
				check_every_split(
					parse_request, buf, sizeof(buf));
				continue;
			}
			check_refused_from(
				parse_request, buf, sizeof(buf), sizeof(buf));
			ck_assert_int_eq(got_refusal, SOCKS5_GENERAL_FAILURE);
		}
	}
}
END_TEST

START_TEST(request_leaves_output_alone_until_whole)
{
	static const uint8_t buf[] = {5, 1, 0, 1, 1, 2, 3, 4, 0, 80};
	struct socks5_request before;

	memset(&before, 0xa5, sizeof(before));
	memcpy(&got_request, &before, sizeof(before));
	for (size_t i = 0; i < sizeof(buf); i++)
		ck_assert_int_eq(parse_prefix(parse_request, buf, i), 0);
	ck_assert_mem_eq(&got_request, &before, sizeof(before));
}
END_TEST

/* Nothing received yet, and no buffer yet either. */
START_TEST(nothing_yet)
{
	ck_assert_int_eq(parse_greeting(NULL, 0), 0);
	ck_assert_int_eq(parse_request(NULL, 0), 0);
	ck_assert_int_eq(parse_reply(NULL, 0), 0);
	ck_assert_int_eq(socks5_parse_method(NULL, 0), 0);
	ck_assert_uint_eq(socks5_reply_need(NULL, 0), 5);
}
END_TEST

/* Several messages in one read come off the front one after the other. */
START_TEST(greeting_request_and_payload_in_one_read)
{
	static const uint8_t buf[] = {
		5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 80, 'G', 'E', 'T'};
	size_t len = sizeof(buf);
	const uint8_t *at = buf;
	ssize_t n;

	n = parse_greeting(at, len);
	ck_assert_int_eq(n, 3);
	ck_assert(got_no_auth);
	at += n;
	len -= (size_t)n;
	n = parse_request(at, len);
	ck_assert_int_eq(n, 10);
	ck_assert_uint_eq(got_request.dst.addr.port, 80);
	ck_assert_mem_eq(at + n, "GET", len - (size_t)n);
}
END_TEST

/* ---- what the client writes ---- */

START_TEST(hello_connect)
{
	static const uint8_t v4[] = {93, 184, 216, 34};
	static const uint8_t v6[] = {
		0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
	struct socks5_addr dst = {.addr = ip_port(AF_INET, v4, 80)};
	uint8_t buf[3 + SOCKS5_REQUEST_MAX];

	ck_assert_uint_eq(socks5_write_hello(buf, SOCKS5_CONNECT, &dst), 13);
	ck_assert_mem_eq(buf,
		"\x05\x01\x00"
		"\x05\x01\x00\x01\x5d\xb8\xd8\x22\x00\x50",
		13);
	dst.addr = ip_port(AF_INET6, v6, 443);
	ck_assert_uint_eq(socks5_write_hello(buf, SOCKS5_CONNECT, &dst), 25);
	ck_assert_mem_eq(buf,
		"\x05\x01\x00\x05\x01\x00\x04"
		"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
		25);
}
END_TEST

START_TEST(hello_name)
{
	struct socks5_addr dst = {
		.addr.port = 8080, .name = "example.org", .name_len = 11};
	uint8_t buf[3 + SOCKS5_REQUEST_MAX];

	ck_assert_uint_eq(socks5_write_hello(buf, SOCKS5_CONNECT, &dst), 21);
	ck_assert_mem_eq(buf,
		"\x05\x01\x00\x05\x01\x00\x03\x0b"
		"example.org\x1f\x90",
		21);
}
END_TEST

/* BIND: IPv4 0.0.0.0 and the port, 0 for any. */
START_TEST(hello_bind)
{
	struct socks5_addr dst = {.addr.port = 8080};
	uint8_t buf[3 + SOCKS5_REQUEST_MAX];

	ck_assert_uint_eq(socks5_write_hello(buf, SOCKS5_BIND, &dst), 13);
	ck_assert_mem_eq(
		buf, "\x05\x01\x00\x05\x02\x00\x01\0\0\0\0\x1f\x90", 13);
	dst.addr.port = 0;
	dst.addr.family = AF_INET;
	ck_assert_uint_eq(socks5_write_hello(buf, SOCKS5_BIND, &dst), 13);
	ck_assert_mem_eq(buf, "\x05\x01\x00\x05\x02\x00\x01\0\0\0\0\0\0", 13);
}
END_TEST

/* Whatever the client writes, the server reads the same. */
START_TEST(hello_round_trip)
{
	for (size_t len = 0; len <= SOCKS5_NAME_MAX; len++) {
		uint8_t buf[3 + SOCKS5_REQUEST_MAX + 1];
		struct socks5_addr dst;
		size_t n;

		memset(&dst, 0, sizeof(dst));
		dst.addr.port = (uint16_t)(len * 257);
		dst.name_len = (uint8_t)len;
		memset(dst.name, 'x', len);
		if (len == 0) {
			dst.addr.family = AF_INET6;
			memset(dst.addr.ip, 0xfd, 16);
		}
		buf[sizeof(buf) - 1] = 0xa5;
		n = socks5_write_hello(buf, SOCKS5_CONNECT, &dst);
		ck_assert_uint_eq(buf[sizeof(buf) - 1], 0xa5);
		ck_assert_int_eq(parse_prefix(parse_greeting, buf, n), 3);
		ck_assert(got_no_auth);
		check_every_split(parse_request, buf + 3, n - 3);
		ck_assert_mem_eq(&got_request.dst, &dst, sizeof(dst));
	}
}
END_TEST

/* ---- replies ---- */

START_TEST(reply_first_bind)
{
	struct ip_port bound = {.port = 8080};
	uint8_t buf[SOCKS5_REPLY_V6_LEN];

	ck_assert_uint_eq(socks5_write_reply(buf, SOCKS5_SUCCEEDED, &bound),
		SOCKS5_REPLY_V4_LEN);
	ck_assert_mem_eq(buf, "\x05\0\0\x01\0\0\0\0\x1f\x90", 10);
	check_every_split(parse_reply, buf, SOCKS5_REPLY_V4_LEN);
	ck_assert_uint_eq(got_answer.reply, SOCKS5_SUCCEEDED);
	ck_assert_int_eq(got_answer.bound.addr.family, AF_INET);
	ck_assert_uint_eq(got_answer.bound.addr.port, 8080);
}
END_TEST

/* AF_UNSPEC is zero on the wire, even where its bytes hold something. */
START_TEST(reply_of_no_address)
{
	struct ip_port bound = {.family = AF_UNSPEC, .port = 1};
	uint8_t buf[SOCKS5_REPLY_V6_LEN];

	memset(bound.ip, 0xa5, sizeof(bound.ip));
	ck_assert_uint_eq(socks5_write_reply(buf, SOCKS5_REFUSED, &bound),
		SOCKS5_REPLY_V4_LEN);
	ck_assert_mem_eq(buf, "\x05\x05\0\x01\0\0\0\0\0\x01", 10);
}
END_TEST

START_TEST(reply_second_bind)
{
	static const uint8_t v4[] = {192, 0, 2, 1};
	struct ip_port client = ip_port(AF_INET, v4, 40000);
	uint8_t buf[SOCKS5_REPLY_V6_LEN];

	ip_port_map(&client);
	ck_assert_uint_eq(socks5_write_reply(buf, SOCKS5_SUCCEEDED, &client),
		SOCKS5_REPLY_V6_LEN);
	ck_assert_mem_eq(buf,
		"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\x02\x01"
		"\x9c\x40",
		22);
	check_every_split(parse_reply, buf, sizeof(buf));
	ck_assert(ip_port_equal(&got_answer.bound.addr, &client));
}
END_TEST

START_TEST(reply_every_code)
{
	for (int reply = 0; reply < 256; reply++) {
		uint8_t buf[10] = {5, (uint8_t)reply, 0, 1, 1, 2, 3, 4, 0, 80};

		check_every_split(parse_reply, buf, sizeof(buf));
		ck_assert_int_eq(got_answer.reply, reply);
	}
}
END_TEST

START_TEST(reply_refused)
{
	for (int c = 0; c < 256; c++) {
		uint8_t version[10] = {(uint8_t)c, 0, 0, 1};
		uint8_t atyp[10] = {5, 0, 0, (uint8_t)c};

		if (c != SOCKS5_VERSION)
			check_refused_from(
				parse_reply, version, sizeof(version), 1);
		if (c != SOCKS5_IPV4 && c != SOCKS5_NAME && c != SOCKS5_IPV6)
			check_refused_from(parse_reply, atyp, sizeof(atyp), 4);
	}
}
END_TEST

/* The reserved byte is none of our business: some servers leave rubbish. */
START_TEST(reply_reserved_byte)
{
	for (int rsv = 0; rsv < 256; rsv++) {
		uint8_t buf[10] = {5, 0, (uint8_t)rsv, 1};

		check_every_split(parse_reply, buf, sizeof(buf));
	}
}
END_TEST

/* The host is not trusted: its name ends up in a log line like any other, and
 * strlen() must agree with its length. An empty one harms nobody. */
START_TEST(reply_with_a_name)
{
	for (int c = 0; c < 256; c++) {
		uint8_t buf[] = {5, 0, 0, 3, 3, 'a', (uint8_t)c, 'c', 0, 80};

		if (c <= ' ' || c >= 0x7f) {
			check_refused_from(
				parse_reply, buf, sizeof(buf), sizeof(buf));
			continue;
		}
		check_every_split(parse_reply, buf, sizeof(buf));
		ck_assert_int_eq(got_answer.bound.addr.family, AF_UNSPEC);
		ck_assert_uint_eq(got_answer.bound.addr.port, 80);
		ck_assert_uint_eq(strlen(got_answer.bound.name), 3);
	}
	check_every_split(parse_reply, (const uint8_t *)"\5\5\0\3\0\0\0", 7);
	ck_assert_uint_eq(got_answer.reply, SOCKS5_REFUSED);
	ck_assert_str_eq(got_answer.bound.name, "");
}
END_TEST

/* ---- not one byte too many ---- */

/*
 * Read a reply of @len bytes, with payload behind it, in pieces of at most
 * @chunk, asking each time. The peek before each read is an exact allocation.
 */
static void read_by_need(const uint8_t *reply, size_t len, size_t chunk)
{
	size_t got = 0;

	for (size_t turn = 0; turn <= len; turn++) {
		uint8_t *exact = malloc(got ? got : 1);
		size_t need;

		ck_assert_ptr_nonnull(exact);
		memcpy(exact, reply, got);
		need = socks5_reply_need(exact, got);
		ck_assert_msg((need == 0) == (got == len),
			"need %zu at %zu of %zu", need, got, len);
		ck_assert_msg(got + need <= len,
			"%zu + %zu takes payload of %zu", got, need, len);
		ck_assert_int_eq(
			parse_reply(exact, got), got == len ? (ssize_t)len : 0);
		free(exact);
		if (need == 0)
			return;
		got += need < chunk ? need : chunk;
	}
	ck_abort_msg("no end after %zu reads", len);
}

static size_t make_reply(uint8_t *buf, uint8_t atyp, size_t name_len)
{
	size_t n = 0;

	memset(buf, 'n', SOCKS5_REPLY_MAX);
	buf[n++] = SOCKS5_VERSION;
	buf[n++] = SOCKS5_SUCCEEDED;
	buf[n++] = 0;
	buf[n++] = atyp;
	if (atyp == SOCKS5_NAME) {
		buf[n++] = (uint8_t)name_len;
		n += name_len;
	} else {
		n += atyp == SOCKS5_IPV4 ? 4 : 16;
	}
	return n + 2;
}

START_TEST(need_never_takes_payload)
{
	uint8_t buf[SOCKS5_REPLY_MAX];
	size_t len;

	for (size_t chunk = 1; chunk <= 24; chunk++) {
		len = make_reply(buf, SOCKS5_IPV4, 0);
		ck_assert_uint_eq(len, SOCKS5_REPLY_V4_LEN);
		read_by_need(buf, len, chunk);
		len = make_reply(buf, SOCKS5_IPV6, 0);
		ck_assert_uint_eq(len, SOCKS5_REPLY_V6_LEN);
		read_by_need(buf, len, chunk);
	}
	for (size_t name_len = 1; name_len <= SOCKS5_NAME_MAX; name_len++) {
		len = make_reply(buf, SOCKS5_NAME, name_len);
		read_by_need(buf, len, 1);
		read_by_need(buf, len, SIZE_MAX);
	}
}
END_TEST

/* An address and a name as short as can be: two reads, not one per byte. */
START_TEST(need_takes_two_reads)
{
	uint8_t buf[SOCKS5_REPLY_MAX];

	make_reply(buf, SOCKS5_IPV4, 0);
	ck_assert_uint_eq(socks5_reply_need(buf, 0), 5);
	ck_assert_uint_eq(socks5_reply_need(buf, 5), 5);
	make_reply(buf, SOCKS5_IPV6, 0);
	ck_assert_uint_eq(socks5_reply_need(buf, 5), 17);
	make_reply(buf, SOCKS5_NAME, 255);
	ck_assert_uint_eq(socks5_reply_need(buf, 5), 257);
}
END_TEST

START_TEST(need_is_zero_behind_the_reply)
{
	uint8_t buf[SOCKS5_REPLY_MAX + 8];
	size_t len = make_reply(buf, SOCKS5_IPV4, 0);

	memset(buf + len, 'p', 8);
	for (size_t i = 0; i <= 8; i++)
		ck_assert_uint_eq(socks5_reply_need(buf, len + i), 0);
}
END_TEST

/* No waiting for the rest of what can never be a reply: a carrier that leads
 * to something else than a proxy, say. */
START_TEST(need_is_zero_for_no_reply)
{
	for (int c = 0; c < 256; c++) {
		uint8_t version[10] = {(uint8_t)c, 0, 0, 1};
		uint8_t atyp[10] = {5, 0, 0, (uint8_t)c};

		for (size_t len = 1; len <= sizeof(version); len++) {
			ck_assert((socks5_reply_need(version, len) == 0) ==
				  (parse_reply(version, len) != 0));
			ck_assert((socks5_reply_need(atyp, len) == 0) ==
				  (parse_reply(atyp, len) != 0));
		}
	}
}
END_TEST

/* ---- errors ---- */

START_TEST(errno_of_every_reply)
{
	static const int want[] = {
		[SOCKS5_SUCCEEDED] = 0,
		[SOCKS5_GENERAL_FAILURE] = ECONNABORTED,
		[SOCKS5_NOT_ALLOWED] = EACCES,
		[SOCKS5_NETWORK_UNREACHABLE] = ENETUNREACH,
		[SOCKS5_HOST_UNREACHABLE] = EHOSTUNREACH,
		[SOCKS5_REFUSED] = ECONNREFUSED,
		[SOCKS5_TTL_EXPIRED] = ETIMEDOUT,
		[SOCKS5_COMMAND_NOT_SUPPORTED] = EOPNOTSUPP,
		[SOCKS5_ATYP_NOT_SUPPORTED] = EAFNOSUPPORT,
	};

	for (int reply = 0; reply < 256; reply++)
		ck_assert_msg(socks5_errno((uint8_t)reply) ==
				      (reply < 9 ? want[reply] : ECONNABORTED),
			"reply %d", reply);
}
END_TEST

START_TEST(reply_of_every_errno)
{
	static const struct {
		int err;
		enum socks5_reply reply;
	} want[] = {
		{0, SOCKS5_SUCCEEDED},
		{EACCES, SOCKS5_NOT_ALLOWED},
		{EPERM, SOCKS5_NOT_ALLOWED},
		{ENETUNREACH, SOCKS5_NETWORK_UNREACHABLE},
		{ENETDOWN, SOCKS5_NETWORK_UNREACHABLE},
		{EADDRNOTAVAIL, SOCKS5_NETWORK_UNREACHABLE},
		{EHOSTUNREACH, SOCKS5_HOST_UNREACHABLE},
		{EHOSTDOWN, SOCKS5_HOST_UNREACHABLE},
		{ECONNREFUSED, SOCKS5_REFUSED},
		{ECONNRESET, SOCKS5_REFUSED},
		{ETIMEDOUT, SOCKS5_TTL_EXPIRED},
		{EAFNOSUPPORT, SOCKS5_ATYP_NOT_SUPPORTED},
	};
	size_t nr = sizeof(want) / sizeof(want[0]);

	for (int err = -1; err < 200; err++) {
		enum socks5_reply reply = SOCKS5_GENERAL_FAILURE;

		for (size_t i = 0; i < nr; i++)
			if (want[i].err == err)
				reply = want[i].reply;
		ck_assert_msg(
			socks5_reply_from_errno(err) == reply, "errno %d", err);
	}
}
END_TEST

/* What a connect() can end with comes out at the other side as it went in. */
START_TEST(errno_round_trip)
{
	static const int errs[] = {0, EACCES, ENETUNREACH, EHOSTUNREACH,
		ECONNREFUSED, ETIMEDOUT, EAFNOSUPPORT, ECONNABORTED};

	for (size_t i = 0; i < sizeof(errs) / sizeof(errs[0]); i++)
		ck_assert_int_eq(
			socks5_errno((uint8_t)socks5_reply_from_errno(errs[i])),
			errs[i]);
}
END_TEST

static TCase *requests_case(void)
{
	TCase *tc = tcase_create("server");

	tcase_add_test(tc, greeting_every_split);
	tcase_add_test(tc, greeting_all_methods);
	tcase_add_test(tc, greeting_other_versions);
	tcase_add_test(tc, greeting_incomplete_says_no);
	tcase_add_test(tc, method_written);
	tcase_add_test(tc, request_ipv4);
	tcase_add_test(tc, request_ipv6);
	tcase_add_test(tc, request_names_of_every_length);
	tcase_add_test(tc, request_any_command);
	tcase_add_test(tc, request_refused);
	tcase_add_test(tc, request_bytes_allowed_in_names);
	tcase_add_test(tc, request_leaves_output_alone_until_whole);
	tcase_add_test(tc, nothing_yet);
	tcase_add_test(tc, greeting_request_and_payload_in_one_read);
	return tc;
}

static TCase *replies_case(void)
{
	TCase *tc = tcase_create("client");

	tcase_add_test(tc, method_every_split);
	tcase_add_test(tc, hello_connect);
	tcase_add_test(tc, hello_name);
	tcase_add_test(tc, hello_bind);
	tcase_add_test(tc, hello_round_trip);
	tcase_add_test(tc, reply_first_bind);
	tcase_add_test(tc, reply_of_no_address);
	tcase_add_test(tc, reply_second_bind);
	tcase_add_test(tc, reply_every_code);
	tcase_add_test(tc, reply_refused);
	tcase_add_test(tc, reply_reserved_byte);
	tcase_add_test(tc, reply_with_a_name);
	tcase_add_test(tc, need_never_takes_payload);
	tcase_add_test(tc, need_takes_two_reads);
	tcase_add_test(tc, need_is_zero_behind_the_reply);
	tcase_add_test(tc, need_is_zero_for_no_reply);
	tcase_add_test(tc, errno_of_every_reply);
	tcase_add_test(tc, reply_of_every_errno);
	tcase_add_test(tc, errno_round_trip);
	return tc;
}

int main(void)
{
	Suite *suite = suite_create("common/socks5");

	suite_add_tcase(suite, requests_case());
	suite_add_tcase(suite, replies_case());
	return suite_run(suite);
}
