/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_HANDSHAKE_H
#define VENDOR_HANDSHAKE_H

/*
 * What is said on a carrier before it is the application's: the SOCKS5
 * handshake, and before it the multiplexer's line where there is one. On a
 * non-blocking fd that its owner watches; nothing here waits.
 */

#include "common/endpoint.h"
#include "common/socks5.h"

#define HANDSHAKE_LINE_MAX 32 /* "CONNECT 4294967295\n", "OK 4294967295\n" */

enum handshake_state {
	HANDSHAKE_MUX_SEND, /* vsock-mux only: "CONNECT port\n" goes out */
	HANDSHAKE_MUX_READ, /* ... and "OK port\n" comes back */
	HANDSHAKE_HELLO,    /* greeting and request go out in one segment */
	HANDSHAKE_REPLY,    /* method answer and reply are read */
	HANDSHAKE_OVER,
};

enum handshake_step {
	HANDSHAKE_DONE,   /* all that was to be said is */
	HANDSHAKE_AGAIN,  /* wait for the fd */
	HANDSHAKE_FAILED, /* @err says why */
};

/**
 * struct handshake - one conversation, to be embedded in its owner
 * @probe:  greeting only
 * @port:   for the multiplexer
 * @err:    FAILED: of the carrier, ECONNRESET if it ended, or EPROTO if the
 *          other side does not speak the protocol
 * @answer: DONE: the reply; all zero, which is success, for a greeting only
 * @sent:   bytes of the current message that went out
 * @got:    bytes in @in
 * @out:    greeting and request
 * @in:     method answer and reply; before them the multiplexer's line
 */
struct handshake {
	enum handshake_state state;
	bool probe;
	uint32_t port;
	int err;
	struct socks5_answer answer;
	size_t out_len;
	size_t sent;
	size_t got;
	uint8_t out[3 + SOCKS5_REQUEST_MAX];
	uint8_t in[SOCKS5_METHOD_LEN + SOCKS5_REPLY_MAX];
};

/** handshake_ask() - greet, and ask for a connection */
void handshake_ask(struct handshake *h, enum socks5_command command,
	const struct socks5_addr *dst);

/** handshake_greet() - greet, and ask for nothing */
void handshake_greet(struct handshake *h);

/** handshake_begin() - say it from the start, on a fresh carrier to @ep */
void handshake_begin(struct handshake *h, const struct endpoint *ep);

/**
 * handshake_go() - say and hear what can be at the moment
 * @fd: connected; after DONE nothing behind the reply has been read from it
 */
enum handshake_step handshake_go(struct handshake *h, int fd);

/** handshake_sends() - is it for room to send that it waits? */
bool handshake_sends(const struct handshake *h);

/** handshake_is_silent() - has the other side not said a word yet? */
bool handshake_is_silent(const struct handshake *h);

/** handshake_is_greeted() - has the host proxy taken the greeting? */
bool handshake_is_greeted(const struct handshake *h);

#endif
