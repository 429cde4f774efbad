/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/flow.h"

#include "common/log.h"
#include "proxy/peer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/*
 * Theory of operation
 *
 * At the end of each direction of a forwarded stream a line says between whom
 * it went. By then the sockets may be gone that could tell, so a flow keeps the
 * text from the start; where such lines are not written it keeps none. When
 * the relay has closed the stream, the flow lets go of the service and is
 * freed.
 */

#define FLOW_MAGIC 0x464c4f57u /* "FLOW" */

/**
 * struct flow - what remains of a forward when the relay has it
 * @end: both ends' addresses, indexed by side; NULL: nothing is logged
 * @dst: the original destination as text, "" if there is none
 */
struct flow {
	uint32_t magic;
	struct service *service;
	const char *end[2];
	const char *dst;
	char text[];
};

static const char *put_text(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *start = memcpy(*at, text, size);

	*at += size;
	return start;
}

struct flow *flow_new(struct service *service, int client,
	const struct endpoint *ep, const struct ip_port *dst)
{
	char from[PEER_STRLEN], to[ENDPOINT_STRLEN], original[IP_PORT_STRLEN];
	bool said = log_enabled(LOG_INFO);
	struct flow *flow;
	size_t len = 0;
	char *at;

	if (said) {
		peer_format(client, from, sizeof(from));
		service_text(ep, to, sizeof(to));
		original[0] = '\0';
		if (dst->family != AF_UNSPEC)
			ip_port_format(dst, original, sizeof(original));
		len = strlen(from) + strlen(to) + strlen(original) + 3;
	}
	flow = calloc(1, sizeof(*flow) + len);
	if (!flow)
		return NULL;
	flow->magic = FLOW_MAGIC;
	flow->service = service;
	at = flow->text;
	if (said) {
		flow->end[0] = put_text(&at, from);
		flow->end[1] = put_text(&at, to);
		flow->dst = put_text(&at, original);
	}
	return flow;
}

static void on_direction_done(void *arg, int side, uint64_t bytes, int err)
{
	const struct flow *flow = arg;
	const struct mode *mode = flow->service->config.mode;
	const char *way = side == 0 ? mode->forth : mode->back;
	bool dst;

	assert(flow->magic == FLOW_MAGIC);
	if (!flow->end[0])
		return;
	dst = flow->dst[0] != '\0';
	if (err)
		log_info_ratelimit("%s IO copy failed, from %s to %s: %s", way,
			flow->end[side], flow->end[!side],
			err == RELAY_IDLE ? "--idle-timeout is over"
					  : log_strerror(err));
	else
		log_info("%s IO copy done, from %s to %s%s%s%s", way,
			flow->end[side], flow->end[!side],
			dst ? ", with original_dst=" : "", flow->dst,
			dst ? " from inbound TCP stream" : "");
}

static void on_relay_closed(void *arg)
{
	struct flow *flow = arg;

	assert(flow->magic == FLOW_MAGIC);
	service_leave(flow->service);
	flow->magic = 0;
	free(flow);
}

const struct relay_ops flow_ops = {
	.direction_done = on_direction_done,
	.closed = on_relay_closed,
};
