/* SPDX-License-Identifier: Apache-2.0 */
#include "preload/slot.h"
#include "preload/real.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define RECORD_WORDS (sizeof(struct record) / sizeof(uint32_t))
_Static_assert(sizeof(struct record) % sizeof(uint32_t) == 0,
	"a record is copied by words");

/**
 * struct epoll_note - one registration
 * @epfd_plus_1: 0 marks a free entry, so that zeroed memory is empty
 */
struct epoll_note {
	_Atomic int epfd_plus_1;
	_Atomic uint32_t events;
	_Atomic uint64_t data;
};

struct slot {
	_Atomic uint64_t cookie;
	_Atomic uint32_t words[RECORD_WORDS];
	atomic_bool gate;
	struct epoll_note epolls[SLOT_EPOLLS];
};

static _Atomic(struct slot *) pages[SLOT_FDS / SLOTS_PER_PAGE];

/* The slot of an fd, or NULL if its page was never needed. */
static struct slot *slot_find(int fd)
{
	struct slot *page;

	if ((unsigned int)fd >= SLOT_FDS)
		return NULL;
	page = atomic_load_explicit(&pages[(unsigned int)fd / SLOTS_PER_PAGE],
		memory_order_acquire);
	return page ? &page[(unsigned int)fd % SLOTS_PER_PAGE] : NULL;
}

/* The same, with the page mapped if need be. Of two threads that map it at
 * the same time one wins and the other unmaps its own. */
static struct slot *slot_need(int fd)
{
	size_t size = SLOTS_PER_PAGE * sizeof(struct slot);
	struct slot *none = NULL;
	struct slot *page;
	int saved = errno;

	if ((unsigned int)fd >= SLOT_FDS)
		return NULL;
	if (slot_find(fd))
		return slot_find(fd);
	page = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page != MAP_FAILED &&
		!atomic_compare_exchange_strong(
			&pages[(unsigned int)fd / SLOTS_PER_PAGE], &none, page))
		munmap(page, size);
	errno = saved;
	return slot_find(fd);
}

uint64_t socket_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	int saved = errno;

	if (real()->getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == -1)
		cookie = 0;
	errno = saved;
	return cookie;
}

bool slot_load(int fd, uint64_t cookie, struct record *out)
{
	struct slot *slot = slot_find(fd);
	uint32_t words[RECORD_WORDS];

	if (!slot || cookie == 0 || atomic_load(&slot->cookie) != cookie)
		return false;
	for (size_t i = 0; i < RECORD_WORDS; i++)
		words[i] = atomic_load_explicit(
			&slot->words[i], memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	memcpy(out, words, sizeof(*out));
	return atomic_load(&slot->cookie) == cookie;
}

void slot_store(int fd, uint64_t cookie, const struct record *rec)
{
	struct slot *slot = slot_need(fd);
	uint32_t words[RECORD_WORDS];

	if (!slot)
		return;
	memcpy(words, rec, sizeof(words));
	atomic_store(&slot->cookie, 0);
	atomic_thread_fence(memory_order_release);
	for (size_t i = 0; i < RECORD_WORDS; i++)
		atomic_store_explicit(
			&slot->words[i], words[i], memory_order_relaxed);
	atomic_store(&slot->gate, rec->kind == RECORD_GATE);
	atomic_store(&slot->cookie, cookie);
}

bool slot_known(int fd)
{
	struct slot *slot = slot_find(fd);

	return slot && atomic_load(&slot->cookie) != 0;
}

bool slot_may_be_gate(int fd)
{
	struct slot *slot = slot_find(fd);

	return slot && atomic_load_explicit(&slot->gate, memory_order_relaxed);
}

void slot_not_gate(int fd)
{
	struct slot *slot = slot_find(fd);

	if (slot)
		atomic_store(&slot->gate, false);
}

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
