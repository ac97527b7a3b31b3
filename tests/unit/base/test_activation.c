/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/activation.h"
#include "base/error.h"

#define HIGH 200 /* descriptors that stay out of the way of those handed over */

/* ---- sockets: each case in a process of its own, which has the descriptors from 3 on ---- */

typedef struct Case {
	const char *name;
	const char *kinds; /* 4, 6: listening; b: bound only; d: datagram; u: local; n: not open */
	const char *pid;   /* NULL: not set; "self" */
	const char *fds, *names;
	const char *ask; /* names that are asked for, by blanks */
	const char *want;
} Case;

static int
make_socket(char kind)
{
	if (kind == 'u') {
		const struct sockaddr_un local = {.sun_family = AF_UNIX};
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		(void)bind(fd, (const struct sockaddr *)&local, sizeof(sa_family_t));
		(void)listen(fd, 1);
		return fd;
	}
	bool v6 = kind == '6';
	const struct sockaddr_in in4 = {.sin_family = AF_INET,
					.sin_addr = {htonl(INADDR_LOOPBACK)}};
	const struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
	int fd = socket(v6 ? AF_INET6 : AF_INET, kind == 'd' ? SOCK_DGRAM : SOCK_STREAM, 0);
	if (v6)
		(void)bind(fd, (const struct sockaddr *)&in6, sizeof(in6));
	else
		(void)bind(fd, (const struct sockaddr *)&in4, sizeof(in4));
	if (kind == '4' || v6)
		(void)listen(fd, 1);
	return fd;
}

static void
set_env(const char *name, const char *value)
{
	if (value != NULL)
		g_setenv(name, value, TRUE);
	else
		g_unsetenv(name);
}

static void
hand_over(const Case *c)
{
	g_autofree char *self = g_strdup_printf("%d", (int)getpid());
	for (int i = 0; c->kinds[i] != '\0'; i++) {
		int fd = c->kinds[i] != 'n' ? make_socket(c->kinds[i]) : -1;
		int high = fd >= 0 ? fcntl(fd, F_DUPFD, HIGH + 10) : -1;
		(void)close(fd);
		(void)close(ACTIVATION_FIRST_FD + i);
		if (high >= 0)
			(void)dup2(high, ACTIVATION_FIRST_FD + i);
		(void)close(high);
	}
	set_env("LISTEN_PID", g_strcmp0(c->pid, "self") == 0 ? self : c->pid);
	set_env("LISTEN_FDS", c->fds);
	set_env("LISTEN_FDNAMES", c->names);
}

static bool
is_prepared(int fd)
{
	return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

/* What happened, as text. */
static char *
act(const Case *c)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GString) out = g_string_new(NULL);
	g_autoptr(Activation) activation = activation_take(&error);
	if (activation == NULL)
		return g_strdup(error->message);
	if (c->pid != NULL && strcmp(c->pid, "self") == 0 &&
	    (getenv("LISTEN_FDS") != NULL || getenv("LISTEN_PID") != NULL ||
	     getenv("LISTEN_FDNAMES") != NULL))
		return g_strdup("still in the environment");
	g_auto(GStrv) names = g_strsplit(c->ask, " ", -1);
	for (char **name = names; *name != NULL; name++) {
		g_autoptr(GArray) fds = activation_fds(activation, *name, &error);
		if (fds == NULL)
			return g_strdup(error->message);
		g_string_append_printf(out, "%s=", *name);
		for (guint i = 0; i < fds->len; i++) {
			int fd = g_array_index(fds, int, i);
			g_string_append_printf(out, "%d%s", fd, is_prepared(fd) ? "" : "?");
		}
		g_string_append_c(out, ' ');
	}
	if (!activation_all_taken(activation, &error))
		g_string_append(out, error->message);
	return g_strdup(out->str);
}

static char *
act_apart(const Case *c)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int out = fcntl(ends[1], F_DUPFD, HIGH);
		hand_over(c);
		g_autofree char *text = act(c);
		_exit(write(out, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : 1);
	}
	close(ends[1]);
	char text[1024];
	size_t len = 0;
	for (ssize_t got; (got = read(ends[0], text + len, sizeof(text) - len - 1)) > 0;)
		len += (size_t)got;
	text[len] = '\0';
	close(ends[0]);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	return g_strdup(text);
}

#define GIVEN "(FileDescriptorName= of the .socket unit)"

static const Case cases[] = {
	{"nothing", "", NULL, NULL, NULL, "smtp", "smtp= "},
	{"two names", "44", "self", "2", "smtp:msa", "msa smtp", "msa=4 smtp=3 "},
	{"two of a name", "46", "self", "2", "smtp:smtp", "smtp", "smtp=34 "},
	{"without names", "4", "self", "1", NULL, "unknown", "unknown=3 "},
	{"another process", "4", "1", "1", "smtp", "smtp", "smtp= "},
	{"no process", "4", NULL, "1", "smtp", "smtp", "smtp= "},
	{"a pid that is none", "4", "self?", "1", "smtp", "smtp", "smtp= "},
	{"none of them", "", "self", "0", NULL, "smtp", "smtp= "},
	{"not of that name", "44", "self", "2", "smtp:msa", "mx",
	 "socket activation hands over no socket named 'mx', only 'smtp', 'msa' " GIVEN},
	{"taken twice", "4", "self", "1", "smtp", "smtp smtp",
	 "socket activation hands over no socket named 'smtp', only 'smtp' " GIVEN},
	{"left over", "44", "self", "2", "smtp:msa", "smtp",
	 "smtp=3 socket activation hands over a socket named 'msa', which no SMTP service asks for "
	 "by its key 'socket'"},
	{"too few names", "44", "self", "2", "smtp", "smtp",
	 "socket activation: LISTEN_FDS is 2, but LISTEN_FDNAMES has 1 names: 'smtp'"},
	{"too many names", "4", "self", "1", "smtp:msa", "smtp",
	 "socket activation: LISTEN_FDS is 1, but LISTEN_FDNAMES has 2 names: 'smtp:msa'"},
	{"one too many", "", "self", "65", NULL, "smtp",
	 "socket activation: LISTEN_FDS is '65', at most 64 are taken"},
	{"no number", "4", "self", "1x", NULL, "smtp",
	 "socket activation: LISTEN_FDS is '1x', at most 64 are taken"},
	{"not open", "n", "self", "1", "smtp", "smtp",
	 "socket activation: descriptor 3, 'smtp', is no listening TCP socket"},
	{"not listening", "4b", "self", "2", "smtp:msa", "smtp",
	 "socket activation: descriptor 4, 'msa', is no listening TCP socket"},
	{"datagrams", "d", "self", "1", "smtp", "smtp",
	 "socket activation: descriptor 3, 'smtp', is no listening TCP socket"},
	{"a local socket", "u", "self", "1", "smtp", "smtp",
	 "socket activation: descriptor 3, 'smtp', is no listening TCP socket"},
};

static void
test_sockets(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *got = act_apart(&cases[i]);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s: '%s' instead of '%s'", cases[i].name, got, cases[i].want);
	}
}

/* As many as are allowed. */
static void
test_most_sockets(void **state)
{
	(void)state;
	char kinds[ACTIVATION_MAX + 1];
	g_autoptr(GString) names = g_string_new("n");
	g_autoptr(GString) want = g_string_new("n=");
	memset(kinds, '4', ACTIVATION_MAX);
	kinds[ACTIVATION_MAX] = '\0';
	for (int i = 0; i < ACTIVATION_MAX; i++) {
		g_string_append(names, i > 0 ? ":n" : "");
		g_string_append_printf(want, "%d", ACTIVATION_FIRST_FD + i);
	}
	g_string_append_c(want, ' ');
	const Case all = {"all", kinds, "self", "64", names->str, "n", NULL};
	g_autofree char *got = act_apart(&all);
	assert_string_equal(got, want->str);
}

/* ---- what is told ---- */

/* A socket to be told on; `name` as in NOTIFY_SOCKET. */
static int
listen_at(const char *name)
{
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	size_t len = strlen(name);
	memcpy(local.sun_path, name, len);
	if (name[0] == '@')
		local.sun_path[0] = '\0';
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (const struct sockaddr *)&local,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
			 0);
	return fd;
}

static void
assert_told(const char *name)
{
	static const char text[] = "RELOADING=1\nMONOTONIC_USEC=7";
	g_autoptr(GError) error = NULL;
	int fd = listen_at(name);
	g_setenv("NOTIFY_SOCKET", name, TRUE);
	assert_true(activation_notify(text, &error));
	assert_null(error);
	char got[100];
	ssize_t len = recv(fd, got, sizeof(got), MSG_DONTWAIT);
	assert_int_equal(len, strlen(text));
	assert_memory_equal(got, text, strlen(text));
	close(fd);
}

/* An abstract name of so many bytes, no other process's. */
static char *
long_name(size_t len)
{
	g_autofree char *start = g_strdup_printf("@koukan-test-%d-", (int)getpid());
	GString *name = g_string_new(start);
	while (name->len < len)
		g_string_append_c(name, 'x');
	return g_string_free(name, FALSE);
}

static void
test_notify(void **state)
{
	(void)state;
	char dir[] = "/tmp/koukan-test-XXXXXX";
	assert_non_null(mkdtemp(dir));
	g_autofree char *path = g_build_filename(dir, "notify", NULL);
	assert_told(path);
	g_autoptr(GError) error = NULL;
	assert_false(activation_notify("READY=1", &error)); /* nobody is there any more */
	assert_non_null(strstr(error->message, "Connection refused"));
	g_clear_error(&error);
	unlink(path);
	rmdir(dir);
	g_autofree char *longest = long_name(sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	g_autofree char *too_long = long_name(sizeof(((struct sockaddr_un *)0)->sun_path));
	assert_told(longest);
	const char *const bad[] = {too_long, "relative", "vsock:2:1234"};
	for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
		g_setenv("NOTIFY_SOCKET", bad[i], TRUE);
		assert_false(activation_notify("READY=1", &error));
		assert_non_null(strstr(error->message, "is no address"));
		g_clear_error(&error);
	}
	g_setenv("NOTIFY_SOCKET", "", TRUE);
	assert_true(activation_notify("READY=1", NULL));
	g_unsetenv("NOTIFY_SOCKET");
	assert_true(activation_notify("READY=1", NULL));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_most_sockets),
		cmocka_unit_test(test_notify),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
