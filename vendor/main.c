/* SPDX-License-Identifier: Apache-2.0 */
#include "vendor/config.h"
#include "vendor/daemon.h"
#include "vendor/place.h"
#include "vendor/supervisor.h"

#include <stdlib.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * socket_vendor makes the outbound connections of all programs in an enclave
 * (gate.c, dial.c) in one worker process, which a supervisor keeps alive. This
 * file is the order in which that comes to be, each step before what needs it:
 *
 *	read the settings    nothing was touched when they are wrong (exit 2)
 *	shed                 no fd, signal or umask of the caller matters later
 *	take the place       errors are still seen on the caller's stderr; if
 *	                     another vendor has it, that is a success
 *	detach               the caller may go on: the socket listens already,
 *	                     and who connects now waits for the worker
 *	supervise
 */

#define EXIT_USAGE 2

static int run(struct vendor_config *config)
{
	struct place place;

	switch (place_take(&place, config->path)) {
	case PLACE_OURS: break;
	case PLACE_TAKEN:
		log_debug("a vendor listens on %s already", config->path);
		return EXIT_SUCCESS;
	case PLACE_WRONG: return EXIT_FAILURE;
	}
	if (!config->foreground && daemon_detach(config->log_file) == -1) {
		place_leave(&place);
		return EXIT_FAILURE;
	}
	return supervisor_run(config, &place);
}

int main(int argc, char **argv)
{
	struct vendor_config config;

	daemon_shed_preload(argv);
	switch (config_read(&config, argc, argv)) {
	case CONFIG_RUN: break;
	case CONFIG_DONE: return EXIT_SUCCESS;
	case CONFIG_WRONG: return EXIT_USAGE;
	}
	daemon_shed();
	daemon_raise_fd_limit();
	log_init("socket_vendor", config.log_level, STDERR_FILENO);
	return run(&config);
}
