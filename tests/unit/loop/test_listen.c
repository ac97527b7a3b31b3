/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "loop/listen.h"

typedef struct Rig {
	Workers *workers;
	atomic_int accepted;
	atomic_int wrong;         /* accepted with something missing */
	atomic_uint seen_workers; /* bit set */
	atomic_bool keep;
	int kept[64];
	atomic_int kept_count;
} Rig;

static void
on_accept(void *arg, Worker *worker, int fd, const NetAddr *peer)
{
	Rig *rig = arg;
	int on = 0;
	socklen_t len = sizeof(on);
	char text[NET_ADDR_TEXT_MAX];
	net_addr_format(peer, text);
	if (worker_current() != worker || !net_is_loopback(text) || net_addr_port(peer) == 0 ||
	    (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0 || (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0 ||
	    getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) != 0 || on == 0)
		atomic_fetch_add(&rig->wrong, 1);
	atomic_fetch_or(&rig->seen_workers, 1u << worker_index(worker));
	if (atomic_load(&rig->keep))
		rig->kept[atomic_fetch_add(&rig->kept_count, 1)] = fd;
	else
		close(fd);
	atomic_fetch_add(&rig->accepted, 1);
}

/* A blocking connection to a literal; -1 when refused. */
static int
dial(const char *literal, uint16_t port)
{
	NetAddr to;
	assert_true(net_addr_parse(literal, port, &to));
	int fd = socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	if (connect(fd, (struct sockaddr *)&to.storage, to.len) == 0)
		return fd;
	close(fd);
	return -1;
}

static void
await_accepted(Rig *rig, int count)
{
	Deadline limit = clock_after(10 * USEC_PER_SEC);
	struct timespec nap = {.tv_nsec = 1000000};
	while (atomic_load(&rig->accepted) < count && !clock_passed(limit))
		nanosleep(&nap, NULL);
	assert_int_equal(atomic_load(&rig->accepted), count);
}

static bool
has_ipv6(void)
{
	NetAddr addr;
	assert_true(net_addr_parse("::1", 0, &addr));
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool fine = bind(fd, (struct sockaddr *)&addr.storage, addr.len) == 0;
	close(fd);
	return fine;
}

static void
test_localhost(void **state)
{
	(void)state;
	static const struct {
		const char *host;
		bool v4;
		bool v6;
	} cases[] = {
		{"localhost", true, true}, {"LocalHost", true, true},  {"", true, true},
		{"*", true, true},         {"127.0.0.1", true, false}, {"::1", false, true},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		if (!has_ipv6() && !cases[i].v4)
			continue;
		Rig rig = {0};
		rig.workers = workers_new(2, NULL);
		/* Opened before and after the start. */
		if (i % 2 == 0)
			assert_true(workers_start(rig.workers, NULL));
		GError *trouble = NULL;
		Listener *listener = listener_open(rig.workers, cases[i].host, 0, on_accept, &rig,
						   &trouble);
		assert_null(trouble);
		if (i % 2 == 1)
			assert_true(workers_start(rig.workers, NULL));
		uint16_t port = listener_port(listener);
		assert_int_not_equal(port, 0);
		int want = 0;
		for (int n = 0; n < 40; n++) {
			bool v6 = n % 2 == 1;
			if (v6 && !has_ipv6())
				continue;
			int fd = dial(v6 ? "::1" : "127.0.0.1", port);
			if (!(v6 ? cases[i].v6 : cases[i].v4)) {
				assert_int_equal(fd, -1);
				continue;
			}
			assert_true(fd >= 0);
			want++;
			close(fd);
		}
		await_accepted(&rig, want);
		assert_int_equal(atomic_load(&rig.wrong), 0);
		assert_int_equal(atomic_load(&rig.seen_workers), 3); /* both take part */
		listener_free(listener);
		assert_int_equal(dial(cases[i].v4 ? "127.0.0.1" : "::1", port), -1);
		workers_free(rig.workers);
	}
}

static void
test_errors(void **state)
{
	(void)state;
	Rig rig = {0};
	rig.workers = workers_new(2, NULL);
	Listener *listener = listener_open(rig.workers, "localhost", 0, on_accept, &rig, NULL);
	assert_non_null(listener);
	uint16_t port = listener_port(listener);
	g_autofree char *in_use = g_strdup_printf(
		"cannot listen on 127.0.0.1:%u: Address already in use", port);
	const struct {
		const char *host;
		uint16_t port;
		const char *want;
	} cases[] = {
		{"127.0.0.1", port, in_use},
		{"localhost", port, in_use},
		{"192.0.2.1", 0, "cannot listen on 192.0.2.1:0: Cannot assign requested address"},
		{"2001:db8::1", 0, "cannot listen on [2001:db8::1]:0: "},
		{"no such host", 25, "cannot listen on no such host: "},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) trouble = NULL;
		assert_null(listener_open(rig.workers, cases[i].host, cases[i].port, on_accept,
					  &rig, &trouble));
		assert_non_null(trouble);
		assert_true(g_str_has_prefix(trouble->message, cases[i].want));
	}
	/* Taken only on one address: the whole is refused, and nothing stays bound. */
	NetAddr addr;
	assert_true(net_addr_parse("127.0.0.1", 0, &addr));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr.storage, addr.len), 0);
	assert_int_equal(listen(fd, 1), 0);
	addr.len = sizeof(addr.storage);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr.storage, &addr.len), 0);
	uint16_t taken = net_addr_port(&addr);
	assert_null(listener_open(rig.workers, "localhost", taken, on_accept, &rig, NULL));
	close(fd);
	Listener *second = listener_open(rig.workers, "localhost", taken, on_accept, &rig, NULL);
	assert_non_null(second);
	listener_free(second);
	/* Free again at once. */
	second = listener_open(rig.workers, "localhost", taken, on_accept, &rig, NULL);
	assert_non_null(second);
	listener_free(second);
	listener_free(listener); /* never started */
	listener_free(NULL);
	workers_free(rig.workers);
}

/* Sockets of somebody else: shared by all workers, none of which takes everything. */
static void
on_shared(void *arg, Worker *worker, int fd, const NetAddr *peer)
{
	Rig *rig = arg;
	on_accept(arg, worker, fd, peer);
	/* Who has one holds still until another worker has the second. */
	Deadline limit = clock_after(10 * USEC_PER_SEC);
	struct timespec nap = {.tv_nsec = 1000000};
	while (atomic_load(&rig->seen_workers) != 3 && !clock_passed(limit))
		nanosleep(&nap, NULL);
}

static void
test_open_fds(void **state)
{
	(void)state;
	static const char *const hosts[] = {"127.0.0.1", "::1"};
	Rig rig = {0};
	rig.workers = workers_new(2, NULL);
	assert_true(workers_start(rig.workers, NULL));
	g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(int));
	size_t count = has_ipv6() ? 2 : 1;
	uint16_t port = 0;
	int manager[2];
	for (size_t i = 0; i < count; i++) {
		g_autoptr(GArray) one = NULL;
		assert_true(listener_bind_all(hosts[i], &port, &one, NULL));
		assert_int_equal(one->len, 1);
		int off = 0;
		int fd = g_array_index(one, int, 0);
		assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)), 0);
		manager[i] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		g_array_append_val(fds, fd);
	}
	Listener *listener = listener_open_fds(rig.workers, fds, on_shared, &rig);
	assert_int_equal(listener_port(listener), port);
	for (int n = 0; n < 20; n++) {
		int fd = dial(hosts[(size_t)n % count], port);
		assert_true(fd >= 0);
		close(fd);
	}
	await_accepted(&rig, 20);
	assert_int_equal(atomic_load(&rig.wrong), 0);
	assert_int_equal(atomic_load(&rig.seen_workers), 3);
	listener_free(listener);
	/* The manager's listens on: clients wait for the next process. */
	int fd = dial("127.0.0.1", port);
	assert_true(fd >= 0);
	close(fd);
	for (size_t i = 0; i < count; i++)
		close(manager[i]);
	assert_int_equal(dial("127.0.0.1", port), -1);
	assert_int_equal(atomic_load(&rig.accepted), 20);
	workers_free(rig.workers);
}

static void
close_all(GArray *fds)
{
	for (guint i = 0; i < fds->len; i++)
		close(g_array_index(fds, int, i));
	g_array_free(fds, TRUE);
}

static void
test_bind_all(void **state)
{
	(void)state;
	uint16_t port = 0;
	GArray *first = NULL;
	GArray *second = NULL;
	GArray *other = NULL;
	assert_true(listener_bind_all("localhost", &port, &first, NULL));
	assert_int_not_equal(port, 0);
	assert_int_equal(first->len, has_ipv6() ? 2 : 1);
	assert_true(listener_bind_all("localhost", &port, &second, NULL)); /* the next worker */
	assert_int_equal(second->len, first->len);
	for (guint i = 0; i < first->len; i++)
		assert_true((fcntl(g_array_index(first, int, i), F_GETFL) & O_NONBLOCK) != 0);
	int fd = dial("127.0.0.1", port); /* listening */
	assert_true(fd >= 0);
	close(fd);
	close_all(first);
	/* A stranger's socket is not ours, though it has a descriptor's number we once had. */
	GError *trouble = NULL;
	assert_false(listener_bind_all("localhost", &port, &other, &trouble));
	assert_true(g_error_matches(trouble, K_ERROR, K_ERROR_IO));
	g_error_free(trouble);
	close_all(second);
	assert_true(listener_bind_all("localhost", &port, &other, NULL));
	close_all(other);
}

static void
test_no_descriptors(void **state)
{
	(void)state;
	Rig rig = {.keep = true};
	rig.workers = workers_new(1, NULL);
	assert_true(workers_start(rig.workers, NULL));
	Listener *listener = listener_open(rig.workers, "127.0.0.1", 0, on_accept, &rig, NULL);
	int fd = dial("127.0.0.1", listener_port(listener));
	await_accepted(&rig, 1);
	/* From here on there is no descriptor for anybody; the clients' were made before. */
	NetAddr to;
	assert_true(net_addr_parse("127.0.0.1", listener_port(listener), &to));
	int clients[3];
	for (int i = 0; i < 3; i++)
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct rlimit saved;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
	struct rlimit none = {.rlim_cur = 0, .rlim_max = saved.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	struct timespec before;
	struct timespec after;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	for (int i = 0; i < 3; i++)
		assert_int_equal(connect(clients[i], (struct sockaddr *)&to.storage, to.len), 0);
	struct timespec nap = {.tv_nsec = 250000000};
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
	int64_t spent = (after.tv_sec - before.tv_sec) * 1000 +
			(after.tv_nsec - before.tv_nsec) / 1000000;
	assert_true(spent < 100); /* no busy loop */
	/* When there are descriptors again, those who still wait are served. */
	int more = dial("127.0.0.1", listener_port(listener));
	Deadline limit = clock_after(10 * USEC_PER_SEC);
	struct timespec tick = {.tv_nsec = 1000000};
	while (atomic_load(&rig.accepted) < 2 && !clock_passed(limit))
		nanosleep(&tick, NULL);
	assert_true(atomic_load(&rig.accepted) >= 2);
	for (int i = 0; i < 3; i++)
		close(clients[i]);
	close(more);
	close(fd);
	listener_free(listener);
	workers_free(rig.workers);
	for (int i = 0; i < atomic_load(&rig.kept_count); i++)
		close(rig.kept[i]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_localhost),      cmocka_unit_test(test_errors),
		cmocka_unit_test(test_open_fds),       cmocka_unit_test(test_bind_all),
		cmocka_unit_test(test_no_descriptors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
