/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/options.h"

#include "proxy/listener.h"
#include "proxy/optparse.h"
#include "proxy/relay.h"
#include "proxy/worker.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SECONDS_MAX 86400.0

#define DEFAULT_DRAIN     10.0
#define DEFAULT_HANDSHAKE 10.0
#define DEFAULT_CONNECT   60.0

/* ---- values ---- */

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

static const char *add_endpoint(struct options *o, const struct endpoint *ep)
{
	if (o->nr_listen == OPTIONS_LISTEN_MAX)
		return "expected at most 64 endpoints";
	o->listen[o->nr_listen++] = *ep;
	return NULL;
}

/* ---- options ---- */

static const char *set_listen(void *target, const char *value)
{
	struct endpoint ep;
	const char *why = endpoint_parse(&ep, value);

	if (!why)
		why = listener_check(&ep);
	return why ? why : add_endpoint(target, &ep);
}

static const char *set_tcp(void *target, const char *value)
{
	struct options *o = target;

	o->tcp = true;
	return NULL;
}

static const char *set_port(void *target, const char *value)
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

static const char *set_buffer_size(void *target, const char *value)
{
	struct options *o = target;
	uint64_t size;

	if (set_uint(value, RELAY_BUFFER_MIN, RELAY_BUFFER_MAX, &size))
		return "expected bytes, 1024 to 16777216";
	o->buffer_size = (size_t)size;
	return NULL;
}

static const char *set_workers(void *target, const char *value)
{
	struct options *o = target;
	uint64_t workers;

	if (set_uint(value, 1, WORKERS_MAX, &workers))
		return "expected a number from 1 to 256";
	o->workers = (unsigned int)workers;
	return NULL;
}

static const char *set_drain(void *target, const char *value)
{
	struct options *o = target;

	if (parse_seconds(value, &o->drain) == -1)
		return "expected seconds, at most 86400";
	return NULL;
}

static const char *set_handshake(void *target, const char *value)
{
	return set_timeout(
		value, &((struct options *)target)->handshake_timeout);
}

static const char *set_connect(void *target, const char *value)
{
	return set_timeout(value, &((struct options *)target)->connect_timeout);
}

static const char *set_allow(void *target, const char *value)
{
	return rules_add(
		&((struct options *)target)->rules, value, RULES_ALLOW);
}

static const char *set_deny(void *target, const char *value)
{
	return rules_add(&((struct options *)target)->rules, value, RULES_DENY);
}

static const char *set_bind_address(void *target, const char *value)
{
	return bind_policy_add_address(
		&((struct options *)target)->bind, value);
}

static const char *set_allow_bind(void *target, const char *value)
{
	return bind_policy_add_allow(&((struct options *)target)->bind, value);
}

static const char *set_publish(void *target, const char *value)
{
	return bind_policy_add_publish(
		&((struct options *)target)->bind, value);
}

static const char *set_accept_queue(void *target, const char *value)
{
	struct options *o = target;
	uint64_t queue;

	if (set_uint(value, 1, BIND_QUEUE_MAX, &queue))
		return "expected a number from 1 to 65535";
	o->bind.queue = (unsigned int)queue;
	return NULL;
}

static const char *set_resolv_conf(void *target, const char *value)
{
	if (value[0] != '/')
		return "expected an absolute path";
	((struct options *)target)->resolv_conf = value;
	return NULL;
}

static const char *set_log(void *target, const char *value)
{
	struct options *o = target;

	if (log_level_parse(value, &o->log_level) == -1)
		return "expected error, warn, info or debug";
	return NULL;
}

static const char *set_help(void *target, const char *value)
{
	((struct options *)target)->help = true;
	return NULL;
}

static const char *set_version(void *target, const char *value)
{
	((struct options *)target)->version = true;
	return NULL;
}

static const struct opt table[] = {
	{'l', "listen", "ENDPOINT",
		"listen on vsock:CID:PORT, unix:/path or tcp:HOST:PORT;\n"
		"may be given several times (default vsock:any:8888)",
		set_listen},
	{'t', "tcp", NULL,
		"listen on TCP, on every address of this host, instead of\n"
		"vsock",
		set_tcp},
	{'p', "port", "PORT", "port for -t or vsock (default 8888)", set_port},
	{'b', "buffer_size", "BYTES",
		"most that is moved at once, and held for a slow receiver\n"
		"(default 262144)",
		set_buffer_size},
	{'w', "workers", "N", "threads (default: the number of processors)",
		set_workers},
	{0, "drain", "SECONDS",
		"on SIGTERM or SIGINT, time for streams to finish; a second\n"
		"signal ends them at once (default 10)",
		set_drain},
	{0, "handshake-timeout", "SECONDS",
		"for a client to send its whole request (default 10)",
		set_handshake},
	{0, "connect-timeout", "SECONDS",
		"for a destination to answer, name look-up included\n"
		"(default 60)",
		set_connect},
	{0, "allow", "RULE",
		"let clients connect to CIDR, CIDR:PORT or CIDR:PORT-PORT\n"
		"([IPV6]/LENGTH:PORT). The first of all --allow and --deny\n"
		"that matches decides; if none does, the destination is\n"
		"denied where any --allow was given",
		set_allow},
	{0, "deny", "RULE", "refuse destinations, as above", set_deny},
	{0, "bind-address", "ADDR",
		"address of this host on which servers of an enclave are\n"
		"reached; may be given several times (default: any, of both\n"
		"families)",
		set_bind_address},
	{0, "allow-bind", "PORTS",
		"ports of this host that they may use: all, none, or\n"
		"80,443,8000-8999; several lists add up (default all)",
		set_allow_bind},
	{0, "publish", "ENCLAVE:HOST",
		"a server on port ENCLAVE is reached on port HOST; may be\n"
		"given several times (default: on the same port)",
		set_publish},
	{0, "accept-queue", "N",
		"clients of such a port that may wait for a connection from\n"
		"the enclave (default 1024)",
		set_accept_queue},
	{0, "resolv-conf", "FILE",
		"name servers of this host (default /etc/resolv.conf)",
		set_resolv_conf},
	{0, "log", "LEVEL", "error, warn, info or debug (default info)",
		set_log},
	{'h', "help", NULL, "print this text", set_help},
	{'V', "version", NULL, "print the version", set_version},
};
#define NR_OPTS (sizeof(table) / sizeof(table[0]))

/* The processors that this process may use. */
static unsigned int default_workers(void)
{
	cpu_set_t set;
	int nr = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		nr = CPU_COUNT(&set);
	return nr > WORKERS_MAX ? WORKERS_MAX : (unsigned int)nr;
}

/* What -t and -p, or nothing at all, stand for. Return: 0 or -1. */
static int add_default_listener(struct options *o, char *error)
{
	struct endpoint ep = {.kind = ENDPOINT_VSOCK, .cid = VMADDR_CID_ANY};
	const char *why;

	if (o->nr_listen > 0 && !o->tcp && !o->port_given)
		return 0;
	if (o->tcp && o->port > UINT16_MAX) {
		snprintf(error, OPTPARSE_ERROR_MAX,
			"bad value '%u' for --port: expected a TCP port, a "
			"number below 65536",
			o->port);
		return -1;
	}
	ep.port = o->port;
	if (o->tcp) {
		ep.kind = ENDPOINT_TCP;
		ep.cid = 0;
		ep.addr.family = AF_INET;
		ep.addr.port = (uint16_t)o->port;
	}
	why = add_endpoint(o, &ep);
	if (why)
		snprintf(error, OPTPARSE_ERROR_MAX, "%s", why);
	return why ? -1 : 0;
}

int options_parse(struct options *o, int argc, char **argv, char *error)
{
	memset(o, 0, sizeof(*o));
	o->port = OPTIONS_DEFAULT_PORT;
	o->buffer_size = RELAY_BUFFER_DEFAULT;
	o->workers = default_workers();
	o->drain = DEFAULT_DRAIN;
	o->handshake_timeout = DEFAULT_HANDSHAKE;
	o->connect_timeout = DEFAULT_CONNECT;
	o->log_level = LOG_INFO;
	o->resolv_conf = "/etc/resolv.conf";
	rules_init(&o->rules);
	bind_policy_init(&o->bind);
	if (optparse(table, NR_OPTS, argc, argv, o, error) == -1)
		return -1;
	return add_default_listener(o, error);
}

void options_free(struct options *o)
{
	rules_free(&o->rules);
}

void options_help(void)
{
	printf("Usage: proxy [OPTION]...\n"
	       "SOCKS5 server for machines whose only way out is vsock.\n\n");
	optparse_help(table, NR_OPTS, stdout);
}
