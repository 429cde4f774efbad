/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/options.h"
#include "common/endpoint.h"
#include "common/log.h"
#include "common/user.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: proxify [options] [--] program [arguments...]\n"
	"Run a program whose TCP connections go through the host proxy.\n"
	"\n"
	"  --endpoint EP      the host proxy: vsock:CID:PORT, unix:/path,\n"
	"                     tcp:ADDRESS:PORT or vsock-mux:/path:PORT\n"
	"                     (default: $PROXY_ENDPOINT, else\n"
	"                     vsock:$PROXY_PARENT_CID:$PROXY_PARENT_PORT, "
	"else\n"
	"                     vsock:3:8888)\n"
	"  --allow-uid UID    if the vendor has to be started: have it serve\n"
	"                     this user too; a number, a name, or `any';\n"
	"                     repeatable\n"
	"  --log LEVEL        error, warn, info or debug (default: "
	"$PROXY_LOG,\n"
	"                     else warn)\n"
	"  --resolv MODE      how names are looked up (default: auto)\n"
	"                     auto    through the vendor's DNS stub on port 53 "
	"if\n"
	"                             there is no other network; as use-vc "
	"where\n"
	"                             it may not listen there\n"
	"                     stub    the same, or fail\n"
	"                     use-vc  by the libc over TCP (glibc before "
	"2.34)\n"
	"                     keep    nothing is touched\n"
	"  --dns SERVER,...   DNS servers to ask, in order, through the host\n"
	"                     proxy: ADDRESS, ADDRESS:PORT, [IPv6]:PORT, NAME\n"
	"                     (default: those in /etc/resolv.conf, or the "
	"host's\n"
	"                     own)\n"
	"  --no-vendor        neither start socket_vendor nor look for it\n"
	"  --force            run a program into which the library cannot "
	"get;\n"
	"                     those that it starts may be covered all the "
	"same\n"
	"  --help, --version\n"
	"\n"
	"Exit status: the program's; 127 if it is not found, 126 if it cannot "
	"be\n"
	"executed or covered, 125 if proxify itself fails.\n"
	"\n"
	"Environment: PROXY_ENDPOINT, PROXY_PARENT_CID, PROXY_PARENT_PORT,\n"
	"PROXY_BYPASS (10.0.0.0/8,... stay with the kernel), PROXY_LOOPBACK\n"
	"(local or host), PROXY_LOG, SOCKET_VENDOR_PATH.\n";

enum option_id {
	OPT_ENDPOINT = 1,
	OPT_ALLOW_UID,
	OPT_LOG,
	OPT_RESOLV,
	OPT_DNS,
	OPT_NO_VENDOR,
	OPT_FORCE,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{"endpoint", required_argument, NULL, OPT_ENDPOINT},
	{"allow-uid", required_argument, NULL, OPT_ALLOW_UID},
	{"log", required_argument, NULL, OPT_LOG},
	{"resolv", required_argument, NULL, OPT_RESOLV},
	{"dns", required_argument, NULL, OPT_DNS},
	{"no-vendor", no_argument, NULL, OPT_NO_VENDOR},
	{"force", no_argument, NULL, OPT_FORCE},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{0},
};

static int wrong(const char *name, const char *value, const char *expected)
{
	fprintf(stderr, "proxify: %s='%s': %s\n", name, value, expected);
	return -1;
}

static int set_endpoint(struct options *out, const char *value)
{
	struct endpoint ep;
	const char *why = endpoint_parse(&ep, value);

	if (!why && ep.kind == ENDPOINT_TCP && ep.addr.family == AF_UNSPEC)
		why = "expected a numeric address: there is no resolver "
		      "without the host proxy";
	if (why)
		return wrong("--endpoint", value, why);
	out->endpoint = value;
	return 0;
}

static int set_log(struct options *out, const char *value)
{
	enum log_level level;

	if (log_level_parse(value, &level) == -1)
		return wrong(
			"--log", value, "expected error, warn, info or debug");
	out->log = value;
	return 0;
}

/* It is for the vendor, but that may be running already and never see it. */
static int add_allow(struct options *out, const char *value)
{
	uid_t uid;

	if (strcmp(value, "any") != 0 && user_parse(value, &uid) == -1)
		return wrong("--allow-uid", value, USER_EXPECTED);
	if (out->nr_allow == OPTIONS_ALLOW_MAX)
		return wrong("--allow-uid", value, "expected at most 64");
	out->allow[out->nr_allow++] = value;
	return 0;
}

static int set_resolv(struct options *out, const char *value)
{
	if (resolv_mode_parse(value, &out->names.mode) == -1)
		return wrong("--resolv", value,
			"expected auto, stub, use-vc or keep");
	return 0;
}

static int set_dns(struct options *out, const char *value)
{
	const char *why = dns_servers_parse(out->names.servers, DNS_SERVERS_MAX,
		&out->names.nr_servers, value);

	return why ? wrong("--dns", value, why) : 0;
}

/* Return: 0, -1 wrong, 1 answered (--help, --version). */
static int take_option(struct options *out, int id)
{
	switch (id) {
	case OPT_ENDPOINT: return set_endpoint(out, optarg);
	case OPT_ALLOW_UID: return add_allow(out, optarg);
	case OPT_LOG: return set_log(out, optarg);
	case OPT_RESOLV: return set_resolv(out, optarg);
	case OPT_DNS: return set_dns(out, optarg);
	case OPT_NO_VENDOR: out->no_vendor = true; return 0;
	case OPT_FORCE: out->force = true; return 0;
	case OPT_HELP: fputs(usage, stdout); return 1;
	case OPT_VERSION: puts("proxify " PROXIFY_VERSION); return 1;
	default: /* getopt_long() has said what */
		fputs("Try 'proxify --help'.\n", stderr);
		return -1;
	}
}

enum options_verdict options_read(struct options *out, int argc, char **argv)
{
	int id, ret;

	memset(out, 0, sizeof(*out));
	optind = 0; /* begin anew, also in a process that parsed before */
	/* "+": the first word that is no option is the program, and all that
	 * follows is the program's. */
	while ((id = getopt_long(argc, argv, "+", long_options, NULL)) != -1) {
		ret = take_option(out, id);
		if (ret != 0)
			return ret == 1 ? OPTIONS_DONE : OPTIONS_WRONG;
	}
	if (optind >= argc) {
		fputs("proxify: expected a program to run\n"
		      "Try 'proxify --help'.\n",
			stderr);
		return OPTIONS_WRONG;
	}
	out->argv = argv + optind;
	return OPTIONS_RUN;
}
