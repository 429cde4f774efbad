/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_SLOT_IMPL_H
#define PRELOAD_SLOT_IMPL_H

/*
 * The inside of a slot, for its two files: slot.c has the table and the
 * records, which are verified and whole; slot_notes.c the notes, which are
 * neither.
 */

#include "preload/slot.h"

#include <stdatomic.h>

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

/**
 * struct slot - what is remembered for one fd number
 * @version: odd while @cookie, @other and @words are written
 * @cookie:  of the socket that @words speaks of, 0: of none
 * @other:   of the one before or after it, whose kind is @words' record.was
 * @words:   a struct record
 * @sum:     of the three before: a writer that was overruled (write_end()) may
 *           go on writing for a moment while the version is even
 * @gate:    the hint
 * @waiting: cookie of the gate on which a connect() waits, its complement once
 *           that is given up, 0: none
 * @waiting_fd: the number of that gate
 */
struct slot {
	_Atomic uint32_t version;
	_Atomic uint64_t cookie;
	_Atomic uint64_t other;
	_Atomic uint32_t words[RECORD_WORDS];
	_Atomic uint32_t sum;
	atomic_bool gate;
	_Atomic uint64_t waiting;
	_Atomic int waiting_fd;
	struct epoll_note epolls[SLOT_EPOLLS];
};

/** slot_find() - the slot of an fd, or NULL if its page was never needed */
struct slot *slot_find(int fd);

/** slot_need() - the same, with its page mapped if need be. Return: NULL where
 * the fd is out of range or no memory is to be had. Keeps errno */
struct slot *slot_need(int fd);

#endif
