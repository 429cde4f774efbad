/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_TAG_H
#define PRELOAD_TAG_H

/*
 * Addresses that travel with the socket.
 *
 * Theory of operation
 *
 * A socket can outlive the memory that describes it: exec() throws the slots
 * away, SCM_RIGHTS carries the fd to another program. What such a program
 * asks (getpeername, SO_DOMAIN) must still be answered. So a socket that may
 * leave gets a tag: a classic BPF filter whose instructions load the addresses
 * as constants and then accept everything. The kernel keeps the original
 * program for SO_GET_FILTER, on a socket of any family, through fork, dup, exec
 * and fd passing; it needs no privilege, no file and no daemon. On unix and
 * vsock streams the filter never runs; on TCP carriers it costs a dozen
 * instructions a segment.
 *
 * A filter costs the kernel some 8 KiB and 20 us, so a socket is tagged only
 * when it can leave: at conversion if it is not close-on-exec, when a duplicate
 * without close-on-exec is made, when FD_CLOEXEC is cleared, and when it is
 * passed in a message. Controls of listeners always are: there are few, and
 * preforking servers, re-executing ones and socket activation hand them on.
 */

#include "preload/slot.h"

/**
 * tag_attach() - write a record onto its socket
 *
 * Return: 0, or -1 where the kernel would not (no memory, a seccomp filter);
 * errno is kept, the caller goes on without.
 */
int tag_attach(int fd, const struct record *rec);

/**
 * tag_read() - find the record that a socket carries
 * @out: on success the record, of any kind but RECORD_NONE
 *
 * Return: whether there was a tag. errno is kept.
 */
bool tag_read(int fd, struct record *out);

#endif
