/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/held.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define STEAL_PART 4

int scratch_init(struct scratch *s, size_t size)
{
	memset(s, 0, sizeof(*s));
	s->size = size;
	s->buf = malloc(size);
	return s->buf ? 0 : -1;
}

void scratch_free(struct scratch *s)
{
	while (s->nr_spare)
		free(s->spare[--s->nr_spare]);
	free(s->buf);
	s->buf = NULL;
}

/* Give the scratch buffer away and put another in its place. */
static uint8_t *steal(struct scratch *s)
{
	uint8_t *fresh =
		s->nr_spare ? s->spare[--s->nr_spare] : malloc(s->size);
	uint8_t *stolen = s->buf;

	if (!fresh)
		return NULL;
	s->buf = fresh;
	return stolen;
}

int held_set(struct held *h, struct scratch *s, const uint8_t *data, size_t len)
{
	uint8_t *was = s->buf;
	bool inside = data >= was && data < was + s->size;

	assert(!h->buf && len > 0 && len <= s->size);
	h->big = inside && len >= s->size / STEAL_PART;
	h->buf = h->big ? steal(s) : malloc(len);
	if (!h->buf) {
		h->big = false;
		return -1;
	}
	h->off = h->big ? (uint32_t)(data - was) : 0;
	h->len = (uint32_t)len;
	if (!h->big)
		memcpy(h->buf, data, len);
	return 0;
}

int held_append(struct held *h, const uint8_t *data, size_t len)
{
	uint8_t *more;

	assert(!h->big && h->off == 0);
	more = realloc(h->buf, h->len + len);
	if (!more)
		return -1;
	memcpy(more + h->len, data, len);
	h->buf = more;
	h->len += (uint32_t)len;
	return 0;
}

void held_take(struct held *h, struct scratch *s, size_t n)
{
	assert(n <= h->len);
	h->off += (uint32_t)n;
	h->len -= (uint32_t)n;
	if (h->len == 0)
		held_drop(h, s);
}

void held_drop(struct held *h, struct scratch *s)
{
	if (h->big && s->nr_spare < SCRATCH_SPARES)
		s->spare[s->nr_spare++] = h->buf;
	else
		free(h->buf);
	memset(h, 0, sizeof(*h));
}
