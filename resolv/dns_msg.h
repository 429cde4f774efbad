/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_DNS_MSG_H
#define RESOLV_DNS_MSG_H

/*
 * The least of DNS that a forwarder has to understand (RFC 1035 section 4,
 * RFC 6891), as pure functions over buffers: no I/O, no heap, no state.
 *
 * Theory of operation
 *
 * A forwarder moves messages whole. It must know where the question ends (to
 * compare it, and to write an error that carries it), how large an answer a
 * UDP client takes (the OPT record), and where records end (to cut an answer
 * that is too large). It follows no compression pointer, looks into no record
 * but OPT and keeps no name: a pointer ends a name, and that is all that has
 * to be known to step over it. So nothing here can loop, and each function
 * looks at each byte at most once.
 *
 * Bytes come from programs in the enclave and from servers outside; both are
 * taken as hostile. Lengths are checked before every read.
 *
 * Two questions are the same if type and class are equal and the names differ
 * at most in the case of ASCII letters (RFC 4343). Byte-exact comparison would
 * add the entropy of "0x20" clients against forged answers, but the transport
 * upstream is a TCP connection, which nobody off its path can inject into;
 * meanwhile there are servers that answer in lower case whatever was asked. A
 * client that cares still sees the question exactly as the server sent it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DNS_PORT         53
#define DNS_HEADER_LEN   12
#define DNS_MSG_MAX      65535
#define DNS_NAME_LEN_MAX 255
#define DNS_QUESTION_MAX (DNS_NAME_LEN_MAX + 4)
#define DNS_UDP_SIZE_MIN 512   /* RFC 1035 section 2.3.4 */
#define DNS_UDP_SIZE_MAX 65507 /* what fits into one IPv4 datagram */
#define DNS_OPT_LEN      11    /* an OPT record without options */
/* The longest message that dns_write_error() writes. */
#define DNS_ERROR_LEN_MAX (DNS_HEADER_LEN + DNS_QUESTION_MAX + DNS_OPT_LEN)

enum dns_rcode {
	DNS_NOERROR = 0,
	DNS_FORMERR = 1,
	DNS_SERVFAIL = 2,
	DNS_NXDOMAIN = 3,
	DNS_NOTIMP = 4,
	DNS_REFUSED = 5,
};

enum dns_verdict {
	DNS_FORWARD, /* a question for a server */
	DNS_REPLY,   /* answer it with struct dns_query's rcode */
	DNS_IGNORE,  /* not a query at all; answering it could start a loop */
};

/**
 * struct dns_query - what a forwarder remembers of a query
 * @id:           as the client chose it
 * @question_end: offset behind the question, or DNS_HEADER_LEN if it has none
 *                that can be repeated in an answer
 * @udp_size:     largest answer it takes over UDP, 512 to 65507 bytes
 * @edns:         it had an OPT record, so an answer must have one
 * @dnssec_ok:    the DO bit of that record
 * @rcode:        what to answer when the verdict is DNS_REPLY
 */
struct dns_query {
	uint16_t id;
	uint16_t question_end;
	uint16_t udp_size;
	bool edns;
	bool dnssec_ok;
	enum dns_rcode rcode;
};

/** dns_id() - the message's id; @msg has at least two bytes */
static inline uint16_t dns_id(const uint8_t *msg)
{
	return (uint16_t)(msg[0] << 8 | msg[1]);
}

/** dns_set_id() - change the message's id; @msg has at least two bytes */
static inline void dns_set_id(uint8_t *msg, uint16_t id)
{
	msg[0] = (uint8_t)(id >> 8);
	msg[1] = (uint8_t)id;
}

/**
 * dns_question_end() - where the one question of a message ends
 * @msg: the message
 * @len: its length in bytes
 *
 * Return: the offset behind it, at most DNS_HEADER_LEN + DNS_QUESTION_MAX, or
 * 0 if the message does not have exactly one whole question. A compression
 * pointer in it is refused: there is nothing before it to point to.
 */
size_t dns_question_end(const uint8_t *msg, size_t len);

/**
 * dns_query_parse() - look at a message from a client
 * @out: always filled
 * @msg: the message
 * @len: its length in bytes
 *
 * Refused with FORMERR: not exactly one question, records that do not fit into
 * the message. With NOTIMP: other operations without a question (RFC 8490).
 * With REFUSED: zone transfers, whose answer is more than one message.
 *
 * Return: what to do with it.
 */
enum dns_verdict dns_query_parse(
	struct dns_query *out, const uint8_t *msg, size_t len);

enum dns_match {
	DNS_MATCH,      /* the answer to this query */
	DNS_MATCH_BARE, /* an error without a question: FORMERR, NOTIMP, ... */
	DNS_MISMATCH,   /* an answer to something else */
	DNS_GARBAGE,    /* not an answer at all */
};

/**
 * dns_answer_match() - does a message answer a query?
 * @query:        the query as sent
 * @question_end: of @query, from dns_query_parse()
 * @msg, @len:    what came back
 *
 * Compares the operation and the question; ids are the caller's matter.
 */
enum dns_match dns_answer_match(const uint8_t *query, size_t question_end,
	const uint8_t *msg, size_t len);

/** dns_is_answer() - could this be an answer: a header that says so? */
bool dns_is_answer(const uint8_t *msg, size_t len);

/** dns_rcode_of() - the four bits in the header; @msg has a whole header */
enum dns_rcode dns_rcode_of(const uint8_t *msg);

/**
 * dns_write_error() - an answer without records
 * @buf:   at least DNS_ERROR_LEN_MAX bytes
 * @query: the query's bytes, at least its header and question
 * @info:  of dns_query_parse()
 * @rcode: what to say
 *
 * Return: the bytes written.
 */
size_t dns_write_error(uint8_t *buf, const uint8_t *query,
	const struct dns_query *info, enum dns_rcode rcode);

/**
 * dns_truncate() - cut an answer to what its client takes over UDP
 * @buf:      at least max(@info->udp_size, DNS_ERROR_LEN_MAX) bytes
 * @msg:      the answer; it matched the query
 * @len:      longer than @info->udp_size
 * @info:     of the query
 *
 * Sets TC and keeps as many whole records of the answer section as fit, for
 * libcs that use what they get instead of asking again over TCP (musl before
 * 1.2.4). Drops the other sections, and writes an OPT record if the query had
 * one.
 *
 * Return: the bytes written.
 */
size_t dns_truncate(uint8_t *buf, const uint8_t *msg, size_t len,
	const struct dns_query *info);

#endif
