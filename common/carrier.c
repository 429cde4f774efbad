/* SPDX-License-Identifier: Apache-2.0 */
#include "common/carrier.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#define RETRY_BUSY    2000 /* ms */
#define RETRY_RESET   250  /* ms */
#define RETRY_TIMEOUT 6000 /* ms */

#define PAUSE_FIRST 2000  /* us */
#define PAUSE_LAST  50000 /* us */

/* The kernel's own limit for one vsock connect is 2 s, too short for a host
 * under load. */
#define VSOCK_CONNECT_TIMEOUT 5 /* seconds */

/* What the other end may have under way: the kernel's 256 KiB are too few for
 * bulk data, and recent ones even reset a connection when many small packets
 * fill them. Memory is taken only for what is queued. */
#define VSOCK_WINDOW (1024ULL * 1024) /* bytes */

unsigned carrier_retry_ms(enum endpoint_kind kind, int err, bool silent)
{
	switch (err) {
	case EAGAIN: return RETRY_BUSY;
	case EPIPE:
	case ECONNRESET: return silent ? RETRY_RESET : 0;
	case ETIMEDOUT: return kind == ENDPOINT_VSOCK ? RETRY_TIMEOUT : 0;
	default: return 0;
	}
}

unsigned carrier_pause_us(unsigned *step, uint32_t number)
{
	unsigned pause = *step ? *step : PAUSE_FIRST;

	*step = pause * 2 < PAUSE_LAST ? pause * 2 : PAUSE_LAST;
	return pause / 2 + number % (pause / 2 + 1);
}

static void set_option(
	int fd, int level, int name, const void *value, size_t len)
{
	int saved = errno;

	(void)setsockopt(fd, level, name, value, (socklen_t)len);
	errno = saved;
}

void carrier_window(int fd)
{
	const unsigned long long window = VSOCK_WINDOW;

	set_option(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_MAX_SIZE, &window,
		sizeof(window));
	set_option(fd, AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, &window,
		sizeof(window));
}

void carrier_options(int fd, enum endpoint_kind kind)
{
	const struct timeval tv = {.tv_sec = VSOCK_CONNECT_TIMEOUT};
	const int on = 1;

	if (kind == ENDPOINT_VSOCK) {
		carrier_window(fd);
		set_option(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &tv,
			sizeof(tv));
	} else if (kind == ENDPOINT_TCP) {
		set_option(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
}
