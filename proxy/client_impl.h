/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_CLIENT_IMPL_H
#define PROXY_CLIENT_IMPL_H

/*
 * The inside of a client, for the files that serve its commands: client.c has
 * the bytes, the states and the end, client_request.c what
 * the client says, client_connect.c CONNECT, client_bind.c
 * BIND. The theory of operation is in client.c.
 */

#include "proxy/client.h"
#include "proxy/connect.h"

#define CLIENT_MAGIC 0x434c4e54u /* "CLNT" */

#define CLIENT_IN_SIZE 1024
_Static_assert(CLIENT_IN_SIZE >= SOCKS5_GREETING_MAX + SOCKS5_REQUEST_MAX,
	"a whole handshake fits");
#define CLIENT_DST_STRLEN (SOCKS5_NAME_MAX + 8)
#define CLIENT_OUT_SIZE   (SOCKS5_METHOD_LEN + SOCKS5_REPLY_V6_LEN)

enum client_state {
	CLIENT_GREETING = 0,
	CLIENT_REQUEST,
	CLIENT_RESOLVING,
	CLIENT_CONNECTING,
	CLIENT_REPLYING,
	CLIENT_BINDING,
	CLIENT_REFUSED,
	CLIENT_GONE,
};

/**
 * struct client - see the theory in client.c
 * @io, @mask: watches @fd for @mask
 * @watch:     watches it in the states before it may go to another thread
 * @in, @in_pos, @in_len: received, taken by parsers, and in all
 * @out, @out_len: to be sent
 * @eof:      the client has ended its stream
 * @fin_sent: we have ended ours (REFUSED)
 * @query:    RESOLVING: the look-up
 * @job:      CONNECTING and after: the connect and its result
 */
struct client {
	uint32_t magic;
	enum client_state state;
	struct client_env *env;
	struct service *service;
	struct list link;
	uint64_t id;
	int fd;
	sa_family_t family;
	uint8_t mask;
	bool eof;
	bool fin_sent;
	ev_io io;
	struct watch watch;
	ev_timer deadline;
	size_t in_pos;
	size_t in_len;
	size_t out_len;
	uint8_t out[CLIENT_OUT_SIZE];
	uint8_t in[CLIENT_IN_SIZE];
	struct socks5_request req;
	struct resolve_query *query;
	struct connect_job job;
	struct reap reap;
};

/**
 * struct client_command - what a request may ask for
 * @name:   for the log
 * @start:  called in state REQUEST; ends the client's story by
 *          client_refuse() or client_connected(), at once, or later and then
 *          followed by client_settle()
 * @cancel: the client goes away first; the command forgets it
 */
struct client_command {
	const char *name;
	void (*start)(struct client *c);
	void (*cancel)(struct client *c);
};

extern const struct client_command client_connect_command;
extern const struct client_command client_bind_command;

/** client_set_state() - the only place where a state changes */
void client_set_state(struct client *c, enum client_state state);

/** client_set_deadline() - the state must be left within @seconds from now */
void client_set_deadline(struct client *c, double seconds);

/**
 * client_refuse() - answer the request with a failure
 * @why: for the log, after peer and destination
 *
 * The client is in state REFUSED then; client_settle() sends the answer.
 */
void client_refuse(struct client *c, enum socks5_reply reply, const char *why);

/** client_connected() - the command has a connection in @job for the client,
 * which is in state REPLYING then */
void client_connected(struct client *c);

/** client_put_failure() - the same without a word in the log */
void client_put_failure(struct client *c, enum socks5_reply reply);

/** client_put_method() - answer the greeting */
void client_put_method(struct client *c, uint8_t method);

/** client_hang_up() - end the stream after what is in @out. State REFUSED */
void client_hang_up(struct client *c);

/** client_log_fault() - say what the client did wrong */
void client_log_fault(struct client *c, const char *what);

/** client_fault() - say what the client did wrong, and end it */
void client_fault(struct client *c, const char *what);

/** client_end() - close everything; the memory goes at the end of the turn */
void client_end(struct client *c);

/** client_unwatch() - wait for nothing, before the fd goes somewhere else */
void client_unwatch(struct client *c);

/** client_detach() - let go of everything but the fds, which are somebody
 * else's by now. State GONE */
void client_detach(struct client *c);

/** client_settle() - last call of each event: send, conclude, wait. The client
 * may be gone afterwards */
void client_settle(struct client *c);

/** client_parse() - take whole messages off the front of what was received, and
 * act on them */
void client_parse(struct client *c);

/** client_command() - what @req asks for, NULL if that is nothing we have */
const struct client_command *client_command(const struct client *c);

/** client_dst_format() - a destination for the log; without the keys, which are
 * secrets of those who hold ports. @size: CLIENT_DST_STRLEN. Return: @buf */
const char *client_dst_format(
	const struct socks5_addr *dst, char *buf, size_t size);

/** client_bind() - in state BINDING, when everything is taken: give the
 * connection to the exports, here or in their thread */
void client_bind(struct client *c);

#endif
