/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PROXIFY_ELF_FILE_H
#define PROXIFY_ELF_FILE_H

/*
 * What an ELF file says about who will load it and what is in it. Only read,
 * never mapped: a file may be anything, may lie in each of its offsets and
 * counts, and may change while it is looked at.
 */

#include <stdbool.h>
#include <stdint.h>

#define ELF_INTERP_MAX 256

enum elf_kind {
	ELF_KIND_NONE,    /* no ELF file */
	ELF_KIND_BROKEN,  /* begins like one, but cannot be one */
	ELF_KIND_FOREIGN, /* for another word size, byte order or machine */
	ELF_KIND_NATIVE,
};

/**
 * struct elf_file - the findings; all but @kind only for ELF_KIND_NATIVE
 * @broken: BROKEN: what is wrong
 * @has_interp: is there a PT_INTERP?
 * @interp: the dynamic loader that it names
 * @is_go:  built by the Go toolchain (section .go.buildinfo or its note)
 */
struct elf_file {
	enum elf_kind kind;
	const char *broken;
	bool has_interp;
	bool is_go;
	char interp[ELF_INTERP_MAX];
};

/**
 * elf_file_read() - look at a file
 * @fd:  open for reading; its position is not used
 * @out: filled
 *
 * Return: 0, or -1 and errno if reading failed.
 */
int elf_file_read(int fd, struct elf_file *out);

#endif
