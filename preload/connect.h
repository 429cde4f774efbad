/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_CONNECT_H
#define PRELOAD_CONNECT_H

#include <stdbool.h>
#include <sys/socket.h>

/** connect_is_ours() - would connect() take this through the host proxy? */
bool connect_is_ours(int fd, const struct sockaddr *addr, socklen_t len);

/** proxy_connect() - connect(2) on any fd, see connect.c */
int proxy_connect(int fd, const struct sockaddr *addr, socklen_t len);

#endif
