/* SPDX-License-Identifier: Apache-2.0 */
/* Two connections on the two ends of a socket pair, one the server, one the client; the key is
 * made on the spot.  Events are written down as in test_conn.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <glib/gstdio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/conn.h"

#define HOST       "mail.example.test"
#define OTHER_HOST "other.wild.example"

typedef struct End End;
typedef void EndHook(End *end, ConnEvent event, const char *data, size_t len);
struct End {
	Conn *conn;
	GString *seen;
	EndHook *hook;
	size_t bytes; /* in DATA mode */
	End *other;
};

typedef struct Rig {
	Workers *workers;
	Worker *worker;
	End server;
	End client;
} Rig;

static char *folder;
static char *cert_path;
static char *key_path;
static char *other_path; /* for OTHER_HOST, with the same key */
static TlsContext *server_context;

static size_t
on_conn(void *arg, Conn *conn, ConnEvent event, const char *data, size_t len)
{
	End *end = arg;
	static const char *const names[] = {"C", "S", "L", "X", "D", "W", "E", "T", "!"};
	if (event == CONN_DATA) {
		end->bytes += len;
	} else {
		g_string_append(end->seen, names[event]);
		if (len > 0 || event == CONN_LINE)
			g_string_append_printf(end->seen, "(%s)", data);
	}
	assert_ptr_equal(end->conn, conn);
	if (end->hook != NULL)
		end->hook(end, event, data, len);
	return len;
}

static void
rig_open(Rig *rig)
{
	*rig = (Rig){0};
	rig->workers = workers_new(1, NULL);
	rig->worker = workers_get(rig->workers, 0);
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	rig->server.seen = g_string_new(NULL);
	rig->client.seen = g_string_new(NULL);
	rig->server.other = &rig->client;
	rig->client.other = &rig->server;
	rig->server.conn = conn_new_accepted(rig->worker, fds[0], NULL, on_conn, &rig->server);
	rig->client.conn = conn_new_accepted(rig->worker, fds[1], NULL, on_conn, &rig->client);
}

static void
rig_close(Rig *rig)
{
	conn_free(rig->server.conn);
	conn_free(rig->client.conn);
	workers_free(rig->workers);
	g_string_free(rig->server.seen, TRUE);
	g_string_free(rig->client.seen, TRUE);
}

/* Turns until `text` was seen at this end. */
static void
await(Rig *rig, End *end, const char *text)
{
	Deadline limit = clock_after(10 * USEC_PER_SEC);
	while (strstr(end->seen->str, text) == NULL && !clock_passed(limit))
		worker_test_turn(rig->worker, 10 * USEC_PER_MS);
	if (strstr(end->seen->str, text) == NULL)
		print_error("seen: server \"%s\" client \"%s\"\n", rig->server.seen->str,
			    rig->client.seen->str);
	assert_non_null(strstr(end->seen->str, text));
}

static TlsContext *
client_context(TlsVerify verify)
{
	GError *trouble = NULL;
	TlsContext *context = tls_client_new(verify, verify == TLS_VERIFY_NAME ? cert_path : NULL,
					     &trouble);
	assert_null(trouble);
	return context;
}

static void
start_tls(Rig *rig, TlsContext *client, const char *name)
{
	conn_start_tls(rig->server.conn, server_context, true, NULL);
	conn_start_tls(rig->client.conn, client, false, name);
}

/* ---- the upgrade ---- */

static void
hook_server(End *end, ConnEvent event, const char *data, size_t len)
{
	(void)len;
	if (event == CONN_LINE && strcmp(data, "STARTTLS") == 0) {
		/* More comes in before our answer can have been read. */
		assert_int_equal(send(conn_fd(end->other->conn), "RCPT evil\r\n", 11, 0), 11);
		conn_write(end->conn, "220 go\r\n250 evil\r\n", 18);
		conn_start_tls(end->conn, server_context, true, NULL);
		conn_write(end->conn, "250 lost\r\n", 10);
	}
	if (event == CONN_LINE && strcmp(data, "EHLO") == 0)
		conn_write(end->conn, "250 secure\r\n", 12);
}

static void
hook_client(End *end, ConnEvent event, const char *data, size_t len)
{
	(void)len;
	if (event == CONN_LINE && strcmp(data, "220 go") == 0) {
		g_autoptr(TlsContext) context = client_context(TLS_VERIFY_NAME);
		conn_start_tls(end->conn, context, false, HOST ".");
	}
	if (event == CONN_TLS_READY)
		conn_write(end->conn, "EHLO\r\n", 6);
}

static void
test_upgrade(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig);
	int server_fd = conn_fd(rig.server.conn);
	rig.server.hook = hook_server;
	rig.client.hook = hook_client;
	conn_write(rig.client.conn, "STARTTLS\r\nMAIL evil\r\n", 21);
	await(&rig, &rig.client, "250 secure");
	/* Nothing that came in clear is left on either side. */
	assert_string_equal(rig.server.seen->str, "L(STARTTLS)SL(EHLO)");
	assert_string_equal(rig.client.seen->str, "L(220 go)SL(250 secure)");
	assert_true(conn_is_tls(rig.server.conn));
	assert_true(conn_is_tls(rig.client.conn));
	assert_int_equal(conn_fd(rig.server.conn), server_fd);
	rig_close(&rig);
}

static void
test_direct(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig);
	g_autoptr(TlsContext) context = client_context(TLS_VERIFY_NONE);
	/* TLS from the first byte on: the client's hello is there before the server starts. */
	conn_start_tls(rig.client.conn, context, false, NULL);
	worker_test_turn(rig.worker, 0);
	conn_discard_input(rig.server.conn);
	rig_close(&rig);
	rig_open(&rig);
	conn_pause(rig.server.conn);
	conn_start_tls(rig.client.conn, context, false, NULL);
	worker_test_turn(rig.worker, 0);
	worker_test_turn(rig.worker, 0);
	conn_start_tls(rig.server.conn, server_context, true, NULL);
	conn_resume(rig.server.conn);
	await(&rig, &rig.server, "S");
	await(&rig, &rig.client, "S");
	rig_close(&rig);
}

/* ---- data over TLS ---- */

static void
hook_pause_often(End *end, ConnEvent event, const char *data, size_t len)
{
	(void)data;
	(void)len;
	if (event == CONN_DATA)
		conn_pause(end->conn);
}

static void
test_bulk(void **state)
{
	(void)state;
	for (int pausing = 0; pausing < 2; pausing++) {
		Rig rig;
		rig_open(&rig);
		g_autoptr(TlsContext) context = client_context(TLS_VERIFY_NONE);
		start_tls(&rig, context, NULL);
		await(&rig, &rig.client, "S");
		await(&rig, &rig.server, "S");
		conn_read_data(rig.server.conn);
		rig.server.hook = pausing ? hook_pause_often : NULL;
		g_autofree char *piece = g_strnfill(100000, 'b');
		for (int i = 0; i < 20; i++)
			conn_write(rig.client.conn, piece, i == 0 ? 100000 : 10000);
		Deadline limit = clock_after(10 * USEC_PER_SEC);
		while (rig.server.bytes < 290000 && !clock_passed(limit)) {
			worker_test_turn(rig.worker, 10 * USEC_PER_MS);
			conn_resume(rig.server.conn);
		}
		assert_int_equal(rig.server.bytes, 290000);
		/* The end comes as an end. */
		rig.server.hook = NULL;
		conn_finish(rig.client.conn, USEC_PER_SEC);
		rig.client.conn = NULL;
		await(&rig, &rig.server, "E");
		assert_null(strstr(rig.server.seen->str, "!"));
		rig_close(&rig);
	}
}

static void
test_eof_without_goodbye(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig);
	g_autoptr(TlsContext) context = client_context(TLS_VERIFY_NONE);
	start_tls(&rig, context, NULL);
	await(&rig, &rig.client, "S");
	conn_write(rig.client.conn, "QUIT\r\n", 6);
	worker_test_turn(rig.worker, 0);
	conn_free(rig.client.conn);
	rig.client.conn = NULL;
	await(&rig, &rig.server, "E");
	assert_string_equal(rig.server.seen->str, "SL(QUIT)E");
	rig_close(&rig);
}

static void
test_last_reply(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig);
	g_autoptr(TlsContext) context = client_context(TLS_VERIFY_NONE);
	start_tls(&rig, context, NULL);
	await(&rig, &rig.client, "S");
	await(&rig, &rig.server, "S");
	conn_write(rig.server.conn, "221 bye\r\n", 9);
	conn_finish(rig.server.conn, USEC_PER_SEC);
	rig.server.conn = NULL;
	await(&rig, &rig.client, "E");
	assert_string_equal(rig.client.seen->str, "SL(221 bye)E");
	rig_close(&rig);
}

/* ---- several certificates, certificates of clients ---- */

/* The facts that the server knows behind a handshake with this client. */
static void
shake(Rig *rig, TlsContext *server, TlsContext *client, const char *name, TlsFacts *ret_facts)
{
	rig_open(rig);
	assert_false(conn_tls_facts(rig->server.conn, ret_facts));
	assert_null(ret_facts->version);
	conn_start_tls(rig->server.conn, server, true, NULL);
	conn_start_tls(rig->client.conn, client, false, name);
	await(rig, &rig->server, "S");
	assert_true(conn_tls_facts(rig->server.conn, ret_facts));
}

static void
test_names(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		bool is_other; /* which certificate has to be trusted for it to work */
		const char *want;
	} cases[] = {
		{HOST, false, "S"},
		{OTHER_HOST, true, "S"},
		{"x.wild.example", true, "S"},
		{"x.y.wild.example", true, "!"},
		{"127.0.0.1", false, "S"}, /* an address is no name: the first one */
		{"unknown.example", false, "!(TLS handshake: certificate: hostname mismatch)"},
	};
	GError *trouble = NULL;
	g_autoptr(TlsContext) server = tls_server_new(cert_path, key_path, &trouble);
	assert_non_null(server);
	assert_true(tls_server_add(server, other_path, key_path, &trouble));
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Rig rig;
		rig_open(&rig);
		g_autoptr(TlsContext) client = tls_client_new(
			TLS_VERIFY_NAME, cases[i].is_other ? other_path : cert_path, NULL);
		conn_start_tls(rig.server.conn, server, true, NULL);
		conn_start_tls(rig.client.conn, client, false, cases[i].name);
		await(&rig, &rig.client, cases[i].want);
		rig_close(&rig);
	}
	/* nobody asked for */
	Rig rig;
	TlsFacts facts;
	g_autoptr(TlsContext) any = client_context(TLS_VERIFY_NONE);
	shake(&rig, server, any, NULL, &facts);
	assert_string_equal(facts.version, "TLSv1.3");
	assert_non_null(strstr(facts.cipher, "TLS_"));
	assert_null(facts.peer);
	rig_close(&rig);
	assert_false(tls_server_add(server, key_path, key_path, &trouble));
	assert_non_null(strstr(trouble->message, key_path));
	g_clear_error(&trouble);
	assert_false(tls_server_add(server, cert_path, other_path, &trouble));
	assert_non_null(strstr(trouble->message, other_path));
	g_clear_error(&trouble);
}

/* ---- what goes wrong ---- */

static void
test_verify(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		bool with_ca;
		const char *want;
	} cases[] = {
		{HOST, true, "S"},
		{"MAIL.Example.test", true, "S"},
		{"127.0.0.1", true, "S"},
		{"other.example.test", true, "!(TLS handshake: certificate: hostname mismatch)"},
		{"127.0.0.2", true, "!(TLS handshake: certificate: IP address mismatch)"},
		{HOST, false, "!(TLS handshake: certificate: self-signed certificate)"},
		{NULL, true, "!(TLS: no name to verify)"},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Rig rig;
		rig_open(&rig);
		g_autoptr(TlsContext) context = tls_client_new(
			TLS_VERIFY_NAME, cases[i].with_ca ? cert_path : folder, NULL);
		assert_non_null(context);
		start_tls(&rig, context, cases[i].name);
		await(&rig, &rig.client, cases[i].want);
		assert_string_equal(rig.client.seen->str, cases[i].want);
		rig_close(&rig);
	}
}

static void
test_garbage(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig);
	conn_start_tls(rig.server.conn, server_context, true, NULL);
	conn_write(rig.client.conn, "EHLO this is no handshake at all\r\n", 34);
	await(&rig, &rig.server, "!(TLS handshake: ");
	rig_close(&rig);
	rig_open(&rig);
	conn_start_tls(rig.server.conn, server_context, true, NULL);
	conn_free(rig.client.conn);
	rig.client.conn = NULL;
	await(&rig, &rig.server, "!(TLS handshake: ");
	rig_close(&rig);
}

static void
test_deadline(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig);
	conn_start_tls(rig.server.conn, server_context, true, NULL);
	conn_set_deadline(rig.server.conn, clock_after(20 * USEC_PER_MS));
	await(&rig, &rig.server, "T");
	conn_finish(rig.server.conn, USEC_PER_SEC); /* in the middle of the handshake */
	rig.server.conn = NULL;
	await(&rig, &rig.client, "E");
	rig_close(&rig);
}

static void
test_bad_files(void **state)
{
	(void)state;
	g_autofree char *none = g_build_filename(folder, "none", NULL);
	const struct {
		const char *cert;
		const char *key;
		const char *blamed;
	} cases[] = {
		{none, key_path, none},
		{cert_path, none, none},
		{key_path, key_path, key_path},
		{cert_path, cert_path, cert_path},
	};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GError) trouble = NULL;
		assert_null(tls_server_new(cases[i].cert, cases[i].key, &trouble));
		assert_non_null(trouble);
		assert_non_null(strstr(trouble->message, cases[i].blamed));
	}
	g_autoptr(GError) trouble = NULL;
	assert_null(tls_client_new(TLS_VERIFY_NAME, none, &trouble));
	assert_non_null(trouble);
}

/* ---- key and certificate ---- */

static void
make_cert(EVP_PKEY *key, const char *path, const char *alternatives)
{
	X509 *cert = X509_new();
	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME *name = X509_get_subject_name(cert);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1,
				   0);
	X509_set_issuer_name(cert, name);
	X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternatives);
	assert_non_null(names);
	X509_add_ext(cert, names, -1);
	X509_EXTENSION_free(names);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	FILE *file = fopen(path, "w");
	assert_int_equal(PEM_write_X509(file, cert), 1);
	fclose(file);
	X509_free(cert);
}

static void
make_key(void)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	assert_non_null(key);
	make_cert(key, cert_path, "DNS:" HOST ",IP:127.0.0.1");
	make_cert(key, other_path, "DNS:" OTHER_HOST ",DNS:*.wild.example");
	FILE *file = fopen(key_path, "w");
	assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	fclose(file);
	EVP_PKEY_free(key);
}

static int
group_setup(void **state)
{
	(void)state;
	/* As main does: OpenSSL writes without MSG_NOSIGNAL. */
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigaction(SIGPIPE, &ignore, NULL);
	folder = g_dir_make_tmp("koukan-tls-XXXXXX", NULL);
	cert_path = g_build_filename(folder, "cert.pem", NULL);
	key_path = g_build_filename(folder, "key.pem", NULL);
	other_path = g_build_filename(folder, "other.pem", NULL);
	make_key();
	GError *trouble = NULL;
	server_context = tls_server_new(cert_path, key_path, &trouble);
	assert_null(trouble);
	return 0;
}

static int
group_teardown(void **state)
{
	(void)state;
	tls_context_unref(server_context);
	g_unlink(cert_path);
	g_unlink(key_path);
	g_unlink(other_path);
	g_free(other_path);
	g_rmdir(folder);
	g_free(cert_path);
	g_free(key_path);
	g_free(folder);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_upgrade),    cmocka_unit_test(test_direct),
		cmocka_unit_test(test_bulk),       cmocka_unit_test(test_eof_without_goodbye),
		cmocka_unit_test(test_last_reply), cmocka_unit_test(test_verify),
		cmocka_unit_test(test_garbage),    cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_bad_files),  cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
