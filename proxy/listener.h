/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_LISTENER_H
#define PROXY_LISTENER_H

/*
 * Listening sockets on any kind of endpoint. Opened once at start, by the main
 * thread, and shared by all workers, who only accept on @fd.
 *
 * Unix sockets. A socket file outlives a killed server, and bind() refuses
 * while it exists. So a file that nobody listens on is replaced, and one that
 * somebody does is left alone and reported as in use. Two servers starting at
 * once must not each take the other's fresh socket for a stale one: the check,
 * bind() and listen() are done under a lock on the directory. At the end the
 * file is removed, if it still is the one that was made.
 */

#include "common/endpoint.h"

#include <sys/stat.h>

/**
 * struct listener - an endpoint that is listened on
 * @ep:     with the port that the kernel chose, if it was asked to
 * @text:   @ep for log lines
 * @fd:     listening, non-blocking, CLOEXEC; -1 when closed
 * @family: of @fd
 * @dev, @ino: of the socket file
 */
struct listener {
	struct endpoint ep;
	char text[ENDPOINT_STRLEN];
	int fd;
	sa_family_t family;
	dev_t dev;
	ino_t ino;
};

/**
 * listener_check() - can this kind of endpoint be listened on?
 *
 * Return: NULL, or what was expected.
 */
const char *listener_check(const struct endpoint *ep);

/**
 * struct listener_options - what is not in the endpoint
 * @transparent: take connections to foreign addresses (TPROXY)
 * @share: bind although another listener of this user has the TCP port, if
 *         that one allows it (listener_share()); to be taken back after
 */
struct listener_options {
	bool transparent;
	bool share;
};

/**
 * listener_try() - listen, and say nothing
 * @listener: filled; fd -1 on failure
 * @ep:       passes listener_check(). A TCP name is looked up, blocking
 * @options:  see there
 *
 * Return: NULL, or why not.
 */
const char *listener_try(struct listener *listener, const struct endpoint *ep,
	const struct listener_options *options);

/**
 * listener_share() - allow or forbid others of this user on this TCP port
 *
 * For the moment in which one listener follows another on an overlapping
 * address (127.0.0.1 and then any).
 */
void listener_share(const struct listener *listener, bool on);

/**
 * listener_is_reached() - does its address still lead to it?
 *
 * Return: false if it is a unix socket whose file is gone or another one.
 */
bool listener_is_reached(const struct listener *listener);

/** listener_transparent() - the same on a listener. Return: 0 or an errno */
int listener_transparent(const struct listener *listener);

/**
 * listener_open() - listen
 * @listener: filled; fd -1 on failure
 * @ep:       passes listener_check(). A TCP name is looked up, blocking
 *
 * Return: 0, or -1 and an error line has been logged.
 */
int listener_open(struct listener *listener, const struct endpoint *ep);

/** listener_close() - stop listening, remove the socket file */
void listener_close(struct listener *listener);

#endif
