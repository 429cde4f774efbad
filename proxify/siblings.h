/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_SIBLINGS_H
#define PROXIFY_SIBLINGS_H

/*
 * Where the other parts of the project are, seen from this binary.
 *
 * Theory of operation
 *
 * The parts are looked for relative to the launcher's own file and nowhere
 * else, so that several copies on one machine do not mix, and so that a folder
 * or an installation can be moved. In this order:
 *
 *	beside it       DIR/libproxy_preload.so, a plain folder copied into an
 *	                image
 *	build tree      DIR/../preload/libproxy_preload.so, when DIR is called
 *	                "proxify"
 *	installed       PREFIX/bin and PREFIX/LIBDIR/proxify; the way from one
 *to the other is what the build was configured with, then
 *	                ../lib/proxify and ../lib64/proxify
 *
 * The library is loaded into every program, so a file that somebody else could
 * have put there is not taken: it must belong to root, to us, or to the owner
 * of the launcher itself.
 */

#include <limits.h>
#include <stddef.h>

enum sibling { SIBLING_LIBRARY, SIBLING_VENDOR, SIBLING_COUNT };

/** sibling_name() - the file's name without its folder */
const char *sibling_name(enum sibling which);

/**
 * sibling_find() - the path of another part
 * @self:  absolute path of the launcher
 * @which: what to look for
 * @path:  filled with its path, without symbolic links or ".." in it
 * @tried: filled with the places looked at, for an error line
 * @size:  of @tried
 *
 * Return: 0, or -1 if it is in none of them.
 */
int sibling_find(const char *self, enum sibling which, char path[PATH_MAX],
	char *tried, size_t size);

#endif
