/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_OPTIONS_H
#define PROXIFY_OPTIONS_H

#include "resolv/resolv_plan.h"

#include <stdbool.h>
#include <stddef.h>

#define OPTIONS_ALLOW_MAX 64

/**
 * struct options - the launcher's command line
 * @endpoint: the host proxy, checked, or NULL
 * @log:      level, checked, or NULL
 * @allow:    uids for the vendor, as given
 * @no_vendor: neither start the vendor nor ask for it
 * @force:    run a program that cannot be covered
 * @names:    --resolv and --dns
 * @argv:     the application and its arguments, NULL-terminated
 */
struct options {
	const char *endpoint;
	const char *log;
	const char *allow[OPTIONS_ALLOW_MAX];
	size_t nr_allow;
	bool no_vendor;
	bool force;
	struct resolv_options names;
	char **argv;
};

enum options_verdict {
	OPTIONS_RUN,
	OPTIONS_DONE,  /* --help or --version was answered */
	OPTIONS_WRONG, /* a line on stderr says what */
};

/** options_read() - take the options off the front of a command line */
enum options_verdict options_read(struct options *out, int argc, char **argv);

#endif
