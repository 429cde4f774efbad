/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_WORKER_H
#define VENDOR_WORKER_H

/*
 * The worker: everything the vendor does, on one event loop. It owns nothing
 * that must outlive a crash; the listening socket is the supervisor's.
 */

#include "vendor/config.h"

/**
 * worker_run() - serve until SIGTERM
 * @listener: the vendor's socket, listening and non-blocking; stays the
 *            caller's
 * @config:   checked settings
 *
 * SIGTERM ends it, SIGHUP has the log file opened anew; SIGINT is ignored, so
 * that a terminal's Ctrl-C is the supervisor's alone.
 *
 * Return: the process's exit status.
 */
int worker_run(int listener, const struct vendor_config *config);

#endif
