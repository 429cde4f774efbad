/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_VENDOR_CLIENT_H
#define PROXIFY_VENDOR_CLIENT_H

/*
 * The launcher's dealings with socket_vendor: start it, and ask it two
 * questions over its own protocol (common/vendor_msg.h).
 */

#include "common/vendor_msg.h"

/**
 * struct vendor_address - which vendor
 * @path:   its socket
 * @anyone: it may run as any user, because the caller's user chose the path.
 *          Otherwise it must be root's or our own: the default path is known
 *          to everybody, and in a folder where others may have been first
 */
struct vendor_address {
	const char *path;
	bool anyone;
};

/**
 * vendor_ask() - one question without a destination, and its answer
 * @vendor:   where it is, and whom it may belong to
 * @op:       VENDOR_PING or VENDOR_PROBE
 * @endpoint: the host proxy to ask about, as text, or "" for the vendor's
 * @key:      set to the answer's, if there is one; may be NULL
 * @timeout_ms: how long the vendor may take for it; the answer is awaited for
 *            a while more
 *
 * Return: the answer's status, 0 or a positive errno; or -1 and errno if there
 * was no answer: ENOENT or ECONNREFUSED when nobody listens, EACCES when we
 * are not served, EPERM when it is somebody else's, ETIMEDOUT, EPROTO.
 */
int vendor_ask(const struct vendor_address *vendor, enum vendor_op op,
	const char *endpoint, uint32_t timeout_ms, uint8_t *key);

/**
 * vendor_start() - run socket_vendor and wait until it has detached
 * @argv: its program and arguments, NULL-terminated
 *
 * Its stdin and stdout are /dev/null, its stderr is ours until it detaches.
 *
 * Return: 0 if it ended with status 0, else -1 and errno (of fork(), or
 * ECHILD: it has said why by itself, or was ended after a time limit).
 */
int vendor_start(char *const argv[]);

#endif
