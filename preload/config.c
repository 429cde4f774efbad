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

/* Each reader returns NULL, or what it expected of the text. */
typedef const char *read_fn(struct config *c, const char *text);

static const char *read_blocks(const char *text, struct ip_prefix *blocks,
	unsigned int max, unsigned int *nr)
{
	while (*text) {
		size_t len = strcspn(text, ",");

		if (*nr == max)
			return EXPECTED_FEWER_BLOCKS;
		if (ip_prefix_parse(&blocks[*nr], text, len) == -1)
			return EXPECTED_BYPASS;
		++*nr;
		text += len;
		if (*text == ',')
			text++;
	}
	return NULL;
}

static const char *read_bypass(struct config *c, const char *text)
{
	return read_blocks(text, c->bypass, BYPASS_MAX, &c->nr_bypass);
}

static const char *read_stub(struct config *c, const char *text)
{
	return read_blocks(text, c->stub, STUB_MAX, &c->nr_stub) ? EXPECTED_STUB
								 : NULL;
}

static const char *read_loopback(struct config *c, const char *text)
{
	c->loopback_is_host = strcmp(text, "host") == 0;
	return c->loopback_is_host || strcmp(text, "local") == 0
		       ? NULL
		       : EXPECTED_LOOPBACK;
}

static const char *read_wait(struct config *c, const char *text)
{
	uint64_t seconds;

	if (parse_uint(text, strlen(text), 86400, &seconds) == -1)
		return EXPECTED_WAIT;
	c->wait_ms = (uint32_t)seconds * 1000;
	return NULL;
}

/* warn and whatever says more; error is silence here. */
static const char *read_log(struct config *c, const char *text)
{
	c->talk = strcmp(text, "error") != 0;
	return NULL;
}

/* Of several the first is told. */
static void refuse(struct config *c, const char *name, const char *expected)
{
	const char *value = getenv(name);
	size_t len = value ? strlen(value) : 0;

	if (c->bad)
		return;
	if (len >= sizeof(c->bad_value))
		len = sizeof(c->bad_value) - 1;
	if (value)
		memcpy(c->bad_value, value, len);
	c->bad_value[len] = '\0';
	c->bad_expected = expected;
	c->bad = name;
}

static const char *read_res_options(struct config *c, const char *text)
{
	c->use_vc = strstr(text, "use-vc") != NULL;
	return NULL;
}

static void load(struct config *c)
{
	static const struct {
		const char *name;
		read_fn *read;
	} variables[] = {
		{"PROXY_LOG", read_log},
		{"PROXY_LOOPBACK", read_loopback},
		{"PROXY_BYPASS", read_bypass},
		{"PROXY_WAIT", read_wait},
		{STUB_VARIABLE, read_stub},
		{"RES_OPTIONS", read_res_options},
	};
	const char *text, *why, *bad;

	for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
		text = getenv(variables[i].name);
		why = text ? variables[i].read(c, text) : NULL;
		if (why)
			refuse(c, variables[i].name, why);
	}
	why = endpoint_from_env(&c->endpoint, &bad);
	if (why)
		refuse(c, bad, why);
	endpoint_format(
		&c->endpoint, c->endpoint_text, sizeof(c->endpoint_text));
	why = vendor_path(c->vendor_path, sizeof(c->vendor_path));
	if (why)
		refuse(c, "SOCKET_VENDOR_PATH", why);
	c->vendor_is_default = getenv("SOCKET_VENDOR_PATH") == NULL;
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

/* 224.0.0.0/4, 255.255.255.255, ff00::/8; and fe80::/10, which means nothing
 * without an interface of this machine. Not 169.254.0.0/16: the host's cloud
 * has services there. */
static bool is_nowhere(const struct ip_port *a)
{
	if (a->family == AF_INET6)
		return a->ip[0] == 0xff ||
		       (a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80);
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
	return is_nowhere(&a);
}

bool config_exports(const struct ip_port *at)
{
	struct ip_port a = *at;

	ip_port_unmap(&a);
	if (is_bypassed(&a) || is_nowhere(&a))
		return false;
	return !ip_port_is_loopback(&a) || config()->loopback_is_host;
}

#define SAY_PARTS 8

/* Say a line of @nr words on stderr, in one piece. */
static void say_once(
	_Atomic bool *said, const char *const words[], unsigned int nr)
{
	struct iovec line[SAY_PARTS] = {0};
	int saved = errno;

	if (!config()->talk || atomic_exchange(said, true))
		return;
	for (unsigned int i = 0; i < nr; i++)
		line[i] = (struct iovec){
			(void *)(uintptr_t)words[i], strlen(words[i])};
	if (real()->writev(STDERR_FILENO, line, (int)nr) == -1)
		errno = saved; /* nobody to tell */
	errno = saved;
}

bool config_refused(void)
{
	static atomic_bool said;
	const struct config *c = config();

	if (!c->bad)
		return false;
	say_once(&said,
		(const char *const[]){"proxify: ", c->bad, "='", c->bad_value,
			"': ", c->bad_expected, "\n"},
		7);
	errno = EINVAL;
	return true;
}

void warn_once(_Atomic bool *said, const char *what, const char *name)
{
	say_once(said,
		(const char *const[]){"proxify: ", what, ": ", name, "\n"}, 5);
}

void warn_of_host_proxy(void)
{
	static atomic_bool said;

	warn_once(
		&said, "cannot reach the host proxy", config()->endpoint_text);
}
