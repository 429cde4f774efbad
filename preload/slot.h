/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_SLOT_H
#define PRELOAD_SLOT_H

/*
 * What the library remembers of sockets: one slot for each fd number.
 *
 * Theory of operation
 *
 * Memory is a cache here, the kernel has the truth. There is no hook on
 * close(), and there must be none: after vfork() the child shares our memory
 * and closes *its* fds. So a slot may speak of a socket that is long gone, and
 * every use verifies it:
 *
 * - The record names its socket by SO_COOKIE, which is unique for each kernel
 *   socket and the same through dup() and fork(). A reader compares it with
 *   the cookie of the fd in hand. It is also the lock: a writer sets it to 0,
 *   writes, and sets the new one; a reader that finds the same cookie before
 *   and after its copy has a whole copy. Cookies never come back, so there is
 *   no ABA, and nobody ever waits: hooks are called from signal handlers.
 *
 * - The gate hint says that the socket behind the fd may be a gate (gate.h).
 *   It is all that the data-path hooks look at, one load, no system call.
 *
 * - Epoll registrations are notes of (epfd, events, data) by fd number. Before
 *   one is repeated on another socket, EPOLL_CTL_MOD on the present one proves
 *   that the kernel has it.
 *
 * Slots live in pages of SLOTS_PER_PAGE that are mapped when first written and
 * never unmapped: no heap, 4 KiB touched at a time, nothing at all for fds that
 * never were TCP sockets. fds from SLOT_FDS on (a million) have no slot; they
 * live by their tag (tag.h).
 */

#include "common/vendor_msg.h"

#include <stdint.h>
#include <sys/epoll.h>

#define SLOT_FDS       (1u << 20)
#define SLOTS_PER_PAGE 128u
#define RECORD_OPTIONS 14
#define OPTION_VALUE   16
#define SLOT_EPOLLS    3

enum record_kind {
	RECORD_NONE = 0, /* a TCP socket of the kernel: only options count */
	RECORD_GATE,     /* connecting: the fd is a socket to the vendor */
	RECORD_CARRIER,  /* connected: the fd is a stream to the host proxy */
	RECORD_BOUND,    /* bound: the fd is a control (vendor_msg.h) */
	RECORD_LISTENER, /* listening: likewise, and accept() reads from it */
};

/**
 * struct option_value - a socket option as the application set it
 * @level, @name: of setsockopt(2); all that we keep are below 256
 * @len:          bytes of @value; 0 marks a free entry
 */
struct option_value {
	uint8_t level;
	uint8_t name;
	uint8_t len;
	uint8_t zero;
	uint8_t value[OPTION_VALUE];
};

/**
 * struct record - what is known of one socket
 * @kind:     enum record_kind
 * @family:   what the application made: AF_INET or AF_INET6
 * @async:    a connect() that returned before it was done: the first one
 *            after it returns 0, the next EISCONN (inet_stream_connect)
 * @tagged:   the socket carries the addresses itself (tag.h)
 * @deferred: bind() asked for any port, which is reserved when somebody wants
 *            to know it or listens (listen.c)
 * @shut:     LISTENER: the application has called shutdown()
 * @bind_flags: BOUND, LISTENER: enum vendor_bind_flag
 * @backlog:  LISTENER: as listen() was called
 * @key:      BOUND, LISTENER: the listener's name with the vendor
 * @remote, @local: as getpeername() and getsockname() shall tell
 * @options:  set by the application, in no order
 */
struct record {
	uint8_t kind;
	uint8_t family;
	uint8_t async;
	uint8_t tagged;
	uint8_t deferred;
	uint8_t shut;
	uint8_t bind_flags;
	uint8_t zero;
	int32_t backlog;
	uint8_t key[VENDOR_KEY_LEN];
	struct ip_port remote;
	struct ip_port local;
	struct option_value options[RECORD_OPTIONS];
};

/** socket_cookie() - SO_COOKIE of an fd, 0 if it is no socket. Keeps errno */
uint64_t socket_cookie(int fd);

/**
 * slot_load() - the record of the socket behind an fd
 * @fd:     the fd
 * @cookie: socket_cookie(fd)
 * @out:    filled on success
 *
 * Return: whether the slot speaks of this very socket.
 */
bool slot_load(int fd, uint64_t cookie, struct record *out);

/**
 * slot_store() - remember a record
 * @fd:     the fd; out of range is ignored
 * @cookie: of the socket that the record is about, not 0
 * @rec:    copied; the gate hint follows its kind
 */
void slot_store(int fd, uint64_t cookie, const struct record *rec);

/** slot_known() - is there a record for this fd number at all, of whichever
 * socket? One load; false spares the caller every system call */
bool slot_known(int fd);

/** slot_may_be_gate() - the hint; false is certain within this process */
bool slot_may_be_gate(int fd);

/** slot_not_gate() - the hint was out of date */
void slot_not_gate(int fd);

/**
 * slot_epoll_note() - a registration succeeded
 * @fd:    the fd registered
 * @epfd:  the epoll instance
 * @op:    EPOLL_CTL_ADD, _MOD or _DEL
 * @event: as given, NULL for _DEL
 */
void slot_epoll_note(int fd, int epfd, int op, const struct epoll_event *event);

/**
 * slot_epoll_at() - read a noted registration
 * @index: 0 to SLOT_EPOLLS - 1
 *
 * Return: whether there is one; *epfd and *event are set then.
 */
bool slot_epoll_at(int fd, int index, int *epfd, struct epoll_event *event);

/** slot_epoll_forget() - the kernel does not have registration @index */
void slot_epoll_forget(int fd, int index);

#endif
