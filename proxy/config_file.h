/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_CONFIG_FILE_H
#define PROXY_CONFIG_FILE_H

/*
 * The configuration file of `proxy run`: several listeners of any mode in one
 * process.
 *
 *	# settings of the process come first
 *	workers = 2
 *
 *	[socks5]
 *	listen = vsock:any:8888
 *	allow = 10.0.0.0/8
 *
 *	[vsock-to-ip database]
 *	vsock-addr = any:5432
 *	ip-addr = db.internal:5432
 *
 * config_file.c opens with the theory of operation.
 */

#include "proxy/options.h"

#define CONFIG_ERROR_MAX 1024

/**
 * struct config - what a file says
 * @process: the settings of the process
 * @service, @nr: the listeners
 */
struct config {
	struct options process;
	struct service_config *service;
	size_t nr;
};

/**
 * config_file_parse() - read a configuration
 * @config: filled; config_free() it in each case
 * @in:     from here to its end; binary safe
 * @name:   of the file, for messages
 * @error:  CONFIG_ERROR_MAX bytes; filled on failure with "NAME:LINE: what"
 *
 * Return: 0 or -1.
 */
int config_file_parse(
	struct config *config, FILE *in, const char *name, char *error);

/** config_file_read() - the same from the file @path */
int config_file_read(struct config *config, const char *path, char *error);

/** config_free() - free what the above allocated */
void config_free(struct config *config);

#endif
