/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/servers.h"
#include "vendor/gate_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/*
 * Theory of operation
 *
 *	PING		answered at once, with the key of the DNS servers
 *	CONNECT, PROBE	a dial, whose end is the answer
 *	BIND, REJOIN	the inbound service's
 *
 * A gate whose request is BIND or REJOIN is no gate: its socket goes to the
 * inbound service (vendor/inbound.h), with the request consumed, and the gate
 * is closed without it. A refusal is answered here, with nothing left unread:
 * whoever binds waits in recv(), where a pending error would come first.
 *
 * A front-end of another user must not borrow the vendor's rights: it may name
 * a host proxy of its own, but not one that is found through the file system,
 * where the vendor might be let in and the user not.
 */

#define CONNECT_TIMEOUT 130.0  /* Linux' SYN and its six retries, about */
#define CONNECT_MAX     3600.0 /* longest that may be asked for */
#define PROBE_TIMEOUT   3.0
#define PARK_TIME       1.0

/* For the operator; who probed hears of it in the answer. */
static void log_proxy_failure(const struct dial_result *result)
{
	char text[ENDPOINT_STRLEN];
	int err = result->proxy_err;

	log_warn_ratelimit("host proxy %s: %s%s; is `proxy` running on the "
			   "host and listening there?",
		endpoint_format(result->ep, text, sizeof(text)),
		log_strerror(err),
		err == EPROTO ? " (it does not speak SOCKS5)" : "");
}

static void log_outcome(const struct gate *g, const struct dial_result *result)
{
	char remote[IP_PORT_STRLEN];

	log_debug("gate %llu (uid %u): connect to %s: %s",
		(unsigned long long)g->id, g->uid,
		ip_port_format(&g->result.remote, remote, sizeof(remote)),
		result->err ? log_strerror(result->err) : "connected");
}

static void on_dialled(const struct dial_result *result, void *arg)
{
	struct gate *g = arg;

	assert(g->magic == GATE_MAGIC && g->state == GATE_WORKING);
	g->dial = NULL;
	g->carrier = result->fd;
	log_outcome(g, result);
	g->result.local = result->local;
	/* Who probes wants to know why, an application what it means. */
	if (g->result.op == VENDOR_PROBE && result->proxy_err) {
		gate_answer(g, result->proxy_err);
		return;
	}
	if (result->proxy_err)
		log_proxy_failure(result);
	gate_answer(g, result->err);
}

/* Not comparable byte by byte: there is padding in them. */
static bool same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
	char text_a[ENDPOINT_STRLEN], text_b[ENDPOINT_STRLEN];

	return strcmp(endpoint_format(a, text_a, sizeof(text_a)),
		       endpoint_format(b, text_b, sizeof(text_b))) == 0;
}

/*
 * The host proxy to use for a request.
 * Return: 0 and *ep filled, or the status to answer with.
 */
static int choose_endpoint(const struct gate *g,
	const struct vendor_request *req, struct endpoint *ep)
{
	const struct endpoint *own = &g->gates->config->endpoint;
	const char *why;

	*ep = *own;
	if (!req->endpoint[0])
		return 0;
	why = endpoint_parse(ep, req->endpoint);
	if (why) {
		log_warn_ratelimit("uid %u: bad endpoint '%s': %s", g->uid,
			req->endpoint, why);
		return EINVAL;
	}
	if ((ep->kind == ENDPOINT_UNIX || ep->kind == ENDPOINT_VSOCK_MUX) &&
		g->uid != 0 && g->uid != g->gates->config->own_uid &&
		!same_endpoint(ep, own)) {
		log_warn_ratelimit("uid %u: endpoint '%s' refused: another "
				   "user's must be the vendor's own, or vsock "
				   "or tcp",
			g->uid, req->endpoint);
		return EACCES;
	}
	return 0;
}

static double timeout_of(const struct vendor_request *req)
{
	double timeout = req->timeout_ms / 1000.0;

	if (req->timeout_ms == 0)
		return req->op == VENDOR_PROBE ? PROBE_TIMEOUT
					       : CONNECT_TIMEOUT;
	return timeout < CONNECT_MAX ? timeout : CONNECT_MAX;
}

static void begin_dial(struct gate *g, const struct vendor_request *req)
{
	struct ev_loop *loop = g->gates->loop;
	struct socks5_addr dst = {.addr = req->dst};
	struct endpoint ep;
	int err = choose_endpoint(g, req, &ep);

	if (err) {
		gate_answer(g, err);
		return;
	}
	if (req->name[0])
		log_debug("gate %llu (uid %u): for the name %s",
			(unsigned long long)g->id, g->uid, req->name);
	dst.name_len = (uint8_t)strlen(req->name);
	memcpy(dst.name, req->name, (size_t)dst.name_len + 1);
	if (req->op == VENDOR_PROBE)
		g->dial = dial_probe(loop, &ep, timeout_of(req), on_dialled, g);
	else
		g->dial = dial_start(loop, &ep, SOCKS5_CONNECT, &dst,
			timeout_of(req), on_dialled, g);
	if (!g->dial)
		gate_answer(g, ENOBUFS);
}

static void park(struct gate *g)
{
	gate_set_state(g, GATE_PARKED);
	ev_timer_stop(g->gates->loop, &g->timer);
	ev_timer_set(&g->timer, PARK_TIME, 0);
	ev_timer_start(g->gates->loop, &g->timer);
}

static void hand_over(struct gate *g, const struct vendor_request *req)
{
	struct endpoint ep;
	int err = choose_endpoint(g, req, &ep);

	if (gate_consume(g) == -1) {
		gate_close(g);
		return;
	}
	if (g->edge.poll)
		edge_del(&g->edge);
	if (err == 0)
		err = inbound_take(g->gates->inbound, &g->fd, g->uid, &ep, req);
	if (err == 0)
		gate_close(g);
	else if (req->op == VENDOR_REJOIN)
		park(g);
	else
		gate_answer(g, err);
}

static void tell_dns_servers(struct gate *g)
{
	const struct vendor_config *config = g->gates->config;

	_Static_assert(sizeof(g->result.key) == DNS_SERVERS_KEY, "room");
	if (config->nr_dns_listen > 0)
		dns_servers_key(g->result.key, config->dns_servers,
			config->nr_dns_servers);
}

void gate_begin(struct gate *g, const struct vendor_request *req)
{
	vendor_result_init(&g->result, req->op, 0);
	if (req->op == VENDOR_CONNECT)
		g->result.remote = req->dst;
	gate_set_state(g, GATE_WORKING);
	switch ((enum vendor_op)req->op) {
	case VENDOR_PING:
		tell_dns_servers(g);
		gate_answer(g, 0);
		break;
	case VENDOR_CONNECT:
	case VENDOR_PROBE: begin_dial(g, req); break;
	case VENDOR_BIND:
	case VENDOR_REJOIN: hand_over(g, req); break;
	case VENDOR_LISTEN: /* BIND comes first */
	case VENDOR_ACCEPT: gate_answer(g, EINVAL); break;
	}
}
