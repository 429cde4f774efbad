/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/peer.h"

#include "common/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void format_unix(int fd, char *buf, size_t size)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		snprintf(buf, size, "unix pid %d uid %u", (int)cred.pid,
			cred.uid);
	else
		snprintf(buf, size, "unix");
}

const char *peer_format(int fd, char *buf, size_t size)
{
	union endpoint_sockaddr any;
	socklen_t len = sizeof(any);
	struct ip_port addr;
	int saved = errno;

	snprintf(buf, size, "-");
	any.sa.sa_family = AF_UNSPEC;
	if (getpeername(fd, &any.sa, &len) == -1)
		goto out;
	if (any.sa.sa_family == AF_UNIX)
		format_unix(fd, buf, size);
	else if (any.sa.sa_family == AF_VSOCK)
		snprintf(buf, size, "vsock:%u:%u", any.vm.svm_cid,
			any.vm.svm_port);
	else if (ip_port_from_sockaddr(&addr, &any.sa, len) == 0) {
		ip_port_unmap(&addr);
		ip_port_format(&addr, buf, size);
	}
out:
	errno = saved;
	return buf;
}

bool peer_identify(int fd, struct peer_id *out)
{
	union endpoint_sockaddr any;
	socklen_t len = sizeof(any);
	struct ucred cred;
	struct ip_port addr;

	memset(out, 0, sizeof(*out));
	memset(&any, 0, sizeof(any));
	if (getpeername(fd, &any.sa, &len) == -1)
		return false;
	out->family = any.sa.sa_family;
	if (any.sa.sa_family == AF_UNIX) {
		len = sizeof(cred);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1)
			return false;
		out->number = cred.uid;
	} else if (any.sa.sa_family == AF_VSOCK) {
		out->number = any.vm.svm_cid;
	} else if (ip_port_from_sockaddr(&addr, &any.sa, len) == 0) {
		ip_port_unmap(&addr);
		out->family = addr.family;
		memcpy(out->ip, addr.ip, sizeof(out->ip));
	} else {
		return false;
	}
	return true;
}
