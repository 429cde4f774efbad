/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/config.h"
#include "common/vendor_msg.h"
#include "common/user.h"
#include "resolv/servers.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"usage: socket_vendor [options]\n"
	"Serve the connections of the programs started by proxify: dial them\n"
	"through the host proxy. Detaches once its socket listens; exits 0 at\n"
	"once if another vendor listens there already.\n"
	"\n"
	"  --path PATH        unix socket to listen on; its directory is made\n"
	"                     if missing and must be writable by its owner "
	"only\n"
	"                     (default: $SOCKET_VENDOR_PATH, else\n"
	"                     /run/proxify/vendor.sock as root,\n"
	"                     /tmp/proxify-UID/vendor.sock for others)\n"
	"  --endpoint EP      the host proxy: vsock:CID:PORT, unix:/path,\n"
	"                     tcp:ADDRESS:PORT or vsock-mux:/path:PORT\n"
	"                     (default: $PROXY_ENDPOINT, else\n"
	"                     vsock:$PROXY_PARENT_CID:$PROXY_PARENT_PORT, "
	"else\n"
	"                     vsock:3:8888)\n"
	"  --allow-uid UID    serve this user too: a number, a name, or "
	"`any';\n"
	"                     repeatable (default: root and the vendor's own)\n"
	"  --max-gates N      connections of programs at a time (default "
	"65536,\n"
	"                     or what the limit of open files allows)\n"
	"  --max-exports N    listening sockets of programs at a time "
	"(default\n"
	"                     4096, or what the limit of open files "
	"allows)\n"
	"  --pool-low N       idle connections to the host proxy for each "
	"port\n"
	"                     that a program listens on (default 2)\n"
	"  --pool-high N      as many at most when clients come fast "
	"(default 64)\n"
	"  --no-mirror        do not listen in the enclave as well for a "
	"program\n"
	"                     that listens on all addresses\n"
	"  --dns-listen ADDRESS[:PORT],...\n"
	"                     answer DNS queries there, over UDP and TCP; port "
	"53\n"
	"                     when left out (default: nowhere; proxify asks "
	"for\n"
	"                     it)\n"
	"  --dns SERVER,...   DNS servers to ask, in order, through the host\n"
	"                     proxy: ADDRESS, ADDRESS:PORT, [IPv6]:PORT, NAME\n"
	"                     (default: resolver.proxy.internal, which the "
	"host\n"
	"                     proxy takes for the host's own)\n"
	"  --log LEVEL        error, warn, info or debug (default: "
	"$PROXY_LOG,\n"
	"                     else warn)\n"
	"  --log-file FILE    where the daemon logs; kept below 1 MiB, the "
	"one\n"
	"                     before is FILE.1 (default: vendor.log beside "
	"the\n"
	"                     socket)\n"
	"  --foreground       do not detach, log to stderr\n"
	"  --help, --version\n";

enum option_id {
	OPT_PATH = 1,
	OPT_ENDPOINT,
	OPT_ALLOW_UID,
	OPT_MAX_GATES,
	OPT_MAX_EXPORTS,
	OPT_POOL_LOW,
	OPT_POOL_HIGH,
	OPT_NO_MIRROR,
	OPT_DNS_LISTEN,
	OPT_DNS,
	OPT_LOG,
	OPT_LOG_FILE,
	OPT_FOREGROUND,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option options[] = {
	{"path", required_argument, NULL, OPT_PATH},
	{"endpoint", required_argument, NULL, OPT_ENDPOINT},
	{"allow-uid", required_argument, NULL, OPT_ALLOW_UID},
	{"max-gates", required_argument, NULL, OPT_MAX_GATES},
	{"max-exports", required_argument, NULL, OPT_MAX_EXPORTS},
	{"pool-low", required_argument, NULL, OPT_POOL_LOW},
	{"pool-high", required_argument, NULL, OPT_POOL_HIGH},
	{"no-mirror", no_argument, NULL, OPT_NO_MIRROR},
	{"dns-listen", required_argument, NULL, OPT_DNS_LISTEN},
	{"dns", required_argument, NULL, OPT_DNS},
	{"log", required_argument, NULL, OPT_LOG},
	{"log-file", required_argument, NULL, OPT_LOG_FILE},
	{"foreground", no_argument, NULL, OPT_FOREGROUND},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{0},
};

/* Say what is wrong with a value. Return: -1. */
static int wrong(const char *name, const char *value, const char *expected)
{
	fprintf(stderr, "socket_vendor: %s='%s': %s\n", name,
		value ? value : "", expected);
	return -1;
}

static int set_path(
	struct vendor_config *config, const char *name, const char *value)
{
	if (value[0] != '/')
		return wrong(name, value, "expected an absolute path");
	if (strlen(value) > ENDPOINT_PATH_MAX)
		return wrong(
			name, value, "expected a path of at most 107 bytes");
	snprintf(config->path, sizeof(config->path), "%s", value);
	return 0;
}

static int set_endpoint(
	struct vendor_config *config, const char *name, const char *value)
{
	const char *why = endpoint_parse(&config->endpoint, value);

	return why ? wrong(name, value, why) : 0;
}

static int set_log(
	struct vendor_config *config, const char *name, const char *value)
{
	if (log_level_parse(value, &config->log_level) == -1)
		return wrong(
			name, value, "expected error, warn, info or debug");
	return 0;
}

static int set_log_file(
	struct vendor_config *config, const char *name, const char *value)
{
	/* The daemon changes to the root directory; ".1" must fit too. */
	if (value[0] != '/' || strlen(value) > PATH_MAX - 3)
		return wrong(name, value, "expected an absolute path");
	snprintf(config->log_file, sizeof(config->log_file), "%s", value);
	return 0;
}

static int add_uid(
	struct vendor_config *config, const char *name, const char *value)
{
	uid_t uid;

	if (strcmp(value, "any") == 0) {
		config->allow_any = true;
		return 0;
	}
	if (user_parse(value, &uid) == -1)
		return wrong(name, value, USER_EXPECTED);
	if (config->nr_allow == CONFIG_ALLOW_MAX)
		return wrong(name, value, "expected at most 64 of them");
	config->allow[config->nr_allow++] = uid;
	return 0;
}

static int set_max_gates(
	struct vendor_config *config, const char *name, const char *value)
{
	uint64_t nr;

	if (parse_uint(value, strlen(value), UINT32_MAX, &nr) == -1 || nr == 0)
		return wrong(name, value, "expected a number from 1 to 2^32-1");
	config->max_gates = nr;
	return 0;
}

static int set_max_exports(
	struct vendor_config *config, const char *name, const char *value)
{
	uint64_t nr;

	if (parse_uint(value, strlen(value), UINT32_MAX, &nr) == -1 || nr == 0)
		return wrong(name, value, "expected a number from 1 to 2^32-1");
	config->max_exports = nr;
	return 0;
}

static int set_pool(unsigned *mark, const char *name, const char *value)
{
	uint64_t nr;

	if (parse_uint(value, strlen(value), CONFIG_POOL_MAX, &nr) == -1 ||
		nr == 0)
		return wrong(name, value, "expected a number from 1 to 4096");
	*mark = (unsigned)nr;
	return 0;
}

static int set_dns_listen(
	struct vendor_config *config, const char *name, const char *value)
{
	const char *why = dns_listen_parse(config->dns_listen, DNS_LISTEN_MAX,
		&config->nr_dns_listen, value);

	return why ? wrong(name, value, why) : 0;
}

static int set_dns(
	struct vendor_config *config, const char *name, const char *value)
{
	const char *why = dns_servers_parse(config->dns_servers,
		DNS_SERVERS_MAX, &config->nr_dns_servers, value);

	return why ? wrong(name, value, why) : 0;
}

/* Return: 0, -1 wrong, 1 answered (--help, --version). */
static int take_option(struct vendor_config *config, int id)
{
	switch (id) {
	case OPT_PATH: return set_path(config, "--path", optarg);
	case OPT_ENDPOINT: return set_endpoint(config, "--endpoint", optarg);
	case OPT_ALLOW_UID: return add_uid(config, "--allow-uid", optarg);
	case OPT_MAX_GATES: return set_max_gates(config, "--max-gates", optarg);
	case OPT_MAX_EXPORTS:
		return set_max_exports(config, "--max-exports", optarg);
	case OPT_POOL_LOW:
		return set_pool(&config->pool_low, "--pool-low", optarg);
	case OPT_POOL_HIGH:
		return set_pool(&config->pool_high, "--pool-high", optarg);
	case OPT_NO_MIRROR: config->no_mirror = true; return 0;
	case OPT_DNS_LISTEN:
		return set_dns_listen(config, "--dns-listen", optarg);
	case OPT_DNS: return set_dns(config, "--dns", optarg);
	case OPT_LOG: return set_log(config, "--log", optarg);
	case OPT_LOG_FILE: return set_log_file(config, "--log-file", optarg);
	case OPT_FOREGROUND: config->foreground = true; return 0;
	case OPT_HELP: fputs(usage, stdout); return 1;
	case OPT_VERSION: puts("socket_vendor " PROXIFY_VERSION); return 1;
	default: /* getopt_long() has said what */
		fputs("Try 'socket_vendor --help'.\n", stderr);
		return -1;
	}
}

static int read_options(struct vendor_config *config, int argc, char **argv)
{
	int id, ret;

	optind = 0; /* begin anew, also in a process that parsed before */
	while ((id = getopt_long(argc, argv, "", options, NULL)) != -1) {
		ret = take_option(config, id);
		if (ret != 0)
			return ret;
	}
	if (optind < argc) {
		fprintf(stderr, "socket_vendor: unexpected argument '%s'\n",
			argv[optind]);
		return -1;
	}
	return 0;
}

static int read_environment(struct vendor_config *config)
{
	const char *value = getenv("PROXY_LOG");
	const char *bad = NULL;
	const char *why;

	if (value && set_log(config, "PROXY_LOG", value) == -1)
		return -1;
	why = endpoint_from_env(&config->endpoint, &bad);
	if (why)
		return wrong(bad, getenv(bad), why);
	why = vendor_path(config->path, sizeof(config->path));
	if (why)
		return wrong("SOCKET_VENDOR_PATH", getenv("SOCKET_VENDOR_PATH"),
			why);
	return 0;
}

/* What only the whole of the settings shows. */
static int complete(struct vendor_config *config)
{
	const struct endpoint *ep = &config->endpoint;
	const char *slash = strrchr(config->path, '/');

	if (ep->kind == ENDPOINT_TCP && ep->addr.family == AF_UNSPEC)
		return wrong("endpoint", ep->text,
			"expected a numeric address: there is no resolver "
			"without the host proxy");
	if (config->pool_low > config->pool_high) {
		fprintf(stderr,
			"socket_vendor: --pool-low=%u: expected no more than "
			"--pool-high, %u\n",
			config->pool_low, config->pool_high);
		return -1;
	}
	if (slash[1] == '\0')
		return wrong("path", config->path,
			"expected the path of a socket, not of a directory");
	if (config->nr_dns_servers == 0)
		dns_server_host_resolver(
			&config->dns_servers[config->nr_dns_servers++]);
	if (!config->log_file[0])
		snprintf(config->log_file, sizeof(config->log_file),
			"%.*s/vendor.log", (int)(slash - config->path),
			config->path);
	return 0;
}

enum config_verdict config_read(
	struct vendor_config *config, int argc, char **argv)
{
	int ret;

	memset(config, 0, sizeof(*config));
	config->log_level = LOG_WARN;
	config->max_gates = CONFIG_GATES_DEFAULT;
	config->pool_low = CONFIG_POOL_LOW;
	config->pool_high = CONFIG_POOL_HIGH;
	config->max_exports = CONFIG_EXPORTS_DEFAULT;
	config->request_timeout = CONFIG_REQUEST_TIMEOUT;
	config->own_uid = geteuid();
	if (read_environment(config) == -1)
		return CONFIG_WRONG;
	ret = read_options(config, argc, argv);
	if (ret == 0)
		ret = complete(config);
	if (ret == 1)
		return CONFIG_DONE;
	return ret == 0 ? CONFIG_RUN : CONFIG_WRONG;
}

bool config_allows(const struct vendor_config *config, uid_t uid)
{
	if (config->allow_any || uid == 0 || uid == config->own_uid)
		return true;
	for (size_t i = 0; i < config->nr_allow; i++) {
		if (config->allow[i] == uid)
			return true;
	}
	return false;
}
