/* SPDX-License-Identifier: Apache-2.0 */
#include "resolv/resolv_conf.h"
#include "suite.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct resolv_conf conf;
static char dir[64];
static char path[128];

static void setup(void)
{
	snprintf(dir, sizeof(dir), "/tmp/test_resolv.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/resolv.conf", dir);
}

static void teardown(void)
{
	unlink(path);
	/* fails if a temporary file was left behind */
	ck_assert_int_eq(rmdir(dir), 0);
}

/* The text on the heap in its exact size. */
static void parse(const char *text)
{
	size_t len = strlen(text);
	char *copy = malloc(len ? len : 1);
	size_t i;

	for (i = 0; i < len; i++)
		copy[i] = text[i];
	resolv_conf_parse(&conf, copy, len);
	free(copy);
}

static const char *server(unsigned i)
{
	static char text[INET6_ADDRSTRLEN];

	ck_assert_uint_lt(i, conf.nr_servers);
	ck_assert_uint_eq(conf.servers[i].port, 53);
	return inet_ntop(
		conf.servers[i].family, conf.servers[i].ip, text, sizeof(text));
}

START_TEST(usual_file)
{
	parse("# made by a machine\n"
	      "search example.com sub.example.com\n"
	      "nameserver 10.0.0.2\n"
	      "nameserver\t2001:db8::53   \n"
	      "; nameserver 10.0.0.9\n"
	      "options ndots:2 use-vc rotate\n"
	      "nameserver 10.0.0.3 # the other one");
	ck_assert_uint_eq(conf.nr_servers, 3);
	ck_assert_str_eq(server(0), "10.0.0.2");
	ck_assert_str_eq(server(1), "2001:db8::53");
	ck_assert_str_eq(server(2), "10.0.0.3");
	ck_assert_uint_eq(conf.nr_bad, 0);
	ck_assert(conf.use_vc);
}
END_TEST

START_TEST(what_counts)
{
	static const struct {
		const char *text;
		unsigned nr, bad;
		bool use_vc;
	} table[] = {
		{"", 0, 0, false},
		{"\n\n\n", 0, 0, false},
		{"nameserver 10.0.0.2\r\n", 1, 0, false},
		{" nameserver 10.0.0.2\n", 0, 0, false},
		{"nameserver10.0.0.2\n", 0, 0, false},
		{"nameservers 10.0.0.2\n", 0, 0, false},
		{"NAMESERVER 10.0.0.2\n", 0, 0, false},
		{"nameserver\n", 0, 1, false},
		{"nameserver \n", 0, 1, false},
		{"nameserver ns.example\n", 0, 1, false},
		{"nameserver 10.0.0.0/8\n", 0, 1, false},
		{"nameserver 10.0.0.2.3\n", 0, 1, false},
		{"nameserver fe80::1%eth0\n", 0, 1, false},
		{"nameserver 10.0.0.2 10.0.0.3\n", 1, 0, false},
		{"nameserver 10.0.0.2;x\n", 1, 0, false},
		{"options use-vc", 0, 0, true},
		{"options no-use-vc\n", 0, 0, false},
		{"options ndots:1 #use-vc\n", 0, 0, false},
		{"#options use-vc\n", 0, 0, false},
	};

	parse(table[_i].text);
	ck_assert_uint_eq(conf.nr_servers, table[_i].nr);
	ck_assert_uint_eq(conf.nr_bad, table[_i].bad);
	ck_assert_int_eq(conf.use_vc, table[_i].use_vc);
}
END_TEST

START_TEST(many_servers)
{
	char text[1024] = "";
	int i;

	for (i = 0; i < 20; i++)
		sprintf(text + strlen(text), "nameserver 10.0.0.%d\n", i);
	parse(text);
	ck_assert_uint_eq(conf.nr_servers, RESOLV_SERVERS);
}
END_TEST

/* Asked over IPv6 it is the IPv4 address that is asked. */
START_TEST(mapped_address)
{
	parse("nameserver ::ffff:10.0.0.2\n");
	ck_assert_str_eq(server(0), "10.0.0.2");
}
END_TEST

START_TEST(any_bytes)
{
	static const char nuls[] =
		"nameserver\0 10.0.0.2\nnameserver 1\0.1.1.1\n"
		"nameserver 10.0.0.3\0\0";
	char noise[4096];
	unsigned seed = 1;
	size_t i;

	resolv_conf_parse(&conf, nuls, sizeof(nuls) - 1);
	ck_assert_uint_eq(conf.nr_servers, 1);
	for (i = 0; i < sizeof(noise); i++) {
		seed = seed * 1103515245 + 12345;
		noise[i] = (char)(seed >> 16);
	}
	resolv_conf_parse(&conf, noise, sizeof(noise));
	ck_assert_uint_eq(conf.nr_servers, 0);
}
END_TEST

static void put_file(const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

static const char *file_text(void)
{
	static char text[4096];
	FILE *f = fopen(path, "r");
	size_t n;

	ck_assert_ptr_nonnull(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

START_TEST(states)
{
	put_file("nameserver 10.0.0.2\n");
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_PRESENT);
	ck_assert_uint_eq(conf.nr_servers, 1);
	put_file("");
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_PRESENT);
	ck_assert_uint_eq(conf.nr_servers, 0);
	unlink(path);
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_MISSING);
	ck_assert_int_eq(
		resolv_conf_read(&conf, "/nonexistent/dir/x"), RESOLV_MISSING);
	ck_assert_int_eq(symlink("../run/none/resolv.conf", path), 0);
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_DANGLING);
	unlink(path);
	ck_assert_int_eq(symlink("resolv.conf", path), 0);
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_UNREADABLE);
	ck_assert_int_eq(errno, ELOOP);
	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_UNREADABLE);
	ck_assert_int_eq(errno, EINVAL);
	ck_assert_int_eq(resolv_conf_read(&conf, dir), RESOLV_UNREADABLE);
	ck_assert_int_eq(
		resolv_conf_read(&conf, "/dev/zero"), RESOLV_UNREADABLE);
}
END_TEST

/* A file without end is read up to the limit. */
START_TEST(endless_file)
{
	FILE *f = fopen(path, "w");
	int i;

	for (i = 0; i < 100000; i++)
		fputs("# nothing here\n", f);
	fputs("nameserver 10.0.0.2\n", f);
	fclose(f);
	ck_assert_int_eq(resolv_conf_read(&conf, path), RESOLV_PRESENT);
	ck_assert_uint_eq(conf.nr_servers, 0);
}
END_TEST

START_TEST(create_missing)
{
	struct stat st;

	ck_assert_int_eq(
		resolv_conf_create(path, RESOLV_MISSING, "nameserver ::1\n"),
		0);
	ck_assert_str_eq(file_text(), "nameserver ::1\n");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0644);
	/* one that has appeared meanwhile is somebody else's */
	ck_assert_int_eq(
		resolv_conf_create(path, RESOLV_MISSING, "other\n"), 0);
	ck_assert_str_eq(file_text(), "nameserver ::1\n");
}
END_TEST

START_TEST(create_dangling)
{
	struct stat st;

	ck_assert_int_eq(symlink("/nonexistent/dir/resolv.conf", path), 0);
	ck_assert_int_eq(
		resolv_conf_create(path, RESOLV_DANGLING, "nameserver ::1\n"),
		0);
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	ck_assert_str_eq(file_text(), "nameserver ::1\n");
}
END_TEST

START_TEST(create_fails)
{
	ck_assert_int_eq(resolv_conf_create("/nonexistent/dir/resolv.conf",
				 RESOLV_MISSING, "x"),
		-1);
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_int_eq(
		resolv_conf_create("/proc/resolv.conf", RESOLV_MISSING, "x"),
		-1);
}
END_TEST

START_TEST(rewrite)
{
	static const char old[] = "# mine\nsearch a.example\nnameserver "
				  "10.0.0.2\noptions ndots:3\nnameserver ::9";
	static const struct ip_port one = {
		.family = AF_INET, .port = 53, .ip = {127, 0, 0, 1}};
	static const char expected[] = "nameserver 127.0.0.1\n# mine\n"
				       "search a.example\noptions ndots:3\n";
	char out[200];
	size_t len, size;

	len = resolv_conf_rewrite(
		out, sizeof(out), old, sizeof(old) - 1, &one, 1);
	ck_assert_uint_eq(len, sizeof(expected) - 1);
	ck_assert_mem_eq(out, expected, len);
	for (size = 1; size < len; size++)
		ck_assert_uint_eq(resolv_conf_rewrite(out, size, old,
					  sizeof(old) - 1, &one, 1),
			0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("resolv_conf");
	TCase *tc = tcase_create("text");

	tcase_add_test(tc, usual_file);
	tcase_add_loop_test(tc, what_counts, 0, 19);
	tcase_add_test(tc, many_servers);
	tcase_add_test(tc, mapped_address);
	tcase_add_test(tc, any_bytes);
	tcase_add_test(tc, rewrite);
	suite_add_tcase(s, tc);
	tc = tcase_create("file");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, states);
	tcase_add_test(tc, endless_file);
	tcase_add_test(tc, create_missing);
	tcase_add_test(tc, create_dangling);
	tcase_add_test(tc, create_fails);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
