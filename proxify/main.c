/* SPDX-License-Identifier: Apache-2.0 */
#include "common/endpoint.h"
#include "common/log.h"
#include "preload/config.h"
#include "proxify/env.h"
#include "proxify/loopback.h"
#include "proxify/options.h"
#include "proxify/program.h"
#include "proxify/siblings.h"
#include "proxify/vendor_client.h"
#include "resolv/resolv_plan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * proxify prepares the enclave and the environment and becomes the program; no
 * process of its own is left, so signals, exit status and terminal are the
 * program's own business. In this order, so that nothing is touched or started
 * for a command that cannot work:
 *
 *	command line, environment      exit 125 naming what is wrong
 *	the program                    127 not found, 126 cannot be executed,
 *	                               126 the library cannot get into it
 *	the siblings                   125 naming where they were looked for
 *	lo                             brought up if we may; programs that need
 *	                               it in an enclave where we may not see it
 *	                               by themselves
 *	names                          made ready (resolv/resolv_plan.h); what
 *	                               will not work is said, and is an error
 *	                               if it was asked for
 *	the vendor                     started if none answers; 125 if it fails.
 *	                               Two launchers at once both start one, and
 *	                               the second one finds the first and ends
 *	the host proxy                 asked for; if it does not answer that is
 *	                               said, but it may well come up later
 *	exec
 *
 * Whatever is said is one line on stderr; stdin and stdout are not touched,
 * and every fd opened here is CLOEXEC.
 */

#define EXIT_SELF      125 /* proxify's own failure, as env and timeout have it */
#define EXIT_NOEXEC    126
#define EXIT_NOT_FOUND 127

#define PROBE_MS   2000
#define PING_TRIES 3

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char line[2 * PATH_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(stderr, "proxify: %s\n", line);
}

static int set_variable(const char *name, const char *value)
{
	if (setenv(name, value, 1) == 0)
		return 0;
	say("cannot set %s: %s", name, strerror(errno));
	return -1;
}

/* ---- settings ---- */

/* The command line speaks to the program, its library and the vendor through
 * the environment, like whoever set the variables by hand. */
static int read_settings(const struct options *options, struct settings *out)
{
	struct complaint what;

	if ((options->endpoint &&
		    set_variable("PROXY_ENDPOINT", options->endpoint) == -1) ||
		(options->log && set_variable("PROXY_LOG", options->log) == -1))
		return -1;
	if (!env_read(out, &what)) {
		say("%s='%s': %s", what.name, what.value, what.expected);
		return -1;
	}
	return 0;
}

/* ---- the program ---- */

/* Return: 0 and @path filled, or the exit status. */
static int check_program(const struct options *options, char path[PATH_MAX])
{
	const char *name = options->argv[0];
	char why[2 * PATH_MAX];

	if (program_find(name, path) == -1) {
		say("%s: %s", name,
			errno == ENOENT ? "not found" : strerror(errno));
		return errno == ENOENT || errno == ENOTDIR ? EXIT_NOT_FOUND
							   : EXIT_NOEXEC;
	}
	if (options->force || program_refusal(path, why, sizeof(why)) == 0)
		return 0;
	say("cannot cover %s: %s (--force runs it anyway)", name, why);
	return EXIT_NOEXEC;
}

/* ---- the siblings ---- */

/* Our own file: by the link in /proc, or where that is not mounted yet, by the
 * name that the kernel was given. */
static int find_self(char self[PATH_MAX])
{
	const char *name = (const char *)getauxval(AT_EXECFN);

	if (realpath("/proc/self/exe", self) || (name && realpath(name, self)))
		return 0;
	say("cannot find my own file through /proc/self/exe: %s",
		strerror(errno));
	return -1;
}

static int find_sibling(enum sibling which, char path[PATH_MAX])
{
	char tried[4 * PATH_MAX];
	char self[PATH_MAX];

	if (find_self(self) == -1)
		return -1;
	if (sibling_find(self, which, path, tried, sizeof(tried)) == 0)
		return 0;
	say("%s is missing; looked for %s", sibling_name(which), tried);
	return -1;
}

/* ---- LD_PRELOAD ---- */

static bool is_first(const char *list, const char *library)
{
	size_t len = strlen(library);

	return strncmp(list, library, len) == 0 &&
	       (list[len] == '\0' || list[len] == ':' || list[len] == ' ');
}

static int set_preload(const char *library)
{
	const char *before = getenv("LD_PRELOAD");
	char *value;
	int ret;

	if (strpbrk(library, ": $")) {
		say("the library's path '%s' holds a space, a colon or a "
		    "dollar sign, which LD_PRELOAD cannot: move it",
			library);
		return -1;
	}
	if (!before || !*before)
		return set_variable("LD_PRELOAD", library);
	if (is_first(before, library))
		return 0;
	if (asprintf(&value, "%s:%s", library, before) == -1) {
		say("LD_PRELOAD: %s", strerror(errno));
		return -1;
	}
	ret = set_variable("LD_PRELOAD", value);
	free(value);
	return ret;
}

/* ---- names ---- */

static void warn(const struct settings *settings, const char *message)
{
	if (settings->log_level >= LOG_WARN)
		say("warning: %s", message);
}

/* Without a vendor there is no stub, and so nothing to prepare. */
static int prepare_names(struct resolv_plan *plan,
	const struct options *options, const struct settings *settings)
{
	static const struct resolv_options keep = {.mode = RESOLV_KEEP};

	if (resolv_prepare(
		    plan, options->no_vendor ? &keep : &options->names) == -1) {
		say("%s", plan->message);
		return -1;
	}
	if (plan->message[0])
		warn(settings, plan->message);
	return 0;
}

static void check_names(
	const struct resolv_plan *plan, const struct settings *settings)
{
	struct ip_port missing;
	char text[IP_PORT_STRLEN];
	char line[256];

	if (resolv_served(plan, &missing))
		return;
	snprintf(line, sizeof(line),
		"the vendor answers no DNS queries on %s: its log tells why, "
		"unless it was started before and without --dns-listen",
		ip_port_format(&missing, text, sizeof(text)));
	warn(settings, line);
}

/* Where the library leaves resolvers that use TCP to the stub. */
static int tell_library(const struct resolv_plan *plan)
{
	char where[RESOLV_LIST_MAX];

	if (!plan->stub)
		return unsetenv(STUB_VARIABLE);
	return set_variable(STUB_VARIABLE,
		resolv_plan_addresses(plan, where, sizeof(where)));
}

/* What is the program's alone: its environment and its view of the files. */
static int finish_names(const struct resolv_plan *plan)
{
	const char *old = getenv("RES_OPTIONS");
	char value[1024];
	const char *new = resolv_env(old, value, sizeof(value));

	if (!plan->kept && tell_library(plan) == -1)
		return -1;
	if (resolv_enter(plan) == -1) {
		say("cannot give the program its own %s: %s", plan->path,
			strerror(errno));
		return -1;
	}
	/* One that is too long for us is kept as it is. */
	if (!plan->use_vc || !new || new == old)
		return 0;
	return set_variable("RES_OPTIONS", new);
}

/* ---- the vendor ---- */

static bool nobody_listens(int err)
{
	return err == ENOENT || err == ENOTDIR || err == ECONNREFUSED;
}

/* Whoever was asked while the worker died and the next one came asks again. */
static int ping(
	const struct vendor_address *vendor, uint8_t key[VENDOR_KEY_LEN])
{
	int ret = -1;

	for (int i = 0; i < PING_TRIES; i++) {
		ret = vendor_ask(vendor, VENDOR_PING, "", 0, key);
		if (ret != -1 || (errno != EPROTO && errno != ECONNRESET))
			break;
	}
	return ret;
}

static int start_vendor(const struct options *options,
	const struct resolv_plan *plan, const char *path)
{
	char *argv[8 + 2 * OPTIONS_ALLOW_MAX];
	char listen[RESOLV_LIST_MAX];
	char servers[RESOLV_LIST_MAX];
	char program[PATH_MAX];
	size_t n = 0;

	if (find_sibling(SIBLING_VENDOR, program) == -1)
		return -1;
	argv[n++] = program;
	argv[n++] = (char *)(uintptr_t) "--path";
	argv[n++] = (char *)(uintptr_t)path;
	if (plan->stub) {
		argv[n++] = (char *)(uintptr_t) "--dns-listen";
		argv[n++] = (char *)(uintptr_t)resolv_plan_listen(
			plan, listen, sizeof(listen));
		argv[n++] = (char *)(uintptr_t) "--dns";
		argv[n++] = (char *)(uintptr_t)resolv_plan_servers(
			plan, servers, sizeof(servers));
	}
	for (size_t i = 0; i < options->nr_allow; i++) {
		argv[n++] = (char *)(uintptr_t) "--allow-uid";
		argv[n++] = (char *)(uintptr_t)options->allow[i];
	}
	argv[n] = NULL;
	if (vendor_start(argv) == 0)
		return 0;
	say("%s did not start: %s", program,
		errno == ECHILD ? "it failed or took too long"
				: strerror(errno));
	return -1;
}

static int complain_of_vendor(const char *path, int err)
{
	if (err == EACCES)
		say("the vendor at %s does not serve uid %u; start it with "
		    "--allow-uid %u",
			path, geteuid(), geteuid());
	else if (err == EPERM)
		say("the vendor at %s is neither root's nor uid %u's; not "
		    "used. Set SOCKET_VENDOR_PATH to have another one",
			path, geteuid());
	else
		say("the vendor at %s does not answer: %s", path,
			strerror(err));
	return -1;
}

/* A vendor that runs already was told whom to ask when it was started. One
 * without a stub is check_names()'s matter. */
static void check_dns(const struct options *options,
	const struct settings *settings, const struct resolv_plan *plan,
	const uint8_t key[VENDOR_KEY_LEN])
{
	static const uint8_t none[VENDOR_KEY_LEN];
	uint8_t wanted[DNS_SERVERS_KEY];

	if (options->names.nr_servers == 0 || !plan->stub ||
		memcmp(key, none, sizeof(none)) == 0)
		return;
	dns_servers_key(wanted, plan->servers, plan->nr_servers);
	if (memcmp(key, wanted, sizeof(wanted)) != 0)
		warn(settings,
			"the vendor runs already and asks other DNS servers: "
			"--dns is not looked at");
}

static int ensure_vendor(const struct options *options,
	const struct settings *settings, const struct resolv_plan *plan,
	const struct vendor_address *vendor)
{
	uint8_t key[VENDOR_KEY_LEN] = {0};
	int ret = ping(vendor, key);

	if (ret == 0)
		check_dns(options, settings, plan, key);
	if (ret == 0 && options->nr_allow > 0 &&
		settings->log_level >= LOG_INFO)
		say("the vendor at %s runs already: it serves whom it was "
		    "told to, --allow-uid is not looked at",
			vendor->path);
	if (ret == -1 && nobody_listens(errno)) {
		if (start_vendor(options, plan, vendor->path) == -1)
			return -1;
		ret = ping(vendor, key);
	}
	if (ret == 0)
		return 0;
	return complain_of_vendor(vendor->path, ret > 0 ? ret : errno);
}

static void probe(
	const struct settings *settings, const struct vendor_address *vendor)
{
	char endpoint[ENDPOINT_STRLEN];
	int ret;

	if (settings->log_level < LOG_WARN)
		return;
	endpoint_format(&settings->endpoint, endpoint, sizeof(endpoint));
	ret = vendor_ask(vendor, VENDOR_PROBE, endpoint, PROBE_MS, NULL);
	if (ret == 0)
		return;
	say("warning: the host proxy %s does not answer (%s); start 'proxy' on "
	    "the host. Going on without",
		endpoint, strerror(ret > 0 ? ret : errno));
}

/* ---- all of it ---- */

static int prepare(
	const struct options *options, const struct settings *settings)
{
	const struct vendor_address vendor = {
		.path = settings->vendor_path,
		.anyone = getenv("SOCKET_VENDOR_PATH") != NULL,
	};
	struct resolv_plan plan;
	char library[PATH_MAX];

	if (find_sibling(SIBLING_LIBRARY, library) == -1)
		return -1;
	/* Not for the launcher to complain of: see the theory above. */
	(void)loopback_up();
	if (prepare_names(&plan, options, settings) == -1)
		return -1;
	if (!options->no_vendor) {
		if (ensure_vendor(options, settings, &plan, &vendor) == -1)
			return -1;
		probe(settings, &vendor);
		check_names(&plan, settings);
	}
	if (finish_names(&plan) == -1)
		return -1;
	if (set_variable("SOCKET_VENDOR_PATH", settings->vendor_path) == -1)
		return -1;
	return set_preload(library);
}

static int run(const struct options *options)
{
	struct settings settings;
	char missing[PATH_MAX];
	char path[PATH_MAX];
	int status, err;

	if (read_settings(options, &settings) == -1)
		return EXIT_SELF;
	status = check_program(options, path);
	if (status != 0)
		return status;
	if (prepare(options, &settings) == -1)
		return EXIT_SELF;
	err = program_exec(path, options->argv);
	if (err == ENOENT && program_missing(path, missing) == 0)
		say("%s: its interpreter %s is not found", path, missing);
	else
		say("%s: %s", path, strerror(err));
	return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOEXEC;
}

int main(int argc, char **argv)
{
	struct options options;

	switch (options_read(&options, argc, argv)) {
	case OPTIONS_RUN: break;
	case OPTIONS_DONE: return EXIT_SUCCESS;
	case OPTIONS_WRONG: return EXIT_SELF;
	}
	return run(&options);
}
