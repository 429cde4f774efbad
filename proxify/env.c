/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/env.h"
#include "common/vendor_msg.h"
#include "preload/config.h"

#include <stdlib.h>
#include <string.h>

/* Each check returns NULL or what it expected of the text. */
typedef const char *check_fn(struct settings *out, const char *text);

#define WAIT_MAX 86400 /* seconds */

static const char *check_number(struct settings *out, const char *text)
{
	uint64_t value;

	if (parse_uint(text, strlen(text), UINT32_MAX, &value) == -1)
		return "expected a number below 2^32";
	return NULL;
}

static const char *check_ports(struct settings *out, const char *text)
{
	struct endpoint ep;

	return endpoint_parse_ports(&ep, text);
}

static const char *check_endpoint(struct settings *out, const char *text)
{
	struct endpoint ep;
	const char *why = endpoint_parse(&ep, text);

	if (!why && ep.kind == ENDPOINT_TCP && ep.addr.family == AF_UNSPEC)
		why = "expected a numeric address: there is no resolver "
		      "without the host proxy";
	return why;
}

static const char *check_loopback(struct settings *out, const char *text)
{
	if (strcmp(text, "local") == 0 || strcmp(text, "host") == 0)
		return NULL;
	return EXPECTED_LOOPBACK;
}

static const char *check_bypass(struct settings *out, const char *text)
{
	struct ip_prefix prefix;
	int nr = 0;

	while (*text) {
		size_t len = strcspn(text, ",");

		if (ip_prefix_parse(&prefix, text, len) == -1)
			return EXPECTED_BYPASS;
		if (++nr > BYPASS_MAX)
			return EXPECTED_FEWER_BLOCKS;
		text += len;
		if (*text == ',')
			text++;
	}
	return NULL;
}

static const char *check_wait(struct settings *out, const char *text)
{
	uint64_t seconds;

	if (parse_uint(text, strlen(text), WAIT_MAX, &seconds) == -1)
		return EXPECTED_WAIT;
	return NULL;
}

static const char *check_log(struct settings *out, const char *text)
{
	if (log_level_parse(text, &out->log_level) == -1)
		return "expected error, warn, info or debug";
	return NULL;
}

static const struct {
	const char *name;
	check_fn *check;
} variables[] = {
	/* The first sets how much is said about the others. */
	{"PROXY_LOG", check_log},
	{"PROXY_ENDPOINT", check_endpoint},
	{"PROXY_PARENT_CID", check_number},
	{"PROXY_PARENT_PORT", check_ports},
	{"PROXY_LOOPBACK", check_loopback},
	{"PROXY_BYPASS", check_bypass},
	{"PROXY_WAIT", check_wait},
};

static bool complain(
	struct complaint *what, const char *name, const char *expected)
{
	const char *value = getenv(name);

	what->name = name;
	what->value = value ? value : "";
	what->expected = expected;
	return false;
}

bool env_read(struct settings *out, struct complaint *what)
{
	const char *why, *bad, *text;

	memset(out, 0, sizeof(*out));
	out->log_level = LOG_WARN;
	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		text = getenv(variables[i].name);
		why = text ? variables[i].check(out, text) : NULL;
		if (why)
			return complain(what, variables[i].name, why);
	}
	why = vendor_path(out->vendor_path, sizeof(out->vendor_path));
	if (why)
		return complain(what, "SOCKET_VENDOR_PATH", why);
	why = endpoint_from_env(&out->endpoint, &bad);
	return why ? complain(what, bad, why) : true;
}
