/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/socks5.h"
#include "vendor/dial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * The input is what a host proxy sends in answer to a greeting and a request,
 * with whatever it sends afterwards; its first byte says where it is cut in
 * two. The codec takes it first, byte by byte and whole, and both must agree.
 * Then a real dial gets it over a unix socket and must agree with the codec:
 * the same outcome, and on success the application finds every byte behind the
 * reply, and the first of them first.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TURNS 16

/* assert() goes away under NDEBUG; a broken property here never does. */
static void must(bool holds)
{
	if (!holds)
		abort();
}

/**
 * struct verdict - what the codec says of the input
 * @taken:  bytes of both answers, or 0 if they are not whole
 * @bad:    it can never become an answer
 */
struct verdict {
	size_t taken;
	bool bad;
	struct socks5_answer answer;
};

/* ---- the codec ---- */

/* What a parser said of a prefix holds for every longer one. */
static void check_reply(const uint8_t *data, size_t size, struct verdict *v)
{
	struct socks5_answer answer;
	ssize_t before = 0;

	for (size_t len = 0; len <= size && len <= SOCKS5_REPLY_MAX; len++) {
		uint8_t *exact = malloc(len ? len : 1);
		ssize_t n;

		must(exact != NULL);
		memcpy(exact, data, len);
		n = socks5_parse_reply(exact, len, &answer);
		must(before == 0 || n == before);
		must(n <= (ssize_t)len);
		must(n != 0 || socks5_reply_need(exact, len) > 0);
		must(n <= 0 || socks5_reply_need(exact, len) == 0);
		/* What it needs is never more than there will be. */
		must(n != 0 || len + socks5_reply_need(exact, len) <=
				       SOCKS5_REPLY_MAX);
		free(exact);
		before = n;
	}
	v->bad = before == -1;
	if (before > 0) {
		v->taken = SOCKS5_METHOD_LEN + (size_t)before;
		v->answer = answer;
	}
}

static void check_codec(const uint8_t *data, size_t size, struct verdict *v)
{
	size_t len = size < SOCKS5_METHOD_LEN ? size : SOCKS5_METHOD_LEN;
	ssize_t n = socks5_parse_method(data, len);

	memset(v, 0, sizeof(*v));
	must(n != 0 || len < SOCKS5_METHOD_LEN);
	v->bad = n == -1;
	if (n > 0)
		check_reply(data + n, size - (size_t)n, v);
}

/* ---- the dial ---- */

struct stage {
	struct ev_loop *loop;
	struct endpoint ep;
	int listener;
	char dir[32];
};

static struct stage stage = {.listener = -1};

static void strike(void)
{
	unlink(stage.ep.text);
	rmdir(stage.dir);
}

static void set_up(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (stage.listener != -1)
		return;
	stage.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	snprintf(stage.dir, sizeof(stage.dir), "/tmp/fuzz-XXXXXX");
	must(stage.loop && mkdtemp(stage.dir));
	stage.ep.kind = ENDPOINT_UNIX;
	snprintf(stage.ep.text, sizeof(stage.ep.text), "%s/host", stage.dir);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/host", stage.dir);
	stage.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(bind(stage.listener, (struct sockaddr *)&addr, sizeof(addr)) == 0);
	must(listen(stage.listener, 4) == 0);
	must(atexit(strike) == 0);
}

struct outcome {
	int calls;
	struct dial_result result;
};

static void on_result(const struct dial_result *result, void *arg)
{
	struct outcome *out = arg;

	out->calls++;
	out->result = *result;
}

static void send_all(int peer, const uint8_t *data, size_t size)
{
	if (size > 0)
		must(send(peer, data, size, MSG_NOSIGNAL) == (ssize_t)size ||
			errno == EPIPE);
	for (int i = 0; i < TURNS / 2; i++)
		ev_run(stage.loop, EVRUN_NOWAIT);
}

/* Everything behind the answers is still there. */
static void check_rest(int fd, const uint8_t *rest, size_t size)
{
	static uint8_t buf[1 << 16];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (size == 0) {
		must(n <= 0);
		return;
	}
	must(n == (ssize_t)size);
	must(memcmp(buf, rest, size) == 0);
}

static void check_outcome(const struct outcome *out, const struct verdict *v,
	const uint8_t *data, size_t size)
{
	const struct dial_result *result = &out->result;

	must(out->calls == (v->bad || v->taken > 0));
	if (v->bad)
		must(result->err == ENETDOWN && result->proxy_err == EPROTO);
	else if (v->taken > 0)
		must(result->err == socks5_errno(v->answer.reply) &&
			result->proxy_err == 0);
	if (out->calls == 0 || result->err != 0) {
		must(out->calls == 0 || result->fd == -1);
		return;
	}
	must(ip_port_equal(&result->local, &v->answer.bound.addr));
	check_rest(result->fd, data + v->taken, size - v->taken);
}

static void check_dial(
	size_t cut, const uint8_t *data, size_t size, const struct verdict *v)
{
	const struct socks5_addr dst = {.addr = {.family = AF_INET}};
	struct outcome out = {.result.fd = -1};
	struct dial *dial;
	int peer;

	set_up();
	cut = size ? cut % (size + 1) : 0;
	dial = dial_start(stage.loop, &stage.ep, SOCKS5_CONNECT, &dst, 60,
		on_result, &out);
	must(dial != NULL);
	peer = accept4(stage.listener, NULL, NULL, SOCK_CLOEXEC);
	must(peer >= 0);
	send_all(peer, data, cut);
	send_all(peer, data + cut, size - cut);
	check_outcome(&out, v, data, size);
	if (out.calls == 0)
		dial_cancel(dial);
	closefd_if(&out.result.fd);
	closefd(&peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verdict verdict;

	if (size < 1)
		return 0;
	check_codec(data + 1, size - 1, &verdict);
	check_dial(data[0], data + 1, size - 1, &verdict);
	return 0;
}
