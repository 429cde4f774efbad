/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/inbound_env.h"
#include "common/fd.h"
#include "common/vendor_msg.h"

#include <errno.h>
#include <linux/sockios.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#define DIALS_AT_A_TIME 64
#define RELEASE_GRACE   0.5 /* seconds for the host to let a port go */
#define START_GRACE     0.3 /* ... of our predecessor's */
#define PAUSE_FIRST     0.05
#define PAUSE_LAST      1.0
#define STANDBYS_MIN    16

/* A message costs its sender more than its length; how much is the kernel's
 * business and the same for every message of one length. */
static int measure_accept(int *unit)
{
	struct vendor_result res;
	int pair[2];
	int ret = -1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == -1)
		return -1;
	vendor_result_init(&res, VENDOR_ACCEPT, 0);
	if (fd_send(pair[0], &res, sizeof(res), pair[1], 0) ==
			(ssize_t)sizeof(res) &&
		ioctl(pair[0], SIOCOUTQ, unit) == 0 && *unit > 0)
		ret = 0;
	else if (errno == 0)
		errno = EPROTO;
	closefd(&pair[0]);
	closefd(&pair[1]);
	return ret;
}

static size_t limit_standbys(void)
{
	struct rlimit limit;
	size_t quarter;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1 ||
		limit.rlim_cur == RLIM_INFINITY)
		return SIZE_MAX;
	quarter = limit.rlim_cur / 4;
	return quarter > STANDBYS_MIN ? quarter : STANDBYS_MIN;
}

int env_start(struct inbound_env *env, struct ev_loop *loop,
	const struct vendor_config *config)
{
	if (measure_accept(&env->accept_unit) == -1)
		return -1;
	env->poll = edge_poll_ref(loop);
	if (!env->poll)
		return -1;
	env->loop = loop;
	env->pool_low = config->pool_low ? config->pool_low : CONFIG_POOL_LOW;
	env->pool_high =
		config->pool_high ? config->pool_high : CONFIG_POOL_HIGH;
	env->mirror = !config->no_mirror;
	env->standbys_max = limit_standbys();
	env->started = ev_now(loop);
	list_init(&env->exports);
	turnstile_init(&env->dials, DIALS_AT_A_TIME);
	reaper_start(&env->reaper, loop);
	return 0;
}

void env_stop(struct inbound_env *env)
{
	reaper_stop(&env->reaper);
	edge_poll_unref(env->poll);
}

void env_note_release(struct inbound_env *env, uint16_t port)
{
	unsigned i = env->next_release++ % ENV_RELEASES;

	env->released[i].port = port;
	env->released[i].at = ev_now(env->loop);
}

bool env_released_lately(const struct inbound_env *env, uint16_t port)
{
	ev_tstamp now = ev_now(env->loop);

	if (now - env->started < START_GRACE)
		return true;
	for (unsigned i = 0; i < ENV_RELEASES; i++) {
		if (env->released[i].port == port &&
			now - env->released[i].at < RELEASE_GRACE)
			return true;
	}
	return false;
}

double env_pause(double *pause)
{
	uint64_t x = (uintptr_t)pause ^ (uint64_t)(ev_time() * 1e6);

	*pause = *pause == 0 ? PAUSE_FIRST : *pause * 2;
	if (*pause > PAUSE_LAST)
		*pause = PAUSE_LAST;
	x *= 0x9e3779b97f4a7c15u;
	return *pause * (0.75 + (double)(x >> 40) / (double)(1u << 26));
}
