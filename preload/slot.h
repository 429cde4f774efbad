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
 *   the cookie of the fd in hand.
 *
 * - When one socket takes another's place behind an fd, a slot speaks of both,
 *   each with its kind and the rest in common. No moment is right for changing
 *   from one to the other: another thread may be anywhere between looking at
 *   the slot and calling the kernel, and a vfork() child that changes its fd
 *   leaves ours as it was.
 *
 * - A version makes the copy whole: odd while somebody writes, another number
 *   when he is done. Writers keep each other out with it, but only so long: one
 *   that does not end is under this very signal handler, or was in another
 *   thread when this process was forked off. It is then overruled, and if it
 *   ends after all it notices, and writes once more. So nobody waits for ever:
 *   hooks are called from signal handlers, and fork() asks nobody.
 *
 * - The gate hint says that the socket behind the fd may be a gate (gate.h),
 *   or one that is bound or listens, which carries no data either. It is all
 *   that the data-path hooks look at, one load, no system call. It
 *   stays on until somebody has seen with his own eyes what is behind the fd.
 *
 * - Epoll registrations are notes of (epfd, events, data) by fd number. They
 *   are as old as they are; the kernel is asked before one is repeated on
 *   another socket (lookup.c).
 *
 * - A blocking connect() leaves the application's socket as it is and waits on
 *   a gate of its own. The slot names that gate meanwhile, so that shutdown()
 *   in another thread finds it.
 *
 * Slots live in pages of SLOTS_PER_PAGE that are mapped when first written and
 * never unmapped: no heap, 4 KiB touched at a time, nothing at all for fds that
 * never were TCP sockets or in an epoll set. fds from SLOT_FDS on (a million)
 * have no slot; they live by their tag (tag.h).
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
 * @was:      slot.c's: the kind of the socket before or after this one
 * @family:   what the application made: AF_INET or AF_INET6
 * @async:    a connect() that returned before it was done: the first one
 *            after it returns 0, the next EISCONN (inet_stream_connect)
 * @tagged:   the socket carries the addresses itself (tag.h)
 * @has_copies: dup() was called: other fds of this process may be the same
 *            socket, and are to be replaced along with this one
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
	uint8_t was;
	uint8_t has_copies;
	uint8_t zero[3];
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
 * @fd:     the fd
 * @cookie: of the socket that the record is about, not 0
 * @rec:    copied
 *
 * Return: whether it is remembered: false where the fd is out of range or no
 * memory is to be had.
 */
bool slot_store(int fd, uint64_t cookie, const struct record *rec);

/**
 * slot_succeed() - a socket is about to take another one's place
 * @before: cookie of the one that is there; still known afterwards
 * @cookie, @rec: of the one to come
 *
 * Return: as slot_store().
 */
bool slot_succeed(
	int fd, uint64_t before, uint64_t cookie, const struct record *rec);

/** slot_version() - a number that changes whenever the slot is written */
uint32_t slot_version(int fd);

/**
 * slot_amend() - slot_store(), unless somebody else was faster
 * @version: slot_version() from before the record was loaded
 *
 * Return: false where the slot has been written since then. Where nothing can
 * be remembered anyway, true.
 */
bool slot_amend(
	int fd, uint64_t cookie, const struct record *rec, uint32_t version);

/** slot_forget() - there is nothing to know of this fd */
void slot_forget(int fd);

/** slot_known() - may there be a record for this fd number at all, of
 * whichever socket? One load; false spares the caller every system call. Always
 * true beyond the table */
bool slot_known(int fd);

/**
 * slot_find_cookie() - an fd number whose slot speaks of a socket
 * @cookie: of the socket
 * @from:   the first number to look at
 *
 * Return: the number, to be verified as every slot, or -1.
 */
int slot_find_cookie(uint64_t cookie, int from);

/** slot_may_be_gate() - the hint, also on for a socket that is bound or
 * listens; false is certain within this process. Always true beyond the table,
 * where a gate is known by its tag */
bool slot_may_be_gate(int fd);

/**
 * slot_not_gate() - the hint was out of date
 * @cookie: of the socket that was found behind the fd; nothing changes if it
 *          is a gate after all, or is about to be succeeded by one
 */
void slot_not_gate(int fd, uint64_t cookie);

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

/**
 * slot_wait_begin() - a blocking connect() waits on a gate
 * @fd:     the application's
 * @gate:   fd number of the gate
 * @cookie: the gate's
 */
void slot_wait_begin(int fd, int gate, uint64_t cookie);

/** slot_wait_end() - it does not wait any more. Return: whether another thread
 * gave the attempt up with slot_wait_break() */
bool slot_wait_end(int fd, uint64_t cookie);

/**
 * slot_wait_at() - the gate on which somebody waits for this fd
 * @cookie: set to what the gate's cookie must be
 *
 * Return: its number, which may be another file's by now, or -1.
 */
int slot_wait_at(int fd, uint64_t *cookie);

/** slot_wait_break() - give up the attempt that waits on this gate. Return:
 * false if it waits no more, or another was faster */
bool slot_wait_break(int fd, uint64_t cookie);

/** slot_epoll_forget() - the kernel does not have registration @index */
void slot_epoll_forget(int fd, int index);

#endif
