/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/turnstile.h"

#include <assert.h>

void turnstile_init(struct turnstile *t, unsigned slots)
{
	assert(slots > 0);
	t->free = slots;
	t->serving = false;
	list_init(&t->queue);
}

void turnstile_wait_init(
	struct turnstile_wait *wait, void (*go)(struct turnstile_wait *wait))
{
	list_init(&wait->link);
	wait->go = go;
}

bool turnstile_enter(struct turnstile *t, struct turnstile_wait *wait)
{
	if (!list_empty(&wait->link))
		return false;
	if (t->free > 0 && list_empty(&t->queue)) {
		t->free--;
		return true;
	}
	list_add_tail(&t->queue, &wait->link);
	return false;
}

void turnstile_leave(struct turnstile *t)
{
	t->free++;
	if (t->serving)
		return; /* the loop below goes on with this one */
	t->serving = true;
	while (t->free > 0 && !list_empty(&t->queue)) {
		struct turnstile_wait *wait =
			list_entry(t->queue.next, struct turnstile_wait, link);

		list_del(&wait->link);
		t->free--;
		wait->go(wait);
	}
	t->serving = false;
}

void turnstile_forget(struct turnstile_wait *wait)
{
	list_del(&wait->link);
}
