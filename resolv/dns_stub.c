/* SPDX-License-Identifier: Apache-2.0 */
#include "common/log.h"
#include "resolv/dns_stub_int.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define SWEEP_PERIOD 1.0 /* seconds between looks for idle clients */

/* ---- queries ---- */

static void query_free(struct query *query)
{
	struct dns_stub *stub = query->listener->stub;

	assert(query->magic == QUERY_MAGIC && stub->in_flight > 0);
	list_del(&query->node);
	stub->in_flight--;
	stub->query_bytes -= query->len;
	if (query->client)
		query->client->in_flight--;
	query->magic = 0;
	free(query);
}

static void send_udp(struct listener *listener, const uint8_t *msg, size_t len,
	const union sockaddr_any *peer, socklen_t peer_len)
{
	/* Lost is lost: whoever asks over UDP asks again. */
	if (sendto(listener->udp, msg, len, MSG_DONTWAIT | MSG_NOSIGNAL,
		    &peer->sa, peer_len) == -1 &&
		errno != EAGAIN)
		log_debug("DNS stub: answer over UDP: %s", log_strerror(errno));
}

/* The one way that an answer reaches whoever asked. */
static void reply(struct listener *listener, struct client *client,
	const union sockaddr_any *peer, socklen_t peer_len,
	const struct dns_query *info, const uint8_t *msg, size_t len)
{
	struct dns_stub *stub = listener->stub;

	if (client) {
		client_send(client, msg, len);
		return;
	}
	if (len > info->udp_size) {
		len = dns_truncate(stub->out, msg, len, info);
		msg = stub->out;
	}
	send_udp(listener, msg, len, peer, peer_len);
}

static void on_outcome(void *arg, const struct dns_outcome *outcome)
{
	struct query *query = arg;
	struct dns_stub *stub = query->listener->stub;
	struct client *client = query->client;
	uint8_t error[DNS_ERROR_LEN_MAX];
	const uint8_t *msg = outcome->answer;
	size_t len = outcome->len;

	assert(query->magic == QUERY_MAGIC && stub->magic == STUB_MAGIC);
	if (!msg) {
		len = dns_write_error(
			error, outcome->query, &query->info, outcome->rcode);
		msg = error;
	}
	/* From here on the query is no more: the client may be closed. */
	struct query gone = *query;

	query_free(query);
	reply(gone.listener, client, &gone.peer, gone.peer_len, &gone.info, msg,
		len);
	if (client)
		client_update(client);
}

/* Return: whether one more query of @len bytes may be in flight. */
static bool may_ask(const struct dns_stub *stub, size_t len)
{
	if (stub->in_flight < stub->config.max_in_flight &&
		stub->query_bytes + len <= DNS_MAX_QUERY_BYTES)
		return true;
	log_warn_ratelimit("DNS stub: %u queries in flight: refusing more",
		stub->in_flight);
	return false;
}

/* Return: whether the query is on its way; else it has to be answered. */
static bool ask(struct listener *listener, struct client *client,
	const union sockaddr_any *peer, socklen_t peer_len,
	const struct dns_query *info, const uint8_t *msg, size_t len)
{
	struct dns_stub *stub = listener->stub;
	struct query *query;

	if (!may_ask(stub, len))
		return false;
	query = calloc(1, sizeof(*query));
	if (!query)
		return false;
	query->magic = QUERY_MAGIC;
	query->listener = listener;
	query->client = client;
	if (peer)
		query->peer = *peer;
	query->peer_len = peer_len;
	query->info = *info;
	query->len = len;
	query->ask = dns_upstream_ask(stub->upstream, msg, len, info,
		listener->first, on_outcome, query);
	if (!query->ask) {
		free(query);
		return false;
	}
	list_init(&query->node);
	list_add_tail(
		client ? &client->queries : &stub->udp_queries, &query->node);
	stub->in_flight++;
	stub->query_bytes += len;
	if (client)
		client->in_flight++;
	return true;
}

bool stub_take_query(struct listener *listener, struct client *client,
	const union sockaddr_any *peer, socklen_t peer_len, const uint8_t *msg,
	size_t len)
{
	uint8_t error[DNS_ERROR_LEN_MAX];
	struct dns_query info;

	switch (dns_query_parse(&info, msg, len)) {
	case DNS_IGNORE: return false;
	case DNS_REPLY: break;
	case DNS_FORWARD:
		if (ask(listener, client, peer, peer_len, &info, msg, len))
			return true;
		info.rcode = DNS_SERVFAIL;
		break;
	}
	len = dns_write_error(error, msg, &info, info.rcode);
	reply(listener, client, peer, peer_len, &info, error, len);
	return true;
}

void stub_drop_queries(struct list *queries)
{
	while (!list_empty(queries)) {
		struct query *query =
			list_entry(list_pop(queries), struct query, node);

		dns_ask_cancel(query->ask);
		query_free(query);
	}
}

/* ---- life ---- */

static void free_ended(struct dns_stub *stub)
{
	while (!list_empty(&stub->ended)) {
		struct client *client =
			list_entry(list_pop(&stub->ended), struct client, node);

		client->magic = 0;
		free(client);
	}
}

static void on_reap(struct ev_loop *loop, ev_prepare *reap, int revents)
{
	struct dns_stub *stub = reap->data;

	assert(stub->magic == STUB_MAGIC);
	free_ended(stub);
}

static struct dns_stub *stub_new(
	struct ev_loop *loop, const struct dns_stub_config *config)
{
	struct dns_stub *stub = calloc(1, sizeof(*stub));

	if (!stub)
		return NULL;
	stub->magic = STUB_MAGIC;
	stub->loop = loop;
	stub->config = *config;
	if (stub->config.deadline <= 0)
		stub->config.deadline = DNS_DEADLINE;
	if (stub->config.dead_time <= 0)
		stub->config.dead_time = DNS_DEAD_TIME;
	if (stub->config.upstream_idle <= 0)
		stub->config.upstream_idle = DNS_UPSTREAM_IDLE;
	if (stub->config.client_idle <= 0)
		stub->config.client_idle = DNS_CLIENT_IDLE;
	if (stub->config.max_in_flight == 0 ||
		stub->config.max_in_flight > DNS_MAX_IN_FLIGHT)
		stub->config.max_in_flight = DNS_MAX_IN_FLIGHT;
	if (stub->config.max_clients == 0)
		stub->config.max_clients = DNS_MAX_CLIENTS;
	list_init(&stub->udp_queries);
	list_init(&stub->clients);
	list_init(&stub->ended);
	ev_init(&stub->sweep, client_sweep);
	stub->sweep.repeat = SWEEP_PERIOD;
	stub->sweep.data = stub;
	ev_prepare_init(&stub->reap, on_reap);
	stub->reap.data = stub;
	ev_prepare_start(loop, &stub->reap);
	ev_unref(loop); /* it alone keeps no loop running */
	return stub;
}

static struct dns_upstream *upstream_new(const struct dns_stub *stub)
{
	const struct dns_upstream_config config = {
		.dialer = stub->config.dialer,
		.servers = stub->config.servers,
		.nr_servers = stub->config.nr_servers,
		.deadline = stub->config.deadline,
		.dead_time = stub->config.dead_time,
		.idle_time = stub->config.upstream_idle,
	};

	return dns_upstream_new(stub->loop, &config);
}

/* The server that an address stands in for, if it does. */
static unsigned prefer(
	const struct dns_stub_config *config, const struct ip_port *addr)
{
	unsigned i;

	for (i = 0; i < config->nr_servers; i++) {
		struct ip_port server = config->servers[i].addr;

		server.port = addr->port;
		if (ip_port_equal(&server, addr))
			return i;
	}
	return 0;
}

/* Return: 0, or -1 and errno if there is not one address. */
static int stub_listen(
	struct dns_stub *stub, const struct dns_stub_config *config)
{
	struct dns_socket sock;
	int err = 0;
	unsigned i;

	for (i = 0; i < config->nr_sockets; i++)
		listener_start(stub, &config->sockets[i],
			prefer(config, &config->sockets[i].addr));
	for (i = 0; config->nr_sockets == 0 && i < config->nr_listen; i++) {
		if (dns_socket_open(&sock, &config->listen[i]) == 0)
			listener_start(stub, &sock, prefer(config, &sock.addr));
		else
			err = errno;
	}
	errno = err;
	return stub->nr_listeners > 0 ? 0 : -1;
}

struct dns_stub *dns_stub_start(
	struct ev_loop *loop, const struct dns_stub_config *config)
{
	struct dns_stub *stub;
	int err;

	if ((config->nr_sockets == 0 && config->nr_listen == 0) ||
		config->nr_listen > DNS_LISTEN_MAX ||
		config->nr_sockets > DNS_LISTEN_MAX) {
		errno = EINVAL;
		return NULL;
	}
	stub = stub_new(loop, config);
	if (!stub)
		return NULL;
	stub->upstream = upstream_new(stub);
	if (!stub->upstream || stub_listen(stub, config) == -1) {
		err = errno;
		dns_stub_stop(stub);
		errno = err;
		return NULL;
	}
	stub->config.listen = NULL; /* the caller's; copied */
	stub->config.sockets = NULL;
	stub->config.servers = NULL;
	return stub;
}

void dns_stub_stop(struct dns_stub *stub)
{
	unsigned i;

	if (!stub)
		return;
	assert(stub->magic == STUB_MAGIC);
	for (i = 0; i < stub->nr_listeners; i++)
		listener_stop(&stub->listeners[i]);
	while (!list_empty(&stub->clients))
		client_end(list_entry(stub->clients.next, struct client, node));
	stub_drop_queries(&stub->udp_queries);
	assert(stub->in_flight == 0);
	if (stub->upstream)
		dns_upstream_free(stub->upstream);
	free_ended(stub);
	ev_timer_stop(stub->loop, &stub->sweep);
	ev_ref(stub->loop);
	ev_prepare_stop(stub->loop, &stub->reap);
	stub->magic = 0;
	free(stub);
}

int dns_stub_address(
	const struct dns_stub *stub, unsigned index, struct ip_port *out)
{
	if (index >= stub->nr_listeners)
		return -1;
	*out = stub->listeners[index].addr;
	return 0;
}

unsigned dns_stub_in_flight(const struct dns_stub *stub)
{
	return stub->in_flight;
}

unsigned dns_stub_clients(const struct dns_stub *stub)
{
	return stub->nr_clients;
}
