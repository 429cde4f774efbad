/* SPDX-License-Identifier: Apache-2.0 */
#include "common/hold_name.h"

#include <string.h>

#define DOMAIN     ".proxy.internal"
#define DOMAIN_LEN (sizeof(DOMAIN) - 1)
#define DIGITS     (2UL * HOLD_KEY_LEN)
#define VERB_LEN   5

static const char verbs[][VERB_LEN + 1] = {
	[HOLD_HOLD] = "hold-",
	[HOLD_JOIN] = "join-",
	[HOLD_MEET] = "meet-",
};

static const char hex[] = "0123456789abcdef";

/* The scopes in the order in which a longer one comes before its prefix. */
static const struct {
	const char *text;
	bool v4, v6, loopback;
} scopes[] = {
	{"46l-", true, true, true},
	{"46-", true, true, false},
	{"4l-", true, false, true},
	{"4-", true, false, false},
	{"6l-", false, true, true},
	{"6-", false, true, false},
};

static int parse_key(const char *text, uint8_t *key)
{
	memset(key, 0, HOLD_KEY_LEN);
	for (size_t i = 0; i < DIGITS; i++) {
		const char *digit = memchr(hex, text[i], sizeof(hex) - 1);

		if (!digit)
			return -1;
		key[i / 2] = (uint8_t)(key[i / 2] << 4 | (digit - hex));
	}
	return 0;
}

static size_t parse_scope(const char *text, size_t len, struct hold_name *out)
{
	for (size_t i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++) {
		size_t n = strlen(scopes[i].text);

		if (n > len || memcmp(text, scopes[i].text, n) != 0)
			continue;
		out->v4 = scopes[i].v4;
		out->v6 = scopes[i].v6;
		out->loopback = scopes[i].loopback;
		return n;
	}
	return 0;
}

static enum hold_verb parse_verb(const struct socks5_addr *addr)
{
	const char *end = addr->name + addr->name_len;

	if (addr->addr.family != AF_UNSPEC ||
		addr->name_len < VERB_LEN + DOMAIN_LEN ||
		memcmp(end - DOMAIN_LEN, DOMAIN, DOMAIN_LEN) != 0)
		return HOLD_NONE;
	for (int verb = HOLD_HOLD; verb <= HOLD_MEET; verb++)
		if (memcmp(addr->name, verbs[verb], VERB_LEN) == 0)
			return (enum hold_verb)verb;
	return HOLD_NONE;
}

int hold_name_parse(struct hold_name *out, const struct socks5_addr *addr)
{
	const char *at = addr->name + VERB_LEN;
	size_t left;
	size_t scope = 0;

	memset(out, 0, sizeof(*out));
	out->verb = parse_verb(addr);
	if (out->verb == HOLD_NONE)
		return 0;
	left = addr->name_len - VERB_LEN - DOMAIN_LEN;
	if (out->verb == HOLD_HOLD) {
		scope = parse_scope(at, left, out);
		if (scope == 0)
			return -1;
	}
	if (left - scope != DIGITS)
		return -1;
	return parse_key(at + scope, out->key);
}

/* Append @text, without its NUL. Return: where it ends. */
static char *put(char *at, const char *text)
{
	while (*text)
		*at++ = *text++;
	return at;
}

static char *put_scope(char *at, const struct hold_name *name)
{
	for (size_t i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++)
		if (scopes[i].v4 == name->v4 && scopes[i].v6 == name->v6 &&
			scopes[i].loopback == name->loopback)
			return put(at, scopes[i].text);
	return at;
}

void hold_name_write(
	const struct hold_name *name, uint16_t port, struct socks5_addr *out)
{
	char *at = out->name;

	memset(out, 0, sizeof(*out));
	out->addr.port = port;
	at = put(at, verbs[name->verb]);
	if (name->verb == HOLD_HOLD)
		at = put_scope(at, name);
	for (size_t i = 0; i < HOLD_KEY_LEN; i++) {
		*at++ = hex[name->key[i] >> 4];
		*at++ = hex[name->key[i] & 0xf];
	}
	at = put(at, DOMAIN);
	out->name_len = (uint8_t)(at - out->name);
}
