/* SPDX-License-Identifier: Apache-2.0 */
/* Connections over a socket pair, driven turn by turn on one thread.  What the handler is told
 * is written down as text: "L(abc)" a line, "X" a long line, "D(abc)" data, "E" the end, "T" a
 * deadline, "W" drained, "C" connected, "S" TLS ready, "!(text)" an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/conn.h"

typedef struct Rig Rig;
typedef void RigHook(Rig *rig, ConnEvent event, const char *data, size_t len);

struct Rig {
	Workers *workers;
	Worker *worker;
	Conn *conn;
	int peer;
	GString *seen;
	RigHook *hook; /* runs in the handler */
	size_t take;   /* in DATA: how much; SIZE_MAX = all */
	int count;
	bool nested; /* an event came inside another call */
	bool inside;
};

static size_t
on_conn(void *arg, Conn *conn, ConnEvent event, const char *data, size_t len)
{
	Rig *rig = arg;
	static const char *const names[] = {"C", "S", "L", "X", "D", "W", "E", "T", "!"};
	_Static_assert(G_N_ELEMENTS(names) == CONN_EVENTS, "one name an event");
	if (rig->inside)
		rig->nested = true;
	rig->inside = true;
	size_t taken = MIN(len, rig->take);
	g_string_append(rig->seen, names[event]);
	if (event == CONN_LINE || event == CONN_ERROR)
		assert_int_equal(data[len], '\0');
	if (event == CONN_LINE || event == CONN_DATA || event == CONN_ERROR) {
		g_string_append_c(rig->seen, '(');
		g_string_append_len(rig->seen, data, (gssize)(event == CONN_DATA ? taken : len));
		g_string_append_c(rig->seen, ')');
	}
	rig->count++;
	if (rig->conn == NULL)
		rig->conn = conn;
	assert_ptr_equal(rig->conn, conn);
	if (rig->hook != NULL)
		rig->hook(rig, event, data, len);
	rig->inside = false;
	return taken;
}

static void
rig_workers(Rig *rig)
{
	*rig = (Rig){.take = SIZE_MAX, .peer = -1};
	rig->workers = workers_new(1, NULL);
	assert_non_null(rig->workers);
	rig->worker = workers_get(rig->workers, 0);
	rig->seen = g_string_new(NULL);
}

static void
rig_open(Rig *rig, const ConnOptions *options)
{
	rig_workers(rig);
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	rig->peer = fds[1];
	rig->conn = conn_new_accepted(rig->worker, fds[0], options, on_conn, rig);
}

static void
rig_close(Rig *rig)
{
	assert_false(rig->nested);
	conn_free(rig->conn);
	if (rig->peer >= 0)
		close(rig->peer);
	workers_free(rig->workers);
	g_string_free(rig->seen, TRUE);
}

static void
rig_turn(Rig *rig)
{
	worker_test_turn(rig->worker, 0);
}

/* Until something new was seen. */
static void
rig_wait(Rig *rig)
{
	int before = rig->count;
	Deadline end = clock_after(10 * USEC_PER_SEC);
	while (rig->count == before && !clock_passed(end))
		worker_test_turn(rig->worker, 10 * USEC_PER_MS);
	assert_int_not_equal(rig->count, before);
}

static void
peer_send(Rig *rig, const char *data, size_t len)
{
	while (len > 0) {
		ssize_t put = send(rig->peer, data, len, MSG_NOSIGNAL);
		if (put < 0) {
			assert_int_equal(errno, EAGAIN);
			put = 0;
		}
		data += put;
		len -= (size_t)put;
		if (len > 0)
			rig_turn(rig);
	}
}

static void
peer_says(Rig *rig, const char *text)
{
	peer_send(rig, text, strlen(text));
	rig_turn(rig);
	rig_turn(rig);
}

/* All that the peer has received by now. */
static char *
peer_reads(Rig *rig)
{
	GString *got = g_string_new(NULL);
	char piece[65536];
	for (;;) {
		ssize_t len = recv(rig->peer, piece, sizeof(piece), 0);
		if (len <= 0)
			return g_string_free(got, FALSE);
		g_string_append_len(got, piece, len);
	}
}

static void
assert_peer_got(Rig *rig, const char *want)
{
	g_autofree char *got = peer_reads(rig);
	assert_string_equal(got, want);
}

static void
assert_seen(Rig *rig, const char *want)
{
	assert_string_equal(rig->seen->str, want);
	g_string_truncate(rig->seen, 0);
}

/* ---- lines ---- */

static const struct {
	const char *name;
	const char *in;
	const char *want;
	const char *rest; /* expected to be pending */
} line_cases[] = {
	{"one", "EHLO a\r\n", "L(EHLO a)", ""},
	{"empty", "\r\n", "L()", ""},
	{"three", "a\r\nb\r\nc\r\n", "L(a)L(b)L(c)", ""},
	{"unfinished", "a\r\nbc", "L(a)", "bc"},
	{"half of the end", "a\r", "", "a\r"},
	{"bare LF stays", "a\nb\r\n", "L(a\nb)", ""},
	{"bare LF alone", "\n\r\n", "L(\n)", ""},
	{"bare CR stays", "a\rb\r\n", "L(a\rb)", ""},
	{"CR CR LF", "a\r\r\n", "L(a\r)", ""},
	{"LF CR LF", "a\n\r\n", "L(a\n)", ""},
	{"at the cap", "12345678\r\n", "L(12345678)", ""},
	{"one over", "123456789\r\nb\r\n", "XL(b)", ""},
	{"over without end", "1234567890", "X", ""},
	{"cap and CR", "12345678\r", "", "12345678\r"},
	{"cap and LF", "12345678\n", "X", ""},
	{"cap, CR and more", "12345678\rx\r\nb\r\n", "XL(b)", ""},
	{"much over", "1234567890123456789012345678901234567890\r\nb\r\n", "XL(b)", ""},
	{"long twice", "1234567890\r\n1234567890\r\nb\r\n", "XXL(b)", ""},
};

static void
test_lines(void **state)
{
	(void)state;
	for (size_t i = 0; i < G_N_ELEMENTS(line_cases); i++) {
		/* As a whole, and byte by byte. */
		for (int split = 0; split < 2; split++) {
			Rig rig;
			rig_open(&rig, &(ConnOptions){.line_max = 8});
			const char *in = line_cases[i].in;
			if (split == 0) {
				peer_says(&rig, in);
			} else {
				for (const char *at = in; *at != '\0'; at++)
					peer_says(&rig, (char[]){*at, '\0'});
			}
			if (strcmp(rig.seen->str, line_cases[i].want) != 0)
				print_error("case %s split %d\n", line_cases[i].name, split);
			assert_seen(&rig, line_cases[i].want);
			assert_int_equal(conn_pending(rig.conn), strlen(line_cases[i].rest));
			rig_close(&rig);
		}
	}
}

static void
test_discard_max(void **state)
{
	(void)state;
	static const struct {
		size_t len;
		const char *want;
	} cases[] = {{100, "XL(b)"}, {101, "X!(line too long)"}, {100000, "X!(line too long)"}};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Rig rig;
		rig_open(&rig, &(ConnOptions){.line_max = 8, .discard_max = 100});
		g_autofree char *line = g_strnfill(cases[i].len, 'x');
		peer_says(&rig, "xxxxxxxxxxxx");
		peer_send(&rig, line + 12, cases[i].len - 12);
		peer_says(&rig, "\r\nb\r\n");
		assert_seen(&rig, cases[i].want);
		rig_close(&rig);
	}
}

static void
test_many_lines(void **state)
{
	(void)state;
	/* More than one read, cut at odd places. */
	Rig rig;
	rig_open(&rig, NULL);
	GString *in = g_string_new(NULL);
	GString *want = g_string_new(NULL);
	for (int i = 0; i < 20000; i++) {
		g_string_append_printf(in, "line %d\r\n", i);
		g_string_append_printf(want, "L(line %d)", i);
	}
	for (size_t at = 0; at < in->len; at += 7777) {
		peer_send(&rig, in->str + at, MIN((size_t)7777, in->len - at));
		rig_turn(&rig);
	}
	for (int i = 0; i < 20; i++)
		rig_turn(&rig);
	assert_seen(&rig, want->str);
	g_string_free(in, TRUE);
	g_string_free(want, TRUE);
	rig_close(&rig);
}

/* ---- modes ---- */

static void
hook_modes(Rig *rig, ConnEvent event, const char *data, size_t len)
{
	if (event == CONN_LINE && strcmp(data, "DATA") == 0)
		conn_read_data(rig->conn);
	if (event == CONN_DATA && memchr(data, '.', MIN(len, rig->take)) != NULL)
		conn_read_lines(rig->conn);
}

static void
test_mode_in_handler(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	rig.hook = hook_modes;
	rig.take = 4;
	/* The handler takes "abc." and goes back to lines: the very next byte is a line's. */
	peer_says(&rig, "x\r\nDATA\r\nabc.RSET\r\ny\r\n");
	assert_seen(&rig, "L(x)L(DATA)D(abc.)L(RSET)L(y)");
	/* What is not taken comes again with what follows. */
	rig.take = 2;
	rig.hook = NULL;
	conn_read_data(rig.conn);
	peer_says(&rig, "12345");
	assert_seen(&rig, "D(12)");
	assert_int_equal(conn_pending(rig.conn), 3);
	rig.take = SIZE_MAX;
	peer_says(&rig, "6");
	assert_seen(&rig, "D(3456)");
	/* ... or as a line. */
	rig.take = 0;
	peer_says(&rig, "QU");
	conn_read_lines(rig.conn);
	peer_says(&rig, "IT\r\n");
	assert_seen(&rig, "D()L(QUIT)");
	rig_close(&rig);
}

static void
test_mode_outside(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	rig.take = 0;
	conn_read_data(rig.conn);
	peer_says(&rig, "a\r\nb\r\n");
	assert_seen(&rig, "D()");
	conn_read_lines(rig.conn);
	assert_seen(&rig, ""); /* not inside the call */
	rig_turn(&rig);
	assert_seen(&rig, "L(a)L(b)");
	rig_close(&rig);
}

static void
test_data_never_taken(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	rig.take = 0;
	conn_read_data(rig.conn);
	g_autofree char *much = g_strnfill(40000, 'x');
	peer_send(&rig, much, 40000);
	for (int i = 0; i < 8; i++)
		rig_turn(&rig);
	peer_says(&rig, "y");
	assert_true(g_str_has_suffix(rig.seen->str, "!(input was not taken)"));
	rig_close(&rig);
}

/* ---- pausing, the end ---- */

static void
hook_pause(Rig *rig, ConnEvent event, const char *data, size_t len)
{
	(void)len;
	if (event == CONN_LINE && data[0] == 'p')
		conn_pause(rig->conn);
}

static void
test_pause(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	rig.hook = hook_pause;
	peer_says(&rig, "a\r\np\r\nb\r\nc\r\n");
	assert_seen(&rig, "L(a)L(p)");
	assert_int_equal(conn_pending(rig.conn), 6);
	peer_says(&rig, "d\r\np\r\n");
	peer_says(&rig, "e\r\n");
	shutdown(rig.peer, SHUT_WR);
	rig_turn(&rig);
	assert_seen(&rig, "");
	conn_resume(rig.conn);
	assert_seen(&rig, "");
	rig_turn(&rig);
	rig_turn(&rig);
	assert_seen(&rig, "L(b)L(c)L(d)L(p)");
	conn_resume(rig.conn);
	conn_pause(rig.conn);
	rig_turn(&rig);
	assert_seen(&rig, "");
	conn_resume(rig.conn);
	rig_turn(&rig);
	rig_turn(&rig);
	assert_seen(&rig, "L(e)E"); /* lines first, then the end */
	rig_turn(&rig);
	assert_seen(&rig, ""); /* once */
	conn_write(rig.conn, "bye", 3);
	rig_turn(&rig);
	assert_peer_got(&rig, "bye"); /* our side is still open */
	rig_close(&rig);
}

/* A pipelined group far larger than one read, with a pause at each line: nothing is lost, and the
 * lines that wait are no reason to give the connection up. */
static void
test_pause_in_long_group(void **state)
{
	(void)state;
	enum { LINES = 3000 };
	Rig rig;
	rig_open(&rig, NULL);
	rig.hook = hook_pause;
	g_autoptr(GString) group = g_string_new(NULL);
	for (int i = 0; i < LINES; i++)
		g_string_append(group, "p 01234567890123456789012345\r\n");
	peer_send(&rig, group->str, group->len);
	for (int i = 0; i < 100 * LINES && rig.count < LINES; i++) {
		conn_resume(rig.conn);
		rig_turn(&rig);
	}
	assert_int_equal(rig.count, LINES);
	assert_null(strchr(rig.seen->str, '!'));
	rig_close(&rig);
}

static void
test_eof_cases(void **state)
{
	(void)state;
	static const struct {
		const char *in;
		const char *want;
	} cases[] = {{"", "E"}, {"a\r\nb\r\n", "L(a)L(b)E"}, {"a\r\nhalf", "L(a)E"}};
	for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
		Rig rig;
		rig_open(&rig, NULL);
		peer_send(&rig, cases[i].in, strlen(cases[i].in));
		close(rig.peer);
		rig.peer = -1;
		for (int t = 0; t < 3; t++)
			rig_turn(&rig);
		assert_seen(&rig, cases[i].want);
		rig_close(&rig);
	}
}

static void
test_discard_input(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	rig.hook = hook_pause;
	peer_says(&rig, "p\r\nMAIL\r\nRC");
	assert_int_equal(conn_discard_input(rig.conn), 8);
	assert_int_equal(conn_pending(rig.conn), 0);
	conn_resume(rig.conn);
	peer_says(&rig, "NOOP\r\n");
	assert_seen(&rig, "L(p)L(NOOP)");
	rig_close(&rig);
}

static void
hook_free(Rig *rig, ConnEvent event, const char *data, size_t len)
{
	(void)event;
	if (len > 0 && data[0] == 'q') {
		conn_free(rig->conn);
		rig->conn = NULL;
		assert_int_equal(data[len - 1], 't'); /* readable until the handler returns */
	}
}

static void
test_free_in_handler(void **state)
{
	(void)state;
	for (int data_mode = 0; data_mode < 2; data_mode++) {
		Rig rig;
		rig_open(&rig, NULL);
		rig.hook = hook_free;
		if (data_mode)
			conn_read_data(rig.conn);
		peer_says(&rig, data_mode ? "quit" : "quit\r\nb\r\n");
		assert_seen(&rig, data_mode ? "D(quit)" : "L(quit)");
		rig_close(&rig);
	}
}

/* Freed between the cause of an event and its turn. */
static void
test_silence_after_free(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	peer_send(&rig, "a\r\n", 3);
	conn_write(rig.conn, "x", 1);
	conn_want_drained(rig.conn);
	conn_set_deadline(rig.conn, clock_after(1));
	conn_free(rig.conn);
	rig.conn = NULL;
	for (int i = 0; i < 3; i++)
		worker_test_turn(rig.worker, 5 * USEC_PER_MS);
	assert_seen(&rig, "");
	rig_close(&rig);
}

/* ---- writing ---- */

static void
test_write_coalesced(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	conn_write(rig.conn, "220 a", 5);
	conn_write(rig.conn, "\r\n", 2);
	assert_int_equal(conn_unsent(rig.conn), 7);
	assert_peer_got(&rig, ""); /* not inside the call */
	rig_turn(&rig);
	assert_int_equal(conn_unsent(rig.conn), 0);
	assert_peer_got(&rig, "220 a\r\n");
	rig_close(&rig);
}

static void
test_write_cap(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, &(ConnOptions){.write_max = 1000});
	int small = 1;
	assert_int_equal(
		setsockopt(conn_fd(rig.conn), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	g_autofree char *piece = g_strnfill(300000, 'w');
	conn_write(rig.conn, piece, 300000); /* one write may be larger than the cap */
	rig_turn(&rig);
	assert_seen(&rig, "");
	assert_true(conn_unsent(rig.conn) > 1000);
	conn_write(rig.conn, "x", 1);
	assert_seen(&rig, ""); /* not inside the call */
	rig_turn(&rig);
	assert_seen(&rig, "!(peer does not read)");
	conn_write(rig.conn, "x", 1); /* ignored */
	rig_turn(&rig);
	assert_seen(&rig, "");
	rig_close(&rig);
}

static void
test_write_within_cap(void **state)
{
	(void)state;
	/* A peer that reads gets any amount. */
	Rig rig;
	rig_open(&rig, &(ConnOptions){.write_max = 1000});
	g_autofree char *piece = g_strnfill(50000, 'w');
	size_t got = 0;
	for (int i = 0; i < 40; i++) {
		conn_write(rig.conn, piece, 50000);
		for (int t = 0; conn_unsent(rig.conn) > 1000 && t < 100; t++) {
			rig_turn(&rig);
			g_autofree char *text = peer_reads(&rig);
			got += strlen(text);
		}
	}
	rig_turn(&rig);
	g_autofree char *text = peer_reads(&rig);
	assert_int_equal(got + strlen(text), 2000000);
	assert_seen(&rig, "");
	rig_close(&rig);
}

static void
test_drained(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, &(ConnOptions){.write_low = 1000});
	conn_want_drained(rig.conn); /* already below */
	assert_seen(&rig, "");
	rig_turn(&rig);
	assert_seen(&rig, "W");
	int small = 1;
	assert_int_equal(
		setsockopt(conn_fd(rig.conn), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	g_autofree char *piece = g_strnfill(200000, 'w');
	conn_write(rig.conn, piece, 200000);
	conn_want_drained(rig.conn);
	rig_turn(&rig);
	assert_seen(&rig, "");
	for (int i = 0; i < 1000 && rig.seen->len == 0; i++) {
		g_free(peer_reads(&rig));
		rig_turn(&rig);
	}
	assert_true(conn_unsent(rig.conn) <= 1000);
	assert_seen(&rig, "W");
	rig_close(&rig);
}

static void
test_write_error(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	conn_pause(rig.conn);
	close(rig.peer);
	rig.peer = -1;
	conn_write(rig.conn, "x", 1);
	rig_turn(&rig);
	rig_turn(&rig);
	assert_seen(&rig, "!(write: Broken pipe)");
	rig_close(&rig);
}

/* ---- deadline ---- */

static void
test_deadline(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	Deadline start = clock_mono();
	conn_set_deadline(rig.conn, start + 20 * USEC_PER_MS);
	conn_set_deadline(rig.conn, start + 60 * USEC_PER_MS); /* later */
	rig_wait(&rig);
	assert_seen(&rig, "T");
	assert_true(clock_mono() - start >= 60 * USEC_PER_MS);
	start = clock_mono();
	conn_set_deadline(rig.conn, start + 5 * USEC_PER_SEC);
	conn_set_deadline(rig.conn, start + 10 * USEC_PER_MS); /* earlier */
	rig_wait(&rig);
	assert_seen(&rig, "T");
	assert_true(clock_mono() - start < 4 * USEC_PER_SEC);
	conn_set_deadline(rig.conn, clock_after(10 * USEC_PER_MS));
	conn_set_deadline(rig.conn, 0);
	for (int i = 0; i < 6; i++)
		worker_test_turn(rig.worker, 10 * USEC_PER_MS);
	assert_seen(&rig, "");
	rig_close(&rig);
}

/* ---- finish ---- */

static void
test_finish(void **state)
{
	(void)state;
	Rig rig;
	rig_open(&rig, NULL);
	peer_send(&rig, "more\r\n", 6);
	conn_write(rig.conn, "221 bye\r\n", 9);
	conn_finish(rig.conn, 10 * USEC_PER_SEC);
	rig.conn = NULL;
	rig_turn(&rig);
	assert_peer_got(&rig, "221 bye\r\n");
	char byte;
	assert_int_equal(recv(rig.peer, &byte, 1, 0), 0); /* the sending side is closed */
	/* It goes on reading and dropping ... */
	for (int i = 0; i < 100; i++) {
		assert_int_equal(send(rig.peer, "noise", 5, MSG_NOSIGNAL), 5);
		rig_turn(&rig);
	}
	/* ... until the peer closes too. */
	shutdown(rig.peer, SHUT_WR);
	rig_turn(&rig);
	rig_turn(&rig);
	assert_int_equal(send(rig.peer, "x", 1, MSG_NOSIGNAL), -1);
	assert_seen(&rig, "");
	rig_close(&rig);
}

static void
test_finish_linger(void **state)
{
	(void)state;
	/* A peer that never closes is left alone after the lingering, read or not. */
	for (int reads = 0; reads < 2; reads++) {
		Rig rig;
		rig_open(&rig, NULL);
		g_autofree char *much = g_strnfill(1000000, 'w');
		conn_write(rig.conn, much, reads ? 5 : 1000000);
		Deadline start = clock_mono();
		conn_finish(rig.conn, 30 * USEC_PER_MS);
		rig.conn = NULL;
		Deadline end = clock_after(10 * USEC_PER_SEC);
		while (send(rig.peer, "x", 1, MSG_NOSIGNAL) == 1 && !clock_passed(end))
			worker_test_turn(rig.worker, 5 * USEC_PER_MS);
		assert_true(clock_mono() - start >= 30 * USEC_PER_MS);
		assert_false(clock_passed(end));
		rig_close(&rig);
	}
}

/* ---- connecting ---- */

static int
listen_any(NetAddr *ret_addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(net_addr_parse("127.0.0.1", 0, ret_addr));
	assert_int_equal(bind(fd, (struct sockaddr *)&ret_addr->storage, ret_addr->len), 0);
	assert_int_equal(listen(fd, 5), 0);
	ret_addr->len = sizeof(ret_addr->storage);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ret_addr->storage, &ret_addr->len), 0);
	return fd;
}

static void
test_connect(void **state)
{
	(void)state;
	Rig rig;
	rig_workers(&rig);
	NetAddr to;
	NetAddr from;
	int listener = listen_any(&to);
	assert_true(net_addr_parse("127.0.0.5", 0, &from));
	rig.conn = conn_connect(rig.worker, &to, &from, NULL, on_conn, &rig);
	conn_write(rig.conn, "early", 5);
	assert_seen(&rig, "");
	rig_wait(&rig);
	assert_seen(&rig, "C");
	rig.peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	rig_turn(&rig);
	assert_peer_got(&rig, "early");
	peer_says(&rig, "220 hi\r\n");
	assert_seen(&rig, "L(220 hi)");
	assert_int_equal(net_addr_port(conn_peer(rig.conn)), net_addr_port(&to));
	char text[NET_ADDR_TEXT_MAX];
	net_addr_format(conn_local(rig.conn), text);
	assert_string_equal(text, "127.0.0.5");
	close(listener);
	rig_close(&rig);
}

static void
test_connect_refused(void **state)
{
	(void)state;
	Rig rig;
	rig_workers(&rig);
	NetAddr to;
	close(listen_any(&to));
	rig.conn = conn_connect(rig.worker, &to, NULL, NULL, on_conn, &rig);
	assert_seen(&rig, "");
	rig_wait(&rig);
	assert_seen(&rig, "!(connect: Connection refused)");
	rig_close(&rig);
	/* Refused before it starts: still not inside the call. */
	rig_workers(&rig);
	NetAddr from;
	assert_true(net_addr_parse("192.0.2.1", 0, &from));
	rig.conn = conn_connect(rig.worker, &to, &from, NULL, on_conn, &rig);
	assert_seen(&rig, "");
	rig_wait(&rig);
	assert_seen(&rig, "!(connect: Cannot assign requested address)");
	rig_close(&rig);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_discard_max),
		cmocka_unit_test(test_many_lines),
		cmocka_unit_test(test_mode_in_handler),
		cmocka_unit_test(test_mode_outside),
		cmocka_unit_test(test_data_never_taken),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_pause_in_long_group),
		cmocka_unit_test(test_eof_cases),
		cmocka_unit_test(test_discard_input),
		cmocka_unit_test(test_free_in_handler),
		cmocka_unit_test(test_silence_after_free),
		cmocka_unit_test(test_write_coalesced),
		cmocka_unit_test(test_write_cap),
		cmocka_unit_test(test_write_within_cap),
		cmocka_unit_test(test_drained),
		cmocka_unit_test(test_write_error),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_finish_linger),
		cmocka_unit_test(test_connect),
		cmocka_unit_test(test_connect_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
