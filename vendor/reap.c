/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/reap.h"

#include <assert.h>
#include <stddef.h>

#define REAPER_MAGIC 0x72656170u

static void free_dead(struct reaper *reaper)
{
	struct reap *reap;

	while ((reap = reaper->dead)) {
		reaper->dead = reap->next;
		reap->destroy(reap);
	}
}

static void on_prepare(struct ev_loop *loop, ev_prepare *watcher, int revents)
{
	struct reaper *reaper = watcher->data;

	assert(reaper->magic == REAPER_MAGIC);
	free_dead(reaper);
}

void reaper_start(struct reaper *reaper, struct ev_loop *loop)
{
	reaper->magic = REAPER_MAGIC;
	reaper->loop = loop;
	reaper->dead = NULL;
	ev_prepare_init(&reaper->prepare, on_prepare);
	reaper->prepare.data = reaper;
	ev_prepare_start(loop, &reaper->prepare);
}

void reaper_stop(struct reaper *reaper)
{
	assert(reaper->magic == REAPER_MAGIC);
	free_dead(reaper);
	ev_prepare_stop(reaper->loop, &reaper->prepare);
	reaper->magic = 0;
}

void reap_later(struct reaper *reaper, struct reap *reap,
	void (*destroy)(struct reap *reap))
{
	assert(reaper->magic == REAPER_MAGIC && !reap->destroy);
	reap->destroy = destroy;
	reap->next = reaper->dead;
	reaper->dead = reap;
}
