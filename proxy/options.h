/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXY_OPTIONS_H
#define PROXY_OPTIONS_H

/*
 * The command line of `proxy` and of the commands that are links to it: parsed
 * and checked as a whole before anything is opened.
 *
 * Theory of operation
 *
 * The command is the name that the program was called by, or else the first
 * argument: a mode of mode.h, or `run`. Neither: SOCKS5. Each command has its
 * own options, put together from groups that several share. A section of a
 * configuration file (config_file.h) is parsed as the options of its mode, less
 * those that concern the whole process; its keys are the options' names.
 */

#include "common/endpoint.h"
#include "common/log.h"
#include "proxy/bind_policy.h"
#include "proxy/optparse.h"
#include "proxy/rules.h"
#include "proxy/service.h"

#define OPTIONS_LISTEN_MAX 64
#define OPTIONS_PATH_MAX   1024
#define OPTIONS_ROWS_MAX   48

#define OPTIONS_DEFAULT_PORT 8888

/* Which of a command's options: those of one listener, of the process. */
#define OPTIONS_OF_LISTENER 1u
#define OPTIONS_OF_PROCESS  2u

/**
 * struct options - all settings
 * @program: what the user called, for messages: "proxy vsock-to-ip"
 * @mode:    of the listeners; NULL for `run`
 * @config_file: `run`: path; points into argv
 * @listen, @nr_listen: SOCKS5: what to listen on; at least one
 * @port, @tcp, @port_given: the reference implementation's -p and -t, turned
 *          into a row of @listen at the end
 * @vsock, @ip: the two ends of a forward, kind ENDPOINT_NONE if not given
 * @max_connections, @handshake_timeout, @connect_timeout, @idle_timeout,
 * @tproxy, @accept_proxyproto, @send_proxyproto, @rules: see service.h
 * @buffer_size: of the relay, bytes
 * @workers: number of threads
 * @drain:   seconds
 * @resolv_conf: path
 * @help, @version: print that and exit
 */
struct options {
	char program[64];
	const struct mode *mode;
	const char *config_file;
	struct endpoint listen[OPTIONS_LISTEN_MAX];
	size_t nr_listen;
	uint32_t port;
	bool tcp;
	bool port_given;
	struct endpoint vsock;
	struct endpoint ip;
	long max_connections;
	double handshake_timeout;
	double connect_timeout;
	double idle_timeout;
	bool tproxy;
	bool accept_proxyproto;
	enum proxyproto send_proxyproto;
	struct rules rules;
	size_t buffer_size;
	unsigned int workers;
	double drain;
	struct bind_policy bind;
	enum log_level log_level;
	char resolv_conf[OPTIONS_PATH_MAX];
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

/** options_init() - the defaults of @mode, NULL for `run`; options_free() it */
void options_init(struct options *options, const struct mode *mode);

/**
 * options_rows() - the options of a mode
 * @mode:  NULL for `run`
 * @which: OPTIONS_OF_... bits; both for a command line
 * @rows:  OPTIONS_ROWS_MAX; filled
 *
 * Return: how many.
 */
size_t options_rows(
	const struct mode *mode, unsigned int which, struct opt *rows);

/**
 * options_check() - is all there that the mode needs?
 * @error: OPTPARSE_ERROR_MAX bytes; filled on failure
 *
 * Return: 0 or -1.
 */
int options_check(struct options *options, char *error);

/**
 * options_services() - what is to be served
 * @options: parsed and checked, not for `run`
 * @out:     OPTIONS_LISTEN_MAX; each with its own rules
 *
 * Return: how many, or -1 and errno ENOMEM.
 */
int options_services(struct options *options, struct service_config *out);

/** options_free() - free what options_parse() allocated */
void options_free(struct options *options);

/** options_help() - print the usage text of the parsed command to stdout */
void options_help(const struct options *options);

#endif
