/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_USER_H
#define COMMON_USER_H

#include <sys/types.h>

#define USER_EXPECTED "expected a uid, the name of a user, or any"

/**
 * user_parse() - read a user as options have it
 * @text: a uid below 2^32 - 1, or a name that this machine knows
 * @uid:  set on success
 *
 * Return: 0, or -1.
 */
int user_parse(const char *text, uid_t *uid);

#endif
