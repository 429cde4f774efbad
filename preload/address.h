/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_ADDRESS_H
#define PRELOAD_ADDRESS_H

/*
 * Socket addresses to and from the application, as the kernel handles them.
 */

#include "common/sockaddr.h"

/**
 * address_take() - copy an address that connect(2) or bind(2) was given
 * @out:  filled, the rest zero
 * @addr, @len: as given
 *
 * Return: @len, or 0 where the kernel would say EFAULT or EINVAL; let it.
 */
socklen_t address_take(
	union sockaddr_any *out, const struct sockaddr *addr, socklen_t len);

/**
 * address_give() - hand out an address
 * @from:   AF_UNSPEC stands for the wildcard address and port 0
 * @family: of the application's socket: what AF_UNSPEC becomes
 * @addr:   filled, as far as there is room
 * @len:    room at @addr; set to what was needed
 */
void address_give(const struct ip_port *from, int family, struct sockaddr *addr,
	socklen_t *len);

#endif
