/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_EXPORTS_H
#define PROXY_EXPORTS_H

/*
 * All exported ports of this host, and who may have which.
 *
 * Theory of operation
 *
 * One thread. All exports live on one event loop, so that a port has one queue
 * of clients and one of standby connections, a port number is compared with
 * every other, and nothing is locked. Little is done there: accept, one reply,
 * and the pair goes to whatever thread is to move its bytes.
 *
 * A request names the enclave's port; bind_policy says which of the host's it
 * is and whether it may be used. Then exports are compared: the kernel does
 * not tell apart what is ours (see host_port.c). Two exports may have the same
 * port of the host only if they have no family in common. A request with the
 * key of the export that is there adds to it, if it is for the same families.
 *
 * Before a port is refused because of an export, the owners of that are looked
 * at: a server that was killed and started again may be faster than the news
 * of its death.
 */

#include "proxy/export.h"

struct exports;

/**
 * exports_new() - no exports yet
 * @loop, @watches, @reaper: of the thread that they will live on
 * @policy, @budget: outlive them
 * @ops, @arg: whom they report to
 *
 * Return: NULL and errno ENOMEM.
 */
struct exports *exports_new(struct ev_loop *loop, struct watch_set *watches,
	struct reaper *reaper, const struct bind_policy *policy,
	struct fd_budget *budget, const struct export_ops *ops, void *arg);

/** exports_close() - end all exports at once and take no more */
void exports_close(struct exports *x);

/** exports_free() - after exports_close(); before the reaper is stopped */
void exports_free(struct exports *x);

/** exports_resume() - there may be fds again: accept if that had to stop */
void exports_resume(struct exports *x);

/** exports_nr() - how many there are */
size_t exports_nr(const struct exports *x);

/**
 * exports_request() - serve a BIND request
 * @dst:  as received: 0.0.0.0, ::, or a name of common/hold_name.h; and a port
 * @conn: the connection it came on; taken over on success, with the
 *        FDS_PER_CONNECTION that it has in the budget
 * @why:  set on failure, for the log
 *
 * A plain request with an IPv4 address is for clients of both families: that
 * is what its sender, which knows no other form, had from the server that it
 * was written for, and the second reply has room for both. One with an IPv6
 * address is for IPv6 alone.
 *
 * Return: SOCKS5_SUCCEEDED, and the reply is on its way or already followed by
 * the second one, or what to refuse with: see common/hold_name.h.
 */
enum socks5_reply exports_request(struct exports *x,
	const struct socks5_addr *dst, const struct member_conn *conn,
	const char **why);

#endif
