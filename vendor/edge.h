/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_EDGE_H
#define VENDOR_EDGE_H

/*
 * Edge-triggered readiness for the fds that libev must not hold.
 *
 * Theory of operation
 *
 * Two kinds of fds in the vendor do not fit an ev_io:
 *
 * - A carrier is handed to the application when it is connected. libev never
 *   takes an fd out of its epoll set; it trusts that closing it does so. But
 *   epoll forgets a *file*, not a number, and this file lives on in the
 *   application: every byte the application receives would wake the vendor for
 *   an fd that is no longer its own, and libev answers such an event by
 *   building its whole epoll set anew. Here edge_del() takes it out for good.
 *
 * - A gate holds an unread message while its request is worked on, so it is
 *   readable all that time, and still its hang-up must be seen. libev knows no
 *   hang-up event apart from readability.
 *
 * So each loop has one epoll instance of its own kind, nested in the loop's:
 * one ev_io watches it, and one registration, edge-triggered, serves an fd for
 * its whole life. Edges mean that a callback must go on until EAGAIN (or leave
 * the rest knowingly), since the same readiness is not reported twice.
 *
 * An edge that was deleted never fires again, not even when its event had
 * already been fetched from the kernel: its owner may be freed at once.
 *
 * The instance is found through the loop's user data (ev_userdata), which
 * therefore belongs to this module; it exists while somebody holds a
 * reference.
 */

#include <ev.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

struct edge;
struct edge_poll;

/**
 * typedef edge_cb - something happened to the fd
 * @edge:   as registered, embedded in its owner
 * @events: EPOLL* bits; EPOLLERR and EPOLLHUP come unasked
 */
typedef void edge_cb(struct edge *edge, uint32_t events);

/**
 * struct edge - one registration, to be embedded in the fd's owner
 * @poll: NULL while not registered; zero-initialise
 * @fd:   stays the owner's
 * @mask: what is registered
 */
struct edge {
	struct edge_poll *poll;
	edge_cb *cb;
	int fd;
	uint32_t mask;
};

/** edge_owner() - the object of @type that an edge is the @member of */
#define edge_owner(edge, type, member) \
 ((type *)(void *)((char *)(edge)-offsetof(type, member)))

/**
 * edge_poll_ref() - the loop's instance, made if there is none
 *
 * Return: the instance, to be given back with edge_poll_unref(), or NULL and
 * errno (ENOMEM, EMFILE, ENFILE).
 */
struct edge_poll *edge_poll_ref(struct ev_loop *loop);

/** edge_poll_unref() - give a reference back; the last one frees it */
void edge_poll_unref(struct edge_poll *poll);

/**
 * edge_add() - begin to watch
 * @poll: a referenced instance
 * @edge: not registered
 * @fd:   what to watch
 * @mask: EPOLLIN, EPOLLOUT, EPOLLRDHUP; EPOLLET is added. What is ready
 *        already is reported too
 * @cb:   whom to tell
 *
 * Return: 0, or -1 and errno (ENOMEM, ENOSPC).
 */
int edge_add(struct edge_poll *poll, struct edge *edge, int fd, uint32_t mask,
	edge_cb *cb);

/** edge_mod() - watch for something else. Return: 0, or -1 and errno */
int edge_mod(struct edge *edge, uint32_t mask);

/** edge_del() - stop watching an fd that somebody else holds too */
void edge_del(struct edge *edge);

/**
 * edge_drop() - stop watching an fd that is closed next
 *
 * Saves the system call, and is only right where no other process and no
 * other fd shares the file: closing it then takes it out of the set.
 */
void edge_drop(struct edge *edge);

#endif
