/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/watch.h"

#include "common/fd.h"

#include <assert.h>
#include <sys/epoll.h>

#define WATCH_MAGIC 0x57415443u /* "WATC" */

static void dispatch(const struct epoll_event *event)
{
	struct watch *watch = event->data.ptr;
	uint32_t failed = event->events & (EPOLLERR | EPOLLHUP);
	int revents = 0;

	if (failed || (event->events & EPOLLIN))
		revents |= EV_READ;
	if (failed || (event->events & EPOLLOUT))
		revents |= EV_WRITE;
	/* One before it in this turn may have changed what it waits for. */
	revents &= watch->mask;
	if (revents)
		watch->cb(watch, revents);
}

static void on_set(struct ev_loop *loop, ev_io *io, int revents)
{
	struct watch_set *set = io->data;
	struct epoll_event event[WATCH_BATCH];
	int nr;

	assert(set->magic == WATCH_MAGIC);
	nr = epoll_wait(set->fd, event, WATCH_BATCH, 0);
	for (int i = 0; i < nr; i++)
		dispatch(&event[i]);
}

int watch_set_init(struct watch_set *set, struct ev_loop *loop)
{
	set->fd = epoll_create1(EPOLL_CLOEXEC);
	if (set->fd == -1)
		return -1;
	set->magic = WATCH_MAGIC;
	set->loop = loop;
	ev_io_init(&set->io, on_set, set->fd, EV_READ);
	set->io.data = set;
	ev_io_start(loop, &set->io);
	return 0;
}

void watch_set_stop(struct watch_set *set)
{
	if (set->magic != WATCH_MAGIC)
		return;
	ev_io_stop(set->loop, &set->io);
	closefd(&set->fd);
	set->magic = 0;
}

void watch_init(struct watch *watch, struct watch_set *set, int fd,
	void (*cb)(struct watch *watch, int revents))
{
	watch->set = set;
	watch->fd = fd;
	watch->mask = 0;
	watch->cb = cb;
}

int watch_for(struct watch *watch, uint8_t mask)
{
	struct epoll_event event = {.data.ptr = watch};
	int op = EPOLL_CTL_MOD;

	if (watch->mask == mask)
		return 0;
	assert(watch->set->magic == WATCH_MAGIC);
	if (watch->mask == 0)
		op = EPOLL_CTL_ADD;
	else if (mask == 0)
		op = EPOLL_CTL_DEL;
	if (mask & EV_READ)
		event.events |= EPOLLIN;
	if (mask & EV_WRITE)
		event.events |= EPOLLOUT;
	if (epoll_ctl(watch->set->fd, op, watch->fd, &event) == -1)
		return -1;
	watch->mask = mask;
	return 0;
}
