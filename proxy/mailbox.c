/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/mailbox.h"

#include <assert.h>
#include <stddef.h>

#define MAILBOX_MAGIC 0x4d41494cu /* "MAIL" */

/* Take all that has come. */
static struct mail *take_all(struct mailbox *box)
{
	struct mail *mail;

	pthread_mutex_lock(&box->lock);
	mail = box->first;
	box->first = NULL;
	box->last = &box->first;
	pthread_mutex_unlock(&box->lock);
	return mail;
}

static void deliver_all(struct mailbox *box, void *receiver)
{
	struct mail *mail = take_all(box);

	while (mail) {
		struct mail *next = mail->next;

		mail->deliver(mail, receiver);
		mail = next;
	}
}

static void on_wake(struct ev_loop *loop, ev_async *w, int revents)
{
	struct mailbox *box = w->data;

	assert(box->magic == MAILBOX_MAGIC);
	deliver_all(box, box->receiver);
	box->after(box->receiver);
}

void mailbox_init(struct mailbox *box, struct ev_loop *loop, void *receiver,
	void (*after)(void *receiver))
{
	box->magic = MAILBOX_MAGIC;
	pthread_mutex_init(&box->lock, NULL);
	box->first = NULL;
	box->last = &box->first;
	box->closed = false;
	box->loop = loop;
	box->receiver = receiver;
	box->after = after;
	ev_async_init(&box->wake, on_wake);
	box->wake.data = box;
	ev_async_start(loop, &box->wake);
}

bool mailbox_post(struct mailbox *box, struct mail *mail)
{
	bool closed;

	assert(box->magic == MAILBOX_MAGIC);
	mail->next = NULL;
	pthread_mutex_lock(&box->lock);
	closed = box->closed;
	if (!closed) {
		*box->last = mail;
		box->last = &mail->next;
	}
	pthread_mutex_unlock(&box->lock);
	if (!closed)
		ev_async_send(box->loop, &box->wake);
	return !closed;
}

bool mailbox_close(struct mailbox *box)
{
	bool empty;

	assert(box->magic == MAILBOX_MAGIC);
	pthread_mutex_lock(&box->lock);
	empty = !box->first;
	if (empty)
		box->closed = true;
	pthread_mutex_unlock(&box->lock);
	return empty;
}

void mailbox_free(struct mailbox *box)
{
	assert(box->magic == MAILBOX_MAGIC);
	ev_async_stop(box->loop, &box->wake);
	deliver_all(box, NULL);
	pthread_mutex_destroy(&box->lock);
	box->magic = 0;
}
