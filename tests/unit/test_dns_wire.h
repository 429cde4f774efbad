/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_DNS_WIRE_H
#define TEST_DNS_WIRE_H

/*
 * DNS messages for tests, built byte by byte and not by the code under test.
 */

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TYPE_A    1
#define TYPE_AAAA 28
#define TYPE_TXT  16

struct wire {
	size_t len;
	uint8_t buf[65536];
};

static inline void wire_u8(struct wire *w, unsigned v)
{
	/* Not check's: those tell the parent of every single one. */
	if (w->len == sizeof(w->buf))
		abort();
	w->buf[w->len++] = (uint8_t)v;
}

static inline void wire_u16(struct wire *w, unsigned v)
{
	wire_u8(w, v >> 8);
	wire_u8(w, v);
}

static inline void wire_u32(struct wire *w, uint32_t v)
{
	wire_u16(w, v >> 16);
	wire_u16(w, v);
}

static inline void wire_bytes(struct wire *w, const void *data, size_t len)
{
	if (len > sizeof(w->buf) - w->len)
		abort();
	memcpy(w->buf + w->len, data, len);
	w->len += len;
}

static inline void wire_set16(struct wire *w, size_t at, unsigned v)
{
	w->buf[at] = (uint8_t)(v >> 8);
	w->buf[at + 1] = (uint8_t)v;
}

/* "a.b" as labels with the root behind them. */
static inline void wire_name(struct wire *w, const char *name)
{
	while (*name) {
		size_t n = strcspn(name, ".");

		wire_u8(w, (unsigned)n);
		wire_bytes(w, name, n);
		name += n + (name[n] == '.');
	}
	wire_u8(w, 0);
}

static inline void wire_header(struct wire *w, unsigned id, unsigned flags,
	unsigned qd, unsigned an, unsigned ns, unsigned ar)
{
	w->len = 0;
	wire_u16(w, id);
	wire_u16(w, flags);
	wire_u16(w, qd);
	wire_u16(w, an);
	wire_u16(w, ns);
	wire_u16(w, ar);
}

static inline void wire_query(
	struct wire *w, unsigned id, const char *name, unsigned type)
{
	wire_header(w, id, 0x0100, 1, 0, 0, 0);
	wire_name(w, name);
	wire_u16(w, type);
	wire_u16(w, 1);
}

/* An OPT record; the caller counts it. */
static inline void wire_opt(struct wire *w, unsigned size, unsigned flags)
{
	wire_u8(w, 0);
	wire_u16(w, 41);
	wire_u16(w, size);
	wire_u16(w, 0);
	wire_u16(w, flags);
	wire_u16(w, 0);
}

static inline void wire_query_edns(struct wire *w, unsigned id,
	const char *name, unsigned type, unsigned size)
{
	wire_query(w, id, name, type);
	wire_set16(w, 10, 1);
	wire_opt(w, size, 0);
}

/* An A record for the name of the question, by a compression pointer. */
static inline void wire_a(struct wire *w, uint32_t ip)
{
	wire_u16(w, 0xc00c);
	wire_u16(w, TYPE_A);
	wire_u16(w, 1);
	wire_u32(w, 60);
	wire_u16(w, 4);
	wire_u32(w, ip);
}

static inline unsigned wire_get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t wire_get32(const uint8_t *p)
{
	return (uint32_t)wire_get16(p) << 16 | wire_get16(p + 2);
}

#endif
