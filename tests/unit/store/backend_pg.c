/* SPDX-License-Identifier: Apache-2.0 */
/* A PostgreSQL server of our own: in a temporary directory, on a socket there and nowhere else,
 * under a user that is not root, which it refuses.  It ends with the test, however that ends. */
#include <fcntl.h>
#include <glib/gstdio.h>
#include <grp.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pg_server.h"

static struct {
	char *dir, *data, *bin;
	uid_t uid;
	gid_t gid;
	pid_t pid;
} server;

static char *
find_programs(void)
{
	g_autoptr(GDir) dir = g_dir_open("/usr/lib/postgresql", 0, NULL);
	const char *version;
	while (dir != NULL && (version = g_dir_read_name(dir)) != NULL) {
		char *bin = g_build_filename("/usr/lib/postgresql", version, "bin", NULL);
		g_autofree char *initdb = g_build_filename(bin, "initdb", NULL);
		g_autofree char *postgres = g_build_filename(bin, "postgres", NULL);
		if (access(initdb, X_OK) == 0 && access(postgres, X_OK) == 0)
			return bin;
		g_free(bin);
	}
	return NULL;
}

const char *
backend_missing(void)
{
	if (server.bin == NULL)
		server.bin = find_programs();
	return server.bin == NULL ? "the programs of a PostgreSQL server are not installed" : NULL;
}

static pid_t
start_program(const char *name, const char *const *args)
{
	g_autofree char *path = g_build_filename(server.bin, name, NULL);
	g_autofree char *log = g_build_filename(server.dir, "log", NULL);
	g_autoptr(GPtrArray) argv = g_ptr_array_new();
	g_ptr_array_add(argv, path);
	for (; *args != NULL; args++)
		g_ptr_array_add(argv, (char *)*args);
	g_ptr_array_add(argv, NULL);
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0666);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir("/") != 0)
		_exit(126);
	if (geteuid() == 0 &&
	    (setgroups(0, NULL) != 0 || setgid(server.gid) != 0 || setuid(server.uid) != 0))
		_exit(126);
	prctl(PR_SET_PDEATHSIG, SIGQUIT);
	execv(path, (char **)argv->pdata);
	_exit(127);
}

static void
show_log(void)
{
	g_autofree char *log = g_build_filename(server.dir, "log", NULL);
	g_autofree char *text = NULL;
	if (g_file_get_contents(log, &text, NULL, NULL))
		fprintf(stderr, "%s\n", text);
}

char *
pg_server_url(const char *database)
{
	return g_strdup_printf("postgresql+psycopg://postgres@/%s?host=%s", database, server.dir);
}

PGconn *
pg_server_connect(void)
{
	g_autofree char *info = g_strdup_printf(
		"host=%s user=postgres dbname=postgres options='-c search_path=koukan -c client_min_messages=error'",
		server.dir);
	return PQconnectdb(info);
}

void
pg_server_start(void)
{
	static const char *const SETTINGS[] = {"max_connections=60",     "shared_buffers=32MB",
					       "listen_addresses=",      "autovacuum_naptime=5s",
					       "log_min_messages=fatal", "deadlock_timeout=200ms"};
	g_autoptr(GPtrArray) args = g_ptr_array_new_with_free_func(g_free);
	g_ptr_array_add(args, g_strdup("-D"));
	g_ptr_array_add(args, g_strdup(server.data));
	for (size_t i = 0; i < G_N_ELEMENTS(SETTINGS); i++) {
		g_ptr_array_add(args, g_strdup("-c"));
		g_ptr_array_add(args, g_strdup(SETTINGS[i]));
	}
	g_ptr_array_add(args, g_strdup("-c"));
	g_ptr_array_add(args, g_strdup_printf("unix_socket_directories=%s", server.dir));
	g_ptr_array_add(args, NULL);
	server.pid = start_program("postgres", (const char *const *)args->pdata);
	for (int i = 0;; i++) {
		PGconn *conn = pg_server_connect();
		bool ok = PQstatus(conn) == CONNECTION_OK;
		PQfinish(conn);
		if (ok)
			return;
		if (i > 600 || waitpid(server.pid, NULL, WNOHANG) == server.pid) {
			show_log();
			fail_msg("the server does not start");
		}
		g_usleep(50000);
	}
}

void
pg_server_stop(int signum)
{
	if (server.pid == 0)
		return;
	assert_int_equal(kill(server.pid, signum), 0);
	assert_int_equal(waitpid(server.pid, NULL, 0), server.pid);
	server.pid = 0;
}

int
backend_group_set_up(void **state)
{
	(void)state;
	const struct passwd *user = getpwnam("postgres");
	if (user == NULL)
		user = getpwnam("nobody");
	assert_non_null(user);
	server.uid = user->pw_uid;
	server.gid = user->pw_gid;
	server.dir = g_dir_make_tmp("koukan-pg-XXXXXX", NULL);
	server.data = g_build_filename(server.dir, "data", NULL);
	if (geteuid() == 0)
		assert_int_equal(chown(server.dir, server.uid, server.gid), 0);
	assert_int_equal(g_chmod(server.dir, 0755), 0);
	const char *const args[] = {"-D",    server.data, "-U",   "postgres",         "-A",
				    "trust", "-E",        "UTF8", "--locale=C.UTF-8", "-N",
				    NULL};
	pid_t pid = start_program("initdb", args);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status != 0) {
		show_log();
		fail_msg("initdb: %d", status);
	}
	pg_server_start();
	return 0;
}

static void
remove_tree(const char *path)
{
	g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
	const char *name;
	while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
		g_autofree char *inner = g_build_filename(path, name, NULL);
		if (g_file_test(inner, G_FILE_TEST_IS_DIR) &&
		    !g_file_test(inner, G_FILE_TEST_IS_SYMLINK))
			remove_tree(inner);
		else
			(void)g_unlink(inner);
	}
	(void)g_rmdir(path);
}

int
backend_group_tear_down(void **state)
{
	(void)state;
	pg_server_stop(SIGINT);
	remove_tree(server.dir);
	g_free(server.dir);
	g_free(server.data);
	g_free(server.bin);
	return 0;
}

/* ---- what the fixture wants ---- */

static int64_t
run(const char *text, bool may_fail)
{
	PGconn *conn = pg_server_connect();
	PGresult *result = PQexec(conn, text);
	ExecStatusType status = PQresultStatus(result);
	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && !may_fail)
		fail_msg("%s: %s", text, PQerrorMessage(conn));
	int64_t value = 0;
	if (status == PGRES_TUPLES_OK && PQntuples(result) > 0)
		value = PQgetvalue(result, 0, 0)[0] == 't'
				? 1
				: g_ascii_strtoll(PQgetvalue(result, 0, 0), NULL, 10);
	PQclear(result);
	PQfinish(conn);
	return value;
}

void
backend_make_url(Fixture *f)
{
	f->url = pg_server_url("postgres");
	run("DROP SCHEMA IF EXISTS koukan CASCADE", false);
}

int64_t
sql(const Fixture *f, const char *text)
{
	(void)f;
	return run(text, false);
}

void
backend_after_crash(const Fixture *f)
{
	sql(f, "UPDATE session SET seen=seen-interval '1 day'");
}

void
backend_remove(Fixture *f)
{
	remove_tree(f->dir);
}
