/* SPDX-License-Identifier: Apache-2.0 */
#include "common/user.h"
#include "common/endpoint.h"

#include <pwd.h>
#include <stdint.h>
#include <string.h>

int user_parse(const char *text, uid_t *uid)
{
	const struct passwd *pw;
	uint64_t number;

	/* (uid_t)-1 is nobody, to the kernel. */
	if (parse_uint(text, strlen(text), UINT32_MAX - 1, &number) == 0) {
		*uid = (uid_t)number;
		return 0;
	}
	pw = getpwnam(text);
	if (!pw)
		return -1;
	*uid = pw->pw_uid;
	return 0;
}
