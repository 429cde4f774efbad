/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/edge.h"
#include "common/fd.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define EDGE_POLL_MAGIC 0x65646765u
#define EDGE_BATCH      64

struct edge_poll {
	uint32_t magic;
	unsigned refs;
	struct ev_loop *loop;
	int fd;
	ev_io ready;
	/* The batch in the works: [at, count) is still to be told. */
	int at;
	int count;
	struct epoll_event batch[EDGE_BATCH];
};

static void on_ready(struct ev_loop *loop, ev_io *watcher, int revents)
{
	struct edge_poll *poll = watcher->data;

	assert(poll->magic == EDGE_POLL_MAGIC);
	/* One batch a turn; the instance stays readable if there is more. */
	poll->count = epoll_wait(poll->fd, poll->batch, EDGE_BATCH, 0);
	if (poll->count == -1) {
		poll->count = 0;
		return;
	}
	poll->refs++; /* a callback may give back the last other one */
	for (poll->at = 0; poll->at < poll->count;) {
		struct epoll_event *event = &poll->batch[poll->at++];
		struct edge *edge = event->data.ptr;

		if (edge)
			edge->cb(edge, event->events);
	}
	poll->at = poll->count = 0;
	edge_poll_unref(poll);
}

struct edge_poll *edge_poll_ref(struct ev_loop *loop)
{
	struct edge_poll *poll = ev_userdata(loop);

	if (poll) {
		assert(poll->magic == EDGE_POLL_MAGIC);
		poll->refs++;
		return poll;
	}
	poll = calloc(1, sizeof(*poll));
	if (!poll)
		return NULL;
	poll->fd = epoll_create1(EPOLL_CLOEXEC);
	if (poll->fd == -1) {
		free(poll);
		return NULL;
	}
	poll->magic = EDGE_POLL_MAGIC;
	poll->refs = 1;
	poll->loop = loop;
	ev_io_init(&poll->ready, on_ready, poll->fd, EV_READ);
	poll->ready.data = poll;
	ev_io_start(loop, &poll->ready);
	ev_set_userdata(loop, poll);
	return poll;
}

void edge_poll_unref(struct edge_poll *poll)
{
	assert(poll->magic == EDGE_POLL_MAGIC && poll->refs > 0);
	if (--poll->refs > 0)
		return;
	ev_io_stop(poll->loop, &poll->ready);
	ev_set_userdata(poll->loop, NULL);
	closefd(&poll->fd);
	poll->magic = 0;
	free(poll);
}

static int control(struct edge_poll *poll, int op, struct edge *edge)
{
	struct epoll_event event = {
		.events = edge->mask | EPOLLET,
		.data.ptr = edge,
	};

	return epoll_ctl(poll->fd, op, edge->fd, &event);
}

int edge_add(struct edge_poll *poll, struct edge *edge, int fd, uint32_t mask,
	edge_cb *cb)
{
	assert(poll->magic == EDGE_POLL_MAGIC);
	assert(!edge->poll && fd >= 0);
	edge->fd = fd;
	edge->mask = mask;
	edge->cb = cb;
	if (control(poll, EPOLL_CTL_ADD, edge) == -1)
		return -1;
	edge->poll = poll;
	return 0;
}

int edge_mod(struct edge *edge, uint32_t mask)
{
	assert(edge->poll);
	edge->mask = mask;
	return control(edge->poll, EPOLL_CTL_MOD, edge);
}

void edge_drop(struct edge *edge)
{
	struct edge_poll *poll = edge->poll;

	assert(poll && poll->magic == EDGE_POLL_MAGIC);
	for (int i = poll->at; i < poll->count; i++) {
		if (poll->batch[i].data.ptr == edge)
			poll->batch[i].data.ptr = NULL;
	}
	edge->poll = NULL;
}

void edge_del(struct edge *edge)
{
	int err = control(edge->poll, EPOLL_CTL_DEL, edge);

	assert(err == 0);
	(void)err;
	edge_drop(edge);
}
