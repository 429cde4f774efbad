/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_MAILBOX_H
#define PROXY_MAILBOX_H

/*
 * How threads hand things to each other.
 *
 * Theory of operation
 *
 * Each event loop has a mailbox. Any thread may post to it; the loop is woken
 * (ev_async, the only libev call that may cross threads) and delivers all that
 * has come, in order, on its own thread. The lock is held to link and unlink,
 * never while something is delivered. What is posted belongs to the mailbox
 * and then to its deliver() function.
 *
 * A loop that is about to end closes its mailbox, which succeeds only while it
 * is empty; from then on posting fails and the poster keeps what it has. So
 * nothing is lost between a last look and the end.
 */

#include <ev.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * struct mail - what is posted embeds this
 * @next:    the mailbox's
 * @deliver: takes over @mail. @receiver is the mailbox's, or NULL if its loop
 *           never ran: then what @mail holds is to be let go
 */
struct mail {
	struct mail *next;
	void (*deliver)(struct mail *mail, void *receiver);
};

/**
 * struct mailbox - see the theory above
 * @lock:     of @first, @last and @closed, never held across a call out
 * @receiver: for deliver()
 * @after:    called after what had come was delivered, with @receiver
 */
struct mailbox {
	uint32_t magic;
	pthread_mutex_t lock;
	struct mail *first;
	struct mail **last;
	bool closed;
	struct ev_loop *loop;
	ev_async wake;
	void *receiver;
	void (*after)(void *receiver);
};

/** mailbox_init() - begin to receive on @loop, which has no thread yet */
void mailbox_init(struct mailbox *box, struct ev_loop *loop, void *receiver,
	void (*after)(void *receiver));

/**
 * mailbox_post() - hand @mail over; from any thread
 *
 * Return: false if the mailbox is closed: @mail stays the caller's.
 */
bool mailbox_post(struct mailbox *box, struct mail *mail);

/**
 * mailbox_close() - take no more; from the loop's thread
 *
 * Return: false if something has come that was not delivered yet: it will be,
 * and the mailbox stays open.
 */
bool mailbox_close(struct mailbox *box);

/** mailbox_free() - drop what was never delivered; no thread posts any more */
void mailbox_free(struct mailbox *box);

#endif
