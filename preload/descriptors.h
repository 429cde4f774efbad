/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_DESCRIPTORS_H
#define PRELOAD_DESCRIPTORS_H

#include <sys/socket.h>

/** tag_for_leaving() - the socket may go to another program: give it its
 * addresses along. Other sockets are left alone. Keeps errno */
void tag_for_leaving(int fd);

/** tag_passed_fds() - the same for every fd that a message passes */
void tag_passed_fds(const struct msghdr *msg);

#endif
