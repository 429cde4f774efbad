/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/dns_msg.h"

#include <assert.h>
#include <string.h>

enum {
	OFS_FLAGS = 2,
	OFS_QDCOUNT = 4,
	OFS_ANCOUNT = 6,
	OFS_NSCOUNT = 8,
	OFS_ARCOUNT = 10,
};

/* Of the two flag bytes, RFC 1035 section 4.1.1. */
#define FLAG_QR     0x80 /* first byte: this is an answer */
#define FLAG_OPCODE 0x78
#define FLAG_TC     0x02
#define FLAG_RD     0x01
#define FLAG_RA     0x80 /* second byte */
#define FLAG_RCODE  0x0f

#define OPCODE_QUERY 0

#define TYPE_OPT  41
#define TYPE_IXFR 251
#define TYPE_AXFR 252

#define LABEL_MAX     63
#define LABEL_POINTER 0xc0
#define RR_FIXED_LEN  10     /* type, class, TTL, length of the data */
#define OPT_DO        0x8000 /* in the low half of the TTL */
#define OPT_OWN_SIZE  1232   /* what the stub itself takes over UDP */

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/**
 * skip_name() - step over a name
 * @pos:     where it starts
 * @pointer: is a compression pointer allowed to end it?
 *
 * Return: the offset behind it, or 0 if it is not whole or not a name.
 */
static size_t skip_name(
	const uint8_t *msg, size_t len, size_t pos, bool pointer)
{
	size_t start = pos;

	while (pos < len && pos - start < DNS_NAME_LEN_MAX) {
		uint8_t label = msg[pos];

		if (label == 0)
			return pos + 1;
		if ((label & LABEL_POINTER) == LABEL_POINTER)
			return pointer && len - pos >= 2 ? pos + 2 : 0;
		if (label > LABEL_MAX)
			return 0;
		pos += 1u + label;
	}
	return 0;
}

/**
 * skip_record() - step over a resource record
 * @fixed: set to the offset of its type
 *
 * Return: the offset behind it, or 0 if it is not whole.
 */
static size_t skip_record(
	const uint8_t *msg, size_t len, size_t pos, size_t *fixed)
{
	size_t data;

	pos = skip_name(msg, len, pos, true);
	if (pos == 0 || len - pos < RR_FIXED_LEN)
		return 0;
	*fixed = pos;
	data = get16(msg + pos + 8);
	pos += RR_FIXED_LEN;
	return len - pos >= data ? pos + data : 0;
}

size_t dns_question_end(const uint8_t *msg, size_t len)
{
	size_t pos;

	if (len < DNS_HEADER_LEN || get16(msg + OFS_QDCOUNT) != 1)
		return 0;
	pos = skip_name(msg, len, DNS_HEADER_LEN, false);
	if (pos == 0 || len - pos < 4)
		return 0;
	return pos + 4;
}

static uint16_t clamp_udp_size(uint16_t size)
{
	if (size < DNS_UDP_SIZE_MIN)
		return DNS_UDP_SIZE_MIN;
	return size > DNS_UDP_SIZE_MAX ? DNS_UDP_SIZE_MAX : size;
}

/**
 * find_opt() - step over all records of a query and look at its OPT
 * @out: udp_size, edns and dnssec_ok are set
 * @pos: end of the question
 *
 * Return: whether every record is whole.
 */
static bool find_opt(
	struct dns_query *out, const uint8_t *msg, size_t len, size_t pos)
{
	unsigned additional = get16(msg + OFS_ARCOUNT);
	unsigned count = get16(msg + OFS_ANCOUNT) + get16(msg + OFS_NSCOUNT) +
			 additional;
	size_t fixed;

	/* A record is at least 11 bytes, so this ends with the message. */
	for (; count > 0; count--) {
		pos = skip_record(msg, len, pos, &fixed);
		if (pos == 0)
			return false;
		if (get16(msg + fixed) != TYPE_OPT || out->edns ||
			count > additional)
			continue;
		out->edns = true;
		out->udp_size = clamp_udp_size(get16(msg + fixed + 2));
		out->dnssec_ok = get16(msg + fixed + 6) & OPT_DO;
	}
	return true;
}

enum dns_verdict dns_query_parse(
	struct dns_query *out, const uint8_t *msg, size_t len)
{
	uint16_t type;
	size_t end;

	*out = (struct dns_query){
		.question_end = DNS_HEADER_LEN,
		.udp_size = DNS_UDP_SIZE_MIN,
		.rcode = DNS_FORMERR,
	};
	if (len < DNS_HEADER_LEN || msg[OFS_FLAGS] & FLAG_QR)
		return DNS_IGNORE;
	out->id = dns_id(msg);
	end = dns_question_end(msg, len);
	if (end == 0) {
		if ((msg[OFS_FLAGS] & FLAG_OPCODE) != OPCODE_QUERY &&
			get16(msg + OFS_QDCOUNT) == 0)
			out->rcode = DNS_NOTIMP;
		return DNS_REPLY;
	}
	out->question_end = (uint16_t)end;
	if (!find_opt(out, msg, len, end))
		return DNS_REPLY;
	type = get16(msg + end - 4);
	if (type == TYPE_AXFR || type == TYPE_IXFR) {
		out->rcode = DNS_REFUSED;
		return DNS_REPLY;
	}
	return DNS_FORWARD;
}

bool dns_is_answer(const uint8_t *msg, size_t len)
{
	return len >= DNS_HEADER_LEN && msg[OFS_FLAGS] & FLAG_QR;
}

enum dns_rcode dns_rcode_of(const uint8_t *msg)
{
	return (enum dns_rcode)(msg[OFS_FLAGS + 1] & FLAG_RCODE);
}

static uint8_t lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

/*
 * Length bytes of labels are at most 63 and so below 'A': comparing all bytes
 * of two well-formed names as if they were text compares them label by label.
 * The last four bytes are type and class, where case is not a thing.
 */
static bool question_equal(const uint8_t *a, const uint8_t *b, size_t end)
{
	size_t i;

	for (i = DNS_HEADER_LEN; i < end - 4; i++)
		if (lower(a[i]) != lower(b[i]))
			return false;
	return memcmp(a + end - 4, b + end - 4, 4) == 0;
}

enum dns_match dns_answer_match(const uint8_t *query, size_t question_end,
	const uint8_t *msg, size_t len)
{
	enum dns_rcode rcode;

	if (!dns_is_answer(msg, len))
		return DNS_GARBAGE;
	if ((msg[OFS_FLAGS] ^ query[OFS_FLAGS]) & FLAG_OPCODE)
		return DNS_MISMATCH;
	if (get16(msg + OFS_QDCOUNT) == 0) {
		rcode = dns_rcode_of(msg);
		return rcode == DNS_NOERROR || rcode == DNS_NXDOMAIN
			       ? DNS_MISMATCH
			       : DNS_MATCH_BARE;
	}
	if (dns_question_end(msg, len) != question_end)
		return DNS_MISMATCH;
	return question_equal(query, msg, question_end) ? DNS_MATCH
							: DNS_MISMATCH;
}

/* Return: the bytes written, DNS_OPT_LEN or 0; ARCOUNT is set to match. */
static size_t write_opt(uint8_t *msg, size_t pos, const struct dns_query *info)
{
	uint8_t *opt = msg + pos;

	put16(msg + OFS_ARCOUNT, info->edns);
	if (!info->edns)
		return 0;
	memset(opt, 0, DNS_OPT_LEN);
	put16(opt + 1, TYPE_OPT);
	put16(opt + 3, OPT_OWN_SIZE);
	put16(opt + 7, info->dnssec_ok ? OPT_DO : 0);
	return DNS_OPT_LEN;
}

size_t dns_write_error(uint8_t *buf, const uint8_t *query,
	const struct dns_query *info, enum dns_rcode rcode)
{
	size_t end = info->question_end;

	assert(end >= DNS_HEADER_LEN);
	assert(end <= DNS_HEADER_LEN + DNS_QUESTION_MAX);
	memcpy(buf, query, end);
	dns_set_id(buf, info->id);
	buf[OFS_FLAGS] &= FLAG_OPCODE | FLAG_RD;
	buf[OFS_FLAGS] |= FLAG_QR;
	buf[OFS_FLAGS + 1] =
		(uint8_t)(FLAG_RA | ((unsigned)rcode & FLAG_RCODE));
	put16(buf + OFS_QDCOUNT, end > DNS_HEADER_LEN);
	put16(buf + OFS_ANCOUNT, 0);
	put16(buf + OFS_NSCOUNT, 0);
	return end + write_opt(buf, end, info);
}

size_t dns_truncate(uint8_t *buf, const uint8_t *msg, size_t len,
	const struct dns_query *info)
{
	size_t room = info->udp_size - (info->edns ? DNS_OPT_LEN : 0);
	size_t end = info->question_end;
	uint16_t count = get16(msg + OFS_ANCOUNT);
	uint16_t kept = 0;
	size_t fixed;

	assert(len >= end && end <= room);
	while (kept < count) {
		size_t next = skip_record(msg, len, end, &fixed);

		if (next == 0 || next > room)
			break;
		end = next;
		kept++;
	}
	memcpy(buf, msg, end);
	buf[OFS_FLAGS] |= FLAG_TC;
	put16(buf + OFS_ANCOUNT, kept);
	put16(buf + OFS_NSCOUNT, 0);
	return end + write_opt(buf, end, info);
}
