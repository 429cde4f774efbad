/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/dns_msg.h"
#include "suite.h"
#include "test_dns_wire.h"

#include <stdlib.h>

static struct wire w;
static struct dns_query q;

static enum dns_verdict parse(void)
{
	/* Its exact size on the heap, for the sanitizers. */
	uint8_t *copy = malloc(w.len ? w.len : 1);
	enum dns_verdict verdict;

	memcpy(copy, w.buf, w.len);
	verdict = dns_query_parse(&q, copy, w.len);
	free(copy);
	return verdict;
}

START_TEST(plain_query)
{
	wire_query(&w, 0x1234, "www.example.com", TYPE_A);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	ck_assert_uint_eq(q.id, 0x1234);
	ck_assert_uint_eq(q.question_end, w.len);
	ck_assert_uint_eq(q.udp_size, 512);
	ck_assert(!q.edns && !q.dnssec_ok);
}
END_TEST

START_TEST(root_query)
{
	wire_query(&w, 1, "", 2);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	ck_assert_uint_eq(q.question_end, 12 + 1 + 4);
}
END_TEST

START_TEST(edns_query)
{
	static const struct {
		unsigned said, taken;
	} sizes[] = {{0, 512}, {511, 512}, {512, 512}, {1232, 1232},
		{4096, 4096}, {65535, 65507}};

	wire_query(&w, 1, "example.com", TYPE_A);
	wire_set16(&w, 10, 1);
	wire_opt(&w, sizes[_i].said, 0x8000);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	ck_assert(q.edns && q.dnssec_ok);
	ck_assert_uint_eq(q.udp_size, sizes[_i].taken);
}
END_TEST

/* The OPT record may stand behind another one (a TSIG stands behind it). */
START_TEST(opt_among_others)
{
	wire_query(&w, 1, "example.com", TYPE_A);
	wire_set16(&w, 10, 3);
	wire_a(&w, 0x7f000001);
	wire_opt(&w, 1400, 0);
	wire_a(&w, 0x7f000001);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	ck_assert(q.edns && !q.dnssec_ok);
	ck_assert_uint_eq(q.udp_size, 1400);
}
END_TEST

/* Records that are no more than begun behind it change nothing about it. */
START_TEST(opt_then_nothing)
{
	wire_query(&w, 1, "example.com", TYPE_A);
	wire_set16(&w, 10, 2);
	wire_opt(&w, 16, 0);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_FORMERR);
	ck_assert_uint_eq(q.udp_size, 512);
}
END_TEST

START_TEST(cut_anywhere)
{
	size_t whole, len;

	wire_query_edns(&w, 7, "www.example.com", TYPE_A, 4096);
	whole = w.len;
	for (len = 0; len < whole; len++) {
		w.len = len;
		ck_assert_int_eq(parse(), len < 12 ? DNS_IGNORE : DNS_REPLY);
		if (len >= 12)
			ck_assert_int_eq(q.rcode, DNS_FORMERR);
	}
	w.len = whole;
	ck_assert_int_eq(parse(), DNS_FORWARD);
}
END_TEST

START_TEST(answers_are_ignored)
{
	wire_query(&w, 7, "example.com", TYPE_A);
	w.buf[2] |= 0x80;
	ck_assert_int_eq(parse(), DNS_IGNORE);
}
END_TEST

START_TEST(bad_names)
{
	static const char pointer[] = "\xc0\x0c\0\1\0\1";
	static const char label[] = "\x40"
				    "a\0\0\1\0\1";
	static const char unended[] = "\3www";
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {{pointer, sizeof(pointer) - 1}, {label, sizeof(label) - 1},
		{unended, sizeof(unended) - 1}, {"", 0}};

	wire_header(&w, 7, 0x0100, 1, 0, 0, 0);
	wire_bytes(&w, bad[_i].bytes, bad[_i].len);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_FORMERR);
	ck_assert_uint_eq(q.question_end, DNS_HEADER_LEN);
}
END_TEST

/* A name of 255 bytes is one, a name of 256 is not. */
START_TEST(longest_name)
{
	char name[256];
	int i;

	memset(name, 'x', sizeof(name));
	for (i = 63; i < 254; i += 64)
		name[i] = '.';
	name[253] = '\0'; /* 253 letters and dots: 255 bytes */
	wire_query(&w, 7, name, TYPE_A);
	ck_assert_uint_eq(w.len, 12 + 255 + 4);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	name[253] = 'x';
	name[254] = '\0';
	wire_query(&w, 7, name, TYPE_A);
	ck_assert_int_eq(parse(), DNS_REPLY);
}
END_TEST

START_TEST(number_of_questions)
{
	wire_query(&w, 7, "example.com", TYPE_A);
	wire_set16(&w, 4, 0);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_FORMERR);
	wire_set16(&w, 4, 2);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_FORMERR);
	/* Operations without a question are told that they are not known. */
	wire_header(&w, 7, 6 << 11, 0, 0, 0, 0);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_NOTIMP);
}
END_TEST

START_TEST(transfers_are_refused)
{
	wire_query(&w, 7, "example.com", 251 + (unsigned)_i);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_REFUSED);
	ck_assert_uint_eq(q.question_end, w.len);
}
END_TEST

/* More records than the message has bytes for. */
START_TEST(count_without_records)
{
	wire_query(&w, 7, "example.com", TYPE_A);
	wire_set16(&w, 6 + 2 * (size_t)_i, 65535);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_int_eq(q.rcode, DNS_FORMERR);
}
END_TEST

static enum dns_match match(const struct wire *query, const struct wire *answer)
{
	return dns_answer_match(query->buf,
		dns_question_end(query->buf, query->len), answer->buf,
		answer->len);
}

static struct wire a;

static void answer_to(const char *name, unsigned type, unsigned class)
{
	wire_header(&a, 99, 0x8180, 1, 1, 0, 0);
	wire_name(&a, name);
	wire_u16(&a, type);
	wire_u16(&a, class);
	wire_a(&a, 0x7f000001);
}

START_TEST(match_by_question)
{
	static const struct {
		const char *name;
		unsigned type, class;
		enum dns_match match;
	} table[] = {
		{"www.example.com", TYPE_A, 1, DNS_MATCH},
		{"WWW.eXample.COM", TYPE_A, 1, DNS_MATCH},
		{"www.example.com", TYPE_AAAA, 1, DNS_MISMATCH},
		{"www.example.com", TYPE_A, 3, DNS_MISMATCH},
		{"wwx.example.com", TYPE_A, 1, DNS_MISMATCH},
		{"www.example.con", TYPE_A, 1, DNS_MISMATCH},
		{"www.example.co", TYPE_A, 1, DNS_MISMATCH},
		{"www.example", TYPE_A, 1, DNS_MISMATCH},
		{"wwwwexample.com", TYPE_A, 1, DNS_MISMATCH},
		{"", TYPE_A, 1, DNS_MISMATCH},
	};

	wire_query(&w, 7, "www.example.com", TYPE_A);
	answer_to(table[_i].name, table[_i].type, table[_i].class);
	ck_assert_int_eq(match(&w, &a), table[_i].match);
}
END_TEST

/* '@' and '`', '[' and '{' differ by the same bit as letters do. */
START_TEST(only_letters_have_case)
{
	wire_query(&w, 7, "a@[b.test", TYPE_A);
	answer_to("a`{b.test", TYPE_A, 1);
	ck_assert_int_eq(match(&w, &a), DNS_MISMATCH);
	wire_query(&w, 7, "example.test", 'A' << 8 | 'A');
	answer_to("example.test", 'a' << 8 | 'a', 1);
	ck_assert_int_eq(match(&w, &a), DNS_MISMATCH);
}
END_TEST

START_TEST(match_other)
{
	size_t len, whole;

	wire_query(&w, 7, "www.example.com", TYPE_A);
	/* not an answer */
	ck_assert_int_eq(match(&w, &w), DNS_GARBAGE);
	/* cut: no header, then no question, then fine (records are not read) */
	answer_to("www.example.com", TYPE_A, 1);
	whole = a.len;
	for (len = 0; len < whole; len++) {
		uint8_t *copy = malloc(len ? len : 1);

		memcpy(copy, a.buf, len);
		ck_assert_int_eq(dns_answer_match(w.buf, w.len, copy, len),
			len < 12      ? DNS_GARBAGE
			: len < w.len ? DNS_MISMATCH
				      : DNS_MATCH);
		free(copy);
	}
	/* another operation */
	a.buf[2] |= 4 << 3;
	ck_assert_int_eq(match(&w, &a), DNS_MISMATCH);
	/* errors may come without the question, answers may not */
	wire_header(&a, 7, 0x8181, 0, 0, 0, 0);
	ck_assert_int_eq(match(&w, &a), DNS_MATCH_BARE);
	wire_header(&a, 7, 0x8180, 0, 0, 0, 0);
	ck_assert_int_eq(match(&w, &a), DNS_MISMATCH);
	wire_header(&a, 7, 0x8183, 0, 0, 0, 0);
	ck_assert_int_eq(match(&w, &a), DNS_MISMATCH);
}
END_TEST

START_TEST(error_answer)
{
	uint8_t out[DNS_ERROR_LEN_MAX];
	size_t len;

	wire_query(&w, 0xbeef, "www.example.com", TYPE_A);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	len = dns_write_error(out, w.buf, &q, DNS_SERVFAIL);
	ck_assert_uint_eq(len, w.len);
	ck_assert_uint_eq(dns_id(out), 0xbeef);
	ck_assert_uint_eq(wire_get16(out + 2), 0x8182); /* QR RD RA SERVFAIL */
	ck_assert_uint_eq(wire_get16(out + 4), 1);
	ck_assert_mem_eq(out + 6, "\0\0\0\0\0\0", 6);
	ck_assert_mem_eq(out + 12, w.buf + 12, w.len - 12);
}
END_TEST

START_TEST(error_answer_with_edns)
{
	uint8_t out[DNS_ERROR_LEN_MAX];
	size_t end, len;

	wire_query(&w, 0xbeef, "www.example.com", TYPE_A);
	end = w.len;
	wire_set16(&w, 10, 1);
	wire_opt(&w, 4096, 0x8000);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	/* the id that it is sent on with is another one */
	dns_set_id(w.buf, 1);
	len = dns_write_error(out, w.buf, &q, DNS_REFUSED);
	ck_assert_uint_eq(len, end + DNS_OPT_LEN);
	ck_assert_uint_eq(dns_id(out), 0xbeef);
	ck_assert_uint_eq(wire_get16(out + 10), 1);
	ck_assert_mem_eq(out + end, "\0\0\x29\x04\xd0\0\0\x80\0\0\0", 11);
}
END_TEST

START_TEST(error_answer_without_question)
{
	uint8_t out[DNS_ERROR_LEN_MAX];

	wire_header(&w, 5, 0x0100, 2, 0, 0, 0);
	ck_assert_int_eq(parse(), DNS_REPLY);
	ck_assert_uint_eq(dns_write_error(out, w.buf, &q, q.rcode), 12);
	ck_assert_mem_eq(out, "\0\5\x81\x81\0\0\0\0\0\0\0\0", 12);
}
END_TEST

static void many_addresses(unsigned count)
{
	unsigned i;

	wire_query(&a, 7, "many.example.com", TYPE_A);
	wire_set16(&a, 2, 0x8180);
	wire_set16(&a, 6, count);
	for (i = 0; i < count; i++)
		wire_a(&a, 0xc0000200 + i);
	wire_set16(&a, 8, 1);
	wire_a(&a, 1);
	wire_set16(&a, 10, 1);
	wire_opt(&a, 1232, 0);
}

/* Whole records that fit, TC, and nothing else. */
START_TEST(truncate_plain)
{
	uint8_t out[512];
	size_t len, end;
	size_t kept;

	wire_query(&w, 7, "many.example.com", TYPE_A);
	end = w.len;
	ck_assert_int_eq(parse(), DNS_FORWARD);
	many_addresses(60);
	len = dns_truncate(out, a.buf, a.len, &q);
	kept = (512 - end) / 16;
	ck_assert_uint_eq(len, end + kept * 16);
	ck_assert_uint_eq(wire_get16(out + 2), 0x8380);
	ck_assert_uint_eq(wire_get16(out + 6), kept);
	ck_assert_mem_eq(out + 8, "\0\0\0\0", 4);
	ck_assert_mem_eq(out + 12, a.buf + 12, len - 12);
}
END_TEST

START_TEST(truncate_edns)
{
	uint8_t out[1232];
	size_t len, end;
	size_t kept;

	wire_query(&w, 7, "many.example.com", TYPE_A);
	end = w.len;
	wire_set16(&w, 10, 1);
	wire_opt(&w, 1232, 0);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	many_addresses(200);
	len = dns_truncate(out, a.buf, a.len, &q);
	kept = (1232 - 11 - end) / 16;
	ck_assert_uint_eq(len, end + kept * 16 + 11);
	ck_assert_uint_eq(wire_get16(out + 6), kept);
	ck_assert_mem_eq(out + 8, "\0\0\0\1", 4);
	ck_assert_mem_eq(out + len - 11, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
}
END_TEST

/* Records that are none: the question alone. */
START_TEST(truncate_garbage)
{
	uint8_t out[512];
	size_t len;

	wire_query(&w, 7, "many.example.com", TYPE_A);
	ck_assert_int_eq(parse(), DNS_FORWARD);
	wire_query(&a, 7, "many.example.com", TYPE_A);
	wire_set16(&a, 2, 0x8180);
	wire_set16(&a, 6, 65535);
	while (a.len < 4000)
		wire_u8(&a, 0x80);
	len = dns_truncate(out, a.buf, a.len, &q);
	ck_assert_uint_eq(len, w.len);
	ck_assert_uint_eq(wire_get16(out + 6), 0);
	ck_assert_uint_eq(wire_get16(out + 2), 0x8380);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("dns_msg");
	TCase *tc = tcase_create("query");

	tcase_add_test(tc, plain_query);
	tcase_add_test(tc, root_query);
	tcase_add_loop_test(tc, edns_query, 0, 6);
	tcase_add_test(tc, opt_among_others);
	tcase_add_test(tc, opt_then_nothing);
	tcase_add_test(tc, cut_anywhere);
	tcase_add_test(tc, answers_are_ignored);
	tcase_add_loop_test(tc, bad_names, 0, 4);
	tcase_add_test(tc, longest_name);
	tcase_add_test(tc, number_of_questions);
	tcase_add_loop_test(tc, transfers_are_refused, 0, 2);
	tcase_add_loop_test(tc, count_without_records, 0, 3);
	suite_add_tcase(s, tc);
	tc = tcase_create("match");
	tcase_add_loop_test(tc, match_by_question, 0, 10);
	tcase_add_test(tc, only_letters_have_case);
	tcase_add_test(tc, match_other);
	suite_add_tcase(s, tc);
	tc = tcase_create("write");
	tcase_add_test(tc, error_answer);
	tcase_add_test(tc, error_answer_with_edns);
	tcase_add_test(tc, error_answer_without_question);
	tcase_add_test(tc, truncate_plain);
	tcase_add_test(tc, truncate_edns);
	tcase_add_test(tc, truncate_garbage);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
