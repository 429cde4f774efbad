/* SPDX-License-Identifier: Apache-2.0 */

/* Print whether the resolver is told to use TCP, without RES_OPTIONS. */

#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
	struct __res_state state;

	memset(&state, 0, sizeof(state));
	unsetenv("RES_OPTIONS");
	if (res_init() || res_ninit(&state))
		return 1;
	printf("init %d\nninit %d\n", (_res.options & RES_USEVC) != 0,
		(state.options & RES_USEVC) != 0);
	res_nclose(&state);
	return 0;
}
