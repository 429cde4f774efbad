/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_ACCEPT_H
#define PROXY_ACCEPT_H

/*
 * What a failed accept() means for the next one. Level-triggered waiting on a
 * listening socket spins if accept() fails for a reason that stays, so each
 * reason has to be one of these.
 */

enum accept_verdict {
	ACCEPT_EMPTY,  /* nobody is waiting any more */
	ACCEPT_NEXT,   /* says nothing about the next one: go on */
	ACCEPT_SHORT,  /* no fd or memory: wait for some to be freed */
	ACCEPT_BROKEN, /* nothing that waiting would mend; must not spin */
};

/** accept_verdict() - by accept()'s errno */
enum accept_verdict accept_verdict(int err);

#endif
