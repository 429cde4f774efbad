/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_EXPORT_H
#define PROXY_EXPORT_H

/*
 * One exported port: a port of this host that leads to a server in an enclave.
 * export.c opens with the theory of operation, exports.h has all of them.
 */

#include "common/hold_name.h"
#include "proxy/lobby.h"
#include "proxy/member.h"
#include "proxy/peer.h"
#include "proxy/relay.h"

#define EXPORT_GRACE 2.0 /* seconds */

/**
 * struct export_key - who owns an export
 * @held:  by random bytes, the first HOLD_KEY_LEN; else by being @peer
 */
struct export_key {
	bool held;
	union {
		uint8_t bytes[sizeof(struct peer_id)];
		struct peer_id peer;
	};
};
_Static_assert(sizeof(struct peer_id) >= HOLD_KEY_LEN, "both fit");

/**
 * struct export_pair - a client of an exported port and its way to the server
 * @sock:  side 0 is the standby connection, side 1 the client
 * @id:    of the standby connection
 * @first, @first_len: what the standby connection must be sent before
 *         anything else: the rest of the replies, nearly always nothing
 */
struct export_pair {
	struct relay_sock sock[2];
	uint64_t id;
	size_t first_len;
	uint8_t first[2 * SOCKS5_REPLY_V6_LEN];
};

/**
 * struct export_ops - whom exports report to
 * @paired: takes over @pair's fds and their FDS_PER_CONNECTION of the budget
 * @gone:   a connection from an enclave has ended and its fd is closed; it had
 *          FDS_PER_CONNECTION of the budget
 */
struct export_ops {
	void (*paired)(void *arg, const struct export_pair *pair);
	void (*gone)(void *arg);
};

/**
 * struct export_env - what all exports share
 * @nr:    how many there are
 * @taken: has one of them this port of the host?
 * @ops, @arg: static, and what it is called with
 */
struct export_env {
	const struct bind_policy *policy;
	struct lobby_env lobby;
	struct member_env member;
	size_t nr;
	bool (*taken)(void *env, uint16_t port);
	const struct export_ops *ops;
	void *arg;
};

/**
 * struct export - one exported port
 * @link:      of whoever keeps it; taken off when it ends
 * @port:      of the enclave; the host's is @lobby.host.port
 * @lobby:     the host's side
 * @nr_owners: of @members; without any it ends
 * @idle:      members that wait for a client, longest first
 * @consumed:  PLAIN: the last owner that went was taken by a client
 * @dead:      has ended; the memory waits for the reaper
 * @grace:     PLAIN, without owners: how long it stays
 */
struct export
{
	uint32_t magic;
	struct export_env *env;
	struct list link;
	struct export_key key;
	struct bind_scope scope;
	uint16_t port;
	bool consumed;
	bool dead;
	unsigned int nr_owners;
	struct list members;
	struct list idle;
	ev_timer grace;
	struct reap reap;
	struct lobby lobby;
};

/** export_env_init() - all but @env's last three members, which are set */
void export_env_init(struct export_env *env, struct ev_loop *loop,
	struct watch_set *watches, struct reaper *reaper,
	const struct bind_policy *policy, struct fd_budget *budget);

/**
 * export_new() - bind a port
 * @key, @scope: copied
 * @port: of the enclave, allowed; 0 for any
 * @fd:   of the connection that asks, for the log
 * @err:  set to 0, or to the errno of bind(2)
 *
 * It has no owner yet: the caller adds one next, or ends it.
 *
 * Return: NULL on failure.
 */
struct export *export_new(struct export_env *env, const struct export_key *key,
	const struct bind_scope *scope, uint16_t port, int fd, int *err);

/**
 * export_add() - answer a connection and make it a member
 * @e:    may have ended when this returns
 * @role: of the connection; a standby connection makes the port listen
 * @conn: taken over on success
 *
 * Return: 0, or the errno of listen(2), or ENOMEM.
 */
int export_add(struct export *e, enum member_role role,
	const struct member_conn *conn);

/** export_look_at_owners() - end those that are dead without its being known */
void export_look_at_owners(struct export *e);

/** export_end() - let go of the port and of everything that belongs to it */
void export_end(struct export *e);

#endif
