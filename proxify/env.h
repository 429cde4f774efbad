/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_ENV_H
#define PROXIFY_ENV_H

/*
 * The settings that arrive through the environment, which the library reads
 * inside the application, where a mistake can only be reported by a connect()
 * that fails. So the launcher checks every one of them first.
 */

#include "common/endpoint.h"
#include "common/log.h"

#include <stdbool.h>

/**
 * struct settings - what the environment says
 * @endpoint:    the host proxy, numeric
 * @vendor_path: the vendor's socket
 * @log_level:   PROXY_LOG, warn by default
 */
struct settings {
	struct endpoint endpoint;
	char vendor_path[ENDPOINT_PATH_MAX + 1];
	enum log_level log_level;
};

/**
 * struct complaint - a value that cannot be used
 * @name:     the variable
 * @value:    what it holds
 * @expected: "expected ..."
 */
struct complaint {
	const char *name;
	const char *value;
	const char *expected;
};

/**
 * env_read() - check all and take what the launcher needs
 * @out:  filled on success
 * @what: on failure, the first value that is wrong; points into the
 *        environment
 *
 * Return: whether everything is in order.
 */
bool env_read(struct settings *out, struct complaint *what);

#endif
