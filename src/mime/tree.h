/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Structure of a message (RFC 2046 5): parts as byte ranges of the Blob, found in one pass over
 * its lines, with everything that is wrong noted and nothing refused.  The splitting is our own
 * and not GMime's because the verdicts of message validation need defects that GMime does not
 * report (missing start or close boundary, base64 on containers) and because ranges keep memory
 * small whatever the message's size.
 *
 * Limits do not fail: what is nested too deep or beyond the number of parts stays an opaque leaf.
 * Any one thread. */
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "mime/header.h"
#include "mime/value.h"
#include "tx/blob.h"

#define MIME_PARTS_MAX    10000
#define MIME_BOUNDARY_MAX 2048              /* bytes; longer: the multipart is a leaf */
#define MIME_HEADERS_MAX  (4 * 1024 * 1024) /* header bytes of all parts held */

typedef enum MimeKind { MIME_LEAF, MIME_MULTIPART, MIME_MESSAGE } MimeKind;

typedef enum MimeEncoding {
	MIME_IDENTITY, /* also unknown ones */
	MIME_BASE64,
	MIME_QUOTED_PRINTABLE
} MimeEncoding;

typedef enum MimeDefect {
	MIME_DEFECT_HEADER = 1 << 0,       /* a line that is no header line; limits of header.h */
	MIME_DEFECT_NO_BOUNDARY = 1 << 1,  /* no boundary parameter */
	MIME_DEFECT_NO_START = 1 << 2,     /* no boundary line */
	MIME_DEFECT_NO_CLOSE = 1 << 3,     /* no closing boundary line */
	MIME_DEFECT_ENCODED = 1 << 4,      /* a multipart or message/rfc822 that is encoded */
	MIME_DEFECT_TOO_DEEP = 1 << 5,     /* left a leaf: max_depth */
	MIME_DEFECT_TOO_MANY = 1 << 6,     /* left a leaf: parts or header bytes */
	MIME_DEFECT_CONTENT_TYPE = 1 << 7, /* not well formed */
} MimeDefect;

/* Where the scan stands in a multipart; afterwards: how far it came. */
typedef enum MimeBounds { MIME_PREAMBLE, MIME_IN_PARTS, MIME_EPILOGUE } MimeBounds;

typedef struct MimeNode MimeNode;
struct MimeNode {
	MimeNode *parent;    /* NULL: the root */
	GPtrArray *children; /* MimeNode*, owned; NULL for leaves */
	MimeKind kind;
	unsigned depth;    /* 0 for the root */
	unsigned defects;  /* MimeDefect bits of this node alone */
	GString *block;    /* header lines */
	MimeHeader header; /* points into block */
	MimeValue type;    /* value "text/plain" when absent or unreadable */
	MimeEncoding encoding;
	char *boundary; /* of a multipart */
	MimeBounds bounds;
	uint64_t body_at, body_len;
};

typedef struct MimeTree {
	MimeNode *root;
	unsigned parts;   /* nodes */
	unsigned defects; /* of all nodes */
} MimeTree;

/* Nodes deeper than `max_depth` are not taken apart.  Fails only when the blob cannot be read. */
K_MUST_CHECK MimeTree *mime_tree_new(const Blob *blob, unsigned max_depth, GError **ret_error);
void mime_tree_free(MimeTree *tree); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MimeTree, mime_tree_free)

/* A header block as a node of its own (text/rfc822-headers, delivery-status blocks) is scanned
 * with this: what Content-Transfer-Encoding says. */
MimeEncoding mime_encoding_of(const MimeHeader *header);
