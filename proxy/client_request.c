/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/client_impl.h"

#include "common/log.h"
#include "proxy/peer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/*
 * What a client says: its greeting and its request, taken off the front of what
 * was received, and what is wrong with them. Every byte may be hostile; the
 * parsers in common/socks5.h look at all of a message before anything is done
 * about it.
 */

const char *client_dst_format(
	const struct socks5_addr *dst, char *buf, size_t size)
{
	struct hold_name name;

	if (dst->addr.family != AF_UNSPEC)
		ip_port_format(&dst->addr, buf, size);
	else if (hold_name_parse(&name, dst) == -1 || name.verb != HOLD_NONE)
		snprintf(buf, size, "%.5s*:%u", dst->name, dst->addr.port);
	else
		snprintf(buf, size, "%s:%u", dst->name, dst->addr.port);
	return buf;
}

static const struct client_command *const commands[] = {
	[SOCKS5_CONNECT] = &client_connect_command,
	[SOCKS5_BIND] = &client_bind_command,
};

const struct client_command *client_command(const struct client *c)
{
	if (c->req.command >= sizeof(commands) / sizeof(commands[0]))
		return NULL;
	return commands[c->req.command];
}

static void start_command(struct client *c)
{
	const struct client_command *command = client_command(c);
	char peer[PEER_STRLEN], dst[CLIENT_DST_STRLEN];

	if (log_enabled(LOG_DEBUG))
		log_debug("conn %" PRIu64 " (%s): %s %s", c->id,
			peer_format(c->fd, peer, sizeof(peer)),
			command ? command->name : "unknown command",
			client_dst_format(&c->req.dst, dst, sizeof(dst)));
	if (command)
		command->start(c);
	else
		client_refuse(
			c, SOCKS5_COMMAND_NOT_SUPPORTED, "unknown command");
}

/* Return: bytes taken; 0 to wait for more or because the client has ended. */
static size_t take_greeting(struct client *c, const uint8_t *buf, size_t len)
{
	bool no_auth;
	ssize_t n = socks5_parse_greeting(buf, len, &no_auth);
	char what[64];

	if (n == -1) {
		snprintf(what, sizeof(what),
			"not SOCKS5: version is %u, expected 5", buf[0]);
		client_fault(c, what);
		return 0;
	}
	if (n > 0 && no_auth) {
		client_put_method(c, SOCKS5_METHOD_OK);
		client_set_state(c, CLIENT_REQUEST);
	} else if (n > 0) {
		snprintf(what, sizeof(what),
			"none of the %u methods offered is 0, no "
			"authentication",
			buf[1]);
		client_log_fault(c, what);
		client_put_method(c, SOCKS5_METHOD_NONE);
		client_hang_up(c);
	}
	return (size_t)n;
}

/* What is wrong with a name that is, by socks5_parse_request(). */
static void describe_name(
	const uint8_t *name, size_t len, char *what, size_t size)
{
	size_t i = 0;

	while (i < len && name[i] > ' ' && name[i] < 0x7f)
		i++;
	if (len == 0)
		snprintf(what, size,
			"the name is empty, expected 1 to 255 "
			"bytes");
	else
		snprintf(what, size,
			"byte %zu of the name is 0x%02x, expected printable "
			"ASCII",
			i, name[i < len ? i : 0]);
}

/* What is wrong with a request that socks5_parse_request() refuses. */
static void describe_request(
	const uint8_t *buf, size_t len, char *what, size_t size)
{
	if (buf[0] != SOCKS5_VERSION)
		snprintf(what, size, "the request's version is %u, expected 5",
			buf[0]);
	else if (len >= 3 && buf[2] != 0)
		snprintf(what, size,
			"the request's reserved byte is %u, expected 0",
			buf[2]);
	else if (buf[3] != SOCKS5_NAME)
		snprintf(what, size,
			"the address type is %u, expected 1, 3 or 4", buf[3]);
	else
		describe_name(buf + 5, buf[4], what, size);
}

static size_t take_request(struct client *c, const uint8_t *buf, size_t len)
{
	enum socks5_reply reply;
	ssize_t n = socks5_parse_request(buf, len, &c->req, &reply);
	char what[96];

	if (n == -1) {
		memset(&c->req, 0, sizeof(c->req));
		describe_request(buf, len, what, sizeof(what));
		client_log_fault(c, what);
		client_put_failure(c, reply);
		return 0;
	}
	if (n > 0)
		start_command(c);
	return (size_t)n;
}

void client_parse(struct client *c)
{
	size_t taken;

	do {
		const uint8_t *buf = c->in + c->in_pos;
		size_t len = c->in_len - c->in_pos;

		if (c->state == CLIENT_GREETING)
			taken = take_greeting(c, buf, len);
		else if (c->state == CLIENT_REQUEST)
			taken = take_request(c, buf, len);
		else
			break;
		c->in_pos += taken;
	} while (taken > 0);
	/* Or it would not be read any further. */
	assert(c->in_len < CLIENT_IN_SIZE || c->state > CLIENT_REQUEST);
}
