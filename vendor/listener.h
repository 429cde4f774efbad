/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_LISTENER_H
#define VENDOR_LISTENER_H

/*
 * An application's listener: what one bind() made, with one control or more
 * (vendor/control.h), and the port that it has.
 */

#include "common/vendor_msg.h"
#include "vendor/export.h"

/**
 * struct listener - what one bind() made
 * @key:    names it in a REJOIN
 * @addr:   as asked for, with its real port as soon as that is known
 * @v6only, @loopback, @reuseport: as asked for
 * @uid:    whose it is
 * @backlog: largest of its controls'
 * @export: its port; NULL while it waits for one (REJOIN only)
 * @ep:     of REJOIN: the host proxy to have the port from
 * @again:  while it waits: the pause before it looks again
 * @pause:  the last such pause in seconds
 * @controls: of struct control
 * @link:   in the set of all listeners
 * @export_link: among those of @export
 */
struct listener {
	uint32_t magic;
	struct listeners *set;
	uint8_t key[VENDOR_KEY_LEN];
	struct ip_port addr;
	bool v6only;
	bool loopback;
	bool reuseport;
	uid_t uid;
	int backlog;
	struct export *export;
	struct endpoint ep;
	ev_timer again;
	double pause;
	struct list controls;
	struct list link;
	struct list export_link;
	struct reap reap;
};

/**
 * struct listeners - the set of all
 * @env:      shared with the exports
 * @attach:   gives a listener without port its export; called again after
 *            pauses until it does
 * @max_controls: limit of @nr_controls
 * @nr_listeners, @nr_controls: how many there are
 */
struct listeners {
	struct inbound_env *env;
	int (*attach)(struct listener *listener);
	struct list all;
	size_t max_controls;
	size_t nr_listeners;
	size_t nr_controls;
};

/**
 * listener_new() - a listener without port and control
 * @set: where it is counted
 * @req: BIND or REJOIN, checked
 * @ep:  the host proxy, copied
 * @uid: of the peer
 *
 * Return: the listener, or NULL and ENOMEM.
 */
struct listener *listener_new(struct listeners *set,
	const struct vendor_request *req, const struct endpoint *ep, uid_t uid);

/** listener_end() - close its controls and leave its port */
void listener_end(struct listener *listener);

/** listener_wait() - have @set->attach called after a pause */
void listener_wait(struct listener *listener);

/** listener_leave() - its last control has gone: leave its port, end */
void listener_leave(struct listener *listener);

/** listener_sweep() - close the controls whose front-end has hung up */
void listener_sweep(struct listener *listener);

/** listener_is_listening() - does any of its controls, or will at once? */
bool listener_is_listening(const struct listener *listener);

/**
 * listener_outcome() - an attempt to have the port ended
 * @port: the port, if @err is 0
 * @err:  0 or what bind() shall report
 * @away: it is the host proxy that is not there
 *
 * Answers the controls that wait for it; those that are ready to wait for the
 * host proxy go on waiting if it is @away. May end the listener.
 */
void listener_outcome(
	struct listener *listener, uint16_t port, int err, bool away);

/* In the order in which one counts more than another of several listeners. */
enum offer {
	OFFER_TAKEN, /* sent; the fd is still the caller's to close */
	OFFER_SHORT, /* the kernel is short of something: try again soon */
	OFFER_FULL,  /* no control has room: wait until one has */
	OFFER_NONE,  /* nobody listens */
};

/** listener_offer() - send a client to the control with the least to do */
enum offer listener_offer(
	struct listener *listener, const struct client *client);

/**
 * listener_opened() - whoever connects to the port now is let in
 *
 * Return: whether there was an OPENING control. There may be another one.
 */
bool listener_opened(struct listener *listener);

/** listener_arm() - have its controls watch for what its export needs */
void listener_arm(struct listener *listener);

#endif
