/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Calls that move data. On a connected socket they cost one load more than the
 * real ones; on a gate they settle it first; one that is bound or listens they
 * refuse, as TCP does: what its socket carries is the vendor's. What TCP does
 * and other streams do not is made good where a call asks for it:
 *
 * - an address in sendto() is ignored on a connected socket (unix and vsock:
 *   EISCONN, EOPNOTSUPP, after which it is sent without);
 * - recvfrom() and recvmsg() name no sender and touch no buffer for one;
 * - MSG_TRUNC throws bytes away and needs no buffer for them (unix: EFAULT,
 *   vsock: ENOMEM);
 * - MSG_ERRQUEUE, which unix streams take for nothing, never waits, and never
 *   takes data for an error;
 * - the end of the stream is 0, also after shutdown() on this side (vsock:
 *   ENOTCONN);
 * - MSG_WAITALL waits for more than the receive buffer holds (vsock: ENOMEM);
 * - MSG_OOB is EINVAL when there is no urgent data (vsock: EOPNOTSUPP);
 * - to receive nothing is EAGAIN when there is nothing (vsock: 0);
 * - who writes to a stream that is over gets SIGPIPE (vsock: EPIPE alone).
 */

#include "preload/connect.h"
#include "preload/descriptors.h"
#include "preload/gate.h"
#include "preload/pointer.h"
#include "preload/real.h"

#include <errno.h>
#include <signal.h>

/* Return -1 from the hook if a gate is not ready for data. */
#define SETTLE(fd, flags, wait)                                            \
 do {                                                                      \
  if (slot_may_be_gate(fd) && gate_before_io((fd), (flags), (wait)) == -1) \
   return -1;                                                              \
 } while (0)
#define SETTLE_RECV(fd, flags) SETTLE(fd, flags, GATE_WAIT_RECV)
#define SETTLE_SEND(fd, flags) SETTLE(fd, flags, GATE_WAIT_SEND)

/* ---- receiving ---- */

/* TCP names no sender: the peer is known. */
static void hide_sender(int fd, const void *name, socklen_t *len)
{
	const struct sockaddr *addr = name;
	struct found found;

	if (addr && len && *len >= sizeof(addr->sa_family) &&
		addr->sa_family == AF_UNIX && lookup(fd, &found))
		*len = 0;
}

static bool is_carrier(int fd)
{
	struct found found;

	return lookup(fd, &found) && found.rec.kind == RECORD_CARRIER;
}

/* Is there no sender to be named? Where the slot knows nothing of a carrier
 * yet, hide_sender() comes afterwards. */
static bool names_nobody(int fd, const void *name)
{
	return name && slot_known(fd) && is_carrier(fd);
}

/* No carrier queues errors, and no gate; and urgent data is TCP's alone.
 * Return: what TCP says when there is none of what @flags ask for, or 0. */
static int nothing_such(int fd, int flags)
{
	struct found found;

	if ((flags & MSG_ERRQUEUE) && lookup(fd, &found))
		return EAGAIN;
	return (flags & MSG_OOB) && is_carrier(fd) ? EINVAL : 0;
}

#define REFUSE_OTHER_DATA(fd, flags)                                           \
 do {                                                                          \
  int err_ = (flags) & (MSG_ERRQUEUE | MSG_OOB) ? nothing_such(fd, flags) : 0; \
  if (err_)                                                                    \
   return fail(err_);                                                          \
 } while (0)

/* What a receiving call returns for what the real one has returned. */
static ssize_t received(int fd, ssize_t rc)
{
	return rc == -1 && errno == ENOTCONN && is_carrier(fd) ? 0 : rc;
}

/* Was MSG_WAITALL or MSG_TRUNC too much for the kernel? vsock has ENOMEM for a
 * buffer that is none, too. */
static bool refused_flags(int fd, ssize_t rc, int flags)
{
	return rc == -1 &&
	       ((errno == ENOMEM && (flags & (MSG_WAITALL | MSG_TRUNC))) ||
		       (errno == EFAULT && (flags & MSG_TRUNC))) &&
	       is_carrier(fd);
}

/* MSG_TRUNC by hand: wait for something, throw away what there is. */
static ssize_t discard(int fd, size_t n, int flags)
{
	char sink[4096];
	size_t gone = 0;
	ssize_t got;

	do {
		size_t piece =
			n - gone < sizeof(sink) ? n - gone : sizeof(sink);

		got = received(fd, real()->recv(fd, sink, piece, flags));
		if (got > 0)
			gone += (size_t)got;
		flags |= MSG_DONTWAIT;
	} while (got > 0 && gone < n && !(flags & MSG_PEEK));
	return gone ? (ssize_t)gone : got;
}

/* MSG_WAITALL by hand. What is only looked at, or not to be waited for, cannot
 * be more than one call gives. */
static ssize_t recv_all(int fd, void *buf, size_t n, int flags)
{
	bool once = flags & (MSG_PEEK | MSG_DONTWAIT);
	size_t have = 0;
	ssize_t rc;

	do {
		rc = received(fd,
			real()->recv(fd, (char *)buf + have, n - have, flags));
		if (rc > 0)
			have += (size_t)rc;
	} while (rc > 0 && have < n && !once);
	return have > 0 ? (ssize_t)have : rc;
}

static bool is_vsock(int fd)
{
	return socket_int(fd, SO_DOMAIN) == AF_VSOCK && is_carrier(fd);
}

/* A recv() of no bytes, as TCP has it: it looks whether there are any. */
static ssize_t recv_nothing(int fd, int flags)
{
	char byte;
	ssize_t rc = received(fd,
		real()->recv(fd, &byte, 1, MSG_PEEK | (flags & MSG_DONTWAIT)));

	/* before 5.5 there is no way to look */
	return rc > 0 || (rc == -1 && errno == EOPNOTSUPP) ? 0 : rc;
}

static ssize_t recv_by_hand(int fd, void *buf, size_t n, int flags)
{
	int plain = flags & ~(MSG_WAITALL | MSG_TRUNC);

	return flags & MSG_TRUNC ? discard(fd, n, plain)
				 : recv_all(fd, buf, n, plain);
}

static ssize_t recv_vectors_by_hand(int fd, struct msghdr *msg, int flags)
{
	ssize_t total = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++) {
		struct iovec *iov = &msg->msg_iov[i];
		ssize_t rc =
			recv_by_hand(fd, iov->iov_base, iov->iov_len, flags);

		if (rc == -1 && total == 0)
			return -1;
		total += rc == -1 ? 0 : rc;
		if (rc == -1 || (size_t)rc < iov->iov_len)
			break;
	}
	msg->msg_namelen = 0;
	msg->msg_controllen = 0;
	msg->msg_flags = 0;
	return total;
}

EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	SETTLE_RECV(fd, 0);
	return received(fd, real()->read(fd, buf, n));
}

EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t size)
{
	SETTLE_RECV(fd, 0);
	return received(fd, real()->__read_chk
				    ? real()->__read_chk(fd, buf, n, size)
				    : real()->read(fd, buf, n));
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int nr)
{
	SETTLE_RECV(fd, 0);
	return received(fd, real()->readv(fd, iov, nr));
}

/* recv() of a socket that is settled. */
static ssize_t recv_flat(int fd, void *buf, size_t n, int flags)
{
	ssize_t rc = received(fd, real()->recv(fd, buf, n, flags));

	if (n == 0 && rc == 0 && is_vsock(fd))
		return recv_nothing(fd, flags);
	return refused_flags(fd, rc, flags) ? recv_by_hand(fd, buf, n, flags)
					    : rc;
}

EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	REFUSE_OTHER_DATA(fd, flags);
	SETTLE_RECV(fd, flags);
	return recv_flat(fd, buf, n, flags);
}

EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags)
{
	/* Where it finds the buffer too small, the real one does not return. */
	if (n > size && real()->__recv_chk)
		return real()->__recv_chk(fd, buf, n, size, flags);
	return recv(fd, buf, n, flags);
}

EXPORT ssize_t recvfrom(int fd, void *restrict buf, size_t n, int flags,
	struct sockaddr *restrict addr, socklen_t *restrict len)
{
	ssize_t raw, rc;

	REFUSE_OTHER_DATA(fd, flags);
	SETTLE_RECV(fd, flags);
	if (len && !pointer_is_wild(len) && names_nobody(fd, addr)) {
		rc = recv_flat(fd, buf, n, flags);
		if (rc != -1)
			*len = 0;
		return rc;
	}
	raw = real()->recvfrom(fd, buf, n, flags, addr, len);
	rc = received(fd, raw);
	if (refused_flags(fd, rc, flags))
		rc = recv_by_hand(fd, buf, n, flags);
	else if (n == 0 && rc == 0 && is_vsock(fd))
		rc = recv_nothing(fd, flags);
	if (raw != -1)
		hide_sender(fd, addr, len);
	else if (rc != -1 && addr && len)
		*len = 0;
	return rc;
}

EXPORT ssize_t __recvfrom_chk(int fd, void *restrict buf, size_t n, size_t size,
	int flags, struct sockaddr *restrict addr, socklen_t *restrict len)
{
	if (n > size && real()->__recvfrom_chk)
		return real()->__recvfrom_chk(
			fd, buf, n, size, flags, addr, len);
	return recvfrom(fd, buf, n, flags, addr, len);
}

/* recvmsg() of a socket that is settled. */
static ssize_t recv_vectors(int fd, struct msghdr *msg, int flags)
{
	ssize_t raw = real()->recvmsg(fd, msg, flags);
	ssize_t rc = received(fd, raw);

	if (refused_flags(fd, rc, flags))
		return recv_vectors_by_hand(fd, msg, flags);
	if (rc != -1 && raw == -1)
		msg->msg_namelen = msg->msg_controllen = 0;
	return rc;
}

static ssize_t recv_vectors_unnamed(int fd, struct msghdr *msg, int flags)
{
	struct msghdr plain = *msg;
	ssize_t rc;

	plain.msg_name = NULL;
	plain.msg_namelen = 0;
	rc = recv_vectors(fd, &plain, flags);
	if (rc != -1) {
		msg->msg_namelen = 0;
		msg->msg_controllen = plain.msg_controllen;
		msg->msg_flags = plain.msg_flags;
	}
	return rc;
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	ssize_t rc;

	REFUSE_OTHER_DATA(fd, flags);
	SETTLE_RECV(fd, flags);
	if (!msg || pointer_is_wild(msg))
		return real()->recvmsg(fd, msg, flags);
	if (names_nobody(fd, msg->msg_name))
		return recv_vectors_unnamed(fd, msg, flags);
	rc = recv_vectors(fd, msg, flags);
	if (rc != -1)
		hide_sender(fd, msg->msg_name, &msg->msg_namelen);
	return rc;
}

EXPORT int recvmmsg(int fd, struct mmsghdr *vec, unsigned int nr, int flags,
	struct timespec *timeout)
{
	int rc;

	REFUSE_OTHER_DATA(fd, flags);
	SETTLE_RECV(fd, flags);
	rc = real()->recvmmsg(fd, vec, nr, flags, timeout);
	for (int i = 0; i < rc; i++) {
		struct msghdr *msg = &vec[i].msg_hdr;

		if (msg->msg_name)
			hide_sender(fd, msg->msg_name, &msg->msg_namelen);
	}
	return rc;
}

/* ---- sending ---- */

/* The kernel has done it for every other family. */
static void raise_sigpipe(int fd)
{
	if (!is_vsock(fd))
		return;
	raise(SIGPIPE);
	errno = EPIPE;
}

/* What a sending call returns for what the real one has returned. */
static ssize_t sent(int fd, ssize_t rc, int flags)
{
	if (rc == -1 && errno == EPIPE && !(flags & MSG_NOSIGNAL))
		raise_sigpipe(fd);
	return rc;
}

/* Did a carrier refuse an address that TCP would have ignored? */
static bool refused_name(int fd, ssize_t rc, const void *name)
{
	struct found found;

	return rc == -1 && name && (errno == EISCONN || errno == EOPNOTSUPP) &&
	       lookup(fd, &found);
}

/* tcp(7): MSG_FASTOPEN connects and sends. Is that for us to do? */
static bool wants_fast_open(int fd, int flags, const void *name, socklen_t len)
{
	struct found found;

	return (flags & MSG_FASTOPEN) && name &&
	       (connect_is_ours(fd, name, len) ||
		       (slot_known(fd) && lookup(fd, &found)));
}

EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	SETTLE_SEND(fd, 0);
	return sent(fd, real()->write(fd, buf, n), 0);
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int nr)
{
	SETTLE_SEND(fd, 0);
	return sent(fd, real()->writev(fd, iov, nr), 0);
}

EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	SETTLE_SEND(fd, flags);
	return sent(fd, real()->send(fd, buf, n, flags), flags);
}

EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags,
	const struct sockaddr *addr, socklen_t len)
{
	int saved = errno;
	ssize_t rc;

	if (wants_fast_open(fd, flags, addr, len)) {
		if (proxy_connect(fd, addr, len) == -1)
			return -1;
		flags &= ~MSG_FASTOPEN;
	}
	SETTLE_SEND(fd, flags);
	errno = saved;
	rc = real()->sendto(fd, buf, n, flags, addr, len);
	if (!refused_name(fd, rc, addr))
		return sent(fd, rc, flags);
	errno = saved;
	return sent(fd, real()->send(fd, buf, n, flags), flags);
}

static ssize_t send_without_name(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr plain = *msg;

	plain.msg_name = NULL;
	plain.msg_namelen = 0;
	return real()->sendmsg(fd, &plain, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	int saved = errno;
	ssize_t rc;

	if (!msg || pointer_is_wild(msg))
		return real()->sendmsg(fd, msg, flags);
	if (wants_fast_open(fd, flags, msg->msg_name, msg->msg_namelen)) {
		if (proxy_connect(fd, msg->msg_name, msg->msg_namelen) == -1)
			return -1;
		flags &= ~MSG_FASTOPEN;
	}
	SETTLE_SEND(fd, flags);
	tag_passed_fds(msg);
	errno = saved;
	rc = real()->sendmsg(fd, msg, flags);
	if (!refused_name(fd, rc, msg->msg_name))
		return sent(fd, rc, flags);
	errno = saved;
	return sent(fd, send_without_name(fd, msg, flags), flags);
}

/* Return: as sendmmsg(2). */
static int send_one_by_one(
	int fd, struct mmsghdr *vec, unsigned int nr, int flags)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		ssize_t n = sendmsg(fd, &vec[i].msg_hdr, flags);

		if (n == -1)
			break;
		vec[i].msg_len = (unsigned int)n;
		flags &= ~MSG_FASTOPEN;
	}
	return i || nr == 0 ? (int)i : -1;
}

EXPORT int sendmmsg(int fd, struct mmsghdr *vec, unsigned int nr, int flags)
{
	int saved = errno;
	int rc;

	if (nr == 0 || !vec || pointer_is_wild(vec))
		return real()->sendmmsg(fd, vec, nr, flags);
	if (flags & MSG_FASTOPEN)
		return send_one_by_one(fd, vec, nr, flags);
	SETTLE_SEND(fd, flags);
	for (unsigned int i = 0; i < nr; i++)
		tag_passed_fds(&vec[i].msg_hdr);
	rc = real()->sendmmsg(fd, vec, nr, flags);
	if (!refused_name(fd, rc, vec[0].msg_hdr.msg_name))
		return (int)sent(fd, rc, flags);
	errno = saved;
	return send_one_by_one(fd, vec, nr, flags); /* which is rare */
}

EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t n)
{
	SETTLE_SEND(out, 0);
	return sent(out, real()->sendfile(out, in, offset, n), 0);
}

EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t n)
{
	SETTLE_SEND(out, 0);
	return sent(out,
		real()->sendfile64 ? real()->sendfile64(out, in, offset, n)
				   : real()->sendfile(out, in, offset, n),
		0);
}

EXPORT ssize_t splice(int in, off64_t *in_offset, int out, off64_t *out_offset,
	size_t n, unsigned int flags)
{
	SETTLE_RECV(in, flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);
	SETTLE_SEND(out, flags & SPLICE_F_NONBLOCK ? MSG_DONTWAIT : 0);
	return sent(out,
		real()->splice(in, in_offset, out, out_offset, n, flags), 0);
}
