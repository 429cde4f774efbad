/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/handshake.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/*
 * Theory of operation
 *
 * A handshake runs through its states in order. step_*() do the work of one
 * and say whether to go on with the next, to wait for the fd, or that it
 * failed. handshake_go() calls them in turn, so that on a carrier that is
 * connected already the hello goes out at once.
 *
 * The fd belongs to the application once the reply is whole, and what follows
 * the reply is the application's data. So a read never asks for more bytes
 * than surely belong to the replies.
 */

#define LINE_MIN 5 /* "OK 1\n": the fewest bytes that are an answer */

static enum handshake_step failed(struct handshake *h, int err)
{
	h->err = err;
	return HANDSHAKE_FAILED;
}

static enum handshake_step io_failed(struct handshake *h, ssize_t n)
{
	if (n == 0)
		return failed(h, ECONNRESET);
	if (errno == EAGAIN || errno == EINTR)
		return HANDSHAKE_AGAIN;
	return failed(h, errno);
}

static enum handshake_step send_all(
	struct handshake *h, int fd, const void *buf, size_t len)
{
	while (h->sent < len) {
		ssize_t n = send(fd, (const char *)buf + h->sent, len - h->sent,
			MSG_NOSIGNAL);

		if (n == -1)
			return io_failed(h, n);
		h->sent += (size_t)n;
	}
	h->sent = 0;
	return HANDSHAKE_DONE;
}

/* Read up to @want more bytes into @in. */
static enum handshake_step read_some(struct handshake *h, int fd, size_t want)
{
	ssize_t n;

	assert(want > 0 && h->got + want <= sizeof(h->in));
	n = recv(fd, h->in + h->got, want, 0);
	if (n <= 0)
		return io_failed(h, n);
	h->got += (size_t)n;
	return HANDSHAKE_DONE;
}

/* ---- the multiplexer ---- */

static enum handshake_step step_mux_send(struct handshake *h, int fd)
{
	char line[HANDSHAKE_LINE_MAX];
	int len = snprintf(line, sizeof(line), "CONNECT %u\n", h->port);

	return send_all(h, fd, line, (size_t)len);
}

/* Where the mux's line ends, or 0 if it has not come yet. */
static size_t mux_line_len(const struct handshake *h)
{
	const uint8_t *end = memchr(h->in, '\n', h->got);

	return end ? (size_t)(end - h->in) + 1 : 0;
}

static enum handshake_step step_mux_read(struct handshake *h, int fd)
{
	size_t len;

	/* The multiplexer closes instead of answering when nobody listens on
	 * the port; behind its line nothing may be taken away. */
	while ((len = mux_line_len(h)) == 0 && h->got < HANDSHAKE_LINE_MAX) {
		size_t want = h->got < LINE_MIN ? LINE_MIN - h->got : 1;
		enum handshake_step step = read_some(h, fd, want);

		if (step != HANDSHAKE_DONE)
			return step;
	}
	if (len != h->got || len < LINE_MIN || memcmp(h->in, "OK ", 3) != 0)
		return failed(h, EPROTO);
	h->got = 0;
	return HANDSHAKE_DONE;
}

/* ---- SOCKS5 ---- */

static enum handshake_step step_hello(struct handshake *h, int fd)
{
	return send_all(h, fd, h->out, h->out_len);
}

/* How many more bytes surely belong to the replies; 0: they are whole. */
static size_t reply_want(const struct handshake *h)
{
	const uint8_t *reply = h->in + SOCKS5_METHOD_LEN;

	if (h->got < SOCKS5_METHOD_LEN)
		return SOCKS5_METHOD_LEN - h->got +
		       (h->probe ? 0 : socks5_reply_need(reply, 0));
	if (h->probe)
		return 0;
	return socks5_reply_need(reply, h->got - SOCKS5_METHOD_LEN);
}

static bool reply_is_sane(struct handshake *h)
{
	if (socks5_parse_method(h->in, h->got) == -1)
		return false;
	if (h->probe || h->got <= SOCKS5_METHOD_LEN)
		return true;
	return socks5_parse_reply(h->in + SOCKS5_METHOD_LEN,
		       h->got - SOCKS5_METHOD_LEN, &h->answer) != -1;
}

static enum handshake_step step_reply(struct handshake *h, int fd)
{
	size_t want;

	while ((want = reply_want(h)) > 0) {
		enum handshake_step step = read_some(h, fd, want);

		if (step != HANDSHAKE_DONE)
			return step;
		if (!reply_is_sane(h))
			return failed(h, EPROTO);
	}
	return HANDSHAKE_DONE;
}

static enum handshake_step (*const steps[])(struct handshake *, int) = {
	[HANDSHAKE_MUX_SEND] = step_mux_send,
	[HANDSHAKE_MUX_READ] = step_mux_read,
	[HANDSHAKE_HELLO] = step_hello,
	[HANDSHAKE_REPLY] = step_reply,
};
_Static_assert(sizeof(steps) / sizeof(steps[0]) == HANDSHAKE_OVER,
	"a step for each state");

/* ---- the whole ---- */

void handshake_ask(struct handshake *h, enum socks5_command command,
	const struct socks5_addr *dst)
{
	h->probe = false;
	h->out_len = socks5_write_hello(h->out, command, dst);
}

void handshake_greet(struct handshake *h)
{
	static const uint8_t greeting[] = {SOCKS5_VERSION, 1, SOCKS5_METHOD_OK};

	h->probe = true;
	h->out_len = sizeof(greeting);
	memcpy(h->out, greeting, sizeof(greeting));
}

void handshake_begin(struct handshake *h, const struct endpoint *ep)
{
	h->state = ep->kind == ENDPOINT_VSOCK_MUX ? HANDSHAKE_MUX_SEND
						  : HANDSHAKE_HELLO;
	h->port = ep->port;
	h->sent = 0;
	h->got = 0;
	memset(&h->answer, 0, sizeof(h->answer));
}

enum handshake_step handshake_go(struct handshake *h, int fd)
{
	while (h->state != HANDSHAKE_OVER) {
		enum handshake_step step = steps[h->state](h, fd);

		if (step != HANDSHAKE_DONE)
			return step;
		h->state++;
	}
	return HANDSHAKE_DONE;
}

bool handshake_sends(const struct handshake *h)
{
	return h->state == HANDSHAKE_MUX_SEND || h->state == HANDSHAKE_HELLO;
}

bool handshake_is_silent(const struct handshake *h)
{
	return h->got == 0;
}

bool handshake_is_greeted(const struct handshake *h)
{
	return h->state == HANDSHAKE_REPLY && h->got >= SOCKS5_METHOD_LEN;
}
