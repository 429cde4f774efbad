/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/service.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE_MAGIC 0x53455256u /* "SERV" */

#define TCP_SCHEME "tcp:"

struct entrance *entrance_new(const struct endpoint *asked)
{
	struct entrance *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	atomic_init(&e->refs, 0);
	atomic_init(&e->nr, 0);
	atomic_init(&e->full, false);
	e->asked = *asked;
	e->listener.fd = -1;
	return e;
}

void entrance_free(struct entrance *e)
{
	assert(atomic_load(&e->refs) == 0);
	listener_close(&e->listener);
	free(e);
}

struct service *service_new(
	struct service_config *config, struct entrance *entrance)
{
	struct service *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->magic = SERVICE_MAGIC;
	atomic_init(&s->refs, 1);
	s->config = *config;
	rules_init(&config->rules);
	s->entrance = entrance;
	atomic_fetch_add(&entrance->refs, 1);
	return s;
}

void service_unref(struct service *s)
{
	assert(s->magic == SERVICE_MAGIC);
	if (atomic_fetch_sub(&s->refs, 1) > 1)
		return;
	if (atomic_fetch_sub(&s->entrance->refs, 1) == 1)
		entrance_free(s->entrance);
	rules_free(&s->config.rules);
	s->magic = 0;
	free(s);
}

bool service_enter(struct service *s)
{
	long before = atomic_fetch_add(&s->entrance->nr, 1);

	assert(s->magic == SERVICE_MAGIC && before >= 0);
	if (s->config.max_connections && before >= s->config.max_connections) {
		atomic_fetch_sub(&s->entrance->nr, 1);
		return false;
	}
	atomic_fetch_add(&s->refs, 1);
	return true;
}

void service_leave(struct service *s)
{
	assert(s->magic == SERVICE_MAGIC);
	atomic_fetch_sub(&s->entrance->nr, 1);
	service_unref(s);
}

bool service_is_full(const struct service *s)
{
	return s->config.max_connections &&
	       atomic_load(&s->entrance->nr) >= s->config.max_connections;
}

const char *service_text(const struct endpoint *ep, char *buf, size_t size)
{
	char whole[ENDPOINT_STRLEN];
	const char *from = whole;

	endpoint_format(ep, whole, sizeof(whole));
	if (ep->kind == ENDPOINT_TCP)
		from += strlen(TCP_SCHEME);
	snprintf(buf, size, "%s", from);
	return buf;
}
