/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/loopback.h"
#include "common/fd.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

int loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int ret;

	if (fd == -1)
		return -1;
	ret = ioctl(fd, SIOCGIFFLAGS, &request);
	if (ret == 0 && !(request.ifr_flags & IFF_UP)) {
		request.ifr_flags |= IFF_UP;
		ret = ioctl(fd, SIOCSIFFLAGS, &request);
	}
	closefd(&fd);
	return ret;
}
