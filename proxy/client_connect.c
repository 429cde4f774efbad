/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/client_impl.h"

#include "common/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

/*
 * CONNECT: from the destination of a request to a connection, or a refusal.
 *
 * An address is tried as it is. A name is looked up first, on this host, unless
 * it is the text of an address, or the reserved one that stands for the host's
 * own name servers. Of the addresses found, those that the rules allow are
 * tried in turn (connect.h). All of it has one deadline, connect_timeout.
 */

/* The job has finished one way or the other. */
static void connect_done(struct client *c)
{
	if (c->job.fd != -1)
		client_connected(c);
	else
		client_refuse(c, socks5_reply_from_errno(c->job.err),
			log_strerror(c->job.err));
}

static void on_connect(struct connect_job *job, void *arg)
{
	struct client *c = arg;

	assert(c->magic == CLIENT_MAGIC && c->state == CLIENT_CONNECTING);
	connect_done(c);
	client_settle(c);
}

static void connect_to(struct client *c, const struct ip_port *addrs, size_t nr)
{
	if (nr == 0) {
		client_refuse(
			c, SOCKS5_NOT_ALLOWED, "not allowed by the rules");
		return;
	}
	client_set_state(c, CLIENT_CONNECTING);
	if (connect_start(&c->job, addrs, nr, on_connect, c))
		connect_done(c);
}

/* Connect to those of @addrs that the rules allow. */
static void connect_allowed(
	struct client *c, const struct ip_port *addrs, size_t nr)
{
	struct ip_port allowed[CONNECT_ADDRS_MAX];
	size_t nr_allowed = 0;

	assert(nr <= CONNECT_ADDRS_MAX);
	for (size_t i = 0; i < nr; i++) {
		if (!rules_allow(&c->service->config.rules, &addrs[i]))
			continue;
		allowed[nr_allowed] = addrs[i];
		rules_canonical(&allowed[nr_allowed++]);
	}
	connect_order(allowed, nr_allowed);
	connect_to(c, allowed, nr_allowed);
}

/* The host's own name servers: the operator's choice, not the client's, so
 * only a rule that denies them by address stands in the way. */
static void connect_nameservers(struct client *c, size_t first)
{
	struct ip_port allowed[NAMESERVERS_MAX];
	const struct ip_port *servers;
	size_t nr = nameservers_get(c->env->nameservers, &servers);
	size_t nr_allowed = 0;

	for (size_t i = 0; i < nr; i++) {
		struct ip_port server = servers[(first + i) % nr];

		rules_canonical(&server);
		if (rules_match(&c->service->config.rules, &server) !=
			RULES_DENY)
			allowed[nr_allowed++] = server;
	}
	connect_to(c, allowed, nr_allowed);
}

static enum socks5_reply reply_of(enum resolve_status status)
{
	switch (status) {
	case RESOLVE_NO_ADDRESS: return SOCKS5_HOST_UNREACHABLE;
	case RESOLVE_TIMED_OUT: return SOCKS5_TTL_EXPIRED;
	case RESOLVE_OK:
	case RESOLVE_FAILED: break;
	}
	return SOCKS5_GENERAL_FAILURE;
}

static void on_resolved(void *arg, enum resolve_status status, const char *why,
	const struct ip_port *addrs, size_t nr)
{
	struct client *c = arg;
	/* May come before resolve_start() has returned the query; then whoever
	 * called it settles. */
	bool in_start = !c->query;

	assert(c->magic == CLIENT_MAGIC && c->state == CLIENT_RESOLVING);
	c->query = NULL;
	if (status == RESOLVE_OK)
		connect_allowed(c, addrs, nr);
	else
		client_refuse(c, reply_of(status), why);
	if (!in_start)
		client_settle(c);
}

/* Is a name just the text of an address? */
static bool name_is_address(const struct socks5_addr *dst, struct ip_port *out)
{
	memset(out, 0, sizeof(*out));
	out->port = dst->addr.port;
	if (inet_pton(AF_INET, dst->name, out->ip) == 1)
		out->family = AF_INET;
	else if (inet_pton(AF_INET6, dst->name, out->ip) == 1)
		out->family = AF_INET6;
	return out->family != AF_UNSPEC;
}

static void start_connect(struct client *c)
{
	const struct socks5_addr *dst = &c->req.dst;
	struct ip_port addr;
	size_t first;

	client_set_deadline(c, c->service->config.connect_timeout);
	if (dst->addr.family != AF_UNSPEC) {
		connect_allowed(c, &dst->addr, 1);
	} else if (name_is_address(dst, &addr)) {
		connect_allowed(c, &addr, 1);
	} else if (dst->addr.port == RESOLVER_PORT &&
		   is_resolver_name(dst->name, &first)) {
		connect_nameservers(c, first);
	} else {
		struct resolve_query *query;

		client_set_state(c, CLIENT_RESOLVING);
		query = resolve_start(c->env->resolver, dst->name,
			dst->addr.port, on_resolved, c);
		if (query)
			c->query = query;
	}
}

static void cancel_connect(struct client *c)
{
	if (c->query)
		resolve_cancel(c->query);
	c->query = NULL;
	connect_cancel(&c->job);
}

const struct client_command client_connect_command = {
	"CONNECT", start_connect, cancel_connect};
