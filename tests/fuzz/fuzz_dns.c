/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "resolv/dns_msg.h"
#include "resolv/dns_tcp.h"
#include "resolv/resolv_conf.h"
#include "resolv/servers.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * The first byte of the input chooses what the rest is:
 *
 *	query    what a client sends. If it is to be forwarded, errors that are
 *	         written for it are answers to it, and it answers itself when
 *	         turned into an answer, in any case of letters
 *	answer   what a server sends to a fixed query; cut to each size that
 *	         clients have, the rest is still an answer to that query
 *	stream   frames over a socket pair in pieces of changing size; what is
 *	         handed out is what the frames say, whatever the pieces
 *	conf     a resolv.conf, parsed and rewritten
 *	servers  a list of servers, formatted and read back
 *
 * Inputs are copied to allocations of their exact size.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* assert() goes away under NDEBUG; a broken property here never does. */
static void must(bool holds)
{
	if (!holds)
		abort();
}

/* ---- query ---- */

static void check_error(const uint8_t *msg, const struct dns_query *q)
{
	uint8_t out[DNS_ERROR_LEN_MAX];
	size_t len = dns_write_error(out, msg, q, DNS_SERVFAIL);
	struct dns_query again;

	must(len <= sizeof(out));
	must(dns_is_answer(out, len));
	must(dns_id(out) == q->id);
	must(dns_rcode_of(out) == DNS_SERVFAIL);
	/* a forwarder must never answer an answer */
	must(dns_query_parse(&again, out, len) == DNS_IGNORE);
	if (q->question_end > DNS_HEADER_LEN)
		must(dns_answer_match(msg, q->question_end, out, len) ==
			DNS_MATCH);
}

static void fuzz_query(uint8_t *msg, size_t len)
{
	struct dns_query q;
	enum dns_verdict verdict = dns_query_parse(&q, msg, len);
	size_t i;

	must(q.udp_size >= DNS_UDP_SIZE_MIN && q.udp_size <= DNS_UDP_SIZE_MAX);
	must(q.question_end >= DNS_HEADER_LEN);
	must(q.question_end <= DNS_HEADER_LEN + DNS_QUESTION_MAX);
	if (verdict == DNS_IGNORE)
		return;
	must(q.question_end <= len);
	check_error(msg, &q);
	if (verdict != DNS_FORWARD)
		return;
	must(dns_question_end(msg, len) == q.question_end);
	must(dns_answer_match(msg, q.question_end, msg, len) == DNS_GARBAGE);
	uint8_t *answer = malloc(len);

	if (!answer)
		return;
	memcpy(answer, msg, len);
	answer[2] |= 0x80;
	for (i = DNS_HEADER_LEN; i + 4 < q.question_end; i++)
		if (answer[i] >= 'a' && answer[i] <= 'z')
			answer[i] -= 32;
	must(dns_answer_match(msg, q.question_end, answer, len) == DNS_MATCH);
	free(answer);
}

/* ---- answer ---- */

static const uint8_t fixed_query[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0"
				     "\7example\4test\0\0\1\0\1";
#define FIXED_LEN (sizeof(fixed_query) - 1)

static void fuzz_answer(const uint8_t *msg, size_t len)
{
	static const uint16_t sizes[] = {512, 1232, 4096};
	static uint8_t out[DNS_MSG_MAX];
	enum dns_match match =
		dns_answer_match(fixed_query, FIXED_LEN, msg, len);
	unsigned i;

	must(match == DNS_GARBAGE || dns_is_answer(msg, len));
	if (match != DNS_MATCH)
		return;
	for (i = 0; i < 6; i++) {
		struct dns_query q = {
			.question_end = FIXED_LEN,
			.udp_size = sizes[i / 2],
			.edns = i & 1,
		};
		size_t cut;

		if (len <= q.udp_size)
			continue;
		cut = dns_truncate(out, msg, len, &q);
		must(cut >= FIXED_LEN && cut <= q.udp_size);
		must(out[2] & 2);
		must(dns_answer_match(fixed_query, FIXED_LEN, out, cut) ==
			DNS_MATCH);
		/* all the records that it says it has are there */
		out[2] &= 0x7f;
		must(dns_query_parse(&q, out, cut) == DNS_FORWARD);
		must(q.edns == (i & 1));
	}
}

/* ---- stream ---- */

static uint8_t *expect; /* the input, to compare with */
static size_t expect_at, expect_len;
static bool ended;

static void on_message(struct dns_tcp *tcp, uint8_t *msg, size_t len)
{
	must(expect_len - expect_at >= 2 + len);
	must((size_t)(expect[expect_at] << 8 | expect[expect_at + 1]) == len);
	must(memcmp(expect + expect_at + 2, msg, len) == 0);
	expect_at += 2 + len;
	/* stop now and then; what was read waits */
	if (len % 5 == 3)
		dns_tcp_set_reading(tcp, false);
}

static void on_closed(struct dns_tcp *tcp, int err)
{
	ended = true;
}

static void fuzz_stream(uint8_t *bytes, size_t len)
{
	static const struct dns_tcp_ops ops = {
		.message = on_message, .closed = on_closed};
	struct ev_loop *loop = ev_default_loop(0);
	struct dns_tcp tcp;
	size_t sent = 0, piece = 1;
	int pair[2];
	int idle = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == -1)
		return;
	expect = bytes;
	expect_at = 0;
	expect_len = len;
	ended = false;
	dns_tcp_init(&tcp);
	dns_tcp_open(&tcp, loop, pair[0], 4096, &ops);
	while (!ended && idle++ < 100000) {
		size_t n = piece < len - sent ? piece : len - sent;

		piece = piece * 3 % 61 + 1;
		if (n > 0) {
			ssize_t done = write(pair[1], bytes + sent, n);

			sent += done > 0 ? (size_t)done : 0;
		} else {
			shutdown(pair[1], SHUT_WR);
		}
		ev_run(loop, EVRUN_NOWAIT);
		dns_tcp_set_reading(&tcp, true);
	}
	must(ended);
	/* nothing whole is left */
	must(len - expect_at < 2 ||
		len - expect_at < 2 + (size_t)(bytes[expect_at] << 8 |
					       bytes[expect_at + 1]));
	dns_tcp_close(&tcp);
	closefd(&pair[1]);
}

/* ---- text ---- */

static void fuzz_conf(const char *text, size_t len)
{
	static const struct ip_port one = {
		.family = AF_INET, .port = 53, .ip = {127, 0, 0, 1}};
	char *out = malloc(len + 64);
	struct resolv_conf conf;
	size_t n;

	resolv_conf_parse(&conf, text, len);
	must(conf.nr_servers <= RESOLV_SERVERS);
	if (!out)
		return;
	n = resolv_conf_rewrite(out, len + 64, text, len, &one, 1);
	must(n > 0 && n <= len + 64);
	resolv_conf_parse(&conf, out, n);
	must(conf.nr_servers == 1 && conf.nr_bad == 0);
	must(ip_port_equal(&conf.servers[0], &one));
	free(out);
}

static void fuzz_servers(const char *text)
{
	struct socks5_addr servers[3], again;
	struct ip_port addrs[3];
	char back[DNS_SERVER_STRLEN];
	unsigned nr, one, i;

	if (dns_listen_parse(addrs, 3, &nr, text) == NULL)
		must(nr > 0 && nr <= 3);
	if (dns_servers_parse(servers, 3, &nr, text) != NULL)
		return;
	must(nr > 0 && nr <= 3);
	for (i = 0; i < nr; i++) {
		dns_server_format(&servers[i], back, sizeof(back));
		must(strlen(back) + 1 < sizeof(back));
		must(dns_servers_parse(&again, 1, &one, back) == NULL);
		must(ip_port_equal(&again.addr, &servers[i].addr));
		must(strcmp(again.name, servers[i].name) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;
	uint8_t kind;

	if (size == 0)
		return 0;
	kind = *data++ % 5;
	size--;
	copy = malloc(kind == 4 ? size + 1 : size + !size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	switch (kind) {
	case 0: fuzz_query(copy, size); break;
	case 1: fuzz_answer(copy, size); break;
	case 2: fuzz_stream(copy, size); break;
	case 3: fuzz_conf((char *)copy, size); break;
	default:
		copy[size] = '\0';
		fuzz_servers((char *)copy);
		break;
	}
	free(copy);
	return 0;
}
