/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded beside AddressSanitizer's runtime. That initialises itself in the
 * first malloc(), looks for Swift's demangler and clears dlerror(), which
 * translates its message under the lock of setlocale(). Where the first
 * malloc() is newlocale()'s, as in every program with p11-kit (curl, wget),
 * that lock is held: the program hangs before main(). If the symbol is found
 * there is no error to translate.
 */
#include <stddef.h>
#include <stdint.h>

char *swift_demangle(const char *name, size_t name_len, char *out,
	size_t *out_len, uint32_t flags);

char *swift_demangle(const char *name, size_t name_len, char *out,
	size_t *out_len, uint32_t flags)
{
	(void)name;
	(void)name_len;
	(void)out;
	(void)out_len;
	(void)flags;
	return NULL; /* not a Swift name */
}
