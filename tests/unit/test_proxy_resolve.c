/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/resolve.h"

#include "proxy/connect.h"
#include "proxy/nameservers.h"

#include "suite.h"
#include "test_proxy_dns.h"

#include <arpa/inet.h>

static struct ev_loop *loop;
static struct dns dns;
static struct resolver *resolver;

static struct {
	int called;
	enum resolve_status status;
	struct ip_port addrs[CONNECT_ADDRS_MAX];
	size_t nr;
} got;

static void on_answer(void *arg, enum resolve_status status, const char *why,
	const struct ip_port *addrs, size_t nr)
{
	ck_assert_ptr_eq(arg, &got);
	ck_assert_ptr_nonnull(why);
	got.called++;
	got.status = status;
	got.nr = nr;
	if (nr > 0)
		memcpy(got.addrs, addrs, nr * sizeof(*addrs));
}

static void setup(void)
{
	loop = ev_loop_new(EVBACKEND_EPOLL);
	ck_assert_int_eq(resolve_library_init(), 0);
	dns_start(&dns, loop);
	resolver = resolver_new(loop, dns.conf);
	ck_assert_ptr_nonnull(resolver);
	memset(&got, 0, sizeof(got));
}

static void teardown(void)
{
	if (resolver)
		resolver_free(resolver);
	dns_stop(&dns, loop);
	resolve_library_cleanup();
	ev_loop_destroy(loop);
}

static bool is_called(void *arg)
{
	return got.called > 0;
}

static void ask(const char *name)
{
	struct resolve_query *q;

	memset(&got, 0, sizeof(got));
	ev_now_update(loop);
	q = resolve_start(resolver, name, 80, on_answer, &got);
	ck_assert_int_eq(q == NULL, got.called);
	ck_assert(net_turn_until(loop, is_called, NULL));
	ck_assert_int_eq(got.called, 1);
}

static bool has(const char *ip)
{
	struct ip_port want;

	memset(&want, 0, sizeof(want));
	want.port = 80;
	want.family = strchr(ip, ':') ? AF_INET6 : AF_INET;
	ck_assert_int_eq(inet_pton(want.family, ip, want.ip), 1);
	for (size_t i = 0; i < got.nr; i++)
		if (ip_port_equal(&got.addrs[i], &want))
			return true;
	return false;
}

START_TEST(addresses)
{
	ask("good.test");
	ck_assert_int_eq(got.status, RESOLVE_OK);
	ck_assert_uint_eq(got.nr, 2);
	ck_assert(has("127.0.0.1"));
	ck_assert(has("::1"));
	ask("four.test");
	ck_assert_uint_eq(got.nr, 1);
	ck_assert(has("127.0.0.1"));
	ask("many.test");
	ck_assert_uint_eq(got.nr, 20);
	ck_assert(has("127.0.0.20"));
	/* The hosts file needs no server. */
	dns.asked = 0;
	ask("localhost");
	ck_assert_int_eq(got.status, RESOLVE_OK);
	ck_assert(has("127.0.0.1"));
	ck_assert_int_eq(dns.asked, 0);
}
END_TEST

START_TEST(failures)
{
	char label[80];

	ask("nx.test");
	ck_assert_int_eq(got.status, RESOLVE_NO_ADDRESS);
	ck_assert_uint_eq(got.nr, 0);
	ask("empty.test");
	ck_assert_int_eq(got.status, RESOLVE_NO_ADDRESS);
	ask("fail.test");
	ck_assert_int_eq(got.status, RESOLVE_FAILED);
	ask("silent.test");
	ck_assert_int_eq(got.status, RESOLVE_TIMED_OUT);
	/* Not names at all. */
	memset(label, 'a', 70);
	memcpy(label + 70, ".test", sizeof(".test"));
	ask(label);
	ck_assert_int_eq(got.status, RESOLVE_NO_ADDRESS);
	ask("a..b");
	ck_assert_int_eq(got.status, RESOLVE_NO_ADDRESS);
}
END_TEST

static bool was_asked(void *arg)
{
	return dns.asked >= 2;
}

/* A question may be given up at any time; others are not touched. */
START_TEST(cancelled)
{
	struct resolve_query *q =
		resolve_start(resolver, "good.test", 80, on_answer, &got);

	ck_assert_ptr_nonnull(q);
	resolve_cancel(q);
	ck_assert(net_turn_until(loop, was_asked, NULL));
	net_turn(loop, 5);
	ck_assert_int_eq(got.called, 0);
	q = resolve_start(resolver, "silent.test", 80, on_answer, &got);
	ck_assert_ptr_nonnull(q);
	resolve_cancel(q);
	ask("four.test");
	ck_assert_int_eq(got.status, RESOLVE_OK);
	/* The silent one is still open. */
	resolver_free(resolver);
	resolver = NULL;
	ck_assert_int_eq(got.called, 1);
}
END_TEST

/* Freeing the resolver answers what is open. */
START_TEST(freed)
{
	ck_assert_ptr_nonnull(
		resolve_start(resolver, "silent.test", 80, on_answer, &got));
	resolver_free(resolver);
	resolver = NULL;
	ck_assert_int_eq(got.called, 1);
	ck_assert_int_eq(got.status, RESOLVE_FAILED);
}
END_TEST

START_TEST(too_many)
{
	int called = 0;

	for (int i = 0; i < RESOLVE_MAX; i++) {
		struct resolve_query *q = resolve_start(
			resolver, "silent.test", 80, on_answer, &got);

		ck_assert_ptr_nonnull(q);
		resolve_cancel(q);
		called += got.called;
	}
	ck_assert_int_eq(called, 0);
	ask("good.test");
	ck_assert_int_eq(got.status, RESOLVE_FAILED);
}
END_TEST

static bool both_called(void *arg)
{
	return got.called >= 2;
}

/* resolv.conf is read again when it changes, and a question that is open on
 * the old servers is still answered. */
START_TEST(changed_conf)
{
	struct resolve_query *q;
	char other[80];

	q = resolve_start(resolver, "silent.test", 80, on_answer, &got);
	ck_assert_ptr_nonnull(q);
	/* Nobody answers there. */
	snprintf(other, sizeof(other), "%s.new", dns.conf);
	dns_write_conf(
		other, "nameserver 127.0.0.9\noptions timeout:1 attempts:1\n");
	ck_assert_int_eq(rename(other, dns.conf), 0);
	dns.asked = 0;
	/* Some versions of c-ares see at once that it is refused. */
	resolve_start(resolver, "good.test", 80, on_answer, &got);
	ck_assert(net_turn_until(loop, is_called, NULL));
	ck_assert_int_ne(got.status, RESOLVE_OK);
	dns_write_conf(
		dns.conf, "# again\nnameserver 127.0.0.1\noptions timeout:1\n");
	ck_assert(net_turn_until(loop, both_called, NULL));
	ask("good.test");
	ck_assert_int_eq(got.status, RESOLVE_OK);
}
END_TEST

/* ---- the host's own servers ---- */

static const struct {
	const char *conf; /* NULL: no file */
	const char *servers[4];
} confs[] = {
	{NULL, {"127.0.0.1"}},
	{"", {"127.0.0.1"}},
	{"# nameserver 192.0.2.1\nsearch a b\n", {"127.0.0.1"}},
	{"nameserver 192.0.2.1\n", {"192.0.2.1"}},
	{"nameserver\t192.0.2.1  # x\nnameserver 2001:db8::1",
		{"192.0.2.1", "2001:db8::1"}},
	{" nameserver 192.0.2.1\nnameserver x\nnameserver\n", {"192.0.2.1"}},
	{"nameservers 192.0.2.1\nnameserver 192.0.2.2\r\n", {"192.0.2.2"}},
	{"nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n"
	 "nameserver 192.0.2.4\n",
		{"192.0.2.1", "192.0.2.2", "192.0.2.3"}},
};

START_TEST(host_servers)
{
	const struct ip_port *addr;
	struct nameservers ns;
	size_t nr = 0;
	char ip[INET6_ADDRSTRLEN];

	if (confs[_i].conf)
		dns_write_conf(dns.conf, confs[_i].conf);
	else
		ck_assert_int_eq(unlink(dns.conf), 0);
	nameservers_init(&ns, dns.conf);
	ck_assert_uint_ge(nameservers_get(&ns, &addr), 1);
	for (; confs[_i].servers[nr]; nr++) {
		inet_ntop(addr[nr].family, addr[nr].ip, ip, sizeof(ip));
		ck_assert_str_eq(ip, confs[_i].servers[nr]);
		ck_assert_uint_eq(addr[nr].port, 53);
	}
	ck_assert_uint_eq(nameservers_get(&ns, &addr), nr);
	/* A change is seen. */
	dns_write_conf(dns.conf, "nameserver 192.0.2.99\nnameserver ::1\n");
	ck_assert_uint_eq(nameservers_get(&ns, &addr), 2);
	ck_assert_uint_eq(addr[0].ip[3], 99);
}
END_TEST

START_TEST(scoped_server)
{
	const struct ip_port *addr;
	struct nameservers ns;

	dns_write_conf(dns.conf, "nameserver fe80::1%lo\n"
				 "nameserver fe80::2%7\n");
	nameservers_init(&ns, dns.conf);
	ck_assert_uint_eq(nameservers_get(&ns, &addr), 2);
	ck_assert_uint_eq(addr[0].scope, if_nametoindex("lo"));
	ck_assert_uint_eq(addr[1].scope, 7);
}
END_TEST

START_TEST(host_options)
{
	const struct ip_port *addr;
	struct nameservers ns;

	dns_write_conf(dns.conf, "options\noptions timeout: attempts:x\n");
	nameservers_init(&ns, dns.conf);
	nameservers_get(&ns, &addr);
	ck_assert_uint_eq(ns.timeout, 5);
	ck_assert_uint_eq(ns.attempts, 2);
	dns_write_conf(dns.conf, "options ndots:2 timeout:3 use-vc\n"
				 "options attempts:4\n");
	nameservers_get(&ns, &addr);
	ck_assert_uint_eq(ns.timeout, 3);
	ck_assert_uint_eq(ns.attempts, 4);
	dns_write_conf(dns.conf, "options timeout:0 attempts:99999\n");
	nameservers_get(&ns, &addr);
	ck_assert_uint_eq(ns.timeout, 5);
	ck_assert_uint_eq(ns.attempts, 5);
}
END_TEST

START_TEST(reserved_name)
{
	size_t first = 9;

	ck_assert(is_resolver_name("resolver.proxy.internal", &first));
	ck_assert_uint_eq(first, 0);
	ck_assert(is_resolver_name("2.resolver.proxy.internal", &first));
	ck_assert_uint_eq(first, 1);
	ck_assert(is_resolver_name("3.resolver.proxy.internal", &first));
	ck_assert_uint_eq(first, 2);
	ck_assert(!is_resolver_name("4.resolver.proxy.internal", &first));
	ck_assert(!is_resolver_name("1.resolver.proxy.internal", &first));
	ck_assert(!is_resolver_name("2resolver.proxy.internal", &first));
	ck_assert(is_resolver_name("Resolver.PROXY.internal.", &first));
	ck_assert(!is_resolver_name("resolver.proxy.internal..", &first));
	ck_assert(!is_resolver_name("resolver.proxy.internal.org", &first));
	ck_assert(!is_resolver_name("resolver.proxy.interna", &first));
	ck_assert(!is_resolver_name("xresolver.proxy.internal", &first));
	ck_assert(!is_resolver_name("", &first));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proxy resolve");
	TCase *tc = tcase_create("resolve");

	if (!net_isolate())
		return 77; /* skipped */
	tcase_set_timeout(tc, 3 * WAIT_SECONDS);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, addresses);
	tcase_add_test(tc, failures);
	tcase_add_test(tc, cancelled);
	tcase_add_test(tc, freed);
	tcase_add_test(tc, too_many);
	tcase_add_test(tc, changed_conf);
	tcase_add_loop_test(
		tc, host_servers, 0, (int)(sizeof(confs) / sizeof(confs[0])));
	tcase_add_test(tc, scoped_server);
	tcase_add_test(tc, host_options);
	tcase_add_test(tc, reserved_name);
	suite_add_tcase(s, tc);
	return suite_run(s);
}
