/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RESOLV_LO_H
#define RESOLV_LO_H

/*
 * Addresses on the loopback interface, by rtnetlink (rtnetlink(7)).
 *
 * Theory of operation
 *
 * In an enclave `lo` is all there is, and two things about names need more on
 * it than 127.0.0.1 and ::1:
 *
 * - A resolv.conf that names 10.0.0.2 works as it stands if 10.0.0.2 is an
 *   address of this machine, with the stub on its port 53.
 *
 * - getaddrinfo() with AI_ADDRCONFIG asks which families the machine has an
 *   address of, and glibc does not count 127.0.0.1 and ::1. With neither
 *   family it looks up both when asked for any, but fails at once, without a
 *   query, when asked for one ("wget -4", dns.lookup with a family), even for
 *   "127.0.0.1" as text. With an address of *one* family (say, that 10.0.0.2)
 *   it looks up that one only, and names that have only the other are gone.
 *   So both families get an address.
 *
 * The two are addresses that the registries reserve for just this, being
 * nobody's: 192.0.0.8 is the "IPv4 dummy address" (RFC 7600), 100:0:0:1::/64
 * the "dummy IPv6 prefix" (RFC 9780). A private address might be somebody's
 * server, which the enclave would then look for on its own loopback.
 *
 * An address on `lo` is no route: connecting to any other address still fails
 * with ENETUNREACH for programs that are not covered.
 */

#include "common/sockaddr.h"

#define LO_DUMMY_V4 "192.0.0.8"
#define LO_DUMMY_V6 "100:0:0:1::1"

/**
 * lo_add_address() - put an address on `lo`, for itself alone (/32, /128)
 * @addr: IPv4 or IPv6; port and scope are not looked at
 *
 * An address that is there already is fine.
 *
 * Return: 0, or -1 and errno: EPERM without CAP_NET_ADMIN, EAFNOSUPPORT or
 * EACCES where the kernel has no or disabled IPv6, ENODEV without `lo`.
 */
int lo_add_address(const struct ip_port *addr);

/**
 * lo_add_dummies() - make AI_ADDRCONFIG count both families
 *
 * A kernel without IPv6 gets IPv4 alone, which is the truth there.
 *
 * Return: 0, or -1 and errno of lo_add_address().
 */
int lo_add_dummies(void);

/** lo_is_local() - can sockets of this machine have the address (port aside)?
 */
bool lo_is_local(const struct ip_port *addr);

/**
 * lo_leads_out() - would packets to the address leave this machine?
 * @addr: any; its port is not looked at
 *
 * That is, there is a route to it and the route is not by way of `lo`. Nothing
 * is sent.
 */
bool lo_leads_out(const struct ip_port *addr);

/** lo_has_way_out() - is there a route to the world, in either family? */
bool lo_has_way_out(void);

#endif
