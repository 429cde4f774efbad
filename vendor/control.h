/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_CONTROL_H
#define VENDOR_CONTROL_H

/*
 * A control: the socket by which one process, or several that inherited it,
 * and the vendor speak of a listener (common/vendor_msg.h).
 */

#include "vendor/edge.h"
#include "vendor/listener.h"

enum control_state {
	CONTROL_BINDING,
	CONTROL_BOUND,
	CONTROL_OPENING,
	CONTROL_LISTENING,
	CONTROL_CLOSED,
};

/**
 * struct control - one socket of a front-end
 * @broken:  could not be written to; its hang-up is on its way
 * @fd:      SOCK_SEQPACKET, non-blocking
 * @backlog: how many ACCEPTs may lie unread, 1 to BACKLOG_MAX
 * @wait_until: BINDING: loop time up to which the host proxy may be away
 * @patience: BINDING, OPENING: the end of all patience
 */
struct control {
	uint32_t magic;
	enum control_state state;
	struct listener *listener;
	bool broken;
	int fd;
	int backlog;
	struct edge edge;
	ev_tstamp wait_until;
	ev_timer patience;
	struct list link;
	struct reap reap;
};

/**
 * control_new() - one more control
 * @listener: whose
 * @fd:       *fd is the control's own from now on, -1 then; it stays the
 *            caller's upon failure
 * @req:      BIND, which is answered when the port is there or not to be had,
 *            or REJOIN, which listens already
 *
 * Return: 0, or an errno.
 */
int control_new(
	struct listener *listener, int *fd, const struct vendor_request *req);

/** control_close() - hang up; the listener's last one ends the listener */
void control_close(struct control *c);

/** control_sweep() - close it if its front-end has hung up */
void control_sweep(struct control *c);

/**
 * control_outcome() - an attempt to have the port ended
 * @err, @away: as for listener_outcome()
 *
 * Answers it if it is BINDING, and closes it if that was an error.
 */
void control_outcome(struct control *c, int err, bool away);

/**
 * control_opened() - whoever connects to the port now is let in
 *
 * Answers the LISTEN of an OPENING control, which listens from now on.
 */
void control_opened(struct control *c);

/** control_arm() - watch for what its state and its export need */
void control_arm(struct control *c);

/** control_unread() - how many messages lie in its queue */
int control_unread(const struct control *c);

#endif
