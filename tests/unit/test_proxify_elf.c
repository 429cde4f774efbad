/* SPDX-License-Identifier: Apache-2.0 */
#include "common/fd.h"
#include "proxify/elf_file.h"
#include "suite.h"

#include <check.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * A small executable is laid out by hand, looked at whole, cut off at every
 * byte, with every byte of its headers turned over, and with numbers that lie.
 * Nothing may be read that is not there, and every answer must be one that can
 * be trusted.
 */

#define INTERP  "/lib64/ld-test.so.2"
#define STRINGS "\0.shstrtab\0.go.buildinfo"

/* What a Go linker leaves: its build id. */
struct note {
	ElfW(Nhdr) head;
	char name[4];
	char desc[4];
};

struct image {
	ElfW(Ehdr) head;
	ElfW(Phdr) segments[3];
	struct note note;
	char interp[sizeof(INTERP)];
	char strings[sizeof(STRINGS)];
	ElfW(Shdr) sections[3];
};

static struct image image;
static struct elf_file found;

static uint16_t own_machine(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ElfW(Ehdr) head;

	ck_assert_int_eq(read(fd, &head, sizeof(head)), sizeof(head));
	closefd(&fd);
	return head.e_machine;
}

static void make_image(void)
{
	ElfW(Ehdr) *head = &image.head;

	memset(&image, 0, sizeof(image));
	memcpy(head->e_ident, ELFMAG, SELFMAG);
	head->e_ident[EI_CLASS] = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
	head->e_ident[EI_DATA] = ELFDATA2LSB;
	head->e_ident[EI_VERSION] = EV_CURRENT;
	head->e_type = ET_DYN;
	head->e_machine = own_machine();
	head->e_phoff = offsetof(struct image, segments);
	head->e_phentsize = sizeof(ElfW(Phdr));
	head->e_phnum = 3;
	head->e_shoff = offsetof(struct image, sections);
	head->e_shentsize = sizeof(ElfW(Shdr));
	head->e_shnum = 3;
	head->e_shstrndx = 1;
	memcpy(image.interp, INTERP, sizeof(INTERP));
	memcpy(image.strings, STRINGS, sizeof(STRINGS));
	image.segments[0].p_type = PT_LOAD;
	image.segments[1].p_type = PT_INTERP;
	image.segments[1].p_offset = offsetof(struct image, interp);
	image.segments[1].p_filesz = sizeof(INTERP);
	image.segments[2].p_type = PT_NOTE;
	image.segments[2].p_offset = offsetof(struct image, note);
	image.segments[2].p_filesz = sizeof(image.note);
	image.note = (struct note){{4, 4, 3}, "GNU", "idid"};
	image.sections[1].sh_name = 1;
	image.sections[1].sh_offset = offsetof(struct image, strings);
	image.sections[1].sh_size = sizeof(STRINGS);
	image.sections[2].sh_name = 1;
}

static void look_at(const void *bytes, size_t len)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
	ck_assert_int_eq(elf_file_read(fd, &found), 0);
	closefd(&fd);
	/* Whatever it is, what it says can be used. */
	ck_assert((found.kind == ELF_KIND_BROKEN) == (found.broken != NULL));
	if (found.has_interp)
		ck_assert_ptr_nonnull(
			memchr(found.interp, '\0', sizeof(found.interp)));
}

static void look(void)
{
	look_at(&image, sizeof(image));
}

START_TEST(test_plain)
{
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	ck_assert(found.has_interp);
	ck_assert_str_eq(found.interp, INTERP);
	ck_assert(!found.is_go);
}
END_TEST

START_TEST(test_static)
{
	image.segments[1].p_type = PT_NULL;
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	ck_assert(!found.has_interp);
}
END_TEST

START_TEST(test_go)
{
	if (_i == 0)
		image.sections[2].sh_name = 11; /* .go.buildinfo */
	else
		image.note = (struct note){{4, 4, 4}, "Go", "idid"};
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	ck_assert(found.is_go);
}
END_TEST

/* More sections than e_shnum can say: the first one has the numbers. */
START_TEST(test_go_many_sections)
{
	image.sections[2].sh_name = 11;
	image.head.e_shnum = 0;
	image.head.e_shstrndx = SHN_XINDEX;
	image.sections[0].sh_size = 3;
	image.sections[0].sh_link = 1;
	look();
	ck_assert(found.is_go);
}
END_TEST

START_TEST(test_foreign)
{
	switch (_i) {
	case 0: image.head.e_machine ^= 1; break;
	case 1: image.head.e_ident[EI_CLASS] ^= 3; break;
	case 2: image.head.e_ident[EI_DATA] ^= 3; break;
	default: break;
	}
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_FOREIGN);
}
END_TEST

START_TEST(test_broken)
{
	switch (_i) {
	case 0: image.head.e_type = ET_REL; break;
	case 1: image.head.e_phnum = 0; break;
	case 2: image.head.e_phentsize = 1; break;
	case 3: image.head.e_phoff = sizeof(image); break;
	case 4: image.head.e_phoff = (ElfW(Off)) - 1; break;
	case 5: image.segments[1].p_offset = (ElfW(Off)) - 8; break;
	case 6: image.segments[1].p_filesz = (ElfW(Off)) - 8; break;
	case 7: image.segments[1].p_filesz = 0; break;
	case 8: image.segments[1].p_filesz = sizeof(INTERP) - 1; break;
	case 9: image.segments[1].p_filesz = ELF_INTERP_MAX + 1; break;
	default: break;
	}
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_BROKEN);
}
END_TEST

/* Sections are not needed to run: nonsense in them says nothing. */
START_TEST(test_sections_lie)
{
	image.sections[2].sh_name = 11;
	switch (_i) {
	case 0: image.head.e_shoff = (ElfW(Off)) - 1; break;
	case 1: image.head.e_shoff = sizeof(image) - 1; break;
	case 2: image.head.e_shstrndx = 0xfff0; break;
	case 3: image.head.e_shentsize = 0; break;
	case 4: image.sections[1].sh_offset = (ElfW(Off)) - 1; break;
	case 5: image.sections[2].sh_name = UINT32_MAX; break;
	case 6: image.head.e_shoff = 0; break;
	case 7:
		image.head.e_shnum = 0;
		image.sections[0].sh_size = (ElfW(Xword)) - 1;
		image.sections[2].sh_name = 1;
		break;
	default: break;
	}
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	ck_assert(found.has_interp);
	ck_assert(!found.is_go);
}
END_TEST

START_TEST(test_notes_lie)
{
	switch (_i) {
	case 0: image.note.head.n_namesz = UINT32_MAX; break;
	case 1: image.note.head.n_descsz = UINT32_MAX; break;
	case 2: image.segments[2].p_offset = (ElfW(Off)) - 1; break;
	case 3: image.segments[2].p_filesz = (ElfW(Off)) - 1; break;
	case 4: image.segments[2].p_filesz = 3; break;
	default: break;
	}
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	ck_assert(!found.is_go);
}
END_TEST

START_TEST(test_cut_off)
{
	for (size_t len = 0; len < sizeof(image); len++) {
		look_at(&image, len);
		if (len < SELFMAG)
			ck_assert_int_eq(found.kind, ELF_KIND_NONE);
		else if (len < offsetof(struct image, strings))
			ck_assert_int_eq(found.kind, ELF_KIND_BROKEN);
		else
			ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	}
}
END_TEST

START_TEST(test_every_byte)
{
	uint8_t *bytes = (uint8_t *)&image;

	for (size_t i = 0; i < sizeof(image); i++) {
		static const uint8_t values[] = {0x00, 0x01, 0x7f, 0xff};
		uint8_t before = bytes[i];

		for (size_t v = 0; v < sizeof(values); v++) {
			bytes[i] = values[v];
			look();
		}
		bytes[i] = before;
	}
}
END_TEST

START_TEST(test_huge_tables)
{
	image.head.e_phnum = 0xffff;
	look();
	ck_assert_int_eq(found.kind, ELF_KIND_BROKEN);
}
END_TEST

START_TEST(test_not_elf)
{
	static const char *const texts[] = {
		"", "#!/bin/sh\n", "\177EL", "PK\3\4"};

	look_at(texts[_i], strlen(texts[_i]));
	ck_assert_int_eq(found.kind, ELF_KIND_NONE);
}
END_TEST

START_TEST(test_unreadable)
{
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	/* A folder has a size, but cannot be read. */
	ck_assert_int_eq(elf_file_read(fd, &found), -1);
	closefd(&fd);
	ck_assert_int_eq(elf_file_read(-1, &found), -1);
}
END_TEST

/* This very program, as a sample from life. */
START_TEST(test_self)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	ck_assert_int_eq(elf_file_read(fd, &found), 0);
	ck_assert_int_eq(found.kind, ELF_KIND_NATIVE);
	ck_assert(found.has_interp);
	ck_assert_ptr_nonnull(strstr(found.interp, "/ld-"));
	ck_assert(!found.is_go);
	closefd(&fd);
}
END_TEST

static Suite *suite(void)
{
	Suite *s = suite_create("proxify_elf");
	TCase *tc = tcase_create("elf");

	tcase_add_checked_fixture(tc, make_image, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_plain);
	tcase_add_test(tc, test_static);
	tcase_add_loop_test(tc, test_go, 0, 2);
	tcase_add_test(tc, test_go_many_sections);
	tcase_add_loop_test(tc, test_foreign, 0, 3);
	tcase_add_loop_test(tc, test_broken, 0, 10);
	tcase_add_loop_test(tc, test_sections_lie, 0, 8);
	tcase_add_loop_test(tc, test_notes_lie, 0, 5);
	tcase_add_test(tc, test_cut_off);
	tcase_add_test(tc, test_every_byte);
	tcase_add_test(tc, test_huge_tables);
	tcase_add_loop_test(tc, test_not_elf, 0, 4);
	tcase_add_test(tc, test_unreadable);
	tcase_add_test(tc, test_self);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return suite_run(suite());
}
