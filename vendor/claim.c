/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/claim.h"
#include "common/fd.h"
#include "common/hold_name.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

/*
 * Theory of operation
 *
 *	state	has			ends by
 *	IDLE	-			claim_start()
 *	QUEUED	place at the turnstile	its turn: NAMED, or PLAIN if refused
 *	NAMED	dial of hold-SCOPE-KEY	0: HELD. reply 1, 4, 7, 8: QUEUED for
 *					PLAIN. else: IDLE
 *	PLAIN	dial of BIND 0.0.0.0	IDLE: a connection that succeeded is a
 *		or ::			standby one and the caller's. :: refused
 *					with 1, 7, 8: QUEUED, for 0.0.0.0
 *	HELD	the owner's connection	hang-up: IDLE
 *
 * Reply 4 to a name can mean that the host has no such family, as well as that
 * it knows no such name. It is then asked for :: if it is for IPv6 clients
 * only: with 0.0.0.0 a host without IPv6 would open a port to the wrong ones.
 *
 * Each attempt has a key of its own. The host proxy may still be closing the
 * connection of the last one, and no standby connection of that may be taken
 * for one of this.
 *
 * A port for the host's loopback only is never asked for by plain BIND, which
 * would open it to everybody.
 *
 * What bind() reports (the host proxy's replies, RFC 1928 section 6):
 *
 *	2 not allowed		EACCES		by rules, or privileged port
 *	5 refused		EADDRINUSE
 *	4 host unreachable	EADDRNOTAVAIL	no such family or address
 *	1 general failure	ENETDOWN	but EADDRINUSE where it answers
 *						plain BIND and did not answer
 *						the name: other servers have no
 *						better code for it
 *	all others		ENETDOWN
 *	no answer at all	ENETDOWN	and @away; ENOBUFS if it is this
 *						process that is short of fds
 */

#define CLAIM_MAGIC   0x636c6169u
#define CLAIM_TIMEOUT 5.0 /* seconds for one dial, replies and all */

static int bind_errno(const struct claim *c, uint8_t reply)
{
	switch ((enum socks5_reply)reply) {
	case SOCKS5_SUCCEEDED: return 0;
	case SOCKS5_NOT_ALLOWED: return EACCES;
	case SOCKS5_REFUSED: return EADDRINUSE;
	case SOCKS5_HOST_UNREACHABLE: return EADDRNOTAVAIL;
	case SOCKS5_GENERAL_FAILURE:
		return c->refused && c->refused != reply ? EADDRINUSE
							 : ENETDOWN;
	case SOCKS5_NETWORK_UNREACHABLE:
	case SOCKS5_TTL_EXPIRED:
	case SOCKS5_COMMAND_NOT_SUPPORTED:
	case SOCKS5_ATYP_NOT_SUPPORTED: break;
	}
	return ENETDOWN;
}

/* No answer: either nobody is there, or it is this process that is short. */
static int away_errno(int err)
{
	bool shortage = err == EMFILE || err == ENFILE || err == ENOBUFS ||
			err == ENOMEM;

	return shortage ? ENOBUFS : ENETDOWN;
}

/* May a host proxy that knows no names have meant just that? */
static bool knows_no_names(const struct claim *c, uint8_t reply)
{
	return c->state == CLAIM_NAMED && !c->scope.loopback &&
	       (reply == SOCKS5_GENERAL_FAILURE ||
		       reply == SOCKS5_HOST_UNREACHABLE ||
		       reply == SOCKS5_COMMAND_NOT_SUPPORTED ||
		       reply == SOCKS5_ATYP_NOT_SUPPORTED);
}

static void report(struct claim *c, const struct claim_result *result)
{
	if (c->state != CLAIM_HELD)
		c->state = CLAIM_IDLE;
	c->done(c, result);
}

static void fail(struct claim *c, int err, bool away)
{
	const struct claim_result result = {
		.err = err,
		.away = away,
		.fd = -1,
	};

	report(c, &result);
}

static void on_held(struct edge *edge, uint32_t events)
{
	struct claim *c = list_entry(edge, struct claim, edge);

	assert(c->magic == CLAIM_MAGIC && c->state == CLAIM_HELD);
	if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		log_warn_ratelimit("port %u: the host proxy sent more than a "
				   "reply for it, closed",
			c->port);
	claim_drop(c);
	c->lost(c);
}

static void hold(struct claim *c, int fd, uint16_t port)
{
	struct claim_result result = {.fd = -1, .port = port};

	c->fd = fd;
	if (edge_add(c->env->poll, &c->edge, c->fd, EPOLLIN | EPOLLRDHUP,
		    on_held) == -1) {
		log_warn_ratelimit("epoll: %s", log_strerror(errno));
		closefd(&c->fd);
		fail(c, ENOBUFS, true);
		return;
	}
	c->state = CLAIM_HELD;
	report(c, &result);
}

static void succeed(struct claim *c, const struct dial_result *r)
{
	struct claim_result result = {
		.plain = true,
		.family = c->plain_family,
		.fd = r->fd,
	};
	int fd = r->fd;

	/* A port that was asked for is the application's name for it, also
	 * where the host proxy publishes it under another. */
	result.port = c->port ? c->port : r->local.port;
	if (result.port == 0) {
		log_warn_ratelimit("the host proxy bound port 0: expected a "
				   "port in its reply");
		closefd(&fd);
		fail(c, ENETDOWN, false);
	} else if (c->state == CLAIM_NAMED) {
		hold(c, fd, result.port);
	} else {
		report(c, &result);
	}
}

static void log_away(const struct claim *c, const struct dial_result *r)
{
	char text[ENDPOINT_STRLEN];

	log_warn_ratelimit("port %u: host proxy %s: %s", c->port,
		endpoint_format(r->ep, text, sizeof(text)),
		log_strerror(r->proxy_err ? r->proxy_err : r->err));
}

static void queue(struct claim *c);

/* A name was refused: what to ask for in its place. */
static sa_family_t plain_family(const struct claim *c, uint8_t reply)
{
	return reply == SOCKS5_HOST_UNREACHABLE && !c->scope.v4 ? AF_INET6
								: AF_INET;
}

/* May a host proxy that has no plain BIND but for IPv4 have meant that? */
static bool knows_no_ipv6(const struct claim *c, uint8_t reply)
{
	return c->state == CLAIM_PLAIN && c->plain_family == AF_INET6 &&
	       (reply == SOCKS5_GENERAL_FAILURE ||
		       reply == SOCKS5_COMMAND_NOT_SUPPORTED ||
		       reply == SOCKS5_ATYP_NOT_SUPPORTED);
}

static void on_dialled(const struct dial_result *r, void *arg)
{
	struct claim *c = arg;

	assert(c->magic == CLAIM_MAGIC);
	assert(c->state == CLAIM_NAMED || c->state == CLAIM_PLAIN);
	c->dial = NULL;
	turnstile_leave(&c->env->dials);
	if (r->err == 0) {
		succeed(c, r);
	} else if (r->reply == SOCKS5_SUCCEEDED) {
		log_away(c, r);
		fail(c, away_errno(r->proxy_err), true);
	} else if (knows_no_names(c, r->reply)) {
		c->refused = r->reply;
		c->plain_family = plain_family(c, r->reply);
		queue(c);
	} else if (knows_no_ipv6(c, r->reply)) {
		c->plain_family = AF_INET;
		queue(c);
	} else {
		fail(c, bind_errno(c, r->reply), false);
	}
}

static void destination(struct claim *c, struct socks5_addr *dst)
{
	struct hold_name name = {
		.verb = HOLD_HOLD,
		.v4 = c->scope.v4,
		.v6 = c->scope.v6,
		.loopback = c->scope.loopback,
	};

	if (c->refused) {
		memset(dst, 0, sizeof(*dst));
		dst->addr.family = c->plain_family;
		dst->addr.port = c->port;
		return;
	}
	memcpy(name.key, c->key, sizeof(name.key));
	hold_name_write(&name, c->port, dst);
}

static void on_turn(struct turnstile_wait *turn)
{
	struct claim *c = list_entry(turn, struct claim, turn);
	struct socks5_addr dst;

	assert(c->magic == CLAIM_MAGIC && c->state == CLAIM_QUEUED);
	destination(c, &dst);
	c->state = c->refused ? CLAIM_PLAIN : CLAIM_NAMED;
	c->dial = dial_start(c->env->loop, c->ep, SOCKS5_BIND, &dst,
		CLAIM_TIMEOUT, on_dialled, c);
	if (!c->dial) {
		turnstile_leave(&c->env->dials);
		fail(c, ENOBUFS, true);
	}
}

static void queue(struct claim *c)
{
	c->state = CLAIM_QUEUED;
	if (turnstile_enter(&c->env->dials, &c->turn))
		on_turn(&c->turn);
}

void claim_init(struct claim *c, struct inbound_env *env,
	const struct endpoint *ep, const struct scope *scope,
	claim_done_cb *done, claim_lost_cb *lost)
{
	c->magic = CLAIM_MAGIC;
	c->state = CLAIM_IDLE;
	c->env = env;
	c->ep = ep;
	c->scope = *scope;
	c->fd = -1;
	c->done = done;
	c->lost = lost;
	turnstile_wait_init(&c->turn, on_turn);
}

void claim_start(struct claim *c, uint16_t port)
{
	assert(c->magic == CLAIM_MAGIC && c->state == CLAIM_IDLE);
	c->port = port;
	c->refused = 0;
	/* Before the kernel has gathered entropy, early in an enclave's life,
	 * this waits; a key that can be guessed would be no key. */
	if (getrandom(c->key, sizeof(c->key), 0) != (ssize_t)sizeof(c->key)) {
		fail(c, ENETDOWN, true);
		return;
	}
	queue(c);
}

void claim_drop(struct claim *c)
{
	assert(c->magic == CLAIM_MAGIC);
	turnstile_forget(&c->turn);
	if (c->edge.poll)
		edge_drop(&c->edge);
	closefd_if(&c->fd);
	c->state = CLAIM_IDLE;
	if (c->dial) {
		dial_cancel(c->dial);
		c->dial = NULL;
		turnstile_leave(&c->env->dials);
	}
}
