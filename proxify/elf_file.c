/* SPDX-License-Identifier: Apache-2.0 */
#include "proxify/elf_file.h"

#include <assert.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Theory of operation
 *
 * Everything is fetched with fetch(), which knows the file's size and fails
 * cleanly for anything that is not wholly inside; offsets and lengths are
 * added up only there. Tables are read one entry at a time into objects of
 * their own, so nothing is allocated and a table's count can at worst cost
 * time, which TABLE_MAX bounds.
 *
 * A program header that lies makes the file BROKEN, since the kernel would
 * not run it either. Section headers are not for running: they may be cut off
 * or nonsense, and then simply tell nothing.
 */

#define TABLE_MAX 4096 /* headers looked at; real files have some dozens */
#define NOTES_MAX 64

#define GO_SECTION ".go.buildinfo"
#define GO_NOTE    "Go" /* vendor name of Go's build id note */

/**
 * struct reader - a file being read
 * @failed: errno of a read that failed, as opposed to a file that ended
 */
struct reader {
	int fd;
	uint64_t size;
	int failed;
	ElfW(Ehdr) head;
};

/* Return: whether the file has these bytes and they are in @buf. */
static bool fetch(struct reader *r, uint64_t offset, void *buf, size_t len)
{
	ssize_t n;

	if (r->failed || offset > r->size || len > r->size - offset)
		return false;
	n = pread(r->fd, buf, len, (off_t)offset);
	if (n == -1)
		r->failed = errno;
	return n == (ssize_t)len;
}

#if defined(__x86_64__)
# define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
# define OWN_MACHINE EM_AARCH64
#elif defined(__i386__)
# define OWN_MACHINE EM_386
#elif defined(__arm__)
# define OWN_MACHINE EM_ARM
#elif defined(__riscv)
# define OWN_MACHINE EM_RISCV
#else
# define OWN_MACHINE EM_NONE /* not known here, so not compared */
#endif

#define OWN_CLASS (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)
#define OWN_DATA \
 (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB)

/* PT_INTERP: a path with its NUL inside the segment. */
static const char *read_interp(
	struct reader *r, const ElfW(Phdr) * segment, struct elf_file *out)
{
	if (segment->p_filesz < 2 || segment->p_filesz > ELF_INTERP_MAX ||
		!fetch(r, segment->p_offset, out->interp, segment->p_filesz) ||
		!memchr(out->interp, '\0', segment->p_filesz))
		return "bad PT_INTERP";
	out->has_interp = true;
	return NULL;
}

static uint64_t note_padded(uint64_t len)
{
	return (len + 3) & ~(uint64_t)3;
}

/* Is one of the notes Go's? Nonsense ends the search. */
static bool has_go_note(struct reader *r, const ElfW(Phdr) * segment)
{
	uint64_t at = 0;
	ElfW(Nhdr) note;
	char name[sizeof(GO_NOTE)];

	for (int i = 0; i < NOTES_MAX; i++) {
		if (segment->p_filesz - at < sizeof(note) ||
			segment->p_offset > UINT64_MAX - at ||
			!fetch(r, segment->p_offset + at, &note, sizeof(note)))
			return false;
		at += sizeof(note);
		if (note.n_namesz >= sizeof(name) &&
			fetch(r, segment->p_offset + at, name, sizeof(name)) &&
			memcmp(name, GO_NOTE, sizeof(name)) == 0)
			return true;
		at += note_padded(note.n_namesz) + note_padded(note.n_descsz);
		if (at > segment->p_filesz)
			return false;
	}
	return false;
}

/* Return: NULL, or what is wrong. */
static const char *read_segments(struct reader *r, struct elf_file *out)
{
	const char *wrong = NULL;
	ElfW(Phdr) segment;

	if (r->head.e_phentsize != sizeof(segment) || r->head.e_phnum == 0)
		return "no usable program headers";
	for (unsigned i = 0; i < r->head.e_phnum && i < TABLE_MAX; i++) {
		uint64_t at = (uint64_t)i * sizeof(segment);

		if (r->head.e_phoff > UINT64_MAX - at ||
			!fetch(r, r->head.e_phoff + at, &segment,
				sizeof(segment)))
			return "program headers beyond its end";
		if (segment.p_type == PT_INTERP && !out->has_interp)
			wrong = read_interp(r, &segment, out);
		else if (segment.p_type == PT_NOTE)
			out->is_go |= has_go_note(r, &segment);
		if (wrong)
			return wrong;
	}
	return NULL;
}

static bool read_section(struct reader *r, uint64_t index, ElfW(Shdr) * section)
{
	uint64_t at = index * sizeof(*section);

	return r->head.e_shoff <= UINT64_MAX - at &&
	       fetch(r, r->head.e_shoff + at, section, sizeof(*section));
}

static bool has_go_section(struct reader *r)
{
	ElfW(Shdr) section, names;
	uint64_t count = r->head.e_shnum;
	uint64_t strings = r->head.e_shstrndx;
	char name[sizeof(GO_SECTION)];

	if (r->head.e_shoff == 0 || r->head.e_shentsize != sizeof(section) ||
		!read_section(r, 0, &section))
		return false;
	/* Files with very many sections keep both numbers in the first. */
	if (count == 0)
		count = section.sh_size;
	if (strings == SHN_XINDEX)
		strings = section.sh_link;
	if (strings >= TABLE_MAX || !read_section(r, strings, &names))
		return false;
	for (uint64_t i = 0; i < count && i < TABLE_MAX; i++) {
		if (!read_section(r, i, &section))
			return false;
		if (names.sh_offset <= UINT64_MAX - section.sh_name &&
			fetch(r, names.sh_offset + section.sh_name, name,
				sizeof(name)) &&
			memcmp(name, GO_SECTION, sizeof(name)) == 0)
			return true;
	}
	return false;
}

static void set_kind(struct elf_file *out, enum elf_kind kind, const char *why)
{
	assert((kind == ELF_KIND_BROKEN) == (why != NULL));
	out->kind = kind;
	out->broken = why;
}

static void read_native(struct reader *r, struct elf_file *out)
{
	const char *why = "not an executable";

	if (r->head.e_type == ET_EXEC || r->head.e_type == ET_DYN)
		why = read_segments(r, out);
	if (why) {
		set_kind(out, ELF_KIND_BROKEN, why);
		return;
	}
	set_kind(out, ELF_KIND_NATIVE, NULL);
	out->is_go |= has_go_section(r);
}

/* The rest of the header differs with word size and byte order. */
static bool is_foreign(struct reader *r)
{
	const unsigned char *ident = r->head.e_ident;

	if (ident[EI_CLASS] != OWN_CLASS || ident[EI_DATA] != OWN_DATA)
		return true;
	return fetch(r, 0, &r->head, sizeof(r->head)) &&
	       OWN_MACHINE != EM_NONE && r->head.e_machine != OWN_MACHINE;
}

static void read_head(struct reader *r, struct elf_file *out)
{
	unsigned char *ident = r->head.e_ident;

	if (!fetch(r, 0, ident, SELFMAG) || memcmp(ident, ELFMAG, SELFMAG) != 0)
		return;
	set_kind(out, ELF_KIND_BROKEN, "cut off within its header");
	if (!fetch(r, 0, ident, EI_NIDENT))
		return;
	if (is_foreign(r))
		set_kind(out, ELF_KIND_FOREIGN, NULL);
	else if (r->size >= sizeof(r->head))
		read_native(r, out);
}

int elf_file_read(int fd, struct elf_file *out)
{
	struct reader r = {.fd = fd};
	struct stat st;

	memset(out, 0, sizeof(*out));
	if (fstat(fd, &st) == -1)
		return -1;
	r.size = st.st_size > 0 ? (uint64_t)st.st_size : 0;
	read_head(&r, out);
	errno = r.failed;
	return r.failed ? -1 : 0;
}
