/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_LOOKUP_H
#define PRELOAD_LOOKUP_H

/*
 * Which sockets are ours, and putting another socket behind an fd.
 */

#include "preload/slot.h"

/**
 * struct found - a socket of ours
 * @cookie:  of the kernel socket behind the fd now
 * @version: of the slot before @rec was read from it
 * @rec:     what is known of it
 */
struct found {
	uint64_t cookie;
	uint32_t version;
	struct record rec;
};

/**
 * lookup() - is the socket behind this fd one that we put there?
 * @fd:  the fd
 * @out: filled if so, with a record of kind RECORD_GATE or RECORD_CARRIER
 *
 * From memory, else from the tag of a socket that came from another program
 * (and then remembered). Hooks ask only after the real call's answer looked
 * unlike TCP, so that other sockets never pay. Keeps errno.
 */
bool lookup(int fd, struct found *out);

/** lookup_options() - the record of any socket of ours or of a kernel TCP
 * socket whose options were noted; @out is empty but for the cookie if none.
 * Return: whether there was one. Keeps errno. */
bool lookup_options(int fd, struct found *out);

/**
 * amend() - remember a record that was looked up and changed
 *
 * Return: whether it is remembered. If not, somebody has written the slot since
 * it was looked up, and *found is what there is now: change it again, unless
 * its cookie is 0 because the fd is no socket any more.
 */
bool amend(int fd, struct found *found);

/** kernel_tcp_state() - tcpi_state of a TCP socket of the kernel's (TCP_CLOSE,
 * TCP_LISTEN, ...), or -1 if the fd is anything else. Keeps errno. */
int kernel_tcp_state(int fd);

/** socket_int() - an int-valued SOL_SOCKET option, or -1. Keeps errno */
int socket_int(int fd, int name);

/**
 * record_addresses() - note both ends of a connection
 * @rec:    its family says which form they are noted in: v4-mapped for
 *          AF_INET6, and an AF_INET socket has no IPv6 address
 * @remote, @local: of any family
 */
void record_addresses(struct record *rec, const struct ip_port *remote,
	const struct ip_port *local);

/**
 * replace() - put another socket behind an fd
 * @fd:     the application's
 * @before: cookie of the socket that is there; the fd is left alone if another
 *          thread has closed or replaced it meanwhile
 * @with:   the new socket; consumed and set to -1, also on failure
 * @rec:    the record to remember for it; @rec->tagged is updated
 *
 * File status flags, FD_CLOEXEC, options and epoll registrations go with it.
 *
 * Return: 0, or -1 and EBADF, ENOMEM, or another errno of dup3(2), and the fd
 * is as it was.
 */
int replace(int fd, uint64_t before, int *with, struct record *rec);

/**
 * replace_with_tcp() - put a fresh TCP socket behind an fd
 * @found: the gate or carrier that is there; becomes the new one
 *
 * What TCP does when a connection attempt has failed or is dissolved: the
 * same fd is an unconnected TCP socket again, with its options.
 *
 * Return: 0, or -1 and an errno of socket(2) or dup3(2).
 */
int replace_with_tcp(int fd, struct found *found);

#endif
