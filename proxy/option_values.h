/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_OPTION_VALUES_H
#define PROXY_OPTION_VALUES_H

/*
 * What each option's value must look like, and where it goes: the functions
 * that the rows of option_rows.c name. What an option means is said in the help
 * text of its row.
 */

#include "proxy/options.h"

/**
 * typedef option_set - store the value of one option, see struct opt
 * @target: struct options
 * @value:  as the user wrote it; NULL for an option that takes none
 *
 * Return: NULL, or what was expected.
 */
typedef const char *option_set(void *target, const char *value);

option_set option_set_listen;
option_set option_set_tcp;
option_set option_set_port;
option_set option_set_buffer_size;
option_set option_set_workers;
option_set option_set_drain;
option_set option_set_handshake;
option_set option_set_connect;
option_set option_set_allow;
option_set option_set_deny;
option_set option_set_bind_address;
option_set option_set_allow_bind;
option_set option_set_publish;
option_set option_set_accept_queue;
option_set option_set_resolv_conf;
option_set option_set_vsock;
option_set option_set_ip;
option_set option_set_max_connections;
option_set option_set_idle;
option_set option_set_tproxy;
option_set option_set_accept_proxyproto;
option_set option_set_send_proxyproto;
option_set option_set_config;
option_set option_set_log;
option_set option_set_help;
option_set option_set_version;

/** option_add_endpoint() - one more to listen on. Return: as above */
const char *option_add_endpoint(
	struct options *options, const struct endpoint *ep);

#endif
