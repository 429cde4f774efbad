/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_PROXY_DNS_H
#define TEST_PROXY_DNS_H

/*
 * A name server for the proxy's unit tests, on the loop under test. It answers
 * by the first label of the name:
 *
 *	good    A 127.0.0.1, AAAA ::1       nx      no such name
 *	four    A 127.0.0.1, no AAAA        empty   neither A nor AAAA
 *	many    twenty A records            fail    SERVFAIL
 *	                                    silent  no answer at all
 *
 * It needs port 53, so a namespace of its own.
 */

#include "test_proxy_net.h"

#define DNS_A    1
#define DNS_AAAA 28

struct dns {
	ev_io io;
	int fd;
	char conf[64]; /* a resolv.conf that names this server */
	int asked;
};

static inline size_t dns_put_answer(uint8_t *at, int type, uint8_t last)
{
	static const uint8_t head[] = {0xc0, 0x0c, 0, 0, 0, 1, 0, 0, 0, 1, 0};
	static const uint8_t a[4] = {127, 0, 0, 0};

	memcpy(at, head, sizeof(head));
	at[3] = (uint8_t)type;
	memset(at + 12, 0, 16);
	if (type == DNS_A)
		memcpy(at + 12, a, 4);
	at[11] = type == DNS_A ? 4 : 16;
	at[11 + at[11]] = last;
	return 12u + at[11];
}

static inline bool dns_is(const uint8_t *label, const char *name)
{
	return label[0] == strlen(name) &&
	       memcmp(label + 1, name, label[0]) == 0;
}

/* Where the question ends: name, type, class. A query may go on (EDNS). */
static inline uint8_t *dns_question_end(uint8_t *msg, ssize_t n)
{
	ssize_t at = 12;

	while (at < n && msg[at])
		at += 1 + msg[at];
	at += 5;
	return at <= n ? msg + at : NULL;
}

static inline void dns_on_query(struct ev_loop *loop, ev_io *w, int revents)
{
	struct dns *dns = w->data;
	const struct sockaddr *sa;
	union sockaddr_any from;
	socklen_t from_len = sizeof(from);
	uint8_t msg[1500];
	uint8_t *label = msg + 12;
	int type, rcode = 0, nr = 0;
	ssize_t n = recvfrom(dns->fd, msg, 512, 0, &from.sa, &from_len);
	uint8_t *end;

	end = dns_question_end(msg, n);
	if (!end) {
		ck_abort_msg("a query of %zd bytes", n);
		return; /* which gcc 10 does not know of ck_abort_msg() */
	}
	dns->asked++;
	type = end[-3];
	if (dns_is(label, "silent"))
		return;
	if (dns_is(label, "good"))
		nr = 1;
	else if (dns_is(label, "four"))
		nr = type == DNS_A;
	else if (dns_is(label, "many"))
		nr = type == DNS_A ? 20 : 0;
	else if (dns_is(label, "fail"))
		rcode = 2;
	else if (!dns_is(label, "empty"))
		rcode = 3;
	msg[2] = 0x81;
	msg[3] = (uint8_t)(0x80 | rcode);
	msg[7] = (uint8_t)nr;
	msg[11] = 0; /* no EDNS */
	for (int i = 1; i <= nr; i++)
		end += dns_put_answer(end, type, (uint8_t)i);
	sa = &from.sa;
	sendto(dns->fd, msg, (size_t)(end - msg), 0, sa, from_len);
}

static inline void dns_write_conf(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

static inline void dns_start(struct dns *dns, struct ev_loop *loop)
{
	struct ip_port addr = {
		.family = AF_INET, .port = 53, .ip = {127, 0, 0, 1}};
	union sockaddr_any any;
	socklen_t len = ip_port_to_sockaddr(&addr, &any);
	int fd;

	memset(dns, 0, sizeof(*dns));
	dns->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ge(dns->fd, 0);
	ck_assert_int_eq(bind(dns->fd, &any.sa, len), 0);
	ev_io_init(&dns->io, dns_on_query, dns->fd, EV_READ);
	dns->io.data = dns;
	ev_io_start(loop, &dns->io);
	snprintf(dns->conf, sizeof(dns->conf), "/tmp/test-proxy-resolv-XXXXXX");
	fd = mkstemp(dns->conf);
	ck_assert_int_ge(fd, 0);
	close(fd);
	dns_write_conf(dns->conf,
		"nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
}

static inline void dns_stop(struct dns *dns, struct ev_loop *loop)
{
	ev_io_stop(loop, &dns->io);
	close(dns->fd);
	unlink(dns->conf);
}

#endif
