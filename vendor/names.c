/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/names.h"
#include "common/log.h"
#include "resolv/dns_stub.h"
#include "resolv/servers.h"
#include "vendor/dial.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define NAMES_MAGIC   0x6e616d65u
#define CLIENTS_SHARE 4 /* one of so many descriptors */

/**
 * struct names - the stub and where the host proxy is
 * @stub: NULL while it is being started
 */
struct names {
	uint32_t magic;
	struct ev_loop *loop;
	const struct vendor_config *config;
	struct dns_stub *stub;
};

/* A connection to a DNS server that is being made. */
struct name_dial {
	struct dial *dial;
	dns_dialed_cb *cb;
	void *arg;
};

static void on_dialed(const struct dial_result *result, void *arg)
{
	struct name_dial *nd = arg;
	dns_dialed_cb *cb = nd->cb;
	void *cb_arg = nd->arg;

	if (result->proxy_err)
		log_warn_ratelimit("names: the host proxy: %s",
			log_strerror(result->proxy_err));
	free(nd);
	cb(cb_arg, result->fd, result->err);
}

static void *start(void *ctx, const struct socks5_addr *server, double timeout,
	dns_dialed_cb *cb, void *arg)
{
	struct names *names = ctx;
	struct name_dial *nd = malloc(sizeof(*nd));

	assert(names->magic == NAMES_MAGIC);
	if (!nd)
		return NULL;
	nd->cb = cb;
	nd->arg = arg;
	nd->dial = dial_start(names->loop, &names->config->endpoint,
		SOCKS5_CONNECT, server, timeout, on_dialed, nd);
	if (!nd->dial) {
		free(nd);
		return NULL;
	}
	return nd;
}

static void cancel(void *ctx, void *handle)
{
	struct name_dial *nd = handle;

	dial_cancel(nd->dial);
	free(nd);
}

/*
 * Connections of clients that are kept open for nothing must leave descriptors
 * for those to the servers, and for what else the worker does.
 */
static unsigned max_clients(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1 ||
		limit.rlim_cur / CLIENTS_SHARE >= DNS_MAX_CLIENTS)
		return DNS_MAX_CLIENTS;
	return (unsigned)(limit.rlim_cur / CLIENTS_SHARE);
}

struct names *names_start(
	struct ev_loop *loop, const struct vendor_config *config)
{
	struct socks5_addr servers[DNS_SERVERS_MAX];
	struct names *names;
	struct dns_stub_config stub = {
		.listen = config->dns_listen,
		.nr_listen = config->nr_dns_listen,
		.sockets = config->dns_sockets,
		.nr_sockets = config->nr_dns_sockets,
		.servers = servers,
		.max_clients = max_clients(),
	};

	if (config->nr_dns_listen == 0)
		return NULL;
	memcpy(servers, config->dns_servers, sizeof(servers));
	stub.nr_servers = dns_servers_spread(
		servers, DNS_SERVERS_MAX, config->nr_dns_servers);
	names = malloc(sizeof(*names));
	if (!names)
		goto fail;
	*names = (struct names){
		.magic = NAMES_MAGIC, .loop = loop, .config = config};
	stub.dialer = (struct dns_dialer){start, cancel, names};
	names->stub = dns_stub_start(loop, &stub);
	if (names->stub)
		return names;
fail:
	log_warn("names: no DNS stub: %s", log_strerror(errno));
	free(names);
	return NULL;
}

void names_stop(struct names *names)
{
	if (!names)
		return;
	assert(names->magic == NAMES_MAGIC);
	dns_stub_stop(names->stub);
	names->magic = 0;
	free(names);
}
