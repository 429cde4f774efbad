/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/config.h"
#include "common/vendor_msg.h"
#include "preload/real.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static struct config settings;
static atomic_bool loaded;

static bool read_blocks(const char *text, struct ip_prefix *blocks,
	unsigned int max, unsigned int *nr)
{
	while (*text) {
		size_t len = strcspn(text, ",");

		if (*nr == max ||
			ip_prefix_parse(&blocks[*nr], text, len) == -1)
			return false;
		++*nr;
		text += len;
		if (*text == ',')
			text++;
	}
	return true;
}

static bool read_bypass(struct config *c, const char *text)
{
	return read_blocks(text, c->bypass, BYPASS_MAX, &c->nr_bypass);
}

static bool read_stub(struct config *c, const char *text)
{
	return read_blocks(text, c->stub, STUB_MAX, &c->nr_stub);
}

static bool read_loopback(struct config *c, const char *text)
{
	c->loopback_is_host = strcmp(text, "host") == 0;
	return c->loopback_is_host || strcmp(text, "local") == 0;
}

static bool read_wait(struct config *c, const char *text)
{
	uint64_t seconds;

	if (parse_uint(text, strlen(text), 86400, &seconds) == -1)
		return false;
	c->wait_ms = (uint32_t)seconds * 1000;
	return true;
}

/* warn and whatever says more; error is silence here. */
static bool read_log(struct config *c, const char *text)
{
	c->talk = strcmp(text, "error") != 0;
	return true;
}

static bool read_res_options(struct config *c, const char *text)
{
	c->use_vc = strstr(text, "use-vc") != NULL;
	return true;
}

static void load(struct config *c)
{
	static const struct {
		const char *name;
		bool (*read)(struct config *c, const char *text);
	} variables[] = {
		{"PROXY_LOG", read_log},
		{"PROXY_LOOPBACK", read_loopback},
		{"PROXY_BYPASS", read_bypass},
		{"PROXY_WAIT", read_wait},
		{STUB_VARIABLE, read_stub},
		{"RES_OPTIONS", read_res_options},
	};
	const char *text;
	const char *bad;

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		text = getenv(variables[i].name);
		if (text && !variables[i].read(c, text))
			c->bad = variables[i].name;
	}
	if (endpoint_from_env(&c->endpoint, &bad))
		c->bad = bad;
	endpoint_format(
		&c->endpoint, c->endpoint_text, sizeof(c->endpoint_text));
	if (vendor_path(c->vendor_path, sizeof(c->vendor_path)))
		c->bad = "SOCKET_VENDOR_PATH";
}

/* Runs before main(), so before any thread that could race with it; a hook
 * called by an earlier constructor gets here first. */
const struct config *config(void)
{
	if (!atomic_load_explicit(&loaded, memory_order_acquire)) {
		int saved = errno;

		memset(&settings, 0, sizeof(settings));
		load(&settings);
		atomic_store_explicit(&loaded, true, memory_order_release);
		errno = saved;
	}
	return &settings;
}

__attribute__((constructor)) static void load_at_start(void)
{
	config();
}

/* 224.0.0.0/4, 255.255.255.255, ff00::/8 */
static bool is_group(const struct ip_port *a)
{
	if (a->family == AF_INET6)
		return a->ip[0] == 0xff;
	return a->ip[0] >> 4 == 0xe ||
	       memcmp(a->ip, "\xff\xff\xff\xff", 4) == 0;
}

static bool is_in(const struct ip_prefix *blocks, unsigned int nr,
	const struct ip_port *a)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (ip_prefix_match(&blocks[i], a))
			return true;
	}
	return false;
}

static bool is_bypassed(const struct ip_port *a)
{
	const struct config *c = config();

	return is_in(c->bypass, c->nr_bypass, a);
}

static bool is_stub(const struct ip_port *a)
{
	const struct config *c = config();

	return a->port == STUB_PORT && is_in(c->stub, c->nr_stub, a);
}

bool config_keeps_local(const struct ip_port *dst)
{
	struct ip_port a = *dst;

	ip_port_unmap(&a);
	if (is_bypassed(&a) || is_stub(&a))
		return true;
	if (ip_port_is_loopback(&a) || ip_port_is_any(&a))
		return !config()->loopback_is_host;
	return is_group(&a);
}

bool config_exports(const struct ip_port *at)
{
	struct ip_port a = *at;

	ip_port_unmap(&a);
	if (is_bypassed(&a) || is_group(&a))
		return false;
	return !ip_port_is_loopback(&a) || config()->loopback_is_host;
}

bool config_refused(void)
{
	static atomic_bool said;

	if (!config()->bad)
		return false;
	warn_once(&said, "cannot read this variable", config()->bad);
	errno = EINVAL;
	return true;
}

void warn_once(_Atomic bool *said, const char *what, const char *name)
{
	struct iovec line[] = {
		{(void *)"proxify: ", 9},
		{(void *)(uintptr_t)what, strlen(what)},
		{(void *)": ", 2},
		{(void *)(uintptr_t)name, strlen(name)},
		{(void *)"\n", 1},
	};
	int saved = errno;

	if (config()->talk && !atomic_exchange(said, true) &&
		real()->writev(STDERR_FILENO, line, 5) == -1)
		errno = saved; /* nobody to tell */
	errno = saved;
}
