/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/options.h"

#include "proxy/option_values.h"
#include "proxy/relay.h"
#include "proxy/worker.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#define DEFAULT_DRAIN     10.0
#define DEFAULT_HANDSHAKE 10.0
#define DEFAULT_CONNECT   60.0

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
	why = option_add_endpoint(o, &ep);
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
