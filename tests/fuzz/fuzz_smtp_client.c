/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery against a server that answers with the fuzzer's bytes.  Success comes only from a
 * 2xx reply to the very command; every delivery gets its answers once the connection has ended;
 * nothing is left behind.
 *
 * The first byte says how much is sent at a time: 1 to 128 bytes; with 0x80 set a second byte is a
 * set of Modes.  What comes next is sent when the client has said something, or seems to wait. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp/client_pool.h"

#define TURNS      400
#define IDLE_TURNS 2 /* without a word of the client: it waits for more */

enum Mode {
	MODE_LINES = 1, /* a reply line at a time, whatever its length */
	MODE_LMTP = 2,
	MODE_BDAT = 4,
	MODE_AUTH = 8,
	MODE_TLS = 16,   /* opportunistic: what follows STARTTLS is no handshake */
	MODE_LARGE = 32, /* a message of several chunks */
	MODE_NO_PIPELINING = 64,
};

typedef struct World {
	Workers *workers;
	Worker *worker;
	SmtpClientPool *pool;
	SmtpOutputConf conf;
	int listener;
	uint16_t port;
	unsigned mode;
	size_t piece;
	int fd; /* of the client's connection; -1: none */
	unsigned idle;
} World;

static void
world_set_mode(World *world)
{
	static TlsContext *tls;
	SmtpOutputConf *conf = &world->conf;
	if (tls == NULL)
		tls = tls_client_new(TLS_VERIFY_NONE, NULL, NULL);
	k_assert(tls != NULL);
	smtp_output_conf_init(conf);
	conf->chunk_size = SMTP_CHUNK_MIN;
	conf->enable_bdat = (world->mode & MODE_BDAT) != 0;
	conf->no_pipelining = (world->mode & MODE_NO_PIPELINING) != 0;
	if ((world->mode & MODE_LMTP) != 0)
		conf->protocol = SMTP_PROTOCOL_LMTP;
	if ((world->mode & MODE_TLS) != 0)
		conf->tls = tls;
	if ((world->mode & MODE_AUTH) != 0) {
		conf->auth_user = "user";
		conf->auth_secret = "secret";
	}
}

static void
world_open(World *world)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	world->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	k_assert(world->listener >= 0);
	k_assert(bind(world->listener, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	k_assert(listen(world->listener, 4) == 0);
	k_assert(getsockname(world->listener, (struct sockaddr *)&sin, &len) == 0);
	world->port = ntohs(sin.sin_port);
	world->workers = workers_new(1, NULL);
	k_assert(world->workers != NULL);
	world->worker = workers_get(world->workers, 0);
	world->pool = smtp_client_pool_new(world->worker);
	world_set_mode(world);
	world->fd = -1;
}

static void
world_close(World *world)
{
	smtp_client_pool_free(world->pool);
	worker_test_turn(world->worker, 0);
	workers_free(world->workers);
	(void)close(world->listener);
}

static Tx *
make_tx(World *world)
{
	Tx *tx = tx_new(worker_defers(world->worker));
	g_autoptr(HostPort) to = host_port_new("127.0.0.1", world->port);
	g_autoptr(Mailbox) from = mailbox_new("a@b", NULL, 0);
	static char large[3 * SMTP_CHUNK_MIN + 1];
	memset(large, 'x', sizeof(large));
	g_autoptr(Blob) blob = (world->mode & MODE_LARGE) != 0
				       ? blob_new_bytes(large, sizeof(large))
				       : blob_new_bytes("x\r\n.y\r\n", 7);
	g_autoptr(TxBody) body = tx_body_new_raw(blob);
	(void)tx_set_hosts(tx, to, NULL);
	(void)tx_set_mail_from(tx, from);
	for (unsigned i = 0; i < 2; i++) {
		g_autoptr(Mailbox) rcpt = mailbox_new("c@d", NULL, 0);
		(void)tx_add_rcpt(tx, rcpt);
	}
	(void)tx_set_body(tx, body);
	return tx;
}

/* How many reply lines with a final 2xx there are at most. */
static unsigned
count_ok(const uint8_t *data, size_t size)
{
	unsigned ok = 0;
	for (size_t i = 0; i + 3 <= size; i++) {
		if (data[i] == '2' && (i == 0 || data[i - 1] == '\n'))
			ok++;
	}
	return ok;
}

static unsigned
count_accepted(const Tx *tx)
{
	unsigned ok = response_ok(tx->mail_response) ? 1 : 0;
	return ok + (unsigned)tx_rcpts_accepted(tx) + (response_ok(tx->data_response) ? 1 : 0);
}

/* How much of the rest is sent now. */
static size_t
next_len(const World *world, const uint8_t *data, size_t size)
{
	if ((world->mode & MODE_LINES) == 0)
		return MIN(world->piece, size);
	const uint8_t *lf = memchr(data, '\n', size);
	return lf != NULL ? (size_t)(lf - data) + 1 : size;
}

/* It ends with a reset: thousands of ports in TIME_WAIT a second would stop the whole machine. */
static bool
take_connection(World *world)
{
	static const struct linger reset = {.l_onoff = 1};
	world->fd = accept4(world->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (world->fd >= 0)
		(void)setsockopt(world->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	return world->fd >= 0;
}

/* Takes what the client says; true when it is the server's turn. */
static bool
listen_to_client(World *world)
{
	char sink[4096];
	bool said = false;
	if (world->fd < 0 && !take_connection(world))
		return false;
	ssize_t got;
	while ((got = recv(world->fd, sink, sizeof(sink), 0)) > 0)
		said = true;
	if (got == 0) {
		(void)close(world->fd);
		world->fd = -1; /* it may come again: without TLS */
		return false;
	}
	world->idle = said ? 0 : world->idle + 1;
	if (!said && world->idle < IDLE_TURNS)
		return false;
	world->idle = 0;
	return true;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	World world = {0};
	unsigned first = fuzz_take_byte(&data, &size);
	size_t done = 0;
	world.piece = 1 + first % 128;
	world.mode = first >= 128 ? fuzz_take_byte(&data, &size) : 0;
	if (size > 16384)
		size = 16384;
	world_open(&world);
	Tx *tx = make_tx(&world);
	TxPort *port = smtp_delivery_start(world.pool, &world.conf, tx);
	for (unsigned i = 0; i < TURNS && tx->data_response == NULL; i++) {
		worker_test_turn(world.worker, 0);
		if (!listen_to_client(&world))
			continue;
		size_t len = next_len(&world, data + done, size - done);
		if (len == 0)
			break;
		(void)send(world.fd, data + done, len, MSG_NOSIGNAL);
		done += len;
	}
	if (world.fd >= 0)
		(void)close(world.fd);
	/* with the connection gone everything gets an answer; a listener that is gone refuses */
	(void)shutdown(world.listener, SHUT_RDWR);
	for (unsigned i = 0; i < TURNS && tx->data_response == NULL; i++)
		worker_test_turn(world.worker, USEC_PER_MS);
	k_assert(tx->mail_response != NULL && tx->data_response != NULL);
	k_assert(tx->rcpt_answers == tx_rcpt_count(tx));
	/* the greeting and EHLO or HELO take one each, AUTH another */
	unsigned before = (world.mode & MODE_AUTH) != 0 ? 3 : 2;
	k_assert(count_accepted(tx) == 0 || count_accepted(tx) + before <= count_ok(data, size));
	tx_port_stop(port);
	tx_unref(tx);
	world_close(&world);
	return 0;
}
