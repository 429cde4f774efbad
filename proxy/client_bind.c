/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/client_impl.h"

#include <assert.h>
#include <string.h>

/*
 * BIND: the client becomes an export's connection.
 *
 * Exported ports have a thread of their own choice. The request waits in state
 * BINDING for the end of the event that brought it; then the connection goes to
 * that thread, with the answers not yet sent, and is a client again there, or
 * straight to the exports if this is the thread. Whatever follows is theirs.
 */

/* Another thread has the exports. */
static void move_away(struct client *c, const struct client_move *move)
{
	struct client_env *env = c->env;

	if (env->move(env->arg, move) == -1) {
		client_end(c);
		return;
	}
	c->fd = -1;
	client_detach(c);
	env->moved(env->arg);
}

/* Give the connection to an export, or see it refused. */
static void bind_port(struct client *c, const struct client_move *move)
{
	enum socks5_reply reply;
	const char *why;

	reply = exports_request(
		c->env->exports, &c->req.dst, &move->conn, &why);
	if (reply == SOCKS5_SUCCEEDED) {
		/* It is the export's now, which has limits of its own. */
		c->fd = -1;
		service_leave(c->service);
		client_detach(c);
	} else {
		client_refuse(c, reply, why);
	}
}

static void start_bind(struct client *c)
{
	if (c->env->exports || c->env->move)
		client_set_state(c, CLIENT_BINDING);
	else
		client_refuse(
			c, SOCKS5_COMMAND_NOT_SUPPORTED, "BIND is not served");
}

static void cancel_bind(struct client *c)
{
}

const struct client_command client_bind_command = {
	"BIND", start_bind, cancel_bind};

void client_bind(struct client *c)
{
	struct client_move move = {
		.conn = {c->fd, c->family, c->id, c->out_len},
		.req = c->req,
		.service = c->service,
	};

	if (c->in_pos < c->in_len) {
		client_fault(c, "bytes behind a BIND request");
		return;
	}
	assert(c->out_len <= sizeof(move.conn.out));
	memcpy(move.conn.out, c->out, c->out_len);
	client_unwatch(c);
	if (c->env->exports)
		bind_port(c, &move);
	else
		move_away(c, &move);
}
