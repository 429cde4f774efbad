/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_MEMBER_H
#define PROXY_MEMBER_H

/*
 * A connection from the enclave that belongs to an exported port and has
 * nothing more to say: one that holds the port, or a standby connection that
 * waits for a client.
 *
 * Theory of operation
 *
 *	REPLYING  the first reply is on its way out (a few bytes: one event at
 *		  most, and normally none)
 *	IDLE	  nothing to send, and nothing may come
 *	GONE	  closed, or its fd given away; the memory waits for the reaper
 *
 * It is watched for reading all the time, and whatever can be read ends it: an
 * end of stream or an error because its peer has left, a byte because the
 * protocol has none there. So looking whether it is alive needs no peeking,
 * which vsock did not have before Linux 5.5: one byte is read, and only "there
 * is none" is a good answer.
 */

#include "common/socks5.h"
#include "common/list.h"
#include "proxy/reap.h"
#include "proxy/watch.h"

#define MEMBER_OUT_MAX (SOCKS5_METHOD_LEN + SOCKS5_REPLY_V4_LEN)

struct member;

/**
 * struct member_env - what the members of one loop share
 * @ready: a member has become IDLE
 * @gone:  a member has ended by itself or by member_end(); its fd is closed
 */
struct member_env {
	struct watch_set *watches;
	struct reaper *reaper;
	void (*ready)(struct member *m);
	void (*gone)(struct member *m);
};

/**
 * struct member_conn - a connection on its way from the SOCKS5 server
 * @fd, @family: non-blocking
 * @id: for log lines
 * @out, @out_len: answers not sent yet
 */
struct member_conn {
	int fd;
	sa_family_t family;
	uint64_t id;
	size_t out_len;
	uint8_t out[MEMBER_OUT_MAX];
};

enum member_state { MEMBER_REPLYING, MEMBER_IDLE, MEMBER_GONE };

/**
 * enum member_role - what a member is to its port
 * MEMBER_HOLD:  keeps it, and nothing else
 * MEMBER_JOIN:  a standby connection
 * MEMBER_MEET:  one that is told the address that its client reached, too
 * MEMBER_PLAIN: standby connection and keeper
 */
enum member_role { MEMBER_HOLD, MEMBER_JOIN, MEMBER_MEET, MEMBER_PLAIN };

/**
 * struct member - see the theory above
 * @link, @idle_link: for the owner's lists; on none once gone() returns
 * @owner: the owner's
 */
struct member {
	uint32_t magic;
	enum member_state state;
	enum member_role role;
	struct member_env *env;
	void *owner;
	struct list link;
	struct list idle_link;
	struct watch watch;
	struct member_conn conn;
	struct reap reap;
};

/**
 * member_new() - make a member without a connection
 *
 * Return: NULL and errno ENOMEM.
 */
struct member *member_new(
	struct member_env *env, enum member_role role, void *owner);

/** member_free() - of one that never got a connection */
void member_free(struct member *m);

/**
 * member_start() - give it its connection
 * @conn: copied; the fd is the member's from now on
 *
 * Calls ready() or gone(), perhaps before it returns.
 */
void member_start(struct member *m, const struct member_conn *conn);

/** member_alive() - look. Return: false if it has just been ended */
bool member_alive(struct member *m);

/** member_end() - close its connection; calls gone() */
void member_end(struct member *m);

/** member_fault() - the same, with a line that says what its peer did */
void member_fault(struct member *m, const char *what);

/**
 * member_release() - take the connection away; gone() is not called
 *
 * The caller has taken it off its lists.
 *
 * Return: the fd, the caller's from now on.
 */
int member_release(struct member *m);

#endif
