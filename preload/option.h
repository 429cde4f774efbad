/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_OPTION_H
#define PRELOAD_OPTION_H

/*
 * Socket options of sockets that are no longer TCP.
 *
 * Theory of operation
 *
 * A carrier has no TCP_NODELAY, but the application set it and will read it
 * back. There is no table of options here, with defaults and ranges to keep up
 * with the kernel. A fresh TCP socket of the kernel's is the oracle: to set an
 * option, try it there, so that a bad value fails with the kernel's own errno,
 * and note the bytes; to get one, set what was noted on a fresh socket and ask
 * it. SOL_SOCKET options are the same on every family: they are set on the
 * carrier itself, and noted only to be set again on the next socket behind
 * the fd. Gates and controls that are bound need theirs for talking with the
 * vendor: there they are noted only, until a socket comes that can take them.
 *
 * Where no fd is to be had for the oracle, an option is believed to be good.
 *
 * A note holds OPTION_VALUE bytes and a record RECORD_OPTIONS notes. What does
 * not fit is accepted and reads back as the default.
 */

#include "preload/lookup.h"

/**
 * option_note() - an option was set on a socket
 * @fd:    the fd; sockets that are neither TCP nor ours are ignored
 * @level, @name, @value, @len: as setsockopt(2) took them
 *
 * Keeps errno.
 */
void option_note(int fd, int level, int name, const void *value, socklen_t len);

/** option_is_kept() - does an option of this level, name and length outlive a
 * conversion? All others are not noted */
bool option_is_kept(int level, int name, socklen_t len);

/** option_noted() - what was set, or NULL */
const struct option_value *option_noted(
	const struct record *rec, int level, int name);

/** option_replay() - set on a new socket what it can take of the notes: all
 * on a TCP socket, SOL_SOCKET's on a carrier and a listener, none on a gate
 * and a bound control. Keeps errno */
void option_replay(int fd, const struct record *rec);

/**
 * option_oracle_set() - setsockopt() where the socket cannot take it
 *
 * Return: as setsockopt(2) on a TCP socket of the record's family.
 */
int option_oracle_set(int fd, struct found *found, int level, int name,
	const void *value, socklen_t len);

/**
 * option_oracle_get() - getsockopt() where the socket does not know it
 *
 * Return: as getsockopt(2) on a TCP socket with the noted options set.
 */
int option_oracle_get(const struct found *found, int level, int name,
	void *value, socklen_t *len);

#endif
