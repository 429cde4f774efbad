/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_LOOPBACK_H
#define PROXIFY_LOOPBACK_H

/**
 * loopback_up() - bring the interface lo up, where it is not and we may
 *
 * In a fresh enclave it is down, and then even 127.0.0.1 is unreachable. The
 * kernel gives it its addresses by itself.
 *
 * Return: 0 if it is up now, or -1 and errno (EPERM for ordinary users, ENODEV
 * without a network stack).
 */
int loopback_up(void);

#endif
