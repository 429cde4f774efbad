/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_PLACE_H
#define VENDOR_PLACE_H

/*
 * The vendor's place: its directory, its lock, its listening socket.
 *
 * Theory of operation
 *
 * Whoever can write the directory can put another socket there and would be
 * given every connection of every program. So it must belong to the vendor's
 * user and nobody else may write it; it is made so when missing and refused
 * when not so.
 *
 * Of several starts at once one gets the lock (flock on PATH.lock) and
 * listens; the others wait until it does and report that. The lock is held by
 * the supervisor for its whole life, and the kernel gives it back however that
 * ends; a socket file found under the lock is then a leftover. A lock file may
 * be removed by its holder between another's open() and flock(): that one has
 * a lock on nothing, sees it by the file's identity, and begins again.
 */

#include "vendor/config.h"

#include <sys/stat.h>

/**
 * struct place - what the supervisor holds
 * @listener: AF_UNIX SOCK_SEQPACKET, listening, non-blocking
 * @lock:     the lock file
 * @id:       device and inode of the socket file
 */
struct place {
	int listener;
	int lock;
	struct stat id;
	char lock_path[ENDPOINT_PATH_MAX + sizeof(".lock")];
	const char *path;
};

enum place_verdict {
	PLACE_OURS,  /* we listen */
	PLACE_TAKEN, /* another vendor listens */
	PLACE_WRONG, /* impossible, and a line in the log says why */
};

/**
 * place_take() - listen, unless somebody does
 * @place: filled; must be left by place_leave() if the verdict is PLACE_OURS
 * @path:  absolute path of the socket; must outlive the place
 */
enum place_verdict place_take(struct place *place, const char *path);

/** place_is_ours() - is the socket file still the one that we made? */
bool place_is_ours(const struct place *place);

/** place_leave() - close all, and remove the files that are still ours */
void place_leave(struct place *place);

#endif
