/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PRELOAD_GATE_H
#define PRELOAD_GATE_H

/*
 * Connecting through the vendor.
 *
 * Theory of operation
 *
 * Every connect() that leaves the enclave asks the vendor for a connection
 * over a socket of its own, the gate (common/vendor_msg.h says why a gate is
 * not writable until the remote has answered).
 *
 * A non-blocking connect() puts the gate behind the application's fd and
 * returns EINPROGRESS. The application waits for writability with whatever it
 * likes and then calls something: getsockopt(SO_ERROR), connect(), read(),
 * write()... That call settles the gate: it takes the result and, if there is
 * a connection, puts the carrier behind the fd. After that the library is out
 * of the way.
 *
 * A blocking connect() waits on the gate inside the call, and puts the
 * carrier behind the fd only when it has it: a failed attempt leaves the
 * application's socket exactly as it was. The wait is one recvmsg(), so that a
 * signal does what it does to TCP: with SA_RESTART the kernel goes on waiting,
 * without it the call returns EINTR and the attempt continues in the
 * background, with the gate behind the fd, as after EINPROGRESS. SO_SNDTIMEO
 * likewise (EINPROGRESS). Later calls that find the gate undecided wait for it
 * in the same way, each with its own time limit. This is why even blocking
 * attempts go through the vendor: with the handshake in this process nobody
 * could carry on with it after EINTR. Another thread's shutdown() finds the
 * gate through the slot and ends the wait (ECONNRESET, as TCP). Where no vendor
 * answers, a blocking connect() does the handshake itself (direct.h), and
 * nobody carries on: a signal or SO_SNDTIMEO ends the attempt.
 *
 *	socket behind the fd	what it was		leaves by
 *	kernel TCP		never converted		connect()
 *	gate			EINPROGRESS, EINTR	settling
 *	carrier			connected		close()
 *	fresh kernel TCP	a failure was reported	connect() again
 *
 * A gate whose attempt failed becomes a TCP socket again once the error has
 * been reported, so that the application may try again on the same fd.
 */

#include "preload/lookup.h"

enum gate_state {
	GATE_NONE,    /* not a gate: nothing to do */
	GATE_PENDING, /* still connecting; or interrupted while waiting */
	GATE_OPEN,    /* connected, and the carrier is now behind the fd */
	GATE_FAILED,  /* the attempt failed */
};

/* What gate_settle() shall do with a gate that is not decided, or failed. */
enum gate_wish {
	GATE_LOOK,      /* do not wait, and leave an error for later */
	GATE_TAKE,      /* do not wait, take the error */
	GATE_WAIT_RECV, /* wait, up to SO_RCVTIMEO, and take the error */
	GATE_WAIT_SEND, /* the same with SO_SNDTIMEO */
};

/**
 * gate_connect() - connect a TCP socket of the application's through the vendor
 * @fd:     an unconnected TCP socket of the kernel's
 * @family: its domain, AF_INET or AF_INET6
 * @dst:    the destination as given
 *
 * Return: as connect(2).
 */
int gate_connect(int fd, int family, const struct ip_port *dst);

/**
 * gate_settle() - take the result of an attempt, if there is one
 * @fd:   an fd for which slot_may_be_gate() holds
 * @wish: see above
 * @err:  set for GATE_FAILED to the errno of the attempt, for GATE_PENDING to
 *        EAGAIN or EINTR
 *
 * A vendor that dies is ECONNRESET, one that talks nonsense EPROTO. EMFILE is
 * a failure that may be over the next time, and the gate stays.
 *
 * errno is left alone.
 */
enum gate_state gate_settle(int fd, enum gate_wish wish, int *err);

/**
 * gate_interrupt() - end a blocking connect() in another thread
 * @fd: a TCP socket of the kernel's
 *
 * Return: whether one was waiting; it returns ECONNRESET.
 */
bool gate_interrupt(int fd);

/**
 * gate_before_io() - settle before a call that moves data
 * @fd:    an fd for which slot_may_be_gate() holds
 * @flags: of send(2) and recv(2); MSG_DONTWAIT is heeded, and O_NONBLOCK
 * @wait:  GATE_WAIT_RECV or GATE_WAIT_SEND, where neither is set
 *
 * Return: 0 to go on with the real call, or -1 and the errno that TCP gives:
 * EAGAIN while connecting, EINTR, or the error of the attempt; ENOTCONN or
 * EPIPE, with its signal, for a socket that is bound or listens.
 */
int gate_before_io(int fd, int flags, enum gate_wish wait);

#endif
