/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Canonical forms of header fields and bodies (RFC 6376 3.4), bodies as they stream by.  Pure. */
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum CanonForm { CANON_SIMPLE, CANON_RELAXED, CANON_FORMS } CanonForm;

/* Appends one field, given without its last line end, with CRLF behind it. */
void canon_field(CanonForm form, const char *field, size_t len, GString *out);

typedef void CanonSink(void *arg, const char *data, size_t len);

#define CANON_BUFFER 1024

typedef struct CanonBody {
	CanonForm form;
	CanonSink *sink;
	void *arg;
	uint64_t len;    /* canonical bytes so far */
	uint64_t breaks; /* line ends not yet passed on: they count only when something follows */
	bool space;      /* relaxed: white space not yet passed on */
	bool cr;         /* a CR that may begin a line end */
	bool any;        /* something was passed on */
	size_t used;
	char buffer[CANON_BUFFER];
} CanonBody;

void canon_body_init(CanonBody *body, CanonForm form, CanonSink *sink, void *arg);
/* In pieces of any size. */
void canon_body_feed(CanonBody *body, const char *data, size_t len);
void canon_body_end(CanonBody *body); /* the last bytes reach the sink */
