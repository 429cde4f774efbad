/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_LISTEN_H
#define PRELOAD_LISTEN_H

/**
 * reserve_deferred() - reserve the port that a bind() to port 0 put off
 * @fd: any fd; those that put nothing off are left alone
 *
 * Return: 0, or -1 and an errno of bind(2).
 */
int reserve_deferred(int fd);

#endif
