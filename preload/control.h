/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_CONTROL_H
#define PRELOAD_CONTROL_H

/*
 * The control of a listener: the socket to the vendor that stands for a bound
 * or listening socket (common/vendor_msg.h).
 */

#include "preload/lookup.h"

/**
 * vendor_socket() - a close-on-exec SEQPACKET socket connected to the vendor
 * @patient: whether the caller may wait for room in the vendor's backlog; one
 *           that may not does so for some milliseconds only
 *
 * Return: the socket, or -1: ENOENT, ECONNREFUSED or EACCES where there is no
 * vendor for us, or only another user's; ETIMEDOUT (@patient) or ENOBUFS where
 * it is too busy.
 */
int vendor_socket(bool patient);

/** no_vendor() - does this errno of vendor_socket() mean that there is none? */
bool no_vendor(int err);

/**
 * control_bind() - reserve a port and put the control behind the fd
 * @fd:  an unconnected TCP socket of the kernel's
 * @dst: where to listen; port 0 for any
 *
 * Return: 0, or -1 and an errno of bind(2): EADDRINUSE, EACCES,
 * EADDRNOTAVAIL; ENETDOWN if the host proxy or the vendor is not there.
 */
int control_bind(int fd, const struct ip_port *dst);

/**
 * control_listen() - let clients come
 * @fd:      a control, bound or already listening
 * @found:   its record; updated
 * @backlog: of listen(2)
 *
 * Processes that share a bound control may all call it, at the same time too.
 *
 * Return: 0, or -1 and an errno of listen(2).
 */
int control_listen(int fd, struct found *found, int backlog);

/**
 * control_rejoin() - a listener's vendor died: put a new control behind the fd
 * @fd:    the fd with the dead one
 * @found: its record; updated
 *
 * Return: 0, or -1 and an errno of vendor_socket().
 */
int control_rejoin(int fd, struct found *found);

#endif
