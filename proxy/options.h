/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_OPTIONS_H
#define PROXY_OPTIONS_H

/*
 * The command line of `proxy`: parsed and checked as a whole before anything
 * is opened.
 */

#include "common/endpoint.h"
#include "common/log.h"
#include "proxy/bind_policy.h"
#include "proxy/rules.h"

#define OPTIONS_LISTEN_MAX 64

#define OPTIONS_DEFAULT_PORT 8888

/**
 * struct options - all settings
 * @listen, @nr_listen: what to listen on; at least one
 * @port, @tcp, @port_given: the reference implementation's -p and -t, turned
 *          into a row of @listen at the end
 * @buffer_size: of the relay, bytes
 * @workers: number of threads
 * @drain, @handshake_timeout, @connect_timeout: seconds
 * @resolv_conf: path; points into argv
 * @help, @version: print that and exit
 */
struct options {
	struct endpoint listen[OPTIONS_LISTEN_MAX];
	size_t nr_listen;
	uint32_t port;
	bool tcp;
	bool port_given;
	size_t buffer_size;
	unsigned int workers;
	double drain;
	double handshake_timeout;
	double connect_timeout;
	struct rules rules;
	struct bind_policy bind;
	enum log_level log_level;
	const char *resolv_conf;
	bool help;
	bool version;
};

/**
 * options_parse() - read the command line
 * @options: filled; options_free() it in each case
 * @argc, @argv: of main()
 * @error:   OPTPARSE_ERROR_MAX bytes; filled on failure
 *
 * Return: 0 or -1.
 */
int options_parse(struct options *options, int argc, char **argv, char *error);

/** options_free() - free what options_parse() allocated */
void options_free(struct options *options);

/** options_help() - print the usage text to stdout */
void options_help(void);

#endif
