/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The inside of a server session: session.c has the states, the connection and the life of
 * transactions, session_cmd.c the commands, session_data.c the message, session_tls.c the way
 * into TLS, session_auth.c AUTH.  Private to smtp/; own worker only.
 *
 *   PROXY > TLS, HELLO
 *   TLS > HELLO     HELLO, READY, ENVELOPE, GIVEN_UP > TLS  (STARTTLS)
 *   HELLO > READY > MAIL_WAIT > ENVELOPE > RCPT_WAIT > ENVELOPE > BODY > DATA_WAIT > READY
 *           READY < MAIL_WAIT   (refused)  RCPT_WAIT > GIVEN_UP   BODY > BODY_DROP > READY
 *           READY < ENVELOPE, GIVEN_UP, BDAT, BDAT_FAILED     (RSET, EHLO)
 *           ENVELOPE > CHUNK > BDAT > CHUNK > DATA_WAIT       CHUNK > CHUNK_DROP > BDAT_FAILED
 *           HELLO, READY, ENVELOPE, GIVEN_UP > CHUNK_DROP > the same   (BDAT out of order)
 *   READY > AUTH > AUTH_WAIT > READY       AUTH > READY
 *   any line state > SLOW > the same       any > CLOSED
 *
 * Rules: only session_set_state writes the state; only session_drop_tx ends a transaction; after
 * session_close nothing but a return. */
#include "base/ids.h"
#include "smtp/command.h"
#include "smtp/data.h"
#include "smtp/session.h"

typedef enum SessionState {
	SESSION_PROXY,       /* for the PROXY header */
	SESSION_TLS,         /* handshake */
	SESSION_HELLO,       /* no EHLO or HELO yet */
	SESSION_READY,       /* no transaction */
	SESSION_AUTH,        /* 334 was sent */
	SESSION_AUTH_WAIT,   /* the password is being compared */
	SESSION_MAIL_WAIT,   /* for the answer to MAIL */
	SESSION_ENVELOPE,    /* MAIL was accepted */
	SESSION_RCPT_WAIT,   /* for the answer to the last recipient */
	SESSION_GIVEN_UP,    /* upstream was too slow; RCPT and DATA get 450 until RSET */
	SESSION_BODY,        /* 354 was sent */
	SESSION_BODY_DROP,   /* the verdict is known; the rest of the message is read and dropped */
	SESSION_CHUNK,       /* the bytes of a BDAT are being read */
	SESSION_CHUNK_DROP,  /* the same, and the verdict is known */
	SESSION_BDAT,        /* between the chunks of a message */
	SESSION_BDAT_FAILED, /* a chunk was refused; 503 until RSET */
	SESSION_DATA_WAIT,   /* for the answer to the message */
	SESSION_SLOW,        /* a reply to an error is being delayed */
	SESSION_CLOSED,
	SESSION_STATES
} SessionState;

/* What the reply to EHLO depends on. */
#define SESSION_EHLO_STARTTLS 1U
#define SESSION_EHLO_AUTH     2U
#define SESSION_EHLO_XCLIENT  4U
#define SESSION_EHLO_VARIANTS 8U

typedef struct SessionAuth SessionAuth;

struct SmtpSession {
	SmtpSessions *sessions;
	SmtpSession *next, *prev;
	const SmtpServiceConf *conf;
	Conn *conn;
	SessionState state;
	SessionState after_slow; /* in SLOW: where to go on */
	GString *held;           /* in SLOW: the reply; else NULL */
	Usec slow_delay;         /* in SLOW: how long */
	const char *slow_close;  /* in SLOW: the session ends then, for this reason; else NULL */
	SessionAuth *auth;       /* an exchange under way, or NULL */
	char *auth_user;         /* who it is; NULL: not known */
	unsigned auth_failures;
	bool peer_closed; /* its EOF came while input was held back */
	char *admitted;   /* the address that conf->leave wants; NULL: none */
	bool greeted;     /* 220 was sent */
	/* the chunk of a BDAT under way */
	bool chunk_last, chunk_fails; /* fails: and the transaction with it */
	SessionState after_chunk;     /* in CHUNK_DROP: where to go on, unless it fails */
	uint64_t chunk_left;          /* bytes to come */
	bool esmtp;
	char *helo;
	json_t *meta; /* smtp_meta of this greeting, shared by its transactions */
	HostPort *remote, *local;
	char id[IDS_SESSION_MAX];
	Deadline started; /* when; for the duration */
	unsigned errors, junk, transactions, accepted;

	/* the transaction; all of it is void when tx is NULL */
	Tx *tx;
	TxPort *port;
	TxWatch watch;
	bool utf8; /* MAIL asked for SMTPUTF8 */
	Blob *blob;
	Deadline tx_started;
	Deadline body_started; /* when the message, or a chunk that is dropped, began; 0: none is
				  under way */
	SmtpDataReader reader;
	SmtpNewline newline;
	bool binary;       /* BODY=BINARYMIME */
	Response *verdict; /* in BODY_DROP, CHUNK_DROP; in BDAT: upstream has refused */
};

struct SmtpSessions {
	Worker *worker;
	const SmtpServiceConf *conf;
	SmtpSession *head;
	unsigned count;
	bool draining;
	TlsContext *tls;                      /* counted; NULL: none */
	SmtpSecrets *secrets;                 /* counted; NULL: none */
	GString *out;                         /* scratch for replies */
	GString *ehlo[SESSION_EHLO_VARIANTS]; /* replies to EHLO, made when first wanted */
};

/* ---- session.c ---- */
void session_set_state(SmtpSession *session, SessionState state);
/* Starts the deadline of the state anew. */
void session_rearm(SmtpSession *session);
void session_reply(SmtpSession *session, int code, const char *status, const char *text);
void session_reply_response(SmtpSession *session, const Response *response, const char *ok_status);
/* The answer to the message: under LMTP as often as there are recipients who were accepted, counted
 * before the transaction ends. */
unsigned session_message_answers(const SmtpSession *session);
void session_reply_message(SmtpSession *session, const Response *response, unsigned answers);
/* A reply to something wrong: counted, delayed when there were many, 421 when too many. */
void session_error(SmtpSession *session, int code, const char *status, const char *text);
/* The same after `delay` (0: at once), uncounted; `close` (static; NULL: not) ends the session
 * behind it. */
void session_reply_late(SmtpSession *session, Usec delay, int code, const char *status,
			const char *text, const char *close);
/* To be called behind answers that did not come from the connection's own events. */
void session_after_reply(SmtpSession *session);
/* Fills in what all events say, and tells. */
void session_report(const SmtpSession *session, SmtpServerEvent *event);
/* smtp_meta as of now. */
void session_make_meta(SmtpSession *session);
/* Ends the session after what was written has been sent. */
void session_close(SmtpSession *session, const char *reason);
/* Makes a transaction of MAIL and gives it onward. */
void session_begin_tx(SmtpSession *session, Mailbox *from);
/* Stops the port, cancelling what is not answered; the session keeps the tx for its report. */
void session_stop_tx(SmtpSession *session);
/* The one end of every transaction. */
void session_drop_tx(SmtpSession *session, const char *reason, const Response *answer);
/* Forgets what the peer has said so far: as if it had just connected. */
void session_forget_peer(SmtpSession *session);
/* The greeting where there was none yet, and HELLO. */
void session_begin_dialogue(SmtpSession *session);
/* Looks whether the answer that the state waits for is there. */
void session_check_tx(SmtpSession *session);

/* ---- session_cmd.c ---- */
void session_command(SmtpSession *session, const char *line, size_t len);

/* Ends the session at once, unsent answers and all. */
void session_cut(SmtpSession *session, const char *reason);
/* The client's address is known: within the limits?  If not the session has ended. */
K_MUST_CHECK bool session_admit(SmtpSession *session);
/* session_admit, then the greeting or the handshake. */
void session_start(SmtpSession *session);
/* Within the limits of the client's address; counts. */
bool session_gate(const SmtpSession *session, SmtpGate gate);

/* ---- session_proxy.c ---- */
/* Waits for the header; false when the peer is none to believe. */
K_MUST_CHECK bool session_enter_proxy(SmtpSession *session);
size_t session_proxy_data(SmtpSession *session, const char *data, size_t len);
bool session_offers_xclient(const SmtpSession *session);
void session_xclient(SmtpSession *session, const char *arg, size_t len);

/* ---- session_tls.c ---- */
/* STARTTLS may be used now. */
bool session_offers_tls(const SmtpSession *session);
void session_starttls(SmtpSession *session);
/* Begins the handshake; the session knows nothing of its peer any more. */
void session_enter_tls(SmtpSession *session);

/* ---- session_auth.c ---- */
/* AUTH may be used now. */
bool session_offers_auth(const SmtpSession *session);
/* Longest line that may come now, bytes. */
size_t session_line_max(const SmtpSession *session);
void session_auth(SmtpSession *session, const char *arg, size_t len);
void session_auth_line(SmtpSession *session, const char *line, size_t len);
void session_auth_long_line(SmtpSession *session);
void session_auth_timeout(SmtpSession *session);
/* Ends an exchange without a word; safe without one. */
void session_auth_forget(SmtpSession *session);

/* ---- session_data.c ---- */
void session_begin_body(SmtpSession *session);
void session_begin_chunk(SmtpSession *session, uint64_t size, bool last);
/* `verdict` is set: drops what follows of the message. */
void session_refuse_body(SmtpSession *session);
size_t session_body(SmtpSession *session, const char *data, size_t len);
