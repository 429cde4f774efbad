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
 * Theory of operation: listening
 *
 * bind() opens such a socket too, sends VENDOR_BIND and waits for the result;
 * when the host has reserved the port the socket takes the place of the
 * application's. It is the *control* of a listener and lives as long as any
 * duplicate of the application's fd does: when the last one is closed, however
 * it comes, the vendor sees the hang-up and lets the port go.
 *
 *	front-end			vendor
 *	BIND address, flags	->	reserve on the host
 *				<-	BIND status, real address, key
 *	LISTEN			->	open the pool and the loopback mirror
 *				<-	LISTEN status, when the host listens
 *				<-	ACCEPT peer, local, one fd: at any time
 *
 * An ACCEPT waits in the control's receive queue, so the fd is readable just
 * while there is something to accept, and of several processes that share it
 * one gets each connection. The vendor leaves further clients with the host
 * when a queue of the listener's backlog is unread.
 *
 * A control whose vendor died reports a hang-up. Whoever then calls accept()
 * opens a new one and sends REJOIN with the key that BIND gave: no answer is
 * awaited, ACCEPTs come when the host has the port again. Controls of the same
 * key, from several processes, are one listener.
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
	VENDOR_BIND = 4,    /* reserve @dst on the host */
	VENDOR_LISTEN = 5,  /* on the same socket: let clients come */
	VENDOR_ACCEPT = 6,  /* from the vendor: a client has come */
	VENDOR_REJOIN = 7,  /* BIND and LISTEN of a listener that @key names */
};

/* VENDOR_BIND and VENDOR_REJOIN: what the application's socket had set. */
enum vendor_bind_flag {
	VENDOR_V6ONLY = 1u << 0,    /* IPV6_V6ONLY: no IPv4 clients */
	VENDOR_REUSEPORT = 1u << 1, /* SO_REUSEPORT: may share the port */
	VENDOR_LOOPBACK = 1u << 2,  /* export on the host's loopback only */
};

#define VENDOR_KEY_LEN 16

/**
 * struct vendor_request - what a front-end asks for
 * @magic, @version: VENDOR_MAGIC, VENDOR_VERSION
 * @op:       enum vendor_op
 * @size:     VENDOR_MSG_SIZE
 * @dst:      CONNECT: the remote; AF_UNSPEC with a port when @name counts
 * @source:   CONNECT: the local address asked for by bind(), or AF_UNSPEC
 *            BIND, REJOIN: the address to listen on, port 0 for any
 * @timeout_ms: CONNECT: give up after so long, 0 for the vendor's default;
 *            BIND: wait so long for a host proxy that is not there, 0: do not
 * @name:     CONNECT: NUL-terminated name, or empty
 * @endpoint: the host proxy as text, NUL-terminated; empty for the vendor's
 *            own
 * @flags:    BIND, REJOIN: enum vendor_bind_flag
 * @backlog:  LISTEN, REJOIN: as listen(2) took it
 * @key:      REJOIN: the listener, as BIND's result named it
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
	uint32_t flags;
	int32_t backlog;
	uint8_t key[VENDOR_KEY_LEN];
	uint8_t unused[400];
};
_Static_assert(sizeof(struct vendor_request) == VENDOR_MSG_SIZE, "wire size");

/**
 * struct vendor_result - the vendor's one answer
 * @status: 0, or the errno (positive) that connect() shall report
 * @remote: CONNECT: the peer as the application asked for it; ACCEPT: the
 *          client, v4-mapped for an AF_INET6 listener
 * @local:  CONNECT: the local address of the host's connection; AF_UNSPEC
 *          unless @status is 0. BIND: the address with its real port. ACCEPT:
 *          the address that the client reached
 * @key:    BIND: names the listener in a REJOIN. PING: tells which DNS servers
 *          the vendor's stub asks, zero without a stub
 *
 * Carries exactly one fd if it is a CONNECT or ACCEPT with status 0, else none.
 */
struct vendor_result {
	uint32_t magic;
	uint16_t version;
	uint16_t op;
	uint32_t size;
	int32_t status;
	struct ip_port remote;
	struct ip_port local;
	uint8_t key[VENDOR_KEY_LEN];
};
_Static_assert(sizeof(struct vendor_result) == 80, "wire size");

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
