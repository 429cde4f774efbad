/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/accept.h"

#include <errno.h>

enum accept_verdict accept_verdict(int err)
{
	switch (err) {
	case EAGAIN: return ACCEPT_EMPTY;
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM: return ACCEPT_SHORT;
	case EBADF:
	case EINVAL:
	case ENOTSOCK:
	case EOPNOTSUPP:
	case EFAULT: return ACCEPT_BROKEN;
	default:
		/* A connection that broke while it was queued, or an interrupt
		 * (accept(2)). */
		return ACCEPT_NEXT;
	}
}
