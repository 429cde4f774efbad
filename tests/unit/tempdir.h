/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_TEMPDIR_H
#define TESTS_UNIT_TEMPDIR_H

/* A folder that a test has to itself. */

#define TEMPDIR_LEN 64

/**
 * tempdir_make() - make one of mode 0755
 * @dir: filled with its path, in $TEMPDIR_ROOT, or /tmp when that is not set
 *
 * A test that fails does not get to clean up. A program whose tests leave more
 * than files behind makes a folder for all of them, and removes that.
 */
void tempdir_make(char dir[TEMPDIR_LEN]);

/** tempdir_remove() - remove it with all that is in it */
void tempdir_remove(const char *dir);

#endif
