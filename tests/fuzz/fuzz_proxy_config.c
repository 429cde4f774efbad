/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/config_file.h"

#include <stdlib.h>
#include <string.h>

/*
 * A configuration file. It is the operator's own, but a parser that survives
 * only good ones is none. What must hold: it is taken with something to serve,
 * or refused with a message that begins with its name.
 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char error[CONFIG_ERROR_MAX] = "";
	struct config config;
	FILE *in =
		size > 0 ? fmemopen((void *)(uintptr_t)data, size, "r") : NULL;

	if (!in)
		return 0;
	if (config_file_parse(&config, in, "f.ini", error) == 0) {
		must(config.nr > 0);
		for (size_t i = 0; i < config.nr; i++)
			must(!listener_check(&config.service[i].listen));
	} else {
		must(strncmp(error, "f.ini:", 6) == 0);
		must(strlen(error) > 7);
	}
	config_free(&config);
	fclose(in);
	return 0;
}
