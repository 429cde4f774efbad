/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/names.h"
#include "common/log.h"
#include "resolv/dns_stub.h"
#include "vendor/dial.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define NAMES_MAGIC 0x6e616d65u

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

struct names *names_start(
	struct ev_loop *loop, const struct vendor_config *config)
{
	struct names *names;
	struct dns_stub_config stub = {
		.listen = config->dns_listen,
		.nr_listen = config->nr_dns_listen,
		.servers = config->dns_servers,
		.nr_servers = config->nr_dns_servers,
	};

	if (config->nr_dns_listen == 0)
		return NULL;
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
