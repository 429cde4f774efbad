/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_PROGRAM_H
#define PROXIFY_PROGRAM_H

/*
 * The application: where it is, and whether the library can get into it.
 *
 * A program that the library does not get into would run all the same, but
 * without a network and without a word. So it is looked at before it starts.
 */

#include <limits.h>
#include <stddef.h>

/**
 * program_find() - look a command up as execvp(3) does
 * @name: a path if it has a slash, else a name to be found through PATH
 * @path: filled
 *
 * Return: 0, or -1 and errno: ENOENT, EACCES if there is one that may not be
 * executed, ENAMETOOLONG.
 */
int program_find(const char *name, char path[PATH_MAX]);

/**
 * program_refusal() - why the library cannot get into a program
 * @path: of the program or script, as from program_find()
 * @why:  filled with the reason, fit to follow "cannot cover PATH: "
 * @size: of @why
 *
 * Scripts are followed to their interpreter, /usr/bin/env to what it starts.
 * What cannot be read cannot be judged and is let through; exec has the last
 * word.
 *
 * Return: -1 and @why filled, or 0 if nothing speaks against it.
 */
int program_refusal(const char *path, char *why, size_t size);

/**
 * program_missing() - what does exec mean by ENOENT?
 * @path:    of a program or script that is there
 * @missing: filled with its interpreter or dynamic loader
 *
 * Return: 0 if it is that which is not there, else -1.
 */
int program_missing(const char *path, char missing[PATH_MAX]);

/** program_exec() - become it. Return: errno, it failed */
int program_exec(const char *path, char **argv);

#endif
