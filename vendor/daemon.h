/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_DAEMON_H
#define VENDOR_DAEMON_H

/*
 * How the vendor becomes a process of its own that holds on to nothing of the
 * one that started it: `x=$(proxify cmd)` ends when cmd does.
 */

/**
 * daemon_shed_preload() - start anew without our own library
 * @argv: of main()
 *
 * Started from a program that proxify started, the vendor would have the
 * library in it, and its connections to the host proxy would be sent to
 * itself. Returns if the library is not there.
 */
void daemon_shed_preload(char **argv);

/**
 * daemon_shed() - let go of what was inherited
 *
 * Closes every fd above stderr, fills those of the first three that are
 * closed, gives ignored signals their default action and all of them an empty
 * mask back, and sets the umask to 022.
 */
void daemon_shed(void);

/**
 * daemon_detach() - go on in a child without terminal
 * @log_file: what stderr becomes
 *
 * The caller's process ends in here with status 0. The child, in which this
 * returns, has a session of its own, the root directory, and /dev/null as
 * stdin and stdout.
 *
 * Return: 0 in the child; -1 in the caller's process if there is no child or
 * no log file, and a line on stderr says why.
 */
int daemon_detach(const char *log_file);

/** daemon_raise_fd_limit() - RLIMIT_NOFILE as high as it may be */
void daemon_raise_fd_limit(void);

#endif
