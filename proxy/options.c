/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/options.h"

#include "proxy/listener.h"
#include "proxy/relay.h"
#include "proxy/worker.h"

#include <assert.h>
#include <errno.h>
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

/* One for each port of a range. */
static const char *add_endpoints(struct options *o, const struct endpoint *ep)
{
	const char *why = NULL;

	for (uint32_t i = 0; i <= ep->more && !why; i++) {
		struct endpoint one = *ep;

		endpoint_pick(&one, i);
		why = add_endpoint(o, &one);
	}
	return why;
}

/* ---- options ---- */

static const char *set_listen(void *target, const char *value)
{
	struct endpoint ep;
	const char *why = endpoint_parse(&ep, value);

	if (!why)
		why = listener_check(&ep);
	return why ? why : add_endpoints(target, &ep);
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

static const char *set_vsock(void *target, const char *value)
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

static const char *set_ip(void *target, const char *value)
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

static const char *set_max_connections(void *target, const char *value)
{
	struct options *o = target;
	uint64_t nr;

	if (set_uint(value, 0, INT32_MAX, &nr))
		return "expected a number, 0 for no limit";
	o->max_connections = (long)nr;
	return NULL;
}

static const char *set_idle(void *target, const char *value)
{
	struct options *o = target;

	if (parse_seconds(value, &o->idle_timeout) == -1)
		return "expected seconds, at most 86400, 0 for no limit";
	return NULL;
}

static const char *set_tproxy(void *target, const char *value)
{
	((struct options *)target)->tproxy = true;
	return NULL;
}

static const char *set_accept_proxyproto(void *target, const char *value)
{
	((struct options *)target)->accept_proxyproto = true;
	return NULL;
}

static const char *set_send_proxyproto(void *target, const char *value)
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

static const char *set_config(void *target, const char *value)
{
	((struct options *)target)->config_file = value;
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

/* ---- groups of options ---- */

static const struct opt socks5_opts[] = {
	{'l', "listen", "ENDPOINT",
		"listen on vsock:CID:PORT, unix:/path or tcp:HOST:PORT;\n"
		"may be given several times (default vsock:any:8888).\n"
		"vsock:CID:PORT-PORT is a range, for enclaves with\n"
		"thousands of connections",
		set_listen, true},
};

/* Short for --listen, on a command line only. */
static const struct opt reference_opts[] = {
	{'t', "tcp", NULL,
		"listen on TCP, on every IPv4 address of this host, instead\n"
		"of vsock",
		set_tcp},
	{'p', "port", "PORT", "port for -t or vsock (default 8888)", set_port},
};

static const struct opt vsock_listen_opts[] = {
	{'v', "vsock-addr", "CID:PORT",
		"listen on this vsock address; CID may be 'any'. Or an\n"
		"endpoint: unix:/path, tcp:HOST:PORT (required)",
		set_vsock},
};

static const struct opt vsock_target_opts[] = {
	{'v', "vsock-addr", "CID:PORT",
		"connect to this vsock address. Or an endpoint:\n"
		"vsock-mux:/path:PORT for a guest of Firecracker or Cloud\n"
		"Hypervisor, unix:/path, tcp:HOST:PORT (required)",
		set_vsock},
};

static const struct opt vsock_cid_opts[] = {
	{'v', "vsock", "CID",
		"connect to this machine, on the port that the client asked\n"
		"for. Or an endpoint without a port: vsock-mux:/path,\n"
		"unix:/path (the socket /path_PORT), tcp:HOST (required)",
		set_vsock},
};

static const struct opt ip_listen_opts[] = {
	{'i', "ip-addr", "IP:PORT",
		"listen on this TCP address; IPv6 in brackets. Or an\n"
		"endpoint: unix:/path, vsock:CID:PORT (required)",
		set_ip},
};

static const struct opt redirect_opts[] = {
	{'i', "ip-addr", "IP:PORT",
		"listen for redirected connections on this TCP address; IPv6\n"
		"in brackets (required)",
		set_ip},
	{0, "tproxy", NULL,
		"connections are redirected by TPROXY (default: by REDIRECT\n"
		"or DNAT); needs CAP_NET_ADMIN",
		set_tproxy},
};

static const struct opt ip_target_opts[] = {
	{'i', "ip-addr", "HOST:PORT",
		"connect to this TCP address; a name is looked up for each\n"
		"connection. Or an endpoint: unix:/path (required)",
		set_ip},
};

static const struct opt limit_opts[] = {
	{0, "max-connections", "N",
		"at the same time; others wait to be accepted (default 0:\n"
		"as many as there are file descriptors for)",
		set_max_connections},
	{0, "connect-timeout", "SECONDS",
		"for a destination to answer, name look-up included\n"
		"(default 60)",
		set_connect},
	{0, "idle-timeout", "SECONDS",
		"end connections on which nothing moves in either direction\n"
		"(default 0: never)",
		set_idle},
};

static const struct opt socks5_handshake_opts[] = {
	{0, "handshake-timeout", "SECONDS",
		"for a client to send its whole request (default 10)",
		set_handshake},
};

static const struct opt handshake_opts[] = {
	{0, "handshake-timeout", "SECONDS",
		"for what is expected ahead of the payload to arrive\n"
		"(default 10)",
		set_handshake},
};

static const struct opt proxyproto_opts[] = {
	{0, "proxy-protocol", "v1|v2",
		"send a PROXY protocol header of this version ahead of each\n"
		"connection (default: none)",
		set_send_proxyproto},
	{0, "accept-proxy-protocol", NULL,
		"expect a PROXY protocol header, of either version, at the\n"
		"head of each connection (default: none is looked for)",
		set_accept_proxyproto},
};

static const struct opt rule_opts[] = {
	{0, "allow", "RULE",
		"let clients connect to CIDR, CIDR:PORT or CIDR:PORT-PORT\n"
		"([IPV6]/LENGTH:PORT). The first of all --allow and --deny\n"
		"that matches decides; if none does, the destination is\n"
		"denied where any --allow was given",
		set_allow, true},
	{0, "deny", "RULE", "refuse destinations, as above", set_deny, true},
};

/* Ports of this host for servers of an enclave: one for the whole process. */
static const struct opt export_opts[] = {
	{0, "bind-address", "ADDR",
		"address of this host on which servers of an enclave are\n"
		"reached; may be given several times (default: any, of both\n"
		"families)",
		set_bind_address, true},
	{0, "allow-bind", "PORTS",
		"ports of this host that they may use: all, none, or\n"
		"80,443,8000-8999; several lists add up (default all)",
		set_allow_bind, true},
	{0, "publish", "ENCLAVE:HOST",
		"a server on port ENCLAVE is reached on port HOST; may be\n"
		"given several times (default: on the same port)",
		set_publish, true},
	{0, "accept-queue", "N",
		"clients of such a port that may wait for a connection from\n"
		"the enclave (default 1024)",
		set_accept_queue},
};

static const struct opt process_opts[] = {
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
	{0, "resolv-conf", "FILE",
		"name servers of this host (default /etc/resolv.conf)",
		set_resolv_conf},
	{0, "log", "LEVEL", "error, warn, info or debug (default info)",
		set_log},
};

static const struct opt run_opts[] = {
	{'c', "config", "FILE",
		"the listeners and their options; read again on SIGHUP\n"
		"(required)",
		set_config},
};

static const struct opt info_opts[] = {
	{'h', "help", NULL, "print this text", set_help},
	{'V', "version", NULL, "print the version", set_version},
};

struct rows {
	struct opt *row;
	size_t nr;
};

#define ADD(rows, group) \
 add_rows(rows, group, sizeof(group) / sizeof((group)[0]))

static void add_rows(struct rows *rows, const struct opt *group, size_t nr)
{
	assert(rows->nr + nr <= OPTIONS_ROWS_MAX);
	memcpy(rows->row + rows->nr, group, nr * sizeof(*group));
	rows->nr += nr;
}

/* The two ends of a forward, in the order of its name. */
static void add_ends(struct rows *rows, const struct mode *mode)
{
	if (mode->from_vsock) {
		ADD(rows, vsock_listen_opts);
		if (mode->reach == REACH_TARGET)
			ADD(rows, ip_target_opts);
		return;
	}
	if (mode->learn == LEARN_REDIRECT)
		ADD(rows, redirect_opts);
	else
		ADD(rows, ip_listen_opts);
	if (mode->reach == REACH_PORT)
		ADD(rows, vsock_cid_opts);
	else
		ADD(rows, vsock_target_opts);
}

static void add_listener_rows(
	struct rows *rows, const struct mode *mode, bool command_line)
{
	if (mode->learn == LEARN_SOCKS5) {
		ADD(rows, socks5_opts);
		if (command_line)
			ADD(rows, reference_opts);
		ADD(rows, socks5_handshake_opts);
	} else {
		add_ends(rows, mode);
		ADD(rows, proxyproto_opts);
		ADD(rows, handshake_opts);
	}
	ADD(rows, limit_opts);
	if (mode->learn == LEARN_SOCKS5 || mode->learn == LEARN_PREFIX)
		ADD(rows, rule_opts);
}

size_t options_rows(
	const struct mode *mode, unsigned int which, struct opt *row)
{
	struct rows rows = {.row = row};
	bool command_line = which == (OPTIONS_OF_LISTENER | OPTIONS_OF_PROCESS);

	if (mode && (which & OPTIONS_OF_LISTENER))
		add_listener_rows(&rows, mode, command_line);
	/* Those of `run` are in the file. */
	if (!mode && command_line) {
		ADD(&rows, run_opts);
	} else if (which & OPTIONS_OF_PROCESS) {
		if (!mode || mode->learn == LEARN_SOCKS5)
			ADD(&rows, export_opts);
		ADD(&rows, process_opts);
	}
	if (command_line)
		ADD(&rows, info_opts);
	return rows.nr;
}

/* ---- the whole ---- */

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

static int missing(char *error, const char *what)
{
	snprintf(error, OPTPARSE_ERROR_MAX, "option %s is required", what);
	return -1;
}

int options_check(struct options *o, char *error)
{
	if (o->help || o->version)
		return 0;
	if (!o->mode)
		return o->config_file ? 0 : missing(error, "-c, --config");
	if (o->mode->learn == LEARN_SOCKS5)
		return add_default_listener(o, error);
	if (o->vsock.kind == ENDPOINT_NONE)
		return missing(error, o->mode->reach == REACH_PORT
					      ? "-v, --vsock"
					      : "-v, --vsock-addr");
	if (o->ip.kind == ENDPOINT_NONE && o->mode->learn != LEARN_PREFIX)
		return missing(error, "-i, --ip-addr");
	return 0;
}

void options_init(struct options *o, const struct mode *mode)
{
	memset(o, 0, sizeof(*o));
	o->mode = mode;
	o->port = OPTIONS_DEFAULT_PORT;
	o->buffer_size = RELAY_BUFFER_DEFAULT;
	o->workers = default_workers();
	o->drain = DEFAULT_DRAIN;
	o->handshake_timeout = DEFAULT_HANDSHAKE;
	o->connect_timeout = DEFAULT_CONNECT;
	o->log_level = LOG_INFO;
	strcpy(o->resolv_conf, "/etc/resolv.conf");
	rules_init(&o->rules);
	bind_policy_init(&o->bind);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/*
 * Which command is it?
 * Return: how many of the first arguments say so.
 */
static int find_command(struct options *o, int argc, char **argv)
{
	const char *name = argc > 0 ? base_name(argv[0]) : "proxy";
	const struct mode *mode = mode_find(name, strlen(name));
	const char *word = argc > 1 ? argv[1] : "";
	int used = 1;

	if (!mode) {
		mode = mode_find(word, strlen(word));
		used += mode || strcmp(word, "run") == 0;
	}
	if (!mode && used == 1)
		mode = &mode_table[MODE_SOCKS5];
	options_init(o, mode);
	snprintf(o->program, sizeof(o->program), "%s%s%s", name,
		used > 1 ? " " : "", used > 1 ? word : "");
	return used;
}

int options_parse(struct options *o, int argc, char **argv, char *error)
{
	struct opt rows[OPTIONS_ROWS_MAX];
	int used = find_command(o, argc, argv);
	size_t nr = options_rows(
		o->mode, OPTIONS_OF_LISTENER | OPTIONS_OF_PROCESS, rows);

	/* The command's own word stands where the program's name would. */
	if (optparse(rows, nr, argc - used + 1, argv + used - 1, o, error) ==
		-1)
		/* Who asks for help gets it, whatever came behind. */
		return o->help ? 0 : -1;
	return options_check(o, error);
}

static void fill_service(const struct options *o, struct service_config *out)
{
	memset(out, 0, sizeof(*out));
	out->mode = o->mode;
	out->listen = o->mode->from_vsock ? o->vsock : o->ip;
	out->target = o->mode->from_vsock ? o->ip : o->vsock;
	out->max_connections = o->max_connections;
	out->handshake_timeout = o->handshake_timeout;
	out->connect_timeout = o->connect_timeout;
	out->idle_timeout = o->idle_timeout;
	out->tproxy = o->tproxy;
	out->accept_proxyproto = o->accept_proxyproto;
	out->send_proxyproto = o->send_proxyproto;
}

int options_services(struct options *o, struct service_config *out)
{
	size_t nr = o->mode->learn == LEARN_SOCKS5 ? o->nr_listen : 1;

	for (size_t i = 0; i < nr; i++) {
		fill_service(o, &out[i]);
		if (o->mode->learn == LEARN_SOCKS5)
			out[i].listen = o->listen[i];
		if (rules_copy(&out[i].rules, &o->rules) == 0)
			continue;
		while (i-- > 0)
			rules_free(&out[i].rules);
		errno = ENOMEM;
		return -1;
	}
	return (int)nr;
}

void options_free(struct options *o)
{
	rules_free(&o->rules);
}

void options_help(const struct options *o)
{
	struct opt rows[OPTIONS_ROWS_MAX];
	size_t nr = options_rows(
		o->mode, OPTIONS_OF_LISTENER | OPTIONS_OF_PROCESS, rows);

	printf("Usage: %s [OPTION]...\n", o->program);
	if (o->mode && o->mode->learn == LEARN_SOCKS5) {
		printf("       %s MODE [OPTION]...\n"
		       "       %s run --config FILE\n%s\n\nModes:\n",
			o->program, o->program, o->mode->summary);
		for (size_t i = MODE_SOCKS5 + 1; i < NR_MODES; i++)
			printf("  %s\n", mode_table[i].name);
		printf("\nOptions:\n");
	} else {
		printf("%s\n\n",
			o->mode ? o->mode->summary
				: "Serve what a configuration file says.");
	}
	optparse_help(rows, nr, stdout);
}
