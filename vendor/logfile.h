/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_LOGFILE_H
#define VENDOR_LOGFILE_H

/*
 * The daemon's log file. Supervisor and worker both append to it through their
 * stderr, so that what a dying worker says (an assertion, a sanitizer) lands
 * there too. The supervisor keeps it bounded: beyond LOGFILE_MAX it renames it
 * to FILE.1 and both open FILE anew, the worker upon SIGHUP.
 */

#include <stdbool.h>

#define LOGFILE_MAX (1024L * 1024) /* bytes */

/**
 * logfile_open() - open it to append
 * @path: made with mode 0640 if missing; a symbolic link is refused
 *
 * Return: an fd, or -1 and errno as open(2).
 */
int logfile_open(const char *path);

/** logfile_use() - have stderr append to *fd, which is closed */
void logfile_use(int *fd);

/**
 * logfile_reopen() - open it anew and have stderr append to it
 * @path: as for logfile_open()
 *
 * Return: 0, or -1 and errno, stderr as before.
 */
int logfile_reopen(const char *path);

/**
 * logfile_rotate() - set the file aside if it grew too long
 * @path: what stderr appends to
 *
 * Return: whether it was, and stderr appends to a new one.
 */
bool logfile_rotate(const char *path);

#endif
