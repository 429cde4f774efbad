/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/mode.h"

#include <string.h>

#define VSOCK_TO_IP "vsock to ip"
#define IP_TO_VSOCK "ip to vsock"

const struct mode mode_table[NR_MODES] = {
	[MODE_SOCKS5] =
		{
			.name = "socks5",
			.learn = LEARN_SOCKS5,
			.reach = REACH_DESTINATION,
			.from_vsock = true,
			.forth = VSOCK_TO_IP,
			.back = IP_TO_VSOCK,
			.summary = "SOCKS5 server for machines whose only way "
				   "out is "
				   "vsock.",
		},
	[MODE_VSOCK_TO_IP] =
		{
			.name = "vsock-to-ip",
			.learn = LEARN_NOTHING,
			.reach = REACH_TARGET,
			.from_vsock = true,
			.forth = VSOCK_TO_IP,
			.back = IP_TO_VSOCK,
			.summary =
				"Forward vsock connections to a TCP address.",
		},
	[MODE_IP_TO_VSOCK] =
		{
			.name = "ip-to-vsock",
			.learn = LEARN_NOTHING,
			.reach = REACH_TARGET,
			.forth = IP_TO_VSOCK,
			.back = VSOCK_TO_IP,
			.summary =
				"Forward TCP connections to a vsock address.",
		},
	[MODE_VSOCK_TO_IP_TRANSPARENT] =
		{
			.name = "vsock-to-ip-transparent",
			.learn = LEARN_PREFIX,
			.reach = REACH_DESTINATION,
			.from_vsock = true,
			.forth = VSOCK_TO_IP,
			.back = IP_TO_VSOCK,
			.summary = "Forward vsock connections to the TCP "
				   "destination "
				   "that each begins with.",
		},
	[MODE_IP_TO_VSOCK_TRANSPARENT] =
		{
			.name = "ip-to-vsock-transparent",
			.learn = LEARN_REDIRECT,
			.reach = REACH_TARGET,
			.send_prefix = true,
			.forth = IP_TO_VSOCK,
			.back = VSOCK_TO_IP,
			.summary =
				"Forward redirected TCP connections to a vsock "
				"address, after their original destination.",
		},
	[MODE_TRANSPARENT_PORT_TO_VSOCK] =
		{
			.name = "transparent-port-to-vsock",
			.learn = LEARN_REDIRECT,
			.reach = REACH_PORT,
			.forth = IP_TO_VSOCK,
			.back = VSOCK_TO_IP,
			.summary = "Forward redirected TCP connections to the "
				   "vsock "
				   "port that is their original one.",
		},
};

const struct mode *mode_find(const char *name, size_t len)
{
	for (size_t i = 0; i < NR_MODES; i++)
		if (strlen(mode_table[i].name) == len &&
			memcmp(mode_table[i].name, name, len) == 0)
			return &mode_table[i];
	return NULL;
}
