/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of the SMTP client: client.c has the connection and its states, delivery.c one
 * transaction over it, client_pool.c who gets which connection.  Private to smtp/; own worker.
 *
 * Owners: the pool owns destinations, a destination its clients; a delivery belongs to the user
 * of the TxPort and borrows a client, which points back to it while it is borrowed.
 * Rules: only client_set_state and delivery_set_state write the states; a client is closed only by
 * client_close; after client_release and client_close the caller no longer has it. */
#include "smtp/client_pool.h"
#include "smtp/data.h"
#include "smtp/envelope.h"
#include "smtp/pipeline.h"
#include "smtp/reply.h"
#include "smtp/text_writer.h"

typedef struct SmtpClient SmtpClient;
typedef struct SmtpDelivery SmtpDelivery;
typedef struct SmtpDest SmtpDest;
typedef struct SmtpLmtp SmtpLmtp;

/* CONNECT > (TLS) > BANNER > EHLO > (HELO) > (STARTTLS > TLS > EHLO) > (AUTH) > BUSY
 * BUSY > BODY > BUSY > IDLE > BUSY      BUSY > RSET > IDLE      any > CLOSED */
typedef enum ClientState {
	CLIENT_CONNECT,
	CLIENT_BANNER,
	CLIENT_EHLO,
	CLIENT_HELO,
	CLIENT_STARTTLS,
	CLIENT_TLS, /* handshake */
	CLIENT_AUTH,
	CLIENT_BUSY, /* borrowed */
	CLIENT_BODY, /* borrowed, and between 354 and the final dot */
	CLIENT_RSET, /* cleaning up behind a failed transaction */
	CLIENT_IDLE,
	CLIENT_CLOSED,
	CLIENT_STATES
} ClientState;

struct SmtpClient {
	SmtpDest *dest;
	const SmtpOutputConf *conf;
	Conn *conn;
	ClientState state;
	SmtpDelivery *delivery; /* the borrower; NULL in RSET, IDLE */
	Pipeline pipeline;
	SmtpReply *reply; /* being read */
	SmtpCaps caps;
	bool no_tls; /* a handshake has failed: this one is to go on in plain text */
	bool authed;
	unsigned auth_step;
	unsigned uses;   /* transactions begun on it */
	GList all_link;  /* in dest->clients */
	GList idle_link; /* in dest->idle */
};

typedef struct SmtpDestKey {
	const SmtpOutputConf *conf;
	uint16_t family, port;
	uint8_t addr[16];
	uint8_t name[32]; /* SHA-256 of the host's name when that is to be verified */
} SmtpDestKey;

struct SmtpDest {
	SmtpDestKey key;
	SmtpClientPool *pool;
	NetAddr addr;
	char *name;           /* to be verified, and SNI; NULL: as the output says */
	Deadline plain_until; /* no STARTTLS (opportunistic) */
	GQueue clients;       /* all of them */
	GQueue idle;          /* the last one used first */
	GQueue waiting;       /* deliveries without a client, at most SMTP_WAITING_MAX */
	Timer relief;         /* while some wait: who holds a connection for nothing? */
};

struct SmtpClientPool {
	Worker *worker;
	GHashTable *dests;
	GQueue deliveries;   /* all of them */
	unsigned count;      /* clients */
	GHashTable *tickets; /* client_ticket.c */
	GQueue ticket_ages;  /* the oldest first */
};

typedef enum DeliveryState {
	DELIVERY_NEW,     /* no MAIL yet */
	DELIVERY_WAITING, /* for a connection */
	DELIVERY_PARKED,  /* its recipients are answered, others needed the connection */
	DELIVERY_RUNNING, /* envelope commands, DATA */
	DELIVERY_BODY,    /* 354 came: the message */
	DELIVERY_EMPTY,   /* 354 came without a recipient: a lone dot was sent */
	DELIVERY_DOT,     /* the final dot was sent */
	DELIVERY_FAILED,  /* MAIL was refused */
	DELIVERY_DEAD,    /* `dead` answers all that comes */
	DELIVERY_DONE,    /* answered or cancelled */
	DELIVERY_STATES
} DeliveryState;

struct SmtpDelivery {
	TxPort port;          /* first */
	SmtpClientPool *pool; /* NULL after it was freed */
	const SmtpOutputConf *conf;
	Tx *tx;
	TxWatch watch;
	Defer start;
	DeliveryState state;
	SmtpDest *dest; /* while waiting */
	Timer wait;     /* for a connection of a full destination */
	SmtpClient *client;
	GList pool_link, wait_link;
	NetAddr addr;
	bool retried; /* a dead reused connection was replaced once */
	bool plain;   /* an opportunistic handshake failed: without TLS now */
	bool replied; /* something came back in this transaction */
	bool again; /* after PARKED: what the hop took before is asked once more, nobody is told */
	unsigned again_left;  /* recipients of those without a reply */
	Deadline quiet_since; /* the last reply to the envelope */
	bool mail_pushed, data_pushed, utf8;
	unsigned rcpts_pushed; /* seen; those that could not be sent are answered already */
	uint64_t offset;       /* of the message, given to the connection */
	bool bdat;             /* in chunks; `text` writes them, otherwise `writer` */
	SmtpDataWriter writer;
	SmtpTextWriter text;
	Deadline dot_sent; /* the end of the message was written; 0: not */
	Usec dot_took;     /* until its (last) reply */
	Response *dead;
	SmtpLmtp *lmtp; /* several recipients over LMTP; else NULL */
};

/* ---- client.c ---- */
/* For client_hello.c alone. */
void client_set_state(SmtpClient *client, ClientState state);
void client_fail(SmtpClient *client, int code, const char *text);
void client_fail_reply(SmtpClient *client);
void client_fail_junk(SmtpClient *client, const char *what);
/* The handshake failed and policy allows plain text: over a fresh connection. */
void client_lose_plain(SmtpClient *client);
void client_ready(SmtpClient *client); /* for transactions */

/* ---- client_hello.c ---- */
void client_on_connected(SmtpClient *client);
void client_on_tls_ready(SmtpClient *client);
void client_on_tls_failed(SmtpClient *client, const char *text);
void client_banner_reply(SmtpClient *client);
void client_ehlo_reply(SmtpClient *client);
void client_helo_reply(SmtpClient *client);
void client_starttls_reply(SmtpClient *client);
void client_auth_reply(SmtpClient *client);

/* ---- client.c ---- */
SmtpClient *client_new(SmtpDest *dest, SmtpDelivery *delivery);
void client_close(SmtpClient *client);
/* Closes it, politely when it is idle. */
void client_leave(SmtpClient *client);
/* Lends an idle client. */
void client_borrow(SmtpClient *client, SmtpDelivery *delivery);
typedef enum ClientAfter {
	CLIENT_CLEAN,  /* no transaction is open */
	CLIENT_RESET,  /* one is */
	CLIENT_BROKEN, /* close it */
} ClientAfter;
/* Gives it back; nothing is told to the delivery any more. */
void client_release(SmtpClient *client, ClientAfter after);
/* Sends what the pipeline allows. */
void client_pump(SmtpClient *client);
/* The delivery feeds the message by conn_write and calls client_body_progress after each helping.
 */
void client_begin_body(SmtpClient *client);
void client_body_progress(SmtpClient *client);
/* The end was written, and a PIPE_DOT pushed for each reply that is to come. */
void client_end_body(SmtpClient *client);
/* How long a delivery waits for a connection of a full destination. */
Usec client_wait_timeout(const SmtpOutputConf *conf);

/* ---- delivery.c: told by the client ---- */
void delivery_on_ready(SmtpDelivery *delivery);
void delivery_on_reply(SmtpDelivery *delivery, PipeKind kind, unsigned index,
		       const SmtpReply *reply);
void delivery_on_drained(SmtpDelivery *delivery);
typedef struct ClientLoss {
	int code; /* what to answer instead */
	const char *text;
	bool is_reply; /* the hop said so; otherwise our words */
	bool plain;    /* to be tried again without TLS */
	bool unsent;   /* not all that we wrote has left */
	bool reused;   /* the connection had served others before: its end may have nothing to do
			  with this transaction */
} ClientLoss;
/* The client is gone. */
void delivery_on_lost(SmtpDelivery *delivery, const ClientLoss *loss);
/* Its envelope is answered and the message is not there: the connection stands still. */
bool delivery_is_quiet(const SmtpDelivery *delivery);
/* By the pool, when it is quiet: gives its connection back until there is something to send. */
void delivery_park(SmtpDelivery *delivery);
/* By the pool, instead of a connection. */
void delivery_on_full(SmtpDelivery *delivery);
/* By the pool: it is freed. */
void delivery_on_pool_free(SmtpDelivery *delivery);

/* ---- delivery_body.c: the message, by DATA or BDAT ---- */
void delivery_set_state(SmtpDelivery *delivery, DeliveryState state);
void delivery_give_back(SmtpDelivery *delivery, ClientAfter after);
/* Whatever is asked for from now on gets this answer; `response` is moved. */
void delivery_die(SmtpDelivery *delivery, Response *response);
Blob *delivery_raw(const SmtpDelivery *delivery);
bool delivery_may_bdat(const SmtpDelivery *delivery);
/* The state is BODY: sends what can be sent. */
void delivery_feed(SmtpDelivery *delivery);

/* ---- delivery_lmtp.c: an answer to the message for each recipient ---- */
/* Before the first recipient is sent. */
void delivery_lmtp_begin(SmtpDelivery *delivery);
void delivery_lmtp_free(SmtpDelivery *delivery); /* NULL member is fine */
/* The reply to RCPT; false when it is to be told at once. */
bool delivery_lmtp_take_rcpt(SmtpDelivery *delivery, unsigned index, const SmtpReply *reply);
size_t delivery_answered(const SmtpDelivery *delivery); /* recipients, told or held back */
size_t delivery_accepted(const SmtpDelivery *delivery);
/* The message was sent: pushes what is to be answered. */
void delivery_push_dots(SmtpDelivery *delivery);
/* A reply after the dot; true when it was the last. */
bool delivery_lmtp_take_dot(SmtpDelivery *delivery, unsigned index, const SmtpReply *reply);
/* Answers the recipients that are held back, and returns the answer to the message; `missing` (not
 * counted) stands for replies that did not come. */
Response *delivery_lmtp_conclude(SmtpDelivery *delivery, Response *missing);
/* Tells what is held back; or only the refusals among it. */
void delivery_lmtp_tell(SmtpDelivery *delivery);
void delivery_lmtp_drop(SmtpDelivery *delivery);

/* ---- client_ticket.c ---- */
void client_keep_ticket(const SmtpClient *client);  /* before its connection is given up */
void client_offer_ticket(const SmtpClient *client); /* before its handshake */
void client_ticket_free(void *kept);

/* ---- client_pool.c ---- */
typedef enum PoolWant { POOL_ANY, POOL_FRESH } PoolWant;
/* A client, lent or connecting, or the delivery is put on the waiting list. */
void pool_acquire(SmtpDelivery *delivery, PoolWant want);
void pool_leave_waiting(SmtpDelivery *delivery);
void pool_client_idle(SmtpClient *client);   /* it became free */
void pool_client_closed(SmtpClient *client); /* it is no more */
