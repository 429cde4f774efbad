/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VENDOR_SUPERVISOR_H
#define VENDOR_SUPERVISOR_H

#include "vendor/config.h"
#include "vendor/place.h"

/**
 * supervisor_run() - keep a worker running until told to stop
 * @config: checked settings
 * @place:  what the vendor listens on; left (files removed) on return
 *
 * Returns also in each worker, which has done its work by then.
 *
 * Return: the process's exit status.
 */
int supervisor_run(struct vendor_config *config, struct place *place);

#endif
