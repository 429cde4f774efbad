/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/option_values.h"

#include "proxy/listener.h"
#include "proxy/relay.h"
#include "proxy/worker.h"

#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 86400.0

/* ---- numbers and endpoints ---- */

static const char *set_uint(
	const char *value, uint64_t min, uint64_t max, uint64_t *out)
{
	if (parse_uint(value, strlen(value), max, out) == -1 || *out < min)
		return "out of range";
	return NULL;
}

/* Seconds, with or without a fraction: "10", "0.5". Return: 0 or -1. */
static int parse_seconds(const char *text, double *out)
{
	char *end;

	/* strtod() takes more than we want: signs, blanks, hex, infinity. */
	if (*text == '\0' || text[strspn(text, "0123456789.")] != '\0')
		return -1;
	*out = strtod(text, &end);
	return end != text && *end == '\0' && *out <= SECONDS_MAX ? 0 : -1;
}

static const char *set_timeout(const char *value, double *out)
{
	if (parse_seconds(value, out) == -1 || *out <= 0)
		return "expected seconds, more than 0 and at most 86400";
	return NULL;
}

const char *option_add_endpoint(struct options *o, const struct endpoint *ep)
{
	if (o->nr_listen == OPTIONS_LISTEN_MAX)
		return "expected at most 64 endpoints";
	o->listen[o->nr_listen++] = *ep;
	return NULL;
}

/* One for each port of a range. */
static const char *add_endpoints(struct options *o, const struct endpoint *ep)
{
	const char *why = NULL;

	for (uint32_t i = 0; i <= ep->more && !why; i++) {
		struct endpoint one = *ep;

		endpoint_pick(&one, i);
		why = option_add_endpoint(o, &one);
	}
	return why;
}

/* ---- options ---- */

const char *option_set_listen(void *target, const char *value)
{
	struct endpoint ep;
	const char *why = endpoint_parse(&ep, value);

	if (!why)
		why = listener_check(&ep);
	return why ? why : add_endpoints(target, &ep);
}

const char *option_set_tcp(void *target, const char *value)
{
	struct options *o = target;

	o->tcp = true;
	return NULL;
}

const char *option_set_port(void *target, const char *value)
{
	struct options *o = target;
	uint64_t port;

	/* With -t it must be less; that is known only at the end. */
	if (set_uint(value, 0, UINT32_MAX, &port))
		return "expected a port number";
	o->port = (uint32_t)port;
	o->port_given = true;
	return NULL;
}

const char *option_set_buffer_size(void *target, const char *value)
{
	struct options *o = target;
	uint64_t size;

	if (set_uint(value, RELAY_BUFFER_MIN, RELAY_BUFFER_MAX, &size))
		return "expected bytes, 1024 to 16777216";
	o->buffer_size = (size_t)size;
	return NULL;
}

const char *option_set_workers(void *target, const char *value)
{
	struct options *o = target;
	uint64_t workers;

	if (set_uint(value, 1, WORKERS_MAX, &workers))
		return "expected a number from 1 to 256";
	o->workers = (unsigned int)workers;
	return NULL;
}

const char *option_set_drain(void *target, const char *value)
{
	struct options *o = target;

	if (parse_seconds(value, &o->drain) == -1)
		return "expected seconds, at most 86400";
	return NULL;
}

const char *option_set_handshake(void *target, const char *value)
{
	return set_timeout(
		value, &((struct options *)target)->handshake_timeout);
}

const char *option_set_connect(void *target, const char *value)
{
	return set_timeout(value, &((struct options *)target)->connect_timeout);
}

const char *option_set_allow(void *target, const char *value)
{
	return rules_add(
		&((struct options *)target)->rules, value, RULES_ALLOW);
}

const char *option_set_deny(void *target, const char *value)
{
	return rules_add(&((struct options *)target)->rules, value, RULES_DENY);
}

const char *option_set_bind_address(void *target, const char *value)
{
	return bind_policy_add_address(
		&((struct options *)target)->bind, value);
}

const char *option_set_allow_bind(void *target, const char *value)
{
	return bind_policy_add_allow(&((struct options *)target)->bind, value);
}

const char *option_set_publish(void *target, const char *value)
{
	return bind_policy_add_publish(
		&((struct options *)target)->bind, value);
}

const char *option_set_accept_queue(void *target, const char *value)
{
	struct options *o = target;
	uint64_t queue;

	if (set_uint(value, 1, BIND_QUEUE_MAX, &queue))
		return "expected a number from 1 to 65535";
	o->bind.queue = (unsigned int)queue;
	return NULL;
}

const char *option_set_resolv_conf(void *target, const char *value)
{
	struct options *o = target;

	if (value[0] != '/' || strlen(value) >= sizeof(o->resolv_conf))
		return "expected an absolute path";
	memcpy(o->resolv_conf, value, strlen(value) + 1);
	return NULL;
}

/* "3:5", "vsock:3:5", "tcp:[::1]:5": with a port where none belongs. Only what
 * is certain; the rest is for the parser. */
static bool has_a_port(const char *value)
{
	const char *host = value;

	if (strncmp(value, "unix:", 5) == 0 ||
		strncmp(value, "vsock-mux:", 10) == 0)
		return false;
	if (strncmp(value, "vsock:", 6) == 0)
		host += 6;
	else if (strncmp(value, "tcp:", 4) == 0)
		host += 4;
	if (host[0] == '[')
		host += strcspn(host, "]");
	return strchr(host, ':') != NULL;
}

/*
 * An address in the short form that options of the modes have, or an endpoint.
 * @scheme: what the short form leaves out
 * @bare:   the port is left out too, it comes from elsewhere
 */
static const char *parse_address(
	struct endpoint *ep, const char *value, const char *scheme, bool bare)
{
	static const char *const schemes[] = {
		"vsock:", "unix:", "tcp:", "vsock-mux:"};
	char text[ENDPOINT_STRLEN + 16];
	const char *port = "";
	bool has_scheme = false;
	const char *why;

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		has_scheme |=
			strncmp(value, schemes[i], strlen(schemes[i])) == 0;
	if (bare && strncmp(value, "unix:", 5) != 0)
		port = ":0";
	if (bare && has_a_port(value))
		return "expected no port: it is the one that the client asks "
		       "for";
	if (snprintf(text, sizeof(text), "%s%s%s", has_scheme ? "" : scheme,
		    value, port) >= (int)sizeof(text))
		return "expected an address, this is too long for one";
	why = endpoint_parse(ep, text);
	if (!why && ep->more)
		why = "expected one port, a range is for SOCKS5's --listen";
	if (!why && bare && !endpoint_has_room(ep))
		why = "expected a path of at most 96 bytes, a port is added";
	return why;
}

/* Can it be connected to? Return: NULL, or what was expected. */
static const char *target_check(const struct endpoint *ep, bool bare)
{
	if (ep->kind == ENDPOINT_VSOCK && ep->cid == VMADDR_CID_ANY)
		return "expected the CID of one machine to connect to";
	if (bare)
		return NULL;
	if ((ep->kind == ENDPOINT_TCP && ep->port == 0) ||
		(ep->kind == ENDPOINT_VSOCK && ep->port == VMADDR_PORT_ANY))
		return "expected a port to connect to";
	return NULL;
}

#define GIVEN_TWICE "expected it once; 'proxy run' serves several listeners"

const char *option_set_vsock(void *target, const char *value)
{
	struct options *o = target;
	bool bare = o->mode->reach == REACH_PORT;
	const char *why;

	if (o->vsock.kind != ENDPOINT_NONE)
		return GIVEN_TWICE;
	why = parse_address(&o->vsock, value, "vsock:", bare);
	if (why)
		return why;
	return o->mode->from_vsock ? listener_check(&o->vsock)
				   : target_check(&o->vsock, bare);
}

const char *option_set_ip(void *target, const char *value)
{
	struct options *o = target;
	const char *why;

	if (o->ip.kind != ENDPOINT_NONE)
		return GIVEN_TWICE;
	why = parse_address(&o->ip, value, "tcp:", false);
	if (!why)
		why = o->mode->from_vsock ? target_check(&o->ip, false)
					  : listener_check(&o->ip);
	if (!why && o->mode->learn == LEARN_REDIRECT &&
		o->ip.kind != ENDPOINT_TCP)
		why = "expected a TCP address: only TCP connections can be "
		      "redirected";
	return why;
}

const char *option_set_max_connections(void *target, const char *value)
{
	struct options *o = target;
	uint64_t nr;

	if (set_uint(value, 0, INT32_MAX, &nr))
		return "expected a number, 0 for no limit";
	o->max_connections = (long)nr;
	return NULL;
}

const char *option_set_idle(void *target, const char *value)
{
	struct options *o = target;

	if (parse_seconds(value, &o->idle_timeout) == -1)
		return "expected seconds, at most 86400, 0 for no limit";
	return NULL;
}

const char *option_set_tproxy(void *target, const char *value)
{
	((struct options *)target)->tproxy = true;
	return NULL;
}

const char *option_set_accept_proxyproto(void *target, const char *value)
{
	((struct options *)target)->accept_proxyproto = true;
	return NULL;
}

const char *option_set_send_proxyproto(void *target, const char *value)
{
	struct options *o = target;

	if (strcmp(value, "v1") == 0)
		o->send_proxyproto = PROXYPROTO_V1;
	else if (strcmp(value, "v2") == 0)
		o->send_proxyproto = PROXYPROTO_V2;
	else
		return "expected v1 or v2";
	return NULL;
}

const char *option_set_config(void *target, const char *value)
{
	((struct options *)target)->config_file = value;
	return NULL;
}

const char *option_set_log(void *target, const char *value)
{
	struct options *o = target;

	if (log_level_parse(value, &o->log_level) == -1)
		return "expected error, warn, info or debug";
	return NULL;
}

const char *option_set_help(void *target, const char *value)
{
	((struct options *)target)->help = true;
	return NULL;
}

const char *option_set_version(void *target, const char *value)
{
	((struct options *)target)->version = true;
	return NULL;
}
