/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "common/log.h"
#include "resolv/dns_stub_int.h"

#include <assert.h>
#include <stdlib.h>

void client_end(struct client *client)
{
	struct dns_stub *stub = client->stub;

	if (client->tcp.fd == -1)
		return;
	dns_tcp_close(&client->tcp);
	stub_drop_queries(&client->queries);
	list_del(&client->node);
	list_add_tail(&stub->ended, &client->node);
	assert(stub->nr_clients > 0);
	stub->nr_clients--;
	if (stub->nr_clients == 0)
		ev_timer_stop(stub->loop, &stub->sweep);
}

void client_send(struct client *client, const uint8_t *msg, size_t len)
{
	client->active = ev_now(client->stub->loop);
	if (dns_tcp_send(&client->tcp, msg, len) == 0)
		return;
	log_info_ratelimit("DNS stub: client over TCP does not read: closed");
	client_end(client);
}

/* What is in flight and queued decides. */
void client_update(struct client *client)
{
	size_t queued;

	if (client->tcp.fd == -1)
		return;
	queued = dns_tcp_queued(&client->tcp);
	if (client->tcp.eof && client->in_flight == 0 && queued == 0) {
		client_end(client);
		return;
	}
	dns_tcp_set_reading(
		&client->tcp, client->in_flight < DNS_CLIENT_FLIGHT &&
				      queued < DNS_CLIENT_TX_HIGH);
}

static void client_message(struct dns_tcp *tcp, uint8_t *msg, size_t len)
{
	struct client *client = list_entry(tcp, struct client, tcp);

	assert(client->magic == CLIENT_MAGIC);
	client->active = ev_now(client->stub->loop);
	if (!stub_take_query(client->listener, client, NULL, 0, msg, len)) {
		log_info_ratelimit("DNS stub: not a query over TCP: closed");
		client_end(client);
		return;
	}
	client_update(client);
}

static void client_closed(struct dns_tcp *tcp, int err)
{
	struct client *client = list_entry(tcp, struct client, tcp);

	assert(client->magic == CLIENT_MAGIC);
	if (err != 0)
		client_end(client);
	else
		client_update(client);
}

static void client_drained(struct dns_tcp *tcp)
{
	client_update(list_entry(tcp, struct client, tcp));
}

static const struct dns_tcp_ops client_ops = {
	.message = client_message,
	.closed = client_closed,
	.drained = client_drained,
};

bool client_make_room(struct dns_stub *stub)
{
	struct client *idlest = NULL;
	struct list *pos, *tmp;

	if (stub->nr_clients < stub->config.max_clients)
		return true;
	list_foreach_safe(pos, tmp, &stub->clients)
	{
		struct client *client = list_entry(pos, struct client, node);

		if (client->in_flight == 0 &&
			(!idlest || client->active < idlest->active))
			idlest = client;
	}
	if (idlest)
		client_end(idlest);
	return idlest != NULL;
}

void client_start(struct listener *listener, int fd)
{
	struct dns_stub *stub = listener->stub;
	struct client *client = calloc(1, sizeof(*client));

	if (!client) {
		closefd(&fd);
		return;
	}
	client->magic = CLIENT_MAGIC;
	client->stub = stub;
	client->listener = listener;
	client->active = ev_now(stub->loop);
	list_init(&client->queries);
	list_add_tail(&stub->clients, &client->node);
	stub->nr_clients++;
	dns_tcp_init(&client->tcp);
	dns_tcp_open(
		&client->tcp, stub->loop, fd, DNS_CLIENT_TX_MAX, &client_ops);
	if (!ev_is_active(&stub->sweep))
		ev_timer_again(stub->loop, &stub->sweep);
}

/* Those that do not read their answers too. */
void client_sweep(struct ev_loop *loop, ev_timer *timer, int revents)
{
	struct dns_stub *stub = timer->data;
	double limit = ev_now(loop) - stub->config.client_idle;
	struct list *pos, *tmp;

	list_foreach_safe(pos, tmp, &stub->clients)
	{
		struct client *client = list_entry(pos, struct client, node);

		if (client->in_flight == 0 && client->active < limit)
			client_end(client);
	}
}
