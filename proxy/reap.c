/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/reap.h"

#include <assert.h>
#include <stddef.h>

#define REAPER_MAGIC 0x52454150u /* "REAP" */

static void free_dead(struct reaper *reaper)
{
	while (reaper->dead) {
		struct reap *reap = reaper->dead;

		reaper->dead = reap->next;
		reap->destroy(reap);
	}
}

static void on_prepare(struct ev_loop *loop, ev_prepare *w, int revents)
{
	struct reaper *reaper = w->data;

	assert(reaper->magic == REAPER_MAGIC);
	free_dead(reaper);
}

void reaper_init(struct reaper *reaper, struct ev_loop *loop)
{
	reaper->magic = REAPER_MAGIC;
	reaper->loop = loop;
	reaper->dead = NULL;
	ev_prepare_init(&reaper->prepare, on_prepare);
	reaper->prepare.data = reaper;
	ev_prepare_start(loop, &reaper->prepare);
	ev_unref(loop);
}

void reaper_stop(struct reaper *reaper)
{
	assert(reaper->magic == REAPER_MAGIC);
	free_dead(reaper);
	ev_ref(reaper->loop);
	ev_prepare_stop(reaper->loop, &reaper->prepare);
	reaper->magic = 0;
}

void reap_later(struct reaper *reaper, struct reap *reap,
	void (*destroy)(struct reap *reap))
{
	assert(reaper->magic == REAPER_MAGIC);
	reap->destroy = destroy;
	reap->next = reaper->dead;
	reaper->dead = reap;
}
