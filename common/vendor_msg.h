/* SPDX-License-Identifier: Apache-2.0 */
#ifndef COMMON_VENDOR_MSG_H
#define COMMON_VENDOR_MSG_H

/*
 * Messages between the preload library (and any other front-end) and
 * socket_vendor, over an AF_UNIX SOCK_SEQPACKET socket: one socket for each
 * socket of an application.
 *
 * Theory of operation: the gate
 *
 * The front-end connects to the vendor with SO_SNDBUF at its minimum, sends
 * one struct vendor_request, and puts that socket in place of the
 * application's TCP socket. While the request lies unread in the vendor's
 * receive queue the kernel charges it to the sender, and so reports the
 * application's fd as not writable: exactly a TCP socket in SYN_SENT. The
 * request is VENDOR_MSG_SIZE bytes long so that one of them fills the minimal
 * send buffer on every kernel (4608 bytes, of which POLLOUT needs 3/4 free).
 *
 * The vendor peeks the request (MSG_PEEK does not uncharge it), connects, and
 * sends one struct vendor_result, with the carrier's fd as SCM_RIGHTS if it
 * succeeded. Only then:
 *	success: it reads the request away. The fd becomes writable. The vendor
 *	         keeps its end open until the front-end's closes.
 *	failure: it closes its end with the request unread. The fd reports
 *	         POLLIN|POLLOUT|POLLERR|POLLHUP, as TCP does; the front-end
 *	         takes the pending ECONNRESET off with SO_ERROR and reads the
 *	         result.
 *
 * A peer of a uid that is not served gets a result of status EACCES and is
 * closed at once, perhaps before it sent its request: a send() that fails with
 * EPIPE has its result waiting.
 *
 * The front-end reads the result with MSG_PEEK, so that every duplicate of the
 * gate (dup, fork) can finish by itself; the fd in a peeked message is a new
 * one each time. Closing the gate before the result arrives cancels.
 *
 * Both structs hold no padding and are checked whole, by size first, before
 * anything acts on them; unused bytes are zero and are not looked at.
 */

#include "common/sockaddr.h"

#define VENDOR_MAGIC        0x70786679u /* "pxfy" */
#define VENDOR_VERSION      1
#define VENDOR_MSG_SIZE     1024
#define VENDOR_ENDPOINT_MAX 280
#define VENDOR_NAME_MAX     255

enum vendor_op {
	VENDOR_CONNECT = 1, /* dial @dst through the host proxy */
	VENDOR_PING = 2,    /* is a worker alive? answered with status 0 */
	VENDOR_PROBE = 3,   /* does the host proxy answer? status 0 or errno */
};

/**
 * struct vendor_request - what a front-end asks for
 * @magic, @version: VENDOR_MAGIC, VENDOR_VERSION
 * @op:       enum vendor_op
 * @size:     VENDOR_MSG_SIZE
 * @dst:      CONNECT: the remote; AF_UNSPEC with a port when @name counts
 * @source:   CONNECT: the local address asked for by bind(), or AF_UNSPEC
 * @timeout_ms: CONNECT: give up after so long, 0 for the vendor's default
 * @name:     CONNECT: NUL-terminated name, or empty
 * @endpoint: the host proxy as text, NUL-terminated; empty for the vendor's
 *            own
 */
struct vendor_request {
	uint32_t magic;
	uint16_t version;
	uint16_t op;
	uint32_t size;
	uint32_t timeout_ms;
	struct ip_port dst;
	struct ip_port source;
	char name[VENDOR_NAME_MAX + 1];
	char endpoint[VENDOR_ENDPOINT_MAX];
	uint8_t unused[424];
};
_Static_assert(sizeof(struct vendor_request) == VENDOR_MSG_SIZE, "wire size");

/**
 * struct vendor_result - the vendor's one answer
 * @status: 0, or the errno (positive) that connect() shall report
 * @remote: the peer as the application asked for it
 * @local:  the local address of the host's connection; AF_UNSPEC unless
 *          @status is 0
 *
 * Carries exactly one fd if a CONNECT succeeded, else none.
 */
struct vendor_result {
	uint32_t magic;
	uint16_t version;
	uint16_t op;
	uint32_t size;
	int32_t status;
	struct ip_port remote;
	struct ip_port local;
};
_Static_assert(sizeof(struct vendor_result) == 64, "wire size");

/** vendor_request_init() - zero @req and fill what every request has */
void vendor_request_init(struct vendor_request *req, enum vendor_op op);

/**
 * vendor_request_check() - is this a whole and valid request?
 * @req: as received
 * @len: bytes received; anything but VENDOR_MSG_SIZE is refused first
 *
 * Return: NULL, or what is wrong, fit for a log line.
 */
const char *vendor_request_check(const struct vendor_request *req, size_t len);

/** vendor_result_init() - zero @res and fill what every result has */
void vendor_result_init(
	struct vendor_result *res, enum vendor_op op, int status);

/**
 * vendor_result_check() - is this a whole and valid result?
 * @res:    as received
 * @len:    bytes received
 * @nr_fds: fds that came with it; a CONNECT with status 0 has one, others none
 *
 * Return: NULL, or what is wrong.
 */
const char *vendor_result_check(
	const struct vendor_result *res, size_t len, int nr_fds);

/**
 * vendor_path() - where the vendor's socket is
 * @buf:  filled, NUL-terminated
 * @size: of @buf; 108 bytes (sun_path) always suffice
 *
 * SOCKET_VENDOR_PATH if set, else /run/proxify/vendor.sock for root and
 * /tmp/proxify-UID/vendor.sock for others.
 *
 * Return: NULL, or what was expected of SOCKET_VENDOR_PATH (absolute, at most
 * 107 bytes).
 */
const char *vendor_path(char *buf, size_t size);

#endif
