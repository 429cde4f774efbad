/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/slot_impl.h"

/* ---- registrations with epoll ---- */

/* The note of @epfd, else a free one, else the first: an fd in more epoll
 * instances than we have notes loses the oldest on conversion. */
static struct epoll_note *note_for(struct slot *slot, int epfd)
{
	struct epoll_note *free = NULL;

	for (int i = 0; i < SLOT_EPOLLS; i++) {
		struct epoll_note *note = &slot->epolls[i];
		int at = atomic_load(&note->epfd_plus_1);

		if (at == epfd + 1)
			return note;
		if (at == 0 && !free)
			free = note;
	}
	return free ? free : &slot->epolls[0];
}

void slot_epoll_note(int fd, int epfd, int op, const struct epoll_event *event)
{
	struct slot *slot = op == EPOLL_CTL_ADD ? slot_need(fd) : slot_find(fd);
	struct epoll_note *note;
	bool known;

	if (!slot)
		return;
	note = note_for(slot, epfd);
	known = atomic_load(&note->epfd_plus_1) == epfd + 1;
	if (op == EPOLL_CTL_DEL) {
		if (known)
			atomic_store(&note->epfd_plus_1, 0);
	} else if (event && (known || op == EPOLL_CTL_ADD)) {
		atomic_store(&note->events, event->events);
		atomic_store(&note->data, event->data.u64);
		atomic_store(&note->epfd_plus_1, epfd + 1);
	}
}

bool slot_epoll_at(int fd, int index, int *epfd, struct epoll_event *event)
{
	struct slot *slot = slot_find(fd);
	struct epoll_note *note;

	if (!slot)
		return false;
	note = &slot->epolls[index];
	*epfd = atomic_load(&note->epfd_plus_1) - 1;
	event->events = atomic_load(&note->events);
	event->data.u64 = atomic_load(&note->data);
	return *epfd != -1;
}

void slot_epoll_forget(int fd, int index)
{
	struct slot *slot = slot_find(fd);

	if (slot)
		atomic_store(&slot->epolls[index].epfd_plus_1, 0);
}

/* ---- blocking connects ---- */

void slot_wait_begin(int fd, int gate, uint64_t cookie)
{
	struct slot *slot = slot_need(fd);

	if (!slot)
		return;
	atomic_store(&slot->waiting_fd, gate);
	atomic_store(&slot->waiting, cookie);
}

bool slot_wait_end(int fd, uint64_t cookie)
{
	struct slot *slot = slot_find(fd);
	uint64_t now = cookie;

	if (!slot || atomic_compare_exchange_strong(&slot->waiting, &now, 0))
		return false;
	return now == ~cookie &&
	       atomic_compare_exchange_strong(&slot->waiting, &now, 0);
}

int slot_wait_at(int fd, uint64_t *cookie)
{
	struct slot *slot = slot_find(fd);

	*cookie = slot ? atomic_load(&slot->waiting) : 0;
	return *cookie ? atomic_load(&slot->waiting_fd) : -1;
}

bool slot_wait_break(int fd, uint64_t cookie)
{
	struct slot *slot = slot_find(fd);

	return slot &&
	       atomic_compare_exchange_strong(&slot->waiting, &cookie, ~cookie);
}
